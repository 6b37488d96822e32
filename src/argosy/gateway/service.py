"""One service in a worker of the gateway: its revisions and replicas, and the choice among them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from argosy.gateway.addresses import parse_address
from argosy.gateway.balance import Balancer, balancer_of, user_of
from argosy.gateway.exchange import Exchange, Forward
from argosy.gateway.replicas import Replica, Revision
from argosy.gateway.weights import Shares, sticky
from argosy.model.routes import ServiceCounters, ServiceRoute

#: Retries are paid from a budget: each request adds a part of one, so that a service that is down as a
#: whole does not get a multiple of its load.
_RETRY_SHARE: Final = 0.2
_RETRY_FIRST: Final = 10.0
_RETRY_MOST: Final = 100.0


class Service:
    """The state that outlives route tables: counters, connections, whose turn it is."""

    def __init__(self, route: ServiceRoute, now_s: Callable[[], float]) -> None:
        self.route = route
        self.counters = ServiceCounters(id=route.id)
        self.in_flight = 0
        self.balancer: Balancer = balancer_of(route.policy)
        self.revisions: dict[str, Revision] = {}
        self._now_s = now_s
        self._shares = Shares()
        self._budget = _RETRY_FIRST
        self._left: list[Replica] = []  # out of the table, with requests in flight

    # --- the table ---------------------------------------------------------------------------------

    def take_route(self, route: ServiceRoute, region: str) -> list[Replica]:
        """Take over a new route. Returns the replicas that began to drain with it."""
        if route.policy != self.route.policy:
            self.balancer = balancer_of(route.policy)
        self.route = route
        before = {replica.id: replica for replica in self.replicas()}
        were_draining = {id for id, replica in before.items() if replica.is_draining}
        kept: set[str] = set()
        revisions: dict[str, Revision] = {}
        for told in route.revisions:
            revision = revisions[told.id] = self.revisions.get(told.id) or Revision(told)
            revision.weight = told.weight
            revision.all = []
            for each in told.replicas:
                replica = before.get(each.id)
                if replica is None or replica.pool.address != parse_address(each.address):
                    replica = Replica(each, revision, self._now_s)
                replica.route, replica.limit, replica.region = each, each.max_concurrency, each.region
                replica.revision = revision
                revision.all.append(replica)
                kept.add(each.id)
        for revision in [*revisions.values()]:
            revision.settle(region)
        now_there = {id(replica) for revision in revisions.values() for replica in revision.all}
        leaving = [replica for replica in before.values() if id(replica) not in now_there]
        for replica in leaving:
            replica.has_left = True
            replica.pool.retire()
        self._left = [replica for replica in [*self._left, *leaving] if replica.in_flight]
        self.revisions = revisions
        began = [
            replica for replica in self.replicas() if replica.is_draining and replica.id not in were_draining
        ]
        return [*began, *leaving]

    def replicas(self) -> Iterator[Replica]:
        """Those of the table."""
        for revision in self.revisions.values():
            yield from revision.all

    def retire(self) -> list[Replica]:
        """The service left the table. Returns its replicas, which drain."""
        leaving = list(self.replicas())
        for replica in leaving:
            replica.has_left = True
            replica.pool.retire()
        self._left = [replica for replica in [*self._left, *leaving] if replica.in_flight]
        self.revisions = {}
        return leaving

    @property
    def is_gone(self) -> bool:
        """Nothing of it is left."""
        return not self.revisions and not self._left and not self.in_flight

    # --- the choice --------------------------------------------------------------------------------

    def choose(self, exchange: Exchange, without: Iterable[Replica] = ()) -> Replica | None:
        """A replica that takes the request; None: there is none now."""
        open_now = [each for each in self.revisions.values() if each.weight > 0 and each.ready]
        if not open_now:
            return None
        revision = self._revision(exchange, open_now)
        free = revision.free()
        if not free and len(open_now) > 1:
            for other in open_now:
                free = free or other.free()
        tried = list(without)
        if tried:
            free = [replica for replica in free if replica not in tried] or (free if len(free) == 1 else [])
        if not free:
            return None
        return self.balancer.choose(exchange, free) if len(free) > 1 else free[0]

    def _revision(self, exchange: Exchange, among: list[Revision]) -> Revision:
        if len(among) == 1:
            return among[0]
        if self.route.sticky_by is not None:
            return sticky(user_of(exchange, self.route.sticky_by), among)
        return self._shares.next(among)

    def may_retry(self) -> bool:
        """Take one retry from the budget."""
        if self._budget < 1.0:
            return False
        self._budget -= 1.0
        self.counters.retries += 1
        return True

    # --- what becomes of requests ------------------------------------------------------------------

    def sent(self, exchange: Exchange, replica: Replica) -> None:
        """A request goes to a replica; in the same turn as the choice."""
        replica.in_flight += 1
        self.balancer.sent(exchange, replica)

    def unsent(self, exchange: Exchange, replica: Replica) -> None:
        """It is no longer there."""
        replica.in_flight -= 1
        self.balancer.ended(exchange, replica)
        if replica.has_left and not replica.in_flight and replica in self._left:
            self._left.remove(replica)

    def earn_retry(self) -> None:
        """A request has come."""
        if self._budget < _RETRY_MOST:
            self._budget += _RETRY_SHARE

    def tell(self) -> ServiceCounters:
        """The counters of this moment."""
        counters = self.counters
        counters.in_flight = self.in_flight
        counters.replicas = [replica.tell() for replica in (*self.replicas(), *self._left)]
        counters.revisions = [revision.counters for revision in self.revisions.values()]
        return counters

    def forward(self, exchange: Exchange, replica: Replica, target: bytes, fields: bytes | None) -> Forward:
        """How the request goes to the replica."""
        route = self.route
        return Forward(
            replica.pool,
            target=target,
            fields=fields,
            extra=b"x-forwarded-host: " + exchange.head.host + b"\r\n" if exchange.head.host else b"",
            repeat=route.retry_post,
            answer_timeout_s=route.answer_timeout_s,
        )
