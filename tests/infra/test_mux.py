"""Many streams over one connection: whole, fair, and over when the connection is."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from argosy.agent.mux import GREETING, HEAD, WINDOW_BYTES, Broken, Mux
from argosy.infra import border
from argosy.infra.agent_client import StreamChannel
from argosy.infra.agent_port import Channel
from argosy.infra.boot import agent_zipapp
from argosy.infra.mux import Carrier, carry


@asynccontextmanager
async def two_ends(accept: Callable[..., Coroutine[Any, Any, None]]) -> AsyncIterator[tuple[Mux, Mux]]:
    """Who opens streams, and who accepts them."""
    ours, theirs = socket.socketpair()
    near = Mux(*await asyncio.open_connection(sock=ours))
    far = Mux(*await asyncio.open_connection(sock=theirs), accept)
    running = [asyncio.ensure_future(carry(each)) for each in (near, far)]
    try:
        yield near, far
    finally:
        near.close()
        far.close()
        await asyncio.wait(running)


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(100_000):
            writer.write(data)
            await writer.drain()
        writer.write(b"bye")
        writer.close()


def test_streams_are_whole_and_end_by_themselves() -> None:
    async def talk(mux: Mux, number: int) -> None:
        stream = mux.open()
        sent = hashlib.sha256(b"%d" % number).digest() * 50_000  # 1.6 MB: three times the window

        async def send() -> None:
            for at in range(0, len(sent), 70_001):
                stream.writer.write(sent[at : at + 70_001])
                await stream.writer.drain()
            stream.writer.write_eof()

        sending = asyncio.ensure_future(send())
        assert await stream.reader.read(-1) == sent + b"bye"
        await sending
        stream.writer.close()
        await stream.writer.wait_closed()

    async def body() -> None:
        async with two_ends(echo) as (near, far):
            await asyncio.gather(*[talk(near, number) for number in range(12)])
            near.ping()
            await near.open().reader.read(0)
            for _ in range(50):
                await asyncio.sleep(0)
            assert far.streams <= 1, "closed streams are forgotten"

    asyncio.run(body())


def test_a_stream_that_nobody_reads_holds_up_no_other_and_costs_no_more_than_its_window() -> None:
    poured = 0

    async def pour_or_echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal poured
        if await reader.read(4) != b"pour":
            return await echo(reader, writer)
        with suppress(ConnectionError):
            while True:
                writer.write(b"x" * 65536)
                poured += 65536
                await writer.drain()

    async def body() -> None:
        async with two_ends(pour_or_echo) as (near, _):
            deaf = near.open()
            deaf.writer.write(b"pour")
            for number in range(40):
                other = near.open()
                other.writer.write(b"echo" + b"%04d" % number)
                assert await other.reader.readexactly(4) == b"%04d" % number
                other.writer.close()
            assert WINDOW_BYTES <= poured <= 3 * WINDOW_BYTES
            stood = poured
            await deaf.reader.readexactly(4 * WINDOW_BYTES)
            assert poured > stood, "it goes on when it is read"

    asyncio.run(body())


def test_the_end_of_the_connection_is_the_end_of_every_stream() -> None:
    async def body() -> None:
        async with two_ends(echo) as (near, far):
            stream = near.open()
            stream.writer.write(b"hello")
            assert await stream.reader.readexactly(5) == b"hello"
            far.close()
            with pytest.raises(ConnectionError):
                while await stream.reader.readexactly(1):
                    pass
            with pytest.raises(ConnectionError):
                near.open()

    asyncio.run(body())


def test_what_is_no_frame_ends_it() -> None:
    async def body() -> None:
        reader = asyncio.StreamReader()
        reader.feed_data(HEAD.pack(99, 1, 1))
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        with pytest.raises(Broken, match="kind 99"):
            await Mux(reader, writer).run()
        theirs.close()

    asyncio.run(body())


def test_a_carrier_makes_its_channel_once_and_anew_when_it_was_lost() -> None:
    made: list[Mux] = []
    words = [b"Permission denied\n"]

    async def connect() -> Channel:
        ours, theirs = socket.socketpair()
        far = await asyncio.open_connection(sock=theirs)
        far[1].write(words.pop() if words else GREETING)
        made.append(Mux(*far, echo))
        tasks.append(asyncio.ensure_future(carry(made[-1])))
        return StreamChannel(*await asyncio.open_connection(sock=ours))

    tasks: list[asyncio.Task[None]] = []

    async def body() -> None:
        carrier = Carrier(connect)
        with pytest.raises(border.Unreachable, match="no agent listens there: Permission denied"):
            await carrier.open()
        for channel in await asyncio.gather(*[carrier.open() for _ in range(5)]):
            channel.writer.write(b"x")
            assert await channel.reader.readexactly(1) == b"x"
        assert len(made) == 2
        made[-1].close()
        with pytest.raises((EOFError, ConnectionError)):
            await channel.reader.readexactly(1)
        channel = await carrier.open()
        channel.writer.write(b"y")
        assert await channel.reader.readexactly(1) == b"y"
        await carrier.close()
        for mux in made:
            mux.close()
        await asyncio.wait(tasks)

    asyncio.run(body())


def test_connect_carries_many_streams_over_its_input_and_output() -> None:
    with tempfile.TemporaryDirectory(prefix="mux-") as name:
        folder = Path(name)

        async def connect() -> Channel:
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-I", "-S", str(zipapp), "connect", "--mux", "--socket", str(folder / "s"),
                stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            )  # fmt: skip
            assert process.stdin is not None and process.stdout is not None
            processes.append(process)
            return StreamChannel(process.stdout, process.stdin)

        processes: list[asyncio.subprocess.Process] = []
        zipapp = agent_zipapp(folder / "z")

        async def body() -> None:
            carrier = Carrier(connect)
            with pytest.raises(border.Unreachable, match="no agent listens there: No such file or directory"):
                await carrier.open()
            server = await asyncio.start_unix_server(echo, folder / "s")

            async def talk(size: int) -> None:
                channel = await carrier.open()
                channel.writer.write(b"z" * size)
                channel.writer.write_eof()
                assert await channel.reader.read(-1) == b"z" * size + b"bye"

            await asyncio.gather(*[talk(size) for size in (0, 1, 1000, 2_000_000)])
            await carrier.close()
            assert await processes[-1].wait() == 0, "it ends with its input"
            server.close()

        asyncio.run(body())
