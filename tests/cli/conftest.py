from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from command_line import CommandLine

from argosy.testing.fake_server import FakeServer


@pytest.fixture
def short_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ag", dir="/tmp", ignore_cleanup_errors=True) as path:
        yield Path(path)


@pytest.fixture
def server(short_dir: Path) -> Iterator[FakeServer]:
    with FakeServer(short_dir / "server.sock") as fake:
        yield fake


@pytest.fixture
def argosy(server: FakeServer, short_dir: Path, capsys: pytest.CaptureFixture[str]) -> CommandLine:
    folder = short_dir / "here"
    folder.mkdir()
    return CommandLine(server, folder, capsys)
