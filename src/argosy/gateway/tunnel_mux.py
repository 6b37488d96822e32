"""Many byte streams over one connection of a tunnel: the same code at both ends.

A frame is eight bytes (`number` of the stream, and `kind << 24 | amount`), then `amount` bytes where the kind
is DATA. A stream may have WINDOW_BYTES under way that its reader has not taken; the reader's end grants more
with CREDIT as the bytes go on. So a reader that has stopped holds up nobody else, and streams that are busy
take turns of PIECE_BYTES. What is written in one turn of the event loop leaves as one piece.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections import deque
from collections.abc import Callable
from typing import Final, cast

HEAD: Final = struct.Struct("!II")
DATA, OPEN, CREDIT, END, RESET, PING, PONG = range(7)
WINDOW_BYTES: Final = 512 << 10
PIECE_BYTES: Final = 16 << 10
#: Streams that one tunnel carries at once.
MAX_STREAMS: Final = 1024
#: Between two calls of `tick`.
TICK_S: Final = 15.0
_SILENT_TICKS: Final = 3
_HIGH_BYTES: Final = 128 << 10  # of one stream: its local socket is read no further
_ROUND_BYTES: Final = 128 << 10  # written at once to the tunnel
_COPIED_BYTES: Final = 2048  # below it a copy costs less than a view


class Broken(Exception):
    """The other end does not speak this, or sends more than it may."""


class Stream(asyncio.Protocol):
    """One stream: it is the protocol of the local socket whose bytes it carries."""

    __slots__ = (
        "_credit", "_early", "_end_got", "_end_sent", "_ends", "_is_full", "_is_halted", "_mux", "_out",
        "_out_bytes", "_owed", "_room", "is_over", "number", "transport", "waits",
    )  # fmt: skip

    def __init__(self, mux: Mux, number: int) -> None:
        self.number = number
        self.transport: asyncio.Transport | None = None
        self.is_over = False
        self.waits = False  # for its turn
        self._mux = mux
        self._out: deque[bytes | memoryview] = deque()
        self._out_bytes = 0
        self._credit = WINDOW_BYTES  # what we may send
        self._room = WINDOW_BYTES  # what the other end may send
        self._owed = 0  # what has gone on to the local socket, and was not granted again
        self._early: list[bytes] = []  # what came before the local socket was there
        self._is_full = False  # the local socket takes no more
        self._is_halted = False  # the local socket is not read
        self._ends = self._end_sent = self._end_got = False

    # --- the local socket --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if self.is_over:
            self.transport.abort()
            return
        for data in self._early:
            self.transport.write(data)
        self._early = []
        if self._end_got:
            self.transport.write_eof()
        self._grant()

    def data_received(self, data: bytes) -> None:
        if self.is_over:
            return
        self._out.append(data)
        self._out_bytes += len(data)
        if self._out_bytes > _HIGH_BYTES and not self._is_halted and self.transport is not None:
            self._is_halted = True
            self.transport.pause_reading()
        self._mux.ready(self)

    def eof_received(self) -> bool:
        self._ends = True
        self._mux.ready(self)
        return not self._end_got

    def pause_writing(self) -> None:
        self._is_full = True

    def resume_writing(self) -> None:
        self._is_full = False
        self._grant()

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        if not self.is_over and (error is not None or not self._ends):
            self._mux.reset(self)

    # --- the tunnel --------------------------------------------------------------------------------

    @property
    def has_turn(self) -> bool:
        return bool(self._out) and self._credit > 0

    def take(self, frames: list[bytes | memoryview]) -> int:
        """Append its next frames, one piece of data at most. How many bytes of data."""
        size = 0
        if self._out and self._credit > 0:
            piece = self._out[0]
            most = min(PIECE_BYTES, self._credit)
            if len(piece) <= most:
                self._out.popleft()
            else:
                view = memoryview(piece)
                piece, self._out[0] = view[:most], view[most:]
            size = len(piece)
            self._credit -= size
            self._out_bytes -= size
            frames.append(HEAD.pack(self.number, size))
            frames.append(piece)
            if self._is_halted and self._out_bytes < _HIGH_BYTES // 2:
                self._is_halted = False
                if self.transport is not None:
                    self.transport.resume_reading()
        if self._ends and not self._out and not self._end_sent and not self.is_over:
            self._end_sent = True
            frames.append(HEAD.pack(self.number, END << 24))
            self._finish()
        return size

    def got(self, data: bytes | memoryview) -> None:
        """Bytes for the local socket. Raises Broken when more come than were granted."""
        if self.is_over:
            return
        size = len(data)
        self._room -= size
        if self._room < 0:
            raise Broken("a stream has more under way than was granted")
        self._owed += size
        if self.transport is not None:
            self.transport.write(data)
            if not self._is_full:
                self._grant()
        elif not self._ends:
            self._early.append(bytes(data))

    def granted(self, amount: int) -> None:
        self._credit += amount
        if self._out:
            self._mux.ready(self)

    def ended(self) -> None:
        """The other end sends no more."""
        self._end_got = True
        if self.transport is not None and not self._ends:
            with contextlib.suppress(OSError, RuntimeError):
                self.transport.write_eof()
        self._finish()

    def refuse(self) -> None:
        """There is no local socket for it: the other end is told."""
        self._mux.reset(self)

    def cut(self) -> None:
        """Nothing goes either way any more."""
        self.is_over = True
        self._out.clear()
        self._early = []
        if self.transport is not None:
            self.transport.abort()

    def _finish(self) -> None:
        if self._end_sent and self._end_got:
            self.is_over = True
            self._mux.forget(self)
            if self.transport is not None:
                self.transport.close()

    def _grant(self) -> None:
        if self._owed >= WINDOW_BYTES // 4 and not self.is_over:
            self._room += self._owed
            self._mux.tell(CREDIT, self.number, self._owed)
            self._owed = 0


class Mux(asyncio.Protocol):
    """The connection that carries streams. `accept` is called for each stream that the other end opens; an
    end without it takes none. `lost` is called once, with why in words."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        lost: Callable[[Mux, str], None],
        accept: Callable[[Stream], None] | None = None,
    ) -> None:
        self._loop = loop
        self._lost = lost
        self._accept = accept
        self._transport: asyncio.Transport | None = None
        self._streams: dict[int, Stream] = {}
        self._last = 0
        self._told: list[bytes | memoryview] = []
        self._turns: deque[Stream] = deque()
        self._is_corked = False
        self._is_paused = False
        self._kept = b""  # of a frame's head
        self._rest = 0  # of the data of a frame
        self._sink: Stream | None = None
        self._silent = 0
        self._why = "the connection was closed by the other end"

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    def open(self) -> Stream:
        """A new stream, for a local socket that has just been accepted. Raises ConnectionError: there is
        no room for another, or the tunnel is over."""
        if self._transport is None or len(self._streams) >= MAX_STREAMS:
            raise ConnectionError("the tunnel takes no more streams")
        self._last += 1
        stream = self._streams[self._last] = Stream(self, self._last)
        self.tell(OPEN, stream.number, 0)
        return stream

    def tick(self) -> None:
        """Call it every TICK_S: an end that has been silent for long is given up."""
        self._silent += 1
        if self._silent >= _SILENT_TICKS:
            self.close(f"nothing was heard for {_SILENT_TICKS * TICK_S:.0f} s")
        else:
            self.tell(PING, 0, 0)

    def close(self, why: str) -> None:
        """End the connection and all streams at once."""
        if self._transport is not None:
            self._why = why
            self._transport.abort()

    # --- for streams -------------------------------------------------------------------------------

    def ready(self, stream: Stream) -> None:
        if not stream.waits:
            stream.waits = True
            self._turns.append(stream)
            self._cork()

    def tell(self, kind: int, number: int, amount: int) -> None:
        self._told.append(HEAD.pack(number, kind << 24 | amount))
        self._cork()

    def reset(self, stream: Stream) -> None:
        """Cut a stream here and at the other end."""
        stream.cut()
        if self._streams.pop(stream.number, None) is not None:
            self.tell(RESET, stream.number, 0)

    def forget(self, stream: Stream) -> None:
        self._streams.pop(stream.number, None)

    # --- the connection ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.set_write_buffer_limits(high=_ROUND_BYTES)
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            # what waits in the kernel cannot be overtaken by another stream
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, _ROUND_BYTES)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        if self._turns:
            self._cork()

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        streams, self._streams = list(self._streams.values()), {}
        for stream in streams:
            stream.cut()
        self._turns.clear()
        self._lost(self, f"{self._why}: {error}" if error is not None else self._why)

    def data_received(self, data: bytes) -> None:
        self._silent = 0
        try:
            self._read(self._kept + data if self._kept else data)
        except Broken as error:
            self.close(str(error))

    def _read(self, data: bytes) -> None:
        at, end = 0, len(data)
        while True:
            if self._rest:
                size = min(self._rest, end - at)
                stream = self._sink
                if size and stream is not None:
                    stream.got(
                        data[at : at + size] if size < _COPIED_BYTES else memoryview(data)[at : at + size]
                    )
                at += size
                self._rest -= size
            if end - at < HEAD.size:
                break
            number, word = HEAD.unpack_from(data, at)
            at += HEAD.size
            kind, amount = word >> 24, word & 0xFFFFFF
            if kind == DATA:
                if amount > PIECE_BYTES:
                    raise Broken(f"a frame of {amount} bytes")
                self._rest, self._sink = amount, self._streams.get(number)
            else:
                self._hear(kind, number, amount)
        self._kept = data[at:]

    def _hear(self, kind: int, number: int, amount: int) -> None:
        stream = self._streams.get(number)
        if kind == OPEN:
            self._opened(number)
        elif kind == PING:
            if not self._is_paused:
                self.tell(PONG, 0, 0)
        elif kind > PONG:
            raise Broken(f"a frame of kind {kind}")
        elif stream is None:
            return
        elif kind == CREDIT:
            stream.granted(amount)
        elif kind == END:
            stream.ended()
        elif kind == RESET:
            del self._streams[number]
            stream.cut()

    def _opened(self, number: int) -> None:
        if self._accept is None or number <= self._last:
            raise Broken("a stream was opened that may not be")
        self._last = number
        if len(self._streams) >= MAX_STREAMS:
            self.tell(RESET, number, 0)
            return
        stream = self._streams[number] = Stream(self, number)
        self._accept(stream)

    def _cork(self) -> None:
        if not self._is_corked:
            self._is_corked = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._is_corked = False
        frames, self._told = self._told, []
        size = 0
        while self._turns and not self._is_paused and size < _ROUND_BYTES:
            stream = self._turns.popleft()
            stream.waits = False
            size += stream.take(frames)
            if stream.has_turn:
                stream.waits = True
                self._turns.append(stream)
        if frames and self._transport is not None:
            self._transport.write(b"".join(frames))
        if self._turns and not self._is_paused:
            self._cork()
