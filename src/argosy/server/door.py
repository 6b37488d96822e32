"""The HTTP doors: uvicorn on our sockets, and what one peer over TCP may take of the server.

A peer that sends without end, sends nothing, does not read, or comes too often is cut off; what it held is
free again. The unix socket belongs to the owner of the server and has no such limits.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec
import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from argosy.model.addresses import is_loopback
from argosy.server.dialling import UPGRADE, DialDoor
from argosy.server.service_paths import is_for_service

if TYPE_CHECKING:
    from argosy.server.apps.live import LiveApps
    from argosy.server.service_way import ServiceWay

_GRACE_S: Final = 3  # how long requests under way may take when the server stops
_KEEP_ALIVE_S: Final = 75
_PING_S: Final = 20.0  # so often a quiet WebSocket says something, for those on its way that forget the quiet
_TERMINAL_MESSAGE_BYTES: Final = 1 << 20


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """Of one connection over TCP, and of all of them."""

    header_bytes: int = 64 << 10  # of one request: its line and all headers
    headers: int = 100
    request_s: float = 20.0  # from the first byte (or the connection) to the end of the headers
    body_s: float = 60.0  # without a byte of a body that is awaited
    unread_s: float = 300.0  # while the peer reads nothing of an answer
    pipelined: int = 16  # requests that wait for the answer to an earlier one
    connections: int = 4096
    per_address: int = 512  # not counted for this machine: a proxy stands for many people


_EARLY_BYTES: Final = 16 << 10  # whose host stands behind so much is nobody's browser
_REQUEST: Final = re.compile(rb"[A-Z]+ [^ \r\n]+ HTTP/1\.[01]\r\n")
_HOST: Final = re.compile(rb"(?i)\r\nhost:[ \t]*([^\r\n: \t]+)(?::\d*)?[ \t]*\r\n")


class _TooMuch(Exception):
    """The parser stops, and the request is refused."""


class Guests:
    """The connections of one door, by address."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._by_address: dict[str, set[asyncio.Transport]] = {}

    def count(self) -> int:
        return sum(len(each) for each in self._by_address.values())

    def admit(self, transport: asyncio.Transport) -> bool:
        """Whether one more may come; it counts until it is closed."""
        name = transport.get_extra_info("peername")
        address = str(name[0]) if isinstance(name, tuple) else ""
        mine = self._by_address.setdefault(address, set())
        if len(mine) >= self.limits.per_address or self.count() >= self.limits.connections:
            self._forget_closed()
            mine = self._by_address.setdefault(address, set())
        full = self.count() >= self.limits.connections
        if full or (len(mine) >= self.limits.per_address and not is_loopback(address)):
            return False
        mine.add(transport)
        return True

    def leave(self, transport: asyncio.Transport) -> None:
        for address, some in list(self._by_address.items()):
            some.discard(transport)
            if not some:
                del self._by_address[address]

    def _forget_closed(self) -> None:
        """Terminals leave without a word: their connection went to another protocol."""
        for some in list(self._by_address.values()):
            for transport in [each for each in some if each.is_closing()]:
                self.leave(transport)


