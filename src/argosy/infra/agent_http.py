"""Requests to an agent, and its answers: HTTP/1.1 over a channel."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.agent import wire
from argosy.infra.agent_port import Channel


def request_head(method: str, path: str, size: int) -> bytes:
    """`size`: of the body."""
    return f"{method} {wire.PREFIX}{path} HTTP/1.1\r\nHost: agent\r\nContent-Length: {size}\r\n\r\n".encode()


async def send_request(channel: Channel, method: str, path: str, body: Sequence[bytes]) -> None:
    channel.writer.write(request_head(method, path, sum(map(len, body))))
    try:
        for piece in body:
            channel.writer.write(piece)
            await channel.writer.drain()
    except ConnectionError:
        # It may have refused the body and said why; `receive_answer` finds out.
        pass


async def receive_answer(channel: Channel) -> tuple[int, bytes]:
    """Status and body of an answer. Raises one of `LOST`."""
    head = await channel.reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    words = lines[0].split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdigit():
        raise ConnectionError("the answer is not HTTP/1.1")
    length = 0
    for line in lines[1:]:
        name, _, value = line.partition(":")
        if name.lower() == "content-length" and value.strip().isdigit():
            length = int(value)
    return int(words[1]), await channel.reader.readexactly(length) if length else b""
