"""The proxy: each connection of a browser to an app, on the gateway's splice. Bytes pass as they come.

A request is decided by `rules` and by its ticket; what passes goes over a stream of the node's agent into the
session. Nothing is kept of a body, so gigabytes cost no memory; WebSockets are bytes after their handshake.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from typing import Final, Protocol, cast

from argosy.gateway.addresses import Address
from argosy.gateway.connection import Door, Doors
from argosy.gateway.exchange import Answer, Decision, Exchange, Forward, NeedBody
from argosy.gateway.heads import AnswerHead
from argosy.gateway.pools import Pool, Upstream
from argosy.gateway.splice import Client
from argosy.infra.agent_port import Duplex
from argosy.infra.border import BorderError
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.rows import Workload
from argosy.server.apps import pages, rules
from argosy.server.apps.rules import Place, Refusal
from argosy.server.apps.tickets import TICKET_S, Tickets
from argosy.store.snapshot import Snapshot

_PIECE_BYTES: Final = 256 << 10
_UNKNOWN: Final = Refusal(421, "misdirected", "no app has this host name")
_NO_TICKET: Final = Refusal(401, "unauthorized", "Open this app from Argosy: `argosy session open NAME`.")
_BAD_CODE: Final = Refusal(
    403, "forbidden", "This code was used, is too old or is for another app. Open it again."
)


class Sessions(Protocol):
    """What the proxy asks of the server."""

    async def rows(self) -> Snapshot: ...

    def find(self, rows: Snapshot, place: Place) -> Workload | None:
        """The session that a host name means; None: there is none, or it has no such app."""

    def may(self, caller: Caller, session: Workload) -> bool:
        """Whether the holder of a ticket may still open it."""

    async def stays(self, caller: Caller) -> bool:
        """Whether the credential is still good with which the ticket was asked for."""

    async def recall(self, secret: bytes) -> None:
        """A code or a ticket was shown: another server may have given it out."""

    async def swap(self, code: bytes, ticket: str) -> bool:
        """A code became this ticket; False: at another server it had become one already."""

    def use(self, session: Workload, path: str) -> None:
        """Somebody asked for this path of its app; "": bytes of a WebSocket."""

    async def connect(self, session_id: str, port: int) -> Duplex:
        """A stream to the app, or to a port. Raises ArgosyError."""


class AppPool(Pool):
    """Connections to one app, each a stream into its session."""

    __slots__ = ("_carrying", "_connect", "_held")

    def __init__(
        self, name: str, now_s: Callable[[], float], connect: Callable[[], Awaitable[Duplex]]
    ) -> None:
        super().__init__(Address(path=name), now_s)
        self._connect = connect
        self._carrying: set[asyncio.Task[None]] = set()
        self._held: dict[Upstream, Duplex] = {}  # a stream that nobody holds would be closed

    async def connect(self) -> Upstream:
        try:
            duplex = await self._connect()
        except ArgosyError as error:
            raise ConnectionRefusedError(error.what) from None
        upstream = Upstream(self)
        taken = getattr(duplex, "hand_over", None)
        if taken is None or not taken(upstream):
            await self._relay(duplex, upstream)
        self._held[upstream] = duplex
        self._open += 1
        return upstream

    def forget(self, upstream: Upstream) -> None:
        self._held.pop(upstream, None)
        super().forget(upstream)

    async def _relay(self, duplex: Duplex, upstream: Upstream) -> None:
        """For streams that are no sockets of ours: a pair of sockets, and somebody who carries."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        await asyncio.get_running_loop().create_connection(lambda: upstream, sock=ours)
        reader, writer = await asyncio.open_connection(sock=theirs)
        task = asyncio.ensure_future(carry(reader, writer, duplex))
        self._carrying.add(task)
        task.add_done_callback(self._carrying.discard)


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, duplex: Duplex) -> None:
    """Between a socket and a stream of a node, until both have ended."""

    async def send() -> None:
        while data := await reader.read(_PIECE_BYTES):
            await duplex.write(data)
        await duplex.end()

    sending = asyncio.ensure_future(send())
    try:
        while data := await duplex.read():
            writer.write(data)
            await writer.drain()
        if writer.can_write_eof():
            writer.write_eof()
        await sending
    except (BorderError, OSError):
        pass
    finally:
        sending.cancel()
        with contextlib.suppress(BorderError, OSError, asyncio.CancelledError):
            await sending
        writer.close()
        with contextlib.suppress(BorderError, OSError):
            await duplex.close()


class AppClient(Client):
    """A browser. Its WebSockets tell when somebody types."""

    __slots__ = ("session", "ticket")

    def __init__(self, door: Door) -> None:
        super().__init__(door)
        self.session: Workload | None = None
        self.ticket = b""

    def data_received(self, data: bytes) -> None:
        if self._raw and self.session is not None and rules.is_use(data):
            cast(Apps, self._door.decider).sessions.use(self.session, "")
        super().data_received(data)

    def _begin(self, exchange: Exchange, head: AnswerHead) -> bytes:
        return super()._begin(exchange, rules.answered(head))


