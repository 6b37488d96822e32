"""What happens to folders by themselves: the trash gives them up, who needs one keeps it, dot folders come
along."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from raw_requests import Raw

from argosy.infra.system import SystemIds
from argosy.model.access import OWNER
from argosy.model.folders import DAY_MS, TRASH_DAYS, Folder
from argosy.model.task import FileMount, Task, VolumeMount
from argosy.model.tree import Tree
from argosy.server.folder_mounts import FolderMounts, with_dots
from argosy.server.folders import Folders
from argosy.testing.builders import a_job
from argosy.testing.idle_server import IdleServer
from argosy.testing.virtual_time import FixedClock


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock()


@pytest.fixture
def moved(clock: FixedClock) -> Iterator[IdleServer]:
    with IdleServer(clock=clock) as server:
        yield server


def make(server: IdleServer, name: str, **more: object) -> dict[str, str]:
    made = Raw(server.socket).ask("POST", "/folders", {"name": name, "user": "ann", **more})
    assert made.status == 200, made.body
    row: dict[str, str] = made.json
    return row


def prune(server: IdleServer) -> int:
    found: int = server.do(server.application.housekeeping.prune()).files
    return found


def row_of(server: IdleServer, folder: str) -> Folder | None:
    found = server.do(server.store.snapshot()).people.get(folder)
    assert found is None or isinstance(found, Folder)
    return found


def test_the_trash_gives_a_folder_up_when_its_time_is_over(moved: IdleServer, clock: FixedClock) -> None:
    raw = Raw(moved.socket)
    old, kept = make(moved, "old")["id"], make(moved, "kept")["id"]
    home = moved.home / "folders"
    (home / old / "file").write_bytes(b"x" * 1000)
    trashed = raw.ask("PUT", "/folders/old", {"trashed": True}).json
    assert trashed["purge_at_ms"] == clock.now_ms() + TRASH_DAYS * DAY_MS
    clock.advance(TRASH_DAYS * 86_400 - 1)
    assert prune(moved) == 0 and (home / ".argosy" / "trash" / old / "file").exists()
    clock.advance(1)
    assert prune(moved) == 1
    assert not (home / ".argosy" / "trash" / old).exists() and row_of(moved, old) is None
    assert (home / kept).is_dir() and raw.ask("GET", f"/folders/{old}").status == 404
    assert prune(moved) == 0


def test_a_purge_that_a_crash_cut_off_is_finished_and_nothing_is_restored(moved: IdleServer) -> None:
    raw, old = Raw(moved.socket), make(moved, "old")["id"]
    raw.ask("PUT", "/folders/old", {"trashed": True})
    row = row_of(moved, old)
    assert row is not None
    moved.do(moved.store.commit([msgspec.structs.replace(row, is_going=True)]))
    shutil.rmtree(moved.home / "folders" / ".argosy" / "trash" / old)  # and then the server was killed
    back = raw.ask("PUT", f"/folders/{old}", {"trashed": False})
    assert (back.status, back.json["what"]) == (409, "`old` is being removed for good")
    assert prune(moved) == 1 and row_of(moved, old) is None


def test_a_folder_of_a_volume_that_is_away_stays_in_the_trash(
    moved: IdleServer, clock: FixedClock, tmp_path: Path
) -> None:
    raw, nas = Raw(moved.socket), tmp_path / "nas"
    nas.mkdir()
    raw.ask("POST", "/volumes", {"name": "nas", "path": str(nas)})
    old = make(moved, "old", volume="nas")["id"]
    raw.ask("PUT", "/folders/old", {"trashed": True})
    clock.advance(TRASH_DAYS * 86_400)
    nas.rename(tmp_path / "away")
    nas.mkdir()
    assert prune(moved) == 0 and row_of(moved, old) is not None
    nas.rmdir()
    (tmp_path / "away").rename(nas)
    assert prune(moved) == 1 and not list((nas / ".argosy" / "trash").iterdir())


def mounts_of(server: IdleServer) -> FolderMounts:
    folders = Folders(server.store, FixedClock(), SystemIds(), str(server.home))
    return FolderMounts(folders, server.blobs)


def test_a_folder_in_use_cannot_be_trashed(moved: IdleServer, tmp_path: Path) -> None:
    raw = Raw(moved.socket)
    raw.ask("POST", "/volumes", {"name": "nas", "path": str(tmp_path), "node_path": "/nas"})
    make(moved, "runs", volume="nas")
    make(moved, "train")
    wanted = (
        VolumeMount(target="/out", folder="runs"),
        VolumeMount(target="/data", folder="train", read_only=True),
    )
    task: Task = moved.do(mounts_of(moved).resolved(Task(run="true", volumes=wanted), OWNER))
    assert [each.is_linked for each in task.volumes] == [True, False]
    job = a_job(id="job-1", task=task, managed=True, user="bob", number=7)
    moved.do(moved.store.commit([job]))
    held = raw.ask("PUT", "/folders/runs", {"trashed": True}).json
    assert held["what"] == "`runs` is in use by job 7 of bob"
    assert held["hint"] == "it can go to the trash when they have ended"
    assert raw.ask("PUT", "/folders/train", {"trashed": True}).status == 200  # a copy needs it no more
    row = moved.do(moved.store.load("job-1"))
    moved.do(moved.store.commit([ended(row)]))
    assert raw.ask("PUT", "/folders/runs", {"trashed": True}).status == 200


def ended(row: object) -> object:
    from argosy.model.phases import Outcome, WorkloadPhase

    return msgspec.structs.replace(
        row,
        phase=WorkloadPhase.FINISHED,
        outcome=Outcome.SUCCEEDED,
        ended_ms=1,  # type: ignore[type-var]
    )


def test_the_plan_says_what_nodes_get_and_what_it_costs(moved: IdleServer, tmp_path: Path) -> None:
    raw = Raw(moved.socket)
    raw.ask("POST", "/volumes", {"name": "nas", "path": str(tmp_path), "node_path": "/nas"})
    runs, train, dots = make(moved, "runs", volume="nas"), make(moved, "train"), make(moved, ".config")
    (moved.home / "folders" / train["id"] / "one").write_bytes(b"x" * 2048)
    (moved.home / "folders" / dots["id"] / "rc").write_bytes(b"x")
    volumes = [
        {"target": "/data", "folder": "train", "read_only": True},
        {"target": "/out", "folder": "runs"},
    ]
    told = raw.ask("POST", "/plan", {"task": {"run": "true", "volumes": volumes}, "user": "ann"}).json
    assert told["folders"] == [
        "`/data` is a copy of `train`, as it is at the launch: 1 file (2 KB) through the server, what a node "
        "has already does not travel again",
        f"`/out` is a link to /nas/{runs['id']}: all nodes see `runs` itself, nothing travels",
        "`~/.config` is a copy of `.config`, as it is at the launch: 1 file (1 B) through the server, what a "
        "node has already does not travel again",
    ]
    refused = raw.ask(
        "POST", "/plan", {"task": {"run": "true", "volumes": [{"target": "/d", "folder": "x"}]}}
    )
    assert refused.status == 404


def test_dot_folders_come_along_with_what_their_owner_launches(moved: IdleServer) -> None:
    mine = make(moved, ".config")["id"]
    make(moved, ".cache", user="bob")
    make(moved, "plain")
    (moved.home / "folders" / mine / "rc").write_bytes(b"x")
    raw = Raw(moved.socket)
    asked = {"tasks": [{"run": "true"}], "user": "ann", "project": "default"}
    launched = raw.ask("POST", "/jobs", asked)
    assert launched.status == 200, launched.body
    (row,) = moved.do(moved.store.snapshot()).workloads.values()
    (mount,) = row.spec.task.file_mounts
    assert (mount.target, mount.source) == ("~/.config", "folder:.config")
    tree = msgspec.json.decode(moved.do(moved.blobs.tree(mount.tree)), type=Tree)
    assert [each.path for each in tree.entries] == ["rc"]
    dots = moved.do(mounts_of(moved).dots(OWNER, "ann"))
    own = Task(run="true", file_mounts=(FileMount(target="~/.config", source="conf", tree="t"),))
    assert with_dots(own, dots) is own
    assert moved.do(mounts_of(moved).dots(OWNER, "")) == []


def test_dot_folders_are_in_every_session_of_their_owner(moved: IdleServer) -> None:
    mine = make(moved, ".config")["id"]
    (moved.home / "folders" / mine / "rc").write_bytes(b"x")
    raw = Raw(moved.socket)
    for user, name in (("ann", "one"), ("ann", "two"), ("bob", "other")):
        asked = {"app": "terminal", "name": name, "user": user, "isolation": "process"}
        made = raw.ask("POST", "/sessions", asked)
        assert made.status == 200, made.body
    rows = moved.do(moved.store.snapshot()).workloads.values()
    got = {row.name: [mount.target for mount in row.spec.task.file_mounts] for row in rows}
    assert got == {"one": ["~/.config"], "two": ["~/.config"], "other": []}


def test_a_dot_folder_too_large_for_a_copy_is_left_out_and_the_plan_says_so(
    moved: IdleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(moved, ".cache")["id"]
    for number in range(3):
        (moved.home / "folders" / made / str(number)).touch()
    monkeypatch.setattr("argosy.server.folder_mounts._DOT_FILES_MAX", 2)
    assert moved.do(mounts_of(moved).dots(OWNER, "ann")) == []
    (line,) = moved.do(mounts_of(moved).told(Task(run="true"), OWNER, "ann"))
    assert line == "`.cache` is left out: a dot folder that is copied has at most 2 files and 256 MB"


def test_what_comes_past_the_server_is_counted_within_a_minute_and_then_nothing_more_comes_in(
    moved: IdleServer, clock: FixedClock
) -> None:
    raw = Raw(moved.socket)
    made = make(moved, "train", quota_bytes=1_000_000)
    inside = moved.home / "folders" / made["id"]
    headers = {"Upload-Length": "300000", "Upload-Metadata": "path eA=="}
    begun = raw.ask("POST", "/folders/train/uploads", headers=headers)
    where = begun.headers["location"].removeprefix("/v1")
    (inside / "big").write_bytes(b"x" * 950_000)  # by a program on the volume
    clock.advance(15.0)
    moved.do(moved.application.housekeeping.look())
    used = raw.ask("GET", "/folders/train").json["used_bytes"]
    assert abs(used - 950_000) <= 9_500
    late = raw.ask("PATCH", where, b"y" * 300_000, {"Upload-Offset": "0"})
    assert (late.status, late.json["code"]) == (403, "over-quota")
    (inside / "big").unlink()
    clock.advance(30.0)
    moved.do(moved.application.housekeeping.look())
    assert raw.ask("GET", "/folders/train").json["used_bytes"] == used  # not all the time
    clock.advance(30.0)
    moved.do(moved.application.housekeeping.look())
    assert raw.ask("PATCH", where, b"y" * 300_000, {"Upload-Offset": "0"}).status == 204


def test_uploads_that_nobody_goes_on_with_are_forgotten(moved: IdleServer, clock: FixedClock) -> None:
    raw = Raw(moved.socket)
    make(moved, "train")
    headers = {"Upload-Length": "10", "Upload-Metadata": "path eA=="}
    assert raw.ask("POST", "/folders/train/uploads", headers=headers).status == 201
    parts = moved.home / "folders" / ".argosy" / "upload"
    prune(moved)
    assert len(list(parts.iterdir())) == 2
    for part in parts.iterdir():
        os.utime(part, (1.0, 1.0))
    clock.advance(8 * DAY_MS / 1000)
    prune(moved)
    assert list(parts.iterdir()) == []


def test_what_goes_in_and_out_is_told(moved: IdleServer, tmp_path: Path) -> None:
    raw = Raw(moved.socket)
    raw.ask("POST", "/volumes", {"name": "nas", "path": str(tmp_path)})
    make(moved, "train", volume="nas")
    told = {"Content-Type": "application/offset+octet-stream", "Upload-Metadata": "path eA=="}
    raw.ask("POST", "/folders/train/uploads", b"x" * 5000, {"Upload-Length": "5000", **told})
    for _ in range(2):
        raw.ask("GET", "/folders/train/content?path=x", headers={"Range": "bytes=0-99"})
    raw.ask("GET", "/folders/train/archive")
    io = raw.ask("GET", "/folders/train").json["io"]
    assert (io["writes"], io["written_bytes"], io["reads"]) == (1, 5000, 3)
    assert io["read_bytes"] == 200 + 512 + 5120 + 1024  # a tar has heads and whole blocks
    (nas, own) = raw.ask("GET", "/volumes").json["volumes"]
    assert nas["io"]["written_bytes"] == 5000 and own["io"].get("written_bytes", 0) == 0
    answer = raw.ask("GET", "/volumes/metrics")
    lines = answer.body.decode().splitlines()
    assert "# TYPE argosy_folder_written_bytes_total counter" in lines
    assert any(line.endswith(" 5000") and 'folder="train"' in line for line in lines if "written" in line)
    assert 'argosy_volume_read_bytes_total{volume="nas"} 6856' in lines
