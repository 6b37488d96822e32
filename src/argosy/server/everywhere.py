"""Objects of every store that this server can open, for the façade that speaks S3 (`facades.s3.ports`).

A bucket with `://` in its name is another store's: `s3://data`. Its bytes come through here when a client
cannot fetch them itself; what is written is whole on this disk first (in a hidden bucket of the shelf), so
that a client that breaks off leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final

import msgspec

from argosy.infra.buckets import Bucket, Encryption, Extra, OpensBuckets
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
from argosy.storage.shelf import Shelf
from argosy.storage.shelf_folder import ALWAYS, ENCRYPTS, ShelfFolder

SPOOL: Final = ".spool"  # the hidden bucket
_SPOOL_MS: Final = 24 * 3600 * 1000
_MARK: Final = "://"
_WISH: Final = "wish-"  # headers of an upload that is spooled, which the shelf keeps and does not act on


class Everywhere:
    """`stores`: asked for every call, as their settings may change."""

    def __init__(self, shelf: Shelf, stores: Callable[[], OpensBuckets]) -> None:
        self._shelf, self._stores = shelf, stores

    def _open(self, name: str, headers: Mapping[str, str] = MappingProxyType({})) -> Bucket:
        """A bucket that encrypts as a request's headers wish."""
        wish = Encryption(
            type=headers.get(ENCRYPTS, ""), key_id=headers.get(f"{ENCRYPTS}-aws-kms-key-id", "")
        )
        return self._stores().open(f"{name}/", wish).bucket

    # -- buckets --------------------------------------------------------------------------------------------

    async def make_bucket(self, name: str) -> None:
        if _MARK not in name:
            return await self._shelf.make_bucket(name)
        await asyncio.to_thread(self._open(name).make)

    async def remove_bucket(self, name: str) -> None:
        if _MARK not in name:
            return await self._shelf.remove_bucket(name)
        await asyncio.to_thread(self._open(name).drop)

    async def buckets(self) -> list[tuple[str, int]]:
        return await self._shelf.buckets()

    async def has_bucket(self, name: str) -> bool:
        return True if _MARK in name else await self._shelf.has_bucket(name)

    # -- objects --------------------------------------------------------------------------------------------

    async def head(self, bucket: str, key: str) -> ObjectHead:
        if _MARK not in bucket:
            return await self._shelf.head(bucket, key)
        info = await asyncio.to_thread(self._open(bucket).head, key)
        return ObjectHead(info=info, extents=((f"{bucket}\n{key}", info.size),))

    async def write(self, data: AsyncIterator[bytes]) -> Written:
        return await self._shelf.write(data)

    async def discard(self, written: Written) -> None:
        await self._shelf.discard(written)

    async def put(
        self,
        bucket: str,
        key: str,
        written: Written,
        headers: Mapping[str, str],
        conditions: Conditions = ALWAYS,
    ) -> ObjectInfo:
        if _MARK not in bucket:
            return await self._shelf.put(bucket, key, written, headers, conditions)
        try:
            return await asyncio.to_thread(self._put, bucket, key, written, headers, conditions)
        finally:
            await self._shelf.discard(written)

    def _put(
        self, bucket: str, key: str, written: Written, headers: Mapping[str, str], conditions: Conditions
    ) -> ObjectInfo:
        if not written.extents:
            extra = Extra(headers=_told(headers), conditions=conditions, size=written.size)
            return self._open(bucket, headers).write(key, written.checked()[0], extra)
        info = ObjectInfo(key=key, size=written.size, etag=written.md5, modified_ms=0)
        head = ObjectHead(info=info, headers=headers, extents=written.extents)
        return self._send(bucket, key, head, conditions)

    def _send(self, bucket: str, key: str, head: ObjectHead, conditions: Conditions) -> ObjectInfo:
        size = head.info.size
        data = self._shelf.folder.read(head, 0, size)
        extra = Extra(headers=_told(head.headers), conditions=conditions, size=size)
        return self._open(bucket, head.headers).write(key, data, extra)

    async def copy(
        self,
        source: ObjectHead,
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        conditions: Conditions = ALWAYS,
    ) -> ObjectInfo:
        """From any store to any other; within one bucket the bytes do not come here."""
        place, _, name = source.extents[0][0].partition("\n") if source.extents else ("", "", "")
        if _MARK not in bucket and _MARK not in place:
            return await self._shelf.copy(source, bucket, key, headers, conditions)
        if _MARK not in bucket:
            written = await self._shelf.write(self.read(source, 0, source.info.size))
            return await self._shelf.put(bucket, key, written, headers, conditions)
        there = self._open(bucket, headers)

        def act() -> ObjectInfo:
            if place == bucket:
                there.copy(name, key)
                return there.head(key)
            info = source.info
            if _MARK not in place:
                return self._send(bucket, key, source, conditions)
            data = self._open(place).read(name, etag=info.etag)
            extra = Extra(headers=_told(headers), conditions=conditions, size=info.size)
            return there.write(key, data, extra)

        return await asyncio.to_thread(act)

    async def read(self, head: ObjectHead, first: int, count: int) -> AsyncIterator[bytes]:
        if not head.extents or _MARK not in head.extents[0][0]:
            async for piece in self._shelf.read(head, first, count):
                yield piece
            return
        bucket, _, key = head.extents[0][0].partition("\n")
        pieces = self._open(bucket).read(key, first=first, count=count, etag=head.info.etag)
        try:
            while (got := await asyncio.to_thread(_next, pieces)) is not None:
                yield got
        finally:
            close = getattr(pieces, "close", None)
            if close is not None:
                await asyncio.to_thread(close)

    def files(self, head: ObjectHead, first: int, count: int) -> Files | None:
        if head.extents and _MARK in head.extents[0][0]:
            return None
        return self._shelf.files(head, first, count)

    async def remove(self, bucket: str, keys: Sequence[str]) -> None:
        if _MARK not in bucket:
            return await self._shelf.remove(bucket, keys)
        await asyncio.to_thread(self._open(bucket).remove, keys)

    async def page(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000
    ) -> ObjectPage:
        if _MARK not in bucket:
            return await self._shelf.page(bucket, prefix=prefix, delimiter=delimiter, after=after, most=most)
        there = self._open(bucket)
        return await asyncio.to_thread(
            lambda: there.page(prefix=prefix, delimiter=delimiter, after=after, most=most)
        )

    # -- uploads in parts -----------------------------------------------------------------------------------

    async def begin_upload(self, bucket: str, key: str, headers: dict[str, str]) -> str:
        if _MARK not in bucket:
            return await self._shelf.begin_upload(bucket, key, headers)
        await asyncio.to_thread(self._open(bucket).page, most=1)  # says now what would be said at the end
        await asyncio.to_thread(self._shelf.folder.index.keep_bucket, SPOOL)
        self._open(bucket, headers)  # so does this
        kept = {f"x-amz-meta-{_WISH}{name}": value for name, value in headers.items()}
        return await self._shelf.begin_upload(*_spooled(bucket, key), kept)

    async def uploads(self, bucket: str) -> list[Upload]:
        return [] if _MARK in bucket else await self._shelf.uploads(bucket)

    async def put_part(
        self, bucket: str, key: str, upload_id: str, number: int, written: Written
    ) -> ObjectPart:
        return await self._shelf.put_part(*_spooled(bucket, key), upload_id, number, written)

    async def parts(self, bucket: str, key: str, upload_id: str) -> list[ObjectPart]:
        return await self._shelf.parts(*_spooled(bucket, key), upload_id)

    async def complete(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        wanted: Sequence[tuple[int, str]],
        conditions: Conditions = ALWAYS,
    ) -> ObjectInfo:
        if _MARK not in bucket:
            return await self._shelf.complete(bucket, key, upload_id, wanted, conditions)
        place, name = _spooled(bucket, key)
        await self._shelf.complete(place, name, upload_id, wanted)
        head = await self._shelf.head(place, name)
        wish = {each.removeprefix(f"x-amz-meta-{_WISH}"): value for each, value in head.headers.items()}
        head = msgspec.structs.replace(head, headers=wish)
        try:
            return await asyncio.to_thread(self._send, bucket, key, head, conditions)
        finally:
            await self._shelf.remove(place, [name])

    async def abort(self, bucket: str, key: str, upload_id: str) -> None:
        await self._shelf.abort(*_spooled(bucket, key), upload_id)


