"""What cp and sync share: copies of one entry that are either whole or not there."""

from __future__ import annotations

import errno
import itertools
import os
import stat
import threading
from collections.abc import Callable
from typing import NamedTuple

from argosy.files.twin.session import Session
from argosy.files.twin.walk import Dir, Walk, join, target_path

BLOCK = 1 << 18
_FICLONE = 0x40049409
_numbers = itertools.count()


class Keep:
    """What copies have of their sources besides the bytes."""

    def __init__(self) -> None:
        self.mode = self.owner = self.times = self.links = self.xattrs = False
        self.sparse = self.reflink = 1  # 0 never, 1 auto, 2 always


class Way(NamedTuple):
    """One entry on its way."""

    folder: Dir | None  # of the source; None: the user named the file
    at: int | None
    to: int | None
    name: str
    to_name: str
    path: str  # as it is shown
    to_path: str
    st: os.stat_result
    follow: bool = False  # a link that the user named


class _Link:
    """A file of several names: where its copy is, once it is there."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.path = ""
        self.key: tuple[int, int] | None = None  # None: it could not be copied


class Copier:
    """Copies entries of one call."""

    def __init__(self, session: Session, keep: Keep) -> None:
        self.session, self.keep = session, keep
        self._links: dict[tuple[int, int], _Link] = {}
        self._no_clone = False

    def copy(self, way: Way) -> bool:
        """Any type but a folder. False: complained."""
        if not self.keep.links or way.st.st_nlink < 2:
            return self._plain(way)
        key = (way.st.st_dev, way.st.st_ino)
        with self.session.lock:
            link, first = self._links.get(key), key not in self._links
            link = self._links.setdefault(key, link or _Link())
        if not first:
            link.ready.wait()
            return link.key is not None and self._again(way, link)
        try:
            if self._plain(way):
                made = os.stat(way.to_name, dir_fd=way.to, follow_symlinks=False)
                link.path, link.key = way.to_path, (made.st_dev, made.st_ino)
        finally:
            link.ready.set()
        return link.key is not None

    def _plain(self, way: Way) -> bool:
        if stat.S_ISREG(way.st.st_mode):
            return self._file(way)
        try:
            self._special(way)
            return True
        except OSError as error:
            self.session.complain("cannot create", way.to_path, error)
            return False

    def _again(self, way: Way, link: _Link) -> bool:
        """Another name of what was copied. What was linked is looked at: nobody leads us to another file."""
        temporary = _temporary()
        try:
            os.link(link.path, temporary, dst_dir_fd=way.to, follow_symlinks=False)
            st = os.stat(temporary, dir_fd=way.to, follow_symlinks=False)
            if (st.st_dev, st.st_ino) != link.key:
                os.unlink(temporary, dir_fd=way.to)
                self.session.complain("another file came between:", way.to_path)
                return False
            os.rename(temporary, way.to_name, src_dir_fd=way.to, dst_dir_fd=way.to)
            _forget(temporary, way.to)  # two names of one file: rename left both
            return True
        except OSError as error:
            _forget(temporary, way.to)
            self.session.complain("cannot link", way.to_path, error)
            return False

    def _special(self, way: Way) -> None:
        """A link, a pipe, a socket, a device: made at once, or beside what is there and renamed."""
        st, name = way.st, way.to_name
        text = os.readlink(way.name, dir_fd=way.at) if stat.S_ISLNK(st.st_mode) else ""
        mode = st.st_mode if self.keep.mode else st.st_mode & ~0o7000
        for again in (False, True):
            try:
                if text:
                    os.symlink(text, name, dir_fd=way.to)
                else:
                    os.mknod(name, mode, st.st_rdev, dir_fd=way.to)
                break
            except FileExistsError:
                if again:
                    raise
                name = _temporary()
        try:
            if self.keep.owner:
                _ignoring_eperm(
                    lambda: os.chown(name, st.st_uid, st.st_gid, dir_fd=way.to, follow_symlinks=False)
                )
            if not text and self.keep.mode:
                os.chmod(name, st.st_mode & 0o7777, dir_fd=way.to)
            if self.keep.times:
                times = (st.st_atime_ns, st.st_mtime_ns)
                os.utime(name, ns=times, dir_fd=way.to, follow_symlinks=False)
            if name != way.to_name:
                os.rename(name, way.to_name, src_dir_fd=way.to, dst_dir_fd=way.to)
        except OSError:
            if name != way.to_name:
                _forget(name, way.to)
            raise

    def _file(self, way: Way) -> bool:
        flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | (0 if way.follow else os.O_NOFOLLOW)
        try:
            source = os.open(way.name, flags, dir_fd=way.at)
        except OSError as error:
            self.session.complain("cannot open", way.path, error)
            return False
        temporary = _temporary()
        try:
            st = os.fstat(source)
            if not stat.S_ISREG(st.st_mode) and way.folder is not None:
                self.session.complain("it was replaced while it was copied:", way.path)
                return False
            try:
                target = os.open(
                    temporary,
                    os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC,
                    0o600 if self.keep.mode else st.st_mode & 0o777,
                    dir_fd=way.to,
                )
            except OSError as error:
                self.session.complain("cannot create", way.to_path, error)
                return False
            return self._fill(way, st, source, target, temporary)
        finally:
            os.close(source)

    def _fill(self, way: Way, st: os.stat_result, source: int, target: int, temporary: str) -> bool:
        try:
            try:
                self._old_mode(way, target)
                self._data(source, target, st)
                self.keep_meta(target, source, st, way.path)
            finally:
                os.close(target)
            os.rename(temporary, way.to_name, src_dir_fd=way.to, dst_dir_fd=way.to)
        except OSError as error:
            _forget(temporary, way.to)
            self.session.complain("cannot copy", way.path, error)
            return False
        with self.session.lock:
            self.session.bytes += st.st_size
        return True

    def _old_mode(self, way: Way, target: int) -> None:
        """A file that is replaced keeps its mode, unless the source's is asked for."""
        if self.keep.mode or (way.folder and way.folder.fresh):
            return
        try:
            old = os.stat(way.to_name, dir_fd=way.to, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISREG(old.st_mode):
            os.fchmod(target, old.st_mode & 0o7777)

    # --- bytes ---

    def _data(self, source: int, target: int, st: os.stat_result) -> None:
        """All of a file; its holes stay holes."""
        if self.keep.reflink and not self._no_clone and self._cloned(source, target):
            return
        if self.keep.reflink == 2:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if not st.st_size:
            self._read_and_write(source, target, 0, 1 << 62)  # or one whose size nobody knows, as in /proc
        elif self.keep.sparse != 1 or st.st_blocks * 512 >= st.st_size:
            self._range(source, target, 0, st.st_size)
            if self.keep.sparse == 2:
                os.ftruncate(target, st.st_size)
        else:
            self._parts(source, target, st.st_size)

    def _cloned(self, source: int, target: int) -> bool:
        import fcntl

        try:
            fcntl.ioctl(target, _FICLONE, source)
            return True
        except OSError as error:
            self._no_clone = error.errno in (errno.EOPNOTSUPP, errno.ENOTTY, errno.EXDEV, errno.EINVAL)
            return False

    def _parts(self, source: int, target: int, size: int) -> None:
        at = 0
        while at < size:
            try:
                data = os.lseek(source, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    break
                self._range(source, target, at, size)
                return
            at = os.lseek(source, data, os.SEEK_HOLE)
            self._range(source, target, data, at)
        os.ftruncate(target, size)

    def _range(self, source: int, target: int, at: int, end: int) -> None:
        copy = getattr(os, "copy_file_range", None)
        while at < end and self.keep.sparse == 1 and copy is not None:
            try:
                done = copy(source, target, end - at, at, at)
            except OSError as error:
                if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
                    raise
                break  # this pair of file systems cannot: by hand
            if not done:
                return
            at += done
        self._read_and_write(source, target, at, end)

    def _read_and_write(self, source: int, target: int, at: int, end: int) -> None:
        while at < end:
            data = os.pread(source, min(BLOCK, end - at), at)
            if not data:
                return
            if self.keep.sparse == 2:
                for part in range(0, len(data), 4096):
                    piece = data[part : part + 4096]
                    if piece.strip(b"\0"):
                        _write_at(target, piece, at + part)
            else:
                _write_at(target, data, at)
            at += len(data)

    def keep_meta(self, target: int, source: int, st: os.stat_result, path: str) -> None:
        """Owner, mode, lists, attributes and times, as they are to be kept."""
        mode = st.st_mode & 0o7777
        if self.keep.owner and not _ignoring_eperm(lambda: os.fchown(target, st.st_uid, st.st_gid)):
            mode &= ~0o6000  # rights of an owner are not given to another
        if self.keep.mode:
            os.fchmod(target, mode)
        if source >= 0 and (self.keep.xattrs or self.keep.mode):
            self._xattrs(source, target)
        if self.keep.times:
            os.utime(target, ns=(st.st_atime_ns, st.st_mtime_ns))

    def _xattrs(self, source: int, target: int) -> None:
        """With -p the access lists, with -a all that can be copied; what the target cannot hold is left
        out."""
        try:
            names = os.listxattr(source)
        except OSError:
            return
        for name in names:
            known = name.startswith(("user.", "trusted.")) or name == "security.capability"
            if self.keep.mode if name.startswith("system.posix_acl_") else self.keep.xattrs and known:
                try:
                    os.setxattr(target, name, os.getxattr(source, name))
                except OSError:
                    pass

    # --- folders ---

    def make_target(self, walk: Walk, folder: Dir) -> bool:
        """The folder of the target, opened. Its mode lets us write until all is in it."""
        name = folder.name if folder.parent else folder.to
        mode = 0o700 | (0 if self.keep.mode or folder.st is None else folder.st.st_mode & 0o1777)
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | (os.O_NOFOLLOW if folder.parent else 0)
        try:
            with walk.parent_grip(folder, 1) as at:
                try:
                    os.mkdir(name, mode, dir_fd=at)
                    folder.fresh = True
                except FileExistsError:
                    pass
                fd = os.open(name, flags, dir_fd=at)
        except OSError as error:
            number = errno.ENOTDIR if error.errno == errno.ELOOP else error
            self.session.complain("cannot create directory", target_path(folder), number)
            return False
        walk.keep(folder, 1, fd)
        if folder.fds[1] != fd:
            os.close(fd)
        return True

    def finish_target(self, walk: Walk, folder: Dir) -> None:
        """All is in it: it gets what belongs to it."""
        if folder.st is None or folder.keys[1] is None:
            return
        try:
            with walk.grip(folder, 1) as to:
                source = os.dup(folder.fds[0]) if folder.fds[0] >= 0 else -1
                try:
                    self.keep_meta(to, source, folder.st, folder.path)
                finally:
                    if source >= 0:
                        os.close(source)
                if not self.keep.mode and folder.fresh and folder.st.st_mode & 0o700 != 0o700:
                    os.fchmod(to, folder.st.st_mode & 0o7777 & ~self.session.umask)
        except OSError as error:
            self.session.complain("cannot keep the mode of", folder.path, error)


def remove_tree(session: Session, at: int, name: str, path: str) -> bool:
    """One thread removes all of it, without following links."""
    try:
        try:
            os.unlink(name, dir_fd=at)
        except OSError as error:
            if error.errno not in (errno.EISDIR, errno.EPERM):
                raise
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            fd = os.open(name, flags, dir_fd=at)
            try:
                results = [remove_tree(session, fd, each, join(path, each)) for each in os.listdir(fd)]
            finally:
                os.close(fd)
            if not all(results):
                return False
            os.rmdir(name, dir_fd=at)
    except OSError as error:
        session.complain("cannot remove", path, error)
        return False
    session.told("remove", path)
    return True


def _temporary() -> str:
    return f".pf-{os.getpid()}-{next(_numbers)}"


def _forget(name: str, at: int | None) -> None:
    try:
        os.unlink(name, dir_fd=at)
    except OSError:
        pass


def _ignoring_eperm(change: Callable[[], None]) -> bool:
    try:
        change()
        return True
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        return False


def _write_at(target: int, data: bytes, at: int) -> None:
    while data:
        done = os.pwrite(target, data, at)
        data, at = data[done:], at + done
