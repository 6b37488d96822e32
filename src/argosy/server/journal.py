"""The server's own log: `<state>/server.log`, bounded, without request bodies, tokens or secrets."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
from pathlib import Path
from typing import Final

_LIMIT_BYTES: Final = 5 << 20
_KEPT: Final = 3


class _Journal(logging.Handler):
    """Appends lines; renames the file when it is full. (`logging.handlers` costs 20 ms to import.)

    Whoever started us may have made our stdout and stderr the same file: they follow to the new one, so that
    a last word of the interpreter is found where people look.
    """

    def __init__(self, path: Path, limit_bytes: int) -> None:
        super().__init__()
        self._path = path
        self._limit_bytes = limit_bytes
        self._write_lock = threading.Lock()
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size

    def emit(self, record: logging.LogRecord) -> None:
        try:
            line = self.format(record).encode("utf-8", "backslashreplace") + b"\n"
            with self._write_lock:
                if self._size + len(line) > self._limit_bytes and self._size:
                    self._rotate()
                self._size += os.write(self._fd, line)
        except (OSError, ValueError):
            return  # a full disk must not stop the server; there is nowhere to say it

    def _rotate(self) -> None:
        old = os.fstat(self._fd)
        ours = [fd for fd in (1, 2) if _same(fd, old)]
        for number in range(_KEPT - 1, 0, -1):
            source = self._path if number == 1 else self._path.with_name(f"{self._path.name}.{number - 1}")
            if source.exists():
                source.rename(self._path.with_name(f"{self._path.name}.{number}"))
        os.close(self._fd)
        self._open()
        for fd in ours:
            os.dup2(self._fd, fd)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        super().close()


def _same(fd: int, stat: os.stat_result) -> bool:
    try:
        mine = os.fstat(fd)
    except OSError:
        return False
    return (mine.st_dev, mine.st_ino) == (stat.st_dev, stat.st_ino)


class _Lines(logging.Formatter):
    def formatTime(self, record: logging.LogRecord, datefmt: str | None = None) -> str:
        return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}Z"


def open_journal(path: Path, level: str, *, limit_bytes: int = _LIMIT_BYTES) -> None:
    """Send everything that is logged to `path`: about `limit_bytes` times 3 in all."""
    handler = _Journal(path, limit_bytes)
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    # uvicorn's own levels: what it says of a connection interests nobody, and it prints URLs, which may hold
    # names.
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    logging.getLogger("uvicorn.access").disabled = True
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    sys.excepthook = _log_crash


def _log_crash(kind: type[BaseException], error: BaseException, trace: object) -> None:
    logging.getLogger("argosy.server").critical("the server crashed", exc_info=error)
    print(f"{kind.__name__}: {error}", file=sys.stderr)  # noqa: T201
