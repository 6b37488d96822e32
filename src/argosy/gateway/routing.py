"""The decider of a gateway: from a request to its service, through keys and limits, and from there to a
replica."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

from argosy.gateway.access_log import AccessLog, Line
from argosy.gateway.addresses import table_faults
from argosy.gateway.exchange import Answer, Decision, Exchange, Forward, NeedBody, refusal
from argosy.gateway.finding import Finder
from argosy.gateway.limits import Expected, Key, expected_tokens
from argosy.gateway.peers import Passed, Peers, pass_to
from argosy.gateway.prefill import Prefill, framed, is_split
from argosy.gateway.replicas import Replica
from argosy.gateway.sending import hold, release, send
from argosy.gateway.service import Service
from argosy.gateway.shared import Board
from argosy.gateway.trip import Trip
from argosy.gateway.usage import Usage, asked_of
from argosy.model.routes import GatewayCounters, RouteTable, Wanted, tiers_of

_TRIES: Final = 3
_MODEL_BODY: Final = 32 << 20
#: Why a connection failed before the first byte: nothing was sent, or an idle connection had died.
_UNSENT: Final = frozenset(("refused", "unreachable"))
_STALE: Final = "stale"


class Router:
    """Routes requests by the table it has."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        now_ms: Callable[[], int],
        *,
        now_s: Callable[[], float] | None = None,
        board: Board | None = None,
        log: AccessLog | None = None,
        own_paths: tuple[str, ...] = (),
        proofs: Path | None = None,
    ) -> None:
        """`proofs`: the folder of answers to an authority that asks whether a host is ours."""
        self._loop = loop
        self._now_s = now_s or loop.time
        self._now_ms = now_ms
        self.board = board or Board()
        self._peers = Peers(self.board, self._now_s)
        self._log = log
        self._own_paths = own_paths
        self.since_ms = now_ms()
        self.generation = 0
        self.table = RouteTable(generation=0)
        self.on_want: Callable[[], None] = _nobody
        self._services: dict[str, Service] = {}
        self._tiers: Mapping[str, int] = {}  # how far regions are
        self._gone: list[Service] = []
        self._finder = Finder(proofs)
        self._prefill = Prefill(loop, self._now_s, now_ms, self._note_failed)

    # --- the table ---------------------------------------------------------------------------------

    def take_table(self, table: RouteTable) -> None:
        """Route by this table from now on. Raises ValueError for a table that is older or wrong."""
        if table.generation < self.generation:
            raise ValueError(
                f"generation {table.generation} is older than {self.generation}, which is in use"
            )
        faults = table_faults(table, self._own_paths)
        if faults:
            raise ValueError("; ".join(faults))
        services: dict[str, Service] = {}
        tiers = self._tiers = tiers_of(table)
        for route in table.services:
            service = self._services.get(route.id)
            if service is None:
                service = Service(route, self._loop, self.board, self._now_s, self._now_ms)
            service.take_route(route, tiers)
            services[route.id] = service
        for id, service in self._services.items():
            if id not in services:
                service.retire()
                self._gone.append(service)
        self._gone = [service for service in self._gone if not service.is_gone]
        self._services = services
        self._peers.take_table(table)
        self.table, self.generation = table, table.generation
        self._finder.take_table(table, services)
        for service in services.values():
            release(service)

    # --- Decider -----------------------------------------------------------------------------------

    def decide(self, exchange: Exchange) -> Decision:
        trip = exchange.memo
        if isinstance(trip, Trip):
            return self._admit(exchange, trip)
        found = self._finder.find(exchange)
        return self._enter(exchange, *found) if isinstance(found, tuple) else found

    def _enter(self, exchange: Exchange, service: Service, prefix: int) -> Decision:
        """A request has found its service: whose is it, and may it be there?"""
        if self._peers and not exchange.passed:
            peer = self._peers.owner_of(exchange, service)
            if peer is not None:
                exchange.memo = Passed(peer, service, prefix)
                return pass_to(peer, exchange, service)
        trip = exchange.memo = Trip(service, prefix)
        service.in_flight += 1
        service.earn_retry()
        route, head = service.route, exchange.head
        if head.upgrade and not service.allows_origin(head):
            return self._refuse(
                trip, refusal(403, "foreign-origin", "a page of another origin may not open this")
            )
        if service.keys:
            key = service.keys.find(exchange)
            if isinstance(key, Answer):
                return self._refuse(trip, key)
            trip.key = key
        elif not (route.public or exchange.is_local):
            return self._refuse(
                trip, refusal(401, "unauthorized", f"`{route.name}` is not public and has no keys yet")
            )
        exchange.limit = route.max_body_bytes
        if route.max_body_bytes and head.length > route.max_body_bytes:
            return refusal(413, "too-large", f"the body is larger than {route.max_body_bytes} bytes")
        trip.copies = service.wants_copy(exchange)
        trip.asks_model = bool(route.models) and head.method == b"POST"
        return self._admit(exchange, trip)

    def _admit(self, exchange: Exchange, trip: Trip) -> Decision:
        """Look at the body where somebody must, and take the request from the limits of its key."""
        key = trip.key
        if exchange.body is None and exchange.head.length:
            limit = _body_limit(exchange, trip, key)
            if limit:
                return NeedBody(limit=limit)
        if key is not None and trip.reserved is None:
            refused = _reserve(exchange, trip, key, self._now_s())
            if refused is not None:
                return self._refuse(trip, refused)
        if trip.asks_model and trip.usage is None:
            trip.usage = Usage(exchange.received)
            exchange.tap = trip.usage.see
        if is_split(exchange, trip.service) and not trip.is_split:
            trip.is_split = True
            return self._split(exchange, trip)
        return self._send_or_hold(exchange, trip)

    def _split(self, exchange: Exchange, trip: Trip) -> Forward | Answer | None:
        """Another service reads the prompt, where it can."""
        readers = self._services.get(trip.service.route.prefill)
        go_on = partial(self._answer_split, exchange, trip)
        begun = self._prefill.begin(exchange, trip.service, readers, go_on)
        if readers is not None and not readers.is_open and readers.route.holding is not None:
            readers.miss()
            self.on_want()
        if isinstance(begun, Answer):
            return self._refuse(trip, begun)
        return None if begun else self._send_or_hold(exchange, trip)

    def _answer_split(self, exchange: Exchange, trip: Trip, body: bytes) -> None:
        """The prompt of a request was read: it goes to who answers, with where to find that."""
        exchange.pieces = [body]
        trip.fields = framed(exchange, trip.service, len(body))
        decision = self._send_or_hold(exchange, trip)
        if decision is not None:
            exchange.proceed(decision)

    def _refuse(self, trip: Trip, answer: Answer) -> Answer:
        trip.service.counters.refused += 1
        return answer

    # --- to a replica ------------------------------------------------------------------------------

    def _send_or_hold(self, exchange: Exchange, trip: Trip) -> Forward | Answer | None:
        if trip.service.queue.is_empty:  # nobody overtakes those who wait
            forward = send(exchange, trip)
            if forward is not None:
                return forward
        return hold(exchange, trip, self.on_want)

    def again(self, exchange: Exchange, why: str) -> Forward | Answer | None:
        trip = exchange.memo
        if isinstance(trip, Passed):
            return self._take_back(exchange, trip, why)
        if not isinstance(trip, Trip) or trip.replica is None:
            return refusal(502, "replica-failed", "the replica failed")
        replica, service = trip.replica, trip.service
        self._leave(exchange, trip)
        if why != _STALE:
            trip.tried.append(replica)
            replica.counters.errors += 1
            self._note_failed(service, replica)
        early = why in _UNSENT or why in ("closed", _STALE)
        repeatable = exchange.may_repeat or (why in _UNSENT and exchange.pieces is not None)
        if not (early and repeatable):
            return refusal(502, "replica-failed", f"a replica of `{service.route.name}` failed: {why}")
        if exchange.tries <= _TRIES and service.may_retry():
            forward = send(exchange, trip)
            if forward is not None:
                return forward
        if why in _UNSENT and service.route.holding is not None:
            trip.tried.clear()
            again = send(exchange, trip) if exchange.tries <= _TRIES else None
            return again or hold(exchange, trip, self.on_want)
        return refusal(502, "replica-failed", f"a replica of `{service.route.name}` failed: {why}")

    def _note_failed(self, service: Service, replica: Replica) -> None:
        """A connection to it failed."""
        if replica.failed():
            service.settle(self._tiers)

    def _take_back(self, exchange: Exchange, passed: Passed, why: str) -> Forward | Answer | None:
        """The gateway whose request it is does not answer: this one serves it."""
        if why != _STALE:
            self._peers.failed(passed.peer)
        whole = exchange.pieces is not None and not exchange.is_sending
        if not (exchange.may_repeat or (why in _UNSENT and exchange.pieces is not None)):
            return refusal(502, "gateway-failed", f"the gateway `{passed.peer.route.id}` failed: {why}")
        exchange.passed = True
        decision = self._enter(exchange, passed.service, passed.prefix)
        if isinstance(decision, NeedBody):
            if not whole or exchange.received > decision.limit:
                return refusal(502, "gateway-failed", f"the gateway `{passed.peer.route.id}` failed: {why}")
            exchange.body = exchange.content()
            decision = self.decide(exchange)
        return decision if not isinstance(decision, NeedBody) else None

    def first_byte(self, exchange: Exchange) -> None:
        trip = exchange.memo
        if isinstance(trip, Trip) and trip.replica is not None:
            trip.replica.answered()
            if exchange.status == 101:
                trip.replica.sockets.add(exchange)
            trip.service.balancer.first_byte(exchange, trip.replica)

    def waits(self, exchange: Exchange, waited_s: float, goes_on: bool) -> None:
        """A request has waited so long for its first byte; or, `goes_on`, bytes of its answer come."""
        trip = exchange.memo
        if not isinstance(trip, Trip) or trip.replica is None:
            return
        if goes_on:
            trip.replica.moved()
        elif len(trip.replica.revision.ready) > 1 and trip.replica.waits(waited_s):
            trip.service.settle(self._tiers)

    def ended(self, exchange: Exchange) -> None:
        trip, now_s = exchange.memo, self._now_s()
        if isinstance(trip, Trip):
            if trip.is_split:
                self._prefill.ended(exchange)
            service, now_ms = trip.service, self._now_ms()
            service.in_flight -= 1
            service.counters.requests += 1
            service.counters.last_use_ms = now_ms
            if trip.is_held:
                service.queue.drop(exchange)
            if trip.usage is not None or trip.key is not None:
                _settle(exchange, trip, now_ms)
            if trip.replica is not None:
                trip.replica.count(exchange, now_s, now_ms)
                others = len(trip.replica.revision.ready) > 1
                if exchange.outcome == "timeout" and others and trip.replica.timed_out():
                    service.settle(self._tiers)
        if self._log is not None:
            self._log.add(_line(exchange, now_s, self._now_ms()))
        if isinstance(trip, Trip):
            self._leave(exchange, trip)
            if not trip.service.queue.is_empty:
                release(trip.service)

    def _leave(self, exchange: Exchange, trip: Trip) -> None:
        replica, trip.replica = trip.replica, None
        if replica is not None:
            trip.service.unsent(exchange, replica)

    # --- care --------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Call it every second: old connections are closed, suspects are tried, who waited too long is
        told."""
        self._peers.sweep()
        for service in self._services.values():
            service.sweep(self._settled)
        if self._log is not None:
            self._log.flush()

    def _settled(self, service: Service, replica: Replica) -> None:
        """A suspect is ready again."""
        service.settle(self._tiers)
        release(service)

    def tell_wants(self, on_want: Callable[[], None]) -> None:
        """Call it when requests begin to wait."""
        self.on_want = on_want

    def wanted(self) -> tuple[Wanted, ...]:
        """The services whose requests wait."""
        return tuple(
            Wanted(service=id, held=service.held, oldest_s=round(service.queue.oldest_s, 3))
            for id, service in self._services.items()
            if service.held
        )

    def look_elsewhere(self) -> None:
        """See what the other workers of the gateway have in flight, many times a second: what waits may
        go on."""
        for service in self._services.values():
            service.look_elsewhere()
            release(service)

    def tell(self) -> GatewayCounters:
        """The counters of this moment."""
        return GatewayCounters(
            generation=self.generation,
            since_ms=self.since_ms,
            services=[service.tell() for service in (*self._services.values(), *self._gone)],
        )


def _nobody() -> None:
    """Nobody wants to know."""


def _body_limit(exchange: Exchange, trip: Trip, key: Key | None) -> int:
    """So much of its body somebody here has to see; 0: nothing."""
    service = trip.service
    limit = service.balancer.body_limit
    if trip.asks_model and key is not None and key.counts_tokens:
        limit = max(limit, _MODEL_BODY)
    if is_split(exchange, service):
        limit = max(limit, _MODEL_BODY)
    if trip.copies and service.route.shadow is not None:
        limit = max(limit, service.route.shadow.max_body_bytes)
    most = service.route.max_body_bytes
    return min(limit, most) if most else limit


def _reserve(exchange: Exchange, trip: Trip, key: Key, now_s: float) -> Answer | None:
    """Take a request from the limits of its key. An answer: it is over one."""
    expected = Expected()
    if trip.asks_model:
        try:
            asked = asked_of(exchange)
        except ValueError as error:
            return refusal(400, "bad-request", str(error))
        expected = expected_tokens(exchange.received, asked.most_tokens)
    reserved = key.admit(expected, now_s)
    if isinstance(reserved, Answer):
        key.counters.refused += 1
        return reserved
    trip.reserved = reserved
    exchange.answer_fields += key.fields()
    return None


def _settle(exchange: Exchange, trip: Trip, now_ms: int) -> None:
    """Count what a request used, for its key and its revision."""
    taken, made = trip.usage.tokens() if trip.usage is not None else (0, 0)
    if trip.replica is not None:
        for counters in (trip.replica.revision.counters, trip.replica.counters):
            counters.input_tokens += taken
            counters.output_tokens += made
    key = trip.key
    if key is not None:
        key.counters.requests += 1
        key.counters.input_tokens += taken
        key.counters.output_tokens += made
        key.counters.last_use_ms = now_ms
        if trip.reserved is not None:
            # What a replica refused or failed to answer costs nothing.
            answered = exchange.status < 400 or exchange.outcome == "gone"  # who leaves early pays what came
            charged = bool(exchange.first_s) and answered
            key.settle(trip.reserved, taken, made, charged=charged)


def _line(exchange: Exchange, now_s: float, now_ms: int) -> Line:
    head, trip = exchange.head, exchange.memo
    line = Line(
        time_ms=now_ms,
        id=exchange.id.decode(),
        ip=exchange.ip.decode("latin-1"),
        method=head.method.decode(),
        host=head.host.decode(),
        path=head.path.decode(),
        status=exchange.status,
        outcome=exchange.outcome,
        ms=int((now_s - exchange.begun_s) * 1000),
        first_byte_ms=int((exchange.first_s - exchange.begun_s) * 1000) if exchange.first_s else 0,
        received=exchange.received,
        sent=exchange.sent,
        tries=exchange.tries,
    )
    if isinstance(trip, Trip):
        line.service = trip.service.route.id
        if trip.replica is not None:
            line.revision, line.replica = trip.replica.revision.id, trip.replica.id
        if trip.key is not None:
            line.key = trip.key.route.id
        if trip.usage is not None:
            line.input_tokens, line.output_tokens = trip.usage.tokens()
    return line
