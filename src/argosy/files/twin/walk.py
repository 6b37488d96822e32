"""The walk: folders are opened below their parents' descriptors and never through a link, read, cut into
slices, and left when all below them is done. Threads are added while calls sleep."""

from __future__ import annotations

import errno
import os
import resource
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Union

from argosy.files.twin.session import Session

SLICE = 64
MOST_THREADS = 64  # more only wait for the interpreter
LOOK_S = 0.01
_OPEN = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK

#: The file type of `st_mode` for what a listing says.
Kind = int


class Dir:
    """A folder that is worked on, until it and all below it are done."""

    __slots__ = (
        "bytes", "depth", "error", "failed", "fds", "files", "fresh", "keys", "more", "name", "own_bytes",
        "own_files", "parent", "path", "refs", "st", "to",
    )  # fmt: skip

    def __init__(self, parent: Dir | None, path: str, name: str, st: os.stat_result | None, to: str) -> None:
        self.parent, self.path, self.name, self.st, self.to = parent, path, name, st, to
        self.fds = [-1, -1]  # of the source, of the target; -1: opened anew for each use
        self.keys: list[tuple[int, int] | None] = [None, None]  # device and number of what was opened
        self.refs = 1
        self.depth: int = parent.depth + 1 if parent else 0
        self.failed = self.fresh = False
        self.error = 0
        self.bytes = self.files = self.own_bytes = self.own_files = 0
        self.more: Any = None  # of the tool


class Tool:
    """What a tool does at each point of the walk."""

    slices = True  # several threads may work in one folder
    follows = False  # a link that the user named
    tries_unread = False  # leave() complains about what could not be opened
    flat = False  # folders are entries

    def before(self, folder: Dir) -> bool:
        """In its parent, not opened. False: not entered."""
        return True

    def enter(self, folder: Dir, fd: int) -> bool:
        """Opened, `st` is known. False: not read."""
        return True

    def entry(self, folder: Dir, fd: int, name: str, kind: Kind) -> None:
        """Anything but a folder."""

    def leave(self, folder: Dir) -> None:
        """All below it is done."""


Work = Union["Dir", "tuple[Dir, list[tuple[str, Kind]]]", Callable[[], None]]


