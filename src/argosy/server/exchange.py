"""One request and its reply over ASGI: bodies with a size limit, checked query parameters, replies as JSON or
as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, MutableMapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from argosy import __version__
from argosy.api.endpoint import API_VERSION, BODY_LIMIT_BYTES, AnyEndpoint
from argosy.model.access import Caller
from argosy.model.errors import CODES, ArgosyError, suggest
from argosy.server.strictness import decode_strictly

# Any: what ASGI defines as the values of a scope and of a message.
Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
T = TypeVar("T")

_VERSION_HEADERS = [(b"x-argosy-version", __version__.encode()), (b"x-argosy-api", str(API_VERSION).encode())]
_JSON_HEADERS = [(b"content-type", b"application/json"), *_VERSION_HEADERS]
_ENCODER = msgspec.json.Encoder()
_TRUE, _FALSE = ("true", "1", "yes", ""), ("false", "0", "no")


class Disconnected(Exception):
    """The client went away in the middle of its request."""


class Exchange:
    """A request that was let in. `is_local`: it came over the unix socket. `caller`: who asks."""

    __slots__ = (
        *("answered", "caller", "endpoint", "headers", "is_local", "path", "query", "receive", "scope"),
        *("begun", "send", "taken"),
    )

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        endpoint: AnyEndpoint,
        path: Mapping[str, str],
        *,
        is_local: bool,
        caller: Caller,
    ) -> None:
        self.scope, self.receive, self.send = scope, receive, send
        self.endpoint, self.path, self.is_local = endpoint, path, is_local
        self.answered = False
        self.caller = caller
        self.begun = False  # whether some of the body was read ...
        self.taken: bytes | None = None  # ... and all of it, when that was kept
        self.headers: list[tuple[bytes, bytes]] = []  # further ones of a JSON answer
        self.query: Mapping[str, str | int | bool] = {}  # only what was given

    # -- what was asked -----------------------------------------------------------------------------

    def check_query(self) -> None:
        """Raises `usage` for what the endpoint does not know or cannot read."""
        self.query = parse_query(self.endpoint, self.scope["query_string"])

    def text(self, name: str, default: str = "") -> str:
        return str(self.query.get(name, default))

    def number(self, name: str) -> int | None:
        value = self.query.get(name)
        return value if isinstance(value, int) else None

    def flag(self, name: str) -> bool:
        return bool(self.query.get(name, False))

    def header(self, name: str) -> str:
        """A header of the request, by its name in small letters; "": it has none."""
        wanted = name.encode()
        return next((value.decode("latin-1") for key, value in self.scope["headers"] if key == wanted), "")

    @property
    def length(self) -> int:
        """Of the body, as it was announced; 0: it was not."""
        text = self.header("content-length")
        return int(text) if text.isdigit() else 0

    async def stream(self, limit_bytes: int) -> AsyncIterator[bytes]:
        """The body piece by piece; the client is slowed down to the reader's pace. Raises `too-large`."""
        self._refuse_announced(limit_bytes)
        total, self.begun = 0, True
        while True:
            message = await self.receive()
            if message["type"] == "http.disconnect":
                raise Disconnected
            body: bytes = message.get("body", b"")
            total += len(body)
            if total > limit_bytes:
                raise _too_large(limit_bytes)
            if body:
                yield body
            if not message.get("more_body", False):
                return

    async def body(self, limit_bytes: int = BODY_LIMIT_BYTES) -> bytes:
        """The whole body."""
        if self.taken is None:
            pieces = [piece async for piece in self.stream(limit_bytes)]
            self.taken = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        return self.taken

    async def decode(self, kind: type[T]) -> T:
        """The JSON body, strictly. Raises `spec-invalid`, `too-large`."""
        return decode_strictly(kind, await self.body())

    def _refuse_announced(self, limit_bytes: int) -> None:
        for name, value in self.scope["headers"]:
            if name == b"content-length" and value.isdigit() and int(value) > limit_bytes:
                raise _too_large(limit_bytes)

    # -- the answer ---------------------------------------------------------------------------------

    async def reply(self, body: bytes) -> None:
        """200 with JSON that is encoded already."""
        self.answered = True
        await self.send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [*_JSON_HEADERS, *self.headers, (b"content-length", str(len(body)).encode())],
            }
        )
        await self.send({"type": "http.response.body", "body": body})

    async def reply_stream(self, media_type: str, pieces: AsyncGenerator[bytes, None]) -> None:
        """200 with a stream, at the reader's pace: the next piece is asked for when this one is on its way.

        Ends early, quietly, when the client goes away.
        """
        self.answered = True
        headers = [(b"content-type", media_type.encode()), (b"cache-control", b"no-store"), *_VERSION_HEADERS]
        await self.send({"type": "http.response.start", "status": 200, "headers": headers})
        pump = asyncio.ensure_future(self._pump(pieces))
        gone = asyncio.ensure_future(self._gone())
        try:
            await asyncio.wait({pump, gone}, return_when=asyncio.FIRST_COMPLETED)
            if pump.done():
                pump.result()
                await self.send({"type": "http.response.body", "body": b""})
        finally:
            gone.cancel()
            pump.cancel()
            await asyncio.wait({pump, gone})
            await pieces.aclose()

    async def _pump(self, pieces: AsyncIterator[bytes]) -> None:
        async for piece in pieces:
            await self.send({"type": "http.response.body", "body": piece, "more_body": True})

    async def _gone(self) -> None:
        while (await self.receive())["type"] != "http.disconnect":
            pass

    async def problem(self, error: ArgosyError, status: int | None = None) -> None:
        self.answered = True
        await send_problem(self.send, error, status)


def encode(value: object) -> bytes:
    """A reply as JSON."""
    return _ENCODER.encode(value)


async def send_problem(send: Send, error: ArgosyError, status: int | None = None) -> None:
    """An error as `Problem`. The rest of a refused body is thrown away as it comes, so that a client which
    sends everything before it reads is not cut off, and gets to read why."""
    body = encode(error.problem())
    headers = [*_JSON_HEADERS, (b"content-length", str(len(body)).encode())]
    if error.code == "unauthorized":
        headers.append((b"www-authenticate", b"Bearer"))
    await send(
        {"type": "http.response.start", "status": status or CODES[error.code].http, "headers": headers}
    )
    await send({"type": "http.response.body", "body": body})


def parse_query(endpoint: AnyEndpoint, query_string: bytes) -> dict[str, str | int | bool]:
    """The query by the endpoint's table. Raises `usage`."""
    if not query_string:
        return {}
    kinds = {name: kind for name, kind, _ in endpoint.query}
    result: dict[str, str | int | bool] = {}
    for name, text in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True, errors="replace"):
        kind = kinds.get(name)
        if kind is None:
            known = ", ".join(f"`{each}`" for each in kinds) or "none"
            hint = suggest(name, kinds, otherwise=f"it knows {known}")
            raise ArgosyError("usage", f"`{endpoint.name}` has no parameter `{name}`", hint=hint)
        if kind is bool:
            if text.lower() not in _TRUE + _FALSE:
                raise ArgosyError("usage", f"`{name}` is `true` or `false`, not `{text}`")
            result[name] = text.lower() in _TRUE
        elif kind is int:
            try:
                result[name] = int(text)
            except ValueError:
                raise ArgosyError("usage", f"`{name}` is a whole number, not `{text}`") from None
        else:
            result[name] = text
    return result


def _too_large(limit_bytes: int) -> ArgosyError:
    return ArgosyError("too-large", f"the request is larger than {limit_bytes >> 20} MB")
