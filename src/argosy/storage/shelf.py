"""The embedded store of objects: buckets over a folder, which may be on a NAS, without any other service.

    <root>/index.db          what there is (`shelf_index`)
    <root>/files/ab/...      bytes, in files that never change; an object of an upload in parts has several
    <root>/secret            of which access keys' secrets follow

An object is there when its row is: a killed server leaves files that nobody speaks of, and `sweep` takes
them. What was answered survives the server; with `sync` it also survives a loss of power.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import os
import re
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from argosy.infra.system import new_token
from argosy.model.ids import Clock, Ids
from argosy.model.objects import (
    KEY_MAX_BYTES,
    PART_MIN_BYTES,
    Conditions,
    ObjectHead,
    ObjectInfo,
    ObjectPage,
    ObjectPart,
    ObjectProblem,
    Upload,
    Written,
)
from argosy.storage.disk import INLINE_BYTES, full_disk_said, write_all, write_whole
from argosy.storage.shelf_index import AccessKey, Extents, ShelfIndex

T = TypeVar("T")
_GATHER_BYTES: Final = 1 << 20  # of a stream, until it goes to the disk
_READ_BYTES: Final = 512 << 10
_BUCKET: Final = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]")
_YOUNG_S: Final = 3600.0  # a file of an upload under way is not swept
_ALWAYS: Final = Conditions()


class Shelf:
    """One folder of buckets. Raises ObjectProblem, ArgosyError `disk-full`, and OSError."""

    def __init__(self, root: Path, clock: Clock, ids: Ids, *, sync: bool = False) -> None:
        self._root, self._clock, self._ids, self._sync = root, clock, ids, sync
        self._opened: ShelfIndex | None = None
        self._secret = b""

    @property
    def _index(self) -> ShelfIndex:
        if self._opened is None:
            for number in range(256):
                (self._root / "files" / f"{number:02x}").mkdir(mode=0o700, parents=True, exist_ok=True)
            self._opened = ShelfIndex(self._root / "index.db")
        return self._opened

    async def _ask(self, work: Callable[[ShelfIndex], T]) -> T:
        index = self._index
        return await asyncio.to_thread(work, index)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
            self._opened = None

    # -- buckets and keys -----------------------------------------------------------------------------------

    async def make_bucket(self, name: str) -> None:
        if not _BUCKET.fullmatch(name) or ".." in name:
            raise ObjectProblem(
                "InvalidBucketName",
                f"`{name}` cannot be a bucket's name: it has 3 to 63 lower-case letters, digits, dots or -",
            )
        now_ms = self._clock.now_ms()
        await self._ask(lambda index: index.make_bucket(name, now_ms))

    async def remove_bucket(self, name: str) -> None:
        await self._unlink(await self._ask(lambda index: index.remove_bucket(name)))

    async def buckets(self) -> list[tuple[str, int]]:
        return await self._ask(ShelfIndex.buckets)

    async def has_bucket(self, name: str) -> bool:
        return await self._ask(lambda index: index.has_bucket(name))

    async def usage(self, name: str) -> tuple[int, int]:
        """Objects and bytes of a bucket."""
        return await self._ask(lambda index: index.usage(name))

    async def make_key(self, name: str, *, bucket: str = "", reads_only: bool = False) -> tuple[str, str]:
        """A new access key of this name, in place of an older one: its id and its secret."""
        dice = self._ids.new("key").rpartition("-")[2].upper()
        key = AccessKey(
            id=f"AR{dice[:18]}", name=name, bucket=bucket, reads_only=reads_only, made_ms=self._clock.now_ms()
        )
        await self._ask(lambda index: index.put_key(key))
        return key.id, self.secret_of(key.id)

    async def remove_key(self, name: str) -> bool:
        return await self._ask(lambda index: index.remove_key(name))

    async def access_keys(self) -> list[AccessKey]:
        return await self._ask(ShelfIndex.access_keys)

    async def access_key(self, key_id: str) -> AccessKey | None:
        return self._index.access_key(key_id)  # one row by its key: a thread costs more

    def secret_of(self, key_id: str) -> str:
        """The secret of an access key follows from this store's own, so that none is kept."""
        if not self._secret:
            path = self._root / "secret"
            if not path.exists():
                self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
                write_whole(path, new_token().encode())
            self._secret = path.read_bytes()
        made = hmac.digest(self._secret, b"argosy s3 " + key_id.encode(), "sha256")
        return base64.b64encode(made[:30]).decode()

    # -- objects --------------------------------------------------------------------------------------------

    async def head(self, bucket: str, key: str) -> ObjectHead:
        return self._index.head(bucket, key)  # one row by its key: a thread costs more

    async def write(self, data: AsyncIterator[bytes]) -> Written:
        """Bytes that nobody can see yet. `discard` them, or make an object or a part of them."""
        file, md5, size = self._new_file(), hashlib.md5(usedforsecurity=False), 0
        held: list[bytes] = []
        held_bytes, fd = 0, -1
        path = self._path(file)

        def flush(last: bool) -> None:
            nonlocal fd
            with full_disk_said(self._root):
                if fd < 0:
                    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                for piece in held:
                    md5.update(piece)
                    write_all(fd, piece)
                if last and self._sync:
                    os.fsync(fd)

        try:
            async for piece in data:
                held.append(piece)
                held_bytes += len(piece)
                size += len(piece)
                if held_bytes >= _GATHER_BYTES:
                    await asyncio.to_thread(flush, last=False)
                    held, held_bytes = [], 0
            if fd < 0 and size <= INLINE_BYTES and not self._sync:
                flush(last=True)
            else:
                await asyncio.to_thread(flush, last=True)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        finally:
            if fd >= 0:
                os.close(fd)
        return Written(extents=((file, size),), size=size, md5=md5.hexdigest())

    async def discard(self, written: Written) -> None:
        await self._unlink(written.extents)

    async def put(
        self,
        bucket: str,
        key: str,
        written: Written,
        headers: Mapping[str, str],
        conditions: Conditions = _ALWAYS,
    ) -> ObjectInfo:
        """Make an object of bytes that were written."""
        info = ObjectInfo(key=key, size=written.size, etag=written.md5, modified_ms=self._clock.now_ms())
        head = ObjectHead(info=info, headers=headers, extents=written.extents)
        try:
            check_key(key)
            old = await self._ask(lambda index: index.put(bucket, head, conditions))
        except ObjectProblem:
            await self.discard(written)
            raise
        await self._unlink(old)
        return info

    async def read(self, head: ObjectHead, first: int, count: int) -> AsyncIterator[bytes]:
        """`count` bytes from `first` on. What is read stays the same when the object is replaced meanwhile:
        its files are open, or it is told that they are gone."""
        for file, size in head.extents:
            if first >= size:
                first -= size
                continue
            take = min(size - first, count)
            if take <= 0:
                return
            fd = self._open(file)
            try:
                at, end = first, first + take
                while at < end:
                    want = min(_READ_BYTES, end - at)
                    if want <= INLINE_BYTES * 2:
                        piece = os.pread(fd, want, at)
                    else:
                        piece = await asyncio.to_thread(os.pread, fd, want, at)
                    if not piece:
                        raise ObjectProblem("InternalError", "the object's file is shorter than it was")
                    at += len(piece)
                    yield piece
            finally:
                os.close(fd)
            first, count = 0, count - take

    def _open(self, file: str) -> int:
        try:
            return os.open(self._path(file), os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise ObjectProblem("NoSuchKey", "the object was replaced or removed a moment ago") from None

    async def remove(self, bucket: str, keys: Sequence[str]) -> None:
        await self._unlink(await self._ask(lambda index: index.remove(bucket, keys)))

    async def page(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000
    ) -> ObjectPage:
        return await self._ask(lambda index: index.page(bucket, prefix, delimiter, after, most))

    # -- uploads in parts -----------------------------------------------------------------------------------

    async def begin_upload(self, bucket: str, key: str, headers: dict[str, str]) -> str:
        check_key(key)
        upload = Upload(id=self._ids.new("upl"), key=key, begun_ms=self._clock.now_ms())
        await self._ask(lambda index: index.begin_upload(bucket, upload, headers))
        return upload.id

    async def uploads(self, bucket: str) -> list[Upload]:
        return await self._ask(lambda index: index.uploads(bucket))

    async def put_part(
        self, bucket: str, key: str, upload_id: str, number: int, written: Written
    ) -> ObjectPart:
        now_ms = self._clock.now_ms()
        part = ObjectPart(number=number, size=written.size, etag=written.md5, modified_ms=now_ms)
        try:
            old = await self._ask(lambda index: index.put_part(bucket, key, upload_id, part, written.extents))
        except ObjectProblem:
            await self.discard(written)
            raise
        await self._unlink(old)
        return part

    async def parts(self, bucket: str, key: str, upload_id: str) -> list[ObjectPart]:
        found = await self._ask(lambda index: index.parts(bucket, key, upload_id))
        return [part for part, _ in found]

    async def complete(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        wanted: Sequence[tuple[int, str]],
        conditions: Conditions = _ALWAYS,
    ) -> ObjectInfo:
        """The parts with these numbers and ETags become the object, whose bytes stay where they are."""
        found = await self._ask(lambda index: index.parts(bucket, key, upload_id))
        have = {part.number: (part, extents) for part, extents in found}
        chosen = []
        for position, (number, etag) in enumerate(wanted):
            if number not in have or have[number][0].etag != etag:
                raise ObjectProblem("InvalidPart", f"part {number} was not uploaded, or has another ETag")
            if position and number <= wanted[position - 1][0]:
                raise ObjectProblem("InvalidPartOrder", "the parts are not in ascending order")
            if position < len(wanted) - 1 and have[number][0].size < PART_MIN_BYTES:
                raise ObjectProblem("EntityTooSmall", f"part {number} is smaller than 5 MiB and not the last")
            chosen.append(have[number])
        if not chosen:
            raise ObjectProblem("MalformedXML", "an upload is completed with at least one part")
        digests = b"".join(bytes.fromhex(part.etag) for part, _ in chosen)
        info = ObjectInfo(
            key=key,
            size=sum(part.size for part, _ in chosen),
            etag=f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(chosen)}",
            modified_ms=self._clock.now_ms(),
        )
        extents = tuple(each for _, some in chosen for each in some)
        numbers = {part.number for part, _ in chosen}
        unused = tuple(each for part, some in found if part.number not in numbers for each in some)

        def made(headers: dict[str, str]) -> ObjectHead:
            return ObjectHead(info=info, headers=headers, extents=extents)

        old = await self._ask(lambda index: index.complete(bucket, upload_id, made, conditions, unused))
        await self._unlink(old)
        return info

    async def abort(self, bucket: str, key: str, upload_id: str) -> None:
        await self._unlink(await self._ask(lambda index: index.abort(bucket, key, upload_id)))

    # -- files ----------------------------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Remove files that no row speaks of and that are not young; how many."""
        return await asyncio.to_thread(self._sweep)

    def _sweep(self) -> int:
        known, swept = self._index.files(), 0
        limit_s = self._clock.now_ms() / 1000 - _YOUNG_S
        for folder in (self._root / "files").iterdir():
            for path in folder.iterdir():
                if path.name not in known and path.stat().st_mtime < limit_s:
                    path.unlink(missing_ok=True)
                    swept += 1
        return swept

    def _new_file(self) -> str:
        self._index  # noqa: B018  the folders are there
        return self._ids.new("obj").rpartition("-")[2]

    def _path(self, file: str) -> Path:
        return self._root / "files" / f"{ord(file[-1]) * 31 + ord(file[-2]) & 255:02x}" / file

    async def _unlink(self, extents: Extents) -> None:
        if len(extents) == 1:
            self._path(extents[0][0]).unlink(missing_ok=True)
        elif extents:
            await asyncio.to_thread(self._unlink_all, extents)

    def _unlink_all(self, extents: Extents) -> None:
        for file, _ in extents:
            self._path(file).unlink(missing_ok=True)


def check_key(key: str) -> None:
    """Raises ObjectProblem for what cannot be a key."""
    if not key:
        raise ObjectProblem("InvalidArgument", "an object's key is not empty")
    if len(key.encode()) > KEY_MAX_BYTES:
        raise ObjectProblem("KeyTooLongError", f"an object's key has at most {KEY_MAX_BYTES} bytes")
