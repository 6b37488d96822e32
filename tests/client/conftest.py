from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.api.location import Location
from argosy.client import blocking
from argosy.client.client import Client
from argosy.testing.fake_server import FakeServer


@pytest.fixture
def short_dir() -> Iterator[Path]:
    """A folder whose path is short enough for unix sockets."""
    with tempfile.TemporaryDirectory(prefix="ag", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def server(short_dir: Path) -> Iterator[FakeServer]:
    with FakeServer(short_dir / "server.sock") as fake:
        yield fake


@pytest.fixture
def client(server: FakeServer, short_dir: Path) -> Iterator[Client]:
    with Client(Location(server.socket, home=short_dir / "home"), env={"HOME": str(short_dir)}) as one:
        yield one


@pytest.fixture
def environment(server: FakeServer, short_dir: Path) -> Iterator[None]:
    """The façade reads the environment of the process: that is its job, so the test sets it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ARGOSY_SERVER", f"unix://{server.socket}")
        patch.setenv("ARGOSY_HOME", str(short_dir / "home"))
        patch.setenv("USER", "ada")
        yield
    while blocking._clients:
        blocking._clients.popitem()[1].close()
