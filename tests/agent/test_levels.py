"""Levels of isolation: looked at once for many agents of a machine, and again when something has changed."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from argosy.agent.levels import levels


class Machine:
    """A folder of programs whose `bwrap` counts its starts."""

    def __init__(self, folder: Path) -> None:
        self.programs = folder / "bin"
        self.programs.mkdir()
        self.shared = folder / "shares"
        self._starts = folder / "starts"
        self.install("echo fine")

    def install(self, does: str) -> None:
        new = self.programs / "bwrap.new"
        new.write_text(f"#!/bin/sh\necho one >> {self._starts}\n{does}\n")
        new.chmod(0o755)
        new.replace(self.programs / "bwrap")

    def starts(self) -> int:
        return len(self._starts.read_text().split()) if self._starts.exists() else 0


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    machine = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{machine.programs}:/usr/bin:/bin")
    return machine


def test_what_one_agent_has_found_the_next_one_knows(machine: Machine) -> None:
    first = levels(str(machine.shared))
    assert "sandbox" in first[0]
    assert levels(str(machine.shared)) == first
    assert machine.starts() == 1


def test_another_program_is_tried_again(machine: Machine) -> None:
    levels(str(machine.shared))
    machine.install("echo no permission")
    good, gaps = levels(str(machine.shared))
    assert "sandbox" not in good
    assert "no permission" in gaps["sandbox"]


def test_what_cannot_be_had_is_looked_at_again(machine: Machine) -> None:
    machine.install("echo no permission")
    assert "sandbox" not in levels(str(machine.shared))[0]
    levels(str(machine.shared))
    assert machine.starts() == 2, "who mends the machine sees it at once"


def test_it_is_looked_at_again_after_some_minutes(machine: Machine) -> None:
    levels(str(machine.shared))
    note = machine.shared / "levels"
    kept = json.loads(note.read_text())
    for other_s in (kept["found_s"] - 601, kept["found_s"] + 3600):  # and when the clock was set back
        note.write_text(json.dumps(kept | {"found_s": other_s}))
        before = machine.starts()
        levels(str(machine.shared))
        assert machine.starts() == before + 1


def test_a_note_that_was_cut_off_is_written_anew(machine: Machine) -> None:
    levels(str(machine.shared))
    (machine.shared / "levels").write_text('{"signs"')
    assert "sandbox" in levels(str(machine.shared))[0]
    levels(str(machine.shared))
    assert machine.starts() == 2


@pytest.mark.skipif(os.geteuid() != 0, reason="a folder of somebody else needs root")
def test_a_folder_of_somebody_else_is_not_believed(machine: Machine) -> None:
    levels(str(machine.shared))
    os.chown(machine.shared, 12345, 12345)
    levels(str(machine.shared))
    assert machine.starts() == 2
