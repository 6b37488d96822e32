"""Interactive streams of an agent: terminals, seats in sessions, ports."""

from __future__ import annotations

import asyncio
from typing import Final

from argosy.agent import wire
from argosy.infra import border
from argosy.infra.agent_port import Channel

CALL_S: Final = 30.0
LOST: Final = (OSError, EOFError, asyncio.LimitOverrunError)


class Terminal:
    """A shell on the node."""

    def __init__(self, channel: Channel, streams: set[Channel]) -> None:
        self._channel = channel
        self._streams = streams
        self._exit_code: int | None = None
        self._ended = False

    async def read(self) -> bytes:
        while not self._ended:
            try:
                kind, size = wire.TERMINAL.unpack(await self._channel.reader.readexactly(wire.TERMINAL.size))
                payload = await self._channel.reader.readexactly(size)
            except LOST:
                self._ended = True
                break
            if kind == wire.TERMINAL_END:
                self._ended = True
                (self._exit_code,) = wire.EXIT_CODE.unpack(payload)
            elif kind == wire.TERMINAL_DATA:
                return payload
        return b""

    async def write(self, data: bytes) -> None:
        await self._send(wire.TERMINAL_DATA, data)

    async def end(self) -> None:
        """A terminal ends by what is typed."""

    async def resize(self, rows: int, columns: int) -> None:
        await self._send(wire.TERMINAL_RESIZE, wire.SIZE.pack(rows, columns))

    async def _send(self, kind: int, payload: bytes) -> None:
        if self._ended:
            return
        try:
            self._channel.writer.write(wire.TERMINAL.pack(kind, len(payload)) + payload)
            await self._channel.writer.drain()
        except OSError:
            pass  # the reader is told

    async def close(self) -> int | None:
        try:
            await self._send(wire.TERMINAL_END, b"")
            async with asyncio.timeout(CALL_S):
                while await self.read():
                    pass
        except TimeoutError:
            pass
        finally:
            self._streams.discard(self._channel)
            self._channel.writer.close()
        return self._exit_code


class Seat(Terminal):
    """A terminal of a session: it goes on when this line is closed. Its first line says where it begins."""

    said = b""

    async def acknowledge(self, seen: int) -> None:
        """The reader has everything before this byte of its output."""
        await self._send(wire.TERMINAL_SEEN, wire.SEEN.pack(seen))

    async def read(self) -> bytes:
        if not self.said:
            try:
                self.said = await self._channel.reader.readline()
            except LOST:
                self._ended = True
            return self.said
        return await super().read()

    async def close(self) -> int | None:
        self._streams.discard(self._channel)
        self._channel.writer.close()
        return self._exit_code


class Port:
    """A connection to a port on the node."""

    def __init__(self, channel: Channel, streams: set[Channel]) -> None:
        self._channel = channel
        self._streams = streams

    async def read(self) -> bytes:
        try:
            return await self._channel.reader.read(256 << 10)
        except OSError:
            return b""

    async def write(self, data: bytes) -> None:
        """Raises Unreachable when the other side has closed."""
        try:
            self._channel.writer.write(data)
            await self._channel.writer.drain()
        except OSError as error:
            raise border.Unreachable(f"the forwarded connection ended: {reason_of(error)}") from None

    async def end(self) -> None:
        try:
            if self._channel.writer.can_write_eof():
                self._channel.writer.write_eof()
        except OSError:
            pass  # the reader is told

    def hand_over(self, protocol: asyncio.Protocol) -> bool:
        """From now on the bytes are the protocol's. False: it is no transport that can be given away."""
        transport = getattr(self._channel.writer, "transport", None)
        buffer = getattr(self._channel.reader, "_buffer", None)
        if transport is None or buffer is None or not hasattr(transport, "set_protocol"):
            return False
        self._streams.discard(self._channel)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        transport.resume_reading()
        if buffer:
            protocol.data_received(bytes(buffer))
        if self._channel.reader.at_eof():
            transport.close()
        return True

    async def resize(self, rows: int, columns: int) -> None:
        """A port has no size."""

    async def close(self) -> int | None:
        self._streams.discard(self._channel)
        self._channel.writer.close()
        return None


def reason_of(error: BaseException) -> str:
    """Why a stream broke, in words."""
    if isinstance(error, EOFError):
        return "it closed the connection"
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or type(error).__name__
