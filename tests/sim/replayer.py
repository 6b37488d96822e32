"""One process that runs seeds for all tests of this folder: to start and load it takes as long as a seed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import NamedTuple

import pytest

COMMAND = (sys.executable, "-m", "argosy.testing.replay")
#: A seed is the same run only with the same order of sets.
ENVIRON = {**os.environ, "PYTHONHASHSEED": "0"}


class Replayed(NamedTuple):
    returncode: int
    stdout: str


class Replayer:
    """Runs what the replay command would run. A process that failed to answer is replaced."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[str] | None = None

    def run(self, *words: int | str) -> Replayed:
        process = self._process
        if process is None:
            process = subprocess.Popen(
                [*COMMAND, "--stdin"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=ENVIRON
            )
        self._process = None  # until it has answered
        answered = False
        try:
            assert process.stdin is not None and process.stdout is not None
            process.stdin.write(" ".join(map(str, words)) + "\n")
            process.stdin.flush()
            line = process.stdout.readline()
            assert line, "the process that runs seeds has ended"
            answered = True
        finally:
            if not answered:
                process.kill()
                process.communicate()
        self._process = process
        return Replayed(*json.loads(line))

    def close(self) -> None:
        if self._process is not None:
            self._process.communicate()


@pytest.fixture(scope="session")
def replayer() -> Iterator[Replayer]:
    made = Replayer()
    yield made
    made.close()
