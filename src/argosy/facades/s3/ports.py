"""What the façade needs of a store of objects; `storage.shelf.Shelf` is one."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

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


class Objects(Protocol):
    """Buckets of objects. Each raises ObjectProblem."""

    async def make_bucket(self, name: str) -> None: ...
    async def remove_bucket(self, name: str) -> None: ...
    async def buckets(self) -> list[tuple[str, int]]: ...
    async def has_bucket(self, name: str) -> bool: ...
    async def head(self, bucket: str, key: str) -> ObjectHead: ...
    async def write(self, data: AsyncIterator[bytes]) -> Written: ...
    async def discard(self, written: Written) -> None: ...
    async def put(
        self,
        bucket: str,
        key: str,
        written: Written,
        headers: Mapping[str, str],
        conditions: Conditions = ...,
    ) -> ObjectInfo: ...
    async def copy(
        self,
        source: ObjectHead,
        bucket: str,
        key: str,
        headers: Mapping[str, str],
        conditions: Conditions = ...,
    ) -> ObjectInfo: ...
    def read(self, head: ObjectHead, first: int, count: int) -> AsyncIterator[bytes]: ...
    def files(self, head: ObjectHead, first: int, count: int) -> Files | None:
        """The same bytes as parts of files; each is open until the next one is asked for. None: they are no
        files here."""

    async def remove(self, bucket: str, keys: Sequence[str]) -> None: ...
    async def page(
        self, bucket: str, *, prefix: str = "", delimiter: str = "", after: str = "", most: int = 1000
    ) -> ObjectPage: ...
    async def begin_upload(self, bucket: str, key: str, headers: dict[str, str]) -> str: ...
    async def uploads(self, bucket: str) -> list[Upload]: ...
    async def put_part(
        self, bucket: str, key: str, upload_id: str, number: int, written: Written
    ) -> ObjectPart: ...
    async def parts(self, bucket: str, key: str, upload_id: str) -> list[ObjectPart]: ...
    async def complete(
        self,
        bucket: str,
        key: str,
        upload_id: str,
        wanted: Sequence[tuple[int, str]],
        conditions: Conditions = ...,
    ) -> ObjectInfo: ...
    async def abort(self, bucket: str, key: str, upload_id: str) -> None: ...


class Holder(msgspec.Struct, frozen=True, kw_only=True):
    """What the holder of an access key may do. `bucket` "": all buckets; `prefix`: only keys that begin with
    it; `expires_s`: Unix time (0: never)."""

    secret: str
    bucket: str = ""
    prefix: str = ""
    expires_s: int = 0
    reads_only: bool = False


class Doorkeeper(Protocol):
    async def holder_of(self, key_id: str, token: str) -> Holder | None:
        """`token`: of a temporary key, as the request says it; "": of one that stays."""
