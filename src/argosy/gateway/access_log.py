"""The access log: one JSON line for each request, with the id that the replica and the client have seen too.

Paths are told without their query, because queries may hold secrets; no header is told at all.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

_MOST: Final = 50_000  # lines that wait for the disk; more are dropped and counted


class Line(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One request."""

    time_ms: int
    id: str
    ip: str
    method: str
    host: str
    path: str
    status: int
    outcome: str  # done, answered, gone (the client left), cut (the replica did), timeout, failed
    ms: int
    first_byte_ms: int = 0
    received: int = 0
    sent: int = 0
    service: str = ""
    revision: str = ""
    replica: str = ""
    key: str = ""
    tries: int = 0  # connections that failed
    input_tokens: int = 0
    output_tokens: int = 0


class AccessLog:
    """Lines are written once a second, so that no request waits for the disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: list[bytes] = []
        self._encode = msgspec.json.Encoder().encode
        self.dropped = 0

    def add(self, line: Line) -> None:
        if len(self._lines) >= _MOST:
            self.dropped += 1
            return
        self._lines.append(self._encode(line))

    def flush(self) -> None:
        """Append what has come to the file; another program may have moved it away meanwhile."""
        if not self._lines:
            return
        lines, self._lines = self._lines, []
        try:
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        except OSError:
            self.dropped += len(lines)
            return
        try:
            os.write(fd, b"\n".join(lines) + b"\n")
        finally:
            os.close(fd)
