"""Room on the disk that is kept for the writes that end things.

A full disk must not keep people from ending what fills it: when a write finds no room, a file that was
made for this is deleted, and from then on only commits that end something are written, until there is
room for the file again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Final

from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, WorkloadPhase
from argosy.model.rows import Attempt, Claim, Workload
from argosy.store.schema import Stored

BALLAST_FILE: Final = "disk-full.reserve"
BALLAST_BYTES: Final = 4 << 20


class Ballast:
    """The file beside the database; with `path` None (no file of ours) it keeps nothing."""

    def __init__(self, path: Path | None, size_bytes: int = BALLAST_BYTES) -> None:
        self._path, self._size_bytes = path, size_bytes
        self.is_spent = False

    def keep(self) -> bool:
        """Make the file if it is not there and as much room is left as it takes. Whether it is there."""
        if self._path is None:
            return True
        try:
            if not self._path.exists():
                disk = os.statvfs(self._path.parent)
                if disk.f_bavail * disk.f_frsize < 2 * self._size_bytes:
                    return False
                handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.posix_fallocate(handle, 0, self._size_bytes)
                finally:
                    os.close(handle)
        except OSError:
            self._delete()
            return False
        self.is_spent = False
        return True

    def release(self) -> bool:
        """Give its room to who writes now. False: there is none, as on a disk that was always too small."""
        if self._path is None or not self._path.exists():
            return False
        self.is_spent = True
        self._delete()
        return True

    def _delete(self) -> None:
        if self._path is not None:
            with contextlib.suppress(OSError):
                self._path.unlink()


def ends_something(puts: tuple[Stored, ...]) -> bool:
    """Whether a commit ends something, or tells it to end."""
    return any(map(_ends, puts))


def _ends(row: Stored) -> bool:
    match row:
        case Workload():
            return row.desired is not Desired.RUN or row.phase in (
                WorkloadPhase.STOPPING,
                WorkloadPhase.FINISHED,
            )
        case Attempt():
            return row.phase in (AttemptPhase.ENDING, AttemptPhase.ENDED)
        case Claim():
            return row.desired is not Desired.RUN or row.phase in (ClaimPhase.RELEASING, ClaimPhase.GONE)
        case _:
            return not row.is_live
