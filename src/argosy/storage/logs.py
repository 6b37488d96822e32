"""What ranks print, as files: `<state>/logs/<attempt>/<rank>.log`. `infra.log_sink.LogSink` on the disk.

The size of the file is the cursor: nothing else is recorded, so a server that was killed goes on exactly
where its file ends, and the agent, which keeps its own copy, sends the rest again. A write either grows the
file by all of its bytes or (full disk) leaves it as it was. What is held back by masking is not in the file
and counts as not stored.

Few files are open at once, whatever the number of ranks. Small reads and writes are done at once (a thread
costs more), large ones in threads; readers read pieces, never whole files.
"""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final, ParamSpec

from argosy.model.facts import LogChunk
from argosy.storage.disk import INLINE_BYTES, full_disk_said, write_all
from argosy.storage.masking import Mask

P = ParamSpec("P")
_RANK_ID: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9_-]{0,80})\.([0-9]{1,7})")
_OPEN_MAX: Final = 64
_FINISHED_MAX: Final = 4096
_BLOCK_BYTES: Final = 64 << 10
_REMEMBERED_BYTES: Final = 4096  # end of an older file, read when masking begins: longer than most secrets


class _Log:
    """One rank that is being written or waited for."""

    __slots__ = ("fd", "lock", "mask", "path", "size", "waiters")

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = -1
        self.size = _size(path)
        self.mask = Mask(())
        self.lock = asyncio.Lock()
        self.waiters: set[asyncio.Event] = set()

    def wake(self) -> None:
        for waiter in self.waiters:
            waiter.set()


class LogStore:
    """Logs below `root`. Use it from one event loop. Memory: a few hundred bytes for each live rank."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._live: dict[str, _Log] = {}
        self._open: OrderedDict[str, _Log] = OrderedDict()
        self._finished: OrderedDict[str, None] = OrderedDict()

    # -- LogSink: the writing side ------------------------------------------------------------------

    def stored(self, rank_id: str) -> int:
        log = self._live.get(rank_id)
        return log.size if log is not None else _size(self.path(rank_id))

    def mask(self, rank_id: str, secrets: Sequence[str]) -> None:
        log = self._log(rank_id)
        before = _read(log.path, max(0, log.size - _REMEMBERED_BYTES), _REMEMBERED_BYTES) if log.size else b""
        log.mask = Mask(secrets, before=before, after=log.mask)

    async def write(self, chunk: LogChunk) -> None:
        """Append. Raises ValueError for a gap, `disk-full` with nothing written (send the chunk again)."""
        log = self._log(chunk.rank_id)
        async with log.lock:
            have = log.size + log.mask.held
            if chunk.offset > have:
                raise ValueError(
                    f"gap in the log of {chunk.rank_id}: have {have} bytes, got offset {chunk.offset}"
                )
            data = chunk.data[have - chunk.offset :]
            if data:
                await self._append(chunk.rank_id, log, data, last=False)

    async def _append(self, rank_id: str, log: _Log, data: bytes, *, last: bool) -> None:
        mask = copy.copy(log.mask)  # the old one stays when the disk refuses
        shown = mask.feed(data) if data else b""
        if last:
            shown += mask.flush()
        if not shown:
            log.mask = mask
            return
        fd = self._fd(rank_id, log)
        if len(shown) > INLINE_BYTES:
            await _to_the_end(self._write, fd, log, shown, mask)
        else:
            self._write(fd, log, shown, mask)
        log.wake()

    def _write(self, fd: int, log: _Log, data: bytes, mask: Mask) -> None:
        with full_disk_said(self.root):
            try:
                write_all(fd, data)
            except OSError:
                os.ftruncate(fd, log.size)
                raise
        log.size += len(data)
        log.mask = mask

    async def finish(self, rank_id: str) -> None:
        """The rank has ended and everything was written: readers are woken for the last time."""
        log = self._live.get(rank_id)
        if log is None:
            self._remember(rank_id)
            return
        async with log.lock:
            await self._append(rank_id, log, b"", last=True)
            self._close(rank_id, log)
            self._remember(rank_id)
            if self._live.get(rank_id) is log:
                del self._live[rank_id]
        log.wake()

    # -- the reading side ---------------------------------------------------------------------------

    async def read(self, rank_id: str, offset: int, limit: int) -> bytes:
        """At most `limit` bytes from `offset` on; b"" where nothing is (yet)."""
        available = self.stored(rank_id) - offset
        if available <= 0:
            return b""
        size = min(limit, available)
        path = self.path(rank_id)
        if size > INLINE_BYTES:
            return await asyncio.to_thread(_read, path, offset, size)
        return _read(path, offset, size)

    async def wait(self, rank_id: str, offset: int, *, timeout_s: float = 3600.0) -> bool:
        """Until there is something after `offset`, or the rank has finished, or `timeout_s` passed.

        Returns whether something may have changed (False: the time passed). A rank that never printed is
        waited for.
        """
        news = asyncio.Event()
        with self.watch([rank_id], news):
            if self.stored(rank_id) > offset or self.is_finished(rank_id):
                return True
            try:
                async with asyncio.timeout(timeout_s):
                    await news.wait()
            except TimeoutError:
                return False
            return True

    @contextlib.contextmanager
    def watch(self, rank_ids: Sequence[str], news: asyncio.Event) -> Iterator[None]:
        """`news` is set whenever one of these ranks has more, or has finished. Look first, then wait."""
        logs = [(rank_id, self._log(rank_id)) for rank_id in rank_ids]
        for _, log in logs:
            log.waiters.add(news)
        try:
            yield
        finally:
            for rank_id, log in logs:
                log.waiters.discard(news)
                idle = log.fd < 0 and not log.waiters and log.mask.is_idle and not log.lock.locked()
                if idle and self._live.get(rank_id) is log:
                    del self._live[rank_id]

    def is_finished(self, rank_id: str) -> bool:
        """Whether `finish` was called lately in this process. False says nothing."""
        return rank_id in self._finished

    async def tail_offset(self, rank_id: str, lines: int) -> int:
        """Where the last `lines` lines begin: reads backwards from the end, not the whole file."""
        return await asyncio.to_thread(_tail_offset, self.path(rank_id), lines, self.stored(rank_id))

    def ranks_of(self, attempt_id: str) -> list[int]:
        """Ranks of which something was stored."""
        folder = self.path(f"{attempt_id}.0").parent
        try:
            return sorted(int(entry.stem) for entry in folder.iterdir() if entry.suffix == ".log")
        except FileNotFoundError:
            return []

    # -- keeping house ------------------------------------------------------------------------------

    def delete(self, attempt_id: str) -> None:
        """Forget an attempt's output. Blocks shortly."""
        shutil.rmtree(self.path(f"{attempt_id}.0").parent, ignore_errors=True)

    def sweep(
        self,
        live: Collection[str],
        *,
        older_than_s: float,
        now_s: float,
        keep_bytes: int = 1 << 62,
        spare_s: float = 0,
        dry_run: bool = False,
    ) -> tuple[int, int]:
        """Delete what attempts other than `live` wrote longer than `older_than_s` ago; and the oldest of the
        rest until they have `keep_bytes`, but nothing that is younger than `spare_s`. Returns how many
        attempts and bytes went, or (`dry_run`) would go. Reads the disk: call it from a thread."""
        ended = sorted(
            _age_and_size(folder)
            for folder in self.root.iterdir()
            if folder.name not in live and folder.is_dir()
        )
        kept_bytes = sum(size for _, size, _ in ended)
        count = gone_bytes = 0
        for newest_s, size, name in ended:
            age_s = now_s - newest_s
            if age_s > older_than_s or (kept_bytes > keep_bytes and age_s > spare_s):
                if not dry_run:
                    self.delete(name)
                kept_bytes -= size
                gone_bytes += size
                count += 1
        return count, gone_bytes

    async def close(self) -> None:
        for rank_id, log in list(self._open.items()):
            async with log.lock:
                self._close(rank_id, log)
        for log in self._live.values():
            log.wake()

    def path(self, rank_id: str) -> Path:
        """Raises ValueError when `rank_id` is none: it becomes a path."""
        match = _RANK_ID.fullmatch(rank_id)
        if match is None:
            raise ValueError(f"not a rank id: {rank_id!r}")
        return self.root / match[1] / f"{match[2]}.log"

    def _log(self, rank_id: str) -> _Log:
        log = self._live.get(rank_id)
        if log is None:
            log = self._live[rank_id] = _Log(self.path(rank_id))
        return log

    def _fd(self, rank_id: str, log: _Log) -> int:
        if log.fd < 0:
            while len(self._open) >= _OPEN_MAX:
                oldest_id = next((key for key, other in self._open.items() if not other.lock.locked()), None)
                if oldest_id is None:
                    break
                self._close(oldest_id, self._open[oldest_id])
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            with full_disk_said(self.root):
                try:
                    log.fd = os.open(log.path, flags, 0o600)
                except FileNotFoundError:
                    log.path.parent.mkdir(mode=0o700, exist_ok=True)
                    log.fd = os.open(log.path, flags, 0o600)
            self._open[rank_id] = log
        self._open.move_to_end(rank_id)
        return log.fd

    def _close(self, rank_id: str, log: _Log) -> None:
        if log.fd >= 0:
            os.close(log.fd)
            log.fd = -1
        self._open.pop(rank_id, None)

    def _remember(self, rank_id: str) -> None:
        self._finished[rank_id] = None
        self._finished.move_to_end(rank_id)
        while len(self._finished) > _FINISHED_MAX:
            self._finished.popitem(last=False)


