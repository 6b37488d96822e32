"""Files that travel: chunks by digest, and trees of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from argosy.api.endpoint import CHUNK_PACK_LIMIT_BYTES, Done
from argosy.api.files import ChunksReply, ChunksRequest, TreeReply
from argosy.model.tree import TreeChange
from argosy.server.exchange import Exchange
from argosy.server.raw_bodies import raw_body, take
from argosy.server.services import Services


class FileFeature:
    def __init__(self, services: Services) -> None:
        self._blobs = services.blobs

    async def missing_chunks(self, exchange: Exchange) -> ChunksReply:
        request = await exchange.decode(ChunksRequest)
        trees = [digest for digest in request.trees if await self._blobs.holds_tree(digest)]
        if request.changing in trees:
            self._blobs.changes.expect(request.changing)
        return ChunksReply(missing=await self._blobs.missing(request.digests), trees=tuple(trees))

    async def put_chunks(self, exchange: Exchange) -> Done:
        raw = raw_body(exchange) if exchange.length <= CHUNK_PACK_LIMIT_BYTES else None
        if raw is None:
            stream = exchange.stream(CHUNK_PACK_LIMIT_BYTES)
            await self._blobs.put_pack(stream, limit_bytes=CHUNK_PACK_LIMIT_BYTES)
        else:
            exchange.headers.append((b"connection", b"close"))
            await take(raw, 0, self._taking, None)
        return Done()

    async def put_tree(self, exchange: Exchange) -> TreeReply:
        return TreeReply(digest=await self._blobs.put_tree(await exchange.body()))

    async def change_tree(self, exchange: Exchange) -> TreeReply:
        return TreeReply(digest=await self._blobs.change_tree(await exchange.decode(TreeChange)))

    @contextmanager
    def _taking(self) -> Iterator[Callable[[memoryview], None]]:
        with self._blobs.taking_pack() as incoming:
            yield lambda piece: incoming.feed(bytes(piece))
