"""The decider of a gateway: from a request to its service, and from there to a replica."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from argosy.gateway.exchange import Answer, Decision, Exchange, Forward, NeedBody, refusal
from argosy.gateway.replicas import Replica
from argosy.gateway.service import Service
from argosy.model.routes import GatewayCounters, RouteTable, check_table

_TRIES: Final = 3
#: Why a connection failed before the first byte: the replica's fault, and nothing was sent.
_UNSENT: Final = frozenset(("refused", "unreachable"))
_STALE: Final = "stale"


class Trip:
    """What the router remembers of a request."""

    __slots__ = ("replica", "service", "tried")

    def __init__(self, service: Service) -> None:
        self.service = service
        self.replica: Replica | None = None
        self.tried: list[Replica] = []


class Router:
    """Routes requests by the table it has."""

    def __init__(self, now_s: Callable[[], float], now_ms: Callable[[], int]) -> None:
        self._now_s = now_s
        self._now_ms = now_ms
        self.since_ms = now_ms()
        self.generation = 0
        self.table = RouteTable(generation=0)
        self._services: dict[str, Service] = {}
        self._gone: list[Service] = []
        self._hosts: dict[bytes, Service] = {}
        self._wildcards: dict[bytes, Service] = {}
        self._prefixes: dict[bytes, Service] = {}
        self._depths: tuple[int, ...] = ()

    # --- the table ---------------------------------------------------------------------------------

    def take_table(self, table: RouteTable) -> None:
        """Route by this table from now on. Raises ValueError for a table that is older or wrong."""
        if table.generation < self.generation:
            raise ValueError(
                f"generation {table.generation} is older than {self.generation}, which is in use"
            )
        faults = check_table(table)
        if faults:
            raise ValueError("; ".join(faults))
        services: dict[str, Service] = {}
        for route in table.services:
            service = self._services.get(route.id) or Service(route, self._now_s)
            service.take_route(route, table.region)
            services[route.id] = service
        for id, service in self._services.items():
            if id not in services:
                service.retire()
                self._gone.append(service)
        self._gone = [service for service in self._gone if not service.is_gone]
        self._services = services
        self.table, self.generation = table, table.generation
        self._index()

    def _index(self) -> None:
        self._hosts, self._wildcards, self._prefixes = {}, {}, {}
        for service in self._services.values():
            for host in service.route.hosts:
                if host.startswith("*."):
                    self._wildcards[host[1:].lower().encode()] = service
                else:
                    self._hosts[host.lower().encode()] = service
            if service.route.prefix:
                self._prefixes[service.route.prefix.encode()] = service
        self._depths = tuple(sorted({prefix.count(b"/") for prefix in self._prefixes}, reverse=True))

    def service_of(self, exchange: Exchange) -> tuple[Service, int] | None:
        """The service of a request, and how many bytes of its path are the prefix."""
        head = exchange.head
        service = self._hosts.get(head.host)
        if service is None and self._wildcards:
            dot = head.host.find(b".")
            service = self._wildcards.get(head.host[dot:]) if dot > 0 else None
        if service is not None:
            return service, 0
        path = head.path
        for depth in self._depths:
            prefix = b"/".join(path.split(b"/", depth + 1)[: depth + 1])
            service = self._prefixes.get(prefix)
            if service is not None:
                return service, len(prefix)
        return None

    # --- Decider -----------------------------------------------------------------------------------

    def decide(self, exchange: Exchange) -> Decision:
        trip = exchange.memo
        if not isinstance(trip, Trip):
            found = self.service_of(exchange)
            if found is None:
                return refusal(404, "not-found", "no service has this address")
            service, _ = found
            trip = exchange.memo = Trip(service)
            service.in_flight += 1
            service.earn_retry()
            route = service.route
            if route.max_body_bytes and exchange.head.length > route.max_body_bytes:
                return refusal(413, "too-large", f"the body is larger than {route.max_body_bytes} bytes")
        service = trip.service
        if service.balancer.body_limit and exchange.body is None and exchange.head.length:
            return NeedBody(limit=service.balancer.body_limit)
        return self._send(exchange, trip)

    def _send(self, exchange: Exchange, trip: Trip) -> Forward | Answer | None:
        service = trip.service
        replica = service.choose(exchange, trip.tried)
        if replica is None:
            return refusal(503, "no-replica", f"no replica of `{service.route.name}` takes requests now",
                           fields=b"retry-after: 1\r\n")  # fmt: skip
        trip.replica = replica
        service.sent(exchange, replica)
        return service.forward(exchange, replica, self._target(exchange, service), None)

    def _target(self, exchange: Exchange, service: Service) -> bytes:
        route, head = service.route, exchange.head
        if not route.prefix or route.keep_prefix or head.host in self._hosts:
            return b""
        if not head.path.startswith(route.prefix.encode()):
            return b""
        return (head.path[len(route.prefix) :] or b"/") + head.query

    def again(self, exchange: Exchange, why: str) -> Forward | Answer | None:
        trip = exchange.memo
        if not isinstance(trip, Trip) or trip.replica is None:
            return refusal(502, "replica-failed", "the replica failed")
        replica, service = trip.replica, trip.service
        self._release(exchange, trip)
        if why != _STALE:
            trip.tried.append(replica)
            replica.counters.errors += 1
            if replica.failed():
                replica.revision.settle(self.table.region)
        repeatable = exchange.may_repeat or (why in _UNSENT and exchange.pieces is not None)
        failed_early = why in _UNSENT or why in ("closed", _STALE)
        if repeatable and failed_early and exchange.tries <= _TRIES and service.may_retry():
            return self._send(exchange, trip)
        return refusal(502, "replica-failed", f"a replica of `{service.route.name}` did not answer: {why}")

    def first_byte(self, exchange: Exchange) -> None:
        trip = exchange.memo
        if isinstance(trip, Trip) and trip.replica is not None:
            trip.replica.answered()
            trip.service.balancer.first_byte(exchange, trip.replica)

    def ended(self, exchange: Exchange) -> None:
        trip = exchange.memo
        if not isinstance(trip, Trip):
            return
        service, replica, now_s = trip.service, trip.replica, self._now_s()
        service.in_flight -= 1
        counters = service.counters
        counters.requests += 1
        counters.last_use_ms = now_ms = self._now_ms()
        if replica is None:
            return
        failed = exchange.outcome in ("cut", "timeout", "failed")
        replica.counters.requests += 1
        replica.counters.last_use_ms = now_ms
        if failed or exchange.status >= 500:
            replica.counters.errors += 1
        if exchange.outcome != "gone":
            first_s = (exchange.first_s or now_s) - exchange.begun_s
            replica.revision.count(exchange.status, failed, first_s, now_s - exchange.begun_s)
        self._release(exchange, trip)

    def _release(self, exchange: Exchange, trip: Trip) -> None:
        replica, trip.replica = trip.replica, None
        if replica is not None:
            trip.service.unsent(exchange, replica)

    # --- care --------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """Call it every second."""
        for service in self._services.values():
            for replica in service.replicas():
                replica.pool.sweep()

    def tell(self) -> GatewayCounters:
        """The counters of this moment."""
        return GatewayCounters(
            generation=self.generation,
            since_ms=self.since_ms,
            services=[service.tell() for service in (*self._services.values(), *self._gone)],
        )
