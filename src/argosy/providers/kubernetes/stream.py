"""A command in a pod as a byte stream: the frames of `v5.channel.k8s.io` on a WebSocket.

The first byte of a frame is its channel: 0 what the command reads, 1 what it writes, 2 its errors, 3 how it
ended. `ff 00` closes channel 0 (version 5 alone can).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import msgspec

from argosy.providers.kubernetes.words import Status

if TYPE_CHECKING:
    import aiohttp

_LIMIT_BYTES: Final = 256 << 10
_PIECE_BYTES: Final = 64 << 10
_HIGH_BYTES: Final = 512 << 10
_SAID_BYTES: Final = 2000


class ExecStream(asyncio.Transport):
    """A `Channel`. What the command writes to its errors is passed on as its last line, when it ends."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse, *, closes_input: bool) -> None:
        super().__init__()
        loop = asyncio.get_running_loop()
        self._socket, self._closes_input = socket, closes_input
        self._out = bytearray()
        self._ends = self._closing = self._is_full = False
        self._errors = bytearray()
        self._wake, self._flowing = asyncio.Event(), asyncio.Event()
        self._flowing.set()
        self.reader = asyncio.StreamReader(limit=_LIMIT_BYTES, loop=loop)
        self._protocol = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        self._protocol.connection_made(self)
        self.writer = asyncio.StreamWriter(self, self._protocol, self.reader, loop)
        self._tasks = (loop.create_task(self._receive()), loop.create_task(self._send()))

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def is_closing(self) -> bool:
        return self._closing

    def write(self, data: Any) -> None:
        if self._closing or self._ends:
            return
        self._out += data
        if len(self._out) > _HIGH_BYTES and not self._is_full:
            self._is_full = True
            self._protocol.pause_writing()
        self._wake.set()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ends = True
        self._wake.set()

    def close(self) -> None:
        self._closing = True
        self._wake.set()

    def abort(self) -> None:
        self._out.clear()
        self.close()

    def pause_reading(self) -> None:
        self._flowing.clear()

    def resume_reading(self) -> None:
        self._flowing.set()

    async def _send(self) -> None:
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while self._out:
                    data = bytes(self._out[:_PIECE_BYTES])
                    del self._out[: len(data)]
                    await self._socket.send_bytes(b"\x00" + data)
                    if self._is_full and len(self._out) < _HIGH_BYTES // 2:
                        self._is_full = False
                        self._protocol.resume_writing()
                if self._ends and self._closes_input and not self._closing:
                    await self._socket.send_bytes(b"\xff\x00")
                if self._ends or self._closing:
                    break
            if self._closing:
                await self._socket.close()
        except (OSError, RuntimeError):
            self._closing = True  # the reading side tells it

    async def _receive(self) -> None:
        error: Exception | None = None
        try:
            async for message in self._socket:
                data = message.data
                if not isinstance(data, bytes) or len(data) < 2:
                    continue  # servers open each channel with an empty frame
                if data[0] == 1:
                    self._protocol.data_received(data[1:])
                    await self._flowing.wait()
                elif data[0] == 2 and len(self._errors) < _SAID_BYTES:
                    self._errors += data[1:]
                elif data[0] == 3:
                    self._protocol.data_received(self._ended(data[1:]))
                    break
            failure = self._socket.exception() if self._socket.close_code != 1000 else None
            error = failure if isinstance(failure, OSError) else None
        except (OSError, RuntimeError) as lost:
            error = lost if isinstance(lost, OSError) else None
        finally:
            self._closing = True
            self._wake.set()
            self._protocol.connection_lost(error)

    def _ended(self, data: bytes) -> bytes:
        """Why a command ended that did not end well, for who waits for its first line."""
        try:
            status = msgspec.json.decode(data, type=Status)
        except msgspec.DecodeError:
            return b""
        if status.status == "Success":
            return b""
        said = bytes(self._errors).decode("utf-8", "replace").strip() or status.message
        return b" ".join(said.encode().split()) + b"\n"
