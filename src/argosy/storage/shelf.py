"""The embedded store for a server's loop: what blocks for long runs in threads (`shelf_folder`)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

from argosy.model.ids import Clock, Ids
from argosy.model.objects import (
    Conditions,
    Files,
    ObjectHead,
    ObjectInfo,
    ObjectPage,
    ObjectPart,
    Upload,
    Written,
)
from argosy.storage.disk import INLINE_BYTES
from argosy.storage.shelf_folder import ALWAYS, READ_BYTES, Made, Put, ShelfFolder, Writing, piece_of
from argosy.storage.shelf_index import AccessKey

T = TypeVar("T")
P = ParamSpec("P")
_GATHER_BYTES: Final = 1 << 20  # of a stream, until it goes to the disk
_WRITERS: Final = 4  # threads that bring small objects to the disk
_MANY: Final = 3  # so many wait before one more thread begins: few are quicker as one change of the index


class Shelf:
    """One folder of buckets. Raises ObjectProblem, ArgosyError `disk-full`, and OSError."""

    def __init__(self, root: Path, clock: Clock, ids: Ids, *, sync: bool = False) -> None:
        self.folder = ShelfFolder(root, clock, ids, sync=sync)
        self._sync = sync
        self._batches = _Batches(self.folder)

    async def _ask(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.to_thread(work, *args, **kwargs)

    def close(self) -> None:
        self.folder.close()

    # -- buckets and keys -----------------------------------------------------------------------------------

    async def make_bucket(self, name: str) -> None:
        await self._ask(self.folder.make_bucket, name)

    async def remove_bucket(self, name: str) -> None:
        await self._ask(self.folder.remove_bucket, name)

    async def buckets(self) -> list[tuple[str, int]]:
        return await self._ask(lambda: self.folder.index.buckets())

    async def has_bucket(self, name: str) -> bool:
        return await self._ask(lambda: self.folder.index.has_bucket(name))

    async def usage(self, name: str) -> tuple[int, int]:
        """Objects and bytes of a bucket."""
        return await self._ask(lambda: self.folder.index.usage(name))

    async def make_key(self, name: str, *, bucket: str = "", reads_only: bool = False) -> tuple[str, str]:
        """A new access key of this name, in place of an older one: its id and its secret."""
        return await self._ask(self.folder.make_key, name, bucket=bucket, reads_only=reads_only)

    async def remove_key(self, name: str) -> bool:
        return await self._ask(lambda: self.folder.index.remove_key(name))

    async def access_keys(self) -> list[AccessKey]:
        return await self._ask(lambda: self.folder.index.access_keys())

    async def access_key(self, key_id: str) -> AccessKey | None:
        return self.folder.index.access_key(key_id)  # one row by its key: a thread costs more

    def secret_of(self, key_id: str) -> str:
        return self.folder.secret_of(key_id)

    # -- objects --------------------------------------------------------------------------------------------

    async def head(self, bucket: str, key: str) -> ObjectHead:
        return self.folder.index.head(bucket, key)  # one row by its key: a thread costs more

    async def write(self, data: AsyncIterator[bytes]) -> Written:
        """Bytes that nobody can see yet. `discard` them, or make an object or a part of them."""
        writing: Writing | None = None
        held, held_bytes, size = list[bytes](), 0, 0
        try:
            async for piece in data:
                held.append(piece)
                held_bytes += len(piece)
                size += len(piece)
                if held_bytes >= _GATHER_BYTES:
                    writing = writing or self.folder.begin()
                    await asyncio.to_thread(writing.add, held)
                    held, held_bytes = [], 0
            if writing is None:  # few: they go to the disk in the same step as their row
                return Written(extents=(), size=size, md5="", held=tuple(held))
            if held:
                await asyncio.to_thread(writing.add, held)
            return await asyncio.to_thread(writing.end) if self._sync else writing.end()
        except BaseException:
            if writing is not None:
                writing.undo()
            raise

    async def discard(self, written: Written) -> None:
        await self._ask(self.folder.discard, written)

    async def put(
        self,
        bucket: str,
        key: str,
        written: Written,
        headers: Mapping[str, str],
        conditions: Conditions = ALWAYS,
    ) -> ObjectInfo:
        """Make an object of bytes that were written."""
        return await self._batches.put(Put(bucket, key, written, headers, conditions))

    async def copy(
        self,
        source: ObjectHead,
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        conditions: Conditions = ALWAYS,
    ) -> ObjectInfo:
        """An object with the bytes of another."""
        written = await self.write(self.read(source, 0, source.info.size))
        return await self.put(bucket, key, written, headers, conditions)

    async def read(self, head: ObjectHead, first: int, count: int) -> AsyncIterator[bytes]:
        """As `ShelfFolder.read`."""
        for file, at, size in self.folder.runs(head, first, count):
            fd = self.folder.open(file)
            if size <= INLINE_BYTES * 2:
                try:
                    yield piece_of(fd, size, at)
                finally:
                    os.close(fd)
                continue
            ahead: asyncio.Future[bytes] | None = None
            try:
                end = at + size
                while at < end:
                    piece = await (ahead or asyncio.to_thread(piece_of, fd, min(READ_BYTES, end - at), at))
                    at, ahead = at + len(piece), None
                    if at < end:  # the disk works while the reader takes this one
                        more = asyncio.to_thread(piece_of, fd, min(READ_BYTES, end - at), at)
                        ahead = asyncio.ensure_future(more)
                    yield piece
            finally:
                if ahead is not None:
                    await asyncio.wait([ahead])
                os.close(fd)

    def files(self, head: ObjectHead, first: int, count: int) -> Files:
        """Files that hold these bytes; each is open until the next one is asked for."""
        for file, at, size in self.folder.runs(head, first, count):
            fd = self.folder.open(file)
            try:
                yield fd, at, size
            finally:
                os.close(fd)

    async def remove(self, bucket: str, keys: Sequence[str]) -> None:
        await self._ask(self.folder.remove, bucket, keys)

    async def page(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000
    ) -> ObjectPage:
        return await self._ask(lambda: self.folder.index.page(bucket, prefix, delimiter, after, most))

    # -- uploads in parts -----------------------------------------------------------------------------------

    async def begin_upload(self, bucket: str, key: str, headers: dict[str, str]) -> str:
        return await self._ask(self.folder.begin_upload, bucket, key, headers)

    async def uploads(self, bucket: str) -> list[Upload]:
        return await self._ask(lambda: self.folder.index.uploads(bucket))

    async def put_part(
        self, bucket: str, key: str, upload_id: str, number: int, written: Written
    ) -> ObjectPart:
        return await self._ask(self.folder.put_part, bucket, key, upload_id, number, written)

    async def parts(self, bucket: str, key: str, upload_id: str) -> list[ObjectPart]:
        return await self._ask(self.folder.parts, bucket, key, upload_id)

    async def complete(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        wanted: Sequence[tuple[int, str]],
        conditions: Conditions = ALWAYS,
    ) -> ObjectInfo:
        """The parts with these numbers and ETags become the object, whose bytes stay where they are."""
        return await self._ask(self.folder.complete, bucket, key, upload_id, wanted, conditions)

    async def abort(self, bucket: str, key: str, upload_id: str) -> None:
        await self._ask(self.folder.abort, bucket, key, upload_id)

    async def sweep(self) -> int:
        """Remove files that no row speaks of and that are not young; how many."""
        return await self._ask(self.folder.sweep)


class _Batches:
    """Objects that are put at the same time go to the disk together: one change of the index for all that
    came while the last one was made. Where many wait, several threads write and sum them: the disk may take
    long to make a file."""

    def __init__(self, folder: ShelfFolder) -> None:
        self._folder = folder
        self._waiting: list[tuple[Put, asyncio.Future[ObjectInfo]]] = []
        self._lock = threading.Lock()
        self._works = 0  # threads

    async def put(self, put: Put) -> ObjectInfo:
        loop = asyncio.get_running_loop()
        future: asyncio.Future[ObjectInfo] = loop.create_future()
        with self._lock:
            self._waiting.append((put, future))
            begins = not self._works or (self._works < _WRITERS and len(self._waiting) >= _MANY)
            self._works += begins
        if begins:
            loop.run_in_executor(None, self._drain, loop)
        return await future

    def _drain(self, loop: asyncio.AbstractEventLoop) -> None:
        while True:
            with self._lock:
                batch, self._waiting = self._waiting, []
                if not batch:
                    self._works -= 1
                    return
            try:
                told: list[Made] = self._folder.put_many([put for put, _ in batch])
            except Exception as error:  # noqa: BLE001  those who wait raise it
                failed = error
                loop.call_soon_threadsafe(_fail, batch, failed)
                continue
            loop.call_soon_threadsafe(_tell, batch, told)


def _tell(batch: Sequence[tuple[Put, asyncio.Future[ObjectInfo]]], told: Sequence[Made]) -> None:
    for (_, future), made in zip(batch, told, strict=True):
        if future.done():  # who asked is gone; the object is there
            continue
        if isinstance(made, ObjectInfo):
            future.set_result(made)
        else:
            future.set_exception(made)


def _fail(batch: Sequence[tuple[Put, asyncio.Future[ObjectInfo]]], error: Exception) -> None:
    for _, future in batch:
        if not future.done():
            future.set_exception(error)
