"""One scheduling cycle. Read `Cycle.run` from top to bottom: it is the whole of it.

Everything is decided on the books of the pool, which are changed only by what is decided: a start is charged
at once, a victim counts as terminating at once. The parts have files of their own: `heads` (fair order),
`gang` (where ranks go), `nominate`, `reserve` and `backfill`, `preempt`.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from argosy.scheduler.ask import Ask, Decision, Running, Start
from argosy.scheduler.cycle_state import CycleState, Nominated
from argosy.scheduler.equivalence import EquivalenceClass
from argosy.scheduler.explain import why_started
from argosy.scheduler.heads import Heads
from argosy.scheduler.nominate import COMES_BACK_MS, Nominations
from argosy.scheduler.order import class_of
from argosy.scheduler.preempt import Room, make_room, move_aside
from argosy.scheduler.reclaim import entitled
from argosy.scheduler.reserve import Reserving
from argosy.scheduler.whatif import Allocation, Held, WhatIf, rate_of

if TYPE_CHECKING:
    from argosy.scheduler.pool import Pool

FAILURES_MAX: Final = 4  # so many in a row: then all classes are asked at once whether they fit at all
ATTEMPTS_MAX: Final = 64  # requests of a cycle for which victims are sought


class Cycle:
    """One pass over the pending workloads of a pool."""

    def __init__(self, pool: Pool, now_ms: int) -> None:
        self.pool = pool
        self.now_ms = now_ms
        self.policy = pool.tenancy.policy
        self.state = CycleState(pool, now_ms)
        self.nominations = Nominations(self.state)
        self.reserving = Reserving(self.state)
        self._failures = 0  # for want of capacity, in a row
        self._probe = FAILURES_MAX
        self._attempts = 0  # to preempt
        self._tried: set[tuple[str, int]] = set()  # queues and classes for which nobody could be preempted

    def run(self) -> Decision:
        pool, reserving = self.pool, self.reserving
        # 1. Snapshot: fair shares fade, minimum-runtime guards end, who overruns is expected later.
        due_ms = pool.order.next_ms()
        pool.advance(self.now_ms)
        self._weigh()
        # 2. Bind requests whose nominated placement has become free.
        self.nominations.bind(partial(self._start, nominated=True))
        if not self._is_settled(due_ms):
            # 3. Order pending workloads by priority class and fair share, best first.
            heads = pool.order.heads(pool.quotas, self.policy, self.now_ms)
            for ask in heads:
                kind = pool.equivalence_class(ask)
                # 4. Allocate free capacity, 5. as backfill where others have reservations.
                allocation, reason = self._allocate(ask, kind)
                if allocation is not None:
                    self._start(ask, allocation)
                    heads.started(ask)
                    self._failures = 0
                    continue
                # 6. Preempt, or move running jobs aside: the room is nominated for it.
                room = self._make_room(ask, kind, reason)
                if room is not None:
                    self.nominations.nominate(ask, room)
                    heads.started(ask)
                    continue
                # 7. Reserve capacity for the first of each queue. Who can never start holds nobody back.
                if not self._could_ever(ask, kind):
                    heads.skip_here(ask)
                    continue
                reserving.fall_behind(ask, reason, heads, may_preempt=self._may_make_room())
                if reason == "capacity" and self.policy.backfill == "none":
                    break
                self._skip_failing(ask, reason, heads)
        # 8. Decide: quotas of today again, and when the same books may give another answer.
        reservations = reserving.result()
        self.state.charge_today()
        return Decision(
            starts=tuple(self.state.starts),
            evictions=tuple(self.state.evictions),
            reservations=reservations,
            wake_ms=self._wake_ms(),
        )

    def _weigh(self) -> None:
        """Take the pending requests into account in the score, not only the history."""
        pool = self.pool
        waiting = len(pool.order)
        if not pool.weighed * 7 <= waiting * 8 <= pool.weighed * 9:
            pool.weighed = waiting
            needs = [(ask.needs[0], count * ask.num_nodes) for _, ask, count in pool.order.classes()]
            pool.inventory.weigh(needs)

    # --- 3. order

    def _is_settled(self, due_ms: int | None) -> bool:
        """Whether nothing has become free for any pending workload and nobody can be preempted. O(classes).
        `due_ms`: when the order changes by itself."""
        pool = self.pool
        if not len(pool.order):
            return True
        if due_ms is not None and due_ms <= self.now_ms:
            return False
        if self.state.future is not None or (
            len(pool.roster) and (self.policy.preemption or self.policy.consolidation)
        ):
            return False
        return all(self._is_blocked(pool.equivalence_class(ask)) for _, ask, _ in pool.order.classes())

    def _is_blocked(self, kind: EquivalenceClass) -> bool:
        """Whether nothing has become free for a class since it did not fit."""
        inventory = self.pool.inventory
        for at, variant in enumerate(kind.variants):
            version = kind.blocked[at]
            if version < 0 or inventory.gained(variant.need, version):
                return False
            kind.blocked[at] = inventory.version
        return True

    def _skip_failing(self, ask: Ask, reason: str, heads: Heads) -> None:
        """After some failures in a row, where no new reservation can come any more, all classes that do not
        fit are left out at once, but where somebody was promised a place. One after the other each would let
        all queues in which it is next look for another candidate: with a thousand queues that is most of a
        cycle."""
        self._failures += reason == "capacity"
        if self._failures < self._probe or self._may_make_room():
            return
        pool = self.pool
        if not self.reserving.is_full(class_of(ask, self.policy, self.now_ms)):
            return
        self._failures, self._probe = 0, 2 * self._probe
        spared: dict[int, list[str]] = {}
        for ask_id in pool.promised:
            promised = pool.order.get(ask_id)
            if promised is not None:
                spared.setdefault(pool.order.shape(promised), []).append(promised.queue)
        found = {}
        for number, example, _ in pool.order.classes():
            kind = pool.equivalence_class(example)
            if heads.is_blocked(number) or not (self._is_blocked(kind) or self._fits_nowhere(kind)):
                continue
            found[number] = spared.get(number, ())
        heads.skip_classes(found)

    def _fits_nowhere(self, kind: EquivalenceClass) -> bool:
        inventory = self.pool.inventory
        if any(inventory.find(variant.ask) is not None for variant in kind.variants):
            return False
        kind.blocked[:] = [inventory.version] * len(kind.blocked)
        return True

    # --- 4. and 5. allocate

    def _allocate(self, ask: Ask, kind: EquivalenceClass) -> tuple[Allocation | None, str]:
        """Where it starts now; else why it cannot: capacity | quota | kept (for reservations)."""
        pool, reserving = self.pool, self.reserving
        promised = pool.promised.get(ask.id)
        if promised is not None and promised.at_ms <= self.now_ms:
            today = WhatIf(pool.inventory, pool.quotas, bounded=self.state.bounded)
            allocation = promised.allocation
            if today.allows(ask.queue, allocation) and reserving.delays_nobody(ask, allocation):
                return allocation, ""
        reason = "capacity"
        for at, variant in enumerate(kind.variants):
            version = kind.blocked[at]
            if version >= 0:
                if not pool.inventory.gained(variant.need, version):
                    kind.blocked[at] = pool.inventory.version
                    continue
                kind.blocked[at] = -1
            if reserving.passes_limit(ask.queue, variant.amounts, self.state.ends_ms(ask)):
                reason = "quota"
                continue
            placements = pool.inventory.find(variant.ask)
            if placements is None:
                kind.blocked[at] = pool.inventory.version
                continue
            if variant.capped:
                placements = self.state.find(ask.queue, variant, pool.inventory)
            if placements is None or (
                self.state.bounded and not pool.quotas.lends(ask.queue, variant.amounts)
            ):
                reason = "quota"
                continue
            placements = reserving.beside(ask, variant, placements, kind.number)
            if placements is None:
                reason = "kept"
                continue
            return Allocation(variant.need, placements, self.state.amounts(variant, placements, ask)), ""
        return None, reason

    def _start(self, ask: Ask, allocation: Allocation, *, nominated: bool = False) -> None:
        pool = self.pool
        why = why_started(ask, nominated=True) if nominated else self._why(ask)
        running = Running(ask=ask, placements=allocation.placements, started_ms=self.now_ms)
        pool.inventory.take(ask.id, allocation.need, allocation.placements)
        pool.quotas.charge(ask.id, ask.queue, allocation.amounts)
        self.reserving.started(ask, allocation)
        pool.enter(Held(running, allocation, rate_of(allocation.need, ask.num_nodes)))
        self.state.starts.append(Start(ask_id=ask.id, placements=allocation.placements, why=why))

    def _why(self, ask: Ask) -> str:
        book = self.reserving.book
        if book is None or not book.all:
            return why_started(ask)
        ends_ms = self.state.ends_ms(ask)
        in_time = ends_ms is not None and ends_ms <= book.all[0].at_ms
        return why_started(ask, before=book.all[0].ask, over_in_time=in_time)

    def _could_ever(self, ask: Ask, kind: EquivalenceClass) -> bool:
        """Whether the open machines, if they were empty, and the limits would do."""
        pool = self.pool
        if kind.could_ever is None:
            by_sums = any(pool.inventory.could_ever(each.need, ask.num_nodes) for each in kind.variants)
            kind.could_ever = by_sums and pool.inventory.never(ask) is None
        return kind.could_ever and any(
            pool.quotas.never(ask.queue, variant.amounts) is None for variant in kind.variants
        )

    # --- 6. preempt

    def _may_make_room(self) -> bool:
        if self._attempts >= ATTEMPTS_MAX:
            return False
        if self.pool.terminating:
            return True
        return bool(len(self.pool.roster)) and (self.policy.preemption or self.policy.consolidation)

    def _make_room(self, ask: Ask, kind: EquivalenceClass, reason: str) -> Room | None:
        """Victims without which it fits, and where; None: nobody may or can be preempted or moved for it."""
        pool, policy, roster = self.pool, self.policy, self.pool.roster
        if not self._may_make_room() or (ask.queue, kind.number) in self._tried:
            return None
        amounts = kind.variants[0].amounts
        victims = roster.victims(ask, amounts, pool.quotas, ()) if policy.preemption else []
        moving = policy.consolidation and reason == "capacity" and bool(len(roster))
        if not victims and not moving and not pool.terminating:
            return None
        self._attempts += 1
        self._tried.add((ask.queue, kind.number))
        books = self.reserving.search().books
        fit = partial(self.state.place, books, ask)
        if pool.terminating:
            allocation = fit()
            if allocation is not None:
                return Room((), allocation)
        spared = self.reserving.spared()
        if moving:
            room = move_aside(
                ask, fit, lambda held: self.state.place(books, held.ask),
                books=books, candidates=roster.movable(), spared=spared, now_ms=self.now_ms,
            )  # fmt: skip
            if room is not None:
                return room
        # What a queue deserves is judged for each request by itself: a reservation of another one of the
        # queue, which asks for more than that, keeps nobody back who asks for less.
        queue = entitled(pool.quotas, ask.queue, amounts)
        rightful = self.reserving.spared(but=queue) if queue is not None else spared
        victims = [
            victim
            for victim in victims
            if victim.held.id not in (rightful if victim.kind == "reclaim" else spared)
        ]
        return make_room(ask, amounts, victims, fit, books=books) if victims else None

    # --- 8. decide

    def _wake_ms(self) -> int | None:
        """When the same books may give another answer: a reservation or a time comes due, a guard ends."""
        pool = self.pool
        times = self.reserving.wakes()
        later = pool.order.next_ms()
        if later is not None:
            times.append(later)
        unguarded = pool.roster.next_ms() if len(pool.order) else None
        if unguarded is not None and (self.policy.preemption or self.policy.consolidation):
            times.append(unguarded)
        if any(each.gone_ms is not None for each in pool.nominated.values()):
            times.append(self.now_ms + COMES_BACK_MS)
        return min((each for each in times if each > self.now_ms), default=None)


__all__ = ["Cycle", "Nominated"]
