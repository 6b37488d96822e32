"""The control socket: what the server says to a gateway, over HTTP on a unix socket that only its owner may
open.

`PUT /table` a route table, answered with its generation once it is in use; `GET /counters`; `GET /health`.
"""

from __future__ import annotations

from typing import Final, Protocol

import msgspec

from argosy.gateway.exchange import Answer, Decision, Exchange, Forward, NeedBody, refusal
from argosy.model.routes import GatewayCounters, RouteTable

_TABLE_MAX: Final = 64 << 20


class Routed(Protocol):
    """What is controlled."""

    @property
    def generation(self) -> int: ...

    def take_table(self, table: RouteTable) -> None: ...

    def tell(self) -> GatewayCounters: ...


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A table is in use."""

    generation: int


class Control:
    """Answers what comes over the control socket."""

    def __init__(self, routed: Routed) -> None:
        self._routed = routed

    def decide(self, exchange: Exchange) -> Decision:
        head = exchange.head
        if head.method == b"PUT" and head.path == b"/table":
            return NeedBody(limit=_TABLE_MAX) if exchange.body is None else self._take(exchange.body)
        if head.method == b"GET" and head.path == b"/counters":
            return Answer(status=200, body=msgspec.json.encode(self._routed.tell()))
        if head.method == b"GET" and head.path == b"/health":
            return Answer(status=200, body=msgspec.json.encode(Taken(generation=self._routed.generation)))
        return refusal(404, "not-found", "the control socket has PUT /table, GET /counters and GET /health")

    def _take(self, body: bytes) -> Answer:
        try:
            table = msgspec.json.decode(body, type=RouteTable)
            self._routed.take_table(table)
        except (msgspec.DecodeError, ValueError) as error:
            return refusal(400, "bad-table", str(error))
        return Answer(status=200, body=msgspec.json.encode(Taken(generation=table.generation)))

    def again(self, exchange: Exchange, why: str) -> Forward | Answer | None:
        return refusal(502, "internal", why)

    def first_byte(self, exchange: Exchange) -> None:
        """Nothing is passed on."""

    def ended(self, exchange: Exchange) -> None:
        """Nothing is kept."""
