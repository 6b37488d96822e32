"""What identity adds to a server's start: modules by name, which no busy machine changes. Their time is in
`benchmarks/identity.py`."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

#: All of identity that a server loads until somebody comes over TCP or changes something; without `--listen`
#: not even the rules of the door. A name more is time and memory of everybody who starts a server.
AT_START = """
argosy.identity
argosy.identity.deciding
argosy.model.access
argosy.model.entry
argosy.server.door_rules
argosy.server.guarding
argosy.server.identity
argosy.server.recording
argosy.server.scim
argosy.store.acting
"""

#: What belongs to identity, by the beginning of its name.
PARTS = (
    *(
        "argosy.identity",
        "argosy.model.access",
        "argosy.model.audit",
        "argosy.model.entry",
        "argosy.model.people",
    ),
    *("argosy.store.acting", "argosy.store.audit", "argosy.facades.scim"),
    *("argosy.server.door_rules", "argosy.server.doorkeeper", "argosy.server.guarding"),
    *(
        "argosy.server.identity",
        "argosy.server.provisioning",
        "argosy.server.recording",
        "argosy.server.scim",
    ),
    *("argosy.server.sign_in_pages", "argosy.server.tokens", "argosy.server.visitors"),
    *("argosy.server.features.people", "argosy.server.features.signing_in", "argosy.server.features.audit"),
    *("argosy.server.features.secrets", "argosy.server.features.provisioning", "argosy.server.start_page"),
)
#: Of others, for identity only.
FOREIGN = ("argon2", "joserfc", "cryptography")

#: Tells its modules for every line that it is sent.
_SERVER = """
import sys, threading
from argosy.server.__main__ import main
def tell():
    for _ in sys.stdin:
        print(*sys.modules, flush=True)
threading.Thread(target=tell, daemon=True).start()
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ids-", ignore_cleanup_errors=True) as name:
        yield Path(name)


class _Local(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self._path)


def _ask(connection: http.client.HTTPConnection, path: str) -> tuple[int, bytes]:
    with contextlib.closing(connection):
        connection.request("GET", path)
        reply = connection.getresponse()
        return reply.status, reply.read()


def _loaded(process: subprocess.Popen[str]) -> set[str]:
    """Modules of identity."""
    assert process.stdin is not None and process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    names = process.stdout.readline().split()
    return {name for name in names if name.startswith(PARTS) or name.partition(".")[0] in FOREIGN}


def test_nothing_of_sign_ins_is_loaded_before_somebody_comes(home: Path) -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
    line = [sys.executable, "-c", _SERVER, "run", "--state-dir", str(home), "--listen", "127.0.0.1:0"]
    process = subprocess.Popen(
        line, env=environ, cwd="/", text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    path = home / "run" / "server.sock"
    try:
        while not path.exists():
            assert process.poll() is None
            time.sleep(0.02)
        status, told = _ask(_Local(path), "/v1/server")
        assert status == 200, told
        for each in ("/v1/status", "/v1/jobs"):
            assert _ask(_Local(path), each)[0] == 200
        assert _loaded(process) == set(AT_START.split())

        # who comes over TCP loads the door, and nothing of accounts
        port = int(told.decode().partition("127.0.0.1:")[2].partition('"')[0])
        assert _ask(http.client.HTTPConnection("127.0.0.1", port, timeout=60), "/v1/jobs")[0] == 401
        more = _loaded(process) - set(AT_START.split())
        assert {"argosy.server.doorkeeper", "argosy.server.tokens"} <= more
        heavy = ("argosy.identity.passwords", "argosy.identity.people", "argosy.server.features", *FOREIGN)
        assert not [name for name in more if name.startswith(heavy)]
    finally:
        process.terminate()
        process.communicate()
    assert process.returncode == 0