def clear_spool(folder: ShelfFolder, now_ms: int) -> int:
    """Take back what broken-off copies to other stores left here a day ago; how many."""
    if not folder.index.has_bucket(SPOOL):
        return 0
    old_ms = now_ms - _SPOOL_MS
    uploads = [each for each in folder.index.uploads(SPOOL) if each.begun_ms < old_ms]
    for each in uploads:
        folder.abort(SPOOL, each.key, each.id)
    page = folder.index.page(SPOOL, "", "", "", 1000)
    keys = [each.key for each in page.objects if each.modified_ms < old_ms]
    folder.remove(SPOOL, keys)
    return len(uploads) + len(keys)


def only_here(bucket: str) -> bool:
    """Whether a bucket is of the machine of the server or of a network that it sees: nobody may reach these
    through the server but who is there already."""
    return bucket.startswith(("file://", "http://", "https://")) and ".blob.core.windows.net" not in bucket


def _spooled(bucket: str, key: str) -> tuple[str, str]:
    if _MARK not in bucket:
        return bucket, key
    return SPOOL, hashlib.sha256(f"{bucket}\n{key}".encode()).hexdigest()


def _told(headers: Mapping[str, str]) -> dict[str, str]:
    """What comes back with the object; checksums are the store's own."""
    return {
        name: value for name, value in headers.items() if not name.startswith(("x-amz-checksum", ENCRYPTS))
    }


def _next(pieces: Iterator[bytes]) -> bytes | None:
    return next(pieces, None)