class Apps:
    """The decider of all connections to apps. `suffixes`: of host names."""

    def __init__(self, sessions: Sessions, tickets: Tickets, suffixes: tuple[str, ...]) -> None:
        self.sessions, self.tickets, self.suffixes = sessions, tickets, suffixes
        self._pools: dict[tuple[str, int], AppPool] = {}
        self._doors = Doors(self, b"app", self._sweep)
        self._deciding: set[asyncio.Task[None]] = set()

    # -- connections --------------------------------------------------------------------------------

    def is_app(self, host: bytes) -> bool:
        """Whether a host name has the form of an app's: whatever it says is decided here."""
        return any(host.endswith(b"." + suffix.encode()) and b"--" in host for suffix in self.suffixes)

    def client(self, *, secure: bool) -> AppClient:
        """A protocol for one more connection."""
        return AppClient(self._doors.door(secure=secure))

    async def _sweep(self) -> None:
        for door in self._doors.all.values():
            if door.clients:
                await self._end_revoked(door, await self.sessions.rows())
        for pool in self._pools.values():
            pool.sweep()

    async def _end_revoked(self, door: Door, rows: Snapshot) -> None:
        """Connections whose ticket is no longer good end, WebSockets too."""
        for client in list(door.clients):
            if isinstance(client, AppClient) and client.session is not None:
                right, row = self.tickets.find(client.ticket), rows.workloads.get(client.session.id)
                if right is None or row is None or not self.sessions.may(right.caller, row):
                    client.transport.abort()
                elif not await self.sessions.stays(right.caller):
                    self.tickets.revoke(lambda each, gone=right.caller: each.caller == gone)  # type: ignore[misc]
                    client.transport.abort()

    def close(self) -> None:
        self._doors.close()
        for pool in self._pools.values():
            pool.retire()

    # -- decisions ----------------------------------------------------------------------------------

    def decide(self, exchange: Exchange) -> Decision:
        head = exchange.head
        if head.path == rules.ENTER and head.method == b"POST" and exchange.body is None:
            return NeedBody(limit=rules.CODE_BYTES_MAX)
        task = asyncio.ensure_future(self._decide(exchange))
        self._deciding.add(task)
        task.add_done_callback(self._deciding.discard)
        return None

    async def _decide(self, exchange: Exchange) -> None:
        try:
            ticket = rules.ticket_of(exchange.head)
            if ticket is not None:
                await self.sessions.recall(ticket)
            right = self.tickets.find(ticket) if ticket is not None else None
            if right is not None and not await self.sessions.stays(right.caller):
                self.tickets.revoke(lambda each: each.caller == right.caller)
            exchange.proceed(await self._decided(exchange, await self.sessions.rows()))
        except ArgosyError as error:
            exchange.proceed(self._refuse(exchange, Refusal(503, error.code, error.what)))

    async def _decided(self, exchange: Exchange, rows: Snapshot) -> Forward | Answer:
        head = exchange.head
        place = rules.place_of(head.host, self.suffixes)
        session = self.sessions.find(rows, place) if place is not None else None
        if place is None or session is None:
            return self._refuse(exchange, _UNKNOWN)
        if head.path.startswith(rules.OWN_PATHS):
            return await self._enter(exchange, place, session.id)
        crossing = rules.crosses(head, secure=exchange.secure)
        if crossing is not None:
            return self._refuse(exchange, crossing)
        ticket = rules.ticket_of(head)
        right = self.tickets.right_of(ticket, session.id, place.app) if ticket is not None else None
        if right is None or ticket is None or not self.sessions.may(right.caller, session):
            return self._refuse(exchange, _NO_TICKET)
        client = exchange.client
        if isinstance(client, AppClient):
            client.session, client.ticket = session, ticket
        self.sessions.use(session, (head.path + head.query).decode("latin-1"))
        return Forward(self._pool(session.id, place.port), fields=rules.passed_on(head), answer_timeout_s=0)

    async def _enter(self, exchange: Exchange, place: Place, session: str) -> Answer:
        head = exchange.head
        if head.path != rules.ENTER:
            return self._refuse(exchange, Refusal(404, "not-found", "there is nothing here"))
        if head.method == b"GET":
            return pages.entrance()
        if head.method != b"POST":
            return self._refuse(exchange, Refusal(405, "method-not-allowed", "send the form"))
        entry = rules.parse_entry(exchange.body or b"")
        if entry is None:
            return self._refuse(exchange, _BAD_CODE)
        await self.sessions.recall(entry.code)
        ticket = self.tickets.redeem(entry.code, session, place.app)
        if ticket is None or not await self.sessions.swap(entry.code, ticket):
            return self._refuse(exchange, _BAD_CODE)
        fields = rules.set_cookie(ticket.encode(), TICKET_S) + b"location: " + entry.next + b"\r\n"
        return Answer(
            status=303, fields=fields + b"cache-control: no-store\r\nreferrer-policy: no-referrer\r\n"
        )

    def _refuse(self, exchange: Exchange, refusal: Refusal) -> Answer:
        wants_page = b"text/html" in (exchange.head.get(b"accept") or b"")
        return pages.refused(refusal, as_page=wants_page)

    def _pool(self, session: str, port: int) -> AppPool:
        key = (session, port)
        if key not in self._pools:
            now_s = asyncio.get_running_loop().time
            self._pools[key] = AppPool(session, now_s, lambda: self.sessions.connect(session, port))
        return self._pools[key]

    def again(self, exchange: Exchange, why: str) -> Forward | Answer | None:
        if why == "stale" and exchange.forward is not None:
            return exchange.forward
        return self._refuse(
            exchange, Refusal(502, "app-unreachable", "The app does not answer. Is its session up?")
        )

    def first_byte(self, exchange: Exchange) -> None:
        return None

    def ended(self, exchange: Exchange) -> None:
        return None
