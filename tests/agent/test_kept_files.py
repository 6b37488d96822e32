"""What programs keep is read as a tree: whole files only, and nothing outside of the folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from argosy.agent.kept import Kept
from argosy.agent.orders import Refused


def _names(found: dict[str, object]) -> list[str]:
    entries = found["entries"]
    assert isinstance(entries, list)
    return [entry["path"] for entry in entries]


def test_files_that_may_be_half_written_are_only_named(tmp_path: Path) -> None:
    kept, folder = Kept(str(tmp_path)), tmp_path / "checkpoints" / "job"
    folder.mkdir(parents=True)
    (folder / "old").write_text("old")
    os.utime(folder / "old", (1, 1))
    (folder / "new").write_text("new")
    (folder / "next.tmp").write_text("half")
    found = kept.scan("~/checkpoints/job", 60)
    assert (_names(found), found["unsettled"]) == (["old"], ["new"])
    assert _names(kept.scan("~/checkpoints/job", 0)) == ["new", "old"]


def test_what_a_program_has_open_for_writing_waits_until_it_is_closed(tmp_path: Path) -> None:
    kept, folder = Kept(str(tmp_path)), tmp_path / "job"
    (folder / "draft.tmp").mkdir(parents=True)
    (folder / "draft.tmp" / "part").write_text("of a folder that is renamed when it is complete")
    (folder / "read").write_text("whole")
    with (folder / "log").open("w") as log, (folder / "read").open():
        log.write("half")
        log.flush()
        for name in ("log", "read"):
            os.utime(folder / name, (1, 1))
        found = kept.scan("~/job", 2)
        assert (_names(found), found["unsettled"]) == (["read"], ["log"])
        assert _names(kept.scan("~/job", 0)) == ["log", "read"]  # the last look, when programs have ended
    os.utime(folder / "log", (2, 2))
    assert _names(kept.scan("~/job", 2)) == ["log", "read"]


def test_a_chunk_is_what_was_scanned_or_nothing(tmp_path: Path) -> None:
    kept = Kept(str(tmp_path))
    (tmp_path / "job").mkdir()
    path = tmp_path / "job" / "large"
    path.write_bytes(b"a" * (8 << 20) + b"b")
    [entry] = kept.scan("~/job", 0)["entries"]  # type: ignore[misc]
    first, second = entry["chunks"]
    assert (len(kept.read(first) or b""), kept.read(second)) == (8 << 20, b"b")
    path.write_bytes(b"c")
    assert kept.read(second) is None
    assert kept.read("0" * 64) is None


def test_links_are_kept_and_not_followed(tmp_path: Path) -> None:
    kept = Kept(str(tmp_path / "home"))
    (tmp_path / "home" / "job" / "step").mkdir(parents=True)
    (tmp_path / "secret").write_text("no")
    (tmp_path / "home" / "job" / "latest").symlink_to("step")
    (tmp_path / "home" / "job" / "out").symlink_to(tmp_path / "secret")
    entries = kept.scan("~/job", 0)["entries"]
    assert [(each["path"], each["kind"]) for each in entries] == [  # type: ignore[attr-defined]
        ("latest", "l"),
        ("out", "l"),
        ("step", "d"),
    ]


@pytest.mark.parametrize("target", ["~/", "/etc", "~/../x", ".."])
def test_only_folders_below_the_home_are_read(tmp_path: Path, target: str) -> None:
    with pytest.raises(Refused, match="not a folder below"):
        Kept(str(tmp_path)).scan(target, 0)


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert Kept(str(tmp_path)).scan("~/job", 0) == {"entries": [], "unsettled": []}
