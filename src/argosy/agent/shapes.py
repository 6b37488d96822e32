"""What a copy of a folder has besides bytes: modes of its files, and links.

It is told with the copy, made here, and noted beside what else is noted of it, so that changes are found when
the copy is to give back what changed. Names are looked up one by one below a descriptor, without following
links.
"""

from __future__ import annotations

import json
import os
import stat

from argosy.agent.outside import write_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

LINK = "link:"  # before where a link leads, in the place of what a file was
UNTOLD = -1  # in the place of a mode
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_BITS = 0o777


class Shape:
    """`mode`: of files that `modes` does not name, -1: their modes are not known; `links`: path -> where it
    leads."""

    def __init__(self, told: Any = None) -> None:  # Any: JSON
        told = told if isinstance(told, dict) else {}
        self.mode = int(told.get("mode", UNTOLD))
        self.modes: dict[str, int] = told.get("modes") or {}
        self.links: dict[str, str] = told.get("links") or {}

    def mode_of(self, path: str) -> int:
        return self.modes.get(path, self.mode)


def noted(record: str, base: str) -> Shape:
    """Of the copy at `base`; nothing, where none was told."""
    try:
        with open(record + ".shape", encoding="utf-8") as file:
            data = json.load(file)
    except (OSError, ValueError):
        return Shape()
    return Shape(data) if data.get("base") == base else Shape()


def apply(record: str, base: str, shape: Shape, files: Iterable[str]) -> None:
    """Files get their modes, and links are there; those of an earlier copy that are no more go, where nobody
    has changed them. A file or folder in the place of a link stays. Raises OSError."""
    before = noted(record, base)
    with Below(base) as below:
        for path, target in before.links.items():
            if path not in shape.links and below.link_at(path) == target:
                below.unlink(path)
        for path, target in shape.links.items():
            there = below.link_at(path)
            if there is None and not below.is_there(path):
                below.link(path, target)
            elif there is not None and there != target:
                below.unlink(path)
                below.link(path, target)
        if shape.mode != UNTOLD:
            for path in files:
                below.chmod(path, shape.mode_of(path))
    told = {"base": base, "mode": shape.mode, "modes": shape.modes, "links": shape.links}
    write_json(record + ".shape", told)


def links_below(base: str) -> dict[str, str]:
    """Where each link leads. Names that are no text are left out."""
    found = {}
    for folder, names, files in os.walk(base):
        for name in sorted(names + files):
            path = os.path.join(folder, name)
            try:
                target = os.readlink(path)
                (name + target).encode("utf-8")
            except (OSError, UnicodeEncodeError):
                continue
            found[os.path.relpath(path, base)] = target
    return found


def mode_at(path: str) -> int:
    """-1: no file lies there."""
    try:
        info = os.lstat(path)
    except OSError:
        return UNTOLD
    return info.st_mode & _BITS if stat.S_ISREG(info.st_mode) else UNTOLD


class Below:
    """What lies below a folder, by paths. The folder of the last path stays open for the next one."""

    def __init__(self, base: str) -> None:
        self._base, self._above, self._handle = base, "", -1

    def __enter__(self) -> Below:
        return self

    def __exit__(self, *error: object) -> None:
        self._open("")

    def _open(self, above: str) -> None:
        if self._handle >= 0:
            os.close(self._handle)
        self._above, self._handle = above, -1

    def _at(self, path: str, make: bool = False) -> tuple[str, int]:
        """A name, and the folder that it is in; -1: there is none that may be used."""
        above, _, name = path.rpartition("/")
        parts = path.split("/")
        if any(part in ("", ".", "..") or "\0" in part for part in parts):
            return name, -1
        if self._handle >= 0 and above == self._above:
            return name, self._handle
        self._open(above)
        handle = -1
        try:
            handle = os.open(self._base, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            for part in parts[:-1]:
                try:
                    below = os.open(part, _FOLDER, dir_fd=handle)
                except FileNotFoundError:
                    if not make:
                        raise
                    os.mkdir(part, dir_fd=handle)
                    below = os.open(part, _FOLDER, dir_fd=handle)
                os.close(handle)
                handle = below
        except OSError:
            if handle >= 0:
                os.close(handle)
            return name, -1
        self._handle = handle
        return name, handle

    def is_there(self, path: str) -> bool:
        name, handle = self._at(path)
        try:
            return handle >= 0 and bool(os.lstat(name, dir_fd=handle))
        except OSError:
            return False

    def link_at(self, path: str) -> str | None:
        """Where it leads; None: it is no link."""
        name, handle = self._at(path)
        try:
            return os.readlink(name, dir_fd=handle) if handle >= 0 else None
        except OSError:
            return None

    def unlink(self, path: str) -> None:
        name, handle = self._at(path)
        if handle >= 0:
            os.unlink(name, dir_fd=handle)

    def link(self, path: str, target: str) -> None:
        name, handle = self._at(path, make=True)
        if handle >= 0 and target and "\0" not in target:
            os.symlink(target, name, dir_fd=handle)

    def chmod(self, path: str, mode: int) -> None:
        """Of a regular file; anything else is left as it is."""
        name, handle = self._at(path)
        if handle < 0:
            return
        try:
            info = os.lstat(name, dir_fd=handle)
            if not stat.S_ISREG(info.st_mode) or info.st_mode & _BITS == mode & _BITS:
                return
            file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=handle)
        except OSError:
            return
        try:
            os.fchmod(file, mode & _BITS)
        finally:
            os.close(file)
