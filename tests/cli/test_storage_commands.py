"""`argosy storage`: files and folders to and from buckets, by what people see."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec
import pytest
from command_line import CommandLine

from argosy.api.planning import PlanReply
from argosy.model.task import Task
from argosy.testing.builders import a_task
from argosy.testing.fake_memory import default_plan
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
            ("ls", "argosy://No_Name"),
            "there is no bucket `No_Name`\nhint: no bucket can be called `No_Name`: a",
        ),
        (
            ("rm", "argosy://data/a"),
            "there is no `argosy://data/a`\nhint: `argosy storage ls argosy://data/a`",
        ),
        (("cp", "x", "y"), "one side is an object store, and neither is"),
        (("sync", "x", "y"), "one side is an object store, and neither is"),
        (("sync", "nothing", "argosy://data/b"), "there is no folder `FOLDER/nothing` here"),
        (("ls", "data"), "`data` is no place in a store: write s3://BUCKET/KEY"),
    ],
)
def test_what_cannot_be_is_said(
    argosy: CommandLine, held: dict[str, bytes], words: tuple[str, ...], text: str
) -> None:
    (argosy.folder / "x").mkdir()
    said = argosy("storage", *words)
    assert said.status != 0
    assert text in said.err.replace(str(argosy.folder), "FOLDER")


def test_what_is_no_file_keeps_its_place(argosy: CommandLine, held: dict[str, bytes]) -> None:
    """A copy to /dev/null by root would be the last one that anybody throws away."""
    held |= {"a": b"one", "f/pipe": b"two"}
    os.mkfifo(argosy.folder / "pipe")
    (argosy.folder / "out").symlink_to("/proc/self/fd/1")
    for words in (("argosy://data/a", "pipe"), ("argosy://data/a", "out"), ("-r", "argosy://data/f", ".")):
        said = argosy("storage", "cp", *words)
        assert said.status == 2
        assert f"/{words[-1]}` is there and is no file" in said.err or "/pipe` is there" in said.err
        assert "hint: name a file or a folder; `argosy storage cat` prints an object" in said.err
    assert (argosy.folder / "pipe").is_fifo() and (argosy.folder / "out").is_symlink()
    assert not list(argosy.folder.glob(".*.part"))


def test_an_object_whose_name_leads_out_of_the_folder_is_refused(
    argosy: CommandLine, held: dict[str, bytes]
) -> None:
    held["bad/../../out"] = b"!"
    said = argosy("storage", "cp", "-r", "argosy://data/bad", "here")
    assert said.status != 0
    assert "cannot be a file below a folder" in said.err
    assert not list(Path(argosy.folder.parent).rglob("out"))


def test_patterns_choose_what_is_copied(argosy: CommandLine, held: dict[str, bytes]) -> None:
    held |= {"t/1/a.csv": b"1", "t/1/b.txt": b"2", "t/2/a.csv": b"33"}
    argosy.good("storage", "cp", "argosy://data/t/*/a.csv", "here")
    here = argosy.folder / "here"
    assert sorted(str(each.relative_to(here)) for each in here.rglob("*.*")) == ["1/a.csv", "2/a.csv"]
    said = argosy("storage", "sync", "argosy://data/t", "there", "--include", "*.csv", "--exclude", "2/**")
    assert "Copied 1 file (1 B)." in said.err
    said = argosy("storage", "rm", "argosy://data/t/*/*.csv", "--dryrun")
    assert said.out.splitlines() == ["remove argosy://data/t/1/a.csv", "remove argosy://data/t/2/a.csv"]
    assert argosy("storage", "du", "argosy://data/t/**/*.csv").out == "2 objects, 3 B\n"


def test_what_a_disk_cannot_hold_is_told_and_the_rest_is_copied(
    argosy: CommandLine, held: dict[str, bytes]
) -> None:
    held |= {"n/x": b"1", "n/x/y": b"2", "n/" + "z" * 300: b"3", "n/ok": b"4"}
    said = argosy("storage", "cp", "-r", "argosy://data/n", "here")
    assert said.status != 0
    assert "error: 2 of 4 files were not copied" in said.err
    assert "  the object `x` cannot be a file below a folder: it is a folder, too" in said.err
    assert (
        f"  the object `{'z' * 300}` cannot be a file below a folder: a part of it has more than" in said.err
    )
    assert (argosy.folder / "here/ok").read_bytes() == b"4"
    assert (argosy.folder / "here/x/y").read_bytes() == b"2"


def test_a_transfer_shows_what_it_costs_before_it_begins(argosy: CommandLine) -> None:
    planned = [
        "s3://a (aws/us-east-1) -> gs://b",
        "2 files, 27.9 GB to copy",
        "egress about $2.70 ($0.09 a GB, 2026-11-01)",
        "about 1m 40s",
    ]
    said = argosy("storage", "transfer", "s3://a", "gs://b", "--dryrun", "--on", "server")
    assert said.out.splitlines() == planned
    said = argosy("storage", "transfer", "s3://a", "gs://b", "--dryrun")
    assert said.out.splitlines() == [*planned, "this server copies it: no node can be had in aws/us-east-1"]
    said = argosy("storage", "transfer", "s3://a", "gs://b", "--yes")
    assert "Copied 2 files (27.9 GB), checked." in said.err
    assert "trf-1" in argosy("storage", "transfers").out
    assert "trf-1 is called off" in argosy("storage", "transfers", "trf-1", "--cancel").err


def test_a_node_near_the_data_copies_where_one_can_be_had(argosy: CommandLine, server: FakeServer) -> None:
    refused = argosy("storage", "transfer", "s3://a", "gs://b", "--on", "node")
    assert refused.status == 3
    assert "no node near the data can copy it: no node can be had in aws/us-east-1" in refused.err

    def planned(task: Task) -> PlanReply:
        return msgspec.structs.replace(default_plan(a_task()), id="pln-1")

    server.plan_of = planned
    said = argosy("storage", "transfer", "s3://a", "gs://b", "--yes")
    assert said.out.splitlines()[4:6] == [
        "on a node near the data (local/this machine): egress $0.60, node about $0, about 4m",
        "a node near the data copies it",
    ]
    assert "managed job 1 copies it" in said.err
    assert "Copied 2 files (27.9 GB), checked." in said.err  # both sides were compared at the end
    (job,) = server.jobs.values()
    assert job.name == "transfer"
