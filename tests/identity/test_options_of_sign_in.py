"""A real server reads every option of signing in: what it was told at its start shows at its door."""

from __future__ import annotations

import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.process


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="opt-", ignore_cleanup_errors=True) as name:
        yield Path(name)


def ask(address: str, path: str, **fields: str) -> tuple[int, str]:
    host, _, port = address.rpartition("/")[2].rpartition(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=90)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in {"host": f"{host}:{port}", **fields}.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    reply = connection.getresponse()
    text = reply.read().decode()
    connection.close()
    return reply.status, text


def test_each_option_is_read(home: Path) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
    env |= {
        "ARGOSY_OIDC_ISSUER": "http://127.0.0.1:1",
        "ARGOSY_OIDC_CLIENT_ID": "argosy",
        "ARGOSY_PUBLIC_URL": "https://argosy.example",
        "ARGOSY_HOSTS": "other.example",
        "ARGOSY_TRUSTED_PROXIES": "127.0.0.1/32",
    }
    line = [sys.executable, "-m", "argosy.server", "run", "--state-dir", str(home), "--listen", "127.0.0.1:0"]
    server = subprocess.Popen(line, env=env, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        address = _address(home, server)
        status, text = ask(address, "/login/sso")
        assert status == 403 and "the identity provider cannot be reached" in text
        for name, good in (("argosy.example", True), ("other.example", True), ("evil.example", False)):
            assert (ask(address, "/v1/health", host=name)[0] == 200) is good, name
        assert ask(address, "/v1/status")[0] == 401, "without a credential"
        web_socket = {"connection": "upgrade", "upgrade": "websocket", "sec_websocket_version": "13"}
        key = {"sec_websocket_key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        path = "/v1/clusters/dev/shell"
        assert ask(address, path, **web_socket, **key)[0] == 401, "nor a WebSocket"
        ask(address, "/login/sso/callback", x_forwarded_for="198.51.100.7")
        denied = [each for each in _audit(home) if each["action"] == "login_sso"]
        assert {each["address"] for each in denied} == {"127.0.0.1", "198.51.100.7"}, "as the proxy says"
    finally:
        server.terminate()
        server.wait(30)


def _address(home: Path, server: subprocess.Popen[bytes]) -> str:
    deadline = time.monotonic() + 60
    while True:
        assert server.poll() is None and time.monotonic() < deadline
        try:
            found: list[str] = _over_socket(home, "/v1/server")["listening"]
            return found[1]
        except (OSError, KeyError, IndexError):
            time.sleep(0.02)


def _over_socket(home: Path, path: str) -> dict[str, Any]:
    import socket

    connection = http.client.HTTPConnection("localhost", timeout=90)
    connection.sock = socket.socket(socket.AF_UNIX)
    connection.sock.connect(str(home / "run" / "server.sock"))
    connection.request("GET", path)
    found: dict[str, Any] = json.loads(connection.getresponse().read())
    connection.close()
    return found


def _audit(home: Path) -> list[dict[str, str]]:
    found: list[Any] = _over_socket(home, "/v1/audit")["records"]
    return [each["act"] for each in found]
