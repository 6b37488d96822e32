"""Preemption: the smallest set of running jobs that must end, or move, so that a pending gang fits.

Rights. Only preemptible jobs make room, never one that is leaving already or still protected
(`guarded_ms`). In its own queue an ask displaces what is less urgent: a later priority class, or the same
class and a lower priority, or (with `attained_service`, when both go on from checkpoints) a later bucket of
attained service. In other queues it takes back what they borrowed, as `reclaim.may_reclaim` allows: then
nobody falls below its guarantee, and the taker's branch stays below the victim's.

No circles. Within one queue, order its jobs by (class, -priority, bucket) and read the number of running jobs
from the most urgent rank to the least. Every eviction there raises that sequence lexicographically, for the
taker's rank is strictly before the victims', and so does every plain start; attained service only grows, so
an evicted job comes back in a better bucket only once, when it is overdue, and from then on none of its class
and priority displaces it. The sequence is bounded by the jobs that exist, so without new jobs evictions end.
Between queues, a reclaim needs share_after(taker's branch) < share_before(victim's branch) below their lowest
common ancestor, so the shares of these siblings, sorted from the greatest, fall lexicographically with every
reclaim: the victim cannot take it back, since the same test forbids it. (The flat case is proved in Kueue's
KEP-1714; here the test holds at each level, as `may_reclaim` looks at the branches below the common ancestor
only.)

Protection. A reclaim may also take room that is free, and what it leaves over may start somebody of the
victim's branch, so two queues could take turns though no single reclaim can be taken back (of 10 units A has
6, B has 3 and waits with 2 and with 5). Therefore a job that has made room k times is protected for
`min_runtime_s` x 2^k from its next start on. Its first k evictions lie at least `min_runtime_s` x (2^0 + … +
2^(k-1)) apart in sum, so within a horizon T it is evicted at most log2(1 + T / min_runtime_s) times, whatever
the others do: the sum over all jobs of evictions left within T is a potential that falls with each. k counts
up to `DOUBLINGS_MAX`: after that, a job may be evicted once in `min_runtime_s` x 1024 (a week, for ten
minutes). Within its own queue a job whose attained service counts is protected for `min_runtime_s` alone:
there the first argument holds, between two reclaims evictions end, and doubling would turn the order of
service round (on the Philly trace gangs waited twice as long).

Smallest. Victims are taken greedily until the gang *places* in simulation, not only until the sums are right;
those that do not touch its place are let go, and the rest is filled back in reverse. When more room never
hurts the placer, no proper subset of what remains would do: a victim was kept because a larger set without it
had failed.
"""

from __future__ import annotations

import math
from bisect import bisect_left, insort
from collections.abc import Callable, Collection, Iterable, Sequence
from fractions import Fraction
from heapq import heappop, heappush
from typing import Final, NamedTuple

from argosy.model.tenancy import Amounts, SharePolicy
from argosy.scheduler.ask import Ask
from argosy.scheduler.foresee import reach
from argosy.scheduler.order import is_served, next_bucket, service_bucket
from argosy.scheduler.quota import Quotas
from argosy.scheduler.reclaim import givers, may_reclaim, may_reclaim_all
from argosy.scheduler.whatif import Allocation, Held, WhatIf


class Victim(NamedTuple):
    held: Held
    kind: str  # preempt | reclaim | consolidate


class Room(NamedTuple):
    """What must end, and where the gang is placed then. `moved`: where the victims of a consolidation go
    on."""

    victims: tuple[Victim, ...]
    allocation: Allocation
    moved: tuple[tuple[str, Allocation], ...] = ()


DOUBLINGS_MAX: Final = 10


def guarded_ms(ask: Ask, policy: SharePolicy, *, doubled: bool = True) -> int:
    """So long after its start it is not ended: twice as long with every time that it has made room. `doubled`
    False: within its queue, of a job whose attained service counts."""
    # What has just started is never ended in the same moment, else the two could go round.
    return max(1, policy.min_runtime_s * 1000) << (min(ask.evictions, DOUBLINGS_MAX) if doubled else 0)


#: Places a gang in the books as they are at this moment, or says None; takes nothing.
Fit = Callable[[], Allocation | None]


Rank = tuple[int, int, float]  # -urgency, priority, -bucket: the least urgent is the smallest
_Entry = tuple[
    Rank, int, int, int, str
]  # rank, then the newest, with the latest checkpoint, the smallest; id


def rank_of(ask: Ask, policy: SharePolicy, now_ms: int) -> Rank:
    """Return the rank of a pending request: it can preempt allocations of a smaller rank."""
    bucket = -service_bucket(ask, policy, now_ms) if is_served(ask, policy) else -math.inf
    return -ask.urgency, ask.priority, bucket


