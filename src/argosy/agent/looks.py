"""What an earlier copy left at a path, and whether it still lies there as it was noted.

Each copy ends with a **token**, a name for what is noted then. Who knows the token, and hears that nothing
was changed since, knows all files without being told any.
"""

from __future__ import annotations

import json
import os

from argosy.agent.listing import EMPTY
from argosy.agent.targets import Known, stamp_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Dict, Optional, Tuple

    Stamp = Optional[Tuple[int, int, int]]
    Kept = Dict[str, Tuple[Tuple[Stamp, Stamp], Known]]

DRAFTS = ".argosy-new"  # a folder at each path: what has not come whole
_KEPT = 4
_KEPT_FILES_MAX = 200_000


class Looks:
    """Notes that were read or written here lately, as long as their files are the same."""

    def __init__(self) -> None:
        self._kept: Kept = {}

    def look(self, path: str, record: str) -> Look:
        kept = self._kept.get(record)
        stamps = _stamps(record)
        if kept is not None and kept[0] == stamps and kept[1].base == path:
            return Look(path, record, kept[1], stamps)
        known = Known(record)
        if known.base != path:
            known = Known()
        read_journal(record, path, known)
        return Look(path, record, known, stamps)

    def keep(self, record: str, known: Known) -> None:
        """What has just been written."""
        self._kept.pop(record, None)
        self._kept[record] = (_stamps(record), known)
        while len(self._kept) > _KEPT or (
            self._kept and sum(len(each[1].files) for each in self._kept.values()) > _KEPT_FILES_MAX
        ):
            del self._kept[next(iter(self._kept))]


class Look:
    """`here`: records of files that are as they were noted."""

    def __init__(self, path: str, record: str, known: Known, stamps: tuple[Stamp, Stamp]) -> None:
        self.path, self._record, self.known, self._stamps = path, record, known, stamps
        self.here = as_recorded(path, known.files)

    @property
    def token(self) -> str:
        """Of what lies there; "": none, or something was changed since."""
        if not self.known.files and not self.known.token:
            return "" if os.path.lexists(self.path + "/" + DRAFTS) else EMPTY
        return self.known.token if len(self.here) == len(self.known.files) else ""

    def is_current(self, path: str) -> bool:
        """Nobody has noted anything else meanwhile."""
        return path == self.path and _stamps(self._record) == self._stamps


def as_recorded(base: str, files: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """Those that nobody has changed or removed. Files of one folder that follow each other cost one look at
    the way to it."""
    here = {}
    folder, handle = "", _open(base)
    try:
        for name, row in files.items():
            above, _, last = name.rpartition("/")
            if above != folder:
                if handle >= 0:
                    os.close(handle)
                folder, handle = above, _open(base + "/" + above)
            try:
                if not name:
                    info = os.lstat(base)
                elif handle < 0:
                    continue
                else:
                    info = os.lstat(last, dir_fd=handle)
            except OSError:
                continue
            if info.st_ino == row[2] and info.st_mtime_ns == row[1] and info.st_size == row[0]:
                here[name] = row
    finally:
        if handle >= 0:
            os.close(handle)
    return here


def etag_of(row: list[Any]) -> str | None:
    """Of a file that was fetched; None: it was placed with a tree."""
    chunks = row[3]
    return chunks[0][2:] if len(chunks) == 1 and chunks[0].startswith("e:") else None


def _open(folder: str) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


def _stamps(record: str) -> tuple[Stamp, Stamp]:
    return _stamp(record), _stamp(record + ".journal")


def _stamp(path: str) -> Stamp:
    try:
        return tuple(stamp_of(os.stat(path)))  # type: ignore[return-value]
    except OSError:
        return None


def read_journal(record: str, path: str, known: Known) -> None:
    """Files that an earlier run has finished before it was ended, or that were few. A name without a row
    has gone."""
    try:
        with open(record + ".journal", encoding="utf-8") as file:
            lines = file.readlines()
    except OSError:
        return
    known.base = path
    for line in lines:
        try:
            name, row, *more = json.loads(line)
        except ValueError:
            break
        if name is None:
            known.digest, known.token = row, more[0] if more else ""  # all files that are known by now
        elif row is None:
            known.digest = known.token = ""
            known.files.pop(name, None)
        else:
            known.digest, known.token, known.files[name] = "", "", row