async def _to_the_end(function: Callable[P, None], *args: P.args, **kwargs: P.kwargs) -> None:
    """In a thread, also when the caller is cancelled meanwhile: what is half done is not left half known."""
    task = asyncio.ensure_future(asyncio.to_thread(function, *args, **kwargs))
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise


def _age_and_size(folder: Path) -> tuple[float, int, str]:
    """When something was last written there, bytes on the disk, and its name."""
    files = [file.stat() for file in folder.iterdir()]
    newest_s = max((each.st_mtime for each in files), default=folder.stat().st_mtime)
    return newest_s, sum(each.st_blocks * 512 for each in files), folder.name


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116
    except FileNotFoundError:
        return 0


def _read(path: Path, offset: int, size: int) -> bytes:
    """b"" also when the file is not there (it was deleted)."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return b""
    try:
        return os.pread(fd, size, offset)
    finally:
        os.close(fd)


def _tail_offset(path: Path, lines: int, size: int) -> int:
    """Reads whole blocks backwards until `lines` line ends were seen. An unfinished last line counts as
    one."""
    if lines <= 0:
        return size
    wanted = lines
    position = size
    while position > 0:
        start = max(0, position - _BLOCK_BYTES)
        block = _read(path, start, position - start)
        if not block:
            return size
        end = len(block)
        if position == size and block.endswith(b"\n"):
            end -= 1  # the end of the last line, not the beginning of another
        while (at := block.rfind(b"\n", 0, end)) >= 0:
            wanted -= 1
            if wanted == 0:
                return start + at + 1
            end = at
        position = start
    return 0
