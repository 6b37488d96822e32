"""Chunks on their way to a node, as packs, or with the tree that needs them in one request: some are read
while others travel."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final

import msgspec

from argosy.agent import wire
from argosy.infra import border
from argosy.infra.agent_http import request_head
from argosy.infra.agent_port import Channel, Chunks, Pack
from argosy.infra.system import SystemIds

_PACK_BYTES: Final = 8 << 20
_LANE_BYTES: Final = 32 << 20  # so many for each further connection
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
    """`order`: JSON that says which tree goes where; `chunks`: what is `packed`, with their sizes.

    A connection has a window, which a far node fills in no time. Many bytes go through several, block by
    block in turns.
    """

    def __init__(self, order: bytes, chunks: Mapping[str, int], packed: Pack) -> None:
        self._order, self._packed = order, packed
        self._size = sum(66 + len(str(size)) + size for size in chunks.values())
        self._blocks: asyncio.Queue[bytes | Exception] = asyncio.Queue(_BLOCKS)
        self._more: list[Channel] = []

    async def widen(self, connect: Callable[[], Awaitable[Channel]]) -> None:
        """Open further connections, where there are many bytes; fewer where they are refused."""
        count = min(wire.LANES_MAX - 1, self._size // _LANE_BYTES)
        for opened in await asyncio.gather(*(connect() for _ in range(count)), return_exceptions=True):
            if not isinstance(opened, BaseException):
                self._more.append(opened)

    async def aclose(self) -> None:
        for channel in self._more:
            channel.writer.close()

    async def send(self, channel: Channel, limit: asyncio.Timeout, patience_s: float) -> None:
        """`limit` is moved on whenever something was taken. Raises what reading the chunks raises."""
        lanes = [channel, *self._more]
        token = SystemIds().new("tree")
        sizes = wire.lane_sizes(self._size, len(lanes))
        for number, each in enumerate(lanes):
            told = {"lane": number, "lanes": len(lanes), "token": token, "size": self._size}
            order = msgspec.json.encode(told)
            if number == 0:
                order = order[:-1] + b"," + self._order[1:]
            head = b'{"order":%d}\n' % len(order) + order
            path = "/tree/lane" if number else "/tree"
            each.writer.write(request_head("PUT", path, len(head) + sizes[number]) + head)
        left, clock = self._size, asyncio.get_running_loop()
        at, turn = 0, 0  # of a turn
        reading = asyncio.ensure_future(self._read())
        try:
            while left > 0 and (block := await self._block()):
                left -= len(block)
                rest = memoryview(block)
                while rest:
                    piece = rest[: wire.LANE_BLOCK_BYTES - at]
                    lanes[turn].writer.write(piece)
                    rest, at = rest[len(piece) :], at + len(piece)
                    if at == wire.LANE_BLOCK_BYTES:
                        at, turn = 0, (turn + 1) % len(lanes)
                        await lanes[turn].writer.drain()
                limit.reschedule(clock.time() + patience_s)
            for each in lanes:
                await each.writer.drain()
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
