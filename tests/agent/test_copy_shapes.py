"""Modes and links of copies: made below the copy and nowhere else, and noted for what may change."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from argosy.agent import shapes
from argosy.agent.shapes import Shape, apply, noted
from argosy.infra import agent_port


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    base = tmp_path / "copy"
    (base / "sub").mkdir(parents=True)
    for name in ("a", "sub/b"):
        (base / name).write_text(name)
        (base / name).chmod(0o600)
    return base


def mode(path: Path) -> int:
    return path.lstat().st_mode & 0o7777


def test_modes_and_links_are_made_and_noted(copy: Path, tmp_path: Path) -> None:
    record = str(tmp_path / "record")
    shape = Shape({"mode": 0o640, "modes": {"a": 0o4755}, "links": {"l": "a", "new/deep/l": "../../a"}})
    apply(record, str(copy), shape, ["a", "sub/b", "gone"])
    assert (mode(copy / "a"), mode(copy / "sub" / "b")) == (0o755, 0o640)
    assert shapes.links_below(str(copy)) == {"l": "a", "new/deep/l": "../../a"}
    assert noted(record, str(copy)).links == shape.links and noted(record, "/other").links == {}
    (copy / "mine").symlink_to("a")
    (copy / "l").unlink()
    (copy / "l").symlink_to("changed")
    apply(record, str(copy), Shape({"mode": 0o600, "links": {}}), ["a"])
    assert shapes.links_below(str(copy)) == {"l": "changed", "mine": "a"}, "what others made stays"
    assert shapes.mode_at(str(copy / "l")) == shapes.UNTOLD


def test_nothing_outside_is_touched(copy: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "b").write_text("x")
    (outside / "b").chmod(0o600)
    (copy / "sub" / "b").unlink()
    (copy / "sub").rmdir()
    (copy / "sub").symlink_to(outside)
    (copy / "a").unlink()
    (copy / "a").symlink_to(outside / "b")
    links = dict.fromkeys(("../up", "sub/in", "/abs", "a/b", "n/../../up", "nul\x00", "", "empty"), "x")
    told = Shape({"mode": 0o777, "links": links | {"empty": "", "nul2": "x\0"}})
    before = sorted(os.listdir(tmp_path))
    apply(str(tmp_path / "record"), str(copy), told, ["a", "sub/b", "../outside/b", "/etc/hostname"])
    assert sorted(os.listdir(tmp_path)) == sorted([*before, "record.shape"])
    assert os.listdir(outside) == ["b"] and mode(outside / "b") == 0o600
    assert shapes.links_below(str(copy)) == {"a": str(outside / "b"), "sub": str(outside)}


def test_both_ends_have_the_same_words() -> None:
    assert (shapes.LINK, shapes.UNTOLD) == (agent_port.LINK, agent_port.UNTOLD)
