"""Folders over HTTP: uploads that resume as tus 1.0 says, ranges, archives, quotas, trash; our own client."""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path

import pytest
from raw_requests import Raw

from argosy.api.folders import FolderChange
from argosy.client.client import Client
from argosy.client.folders import FolderFiles
from argosy.model.errors import ArgosyError
from argosy.storage.folders import uploads
from argosy.testing.idle_server import IdleServer


def metadata(**told: str) -> str:
    return ",".join(f"{key} {base64.b64encode(value.encode()).decode()}" for key, value in told.items())


def make(raw: Raw, name: str, **more: object) -> dict[str, object]:
    answer = raw.ask("POST", "/folders", {"name": name, "user": "ann", **more})
    assert answer.status == 200, answer.body
    made: dict[str, object] = answer.json
    return made


def test_tus_from_announcement_to_file(raw: Raw) -> None:
    make(raw, "train")
    data = os.urandom(100_000)
    told = metadata(path="runs/1/log.bin", sha256=hashlib.sha256(data).hexdigest())
    begun = raw.ask(
        "POST", "/folders/train/uploads", headers={"Upload-Length": "100000", "Upload-Metadata": told}
    )
    where = begun.headers["location"].removeprefix("/v1")
    assert begun.status == 201 and begun.headers["tus-resumable"] == "1.0.0"
    assert raw.ask("PATCH", where, data[:40_000], {"Upload-Offset": "0"}).headers["upload-offset"] == "40000"
    assert raw.ask("GET", "/folders/train/files").json["files"] == []
    wrong = raw.ask("PATCH", where, data, {"Upload-Offset": "0"})
    assert wrong.status == 409 and wrong.json["what"] == "the upload is at byte 40000"
    at = raw.ask("HEAD", where)
    assert (at.status, at.headers["upload-offset"], at.headers["upload-length"]) == (200, "40000", "100000")
    done = raw.ask("PATCH", where, data[40_000:], {"Upload-Offset": "40000"})
    assert (done.status, done.headers["upload-offset"]) == (204, "100000")
    assert raw.ask("HEAD", where).status == 404
    assert raw.ask("GET", "/folders/train/files?path=runs/1").json["files"][0]["size"] == 100_000
    content = "/folders/train/content?path=runs/1/log.bin"
    assert raw.ask("GET", content).body == data
    part = raw.ask("GET", content, headers={"Range": "bytes=10-19"})
    assert (part.status, part.body) == (206, data[10:20])
    assert part.headers["content-range"] == "bytes 10-19/100000"
    assert raw.ask("GET", content, headers={"Range": "bytes=-7"}).body == data[-7:]
    assert raw.ask("GET", content, headers={"Range": "bytes=5-1"}).body == data
    assert raw.ask("GET", "/folders/train").json["used_bytes"] == 100_000


def test_an_upload_that_is_given_up_leaves_nothing(raw: Raw) -> None:
    make(raw, "train")
    headers = {"Upload-Length": "10", "Upload-Metadata": metadata(path="x")}
    where = raw.ask("POST", "/folders/train/uploads", headers=headers).headers["location"].removeprefix("/v1")
    assert raw.ask("PATCH", where, b"12345", {"Upload-Offset": "0"}).status == 204
    assert raw.ask("DELETE", where).status == 204
    assert raw.ask("HEAD", where).status == 404
    empty = {"Upload-Length": "0", "Upload-Metadata": metadata(path="empty")}
    assert raw.ask("POST", "/folders/train/uploads", headers=empty).status == 201
    assert [each["name"] for each in raw.ask("GET", "/folders/train/files").json["files"]] == ["empty"]


@pytest.mark.parametrize(
    ("headers", "what"),
    [
        ({}, "the header `upload-length` is a number of bytes, not ``"),
        ({"Upload-Length": "-1"}, "the header `upload-length` is a number of bytes, not `-1`"),
        ({"Upload-Length": "5", "Upload-Metadata": ""}, "the upload names no `path`"),
        (
            {"Upload-Length": "5", "Upload-Metadata": "path ???"},
            "`path` of Upload-Metadata is no base64 of a text",
        ),
        (
            {"Upload-Length": "5", "Upload-Metadata": metadata(path="../x")},
            "`../x` is no path within a folder",
        ),
        ({"Upload-Length": "5", "Upload-Metadata": metadata(path="x", sha256="abc")}, "`abc` is no SHA-256"),
        (
            {"Upload-Length": "2000000", "Upload-Metadata": metadata(path="x")},
            "`train` has 1 MB, of which 0 B are used; 1.9 MB more do not fit",
        ),
    ],
)
def test_what_is_refused_before_it_is_sent(raw: Raw, headers: dict[str, str], what: str) -> None:
    make(raw, "train", quota_bytes=1 << 20)
    answer = raw.ask("POST", "/folders/train/uploads", headers=headers)
    assert answer.json["what"] == what and answer.json["hint"]


