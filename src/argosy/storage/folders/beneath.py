"""Files of one folder, by paths that come from outside.

No text of a path is trusted: names are looked up one by one below a descriptor, without following links, so
that neither `..` nor a link, nor whoever swaps a folder for a link in the meantime, leads out of it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from argosy.model.errors import ArgosyError

_DIR: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NAME_MAX: Final = 255
_DEPTH_MAX: Final = 128
_FICLONE: Final = 0x40049409  # ioctl: this file shares all blocks of that one
HIDDEN: Final = ".argosy-"  # names with it are ours, and are never shown


class Found(NamedTuple):
    """An entry: `kind` is file, folder, link or other."""

    name: str
    kind: str
    size: int
    mtime_ms: int


class Beneath:
    """What is in one folder. Errors: "not-found", "usage", "conflict", "disk-full"."""

    def __init__(self, root: str) -> None:
        self.root = root

    @contextmanager
    def folder(self, parts: tuple[str, ...], *, make: bool = False) -> Iterator[int]:
        """A descriptor of the folder that `parts` name; with `make` missing ones are made."""
        fd = self._open_root()
        try:
            for part in parts:
                below = self._step(fd, part, make=make)
                os.close(fd)
                fd = below
            yield fd
        finally:
            os.close(fd)

    def _open_root(self) -> int:
        with told(""):
            return os.open(self.root, _DIR)

    def _step(self, fd: int, part: str, *, make: bool) -> int:
        with told(part):
            try:
                return os.open(part, _DIR, dir_fd=fd)
            except FileNotFoundError:
                if not make:
                    raise
            try:
                os.mkdir(part, 0o770, dir_fd=fd)
            except FileExistsError:
                pass
            return os.open(part, _DIR, dir_fd=fd)

    def list(self, path: str) -> list[Found]:
        """What a folder holds, by name; of a file, itself."""
        parts = split(path)
        if parts:
            with self.folder(parts[:-1]) as above, told(path):
                st = os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
                if not stat.S_ISDIR(st.st_mode):
                    return [_found(parts[-1], st)]
        with self.folder(parts) as fd, told(path), os.scandir(fd) as entries:
            found = []
            for entry in entries:
                if entry.name.startswith(HIDDEN):
                    continue
                try:
                    found.append(_found(entry.name, entry.stat(follow_symlinks=False)))
                except FileNotFoundError:
                    continue
        return sorted(found)

    def open_file(self, path: str) -> tuple[int, int]:
        """A regular file, for reading: its descriptor, the caller's to close, and its size."""
        parts = split(path)
        if not parts:
            raise ArgosyError("usage", "the folder itself is no file", hint="name a file in it")
        with self.folder(parts[:-1]) as above, told(path):
            fd = os.open(parts[-1], os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=above)
            st = os.fstat(fd)
            if not stat.S_ISREG(st.st_mode):
                os.close(fd)
                raise ArgosyError("usage", f"`{path}` is no file", hint="a folder comes as an archive")
            return fd, st.st_size

    def make_folder(self, path: str) -> None:
        with self.folder(split(path), make=True):
            pass

    def place(self, temporary: str, path: str, *, replace: bool) -> None:
        """A finished file gets its name: from `temporary`, a path of ours on the same volume. Without
        `replace` nothing that is there is touched ("conflict")."""
        parts = split(path)
        if not parts:
            raise ArgosyError("usage", "the folder itself is no file", hint="name a file in it")
        with self.folder(parts[:-1], make=True) as above, told(path):
            try:
                _name(temporary, parts[-1], None, above, replace=replace)
            except OSError as error:
                if error.errno != errno.EXDEV:
                    raise
                _bring(temporary, parts[-1], above, replace=replace)

    def stat(self, path: str) -> os.stat_result | None:
        """What lies there, links as links; None: nothing."""
        parts = split(path)
        try:
            with self.folder(parts[:-1]) as above:
                return os.stat(parts[-1], dir_fd=above, follow_symlinks=False)
        except (ArgosyError, OSError):
            return None

    def look(self, path: str) -> Found:
        """Raises "not-found"."""
        found = self.stat(path)
        if found is None:
            raise error_of(path, FileNotFoundError(errno.ENOENT, ""))
        return _found(split(path)[-1], found)

    def size_of(self, path: str) -> int:
        """Of a regular file; -1: there is none."""
        try:
            fd, size = self.open_file(path)
        except ArgosyError:
            return -1
        os.close(fd)
        return size

    def sha256_of(self, path: str) -> str:
        fd, _ = self.open_file(path)
        with os.fdopen(fd, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def exists(self, path: str) -> bool:
        return self.stat(path) is not None

    def remove(self, path: str) -> int:
        """A file, a link, or a folder with all that it holds. Returns the bytes that went."""
        parts = split(path)
        if not parts:
            raise ArgosyError(
                "usage", "the folder itself is not removed this way", hint="argosy folder rm NAME"
            )
        with self.folder(parts[:-1]) as above, told(path):
            return _remove(above, parts[-1])

    def rename(self, path: str, to: str, *, replace: bool = False) -> None:
        """Within the folder. Nothing that is there is replaced ("conflict"), but with `replace` a file."""
        parts, target = split(path), split(to)
        if not parts or not target:
            raise ArgosyError("usage", "the folder itself is not renamed this way", hint="name what is in it")
        if not replace and self.exists(to):
            raise ArgosyError("conflict", f"`{to}` is there already", hint="remove it first")
        with self.folder(parts[:-1]) as above, self.folder(target[:-1], make=True) as below, told(path):
            os.rename(parts[-1], target[-1], src_dir_fd=above, dst_dir_fd=below)

    def walk(
        self, path: str, *, links: bool = False, opens: bool = True
    ) -> Iterator[tuple[str, int | None, os.stat_result]]:
        """All below a folder, folders first: paths, descriptors of files (None: a folder, or with `links` a
        link; good until the next one; any number where they need not be open), what they are. Other kinds
        are left out."""
        with self.folder(split(path)) as fd:
            yield from _walk(fd, "", links)

    def facts(self, fd: int, path: str) -> os.stat_result:
        """What `open_file` has opened there, as `stat` and `walk` tell it."""
        return os.fstat(fd)

    def read_link(self, path: str) -> str:
        """Where a link leads; "": it is none."""
        parts = split(path)
        try:
            with self.folder(parts[:-1]) as above:
                return os.readlink(parts[-1], dir_fd=above)
        except (ArgosyError, OSError):
            return ""

    def make_link(self, path: str, target: str, *, replace: bool) -> None:
        """A link that leads wherever `target` says: nothing here follows it. `replace`: a file or link that
        is there."""
        parts = split(path)
        if not parts or not target or "\0" in target:
            raise ArgosyError("usage", f"`{path}` leads nowhere", hint="name a target")
        with self.folder(parts[:-1], make=True) as above, told(path):
            if not replace:
                os.symlink(target, parts[-1], dir_fd=above)
                return
            hidden = f"{HIDDEN}link-{os.getpid()}-{threading.get_ident()}"
            with contextlib.suppress(FileNotFoundError):  # of an earlier try that was cut off
                os.unlink(hidden, dir_fd=above)
            os.symlink(target, hidden, dir_fd=above)
            os.rename(hidden, parts[-1], src_dir_fd=above, dst_dir_fd=above)

    def set_mode(self, path: str, mode: int) -> None:
        """Of a regular file; the server itself always reads and writes it."""
        fd, _ = self.open_file(path)
        try:
            with told(path):
                os.fchmod(fd, (mode & 0o777) | 0o600)
        finally:
            os.close(fd)


def split(path: str) -> tuple[str, ...]:
    """Names on the way. Raises "usage" for what no file can be called, and for `..`."""
    parts = tuple(part for part in path.split("/") if part not in ("", "."))
    wrong = any(
        part == ".." or "\0" in part or len(os.fsencode(part)) > _NAME_MAX or part.startswith(HIDDEN)
        for part in parts
    )
    if wrong or len(parts) > _DEPTH_MAX:
        shown = path.replace("\0", "?")[:80]
        raise ArgosyError("usage", f"`{shown}` is no path within a folder", hint="write it as runs/7/log.txt")
    return parts


@contextmanager
def told(path: str) -> Iterator[None]:
    """Errors of the file system in our words."""
    try:
        yield
    except OSError as error:
        raise error_of(path, error) from None


def error_of(path: str, error: OSError) -> ArgosyError:
    number = error.errno or 0
    if number == errno.ENOENT:
        return ArgosyError(
            "not-found", f"there is no `{path}`", hint="`argosy folder ls NAME` lists what is there"
        )
    if number in (errno.ELOOP, errno.ENOTDIR):
        return ArgosyError(
            "usage", f"`{path}` is no folder here", hint="links are not followed: name where it really is"
        )
    if number in (errno.EEXIST, errno.ENOTEMPTY, errno.EISDIR):
        return ArgosyError(
            "conflict", f"`{path}` is there already", hint="choose another name, or replace it"
        )
    if number == errno.EDQUOT:
        return ArgosyError(
            "over-quota", f"the volume has no room for `{path}`: {error.strerror}", hint="remove files"
        )
    if number == errno.ENOSPC:
        return ArgosyError("disk-full", f"the volume is full: `{path}` was not written")
    return ArgosyError(
        "forbidden", f"`{path}`: {error.strerror or error}", hint="the server may not do this there"
    )


def _found(name: str, st: os.stat_result) -> Found:
    mode = st.st_mode
    kind = (
        "file"
        if stat.S_ISREG(mode)
        else "folder"
        if stat.S_ISDIR(mode)
        else "link"
        if stat.S_ISLNK(mode)
        else "other"
    )
    return Found(name, kind, st.st_size if kind == "file" else 0, st.st_mtime_ns // 1_000_000)


def _name(temporary: str, name: str, at: int | None, above: int, *, replace: bool) -> None:
    if replace:
        os.rename(temporary, name, src_dir_fd=at, dst_dir_fd=above)
        return
    os.link(temporary, name, src_dir_fd=at, dst_dir_fd=above, follow_symlinks=False)
    os.unlink(temporary, dir_fd=at)


def _bring(temporary: str, name: str, above: int, *, replace: bool) -> None:
    """For a folder that is a file system by itself (a subvolume): the blocks are shared where they can be,
    else copied, under a name that nobody sees, and then as with any file."""
    hidden = f"{HIDDEN}{os.path.basename(temporary)}"  # noqa: PTH119  no path: a name
    with contextlib.suppress(FileNotFoundError):  # of an earlier try that was cut off
        os.unlink(hidden, dir_fd=above)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    source = os.open(temporary, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        target = os.open(hidden, flags, 0o600, dir_fd=above)
        try:
            _copy(source, target)
            os.fchmod(target, stat.S_IMODE(os.fstat(source).st_mode))
            os.fsync(target)
        finally:
            os.close(target)
        _name(hidden, name, above, above, replace=replace)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(hidden, dir_fd=above)
        raise
    finally:
        os.close(source)
    Path(temporary).unlink()


def _copy(source: int, target: int) -> None:
    try:
        fcntl.ioctl(target, _FICLONE, source)
        return
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise
    at, size = 0, os.fstat(source).st_size
    while at < size:
        at += os.sendfile(target, source, at, min(size - at, 1 << 26)) or size


def _remove(above: int, name: str) -> int:
    st = os.stat(name, dir_fd=above, follow_symlinks=False)
    if not stat.S_ISDIR(st.st_mode):
        os.unlink(name, dir_fd=above)
        return st.st_size if stat.S_ISREG(st.st_mode) and st.st_nlink == 1 else 0
    fd = os.open(name, _DIR, dir_fd=above)
    try:
        gone = sum(_remove(fd, each) for each in os.listdir(fd))  # noqa: PTH208  by descriptor
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=above)
    return gone


def _walk(fd: int, prefix: str, links: bool) -> Iterator[tuple[str, int | None, os.stat_result]]:
    for name in sorted(os.listdir(fd)):
        if name.startswith(HIDDEN):
            continue
        path = f"{prefix}{name}"
        try:
            st = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if stat.S_ISDIR(st.st_mode):
                below = os.open(name, _DIR, dir_fd=fd)
                try:
                    yield path, None, st
                    yield from _walk(below, f"{path}/", links)
                finally:
                    os.close(below)
            elif links and stat.S_ISLNK(st.st_mode):
                yield path, None, st
            elif stat.S_ISREG(st.st_mode):
                file = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)
                try:
                    yield path, file, os.fstat(file)
                finally:
                    os.close(file)
        except FileNotFoundError:
            continue
