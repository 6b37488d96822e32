"""One server per state folder: a lock that the kernel takes back when its holder dies, and who holds it."""

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


@contextmanager
def lock_state_dir(path: Path) -> Iterator[None]:
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
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        try:
            yield
        finally:
            os.ftruncate(handle, 0)
    finally:
        os.close(handle)  # and with it the lock
