"""The control socket: what the server says to a gateway, over HTTP on a unix socket that only its owner may
open.

`PUT /table` takes a route table and answers with its generation once it is in use. `GET /counters` tells
all counters, `GET /metrics` the same for Prometheus. `GET /wants?after=N` waits until the services whose
requests wait for a replica are others than at sequence N (at most 25 s).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

import msgspec

from argosy.gateway.exchange import Answer, Decision, Exchange, Forward, NeedBody, refusal
from argosy.gateway.gossip import Told
from argosy.gateway.metrics import render_metrics
from argosy.model.routes import GatewayCounters, RouteTable, Wanted, Wants

_TABLE_MAX: Final = 64 << 20
_WAIT_S: Final = 25.0
_TEXT: Final = b"text/plain; version=0.0.4"


class Routed(Protocol):
    """What is controlled: one router, or the workers of a gateway. `done` is called with what was wrong,
    or ""."""

    @property
    def generation(self) -> int: ...

    def take(self, table: RouteTable, done: Callable[[str], None]) -> None: ...

    def tell_all(self, done: Callable[[GatewayCounters], None]) -> None: ...

    def wanted(self) -> tuple[Wanted, ...]: ...


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A table is in use."""

    generation: int


class Control:
    """Answers what comes over the control socket."""

    def __init__(
        self,
        routed: Routed,
        now_s: Callable[[], float],
        keep: Callable[[RouteTable], None] | None = None,
        share: Callable[[], msgspec.Struct] | None = None,
        hear: Callable[[Told], None] | None = None,
    ) -> None:
        """`keep` gets tables that are in use; `share` says what other gateways are told (`GET /shared`),
        `hear` takes what they say by themselves (`PUT /shared`)."""
        self._routed, self._share, self._hear = routed, share, hear
        self._keep = keep
        self._now_s = now_s
        self._sequence = 1
        self._waiting: list[tuple[Exchange, float]] = []

    # --- Decider -----------------------------------------------------------------------------------

    def decide(self, exchange: Exchange) -> Decision:
        head = exchange.head
        if head.method == b"PUT" and head.path == b"/table":
            return (
                NeedBody(limit=_TABLE_MAX) if exchange.body is None else self._take(exchange, exchange.body)
            )
        if head.method == b"GET" and head.path == b"/counters":
            self._routed.tell_all(lambda told: exchange.proceed(_json(told)))
            return None
        if head.method == b"GET" and head.path == b"/metrics":
            self._routed.tell_all(lambda told: exchange.proceed(_metrics(told)))
            return None
        if head.method == b"GET" and head.path == b"/shared" and self._share is not None:
            return _json(self._share())
        if head.method == b"PUT" and head.path == b"/shared" and self._hear is not None:
            return (
                NeedBody(limit=_TABLE_MAX)
                if exchange.body is None
                else _heard(exchange.body, self._hear, self._routed.generation)
            )
        if head.method == b"GET" and head.path == b"/wants":
            return self._wants(exchange, head.query)
        if head.method == b"GET" and head.path == b"/health":
            return _json(Taken(generation=self._routed.generation))
        return refusal(404, "not-found", "there is PUT /table and GET /counters, /wants, /metrics, /health")

    def again(self, exchange: Exchange, why: str) -> Forward | Answer | None:
        return refusal(502, "internal", why)

    def first_byte(self, exchange: Exchange) -> None:
        """Nothing is passed on."""

    def ended(self, exchange: Exchange) -> None:
        self._waiting = [each for each in self._waiting if each[0] is not exchange]

    # --- tables and wants --------------------------------------------------------------------------

    def _take(self, exchange: Exchange, body: bytes) -> Decision:
        try:
            table = msgspec.json.decode(body, type=RouteTable)
        except msgspec.DecodeError as error:
            return refusal(400, "bad-table", str(error))

        def done(wrong: str) -> None:
            if not wrong and self._keep is not None:
                self._keep(table)
            taken = _json(Taken(generation=table.generation))
            exchange.proceed(refusal(409, "bad-table", wrong) if wrong else taken)

        self._routed.take(table, done)
        return None

    def _wants(self, exchange: Exchange, query: bytes) -> Decision:
        after = query.removeprefix(b"?after=")
        if after.isdigit() and int(after) == self._sequence:
            self._waiting.append((exchange, self._now_s()))
            return None
        return self._told()

    def _told(self) -> Answer:
        return _json(Wants(sequence=self._sequence, wanted=self._routed.wanted()))

    def on_want(self) -> None:
        """What waits for replicas has changed: whoever asked is told."""
        self._sequence += 1
        waiting, self._waiting = self._waiting, []
        for exchange, _ in waiting:
            exchange.proceed(self._told())

    def sweep(self) -> None:
        """Call it every second: who has waited for long is answered, and asks again."""
        border_s = self._now_s() - _WAIT_S
        for exchange, since_s in list(self._waiting):
            if since_s < border_s:
                exchange.proceed(self._told())


def _heard(body: bytes, hear: Callable[[Told], None], generation: int) -> Answer:
    try:
        hear(msgspec.json.decode(body, type=Told))
    except msgspec.DecodeError as error:
        return refusal(400, "bad-word", str(error))
    return _json(Taken(generation=generation))


def _json(value: msgspec.Struct) -> Answer:
    return Answer(status=200, body=msgspec.json.encode(value))


def _metrics(counters: GatewayCounters) -> Answer:
    return Answer(status=200, body=render_metrics(counters).encode(), content_type=_TEXT)
