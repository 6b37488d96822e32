"""Files that are received and sent: a received file appears only when it is complete, resumes where it was
cut off, and is checked; a file that is sent must not change meanwhile."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, wait
from pathlib import Path
from typing import BinaryIO, Final

from argosy.model.errors import ArgosyError
from argosy.model.syncing import is_digest
from argosy.model.units import render_bytes

_RESUMED_BYTES: Final = 8 << 20  # smaller files begin again
_PIECE_BYTES: Final = 1 << 20
_SPLIT_BYTES: Final = 64 << 20
_RANGE_BYTES: Final = 16 << 20
Fetch = Callable[[str, Callable[[bytes | memoryview], object]], None]
_FULL: Final = frozenset((errno.ENOSPC, errno.EDQUOT))


class Landing:
    """A file on its way to `path`. `take` its bytes from `first` on, inside the block; at its end the file is
    there. A large one that breaks off is kept beside it, and goes on with the next try."""

    def __init__(self, path: Path, size: int, etag: str, on_bytes: Callable[[int], None]) -> None:
        self._path, self._size, self._etag, self._on_bytes = path, size, etag, on_bytes
        self._digest = hashlib.md5(usedforsecurity=False) if is_digest(etag) else None
        self._resumes = size >= _RESUMED_BYTES and bool(etag)
        self._temporary, self._file, self.first = path, -1, 0
        self._count = 0
        self._ranges: list[tuple[int, int]] = []
        self._filled: set[int] = set()
        self._digested = 0  # bytes of the file that `_digest` has seen, where ranges come

    def __enter__(self) -> Landing:
        check_may_land(self._path)
        with full_disk_said(self._path):
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if not (self._resumes and self._go_on()):
                self._resumes = False
                own = f".{self._path.name[:80]}.{os.getpid()}.{threading.get_ident()}.part"
                self._temporary = self._path.with_name(own)
                flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
                self._file = os.open(self._temporary, flags, 0o666)
        self._count = self.first
        self._on_bytes(self.first)
        return self

    def _go_on(self) -> bool:
        """Open what an earlier try left; False: another program writes it."""
        mark = hashlib.sha256(f"{self._etag} {self._size}".encode()).hexdigest()[:16]
        self._temporary = self._path.with_name(f".{self._path.name[:80]}.{mark}.part")
        fd = os.open(self._temporary, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(fd)
            return False
        self._file = fd
        self.first = os.fstat(fd).st_size
        if self.first > self._size:
            os.ftruncate(fd, 0)
            self.first = 0
        if self._digest is not None:
            while piece := os.read(fd, _PIECE_BYTES):
                self._digest.update(piece)
        os.lseek(fd, self.first, os.SEEK_SET)
        return True

    def digest_unknown(self) -> None:
        """The ETag is no MD5 after all: the store encrypts with a key of the user's."""
        self._digest = None

    def take(self, piece: bytes | memoryview) -> None:
        with full_disk_said(self._path):
            view = memoryview(piece)
            while view:
                view = view[os.write(self._file, view) :]
        if self._digest is not None:
            self._digest.update(piece)
        self._count += len(piece)
        self._on_bytes(len(piece))

    def fill(self, fetch: Fetch, pool: Executor) -> None:
        """All that is not there yet. `fetch` takes a range of bytes as HTTP names it ("": everything) and
        where its pieces go; a large file comes in several ranges at once."""
        if not self._etag or self._size - self.first < _SPLIT_BYTES:
            fetch(f"bytes={self.first}-" if self.first else "", self.take)
            return
        self._ranges = [
            (at, min(at + _RANGE_BYTES, self._size)) for at in range(self.first, self._size, _RANGE_BYTES)
        ]
        self._digested = self.first
        under_way = [pool.submit(self._fill_range, fetch, *each) for each in self._ranges]
        try:
            for (_, end), each in zip(self._ranges, under_way, strict=True):
                each.result()
                self._digest_to(end)  # while the others come
        finally:
            for each in under_way:
                each.cancel()
            wait(under_way)

    def _fill_range(self, fetch: Fetch, first: int, end: int) -> None:
        at = first

        def take(piece: bytes | memoryview) -> None:
            nonlocal at
            view = memoryview(piece)
            with full_disk_said(self._path):
                while view:
                    count = os.pwrite(self._file, view, at)
                    view, at = view[count:], at + count
            self._on_bytes(len(piece))

        fetch(f"bytes={first}-{end - 1}", take)
        if at != end:
            raise ArgosyError("conflict", f"`{self._path}` did not arrive whole", hint="repeat it")
        self._filled.add(first)

    def _settle_ranges(self) -> None:
        """What came without a gap is what is kept."""
        self._count = self.first
        for first, end in self._ranges:
            if first not in self._filled:
                break
            self._count = end
        os.ftruncate(self._file, self._count)
        if self._count == self._size:
            self._digest_to(self._size)

    def _digest_to(self, end: int) -> None:
        """All before it is in the file."""
        digest = self._digest
        while digest is not None and self._digested < end:
            piece = os.pread(self._file, min(_PIECE_BYTES, end - self._digested), self._digested)
            digest.update(piece)
            self._digested += len(piece)
            if not piece:
                return

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        try:
            if self._ranges:
                self._settle_ranges()
            if kind is None:
                self._check()
                os.replace(self._temporary, self._path)  # noqa: PTH105
                return
        except BaseException:
            self._temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(self._file)
        full = isinstance(error, ArgosyError) and error.code in ("disk-full", "conflict")
        if not self._resumes or full:
            self._temporary.unlink(missing_ok=True)

    def _check(self) -> None:
        if self._count != self._size:
            raise ArgosyError(
                "conflict",
                f"`{self._path}` arrived with {self._count} bytes, and has {self._size}",
                hint="repeat it",
            )
        if self._digest is not None and self._digest.hexdigest() != self._etag:
            raise ArgosyError(
                "conflict",
                f"`{self._path}` did not arrive as it was stored: its MD5 differs",
                hint="repeat it",
            )


