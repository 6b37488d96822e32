"""Passes one request over a stream to another server, and its reply back, unchanged and piece by piece."""

from __future__ import annotations

import asyncio
from typing import Final

import httptools

from argosy.infra.agent_port import Channel
from argosy.model.errors import ArgosyError
from argosy.server.exchange import Disconnected, Receive, Scope, Send

_PIECE_BYTES: Final = 256 << 10
#: Fields that are about one connection; and who asks, which the stream itself tells.
_ONE_WAY: Final = frozenset(
    (
        *(b"connection", b"keep-alive", b"proxy-connection", b"te", b"trailer", b"transfer-encoding"),
        *(b"upgrade", b"expect", b"x-forwarded-for"),
    )
)


class _Answer:
    """What the parser has found since the last piece."""

    def __init__(self) -> None:
        self.fields: list[tuple[bytes, bytes]] = []
        self.pieces: list[bytes] = []
        self.has_head = self.is_over = False

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() not in _ONE_WAY:
            self.fields.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self.pieces.append(body)

    def on_message_complete(self) -> None:
        self.is_over = True


async def pass_on(channel: Channel, scope: Scope, receive: Receive, send: Send, taken: bytes | None) -> None:
    """`taken`: the whole body, when it was read already. Raises `transient` when the other server breaks off
    before it answers, Disconnected when the client has gone."""
    sending = asyncio.ensure_future(_send(channel, scope, receive, taken))
    answering = asyncio.ensure_future(_relay(channel, scope["method"], send))
    try:
        await asyncio.wait({sending, answering}, return_when=asyncio.FIRST_COMPLETED)
        if not answering.done() and not sending.cancelled() and sending.exception() is None:
            watching = asyncio.ensure_future(_gone(receive))
            await asyncio.wait({watching, answering}, return_when=asyncio.FIRST_COMPLETED)
            watching.cancel()
        elif not answering.done() and not isinstance(sending.exception(), Disconnected):
            await asyncio.wait({answering})  # it may have said why it takes no more
        if not answering.done():
            raise Disconnected
        await answering
    finally:
        for task in (sending, answering):
            task.cancel()
        await asyncio.wait({sending, answering})
        for task in (sending, answering):
            if not task.cancelled():
                task.exception()
        channel.writer.close()


async def _send(channel: Channel, scope: Scope, receive: Receive, taken: bytes | None) -> None:
    target = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        target = target.partition(b"?")[0] + b"?" + scope["query_string"]
    fields = [(name, value) for name, value in scope["headers"] if name not in _ONE_WAY]
    chunked = taken is None and any(name == b"transfer-encoding" for name, _ in scope["headers"])
    if chunked:
        fields.append((b"transfer-encoding", b"chunked"))
    elif taken is not None:
        fields = [(name, value) for name, value in fields if name != b"content-length"]
        fields.append((b"content-length", str(len(taken)).encode()))
    fields.append((b"connection", b"close"))
    head = scope["method"].encode() + b" " + target + b" HTTP/1.1\r\n"
    head += b"".join(name + b": " + value + b"\r\n" for name, value in fields) + b"\r\n"
    channel.writer.write(head + (taken or b""))
    await channel.writer.drain()
    more = taken is None
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        piece, more = message.get("body", b""), message.get("more_body", False)
        if chunked and piece:
            piece = b"%x\r\n%b\r\n" % (len(piece), piece)
        channel.writer.write(piece + (b"0\r\n\r\n" if chunked and not more else b""))
        await channel.writer.drain()


async def _relay(channel: Channel, method: str, send: Send) -> None:
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    begun = False
    while not answer.is_over:
        data = await channel.reader.read(_PIECE_BYTES)
        if not data:
            if begun:
                raise OSError("the other server broke off")  # a cut answer is not a complete one
            raise ArgosyError("transient", "the server that keeps the files broke off", hint="try again")
        parser.feed_data(data)
        if answer.has_head and not begun:
            begun = True
            status = parser.get_status_code()
            await send({"type": "http.response.start", "status": status, "headers": answer.fields})
            answer.is_over = answer.is_over or method == "HEAD"
        pieces, answer.pieces = answer.pieces, []
        if pieces:
            await send({"type": "http.response.body", "body": b"".join(pieces), "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
