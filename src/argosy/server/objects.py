"""The buckets of this server: one folder, and the doors to it.

The façade and the index are loaded with the first request, so that a server without buckets pays nothing.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.server.exchange import Disconnected
from argosy.server.keeping import Keeping

if TYPE_CHECKING:
    from argosy.facades.s3.ports import Holder
    from argosy.infra.buckets import Bucket
    from argosy.server.made_buckets import MadeBuckets
    from argosy.server.node_folders import NodeFolders
    from argosy.server.raw_bodies import App
    from argosy.server.transfers import Tariff, Transfers
    from argosy.storage.buckets import Stores
    from argosy.storage.shelf import Shelf

MOUNT: Final = "/s3"
_OWN_KEY: Final = "ARGOSYSERVER"  # with which this server signs addresses of single objects


class Objects:
    """`address`: where the store listens for programs, as http://HOST:PORT; "": nowhere. `made`: buckets that
    tasks have and do not keep; `folders`: virtual ones."""

    made: MadeBuckets
    folders: NodeFolders
    keeping = Keeping()

    def __init__(
        self, folder: Path, clock: Clock, ids: Ids, environ: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        self._folder, self._clock, self._ids, self._environ = folder, clock, ids, environ
        self._stores: tuple[str, Stores] | None = None
        self._transfers: Transfers | None = None
        self._shelf: Shelf | None = None
        self._apps: dict[bool, App] = {}
        self.address = ""
        self.door: Callable[[], Awaitable[None]] | None = None  # listens for programs of this machine

    @property
    def shelf(self) -> Shelf:
        """Raises Elsewhere when another server keeps the buckets."""
        self.keeping.check()
        return self._own_shelf

    @property
    def _own_shelf(self) -> Shelf:
        """The one on this server's disk, also for bytes that only pass."""
        if self._shelf is None:
            from argosy.storage.shelf import Shelf

            self._shelf = Shelf(self._folder, self._clock, self._ids)
        return self._shelf

    @property
    def stores(self) -> Stores:
        """Object stores by URL, as `buckets.yaml` in the state folder says now. Raises `UrlUnknown`."""
        from argosy.infra.buckets import StoreSettings
        from argosy.storage.buckets import Stores, sections_of

        path = self._folder.parent / "buckets.yaml"
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if self._stores is None or self._stores[0] != text:
            settings = StoreSettings(
                environ=self._environ,
                home=Path(self._environ.get("HOME", "/")),
                clock=self._clock,
                sections=sections_of(text),
                local=self._bucket,
            )
            self._stores = (text, Stores(settings))
        return self._stores[1]

    def open_stores(self) -> Stores:
        """`stores`, to be asked for later."""
        return self.stores

    def transfers(self, tariff: Tariff) -> Transfers:
        """Copies between stores that this server makes. Raises Elsewhere: one server makes them all."""
        self.keeping.check()
        if self._transfers is None:
            from argosy.server.transfers import Transfers

            folder = self._folder.parent / "transfers"
            self._transfers = Transfers(
                lambda: self.stores, folder, tariff, self._clock, self._ids, time.sleep
            )
        return self._transfers

    def _bucket(self, name: str) -> Bucket:
        from argosy.storage.shelf_bucket import ShelfBucket

        return ShelfBucket(
            self.shelf.folder,
            name,
            self._sign if self.address else None,
            self.address,
            self._clock,
            None if self.door is None else partial(self._with_door, name),
        )

    async def _with_door(self, name: str) -> Bucket:
        if not self.address and self.door is not None:
            await self.door()
        self._stores = None  # what is opened from now on knows the address
        return self._bucket(name)

    def _sign(self, bucket: str, key: str, method: str, seconds: int) -> str | None:
        """A URL of this server's own address for programs."""
        from argosy.storage.s3_signing import Asked, Keys, path_of, presigned

        keys = Keys(id=_OWN_KEY, secret=self.shelf.secret_of(_OWN_KEY))
        host, path = self.address.partition("://")[2], f"/{bucket}/{path_of(key)}"
        now_s = self._clock.now_ms() / 1000
        asked = Asked(method, host, path, "")
        return self.address + presigned(keys, "us-east-1", now_s, seconds, asked)

    async def holder_of(self, key_id: str, token: str) -> Holder | None:
        """What the holder of an access key may do (`facades.s3.ports.Doorkeeper`)."""
        from argosy.facades.s3.ports import Holder
        from argosy.server.s3_holders import holder_of

        if key_id == _OWN_KEY:
            return Holder(secret=self.shelf.secret_of(key_id))
        return await holder_of(self.shelf, key_id, token)

    async def for_owner(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI, below `MOUNT`, for who was let in already: buckets of every store, in S3's words."""
        from argosy.server.everywhere import only_here

        raw = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1")
        bucket = unquote(raw.removeprefix(MOUNT).lstrip("/").partition("/")[0])
        if only_here(bucket) and not scope.get("argosy.local", False):
            await _refuse(send, not_for_others(bucket), bucket)
            return
        copies = any(name == b"x-amz-copy-source" for name, _ in scope["headers"])
        if ("://" in bucket and not copies) or await self._is_here():
            await self._app(signed=False)(scope, receive, send)
            return
        is_local = scope.get("argosy.local", False)
        door, address = ("socket", "") if is_local else ("tcp", str(scope["argosy.address"]))
        await self._pass_on(scope, receive, send, door, address)

    async def for_programs(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI, at the root of an address of its own, where every request is signed."""
        if await self._is_here():
            await self._app(signed=True)(scope, receive, send)
        else:
            await self._pass_on(scope, receive, send, "programs", "")

    async def _is_here(self) -> bool:
        return self.keeping.is_here or await self.keeping.settled()

    async def _pass_on(self, scope: Any, receive: Any, send: Any, door: str, address: str) -> None:
        """The server that keeps the buckets answers."""
        from argosy.server.passing import pass_on

        try:
            channel = await self.keeping.reach(door, address)
        except ArgosyError as error:
            await _refuse(send, error, scope["path"])
            return
        try:
            await pass_on(channel, scope, receive, send, None)
        except Disconnected:
            pass

    def _app(self, *, signed: bool) -> App:
        if signed not in self._apps:
            from argosy.facades.s3.app import S3
            from argosy.server.everywhere import Everywhere
            from argosy.server.raw_bodies import with_files

            keeper, root = (self, "") if signed else (None, MOUNT)
            objects = self._own_shelf if signed else Everywhere(self._own_shelf, lambda: self.stores)
            self._apps[signed] = with_files(S3(objects, self._clock, keeper=keeper, root=root))
        return self._apps[signed]

    async def sweep(self) -> int:
        """Remove what killed servers left; how many files. Nothing is made where nobody has buckets."""
        if not (self._folder / "index.db").exists():
            return 0
        from argosy.server.everywhere import clear_spool

        await asyncio.to_thread(clear_spool, self._own_shelf.folder, self._clock.now_ms())
        return await self._own_shelf.sweep()

    def close(self) -> None:
        if self._transfers is not None:
            self._transfers.close()
        if self._shelf is not None:
            self._shelf.close()
        if self._stores is not None:
            self._stores[1].close()


async def _refuse(send: Any, error: ArgosyError, resource: str) -> None:
    from argosy.facades.s3 import answers

    status, body = answers.refusal(error, resource)
    head = [(b"content-type", b"application/xml"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": body})


def not_for_others(bucket: str) -> ArgosyError:
    return ArgosyError(
        "forbidden",
        f"{bucket} is of the server's own machine: only its owner may name it, on that machine",
        hint="copy it to a bucket first",
    )