def check_may_land(path: Path) -> None:
    """Raises ArgosyError `usage` where the name is taken by no file: a file takes the place of what has its
    name, and would take that of a device, of everybody's /dev/null."""
    try:
        mode = path.stat().st_mode
        is_ours = path.is_symlink() and os.readlink(path).startswith("/proc/")  # noqa: PTH115  as /dev/stdout
    except OSError:
        return  # nothing is there, or whoever writes is told
    if is_ours or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
        raise ArgosyError(
            "usage",
            f"`{path}` is there and is no file: a copy would take its place",
            hint="name a file or a folder; `argosy storage cat` prints an object",
        )


def replaced(name: str) -> ArgosyError:
    return ArgosyError("conflict", f"{name} was replaced while it was read", hint="repeat it")


def pieces_of(path: Path, file: BinaryIO) -> Iterator[bytes]:
    """The bytes of an open file. Raises ArgosyError `conflict` before the last of them when it changed."""
    before = os.fstat(file.fileno())
    left = before.st_size
    while left > 0:
        piece = file.read(min(_PIECE_BYTES, left))
        left -= len(piece)
        if not piece or left == 0:
            check_unchanged(path, before, os.fstat(file.fileno()))
        if not piece:
            return
        yield piece


def check_unchanged(path: Path, before: os.stat_result, after: os.stat_result) -> None:
    """Raises ArgosyError `conflict`."""
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise ArgosyError(
            "conflict",
            f"`{path}` changed while it was read: it is not stored",
            hint="repeat it when nobody writes the file",
        )


@contextlib.contextmanager
def full_disk_said(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise disk_full(path.parent) from None
        raise


def disk_full(folder: Path, needs: int = 0) -> ArgosyError:
    try:
        told = os.statvfs(folder)
        free = render_bytes(told.f_bavail * told.f_frsize)
    except OSError:
        free = "nothing"
    more = f", and {render_bytes(needs)} are to come" if needs else ""
    return ArgosyError("disk-full", f"the disk of `{folder}` is full ({free} free{more})")
