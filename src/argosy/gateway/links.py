"""How the steering process of a gateway and its workers talk: frames of a length and a message, over a
socket pair."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Final, cast

import msgspec

from argosy.model.routes import GatewayCounters, RouteTable, Wanted

_LENGTH: Final = 4


class Take(msgspec.Struct, tag="take", kw_only=True):
    """Steering process → worker: route by this table; these are the rows of the board."""

    table: RouteTable
    rows: dict[str, int]


class Tell(msgspec.Struct, tag="tell", kw_only=True):
    """→ worker: tell your counters."""

    number: int


class Taken(msgspec.Struct, tag="taken", kw_only=True):
    """Worker → steering process: the table is in use, or was refused."""

    generation: int
    wrong: str = ""


class Told(msgspec.Struct, tag="told", kw_only=True):
    """The counters of a worker."""

    number: int
    counters: GatewayCounters


class Want(msgspec.Struct, tag="want", kw_only=True):
    """Requests wait for replicas in this worker."""

    wanted: tuple[Wanted, ...]


Message = Take | Tell | Taken | Told | Want
_encode: Final = msgspec.msgpack.Encoder().encode
_decoder: Final = msgspec.msgpack.Decoder(Message)


class Link(asyncio.Protocol):
    """One end of a socket pair."""

    def __init__(self, got: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._got = got
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, message: Message) -> None:
        data = _encode(message)
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(len(data).to_bytes(_LENGTH, "big") + data)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH:
            end = _LENGTH + int.from_bytes(self._buffer[:_LENGTH], "big")
            if len(self._buffer) < end:
                return
            message = _decoder.decode(self._buffer[_LENGTH:end])
            del self._buffer[:end]
            self._got(message)

    def connection_lost(self, error: Exception | None) -> None:
        self._lost()

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
