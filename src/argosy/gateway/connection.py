"""One connection from a client: its flow, its limits of time, its ends. What it reads and writes is in
`splice`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, cast

from argosy.gateway.exchange import Decider, Exchange
from argosy.gateway.framing import Body
from argosy.gateway.pools import Upstream
from argosy.gateway.websocket import GOING_AWAY, Socket

#: Seconds until a connection is ended that: sends a head slowly, is idle between requests, sends no byte of
#: a body, takes no byte of an answer, was answered while it still sends.
HEAD_S: Final = 10
IDLE_S: Final = 75
BODY_S: Final = 30
STALL_S: Final = 60
#: A body comes at least at this pace, after its first BODY_S.
BODY_BYTES_S: Final = 100
LINGER_S: Final = 2
SWEEP_S: Final = 1.0


class Door:
    """What all connections of one listener share."""

    __slots__ = (
        "_empty", "clients", "closing", "decider", "is_local", "loop", "new_id", "now_s", "peers", "secure",
        "serves", "trusted", "waits",
    )  # fmt: skip

    def __init__(
        self,
        decider: Decider,
        loop: asyncio.AbstractEventLoop,
        new_id: Callable[[], bytes],
        *,
        secure: bool = False,
        trusted: bool = False,
        is_local: bool = False,
        peers: bool = False,
    ) -> None:
        self.decider = decider
        self.loop = loop
        self.now_s = loop.time
        self.new_id = new_id
        self.secure = secure  # TLS ends here
        self.serves: Callable[[bytes], bool] | None = None  # hosts that the certificates cover; None: all
        #: Told each second of requests that wait for a first byte, and since when; with True of those whose
        #: answers go on.
        self.waits: Callable[[Exchange, float, bool], None] | None = None
        self.trusted = trusted  # connections come from our own edge: it tells the client's address
        self.peers = peers  # other gateways come in here, with requests that are ours
        self.is_local = is_local  # only programs on this machine come in here
        self.clients: set[Connection] = set()
        self.closing = False  # answers say `Connection: close`
        self._empty = asyncio.Event()

    def sweep(self) -> None:
        """End connections that take too long. Call it every second."""
        for client in list(self.clients):
            client.tick()

    def close(self) -> None:
        """End idle connections now and the others with their answer."""
        self.closing = True
        for client in list(self.clients):
            client.close_when_done()
        if not self.clients:
            self._empty.set()

    def left(self, client: Connection) -> None:
        """A connection has ended."""
        self.clients.discard(client)
        if self.closing and not self.clients:
            self._empty.set()

    async def emptied(self) -> None:
        """Wait, after `close`, until the last connection has ended."""
        await self._empty.wait()


class Doors:
    """Doors without listeners of their own: connections are handed to them, plain ones and those of TLS. They
    are swept every second from the first connection on. `also`: what else is done then."""

    def __init__(self, decider: Decider, name: bytes, also: Callable[[], Awaitable[None]]) -> None:
        """`name`: ids of requests begin with it."""
        self.all: dict[bool, Door] = {}  # by whether TLS ends there
        self._decider, self._name, self._also = decider, name, also
        self._sweeping: asyncio.Task[None] | None = None
        self._count = 0

    def door(self, *, secure: bool) -> Door:
        """The one for a connection that has just come."""
        loop = asyncio.get_running_loop()
        if secure not in self.all:
            self.all[secure] = Door(self._decider, loop, self._new_id, secure=secure)
        if self._sweeping is None:
            self._sweeping = loop.create_task(self._sweep())
        return self.all[secure]

    def _new_id(self) -> bytes:
        self._count += 1
        return b"%b-%x" % (self._name, self._count)

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(SWEEP_S)
            for door in self.all.values():
                door.sweep()
            await self._also()

    def close(self) -> None:
        if self._sweeping is not None:
            self._sweeping.cancel()
        for door in self.all.values():
            door.close()


class Connection(asyncio.Protocol):
    """The state of one connection from a client."""

    __slots__ = (
        "_body", "_buffer", "_closing", "_door", "_exchange", "_gather", "_keep", "_linger", "_opening",
        "_paused", "_raw", "_socket", "_stalled", "_started", "_ticks", "_up", "ip", "is_head_request",
        "transport",
    )  # fmt: skip

    def __init__(self, door: Door) -> None:
        self._door = door
        self.transport: asyncio.Transport = cast(asyncio.Transport, None)
        self.ip = b"unix"
        self.is_head_request = False
        self._ticks = 0  # seconds since the last byte that counts
        self._buffer = b""  # the beginning of a head, or requests ahead of their turn
        self._exchange: Exchange | None = None
        self._body: Body | None = None  # of the request, while it is not complete
        self._gather = 0  # so many bytes of the body are kept for the decider
        self._up: Upstream | None = None
        self._opening: asyncio.Task[None] | None = None
        self._started = False  # the answer's head was sent
        self._keep = True
        self._raw = False
        self._linger = False
        self._paused = False  # we do not read
        self._stalled = False  # the client does not read
        self._closing = False
        self._socket: Socket | None = None

    @property
    def is_sending(self) -> bool:
        """The body of the request is not complete yet."""
        return self._body is not None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        place = transport.get_extra_info("peername")
        if isinstance(place, tuple):
            self.ip = str(place[0]).encode()
        self._door.clients.add(self)

    def pause_writing(self) -> None:
        self._stalled = True
        self._ticks = 0
        if self._up is not None:
            self._up.pause()

    def resume_writing(self) -> None:
        self._stalled = False
        self._ticks = 0
        if self._up is not None:
            self._up.resume()

    def connection_lost(self, error: Exception | None) -> None:
        self._door.left(self)
        self._closing = True
        self._drop_upstream()
        if self._raw:
            self._end("done", 101)
        else:
            self._end("gone", 499)

    # --- ends ----------------------------------------------------------------------------------------

    def close_when_done(self) -> None:
        """The gateway stops: end it when its answer is complete; WebSockets are told."""
        self._keep = False
        if self._raw:
            self.go_away()
        elif self._exchange is None and not self._closing:
            self.transport.close()

    def go_away(self) -> None:
        """Close a WebSocket with status 1001, between two frames."""
        if self._raw and self._socket is not None and self._socket.leave():
            self._say_goodbye()

    def _say_goodbye(self) -> None:
        self.transport.write(GOING_AWAY)
        self._drop_upstream()
        self._end("done", 101)
        self._raw = False
        self._next(True, lingers=True)

    def _end(self, outcome: str, status: int) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return
        exchange.outcome = outcome
        exchange.status = status
        exchange.client = None
        exchange.pieces = None
        self._door.decider.ended(exchange)

    def _begin_lingering(self) -> None:
        """Read on for a moment: a client that still sends would see a reset instead of its answer."""
        self._body = None
        self._buffer = b""
        self._linger = True
        self._ticks = 0
        if self.transport.is_closing():
            return
        if not self.transport.can_write_eof():  # TLS says goodbye by itself
            self._close()
            return
        self.transport.write_eof()
        self._resume()

    def _close(self) -> None:
        self._closing = True
        self.transport.close()

    def _abort(self) -> None:
        self._closing = True
        self.transport.abort()

    def _drop_upstream(self) -> None:
        upstream, self._up = self._up, None
        if upstream is not None:
            upstream.abort()
        opening, self._opening = self._opening, None
        if opening is not None:
            opening.cancel()

    def _pause(self) -> None:
        if not self._paused and not self._closing:
            self._paused = True
            self.transport.pause_reading()

    def _resume(self) -> None:
        if self._paused and not self._closing:
            self._paused = False
            self.transport.resume_reading()

    def _next(self, close: bool, *, lingers: bool = False) -> None:
        """After an answer: the connection ends, or the next request is read."""
        self._gather = 0
        if close:
            if lingers or self._body is not None:
                self._begin_lingering()
            else:
                self._close()
            return
        self._resume()
        if self._buffer:
            self._door.loop.call_soon(self._read_ahead)

    def _read_ahead(self) -> None:
        """Read the request that came before its turn."""
        raise NotImplementedError

    def tick(self) -> None:
        """A second has passed."""
        raise NotImplementedError