class Roster:
    """The running jobs that may be made to go, by queue, those first that should go first. Kept up with every
    change.

    Least urgent first (class, priority, bucket of attained service), then the newest, then whose last
    checkpoint is the latest, then the smallest. Of two queues the one that borrows more comes first, see
    `victims`.
    """

    def __init__(self, policy: SharePolicy) -> None:
        self.policy = policy
        self._now_ms = 0
        self._held: dict[str, Held] = {}
        self._lines: dict[str, list[_Entry]] = {}
        self._entries: dict[str, _Entry] = {}
        self._ripens: list[
            tuple[int, str, int]
        ] = []  # old enough to go, or in the next bucket: time, id, started

    def __len__(self) -> int:
        return len(self._held)

    def add(self, held: Held) -> None:
        self.remove(held.id)
        if not held.ask.preemptible or held.running.leaving:
            return
        self._held[held.id] = held
        started_ms = held.running.started_ms
        heappush(self._ripens, (started_ms + guarded_ms(held.ask, self.policy), held.id, started_ms))
        if is_served(held.ask, self.policy):
            heappush(
                self._ripens,
                (started_ms + guarded_ms(held.ask, self.policy, doubled=False), held.id, started_ms),
            )

    def remove(self, job_id: str) -> None:
        held = self._held.pop(job_id, None)
        entry = self._entries.pop(job_id, None)
        if held is not None and entry is not None:
            line = self._lines[held.ask.queue]
            del line[bisect_left(line, entry)]
            if not line:
                del self._lines[held.ask.queue]

    def advance(self, now_ms: int) -> None:
        """Let time pass."""
        self._now_ms = now_ms
        while self._ripens and self._ripens[0][0] <= now_ms:
            _, job_id, started_ms = heappop(self._ripens)
            held = self._held.get(job_id)
            if held is None or held.running.started_ms != started_ms:
                continue
            self.remove(job_id)
            self._held[job_id] = held
            bucket: float = 2  # whose service does not count
            if is_served(held.ask, self.policy):
                attained = held.attained(now_ms)
                bucket = -service_bucket(held.ask, self.policy, started_ms, attained=attained)
                if held.rate:
                    crosses_ms = now_ms - (-next_bucket(attained) // held.rate)
                    heappush(self._ripens, (crosses_ms, job_id, started_ms))
            rank = (-held.ask.urgency, held.ask.priority, bucket)
            entry = (rank, -started_ms, -held.running.checkpoint_ms, held.rate, job_id)
            self._entries[job_id] = entry
            insort(self._lines.setdefault(held.ask.queue, []), entry)

    def next_ms(self) -> int | None:
        """When somebody may go who may not yet, or moves in the order."""
        while self._ripens:
            at_ms, job_id, started_ms = self._ripens[0]
            held = self._held.get(job_id)
            if held is not None and held.running.started_ms == started_ms:
                return at_ms
            heappop(self._ripens)
        return None

    def movable(self) -> list[Held]:
        """All who are old enough."""
        return [self._held[job_id] for job_id in self._entries]

    def victims(self, ask: Ask, amounts: Amounts, quotas: Quotas, spared: Collection[str]) -> list[Victim]:
        """Who may be made to go for `ask`, in the order in which they should. `spared`: whose room is
        promised to others."""
        rank = rank_of(ask, self.policy, self._now_ms)
        own = self._lines.get(ask.queue, [])
        found = [
            Victim(self._held[entry[-1]], "preempt")
            for entry in own[: bisect_left(own, (rank,))]
            if entry[-1] not in spared
        ]
        rows: list[tuple[Rank, Fraction, _Entry, Victim]] = []
        for queue in givers(quotas, ask.queue, amounts) if self._lines else ():
            line = self._lines.get(queue)
            if line is None or queue == ask.queue:
                continue
            share = quotas.share(queue)
            allowed: dict[tuple[tuple[str, int], ...], bool] = {}
            for entry in line:
                held = self._held[entry[-1]]
                if self._now_ms < held.running.started_ms + guarded_ms(held.ask, self.policy):
                    continue
                key = tuple(held.allocation.amounts.items())
                if key not in allowed:
                    allowed[key] = may_reclaim(quotas, ask.queue, amounts, queue, held.allocation.amounts)
                if allowed[key] and held.id not in spared:
                    rows.append(((*entry[0][:2], 0), -share, entry, Victim(held, "reclaim")))
        if not rows:
            return found
        share = quotas.share(ask.queue)
        rows += ((self._entries[v.held.id][0], -share, self._entries[v.held.id], v) for v in found)
        rows.sort(key=lambda row: row[:3])
        return [row[3] for row in rows]


def make_room(
    ask: Ask, amounts: Amounts, victims: Sequence[Victim], fit: Fit, *, books: WhatIf
) -> Room | None:
    """The smallest set of `victims` (see `Roster.victims`), in their order, without which `fit` places the
    gang; None: none would do.

    `books` are as they will be when everything that is leaving has left; they are left as they were.
    `amounts`: what the ask will count.
    """
    gives = [victim.held.running.placements for victim in victims]
    reaches = [
        reached
        for need in ask.needs
        if (reached := reach(books.inventory, need, ask.num_nodes, gives)) is not None
    ]
    if not reaches:
        return None
    at_least = min(each.least for each in reaches)
    nodes = frozenset[str]().union(*(each.nodes for each in reaches if each.least == at_least))
    start = books.mark()
    ended: set[str] = set()

    def end(victim: Victim) -> None:
        # A reclaim is asked again with what has been given back before it: a queue gives back only what it
        # borrows.
        if victim.kind == "reclaim" and not may_reclaim(
            books.quotas, ask.queue, amounts, victim.held.ask.queue, victim.held.allocation.amounts
        ):
            ended.discard(victim.held.id)
            return
        books.give(victim.held.id)
        ended.add(victim.held.id)

    try:
        # The first moment at which the sums allow it, and only those who stand where it could go: mostly that
        # is it.
        likely = [v for v in victims[:at_least] if any(p.node_id in nodes for p in v.held.running.placements)]
        for victim in likely:
            end(victim)
        allocation = fit()
        if allocation is not None:
            room = _fill_back([v for v in likely if v.held.id in ended], allocation, fit, books)
        else:
            books.rollback(start)
            start = books.mark()
            ended.clear()
            found = books.shortest(len(victims), lambda at: end(victims[at]), fit, at_least=at_least)
            if found is None:
                return None
            count, allocation = found
            room = _fill_back([v for v in victims[:count] if v.held.id in ended], allocation, fit, books)
    finally:
        books.rollback(start)
    return room if _is_right(ask, amounts, room.victims, books.quotas) else None


def _is_right(ask: Ask, amounts: Amounts, victims: Sequence[Victim], quotas: Quotas) -> bool:
    """Whether those who are left may still be reclaimed. Who was let go may have been what made the others
    fair game, and would take their place again at once: two jobs could take turns for ever."""
    mark = quotas.mark()
    try:
        for victim in victims:
            if victim.kind == "preempt":
                quotas.refund(victim.held.id)
        reclaimed = [victim.held.id for victim in victims if victim.kind == "reclaim"]
        return may_reclaim_all(quotas, ask.queue, amounts, reclaimed)
    finally:
        quotas.rollback(mark)


def _fill_back(chosen: list[Victim], allocation: Allocation, fit: Fit, books: WhatIf) -> Room:
    """Spare victims that are not in the way, then try to keep each of the others, the most valued first."""

    def kept(victims: Sequence[Victim]) -> Allocation | None:
        mark = books.mark()
        for victim in victims:
            books.take(victim.held.id, victim.held.ask.queue, victim.held.allocation)
        again = fit()
        if again is None:
            books.rollback(mark)
        return again

    nodes = {placement.node_id for placement in allocation.placements}
    aside = [v for v in chosen if not any(p.node_id in nodes for p in v.held.running.placements)]
    if aside:
        again = kept(aside)
        if again is not None:  # else they are needed for a quota or for the topology, and asked one by one
            allocation = again
            chosen = [v for v in chosen if v not in aside]
    needed: list[Victim] = []
    for victim in reversed(chosen):
        again = kept([victim])
        if again is None:
            needed.append(victim)
        else:
            allocation = again
    needed.reverse()
    return Room(tuple(needed), allocation)


def move_aside(
    ask: Ask,
    fit: Fit,
    reseat: Callable[[Held], Allocation | None],
    *,
    books: WhatIf,
    candidates: Iterable[Held],
    spared: Collection[str] = (),
    now_ms: int,
) -> Room | None:
    """Running preemptible jobs that can all go on elsewhere, so that the gang fits; None: no such set was
    found.

    First whatever is cheapest to move, in that order, over the whole pool; then what stands on one machine
    after the other. Nobody loses anything but the work since the last checkpoint, and each move ends with one
    more job that runs, so moves end.
    """
    movable = [held for held in candidates if held.id not in spared]
    movable.sort(key=lambda h: (h.rate, h.lost(now_ms), -h.running.started_ms, h.id))
    by_node: dict[str, list[Held]] = {}
    for held in movable:
        for placement in held.running.placements:
            by_node.setdefault(placement.node_id, []).append(held)
    groups = [movable]
    groups += sorted(by_node.values(), key=lambda group: (sum(h.lost(now_ms) for h in group), group[0].id))[
        :16
    ]
    for group in groups:
        start = books.mark()
        try:
            room = _moved(ask, group, fit, reseat, books)
        finally:
            books.rollback(start)
        if room is not None:
            return room
    return None


def _moved(
    ask: Ask, group: Sequence[Held], fit: Fit, reseat: Callable[[Held], Allocation | None], books: WhatIf
) -> Room | None:
    unique = {held.id: held for held in group}
    victims = [Victim(held, "consolidate") for held in unique.values()]
    found = books.shortest(len(victims), lambda at: books.give(victims[at].held.id), fit)
    if found is None:
        return None
    room = _fill_back(victims[: found[0]], found[1], fit, books)
    books.take(ask.id, ask.queue, room.allocation)
    moved: list[tuple[str, Allocation]] = []
    for victim in sorted(room.victims, key=lambda v: (-v.held.rate, v.held.id)):
        allocation = reseat(victim.held)
        if allocation is None:
            return None
        books.take(victim.held.id, victim.held.ask.queue, allocation)
        moved.append((victim.held.id, allocation))
    return Room(room.victims, room.allocation, tuple(moved))
