"""One service in a worker of the gateway: its revisions and replicas, and the choice among them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final

from argosy.gateway.addresses import parse_address
from argosy.gateway.balance import Balancer, balancer_of, user_of
from argosy.gateway.exchange import Exchange, Forward, refusal
from argosy.gateway.heads import RequestHead
from argosy.gateway.holding import Queue
from argosy.gateway.limits import Keys
from argosy.gateway.replicas import Replica, Revision
from argosy.gateway.shadow import Copier
from argosy.gateway.shared import Board
from argosy.gateway.weights import Shares, sticky
from argosy.model.routes import ReplicaRoute, ServiceCounters, ServiceRoute

#: Who asked in vain and went on without it is said to wait for so long, so that a replica comes.
_MISSED_S: Final = 60.0
#: Retries are paid from a budget: each request adds a part of one, so that a service that is down as a
#: whole does not get a multiple of its load.
_RETRY_SHARE: Final = 0.2
_RETRY_FIRST: Final = 10.0
_RETRY_MOST: Final = 100.0


class Service:
    """The state that outlives route tables: counters, connections, whose turn it is."""

    def __init__(
        self,
        route: ServiceRoute,
        loop: asyncio.AbstractEventLoop,
        board: Board,
        now_s: Callable[[], float],
        now_ms: Callable[[], int],
    ) -> None:
        self.route = route
        self.counters = ServiceCounters(id=route.id)
        self.in_flight = 0
        self.balancer: Balancer = balancer_of(route.policy, now_s)
        self.revisions: dict[str, Revision] = {}
        self.queue = Queue(now_s)
        self.keys = Keys(route.id, board, now_s, now_ms)
        self._copier = Copier(loop)
        self._loop = loop
        self._board = board
        self._now_s = now_s
        self._probes: set[asyncio.Task[None]] = set()
        self._shares = Shares()
        self._open: list[Revision] = []  # revisions that take requests now
        self._worked_s = 0.0  # as balancers of before have weighed it
        self._budget = _RETRY_FIRST
        self._missed_s = -_MISSED_S
        self._left: list[Replica] = []  # out of the table, with requests in flight

    # --- the table ---------------------------------------------------------------------------------

    def take_route(self, route: ServiceRoute, tiers: Mapping[str, int]) -> None:
        """Take over a new route: what stays keeps its connections, counters and health."""
        if route.policy != self.route.policy:
            self._worked_s += self.balancer.work_s
            self.balancer = balancer_of(route.policy, self._now_s)
        self.route = route
        self.keys.take_routes(route.keys, route.prices)
        before = {replica.id: replica for replica in self.replicas()}
        revisions: dict[str, Revision] = {}
        for told in route.revisions:
            revision = revisions[told.id] = self.revisions.get(told.id) or Revision(told)
            revision.weight = told.weight
            revision.all = [self._replica(each, revision, before) for each in told.replicas]
        self.revisions = revisions
        self.settle(tiers)
        self._let_go(before.values())

    def _replica(self, route: ReplicaRoute, revision: Revision, before: dict[str, Replica]) -> Replica:
        """The replica of before, unless its address is another one."""
        replica = before.get(route.id)
        if replica is not None and replica.pool.address == parse_address(route.address):
            del before[route.id]
        else:
            replica = Replica(route, revision, self._board, self._now_s)
        replica.take_route(route, revision)
        return replica

    def _let_go(self, leaving: Iterable[Replica]) -> None:
        for replica in leaving:
            replica.leave()
        self._left = [replica for replica in (*self._left, *leaving) if replica.in_flight]

    def replicas(self) -> Iterator[Replica]:
        """Those of the table."""
        for revision in self.revisions.values():
            yield from revision.all

    def retire(self) -> None:
        """The service left the table."""
        self._let_go(list(self.replicas()))
        self.revisions = {}
        self._open = []
        self.queue.release(self._refuse_held)

    def _refuse_held(self, exchange: Exchange) -> Forward | None:
        exchange.proceed(refusal(404, "not-found", f"the service `{self.route.name}` has ended"))
        return None

    @property
    def is_gone(self) -> bool:
        """Nothing of it is left."""
        return not self.revisions and not self._left and not self.in_flight

    @property
    def is_open(self) -> bool:
        """Some replica of it takes requests."""
        return bool(self._open)

    def miss(self) -> None:
        """A request would have used it, found no replica and goes on without: one is wanted all the same."""
        self._missed_s = self._now_s()

    @property
    def held(self) -> int:
        """Requests that wait for a replica here; those that went on without one count as one."""
        missed = not self._open and self._now_s() - self._missed_s < _MISSED_S
        return len(self.queue) or (1 if missed else 0)

    # --- the choice --------------------------------------------------------------------------------

    def choose(self, exchange: Exchange, without: Sequence[Replica] = ()) -> Replica | None:
        """A replica that takes the request; None: there is none now."""
        open_now = self._open
        if not open_now:
            return None
        revision = open_now[0] if len(open_now) == 1 else self._revision(exchange, open_now)
        free = revision.others(without) if without else revision.free()
        if not free and len(open_now) > 1:
            for other in open_now:
                free = free or (other.others(without) if without else other.free())
        if len(free) > 1:
            return self.balancer.choose(exchange, free)
        return free[0] if free else None

    def settle(self, tiers: Mapping[str, int]) -> None:
        """Find out anew which replicas take requests."""
        for revision in self.revisions.values():
            revision.settle(tiers)
        self._open = [each for each in self.revisions.values() if each.weight > 0 and each.ready]

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
        replica.begin()
        self.balancer.sent(exchange, replica)

    def unsent(self, exchange: Exchange, replica: Replica) -> None:
        """It is no longer there."""
        replica.end()
        self.balancer.ended(exchange, replica)
        if replica.has_left and not replica.in_flight and replica in self._left:
            self._left.remove(replica)

    def earn_retry(self) -> None:
        """A request has come."""
        if self._budget < _RETRY_MOST:
            self._budget += _RETRY_SHARE

    def wants_copy(self, exchange: Exchange) -> bool:
        """A copy of the request goes to the shadow revision."""
        rule = self.route.shadow
        return rule is not None and self._copier.wants(exchange, rule)

    def send_copy(self, exchange: Exchange, forward: Forward) -> None:
        """Send the copy that was wanted."""
        rule = self.route.shadow
        revision = self.revisions.get(rule.revision) if rule is not None else None
        if rule is not None and revision is not None:
            self._copier.send(exchange, rule, revision, forward)

    def allows_origin(self, head: RequestHead) -> bool:
        """A page of the service's own address, or of one that its owner has named, or no page at all."""
        origin = head.get(b"origin")
        if origin is None or "*" in self.route.origins:
            return True
        _, _, authority = origin.lower().partition(b"://")
        return (
            authority == (head.get(b"host") or b"").lower() or origin.decode("latin-1") in self.route.origins
        )

    def forward(
        self, exchange: Exchange, replica: Replica, prefix: int, changed: bytes | None = None
    ) -> Forward:
        """How the request goes to the replica. `changed`: its fields, where its body is another one."""
        route, head = self.route, exchange.head
        known, start = head.start
        if known is not route or changed is not None:
            fields = head.without_key() if route.keys and not route.pass_authorization else None
            fields = fields if changed is None else changed
            extra, target = b"x-forwarded-host: " + head.host + b"\r\n" if head.host else b"", b""
            if prefix and not route.keep_prefix:
                target = (head.path[prefix:] or b"/") + head.query
                extra += b"x-forwarded-prefix: " + head.path[:prefix] + b"\r\n"
            start = exchange.render_start(Forward(replica.pool, target=target, fields=fields, extra=extra))
            if not head.expects and changed is None:
                head.start = (route, start)
        return Forward(
            replica.pool, start=start, repeat=route.retry_post, answer_timeout_s=route.answer_timeout_s
        )

    # --- care --------------------------------------------------------------------------------------

    def sweep(self, settled: Callable[[Service, Replica], None]) -> None:
        """Call it every second. `settled` is called when a suspect is ready again."""
        if self.route.holding is not None:
            self.queue.sweep(self.route.holding, self.route.name)
        self._copier.sweep()
        border_s = self._now_s() - self.route.drain_ws_s
        for replica in (*self.replicas(), *self._left):
            replica.pool.sweep()
            if replica.suspect and not replica.is_draining:
                task = self._loop.create_task(self._probe(replica, settled))
                self._probes.add(task)
                task.add_done_callback(self._probes.discard)
            if replica.sockets and 0 < replica.drains_since_s <= border_s:
                for exchange in list(replica.sockets):
                    exchange.leave_socket()

    async def _probe(self, replica: Replica, settled: Callable[[Service, Replica], None]) -> None:
        """Try to connect to a suspect."""
        try:
            upstream = await replica.pool.connect()
        except (OSError, TimeoutError):
            replica.probed(False)
            return
        upstream.close()
        if replica.probed(True):
            settled(self, replica)

    def look_elsewhere(self) -> None:
        """See what the other workers have in flight."""
        for replica in self.replicas():
            replica.look_elsewhere()

    def tell(self) -> ServiceCounters:
        """The counters of this moment."""
        counters = self.counters
        counters.in_flight = self.in_flight
        counters.held = self.held
        counters.work_ms = int((self._worked_s + self.balancer.work_s) * 1000)
        counters.held_total, counters.held_refused = self.queue.total, self.queue.refused
        counters.replicas = [replica.tell() for replica in (*self.replicas(), *self._left)]
        counters.revisions = [revision.counters for revision in self.revisions.values()]
        counters.keys = self.keys.tell()
        return counters