def test_uploads_under_way_count_for_the_quota(raw: Raw) -> None:
    make(raw, "train", quota_bytes=1 << 20)
    for name, status in (("a", 201), ("b", 403)):
        headers = {"Upload-Length": "700000", "Upload-Metadata": metadata(path=name)}
        answer = raw.ask("POST", "/folders/train/uploads", headers=headers)
        assert answer.status == status
    assert answer.json["code"] == "over-quota" and "are on their way" in answer.json["what"]


def test_large_bodies_go_past_the_parser_and_come_whole(raw: Raw) -> None:
    make(raw, "train")
    data = os.urandom(5_000_001)
    headers = {"Upload-Length": str(len(data)), "Upload-Metadata": metadata(path="big")}
    where = raw.ask("POST", "/folders/train/uploads", headers=headers).headers["location"].removeprefix("/v1")
    sent = raw.ask("PATCH", where, data, {"Upload-Offset": "0"})
    assert (sent.status, sent.headers["connection"]) == (204, "close")
    content = "/folders/train/content?path=big"
    assert raw.ask("GET", content).body == data
    part = raw.ask("GET", content, headers={"Range": "bytes=1000000-4500000"})
    assert (part.status, part.body) == (206, data[1_000_000:4_500_001])


def test_a_full_disk_is_told_also_to_who_sends_much(raw: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file system refuses in the middle of a large body: all of it is read, then it is said."""
    make(raw, "train")
    data = os.urandom(6_000_000)
    headers = {"Upload-Length": str(len(data)), "Upload-Metadata": metadata(path="big")}
    where = raw.ask("POST", "/folders/train/uploads", headers=headers).headers["location"].removeprefix("/v1")
    real = os.pwrite

    def full(fd: int, piece: bytes, offset: int) -> int:
        if offset > 2_000_000:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(fd, piece, offset)

    monkeypatch.setattr(os, "pwrite", full)
    monkeypatch.setattr(uploads, "_ROOM_BYTES", 1 << 60)  # the volume has none, either
    refused = raw.ask("PATCH", where, data, {"Upload-Offset": "0"})
    assert (refused.status, refused.json["code"]) == (507, "disk-full")
    assert refused.json["what"] == "the volume is full: `big` was not written"
    monkeypatch.setattr(os, "pwrite", real)
    at = int(raw.ask("HEAD", where).headers["upload-offset"])
    assert 2_000_000 < at < 4_000_000  # what came before is there
    assert raw.ask("PATCH", where, data[at:], {"Upload-Offset": str(at)}).status == 204
    assert raw.ask("GET", "/folders/train/content?path=big").body == data


def test_trash_restore_and_names(raw: Raw) -> None:
    make(raw, "train")
    assert (
        raw.ask("POST", "/folders", {"name": "train"}).json["what"]
        == "there is a folder or volume `train` already"
    )
    assert raw.ask("DELETE", "/folders/train").json["hint"] == "first: argosy folder rm train"
    old = raw.ask("PUT", "/folders/train", {"trashed": True}).json
    assert old["trashed_ms"] > 0 and raw.ask("GET", "/folders").json["folders"] == []
    held = raw.ask("GET", "/folders/train/files")
    assert held.json["what"] == "`train` is in the trash" and "restore" in held.json["hint"]
    make(raw, "train")  # the name is free
    taken = raw.ask("PUT", f"/folders/{old['id']}", {"trashed": False})
    assert (taken.status, taken.json["what"]) == (409, "there is a folder or volume `train` already")
    assert raw.ask("DELETE", f"/folders/{old['id']}").status == 200
    assert raw.ask("GET", f"/folders/{old['id']}").status == 404
    missing = raw.ask("GET", "/folders/nothing").json
    assert missing["what"] == "there is no folder `nothing`" and "folder ls" in missing["hint"]


def test_a_share_is_with_somebody_who_is_there(raw: Raw) -> None:
    """Without accounts nobody has a name, and what is shared with one would open the folder to whoever gets
    that account later."""
    make(raw, "train")
    for more in ({}, {"invite": True}):
        answer = raw.ask("POST", "/folders/train/grants", {"to": "bob", "level": "rw", **more})
        assert (answer.status, answer.json["what"]) == (
            404,
            "there is no user `bob`: this server has no accounts, and whoever reaches it has every folder",
        )
        assert answer.json["hint"] == "`argosy user add bob` makes the account; then share it"
    given = raw.ask("PUT", "/folders/train", {"owner": "bob"})
    assert given.status == 404 and "`argosy user add bob`" in given.json["hint"]
    answer = raw.ask("POST", "/folders/train/grants", {"to": "project:vision"})
    assert (answer.status, answer.json["what"]) == (404, "there is no project `vision`")
    assert answer.json["hint"] == "`argosy project create vision` makes it; `argosy project ls` lists them"
    assert raw.ask("GET", "/folders/train").json.get("grants", []) == []
    assert raw.ask("POST", "/folders/train/grants", {"to": "project:default"}).status == 200
    make(raw, "seen", project="vision")  # a project is also where something is
    assert raw.ask("POST", "/folders/train/grants", {"to": "project:vision"}).status == 200


def test_an_archive_holds_what_the_folder_does_and_no_links(raw: Raw, server: IdleServer) -> None:
    made = make(raw, "train")
    inside = server.home / "folders" / str(made["id"])
    raw.ask("POST", "/folders/train/files", {"path": "a/b"})
    (inside / "a" / "b" / "file").write_bytes(b"x" * 3000)
    (inside / "out").symlink_to("/etc")
    body = raw.ask("GET", "/folders/train/archive").body
    with tarfile.open(fileobj=io.BytesIO(body)) as archive:
        assert archive.getnames() == ["a", "a/b", "a/b/file"]
        assert archive.extractfile("a/b/file").read() == b"x" * 3000  # type: ignore[union-attr]
    for path in ("out/passwd", "out", "../x"):
        assert raw.ask("GET", f"/folders/train/content?path={path}").status in (400, 404)


def test_volumes(raw: Raw, tmp_path: Path) -> None:
    wrong = raw.ask("POST", "/volumes", {"name": "nas", "path": "nowhere"})
    assert wrong.json["what"] == "`nowhere` is no folder of the server"
    nas = tmp_path / "nas"
    nas.mkdir()
    assert raw.ask("POST", "/volumes", {"name": "nas", "path": str(nas), "node_path": "/nas"}).status == 200
    made = make(raw, "train", volume="nas")
    assert (nas / str(made["id"])).is_dir()
    stays = raw.ask("DELETE", "/volumes/nas")
    assert stays.json["what"] == "the volume `nas` stays: folders are on it, such as `train`"
    assert make(raw, "copy", clone_of="train")["volume"] == "nas"
    names = [each["name"] for each in raw.ask("GET", "/volumes").json["volumes"]]
    assert names == ["nas", "server"]
    nowhere = raw.ask("POST", "/folders", {"name": "x", "volume": "tape"}).json
    assert nowhere["what"] == "there is no volume `tape`"


def test_our_client_sends_trees_and_fetches_them(server: IdleServer, tmp_path: Path) -> None:
    client = Client(env={"ARGOSY_SERVER": f"unix://{server.socket}"}, start=False)
    client.make_folder("train", user="ann")
    source = tmp_path / "source"
    (source / "deep").mkdir(parents=True)
    (source / "deep" / "größe").write_bytes(os.urandom(70_000))
    (source / "empty").touch()
    (source / "link").symlink_to("empty")
    files = FolderFiles(client.location, "train")
    assert files.upload(source, "in", replace=False) == (2, 70_000)
    assert files.upload(source / "empty", "in/", replace=False) == (1, 0)  # it is what is there
    (source / "empty").write_text("no more")
    with pytest.raises(ArgosyError, match="is there already"):
        files.upload(source / "empty", "in/", replace=False)
    files.upload(source / "empty", "in/", replace=True)
    (source / "empty").write_text("")
    files.upload(source / "empty", "in/", replace=True)
    back = tmp_path / "back"
    assert files.download_tree("in", back) == (2, 70_000)
    assert (back / "deep" / "größe").read_bytes() == (source / "deep" / "größe").read_bytes()
    assert files.download("in/deep/größe", tmp_path / "one") == (1, 70_000)
    part = tmp_path / ".two.part"  # an earlier try that was cut off
    part.write_bytes((source / "deep" / "größe").read_bytes()[:30_000])
    (tmp_path / ".two.part.etag").write_text("another file")
    files.download("in/deep/größe", tmp_path / "two")
    assert (tmp_path / "two").read_bytes() == (tmp_path / "one").read_bytes() and not part.exists()
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ArgosyError, match="is there and is no file: a copy would take its place"):
        files.download("in/deep/größe", tmp_path / "pipe")
    client.change_folder("train", FolderChange(trashed=True))
    with pytest.raises(ArgosyError, match="is in the trash"):
        files.download("in/empty", tmp_path)
    files.close()


def test_a_full_disk_on_this_side_is_told_and_nothing_half_has_a_name(
    server: IdleServer, tmp_path: Path
) -> None:
    small = tmp_path / "small"
    small.mkdir()
    if os.getuid() or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "x", small]).returncode:
        pytest.skip("no small disk can be mounted here: a full disk on the client's side was not tested")
    try:
        client = Client(env={"ARGOSY_SERVER": f"unix://{server.socket}"}, start=False)
        client.make_folder("train", user="ann")
        files = FolderFiles(client.location, "train")
        data = os.urandom(3_000_000)
        files.write("in/big", len(data), iter([data]))
        files.write("in/a", 1, iter([b"a"]))
        for fetch in (lambda: files.download_tree("in", small), lambda: files.download("in/big", small)):
            with pytest.raises(ArgosyError, match="the disk here is full: `in") as told:
                fetch()
            assert told.value.code == "disk-full" and "make room" in told.value.hint
            assert not (small / "big").exists()
        assert (small / "a").read_bytes() == b"a"
        subprocess.run(["mount", "-o", "remount,size=8m", small], check=True)
        assert files.download("in/big", small) == (1, 3_000_000)
        assert (small / "big").read_bytes() == data
        assert not [each for each in small.iterdir() if each.name.startswith(".")]
        files.close()
    finally:
        subprocess.run(["umount", small], check=False)
