"""How the client behaves when the other side does not: the agent itself is tested in tests/agent."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from argosy.agent import wire
from argosy.infra import border
from argosy.infra.agent_client import AgentClient, unix_channel
from argosy.infra.agent_port import AgentPort, RankOrder
from argosy.infra.boot import agent_command, agent_zipapp, probe_command

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def peer(handler: Handler) -> AsyncIterator[AgentClient]:
    """A client of something that answers as `handler` does."""

    async def safely(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await handler(reader, writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        server = await asyncio.start_unix_server(safely, folder + "/s")
        client = AgentClient(lambda: unix_channel(folder + "/s"))
        try:
            yield client
        finally:
            await client.close()
            server.close()


async def request_of(reader: asyncio.StreamReader) -> bytes:
    head = await reader.readuntil(b"\r\n\r\n")
    size = int(head.lower().partition(b"content-length:")[2].split()[0])
    return head + await reader.readexactly(size)


def test_it_is_an_agent_port() -> None:
    client: AgentPort = AgentClient(lambda: unix_channel("/nowhere"))
    assert client is not None


def test_nobody_there_is_unreachable() -> None:
    async def scenario() -> None:
        client = AgentClient(lambda: unix_channel("/tmp/argosy-nobody-listens-here"))
        for call in (
            client.node(),
            client.prepare([RankOrder(id="a.0")]),
            client.forward(80),
            client.shutdown(),
        ):
            with pytest.raises(border.Unreachable, match="no agent listens on /tmp/argosy-nobody"):
                await call
        with pytest.raises(border.Unreachable):
            await anext(client.watch({}))

    asyncio.run(scenario())


def test_calls_share_one_connection() -> None:
    connections = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await request_of(reader)
            writer.write(OK)

    async def scenario() -> None:
        async with peer(handler) as client:
            for _ in range(5):
                await client.run(["a.0"])
            assert connections == 1
            await asyncio.gather(*(client.run(["a.0"]) for _ in range(50)))
            assert connections <= 8

    asyncio.run(scenario())


def test_a_kept_connection_that_died_is_replaced() -> None:
    served = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await request_of(reader)
        served += 1
        writer.write(OK)  # and closes, as an agent that restarts does

    async def scenario() -> None:
        async with peer(handler) as client:
            for _ in range(4):
                await client.run(["a.0"])
            assert served == 4

    asyncio.run(scenario())


def test_nothing_is_asked_when_there_is_nothing_to_ask() -> None:
    async def scenario() -> None:
        client = AgentClient(lambda: unix_channel("/nowhere"))
        await client.prepare([])
        await client.run([])
        await client.stop([], 1.0)
        await client.forget([])
        assert list(await client.missing_chunks([])) == []

    asyncio.run(scenario())


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        b"\x00" * 100,
    ],
)
def test_a_peer_that_breaks_off_or_speaks_something_else(answer: bytes) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(answer)

    async def scenario() -> None:
        async with peer(handler) as client:
            with pytest.raises(border.Unreachable):
                await client.run(["a.0"])
            with pytest.raises(border.Unreachable):
                await anext(client.watch({}))

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (400, b'{"error": "refused", "field": "target", "text": "no"}', border.RequestRefused),
        (409, b'{"error": "transient", "text": "later"}', border.Transient),
        (503, b"not json", border.Transient),
        (500, b"{}", border.Transient),
    ],
)
def test_failures_become_border_errors(status: int, body: bytes, kind: type[border.BorderError]) -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 %d Bad\r\nContent-Length: %d\r\n\r\n" % (status, len(body)) + body)

    async def scenario() -> None:
        async with peer(handler) as client:
            with pytest.raises(kind) as caught:
                await client.place_tree(b'{"entries":[]}', "x")
            if isinstance(caught.value, border.RequestRefused):
                assert caught.value.field == "target"
            with pytest.raises(kind):
                await client.shell("", 1, 1, {})

    asyncio.run(scenario())


def test_a_watch_that_breaks_off_or_turns_to_nonsense() -> None:
    good = b'{"complete":true,"ranks":[],"logs":[["a.0",5,3]],"unknown":1}'
    frame = wire.FRAME.pack(len(good), 3) + good + b"abc"

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n" + frame + wire.FRAME.pack(4, 0) + b"nope")

    async def scenario() -> None:
        async with peer(handler) as client:
            watch = client.watch({"a.0": 5})
            report = await anext(watch)
            assert report.complete
            assert [(chunk.rank_id, chunk.offset, chunk.data) for chunk in report.logs] == [
                ("a.0", 5, b"abc")
            ]
            with pytest.raises(border.Unreachable, match="does not speak our wire"):
                await anext(watch)

    asyncio.run(scenario())


def test_a_call_that_is_given_up_does_not_poison_the_next() -> None:
    calls = 0

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal calls
        while True:
            await request_of(reader)
            calls += 1
            if calls == 1:
                await asyncio.sleep(0.2)
                writer.write(b"HTTP/1.1 400 Old\r\nContent-Length: 0\r\n\r\n")
            else:
                writer.write(OK)

    async def scenario() -> None:
        async with peer(handler) as client:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await client.run(["a.0"])
            await client.run(["a.0"])

    asyncio.run(scenario())


def test_a_closed_client_says_so() -> None:
    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await request_of(reader)
        writer.write(OK)

    async def scenario() -> None:
        async with peer(handler) as client:
            await client.run(["a.0"])
            await client.close()
            with pytest.raises(border.Unreachable, match="was closed"):
                await client.run(["a.0"])

    asyncio.run(scenario())


def test_the_commands_that_start_it(tmp_path: Path) -> None:
    pyz = agent_zipapp(tmp_path / "cache")
    assert pyz == agent_zipapp(tmp_path / "cache")
    command = agent_command(pyz, "/r", "/s", devices=[2, 3], name="n-1", python=sys.executable)
    assert command[0] == sys.executable
    assert command[-6:] == ["--root", "/r", "--socket", "/s", "--devices=2,3", "--name=n-1"]
    assert "--devices=" in agent_command(pyz, "/r", "/s", devices=[])
    assert not any("--devices" in word for word in agent_command(pyz, "/r", "/s"))
    assert probe_command(pyz)[-3:] == ["probe", "--root", "."]
