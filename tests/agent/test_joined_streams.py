"""Two connections that the agent joins: every byte, both ends, and whoever is slow slows the other down."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from argosy.agent.joining import join
from argosy.agent.mux import Mux

MESSAGE = bytes(range(256)) * (16 << 10)  # 4 MiB: more than sockets hold

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def pair() -> tuple[Streams, socket.socket]:
    """A connection as the agent has it, and the other end of it."""
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    return await asyncio.open_connection(sock=ours), theirs


async def muxed() -> tuple[Streams, socket.socket]:
    """The same over a connection that many streams share: a node that dialled in, or one behind a relay."""
    one, other = socket.socketpair()
    ours, theirs = socket.socketpair()
    theirs.setblocking(False)
    taken: asyncio.Future[Streams] = asyncio.get_running_loop().create_future()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        taken.set_result((reader, writer))
        await asyncio.Event().wait()

    async def nobody(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    near = Mux(*await asyncio.open_connection(sock=one), accept)
    far = Mux(*await asyncio.open_connection(sock=other), nobody)
    running = [asyncio.ensure_future(each.run()) for each in (near, far)]
    stream = far.open()
    outside = await asyncio.open_connection(sock=ours)
    running.append(asyncio.ensure_future(join((stream.reader, stream.writer), outside)))
    KEPT.append((near, far, running))
    return await taken, theirs


KEPT: list[object] = []  # tasks live as long as somebody holds them


@pytest.mark.parametrize("made", [pair, muxed])
def test_every_byte_goes_both_ways_and_each_direction_ends_by_itself(
    made: Callable[[], Awaitable[tuple[Streams, socket.socket]]],
) -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        (one, left), (other, right) = await made(), await pair()
        one[0].feed_data(b"early ")  # came before the two were joined
        joined = asyncio.ensure_future(join(one, other))

        async def send(to: socket.socket) -> None:
            await loop.sock_sendall(to, MESSAGE)
            to.shutdown(socket.SHUT_WR)

        async def receive(at: socket.socket) -> bytes:
            data = bytearray()
            while piece := await loop.sock_recv(at, 1 << 20):
                data += piece
            return bytes(data)

        forth = asyncio.gather(send(left), receive(right))
        assert (await forth)[1] == b"early " + MESSAGE
        assert not joined.done()  # the way back is still open
        back = asyncio.gather(send(right), receive(left))
        assert (await back)[1] == MESSAGE
        await joined

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_who_does_not_read_stops_who_writes() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        (one, left), (other, right) = await pair(), await pair()
        joined = asyncio.ensure_future(join(one, other))
        sent, data = 0, bytes(64 << 10)
        quiet = 0
        while quiet < 50:  # until nothing more is taken, however often we ask
            try:
                sent += left.send(data)
                quiet = 0
            except BlockingIOError:
                quiet += 1
            await asyncio.sleep(0)
        assert sent < 8 << 20
        read = 0
        while read < sent:
            read += len(await loop.sock_recv(right, 1 << 20))
        left.close()
        assert await loop.sock_recv(right, 1) == b""
        right.close()
        await joined

    asyncio.run(asyncio.wait_for(scenario(), 30))


def test_a_lost_connection_ends_the_other() -> None:
    async def scenario() -> None:
        (one, _), (other, right) = await pair(), await pair()
        joined = asyncio.ensure_future(join(one, other))
        await asyncio.sleep(0)
        one[1].transport.abort()
        await joined
        assert await asyncio.get_running_loop().sock_recv(right, 1) == b""

    asyncio.run(asyncio.wait_for(scenario(), 30))
