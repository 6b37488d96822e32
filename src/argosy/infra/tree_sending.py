"""Chunks on their way to a node, as packs, or with the tree that needs them in one request: some are read
while others travel."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import Final

from argosy.infra import border
from argosy.infra.agent_http import request_head
from argosy.infra.agent_port import Channel, Chunks

_PACK_BYTES: Final = 8 << 20
_BLOCKS: Final = 4  # are read before their turn


async def send_packs(put: Callable[[Sequence[tuple[str, bytes]]], Awaitable[bytes]], chunks: Chunks) -> None:
    """One pack is read while the one before it travels."""
    sending: asyncio.Future[bytes] | None = None
    pack: list[tuple[str, bytes]] = []
    size = 0

    async def send() -> None:
        nonlocal sending, pack, size
        if sending is not None:
            await sending
        sending, pack, size = asyncio.ensure_future(put(pack)), [], 0

    try:
        async for digest, data in chunks:
            if pack and size + len(data) > _PACK_BYTES:
                await send()
            pack.append((digest, data))
            size += len(data)
        if pack:
            await send()
        if sending is not None:
            await sending
    finally:
        if sending is not None and not sending.done():
            sending.cancel()
            await asyncio.wait([sending])


class TreeBody:
    """`order`: JSON that says which tree goes where; `chunks`: what is `packed`, with their sizes."""

    def __init__(self, order: bytes, chunks: Mapping[str, int], packed: AsyncIterator[bytes]) -> None:
        self._head = b'{"order":%d}\n' % len(order) + order
        self._size = len(self._head) + sum(66 + len(str(size)) + size for size in chunks.values())
        self._packed = packed
        self._blocks: asyncio.Queue[bytes | Exception] = asyncio.Queue(_BLOCKS)

    async def send(self, channel: Channel, limit: asyncio.Timeout, patience_s: float) -> None:
        """`limit` is moved on whenever something was taken. Raises what reading the chunks raises."""
        channel.writer.write(request_head("PUT", "/tree", self._size) + self._head)
        left, clock = self._size - len(self._head), asyncio.get_running_loop()
        reading = asyncio.ensure_future(self._read())
        try:
            while left > 0 and (block := await self._block()):
                left -= len(block)
                channel.writer.write(block)
                await channel.writer.drain()
                limit.reschedule(clock.time() + patience_s)
        except ConnectionError:
            return  # it may have refused it and said why: who reads the answer finds out
        finally:
            reading.cancel()
            await asyncio.wait([reading])
        if left:
            raise border.Transient("the files are not what was said to come")

    async def _block(self) -> bytes:
        """Empty: that was all. Raises what reading raises."""
        block = await self._blocks.get()
        if isinstance(block, Exception):
            raise block
        return block

    async def _read(self) -> None:
        try:
            async for block in self._packed:
                await self._blocks.put(block)
            await self._blocks.put(b"")
        except Exception as error:  # noqa: BLE001  who sends raises it
            await self._blocks.put(error)
