"""Replicas and revisions as one worker of a gateway knows them: connections, what is in flight, health,
counts."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Literal

from argosy.gateway import doubt
from argosy.gateway.addresses import parse_address
from argosy.gateway.exchange import Exchange
from argosy.gateway.pools import Pool
from argosy.gateway.shared import Board
from argosy.model.routes import (
    LATENCY_BOUNDS_MS,
    ReplicaCounters,
    ReplicaRoute,
    RevisionCounters,
    RevisionRoute,
)

#: So many refused or reset connections in a row make a replica suspect.
FAILURES: Final = 2
#: So many good probes in a row make it ready again.
GOOD_PROBES: Final = 2
_FIRST_SHARE: Final = 0.1  # of a replica that starts slowly
_BUCKETS: Final = len(LATENCY_BOUNDS_MS) + 1
_BOUNDS_S: Final = tuple(bound / 1000 for bound in LATENCY_BOUNDS_MS)


class Replica:
    """One replica. `weight` is what its share of the requests is, from 0 to 1."""

    __slots__ = (
        "_board", "_doubts", "_failed", "_hung_until_s", "_now_s", "_probed", "_row", "_silent", "_since_s",
        "counters", "drains_since_s", "elsewhere", "has_left", "heard_s", "in_flight", "limit", "moved_s",
        "pool", "region", "revision", "route", "sockets", "suspect", "taken", "work_elsewhere",
    )  # fmt: skip

    def __init__(
        self, route: ReplicaRoute, revision: Revision, board: Board, now_s: Callable[[], float]
    ) -> None:
        self.route = route
        self.revision = revision
        self.pool = Pool(parse_address(route.address), now_s)
        self.limit = route.max_concurrency
        self.region = route.region
        self.in_flight = 0
        self.elsewhere = 0  # in flight in the other workers of this gateway, and in other gateways
        self.work_elsewhere = 0.0  # what is to be read of that
        self.heard_s = 0.0  # since when that is known
        self.sockets: set[Exchange] = set()  # WebSockets
        self.drains_since_s = 0.0
        self.suspect = False
        self.has_left = False  # the table
        self.taken = 0.0  # what round robin gave it
        self.counters = ReplicaCounters(id=route.id, revision=revision.id, latency=[0] * _BUCKETS)
        self._now_s = now_s
        self._board = board
        self._row = board.row("replica/" + route.id)
        self._since_s = now_s()
        self._failed = 0
        self._probed = 0
        self._silent = 0  # requests in a row that were answered by nothing in their time
        self._hung_until_s = 0.0
        self._doubts = 0  # in a row
        self.moved_s = now_s()  # when the last byte of an answer was seen

    def take_route(self, route: ReplicaRoute, revision: Revision) -> None:
        """What a new table says of it."""
        self.route, self.revision = route, revision
        self.limit, self.region = route.max_concurrency, route.region
        self._row = self._board.row("replica/" + route.id)
        self._begin_draining(route.state == "draining")

    def leave(self) -> None:
        """It is no longer in the table."""
        self.has_left = True
        self._begin_draining(True)

    def _begin_draining(self, drains: bool) -> None:
        if not drains:
            self.drains_since_s, self.pool.retired = 0.0, False
        elif not self.drains_since_s:
            self.drains_since_s = self._now_s()
            self.pool.retire()

    def begin(self) -> None:
        """A request goes to it."""
        self.in_flight += 1
        self._board.begin(self._row)

    def end(self) -> None:
        """A request is no longer there."""
        self.in_flight -= 1
        self._board.end(self._row)

    def look_elsewhere(self) -> None:
        """See what the other workers have in flight."""
        self.elsewhere = self._board.elsewhere(self._row)
        work = self._board.work_elsewhere(self._row)
        if work != self.work_elsewhere:
            self.work_elsewhere, self.heard_s = work, self._now_s()

    def note_work(self, units: float) -> None:
        """It has still to read so much of what this worker has sent there."""
        self._board.note_work(self._row, units)

    @property
    def id(self) -> str:
        return self.route.id

    @property
    def is_draining(self) -> bool:
        return self.has_left or self.route.state == "draining"

    @property
    def is_free(self) -> bool:
        """It takes one more request."""
        if not self.limit:
            return True
        self.look_elsewhere()
        return self.in_flight + self.elsewhere < self.limit

    @property
    def load(self) -> float:
        """What it would have in flight with one more request; more when it starts slowly."""
        return (self.in_flight + self.elsewhere + 1) / self.weight

    @property
    def weight(self) -> float:
        over_s = self.route.slow_start_s
        if not over_s:
            return 1.0
        return min(1.0, max(_FIRST_SHARE, (self._now_s() - self._since_s) / over_s))

    def failed(self) -> bool:
        """A connection was refused or reset. True: it has become suspect with that."""
        self._failed += 1
        self._probed = 0
        if self.suspect or self._failed < FAILURES:
            return False
        self.suspect = True
        return True

    def timed_out(self) -> bool:
        """It took a request and answered nothing in its time. True: it has become suspect with that; that it
        takes connections does not make it ready again before a while is over (`doubt`)."""
        self._silent += 1
        return self._silent >= FAILURES and self._doubt()

    def waits(self, waited_s: float) -> bool:
        """A request has waited so long for its first byte. True: it has become suspect with that."""
        since_s = self._now_s() - self.moved_s
        if self.suspect or not doubt.is_silent(waited_s, since_s, self.revision.counters.first_byte):
            return False
        return self._doubt()

    def _doubt(self) -> bool:
        self._hung_until_s = self._now_s() + min(doubt.ALONE_S * 2**self._doubts, doubt.ALONE_MOST_S)
        was, self.suspect = self.suspect, True
        self._doubts += not was
        return not was

    def moved(self) -> None:
        """A byte of an answer came a moment ago."""
        self.moved_s = self._now_s()

    def answered(self) -> None:
        """The first byte of an answer came."""
        self._failed = self._silent = self._doubts = 0
        self._hung_until_s = 0.0
        self.moved_s = self._now_s()

    def probed(self, good: bool) -> bool:
        """What a connection that was tried says. True: it is ready again with that."""
        self._probed = self._probed + 1 if good else 0
        if self._probed < GOOD_PROBES or not self.suspect or self._now_s() < self._hung_until_s:
            return False
        self.suspect = False
        self._failed = 0
        self._since_s = self._now_s()
        return True

    def count(self, exchange: Exchange, now_s: float, now_ms: int) -> None:
        """A request that went to it has ended."""
        self.sockets.discard(exchange)
        failed = exchange.outcome in ("cut", "timeout", "failed")
        counters = self.counters
        counters.requests += 1
        counters.last_use_ms = now_ms
        if failed or exchange.status >= 500:
            counters.errors += 1
        if exchange.outcome != "gone":
            begun_s = exchange.begun_s
            first_s = (exchange.first_s or now_s) - begun_s
            bucket = self.revision.count(failed or exchange.status >= 500, first_s, now_s - begun_s)
            counters.latency[bucket] += 1
            counters.latency_ms += int((now_s - begun_s) * 1000)

    def tell(self) -> ReplicaCounters:
        """The counters of this moment."""
        counters = self.counters
        counters.in_flight = self.in_flight
        states: dict[bool, Literal["gone", "draining"]] = {True: "gone", False: "draining"}
        if self.is_draining:
            counters.state = states[self.has_left]
        else:
            counters.state = "suspect" if self.suspect else "ready"
        return counters


class Revision:
    """One revision with its replicas. `ready` is what requests may go to, `all` what there is."""

    __slots__ = ("all", "counters", "farther", "id", "limited", "ready", "weight")

    def __init__(self, route: RevisionRoute) -> None:
        self.id = route.id
        self.weight = route.weight
        self.all: list[Replica] = []
        self.ready: list[Replica] = []
        self.farther: list[list[Replica]] = []  # in other regions, the nearest first
        self.limited = False  # some of `ready` take only so many requests at once
        empty = [0] * _BUCKETS
        self.counters = RevisionCounters(id=route.id, latency=empty, first_byte=[*empty])

    def settle(self, tiers: Mapping[str, int]) -> None:
        """Find out anew which replicas take requests: of the nearest regions where most are well, nearest
        first. Where more than half are suspect everywhere, something else is wrong (the network here): then
        all are used."""
        there = [replica for replica in self.all if not replica.is_draining]
        groups: dict[int, list[Replica]] = {}
        for replica in there:
            groups.setdefault(tiers.get(replica.region, len(tiers)), []).append(replica)
        well = [_well(groups[tier]) for tier in sorted(groups)]
        tiered = [group for group in well if group]
        if not tiered:
            ready = [replica for replica in there if not replica.suspect]
            tiered = [there if len(there) > 1 and 2 * len(ready) < len(there) else ready]
        self.ready, self.farther = tiered[0], tiered[1:]
        self.limited = any(replica.limit for group in tiered for replica in group)

    def free(self) -> list[Replica]:
        """The replicas that take one more request: of the nearest group that has any."""
        if not self.limited:
            return self.ready
        for group in (self.ready, *self.farther):
            found = [replica for replica in group if replica.is_free]
            if found:
                return found
        return []

    def others(self, without: Sequence[Replica]) -> list[Replica]:
        """Those that take one more request and are not in `without`, the nearest group first."""
        for group in (self.ready, *self.farther):
            found = [replica for replica in group if replica.is_free and replica not in without]
            if found:
                return found
        return []

    def count(self, failed: bool, first_s: float, whole_s: float) -> int:
        """One request has ended; times in seconds since it came. The bucket of its latency."""
        counters = self.counters
        counters.requests += 1
        if failed:
            counters.errors += 1
        bucket = bisect.bisect_left(_BOUNDS_S, whole_s)
        counters.latency[bucket] += 1
        counters.first_byte[bisect.bisect_left(_BOUNDS_S, first_s)] += 1
        counters.latency_ms += int(whole_s * 1000)
        counters.first_byte_ms += int(first_s * 1000)
        return bucket


def _well(replicas: list[Replica]) -> list[Replica]:
    """Those of one distance that are not suspect, where that is the half of them at least."""
    ready = [replica for replica in replicas if not replica.suspect]
    return ready if len(replicas) == 1 or 2 * len(ready) >= len(replicas) else []
