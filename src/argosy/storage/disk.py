"""What every part of `data` agrees on about the disk: safe names, whole files or none, a full disk is said
so."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from argosy.model.errors import ArgosyError
from argosy.model.units import render_bytes

INLINE_BYTES: Final = 64 << 10  # smaller reads and writes are done at once: a thread costs more than they do
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_digest(text: str) -> bool:
    """Whether `text` is a hex SHA-256 (and so can stand in a path)."""
    return _DIGEST.fullmatch(text) is not None


@contextlib.contextmanager
def full_disk_said(folder: Path) -> Iterator[None]:
    """Turns the system's "no space left" into the error that people can act on."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(folder) from error
        raise


def disk_full(folder: Path) -> ArgosyError:
    try:
        free = render_bytes(os.statvfs(folder).f_bavail * os.statvfs(folder).f_frsize)
    except OSError:
        free = "nothing"
    return ArgosyError("disk-full", f"the disk of `{folder}` is full ({free} free)")


def write_all(fd: int, data: bytes | memoryview) -> None:
    """`os.write` until everything is written; raises OSError as it does."""
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """`path` has either its old content or all of `data`, also after a kill. Raises `disk-full`."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with full_disk_said(path.parent):
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
        try:
            try:
                write_all(fd, data)
            finally:
                os.close(fd)
            os.replace(temporary, path)  # noqa: PTH105
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
