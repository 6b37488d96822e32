"""HTTP/1.1 as a server, no more of it than functions need: bodies whole, answers whole or streamed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from urllib.parse import unquote

HEAD_LIMIT = 64 * 1024
REASONS = {
    200: "OK", 202: "Accepted", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 413: "Content Too Large", 415: "Unsupported Media Type",
    429: "Too Many Requests", 431: "Head Too Large",
    500: "Internal Server Error", 502: "Bad Gateway", 503: "Service Unavailable", 504: "Gateway Timeout",
}  # fmt: skip
Fields = list[tuple[str, str]]


class Request:
    """One request with its whole body. Names of fields are in lower case."""

    __slots__ = ("body", "fields", "gone", "method", "path", "peer", "query", "trailers")

    def __init__(self, method: str, target: str, fields: Fields, peer: str) -> None:
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.fields = fields
        self.peer = peer
        self.body = b""
        self.trailers: dict[str, str] = {}
        self.gone: list[Callable[[], None]] = []  # called when the client leaves before the answer

    def get(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.fields if key == name), default)

    @property
    def parts(self) -> list[str]:
        """The path between its slashes, decoded."""
        return [unquote(part) for part in self.path.split("/")[1:]]


class Answer:
    """A status with fields and a body; with `pieces` the body comes piece by piece."""

    __slots__ = ("body", "fields", "pieces", "status")

    def __init__(
        self,
        status: int,
        body: bytes = b"",
        fields: Fields | None = None,
        pieces: asyncio.Queue[bytes | None] | None = None,
    ) -> None:
        self.status, self.body, self.fields, self.pieces = status, body, fields or [], pieces

    def head(self, close: bool) -> bytes:
        lines = ["HTTP/1.1 %d %s" % (self.status, REASONS.get(self.status, "Status"))]
        lines += [f"{key}: {clean(value)}" for key, value in self.fields]
        if self.pieces is not None:
            lines.append("transfer-encoding: chunked")
        elif self.status != 204:
            lines.append("content-length: %d" % len(self.body))
        if close:
            lines.append("connection: close")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")


def clean(value: str) -> str:
    """A value that cannot begin another line."""
    return value.replace("\r", " ").replace("\n", " ")


Handler = Callable[[Request], Awaitable[Answer]]


class Wrong(Exception):
    """The request cannot be read; the text says why."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Connection(asyncio.Protocol):
    """Requests of one connection, one after the other."""

    def __init__(self, handler: Handler, body_limit: int) -> None:
        self.handler, self.body_limit = handler, body_limit
        self.buffer = bytearray()
        self.transport: asyncio.Transport
        self.request: Request | None = None
        self.length = 0
        self.chunked = False
        self.busy = False
        self.closing = False
        self.flows = asyncio.Event()
        self.flows.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def pause_writing(self) -> None:
        self.flows.clear()

    def resume_writing(self) -> None:
        self.flows.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.closing = True
        self.flows.set()
        if self.request is not None:
            for call in self.request.gone:
                call()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.step()

    def step(self) -> None:
        """As far as the bytes reach."""
        if self.busy or self.closing:
            return
        try:
            if self.request is None and not self.begin():
                return
            request = self.request
            if request is None or not (self.chunks(request) if self.chunked else self.plain(request)):
                return
        except Wrong as wrong:
            self.closing = True
            body = json.dumps({"error": str(wrong)}).encode()
            answer = Answer(wrong.status, body, [("content-type", "application/json")])
            self.transport.write(answer.head(close=True) + body)
            self.transport.close()
            return
        self.busy = True
        asyncio.ensure_future(self.answer(request))

    def begin(self) -> bool:
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > HEAD_LIMIT:
                raise Wrong(431, f"the head is longer than {HEAD_LIMIT} bytes")
            return False
        lines = self.buffer[:end].decode("latin-1").split("\r\n")
        del self.buffer[: end + 4]
        words = lines[0].split(" ")
        if len(words) != 3 or not words[1].startswith("/") or not words[2].startswith("HTTP/1."):
            raise Wrong(400, "the first line is no request of HTTP/1.1")
        fields = []
        for line in lines[1:]:
            name, colon, value = line.partition(":")
            if not colon or not name or name != name.strip():
                raise Wrong(400, "a header is no `name: value`")
            fields.append((name.lower(), value.strip()))
        peer = self.transport.get_extra_info("peername")
        request = Request(words[0], words[1], fields, peer[0] if isinstance(peer, tuple) else "")
        lengths = {value for name, value in fields if name == "content-length"}
        self.chunked = request.get("transfer-encoding").lower() == "chunked"
        if len(lengths) > 1 or (lengths and self.chunked):
            raise Wrong(400, "the length of the body is told twice")
        text = lengths.pop() if lengths else "0"
        if not (text.isascii() and text.isdigit()):
            raise Wrong(400, "the length of the body is no number")
        self.length = int(text)
        if self.length > self.body_limit:
            raise self.too_large()
        if request.get("expect").lower() == "100-continue":
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.request = request
        return True

    def plain(self, request: Request) -> bool:
        if len(self.buffer) < self.length:
            return False
        request.body = bytes(memoryview(self.buffer)[: self.length])
        del self.buffer[: self.length]
        return True

    def too_large(self) -> Wrong:
        return Wrong(413, f"the body is larger than {self.body_limit} bytes")

    def chunks(self, request: Request) -> bool:
        """Chunks so far go to the body. True: the last one and its trailers were there."""
        while True:
            line_end = self.buffer.find(b"\r\n")
            if line_end < 0:
                return False
            size_text = self.buffer[:line_end].partition(b";")[0].strip()
            try:
                size = int(size_text, 16)
            except ValueError:
                raise Wrong(400, "the length of a chunk is no number") from None
            if size < 0 or size > self.body_limit:
                raise self.too_large()
            if size == 0:
                end = self.buffer.find(b"\r\n\r\n", line_end)
                if end < 0:
                    return False
                for line in self.buffer[line_end + 2 : end + 2].decode("latin-1").split("\r\n"):
                    name, colon, value = line.partition(":")
                    if colon:
                        request.trailers[name.strip().lower()] = value.strip()
                del self.buffer[: end + 4]
                return True
            if len(self.buffer) < line_end + size + 4:
                return False
            request.body += self.buffer[line_end + 2 : line_end + 2 + size]
            if len(request.body) > self.body_limit:
                raise self.too_large()
            del self.buffer[: line_end + 4 + size]

    async def answer(self, request: Request) -> None:
        close = request.get("connection").lower() == "close"
        answer = await self.handler(request)
        self.request = None
        if self.closing:
            return
        if answer.pieces is None:
            self.transport.write(answer.head(close) + answer.body)
        else:
            self.transport.write(answer.head(close))
            while True:
                piece = await answer.pieces.get()
                if piece is None or self.closing:
                    break
                self.transport.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await self.flows.wait()
            self.transport.write(b"0\r\n\r\n")
        if close:
            self.closing = True
            self.transport.close()
            return
        self.busy = False
        if self.buffer:
            self.step()
