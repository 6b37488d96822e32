from __future__ import annotations

import asyncio
import json
import socket
import time
from pathlib import Path

import pytest
from agent_process import AgentProcess, gone, wait_for

from argosy.agent import wire
from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import Duplex


async def read_until(stream: Duplex, mark: bytes) -> bytes:
    data = b""
    while mark not in data:
        piece = await stream.read()
        assert piece, f"it ended before {mark!r}: {data!r}"
        data += piece
    return data


async def read_all(stream: Duplex) -> bytes:
    data = b""
    while piece := await stream.read():
        data += piece
    return data


def test_a_command_on_a_terminal(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        shell = await client.shell("tty; stty size; pwd; echo $MINE; exit 5", 30, 100, {"MINE": "yes"})
        text = (await read_all(shell)).decode().split()
        assert text[0].startswith("/dev/pts/")
        assert text[1:] == ["30", "100", f"{agent.root}/home", "yes"]
        assert await shell.close() == 5

    agent.use(scenario)


def test_a_login_shell_that_is_typed_into_and_resized(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        shell = await client.shell("", 24, 80, {"PS1": "$ ", "SHELL": "/bin/bash"})
        await shell.write(b"echo $((6*7)); shopt -q login_shell && echo logged''-in\n")
        assert b"42" in await read_until(shell, b"logged-in\r\n")
        await shell.resize(50, 132)
        await shell.write(b"stty size\n")
        await read_until(shell, b"50 132")
        await shell.write(b"sleep 300\n")
        await asyncio.sleep(0.2)
        await shell.write(b"\x03echo in''terrupted\n")  # Ctrl-C: it has a controlling terminal
        await read_until(shell, b"interrupted\r\n")
        await shell.write(b"exit 9\n")
        await read_all(shell)
        assert await shell.close() == 9

    agent.use(scenario)


def test_closing_hangs_up(agent: AgentProcess) -> None:
    pid_file = agent.root / "home/pid"

    async def scenario(client: AgentClient) -> None:
        shell = await client.shell(f"echo $$ > {pid_file}; echo up; sleep 300", 24, 80, {})
        await read_until(shell, b"up")
        assert await shell.close() == 129

    agent.use(scenario)
    wait_for(lambda: gone(int(pid_file.read_text())))


def test_a_client_that_vanishes_hangs_up_even_what_ignores_it(agent: AgentProcess) -> None:
    pid_file = agent.root / "home/pid"

    async def scenario(client: AgentClient) -> None:
        shell = await client.shell(
            f"trap '' HUP; echo $$ > {pid_file}; echo up; while :; do sleep 0.1; done", 24, 80, {}
        )
        await read_until(shell, b"up")
        await client.close()

    agent.use(scenario)
    wait_for(lambda: gone(int(pid_file.read_text())))
    assert agent.run_one("true")[0].exit_code == 0


def test_much_output_through_a_terminal(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        shell = await client.shell("head -c 3000000 /dev/zero | tr '\\0' x; exit 3", 24, 80, {})
        assert (await read_all(shell)).count(b"x") == 3_000_000
        assert await shell.close() == 3

    agent.use(scenario)


def test_who_types_while_it_ends_is_told_how_it_ended(agent: AgentProcess) -> None:
    """A connection that is closed with unread bytes in it is reset, and what was sent last is lost with
    them."""
    pid_file = agent.root / "home/pid"

    async def scenario(client: AgentClient) -> None:
        command = f"stty raw -echo; echo $$ > {pid_file}; echo ready; sleep 1; echo last words; exit 7"
        shell = await client.shell(command, 24, 80, {})
        await read_until(shell, b"ready")

        async def type_much() -> None:
            for _ in range(256):
                await shell.write(b"x" * 65536)  # nobody reads it

        typing = asyncio.ensure_future(type_much())
        while not gone(int(pid_file.read_text())):
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        assert b"last words" in await read_all(shell)
        assert await shell.close() == 7
        await typing

    agent.use(scenario)


def test_a_slow_reader_gets_all_that_was_printed(agent: AgentProcess) -> None:
    """Without asyncio, which would read ahead. So much fits between the program and us that the program ends
    first."""
    order = {"command": "head -c 255000 /dev/zero | tr '\\0' x; exit 3"}
    body = json.dumps(order).encode()
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(str(agent.socket))
        head = f"POST {wire.PREFIX}/shell HTTP/1.1\r\nHost: a\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body)
        time.sleep(2)
        stream = connection.makefile("rb")
        while stream.readline().strip():
            pass
        seen = b""
        while (frame := stream.read(wire.TERMINAL.size)) and wire.TERMINAL.unpack(frame)[
            0
        ] != wire.TERMINAL_END:
            seen += stream.read(wire.TERMINAL.unpack(frame)[1])
        assert seen.count(b"x") == 255_000
        assert wire.EXIT_CODE.unpack(stream.read(wire.EXIT_CODE.size)) == (3,)


def test_forward_carries_bytes_both_ways(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(65536):
                writer.write(data.upper())
                await writer.drain()
            writer.close()

        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        streams = [await client.forward(port) for _ in range(3)]
        for number, stream in enumerate(streams):
            await stream.write(b"hello %d " % number + b"x" * 200_000 + b".")
        for number, stream in enumerate(streams):
            data = await read_until(stream, b".")
            assert data == b"HELLO %d " % number + b"X" * 200_000 + b"."
            assert await stream.close() is None
        server.close()

    agent.use(scenario)


def test_forward_tells_when_the_other_side_ends(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        async def bye(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"bye")
            writer.close()

        server = await asyncio.start_server(bye, "127.0.0.1", 0)
        stream = await client.forward(server.sockets[0].getsockname()[1])
        assert await read_all(stream) == b"bye"
        await stream.close()
        server.close()

    agent.use(scenario)


def test_forward_to_a_port_where_nothing_listens(agent: AgentProcess) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        async def scenario(client: AgentClient) -> None:
            with pytest.raises(border.Transient, match=f"nothing answers on port {port} of node-7"):
                await client.forward(port)
            with pytest.raises(border.RequestRefused):
                await client.forward(70000)

        agent.use(scenario)


def test_shells_leave_no_file_handles(agent: AgentProcess) -> None:
    def handles() -> int:
        return len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))

    async def scenario(client: AgentClient) -> None:
        await client.node()
        before = handles()
        for _ in range(5):
            shell = await client.shell("true", 24, 80, {})
            await read_all(shell)
            await shell.close()
        while handles() > before:
            await asyncio.sleep(0.01)

    agent.use(scenario)
