"""Folders in tasks: a link where nodes see the volume, a copy where a folder is only read, else a refusal."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest
from raw_requests import Raw

from argosy.infra.system import SystemClock, SystemIds
from argosy.model.access import OWNER
from argosy.model.errors import ArgosyError
from argosy.model.task import FileMount, Task, VolumeMount
from argosy.model.tree import Tree
from argosy.server.folder_mounts import FolderMounts
from argosy.server.folders import Folders
from argosy.testing.idle_server import IdleServer


def resolved(server: IdleServer, *wanted: VolumeMount) -> tuple[FileMount, ...]:
    folders = Folders(server.store, SystemClock(), SystemIds(), str(server.home))
    mounts = FolderMounts(folders, server.blobs)
    task: Task = server.do(mounts.resolved(Task(run="true", volumes=wanted), OWNER))
    return task.file_mounts


def tree_of(server: IdleServer, mount: FileMount) -> Tree:
    assert mount.tree is not None
    return msgspec.json.decode(server.do(server.blobs.tree(mount.tree)), type=Tree)


def test_what_is_only_read_is_copied_and_links_are_not_followed(raw: Raw, server: IdleServer) -> None:
    made = raw.ask("POST", "/folders", {"name": "train", "user": "ann"}).json
    inside = server.home / "folders" / made["id"]
    raw.ask("POST", "/folders/train/files", {"path": "images/a"})
    (inside / "images" / "one").write_bytes(b"x" * 5000)
    (inside / "images" / "out").symlink_to("/etc")
    (mount,) = resolved(
        server, VolumeMount(target="/data", folder="train", sub_path="images", read_only=True)
    )
    assert (mount.target, mount.source, mount.is_file) == ("/data", "folder:train/images", False)
    tree = tree_of(server, mount)
    assert [(each.path, each.kind, each.size, each.target) for each in tree.entries] == [
        ("a", "d", 0, ""), ("one", "f", 5000, ""), ("out", "l", 0, "/etc"),
    ]  # fmt: skip
    again = resolved(server, VolumeMount(target="/data", folder="train", sub_path="images", read_only=True))
    assert again == (mount,)


def test_where_nodes_see_the_volume_it_is_a_link(raw: Raw, server: IdleServer, tmp_path: Path) -> None:
    raw.ask("POST", "/volumes", {"name": "nas", "path": str(tmp_path), "node_path": "/nas/argosy"})
    made = raw.ask("POST", "/folders", {"name": "runs", "volume": "nas"}).json
    (mount,) = resolved(server, VolumeMount(target="~/out", folder="runs"))
    (link,) = tree_of(server, mount).entries
    assert mount.is_file and (link.kind, link.target) == ("l", f"/nas/argosy/{made['id']}")


@pytest.mark.parametrize(
    ("wanted", "what"),
    [
        (VolumeMount(target="/d", folder="nothing"), "there is no folder `nothing`"),
        (
            VolumeMount(target="/d", folder="train", sub_path="one"),
            "`/d`: `one` of `train` is a file, which is only read",
        ),
        (VolumeMount(target="/d", folder="train", sub_path="no", read_only=True), "there is no `no`"),
        (
            VolumeMount(target="/d", folder="train", sub_path="../x", read_only=True),
            "`../x` is no path within a folder",
        ),
    ],
)
def test_what_is_refused(raw: Raw, server: IdleServer, wanted: VolumeMount, what: str) -> None:
    made = raw.ask("POST", "/folders", {"name": "train"}).json
    (server.home / "folders" / made["id"] / "one").touch()
    with pytest.raises(ArgosyError) as caught:
        resolved(server, wanted)
    assert caught.value.what == what and caught.value.hint


def test_a_size_makes_the_folder_that_is_missing(raw: Raw, server: IdleServer) -> None:
    """The first who names it; later its size says nothing. Without a name it is a folder of the node."""
    mounts = FolderMounts(server.application.objects.folders.folders, server.blobs)
    wanted = VolumeMount(target="/d", folder="new", size_bytes=5 << 30, sub_path="a/b")
    scratch = VolumeMount(target="/s", folder="", size_bytes=1 << 30)
    task = Task(run="true", volumes=(wanted, scratch))
    assert server.do(mounts.told(task, OWNER)) == (
        "`/d` is a new folder, `new`, with a quota of 5 GB",
        "`/s` is an empty folder on each node's own disk, and goes with the node; 1 GB are not set aside",
    )
    assert raw.ask("GET", "/folders/new").status == 404, "a plan makes nothing"
    for _ in range(2):
        ready = server.do(mounts.resolved(task, OWNER, "ann"))
    made = raw.ask("GET", "/folders/new").json
    assert (made["owner"], made["quota_bytes"]) == ("ann", 5 << 30)
    assert [each.is_served for each in ready.volumes] == [True, False]
    (mount,) = ready.file_mounts
    assert mount.target == "/s" and not tree_of(server, mount).entries
    lines = server.do(mounts.told(task, OWNER))
    assert lines[0].startswith("`/d` is `new/a/b` itself, mounted through the server where nodes have rclone")
    assert "elsewhere a copy, 0 files (0 B), whose changes go back at the end" in lines[0]
