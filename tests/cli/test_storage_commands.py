"""`argosy storage`: files and folders to and from buckets, by what people see."""

from __future__ import annotations

from pathlib import Path

import pytest
from command_line import CommandLine

from argosy.testing.fake_server import FakeServer


@pytest.fixture
def held(server: FakeServer) -> dict[str, bytes]:
    server.buckets.held["data"] = {"a/x": b"one", "a/deep/y": b"two", "b": b"three"}
    return server.buckets.held["data"]


def test_folders_go_there_and_come_back(argosy: CommandLine, held: dict[str, bytes]) -> None:
    folder = argosy.folder / "f"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "é.txt").write_bytes(b"x" * 3)
    (folder / "top").write_bytes(b"")
    said = argosy("storage", "cp", "-r", "f", "argosy://data/new")
    assert "Copied 2 files (3 B)." in said.err
    assert held["new/sub/é.txt"] == b"xxx"
    argosy.good("storage", "cp", "-r", "argosy://data/new", "back")
    assert (argosy.folder / "back/sub/é.txt").read_bytes() == b"xxx"
    argosy.good("storage", "cp", "argosy://data/a/x", "./")
    assert (argosy.folder / "x").read_bytes() == b"one"
    argosy.good("storage", "cp", "argosy://data/a/x", "argosy://data/copies/")
    assert held["copies/x"] == b"one"


def test_sync_copies_what_differs_and_removes_when_told(argosy: CommandLine, held: dict[str, bytes]) -> None:
    assert "Copied 2 files" in argosy("storage", "sync", "argosy://data/a", "here").err
    assert "Copied 0 files" in argosy("storage", "sync", "argosy://data/a", "here").err
    (argosy.folder / "here/x").write_bytes(b"ONE")  # as long, and not the same
    (argosy.folder / "here/deep/y").unlink()
    said = argosy("storage", "sync", "here", "argosy://data/a", "--delete", "--dryrun")
    assert said.out.splitlines() == [
        f"{argosy.folder}/here/x -> argosy://data/a/x",
        "remove argosy://data/a/deep/y",
    ]
    assert held["a/deep/y"] == b"two"
    said = argosy("storage", "sync", "here", "argosy://data/a", "--delete")
    assert "Copied 1 file (3 B).\nRemoved 1 object." in said.err
    assert {key: value for key, value in held.items() if key.startswith("a/")} == {"a/x": b"ONE"}


def test_moving_removes_the_source_last(argosy: CommandLine, held: dict[str, bytes]) -> None:
    argosy.good("storage", "mv", "-r", "argosy://data/a", "argosy://data/z")
    assert sorted(held) == ["b", "z/deep/y", "z/x"]
    (argosy.folder / "f").write_bytes(b"f")
    argosy.good("storage", "mv", "f", "argosy://data/")
    assert held["f"] == b"f"
    assert not (argosy.folder / "f").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (("cp", "nothing", "argosy://data/"), "there is no `FOLDER/nothing` here"),
        (("cp", "argosy://data/none", "x"), "there is no `argosy://data/none`"),
        (
            ("cp", "argosy://nowhere/x", "x"),
            "there is no bucket `nowhere`\nhint: `argosy storage create nowhere`",
        ),
        (
            ("rm", "argosy://data/a"),
            "there is no `argosy://data/a`\nhint: `argosy storage ls argosy://data/a`",
        ),
        (("cp", "x", "y"), "one side is on the server"),
        (("sync", "argosy://data/a", "argosy://data/b"), "one side is a folder here"),
        (("ls", "data"), "`data` is no place on the server"),
    ],
)
def test_what_cannot_be_is_said(
    argosy: CommandLine, held: dict[str, bytes], words: tuple[str, ...], text: str
) -> None:
    (argosy.folder / "x").mkdir()
    said = argosy("storage", *words)
    assert said.status != 0
    assert text in said.err.replace(str(argosy.folder), "FOLDER")


def test_an_object_whose_name_leads_out_of_the_folder_is_refused(
    argosy: CommandLine, held: dict[str, bytes]
) -> None:
    held["bad/../../out"] = b"!"
    said = argosy("storage", "cp", "-r", "argosy://data/bad", "here")
    assert said.status != 0
    assert "cannot be a file below a folder" in said.err
    assert not list(Path(argosy.folder.parent).rglob("out"))
