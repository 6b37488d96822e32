"""One server per state folder: a lock that the kernel releases when its holder dies, and the holder's
name."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from argosy.model.errors import ArgosyError

PID_FILE: Final = "server.pid"
KEY_FILE: Final = "secrets.key"  # the keys that seal secrets


def ensure_private_folder(path: Path) -> None:
    """Make the folder (0700) and those above it; one that exists is left as it is."""
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise ArgosyError(
            "store-busy",
            f"cannot make the folder {path}: {error.strerror}",
            hint="check the path and who may write there",
        ) from None


class StateLock:
    """The lock on a state folder, while this process holds it."""

    def __init__(self, path: Path, handle: int, line: bytes) -> None:
        self._path, self._handle, self._line = path, handle, line

    def is_ours(self) -> bool:
        """Whether the folder at this path still is the one that was locked. It is not when somebody deleted
        it or moved it away, and perhaps made another one that another server holds."""
        try:
            there, mine = self._path.stat(), os.fstat(self._handle)
            said = os.pread(self._handle, 64, 0)
        except OSError:
            return False
        return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino) and said == self._line


@contextmanager
def lock_state_dir(path: Path) -> Iterator[StateLock]:
    """Hold the state folder `path` (made when absent) for this process.

    Raises ArgosyError `server-running`, naming the process and the folder, when another one holds it."""
    ensure_private_folder(path)
    # The lock is on the pid file itself. It is never deleted: whoever had it open would lock a file that is
    # gone.
    handle = os.open(path / PID_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle, 64, 0).decode("ascii", "replace").strip() or "?"
            raise ArgosyError(
                "server-running", f"another server (process {holder}) uses the state folder {path}"
            ) from None
        line = f"{os.getpid()}\n".encode()
        os.ftruncate(handle, 0)
        os.pwrite(handle, line, 0)
        try:
            yield StateLock(path / PID_FILE, handle, line)
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)  # and with it the lock
