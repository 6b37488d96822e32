"""Many streams over one connection, with the same code at both ends. Standard library only, Python >= 3.8.

A frame is `HEAD` (kind, stream, size or number) and, for DATA, so many bytes. Who opens a stream gives it the
next number. A stream may have `WINDOW_BYTES` under way that its reader has not taken; the reader grants more
as it reads. So a stream whose reader is slow holds up nobody else, and busy streams take turns.
"""

from __future__ import annotations

import asyncio
import struct
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine
    from typing import Any

    Accept = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Coroutine[Any, Any, None]]

HEAD = struct.Struct(">BII")
OPEN, DATA, END, CLOSE, CREDIT, PING, PONG = range(
    7
)  # END: no more bytes from here; CLOSE: nor are any taken
WINDOW_BYTES = 512 << 10
PIECE_BYTES = 32 << 10  # of one stream at a time
_HIGH_BYTES = 256 << 10  # a writer waits when so much of its stream has not been sent
_READER_BYTES = WINDOW_BYTES // 4  # asyncio's reader says stop at twice this
GREETING = b"connected\n"  # what `connect` says before the first frame


class Broken(Exception):
    """The other end does not speak this."""


class Stream(asyncio.Transport):
    """One stream of a `Mux`: an asyncio transport with a reader and a writer on it."""

    def __init__(self, mux: Mux, number: int, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__()
        self._mux = mux
        self._number = number
        self._loop = loop
        self._out = bytearray()
        self._credit = WINDOW_BYTES  # bytes that we may send
        self._owed = 0  # bytes that our reader has taken, and the other end does not know of
        self._is_paused = False  # our reader has enough
        self._is_full = False  # our writer waits
        self._ends = False  # no more bytes come from our writer
        self._end_sent = False
        self._closes = False
        self._is_over = False
        self.waits_for_turn = False
        self.reader = asyncio.StreamReader(limit=_READER_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(self.reader, loop=loop)
        protocol.connection_made(self)
        self.writer = asyncio.StreamWriter(self, protocol, self.reader, loop)
        self._protocol: asyncio.Protocol = protocol

    # ---- what asyncio's reader and writer ask of a transport

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        assert isinstance(protocol, asyncio.Protocol)
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        return self._protocol

    def is_closing(self) -> bool:
        return self._closes or self._is_over

    def write(self, data: Any) -> None:
        if self._ends or self.is_closing():
            return
        self._out += data
        if len(self._out) > _HIGH_BYTES and not self._is_full:
            self._is_full = True
            self._protocol.pause_writing()
        self._mux.ready(self)

    def get_write_buffer_size(self) -> int:
        return len(self._out)

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self._ends = True
        self._mux.ready(self)

    def close(self) -> None:
        if not self.is_closing():
            self._closes = True
            self._mux.ready(self)

    def abort(self) -> None:
        self._out.clear()
        self.close()

    def is_reading(self) -> bool:
        return not self._is_paused

    def pause_reading(self) -> None:
        self._is_paused = True

    def resume_reading(self) -> None:
        self._is_paused = False
        self._grant()

    # ---- what the mux tells it

    def take_turn(self) -> bytes:
        """The next frames of this stream; b"" when it has none, or may not send."""
        frames = b""
        if self._out and self._credit > 0:
            data = bytes(self._out[: min(PIECE_BYTES, self._credit)])
            del self._out[: len(data)]
            self._credit -= len(data)
            if self._is_full and len(self._out) < _HIGH_BYTES // 2:
                self._is_full = False
                self._protocol.resume_writing()
            frames = HEAD.pack(DATA, self._number, len(data)) + data
        if not self._out and self._closes:
            frames += HEAD.pack(CLOSE, self._number, 0)
            self.over(None)
        elif not self._out and self._ends and not self._end_sent:
            self._end_sent = True
            frames += HEAD.pack(END, self._number, 0)
        return frames

    @property
    def has_turn(self) -> bool:
        return bool(self._out) and self._credit > 0 and not self._is_over

    def arrived(self, data: bytes) -> None:
        self._owed += len(data)
        if not self._closes:
            self._protocol.data_received(data)
        if not self._is_paused or self._closes:
            self._grant()

    def _grant(self) -> None:
        if self._owed >= WINDOW_BYTES // 4 and not self._is_over:
            self._mux.tell(CREDIT, self._number, self._owed)
            self._owed = 0

    def granted(self, amount: int) -> None:
        self._credit += amount
        self._mux.ready(self)

    def ended(self) -> None:
        """The other end sends no more."""
        if not self._is_over:
            self._protocol.eof_received()

    def over(self, error: Exception | None) -> None:
        """Nothing goes either way any more."""
        if not self._is_over:
            self._is_over = True
            self._out.clear()
            self._mux.forget(self._number)
            self._loop.call_soon(self._protocol.connection_lost, error)


class Mux:
    """Streams over `reader` and `writer`. `accept` is started for each stream that the other end opens."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, accept: Accept | None = None
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._reader, self._writer, self._accept = reader, writer, accept
        self._streams: dict[int, Stream] = {}
        self._next = 1
        self._told: list[bytes] = []
        self._turns: deque[Stream] = deque()
        self._wake = asyncio.Event()
        self._served: set[asyncio.Future[None]] = set()
        self.is_over = False
        self.heard_s = self._loop.time()  # when the other end last said something

    def open(self) -> Stream:
        """A new stream. Raises ConnectionError when the connection is over."""
        if self.is_over:
            raise ConnectionResetError("the connection that carries the streams is over")
        stream = self._streams[self._next] = Stream(self, self._next, self._loop)
        self.tell(OPEN, self._next, 0)
        self._next += 1
        return stream

    @property
    def streams(self) -> int:
        """How many are open."""
        return len(self._streams)

    async def run(self) -> None:
        """Carry frames until the connection ends, which ends all streams. Raises `Broken` for what is no
        frame."""
        sending = asyncio.ensure_future(self._send())
        error: Exception | None = None
        try:
            await self._receive()
        except (OSError, EOFError) as ended:
            error = ended if isinstance(ended, OSError) else None
        finally:
            self.is_over = True
            sending.cancel()
            self._writer.close()
            for stream in list(self._streams.values()):
                stream.over(error or ConnectionResetError("the connection that carried the stream is over"))

    def close(self) -> None:
        """End the connection. `run` returns then."""
        self.is_over = True
        self._writer.close()
        self._reader.feed_eof()

    def ping(self) -> None:
        """Make the other end say something."""
        self.tell(PING, 0, 0)

    # ---- for streams

    def ready(self, stream: Stream) -> None:
        if not stream.waits_for_turn:
            stream.waits_for_turn = True
            self._turns.append(stream)
            self._wake.set()

    def tell(self, kind: int, number: int, amount: int) -> None:
        self._told.append(HEAD.pack(kind, number, amount))
        self._wake.set()

    def forget(self, number: int) -> None:
        self._streams.pop(number, None)

    # ---- the connection

    async def _send(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                await self._send_all()
            except OSError:
                return  # the reading side is told too

    async def _send_all(self) -> None:
        while self._told or self._turns:
            frames, self._told = self._told, []
            if self._turns:
                stream = self._turns.popleft()
                stream.waits_for_turn = False
                frames.append(stream.take_turn())
                if stream.has_turn:
                    self.ready(stream)
            self._writer.write(b"".join(frames))
            await self._writer.drain()

    async def _receive(self) -> None:
        while True:
            kind, number, amount = HEAD.unpack(await self._reader.readexactly(HEAD.size))
            self.heard_s = self._loop.time()
            stream = self._streams.get(number)
            if kind == DATA:
                if amount > WINDOW_BYTES:
                    raise Broken("a frame of %d bytes" % amount)
                data = await self._reader.readexactly(amount)
                if stream is not None:
                    stream.arrived(data)
            elif kind == OPEN:
                self._opened(number)
            elif kind == PING:
                self.tell(PONG, 0, 0)
            elif kind > PONG:
                raise Broken("a frame of kind %d" % kind)
            elif stream is not None:
                self._news_of(stream, kind, amount)

    def _news_of(self, stream: Stream, kind: int, amount: int) -> None:
        if kind == CREDIT:
            stream.granted(amount)
        elif kind == END:
            stream.ended()
        elif kind == CLOSE:
            stream.over(None)

    def _opened(self, number: int) -> None:
        if self._accept is None or number in self._streams:
            self.tell(CLOSE, number, 0)
            return
        stream = self._streams[number] = Stream(self, number, self._loop)
        task = asyncio.ensure_future(self._accept(stream.reader, stream.writer))
        self._served.add(task)
        task.add_done_callback(self._served.discard)