class Walk:
    """The jobs of one call and its threads."""

    def __init__(self, session: Session, tool: Tool) -> None:
        self.session, self.tool = session, tool
        self._jobs: list[Work] = []
        self._unfinished = 0
        self._allowed = session.threads or 1
        self._most = session.threads or MOST_THREADS
        self._more = threading.Condition()
        self._sleeps = 0
        self._opened = 0
        self._fail: BaseException | None = None
        self._limit = _open_limit(self._most)

    # --- jobs and threads ---

    def root(self, path: str, st: os.stat_result | None = None, to: str = "") -> Dir:
        """Begin at what the user named."""
        folder = Dir(None, path, path, st, to)
        self._push([folder])
        return folder

    def later(self, work: Callable[[], None]) -> None:
        self._push([work])

    def run(self) -> None:
        """Until no job is left. Raises what a thread raised."""
        threads: list[threading.Thread] = []
        entries = slept = calm = 0
        at, best, told = time.monotonic(), 0.0, time.monotonic()
        self._start(threads)
        while True:
            with self._more:
                if not self._unfinished:
                    break
                self._more.wait(LOOK_S)
            now, done = time.monotonic(), self.session.entries
            if self.session.progress and now - told > 1:
                told = now
                self.session.tell_progress("\n")
            if self.session.threads or (done - entries < 32 and now - at < 0.1) or now - at < LOOK_S:
                continue
            per_entry = (self._sleeps - slept) / (done - entries) if done > entries else 1.0
            rate = (done - entries) / (now - at)
            faster = rate > best * 1.15
            entries, slept, at = done, self._sleeps, now
            if per_entry > 0.4 and self._allowed < self._most and (faster or calm < 2):
                calm = 0 if faster else calm + 1
                self._allowed = min(self._allowed * 2, self._most)
                self._start(threads)
            best = max(best, rate)
        for thread in threads:
            thread.join()
        self.session.used_threads = max(self.session.used_threads, self._allowed)
        if self.session.progress:
            self.session.tell_progress("\n")
        if self._fail is not None:
            raise self._fail

    def _start(self, threads: list[threading.Thread]) -> None:
        self.session.used_threads = self._allowed
        while len(threads) < self._allowed:
            threads.append(threading.Thread(target=self._work, daemon=True))
            threads[-1].start()

    def _push(self, jobs: list[Work]) -> None:
        with self._more:
            self._jobs += jobs
            self._unfinished += len(jobs)
            self._more.notify(len(jobs))

    def _work(self) -> None:
        while True:
            with self._more:
                while self._unfinished and not self._jobs:
                    self._more.wait()
                if not self._unfinished:
                    return
                job = self._jobs.pop()
            before = _sleeps()
            try:
                self._do(job)
            except BaseException as error:  # run() raises it in the thread that waits
                self._fail, self.session.stopped = error, True
            slept = _sleeps() - before
            with self._more:
                self._sleeps += slept
                self._unfinished -= 1
                if not self._unfinished:
                    self._more.notify_all()

    def _do(self, job: Work) -> None:
        if isinstance(job, Dir):
            self._scan(job)
            self._unref(job)
        elif isinstance(job, tuple):
            folder, found = job
            try:
                with self.grip(folder) as fd:
                    self._each(folder, fd, found)
            except OSError as error:
                self.session.complain("cannot read directory", folder.path, error)
            self._unref(folder)
        else:
            job()

    # --- folders ---

    def _each(self, folder: Dir, fd: int, found: list[tuple[str, Kind]]) -> None:
        for name, kind in found:
            if self.session.stopped:
                break
            self.tool.entry(folder, fd, name, kind)
        with self.session.lock:
            self.session.entries += len(found)

    def _scan(self, folder: Dir) -> None:
        tool = self.tool
        if self.session.stopped or not tool.before(folder):
            return
        fd = self._open(folder)
        if fd < 0:
            return
        below: list[Work] = []
        found: list[tuple[str, Kind]] = []
        try:
            with os.scandir(fd) as listing:
                for entry in listing:
                    kind = _kind(entry)
                    if kind == stat.S_IFDIR and not tool.flat:
                        below.append(self._below(folder, entry.name))
                    else:
                        found.append((entry.name, kind))
        except OSError as error:
            folder.failed = True
            self.session.complain("cannot read directory", folder.path, error)
        if tool.slices and len(found) > SLICE + SLICE // 2:
            cut = [found[at : at + SLICE] for at in range(0, len(found), SLICE)]
            with self.session.lock:
                folder.refs += len(cut) - 1
            below += [(folder, part) for part in cut[1:]]
            found = cut[0]
        self._push(below)
        self._each(folder, fd, found)
        if folder.fds[0] != fd:
            os.close(fd)

    def _below(self, folder: Dir, name: str) -> Dir:
        with self.session.lock:
            folder.refs += 1
        return Dir(folder, join(folder.path, name), name, None, "")

    def _open(self, folder: Dir) -> int:
        """Opens the folder and decides whether it is read. Returns its fd, or -1."""
        try:
            with self.parent_grip(folder) as at:
                follow = folder.parent is None and self.tool.follows
                fd = os.open(folder.name, _OPEN & ~os.O_NOFOLLOW if follow else _OPEN, dir_fd=at)
        except OSError as error:
            folder.failed, folder.error = True, error.errno or errno.EIO
            if not self.tool.tries_unread:
                self.session.failed("cannot read directory", folder.path, error)
            return -1
        finally:
            with self.session.lock:
                self.session.entries += 1
        folder.st = os.fstat(fd)
        self.keep(folder, 0, fd)
        read = True
        if _is_loop(folder):
            self.session.complain("not entered, it contains itself:", folder.path, errno.ELOOP)
            folder.failed, read = True, False
        elif self.session.one_fs and folder.parent and _device(folder.parent) != _device(folder):
            read = False
        else:
            read = self.tool.enter(folder, fd)
        if read:
            return fd
        if folder.fds[0] != fd:
            os.close(fd)
        return -1

    def keep(self, folder: Dir, side: int, fd: int) -> None:
        """The folder is open as `fd`; it stays so while not too many are (else it is the caller's to
        close)."""
        st = os.fstat(fd)
        folder.keys[side] = (st.st_dev, st.st_ino)
        with self.session.lock:
            if folder.parent is None or self._opened < self._limit:
                folder.fds[side] = fd
                self._opened += folder.parent is not None

    @contextmanager
    def grip(self, folder: Dir, side: int = 0) -> Iterator[int]:
        """The descriptor of an opened folder. Raises OSError: ESTALE when another has its name now."""
        if folder.fds[side] >= 0:
            yield folder.fds[side]
            return
        chain = [folder]
        while chain[-1].fds[side] < 0:
            above = chain[-1].parent
            if above is None:
                raise OSError(errno.EBADF, os.strerror(errno.EBADF))
            chain.append(above)
        fd, ours = chain.pop().fds[side], False
        while chain:
            step = chain.pop()
            try:
                below = os.open(step.name, _OPEN, dir_fd=fd)
            finally:
                if ours:
                    os.close(fd)
            fd, ours, st = below, True, os.fstat(below)
            if (st.st_dev, st.st_ino) != step.keys[side]:
                os.close(fd)
                raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        try:
            yield fd
        finally:
            os.close(fd)

    @contextmanager
    def parent_grip(self, folder: Dir, side: int = 0) -> Iterator[int | None]:
        """Where the folder's name means it. None: for what the user named, the working folder."""
        if folder.parent is None:
            yield None
            return
        with self.grip(folder.parent, side) as fd:
            yield fd

    def _unref(self, folder: Dir | None) -> None:
        while folder is not None:
            with self.session.lock:
                folder.refs -= 1
                if folder.refs:
                    return
            self.tool.leave(folder)
            for fd in folder.fds:
                if fd >= 0:
                    os.close(fd)
                    with self.session.lock:
                        self._opened -= folder.parent is not None
            folder = folder.parent


def join(folder: str, name: str) -> str:
    return folder + name if folder.endswith("/") else f"{folder}/{name}"


def target_path(folder: Dir) -> str:
    """Of cp and sync: where the folder's copy is, as it is shown."""
    return join(target_path(folder.parent), folder.name) if folder.parent else folder.to


def _kind(entry: os.DirEntry[str]) -> Kind:
    """A folder, a file, a link are told by the listing; 0: something else."""
    try:
        if entry.is_symlink():
            return stat.S_IFLNK
        if entry.is_dir(follow_symlinks=False):
            return stat.S_IFDIR
        return stat.S_IFREG if entry.is_file(follow_symlinks=False) else 0
    except OSError:
        return 0


def _device(folder: Dir) -> int:
    key = folder.keys[0]
    return key[0] if key else -1


def _is_loop(folder: Dir) -> bool:
    above = folder.parent
    while above is not None:
        if above.keys[0] == folder.keys[0]:
            return True
        above = above.parent
    return False


def _sleeps() -> int:
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw


def _open_limit(threads: int) -> int:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        soft = hard
    except (OSError, ValueError):
        pass
    if soft == resource.RLIM_INFINITY:
        return 8192
    return max(0, min(soft - 4 * threads - 64, 8192))
