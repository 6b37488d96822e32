from __future__ import annotations

import logging
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.server.journal import open_journal


@pytest.fixture(autouse=True)
def _logging_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level, hook = list(root.handlers), root.level, sys.excepthook
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    sys.excepthook = hook


def test_it_is_bounded(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    path.write_text("of an earlier server\n")
    open_journal(path, "info", limit_bytes=2000)
    for i in range(500):
        logging.getLogger("argosy.x").info("line %d", i)
    logging.getLogger("argosy.x").debug("not this")
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["server.log", "server.log.1", "server.log.2"]
    assert all(file.stat().st_size <= 2000 for file in files)
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files[:1])
    assert path.read_text().endswith("INFO argosy.x: line 499\n")


def test_output_of_the_process_follows(tmp_path: Path) -> None:
    """Whoever started the server made the log its stderr: after a rotation, last words go to the new file."""
    path = tmp_path / "server.log"
    code = (
        "import logging, os, sys\n"
        "from pathlib import Path\n"
        "from argosy.server.journal import open_journal\n"
        f"open_journal(Path({str(path)!r}), 'info', limit_bytes=500)\n"
        "for i in range(40): logging.getLogger('x').info('line %d', i)\n"
        "os.write(2, b'last words')\n"
    )
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    try:
        subprocess.run([sys.executable, "-c", code], stdout=fd, stderr=fd, check=True)
    finally:
        os.close(fd)
    assert path.read_bytes().endswith(b"line 39\nlast words")


def test_a_disk_that_refuses_stops_nothing(tmp_path: Path) -> None:
    open_journal(tmp_path / "server.log", "info", limit_bytes=300)
    (tmp_path / "server.log.1").mkdir()
    (tmp_path / "server.log.1" / "x").touch()
    for i in range(50):
        logging.getLogger("argosy.x").info("line %d", i)
    assert (tmp_path / "server.log").exists()


def test_urls_and_connections_are_not_noted(tmp_path: Path) -> None:
    path = tmp_path / "server.log"
    open_journal(path, "debug")
    logging.getLogger("uvicorn.access").info("GET /v1/jobs/secret-name")
    logging.getLogger("uvicorn.error").info("connection open")
    assert path.read_text() == ""
