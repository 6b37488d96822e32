"""Two connections joined into one: what comes from either goes to the other as it comes.

Bytes pass from transport to transport, without readers and writers between them: a stream through a session
takes half of the processor's time. Whoever is slow slows the other down.
"""

from __future__ import annotations

import asyncio
import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

    Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]

_SENT_BYTES = 1 << 20  # a unix socket takes so much at once: half the wake-ups, half the processor's time


async def join(one: Streams, other: Streams) -> None:
    """Carry bytes between two connections until both directions have ended, or one is lost."""
    over = asyncio.get_running_loop().create_future()
    ends = _End(over), _End(over)
    ends[0].peer, ends[1].peer = ends[1], ends[0]
    try:
        ends[0].transport, ends[1].transport = _transport_of(one), _transport_of(other)
        ends[0].take(one)
        ends[1].take(other)
        await over
    finally:
        other[1].close()


def _transport_of(streams: Streams) -> asyncio.Transport:
    transport = streams[1].transport
    assert isinstance(transport, asyncio.Transport)
    raw = transport.get_extra_info("socket")
    if raw is not None and raw.family == socket.AF_UNIX:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SENT_BYTES)
    return transport


class _End(asyncio.Protocol):
    """One of the two connections."""

    peer: _End
    transport: asyncio.Transport

    def __init__(self, over: asyncio.Future[None]) -> None:
        self._over = over
        self._has_ended = False

    def take(self, streams: Streams) -> None:
        """From now on the bytes are ours; what its reader holds already goes first."""
        self.transport.set_protocol(self)
        left = bytes(streams[0]._buffer)  # type: ignore[attr-defined]  # no other way leads to it
        if left:
            self.data_received(left)
        if streams[0].at_eof() or streams[0]._eof:  # type: ignore[attr-defined]
            self.eof_received()
        if self.transport.is_closing():
            self.connection_lost(None)
        elif not self._has_ended:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        self.peer.transport.write(data)

    def pause_writing(self) -> None:
        self.peer._read(False)

    def resume_writing(self) -> None:
        self.peer._read(True)

    def _read(self, wanted: bool) -> None:
        if self._has_ended or self.transport.is_closing():
            return
        if wanted:
            self.transport.resume_reading()
        else:
            self.transport.pause_reading()

    def eof_received(self) -> bool:
        self._has_ended = True
        if self.peer._has_ended:
            self._finish()
        elif self.peer.transport.can_write_eof() and not self.peer.transport.is_closing():
            self.peer.transport.write_eof()
        return True  # the other direction goes on

    def connection_lost(self, error: Exception | None) -> None:
        self._has_ended = True
        self.peer.transport.close()
        self._finish()

    def _finish(self) -> None:
        if not self._over.done():
            self._over.set_result(None)
