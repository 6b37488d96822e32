"""Reading what programs keep: a folder as entries of a tree, and its chunks, without copying anything here.

Only whole files count. One that changed a moment ago, or that a program has open for writing, may be half
written: it is named as unsettled, and whoever keeps copies goes on with the version that it has. What is
known by size, time and inode is not read again.
"""

from __future__ import annotations

import os
import stat
import time

from argosy.agent.orders import Refused
from argosy.agent.outside import is_below
from argosy.agent.wire import CHUNK_LIMIT_BYTES

_ENTRIES_MAX = 100_000
_HALF_WRITTEN = (".tmp", ".partial", ".incomplete")  # how programs call what they rename when it is complete


class Kept:
    """Folders below the node's home. Not for two threads at once."""

    def __init__(self, home: str) -> None:
        self._home = os.path.realpath(home)
        self._known: dict[str, tuple[tuple[int, int, int], list[str]]] = {}  # by path: which file, its chunks
        self._places: dict[str, tuple[str, int]] = {}  # by digest: file and offset
        self._written: set[tuple[int, int]] | None = (
            None  # device and inode of files that are open for writing
        )

    def scan(self, target: str, settled_s: float, top: str = "") -> dict[str, object]:
        """`{"entries": of a tree, "unsettled": paths}`. Files that changed less than `settled_s` ago are
        unsettled. A folder that is not there is empty. `top`: where the target lies, when that is known.
        Raises Refused, OSError."""
        top = os.path.realpath(top) if top else self._resolve(target)
        entries: list[dict[str, object]] = []
        unsettled: list[str] = []
        self._written = None
        for folder, names, files in os.walk(top):
            names[:] = sorted(name for name in names if not name.endswith(_HALF_WRITTEN))
            for name in sorted([*names, *files]):
                path = os.path.join(folder, name)
                relative = path[len(top) + 1 :]
                try:
                    relative.encode("utf-8")
                    entry = self._entry(path, relative, settled_s)
                except (OSError, UnicodeEncodeError):
                    continue  # gone meanwhile, or a name that no tree can hold
                if entry is None:
                    continue
                if entry:
                    entries.append(entry)
                else:
                    unsettled.append(relative)
            if len(entries) > _ENTRIES_MAX:
                raise Refused("target", "`%s` holds more than %d files" % (target, _ENTRIES_MAX))
        return {"entries": entries, "unsettled": unsettled}

    def _entry(self, path: str, relative: str, settled_s: float) -> dict[str, object] | None:
        """None: nothing to keep; {}: unsettled. Raises OSError."""
        info = os.lstat(path)
        entry: dict[str, object] = {"path": relative, "mode": stat.S_IMODE(info.st_mode) & 0o777}
        if stat.S_ISDIR(info.st_mode):
            return {**entry, "kind": "d"}
        if stat.S_ISLNK(info.st_mode):
            return {**entry, "kind": "l", "target": os.readlink(path)}
        if not stat.S_ISREG(info.st_mode) or relative.endswith(_HALF_WRITTEN):
            return None
        if 0 <= time.time() - info.st_mtime < settled_s:
            return {}
        known = self._known.get(path)
        if settled_s and (known is None or known[0] != _which(info)) and self._is_written(info):
            return {}
        chunks = self._chunks_of(path, info)
        if chunks is None:
            return {}
        return {**entry, "kind": "f", "size": info.st_size, "chunks": chunks}

    def _is_written(self, info: os.stat_result) -> bool:
        """Whether a program has it open for writing. Looked up once a scan, when something is new."""
        if self._written is None:
            self._written = _open_for_writing(self._home)
        return (info.st_dev, info.st_ino) in self._written

    def _chunks_of(self, path: str, info: os.stat_result) -> list[str] | None:
        """None: it changed while it was read."""
        import hashlib

        which = _which(info)
        known = self._known.get(path)
        if known is not None and known[0] == which:
            return known[1]
        chunks = []
        with open(path, "rb") as file:
            for offset in range(0, info.st_size, CHUNK_LIMIT_BYTES):
                digest = hashlib.sha256(file.read(CHUNK_LIMIT_BYTES)).hexdigest()
                self._places[digest] = (path, offset)
                chunks.append(digest)
            if _which(os.fstat(file.fileno())) != which:
                return None
        self._known[path] = (which, chunks)
        return chunks

    def read(self, digest: str) -> bytes | None:
        """A chunk of what was scanned; None when it is not what it was."""
        import hashlib

        path, offset = self._places.get(digest, ("", 0))
        try:
            with open(path, "rb") as file:
                file.seek(offset)
                data = file.read(CHUNK_LIMIT_BYTES)
        except OSError:
            return None
        return data if hashlib.sha256(data).hexdigest() == digest else None

    def _resolve(self, target: str) -> str:
        path = os.path.realpath(os.path.join(self._home, target[2:] if target.startswith("~/") else target))
        if "\0" in target or not is_below(path, self._home) or path == self._home:
            raise Refused("target", "`%s` is not a folder below the node's home" % target)
        return path


def _open_for_writing(home: str) -> set[tuple[int, int]]:
    """Files below `home` that processes of ours have open for writing: device and inode of each."""
    found = set()
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        handles = "/proc/%s/fd" % pid
        try:
            for number in os.listdir(handles):
                link = "%s/%s" % (handles, number)
                if not is_below(os.readlink(link), home):
                    continue
                with open("/proc/%s/fdinfo/%s" % (pid, number)) as file:
                    flags = int(file.read().split("flags:")[1].split()[0], 8)
                if flags & os.O_ACCMODE:
                    info = os.stat(link)
                    found.add((info.st_dev, info.st_ino))
        except (OSError, IndexError, ValueError):
            continue  # it has ended, or is somebody else's
    return found


def _which(info: os.stat_result) -> tuple[int, int, int]:
    return info.st_size, info.st_mtime_ns, info.st_ino
