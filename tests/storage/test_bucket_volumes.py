"""Folders of a volume that is a bucket: the same calls as on a disk, over real stores."""

from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.infra.buckets import Bucket
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.errors import ArgosyError
from argosy.server.folder_transfers import _tar
from argosy.storage.buckets.files import FolderBucket
from argosy.storage.folders import bucket_volume
from argosy.storage.folders.bucket_volume import BucketVolume
from argosy.storage.folders.uploads import Upload
from argosy.storage.shelf_bucket import ShelfBucket
from argosy.storage.shelf_folder import ShelfFolder


@pytest.fixture(params=["files", "shelf"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BucketVolume]:
    bucket: Bucket
    if request.param == "files":
        (tmp_path / "store").mkdir()
        bucket = FolderBucket(tmp_path / "store", f"file://{tmp_path}/store")
    else:
        shelf = ShelfFolder(tmp_path / "store", SystemClock(), SystemIds())
        bucket = ShelfBucket(shelf, "team", None, "", SystemClock())
        bucket.make()
    yield BucketVolume(bucket, "folders", tmp_path / "spool")
    bucket.close()


def put(
    volume: BucketVolume, path: str, data: bytes, folder: str = "fld-1", *, replace: bool = False
) -> None:
    upload = Upload(id=SystemIds().new("up"), folder_id=folder, path=path, size=len(data), replace=replace)
    volume.uploads.begin(upload)
    volume.uploads.append(upload, 0, data)
    volume.uploads.finish(upload, volume.beneath(folder))


def read(volume: BucketVolume, path: str) -> bytes:
    fd, size = volume.beneath("fld-1").open_file(path)
    with os.fdopen(fd, "rb") as file:
        data = file.read()
    assert len(data) == size
    return data


def refused(call: object, *args: object, **more: object) -> str:
    with pytest.raises(ArgosyError) as caught:
        call(*args, **more)  # type: ignore[operator]
    return caught.value.code


def test_files_and_folders_by_path(volume: BucketVolume) -> None:
    below = volume.beneath("fld-1")
    assert below.list("") == [] and volume.used_bytes("fld-1") == 0
    put(volume, "runs/7/log", b"one")
    put(volume, "runs/a.txt", b"four")
    below.make_folder("empty/deep")
    below.make_folder("empty/deep")
    assert [(each.name, each.kind) for each in below.list("")] == [("empty", "folder"), ("runs", "folder")]
    assert [(each.name, each.kind, each.size) for each in below.list("runs")] == [
        ("7", "folder", 0), ("a.txt", "file", 4),
    ]  # fmt: skip
    assert [each.name for each in below.list("runs/a.txt")] == ["a.txt"]
    assert below.list("empty/deep") == [] and below.look("empty").kind == "folder"
    assert read(volume, "runs/7/log") == b"one" and below.size_of("runs/a.txt") == 4
    assert refused(put, volume, "runs/7/log", b"x") == "conflict"
    put(volume, "runs/7/log", b"other", replace=True)
    assert read(volume, "runs/7/log") == b"other"
    assert refused(put, volume, "runs/a.txt/below", b"x") == "usage"
    assert refused(put, volume, "runs", b"x", replace=True) == "conflict"
    for path in ("../x", "/../../etc/passwd", "a/../../x", ".argosy-folder", "nul\0"):
        assert refused(below.open_file, path) == "usage", path
        assert refused(put, volume, path, b"x") == "usage", path
    assert refused(below.open_file, "nowhere") == "not-found" == refused(below.list, "nowhere")
    assert refused(below.open_file, "runs") == "usage" == refused(below.remove, "")
    assert refused(below.make_link, "l", "x", replace=False) == "unsupported"
    assert volume.used_bytes("fld-1") == 9


def test_what_is_removed_and_renamed(volume: BucketVolume) -> None:
    below = volume.beneath("fld-1")
    for path in ("a/b/one", "a/b/two", "a/three", "four"):
        put(volume, path, path.encode())
    below.rename("a/b", "c/d")
    assert read(volume, "c/d/one") == b"a/b/one" and below.stat("a/b") is None
    below.rename("four", "a/three", replace=True)
    assert read(volume, "a/three") == b"four" and below.stat("four") is None
    assert refused(below.rename, "a/three", "c/d/one") == "conflict"
    assert refused(below.rename, "c", "c/inside") == "usage"
    assert refused(below.rename, "gone", "x") == "not-found"
    assert below.remove("a/three") == 4
    assert below.look("a").kind == "folder", "the folder that a file was in stays"
    assert below.remove("c") == len("a/b/onea/b/two")
    assert {each.name for each in below.list("")} - {"c"} == {"a"}  # a plain folder may keep an empty `c`


def test_a_walk_an_archive_and_a_file_that_another_replaces(volume: BucketVolume) -> None:
    below = volume.beneath("fld-1")
    for path in ("a/one", "a/b/two", "z"):
        put(volume, path, path.encode())
    below.make_folder("e")
    assert [(name, fd is None) for name, fd, _ in below.walk("", opens=False)] == [
        ("a", True), ("a/b", True), ("a/b/two", False), ("a/one", False), ("e", True), ("z", False),
    ]  # fmt: skip
    with tarfile.open(fileobj=io.BytesIO(b"".join(_tar(below, "a")))) as packed:
        assert packed.getnames() == ["b", "b/two", "one"]
    first, before = below.open_file("z"), below.stat("z")
    put(volume, "z", b"changed", replace=True)
    assert os.pread(first[0], 10, 0) == b"z", "who reads goes on with what it was"
    os.close(first[0])
    after = below.stat("z")
    assert before is not None and after is not None and before.st_ino != after.st_ino
    assert read(volume, "z") == b"changed"


def test_trash_clone_and_the_end(volume: BucketVolume, monkeypatch: pytest.MonkeyPatch) -> None:
    put(volume, "a/one", b"1" * 1000)
    put(volume, "other", b"x", folder="fld-2")
    volume.clone("fld-1", "fld-3")
    volume.trash("fld-1")
    volume.restore("fld-1")
    assert read(volume, "a/one") == b"1" * 1000 and volume.used_bytes("fld-3") == 1000
    assert volume.purge("fld-1") and volume.used_bytes("fld-1") == 0
    assert volume.used_bytes("fld-2") == 1
    monkeypatch.setattr(bucket_volume, "_SPOOL_BYTES", 1500)
    for number in range(3):
        put(volume, f"n{number}", bytes([number]) * 700)
        read(volume, f"n{number}")
    spool = sum(each.stat().st_size for each in (volume.root / "read").iterdir())
    assert spool <= 1500, "what was read long ago goes"
