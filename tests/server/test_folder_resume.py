"""Uploads that are killed go on where they were, in the same process or another, and send only the rest."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import socket
from pathlib import Path

import pytest
from raw_requests import Raw
from test_folder_requests import make, metadata

from argosy.client import folders as client_folders
from argosy.client.client import Client
from argosy.client.folders import FolderFiles
from argosy.model.errors import ArgosyError
from argosy.testing.idle_server import IdleServer

SIZE = 3_000_000


@pytest.fixture
def client(server: IdleServer) -> Client:
    client = Client(env={"ARGOSY_SERVER": f"unix://{server.socket}"}, start=False)
    client.make_folder("train", user="ann")
    return client


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.bin"
    path.write_bytes(random.Random(1).randbytes(SIZE))
    return path


def killed_after(client: Client, source: Path, count: int) -> None:
    """A process of its own sends, and kills itself when so many bytes have left it."""
    pid = os.fork()
    if not pid:
        sent = 0

        def on_bytes(size: int) -> None:
            nonlocal sent
            sent += size
            if sent >= count:
                os.kill(os.getpid(), signal.SIGKILL)

        try:
            FolderFiles(client.location, "train", on_bytes).upload(source, "", replace=False)
        finally:
            os._exit(1)
    assert os.WTERMSIG(os.waitpid(pid, 0)[1]) == signal.SIGKILL


def test_another_process_sends_only_the_rest(
    client: Client, source: Path, server: IdleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_folders, "_STEP", 100_000)
    for count in (700_000, 900_000):
        killed_after(client, source, count)
    assert client.folder_files("train").files == ()
    sent: list[int] = []
    files = FolderFiles(client.location, "train", sent.append)
    assert files.upload(source, "", replace=False) == (1, SIZE)
    assert 0 < sum(sent) <= SIZE - 700_000 - 900_000 + 400_000  # what was on its way is sent again
    assert client.folder("train").used_bytes == SIZE
    sent.clear()
    assert files.upload(source, "", replace=False) == (1, SIZE)  # it is there: nothing travels
    assert sent == []
    files.download("model.bin", source.with_name("back"))
    assert source.with_name("back").read_bytes() == source.read_bytes()
    uploads = server.home / "folders" / ".argosy" / "upload"
    assert list(uploads.iterdir()) == []


def test_a_file_that_changed_in_between_is_not_mixed(
    client: Client, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_folders, "_STEP", 100_000)
    killed_after(client, source, 1_000_000)
    kept = source.stat()
    source.write_bytes(b"another " * (SIZE // 8))
    os.utime(source, ns=(kept.st_atime_ns, kept.st_mtime_ns))  # it looks as before
    files = FolderFiles(client.location, "train")
    with pytest.raises(ArgosyError, match="arrived with another checksum"):
        files.upload(source, "", replace=False)
    assert client.folder_files("train").files == ()
    assert files.upload(source, "", replace=False) == (1, SIZE)


def test_connections_cut_at_any_byte(raw: Raw, server: IdleServer) -> None:
    """What was confirmed stays; the rest makes the file whole, with the right bytes."""
    make(raw, "train")
    dice = random.Random(7)
    kills = 1000 if os.environ.get("ARGOSY_NIGHTLY") else 25
    data = dice.randbytes(60_000)
    told = metadata(path="x.bin", key="k", sha256=hashlib.sha256(data).hexdigest(), replace="true")
    headers = {"Upload-Length": str(len(data)), "Upload-Metadata": told}
    for _ in range(kills):
        begun = raw.ask("POST", "/folders/train/uploads", headers=headers)
        if begun.status == 200:  # these very bytes are there: others shall come
            data = dice.randbytes(60_000)
            told = metadata(path="x.bin", key="k", sha256=hashlib.sha256(data).hexdigest(), replace="true")
            headers["Upload-Metadata"] = told
            begun = raw.ask("POST", "/folders/train/uploads", headers=headers)
        at = int(begun.headers["upload-offset"])
        where, count = begun.headers["location"].removeprefix("/v1"), dice.randint(0, len(data) - at)
        with socket.socket(socket.AF_UNIX) as link:
            link.connect(str(server.socket))
            head = f"PATCH /v1{where} HTTP/1.1\r\nhost: x\r\nupload-offset: {at}\r\n"
            link.sendall(f"{head}content-length: {len(data) - at}\r\n\r\n".encode())
            link.sendall(data[at : at + count])
        _until(raw, where, at + count)
    while (begun := raw.ask("POST", "/folders/train/uploads", headers=headers)).status != 200:
        at, where = int(begun.headers["upload-offset"]), begun.headers["location"].removeprefix("/v1")
        assert raw.ask("PATCH", where, data[at:], {"Upload-Offset": str(at)}).status == 204
    assert raw.ask("GET", "/folders/train/content?path=x.bin").body == data


def _until(raw: Raw, where: str, at: int) -> None:
    """The server has seen that the line was cut: it takes more. What it had not read yet is sent again."""
    for _ in range(1000):
        told = raw.ask("HEAD", where)
        if told.status == 404:
            return  # it was the last byte
        here = told.headers["upload-offset"]
        assert int(here) <= at
        if raw.ask("PATCH", where, b"", {"Upload-Offset": here}).status in (204, 404):
            return
    raise AssertionError("the server does not go on")


def test_a_small_file_is_one_request(raw: Raw) -> None:
    make(raw, "train")
    headers = {
        "Upload-Length": "5",
        "Upload-Metadata": metadata(path="a/b"),
        "Content-Type": "application/offset+octet-stream",
    }
    done = raw.ask("POST", "/folders/train/uploads", b"hello", headers)
    assert (done.status, done.headers["upload-offset"]) == (201, "5")
    assert raw.ask("GET", "/folders/train/content?path=a/b").body == b"hello"


def test_what_a_killed_client_was_sending_is_waited_for(
    raw: Raw, client: Client, server: IdleServer, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server has not noticed yet that its connection is gone."""
    told = metadata(path="model.bin", key=client_folders._key(source, source.stat()))
    headers = {"Upload-Length": str(SIZE), "Upload-Metadata": told}
    begun = raw.ask("POST", "/folders/train/uploads", headers=headers)
    with socket.socket(socket.AF_UNIX) as link:
        link.connect(str(server.socket))
        head = f"PATCH {begun.headers['location']} HTTP/1.1\r\nhost: x\r\nupload-offset: 0\r\n"
        link.sendall(f"{head}content-length: {SIZE}\r\n\r\n".encode() + source.read_bytes()[:1000])
        while raw.ask("POST", "/folders/train/uploads", headers=headers).status != 409:
            pass
        waits: list[float] = []

        def sleep(seconds: float) -> None:
            waits.append(seconds)
            link.close()
            while raw.ask("POST", "/folders/train/uploads", headers=headers).status == 409:
                pass

        monkeypatch.setattr(client_folders.time, "sleep", sleep)
        assert FolderFiles(client.location, "train").upload(source, "", replace=False) == (1, SIZE)
    assert waits
