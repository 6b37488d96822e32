"""Buckets of this server, and keys to them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from argosy.api.endpoint import Done
from argosy.api.storage import (
    BucketList,
    BucketRequest,
    BucketView,
    SignReply,
    SignRequest,
    StoreKeyList,
    StoreKeyReply,
    StoreKeyRequest,
    StoreKeyView,
    TransferList,
    TransferRequest,
    TransferView,
)
from argosy.infra.buckets import parse_encryption
from argosy.model.errors import ArgosyError
from argosy.model.object_urls import missing_hint
from argosy.model.objects import ObjectProblem
from argosy.server.everywhere import only_here
from argosy.server.exchange import Exchange
from argosy.server.objects import not_for_others
from argosy.server.services import Services

if TYPE_CHECKING:
    from argosy.server.transfers import Transfers


class StorageFeature:
    def __init__(self, services: Services) -> None:
        self._objects, self._pricing = services.objects, services.pricing

    @property
    def _transfers(self) -> Transfers:
        return self._objects.transfers(lambda src, dst: self._pricing.prices.catalog.egress(src, dst))

    async def buckets(self, exchange: Exchange) -> BucketList:
        shelf = self._objects.shelf
        rows = []
        for name, made_ms in await shelf.buckets():
            count, size = await shelf.usage(name)
            rows.append(BucketView(name=name, objects=count, bytes=size, made_ms=made_ms))
        return BucketList(buckets=tuple(rows), address=self._objects.address)

    async def make_bucket(self, exchange: Exchange) -> Done:
        request = await exchange.decode(BucketRequest)
        if request.passing:
            name = request.name if "://" in request.name else f"argosy://{request.name}"
            if only_here(name) and not exchange.is_local:
                raise not_for_others(name)
            if not await self._objects.made.ensure(f"{name.rstrip('/')}/", passing=True):
                raise ArgosyError("conflict", f"the bucket {name} is there", hint=_HINTS["conflict"])
            return Done()
        if "://" in request.name:
            if only_here(request.name) and not exchange.is_local:
                raise not_for_others(request.name)
            bucket = self._objects.stores.open(f"{request.name.rstrip('/')}/").bucket
            await asyncio.to_thread(bucket.make)
            return Done()
        try:
            await self._objects.shelf.make_bucket(request.name)
        except ObjectProblem as problem:
            code = "conflict" if problem.code == "BucketAlreadyOwnedByYou" else "usage"
            raise ArgosyError(code, str(problem), hint=_HINTS[code]) from None
        return Done()

    async def remove_bucket(self, exchange: Exchange) -> Done:
        name = exchange.path["bucket"]
        if "://" in name:
            if only_here(name) and not exchange.is_local:
                raise not_for_others(name)
            await asyncio.to_thread(self._objects.stores.open(f"{name.rstrip('/')}/").bucket.drop)
            return Done()
        try:
            await self._objects.shelf.remove_bucket(name)
        except ObjectProblem as problem:
            if problem.code == "NoSuchBucket":
                raise _no_bucket(name) from None
            hint = f"`argosy storage rm -r argosy://{name}/` removes what it holds"
            raise ArgosyError("conflict", str(problem), hint=hint) from None
        return Done()

    async def store_keys(self, exchange: Exchange) -> StoreKeyList:
        keys = await self._objects.shelf.access_keys()
        return StoreKeyList(
            keys=tuple(
                StoreKeyView(
                    name=key.name,
                    id=key.id,
                    bucket=key.bucket,
                    reads_only=key.reads_only,
                    made_ms=key.made_ms,
                )
                for key in keys
            )
        )

    async def make_store_key(self, exchange: Exchange) -> StoreKeyReply:
        request = await exchange.decode(StoreKeyRequest)
        shelf = self._objects.shelf
        if not request.name:
            raise ArgosyError("usage", "a key has a name", hint="for example the name of who uses it")
        if request.bucket and not await shelf.has_bucket(request.bucket):
            raise _no_bucket(request.bucket)
        id, secret = await shelf.make_key(request.name, bucket=request.bucket, reads_only=request.reads_only)
        return StoreKeyReply(id=id, secret=secret, address=self._objects.address)

    async def remove_store_key(self, exchange: Exchange) -> Done:
        name = exchange.path["key"]
        if not await self._objects.shelf.remove_key(name):
            raise ArgosyError(
                "not-found", f"there is no key `{name}`", hint="`argosy storage key` lists them"
            )
        return Done()

    async def sign_objects(self, exchange: Exchange) -> SignReply:
        request = await exchange.decode(SignRequest)
        if request.method not in ("GET", "PUT"):
            raise ArgosyError("usage", f"addresses are signed for GET and PUT, not for {request.method}")
        if only_here(request.bucket) and not exchange.is_local:
            raise not_for_others(request.bucket)

        def sign() -> SignReply:
            bucket = self._objects.stores.open(
                f"{request.bucket}/", parse_encryption(request.encryption)
            ).bucket
            urls = [bucket.sign(key, request.method, _SIGNED_S) for key in request.keys]
            traits = bucket.traits
            return SignReply(
                urls=tuple(url or "" for url in urls),
                headers=dict(traits.put_headers) if request.method == "PUT" else {},
                md5_etags=traits.md5_etags,
                seconds=_SIGNED_S,
            )

        return await asyncio.to_thread(sign)

    async def plan_transfer(self, exchange: Exchange) -> TransferView:
        request = await self._transfer_asked(exchange)
        return (await asyncio.to_thread(self._transfers.plan, request)).view

    async def start_transfer(self, exchange: Exchange) -> TransferView:
        request = await self._transfer_asked(exchange)
        return await asyncio.to_thread(self._transfers.start, request)

    async def _transfer_asked(self, exchange: Exchange) -> TransferRequest:
        request = await exchange.decode(TransferRequest)
        for url in (request.source, request.target):
            if only_here(url) and not exchange.is_local:
                raise not_for_others(url)
        return request

    async def transfers(self, exchange: Exchange) -> TransferList:
        return TransferList(transfers=tuple(await asyncio.to_thread(self._transfers.all)))

    async def transfer(self, exchange: Exchange) -> TransferView:
        return await asyncio.to_thread(self._transfers.view, exchange.path["id"])

    async def cancel_transfer(self, exchange: Exchange) -> Done:
        await asyncio.to_thread(self._transfers.cancel, exchange.path["id"])
        return Done()


_SIGNED_S = 900
_HINTS = {
    "conflict": "`argosy storage ls` lists the buckets",
    "usage": "for example: argosy storage create datasets",
}


def _no_bucket(name: str) -> ArgosyError:
    hint = missing_hint(name, f"`argosy storage create {name}` makes it")
    return ArgosyError("not-found", f"there is no bucket `{name}`", hint=hint)
