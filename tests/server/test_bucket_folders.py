"""Folders on a bucket, over HTTP: made, filled, read, counted, copied to nodes and mounted there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from raw_requests import Raw

from argosy.client.client import Client
from argosy.client.folders import FolderFiles
from argosy.infra.buckets import ChangedMeanwhile
from argosy.model.access import OWNER
from argosy.model.errors import ArgosyError
from argosy.model.mounts import ServedFolder
from argosy.model.task import Task, VolumeMount
from argosy.model.tree import Tree
from argosy.server.folder_mounts import FolderMounts
from argosy.testing.idle_server import IdleServer


@pytest.fixture
def store(raw: Raw, tmp_path: Path) -> Path:
    wrong = raw.ask("POST", "/volumes", {"name": "team", "path": "nope://x"})
    assert wrong.json["code"] == "usage" and "nope" in wrong.json["what"], wrong.body
    (tmp_path / "store").mkdir()
    made = raw.ask("POST", "/volumes", {"name": "team", "path": f"file://{tmp_path}/store/"})
    assert made.status == 200 and made.json["path"] == f"file://{tmp_path}/store", made.body
    folder = raw.ask("POST", "/folders", {"name": "train", "volume": "team", "user": "ann"})
    assert folder.status == 200, folder.body
    return tmp_path / "store" / str(folder.json["id"])


def test_a_bucket_holds_folders(raw: Raw, server: IdleServer, store: Path, tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "deep").mkdir(parents=True)
    (tree / "one").write_bytes(b"1" * 3_000_000)
    (tree / "deep" / "two").write_bytes(b"two")
    with Client(env={"ARGOSY_SERVER": f"unix://{server.socket}"}, start=False) as client:
        files = FolderFiles(client.location, "train")
        assert files.upload(tree, "in", replace=False).files == 2
        assert (store / "in" / "deep" / "two").read_bytes() == b"two"
        assert not list(store.rglob(".argosy*"))
        files.download_tree("in", tmp_path / "back")
        files.close()
        assert (tmp_path / "back" / "one").read_bytes() == b"1" * 3_000_000
        assert client.folder("train", count=True).used_bytes == 3_000_003
    part = raw.ask("GET", "/folders/train/content?path=in/deep/two", headers={"Range": "bytes=1-2"})
    assert (part.status, part.body) == (206, b"wo")
    raw.ask("PUT", "/folders/train", {"quota_bytes": 3_000_010})
    full = raw.ask(
        "POST", "/folders/train/uploads", headers={"Upload-Length": "100", "Upload-Metadata": "path eA=="}
    )
    assert full.json["code"] == "over-quota"
    assert raw.ask("PUT", "/folders/train", {"trashed": True}).status == 200
    assert raw.ask("GET", "/folders/train/files").status == 409
    assert raw.ask("PUT", "/folders/train", {"trashed": False}).status == 200
    cloned = raw.ask("POST", "/folders", {"name": "again", "clone_of": "train", "user": "ann"}).json
    assert (cloned["volume"], cloned["used_bytes"]) == ("team", 3_000_003)
    raw.ask("PUT", "/folders/train", {"trashed": True})
    assert raw.ask("DELETE", "/folders/train").status == 200
    assert not [each for each in store.rglob("*") if each.is_file()]
    refused = raw.ask("POST", "/volumes", {"name": "b", "path": "s3://x", "node_path": "/x"})
    assert refused.json["what"] == "s3://x is a bucket, which nodes see through the server"


def test_nodes_get_it_as_any_folder(raw: Raw, server: IdleServer, store: Path) -> None:
    raw.ask("POST", "/folders/train/files", {"path": "empty"})
    (store / "sub").mkdir(parents=True)
    (store / "sub" / "file").write_bytes(b"bytes")
    nodes = server.application.objects.folders
    mounts = FolderMounts(nodes.folders, server.blobs)
    read = VolumeMount(target="/d", folder="train", read_only=True)
    task: Task = server.do(mounts.resolved(Task(run="x", volumes=(read,)), OWNER))
    tree = msgspec.json.decode(server.do(server.blobs.tree(str(task.file_mounts[0].tree))), type=Tree)
    assert {(each.path, each.kind) for each in tree.entries} == {
        ("empty", "d"), ("sub", "d"), ("sub/file", "f"),
    }  # fmt: skip
    (served,) = server.do(
        mounts.resolved(Task(run="x", volumes=(VolumeMount(target="/d", folder="train"),)), OWNER)
    ).volumes
    assert served.is_served and not served.is_linked
    mount = ServedFolder(target="/d", folder=served.folder, sources=("folder://train",), mode="MOUNT")

    async def look() -> None:
        bucket = nodes.bucket(mount)
        (found,) = (await asyncio.to_thread(bucket.page, prefix="")).objects
        assert (found.key, found.size) == ("sub/file", 5)

        def fetch() -> bytes:
            return b"".join(bucket.read("sub/file", etag=found.etag))

        assert await asyncio.to_thread(fetch) == b"bytes"
        (store / "sub" / "file").write_bytes(b"other bytes")
        with pytest.raises((ChangedMeanwhile, ArgosyError), match="changed"):
            await asyncio.to_thread(fetch)

    server.do(look())
