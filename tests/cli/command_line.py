"""Runs the command line against a fake server, in this process or in one of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from argosy.cli.main import run
from argosy.cli.session import Session
from argosy.testing.fake_server import FakeServer
from argosy.testing.shared_answers import STARTED_MS


class Done(NamedTuple):
    status: int
    out: str
    err: str


class CommandLine:
    """Runs `argosy …` in this process against a fake server, an hour after everything began."""

    def __init__(self, server: FakeServer, folder: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.server = server
        self.folder = folder
        self.env = {
            "HOME": str(folder),
            "ARGOSY_SERVER": f"unix://{server.socket}",
            "USER": "ada",
            "MINE": "me",
        }
        self._capture = capture

    def __call__(self, *words: str) -> Done:
        self._capture.readouterr()
        session = Session(self.env, cwd=self.folder, now_ms=lambda: STARTED_MS + 3_600_000)
        status = run(list(words), session)
        captured = self._capture.readouterr()
        return Done(status, captured.out, captured.err)

    def good(self, *words: str) -> str:
        done = self(*words)
        assert done.status == 0, done
        return done.out

    def process(self, *words: str, **options: object) -> subprocess.Popen[str]:
        """A process of its own, for signals and terminals."""
        given: dict[str, object] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            "cwd": self.folder,
            "env": {**os.environ, **self.env, "PYTHONUNBUFFERED": "1"},
            **options,
        }
        return subprocess.Popen([sys.executable, "-m", "argosy.cli", *words], **given)  # type: ignore[call-overload,no-any-return]