class GuardedProtocol(HttpToolsProtocol):
    """HTTP with limits: one timer a connection looks at what the peer owes."""

    def __init__(
        self,
        guests: Guests,
        dials: DialDoor | None,
        find_other: Callable[[bytes, bytes], asyncio.Protocol | None] = lambda host, early: None,
        **arguments: Any,
    ) -> None:
        super().__init__(**arguments)
        self._dials, self._find_other = dials, find_other
        self._early: bytes | None = b""  # of the next head; None: it was looked at
        self._guests, self._limits = guests, guests.limits
        self._timer: asyncio.TimerHandle | None = None
        self._in_head = False
        self._head_count = self._head_bytes = self._head_raw_bytes = 0
        self._body_bytes = self._stray_bytes = self._begun = 0
        self._since_s = self._heard_s = self.loop.time()
        self._unread_since_s: float | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if not self._guests.admit(transport):
            self._refuse(503, "too many connections")
            return
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_looking()
        self._guests.leave(self.transport)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        self._heard_s = self.loop.time()
        if self._early is None and self._is_idle():
            self._early, self._since_s = b"", self._heard_s
        if self._early is not None:
            early = self._early + data
            if self._is_others(early):
                return
            data = early
        in_head_before, body_before, begun_before = self._in_head, self._body_bytes, self._begun
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._in_head and in_head_before:  # nothing but headers, perhaps one that never ends
            self._head_raw_bytes += len(data)
        elif not self._in_head:
            if self._begun != begun_before:  # another request: its body is counted from nothing
                body_before = 0
            # Around pieces of a body stands little; what follows the last one may be trailers without end.
            self._stray_bytes += max(0, len(data) - (self._body_bytes - body_before))
        too_long = self._head_raw_bytes > self._limits.header_bytes
        if too_long or self._stray_bytes > (self._limits.header_bytes + 16 * self._body_bytes + len(data)):
            self._refuse(431, "the headers are too large")

    def _is_idle(self) -> bool:
        """The last request is over, its body and its answer: what comes is the head of another one."""
        cycle = self.cycle
        if self._in_head or self.pipeline or cycle is None:
            return False
        return bool(cycle.response_complete and not cycle.more_body)

    def _is_others(self, early: bytes) -> bool:
        """Whether the next head is not complete yet, or is for an app or a service: who answers for it then
        has the connection."""
        found = _HOST.search(early)
        may_come = b"\r\n\r\n" not in early and len(early) < _EARLY_BYTES
        if found is None and may_come and (b"\n" not in early or _REQUEST.match(early) is not None):
            self._early = early
            return True
        self._early = None
        client = self._find_other(found[1].lower() if found is not None else b"", early)
        if client is None:
            return False
        self._stop_looking()
        self.connections.discard(self)
        self.transport.set_protocol(client)
        client.connection_made(self.transport)
        client.data_received(early)
        return True

    def send_400_response(self, msg: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(msg)

    def _should_upgrade(self) -> bool:
        return self._is_dial() or super()._should_upgrade()

    def _is_dial(self) -> bool:
        return self._dials is not None and self._get_upgrade() == UPGRADE

    def handle_websocket_upgrade(self) -> None:
        self._stop_looking()
        if self._dials is not None and self._is_dial():
            self.connections.discard(self)
            self._guests.leave(self.transport)  # a node that is let in is no guest
            self._dials.take(self.url.decode("latin-1"), self.headers, self.transport)
            return
        super().handle_websocket_upgrade()

    # -- what the parser says -----------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._in_head = True
        self._begun += 1
        self._since_s = self.loop.time()
        self._head_count = self._head_bytes = self._head_raw_bytes = 0
        self._body_bytes = self._stray_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count_head(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._head_count += 1
        self._count_head(len(name) + len(value))
        super().on_header(name, value)

    def _count_head(self, count: int) -> None:
        self._head_bytes += count
        if self._head_bytes > self._limits.header_bytes or self._head_count > self._limits.headers:
            raise _TooMuch

    def on_headers_complete(self) -> None:
        self._in_head, self._head_raw_bytes = False, 0
        if len(self.pipeline) >= self._limits.pipelined:
            raise _TooMuch
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._body_bytes += len(body)
        super().on_body(body)

    # -- what the peer owes -------------------------------------------------------------------------

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread_since_s = self.loop.time()

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread_since_s = None

    def _look(self) -> None:
        now_s, limits = self.loop.time(), self._limits
        if self._unread_since_s is not None:
            late = now_s - self._unread_since_s > limits.unread_s
        elif self.cycle is not None and not self.cycle.response_complete:
            waits = self.cycle.more_body and not self.flow.read_paused
            late = waits and now_s - self._heard_s > limits.body_s
            if not self._in_head:
                self._since_s = now_s  # what comes next has its time from the answer on
        else:
            begun = self._in_head or self.cycle is None or self._early
            rest_s = 0 if begun else self.timeout_keep_alive
            late = now_s - self._since_s > limits.request_s + rest_s
        if late:
            self.transport.abort()
            return
        step_s = min(limits.request_s, limits.body_s, limits.unread_s) / 4
        self._timer = self.loop.call_later(step_s, self._look)

    def _stop_looking(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _refuse(self, status: int, what: str) -> None:
        body = f'{{"code":"too-large","what":"{what}"}}'.encode()
        head = f"HTTP/1.1 {status} Refused\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
        self.transport.write(head.encode() + b"\r\nconnection: close\r\n\r\n" + body)
        self.transport.close()


class Door(uvicorn.Server):
    """uvicorn without its loop and its signal handlers: both are the composition root's. `limits`: of what
    comes over TCP."""

    def __init__(
        self,
        app: Any,  # Any: uvicorn's type of an application
        sockets: Sequence[socket.socket],
        limits: Limits | None = None,
        *,
        dials: DialDoor | None = None,
        tls: ssl.SSLContext | None = None,
        apps: LiveApps | None = None,
        services: Callable[[], ServiceWay] | None = None,
    ) -> None:
        """`services`: the way to services, made when the first request is for one."""
        self._dials, self._apps, self._tls, self._services = dials, apps, tls, services
        self.guests = Guests(limits) if limits is not None else None
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=self._protocol if limits is not None else HttpToolsProtocol,  # type: ignore[arg-type]
                ws=_terminal_protocol,  # type: ignore[arg-type]  # called like the class that it stands for
                ws_max_size=_TERMINAL_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                ws_ping_interval=_PING_S,
                ws_ping_timeout=None,  # who is slow to take what we send is slow to read pings, too
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._sockets = list(sockets)

    def _protocol(self, **arguments: Any) -> asyncio.Protocol:  # Any: what uvicorn gives to its protocols
        assert self.guests is not None
        return GuardedProtocol(self.guests, self._dials, self._find_other, **arguments)

    def _find_other(self, host: bytes, early: bytes) -> asyncio.Protocol | None:
        """Who answers on this host, or to a request that begins so, instead of us."""
        secure = self._tls is not None
        app = self._apps.client_for(host, secure=secure) if self._apps is not None and host else None
        if app is None and self._services is not None and is_for_service(early):
            return self._services().client(self.protocol, secure=secure)
        return app

    def protocol(self) -> asyncio.Protocol:
        """Of one connection that came by another way than our sockets, once the door is open."""
        made: asyncio.Protocol = self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    async def open(self) -> None:
        self.config.load()
        self.config.ssl = self._tls
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=self._sockets)
        await self.on_tick(0)  # the headers of every reply

    async def close(self) -> None:
        await self.shutdown(sockets=self._sockets)


def _terminal_protocol(**arguments: Any) -> asyncio.Protocol:  # Any: what uvicorn gives to its protocols
    """WebSockets are imported when the first terminal is opened: most servers never open one."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**arguments)
