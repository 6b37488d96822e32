"""WebSockets of the server: who is slow is not taken for dead."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from argosy.server.door import Door
from argosy.server.listeners import bind_socket, bind_tcp

ASK = (
    b"GET /x HTTP/1.1\r\nhost: argosy\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
    b"sec-websocket-version: 13\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
PING = b"\x89\x04"


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "bytes": message["bytes"]})


def test_pings_that_nobody_answers_end_nothing(tmp_path: Path) -> None:
    """A client that sends for long, or whose own reader is slow, answers late or never: the line stays."""

    async def scenario() -> None:
        door = Door(echo, [bind_socket(tmp_path / "d" / "s")])
        door.config.ws_ping_interval = 0.001
        await door.open()
        try:
            reader, writer = await asyncio.open_unix_connection(str(tmp_path / "d" / "s"))
            writer.write(ASK)
            data = b""
            while data.count(PING) < 5:
                data += await reader.read(4096)
            writer.write(b"\x82\x84\0\0\0\0late")
            while b"\x82\x04late" not in data:
                data += await reader.read(4096)
            writer.close()
        finally:
            await door.close()

    asyncio.run(asyncio.wait_for(scenario(), 10))


def test_a_peer_that_is_gone_is_noticed_by_the_kernel() -> None:
    import socket

    listening = bind_tcp("127.0.0.1:0")
    with listening, socket.create_connection(listening.getsockname()):
        listening.setblocking(True)
        accepted, _ = listening.accept()
        with accepted:
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            idle, probe, count = (
                accepted.getsockopt(socket.IPPROTO_TCP, option)
                for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            )
            assert idle + probe * count <= 60
