"""A folder of the server mounted on this machine: what is written arrives, and rights end at once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.client.client import Client
from argosy.client.folder_bridge import Bridge
from argosy.client.folders import FolderFiles
from argosy.client.mounting import mounted, why_not
from argosy.model.errors import ArgosyError
from argosy.testing.idle_server import IdleServer


@pytest.fixture
def server() -> Iterator[IdleServer]:
    with IdleServer() as running:
        yield running


def client_of(server: IdleServer) -> Client:
    return Client(env={"ARGOSY_SERVER": f"unix://{server.socket}"}, start=False)


def call(
    bridge: Bridge, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, bytes]:
    given = {"authorization": f"Bearer {bridge.token}", **headers}
    request = urllib.request.Request(bridge.url + path, body, given, method=method)
    try:
        with urllib.request.urlopen(request, timeout=90) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.fixture
def bridge(server: IdleServer) -> Iterator[Bridge]:
    client = client_of(server)
    client.make_folder("train", user="ann", quota_bytes=1 << 20)
    files = FolderFiles(client.location, "train")
    bridge = Bridge("train", lambda: client_of(server), files, "secret")
    bridge.start()
    yield bridge
    bridge.shutdown()
    bridge.server_close()
    files.close()


def test_the_bridge_speaks_webdav(bridge: Bridge) -> None:
    assert call(bridge, "MKCOL", "/runs")[0] == 201
    assert call(bridge, "PUT", "/runs/a%20b", b"hello")[0] == 201
    status, body = call(bridge, "PROPFIND", "/runs", Depth="1")
    assert status == 207 and b"<D:href>/runs/a%20b</D:href>" in body and b">5</D:getcontentlength>" in body
    assert call(bridge, "GET", "/runs/a%20b") == (200, b"hello")
    assert call(bridge, "GET", "/runs/a%20b", Range="bytes=1-3") == (206, b"ell")
    assert call(bridge, "PUT", "/runs/c", b"other")[0] == 201
    moved = call(bridge, "MOVE", "/runs/c", Destination=bridge.url + "/runs/a%20b", Overwrite="T")
    assert moved[0] == 201 and call(bridge, "GET", "/runs/a%20b") == (200, b"other")
    assert call(bridge, "DELETE", "/runs/a%20b")[0] == 204
    assert call(bridge, "GET", "/runs/a%20b")[0] == 404
    assert call(bridge, "GET", "/../../etc/passwd")[0] == 400
    status, told = call(bridge, "PUT", "/big", bytes(2 << 20))
    assert status == 507 and b"more do not fit" in told


def test_only_who_mounts_is_answered(bridge: Bridge) -> None:
    for header in ("", "Bearer wrong", "Basic c2VjcmV0"):
        assert call(bridge, "GET", "/runs", authorization=header)[0] == 403


@pytest.mark.process
def test_a_folder_is_mounted(server: IdleServer, tmp_path: Path) -> None:
    if why_not(tmp_path / "at", "train") is not None or os.getuid():
        pytest.skip("no FUSE or no rclone here: mounting a folder was not tested")
    client = client_of(server)
    client.make_folder("train", user="ann")
    files = FolderFiles(client.location, "train")
    files.write("there", 5, iter([b"hello"]))
    at = tmp_path / "at"
    env = {"PATH": os.environ["PATH"], "XDG_CACHE_HOME": str(tmp_path / "cache")}
    with mounted("train", at, lambda: client_of(server), files, env, read_only=False) as process:
        assert (at / "there").read_text() == "hello"
        (at / "new").mkdir()
        (at / "new" / "file").write_bytes(b"x" * 300_000)
        (at / "new" / "file").rename(at / "there")
        words = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"webdav" not in words and b"BEARER" not in words
    assert not os.path.ismount(at)
    got = tmp_path / "back"
    got.mkdir()
    files.download("there", got)
    assert (got / "there").read_bytes() == b"x" * 300_000
    files.close()


def test_where_nothing_can_be_mounted_it_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def told(target: Path, fuse: Path = Path("/dev/null")) -> ArgosyError:
        error = why_not(target, "train", fuse)
        assert error is not None
        return error

    tools = tmp_path / "tools"
    tools.mkdir()
    monkeypatch.setenv("PATH", str(tools))
    assert told(tmp_path).what == "rclone, which mounts folders, is not installed here"
    assert "argosy folder download train DIR -r" in told(tmp_path).hint
    for name in ("rclone", "fusermount3"):
        (tools / name).write_text("#!/bin/sh\n")
        (tools / name).chmod(0o755)
    no_fuse = told(tmp_path, tmp_path / "fuse")
    assert no_fuse.what == f"this machine cannot mount folders: there is no {tmp_path}/fuse that you may use"
    assert told(tmp_path).what == f"`{tmp_path}` is not empty: a mount would hide that"
    assert told(tools / "rclone").what == f"`{tools}/rclone` is a file"
    (tools / "fusermount3").unlink()
    assert told(tmp_path).what == "this machine cannot mount folders: fusermount is not installed"


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_terminal_that_is_closed_leaves_no_mount_behind(
    server: IdleServer, tmp_path: Path, number: signal.Signals
) -> None:
    at = tmp_path / "at"
    if why_not(at, "train") is not None or os.getuid():
        pytest.skip("no FUSE or no rclone here: mounting a folder was not tested")
    client = client_of(server)
    client.make_folder("train", user="ann")
    env = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "ARGOSY_SERVER": f"unix://{server.socket}"}
    command = [sys.executable, "-m", "argosy.cli", "folder", "mount", "train", str(at)]
    with subprocess.Popen(command, env=env, stderr=subprocess.PIPE, text=True) as mounting:
        try:
            assert mounting.stderr is not None
            assert "is at" in mounting.stderr.readline()
            (at / "last").write_text("words")
            mounting.send_signal(number)
            assert "then it is unmounted" in mounting.stderr.readline()
            mounting.wait(60)
        finally:
            left_behind = os.path.ismount(at)
            if left_behind:
                subprocess.run(["fusermount3", "-u", "-z", str(at)], check=False)
            mounting.kill()
    assert mounting.returncode == 0 and not left_behind
    assert [each.name for each in client.folder_files("train").files] == ["last"]
