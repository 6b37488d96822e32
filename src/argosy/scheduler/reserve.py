"""Reservations of one cycle: who gets one, and what may start beside them (backfill).

They are worked out late: a request that does not fit is only noted, and its reservation is searched when
somebody behind it could start. A queue of a thousand equal jobs costs one comparison for each event.
"""

from __future__ import annotations

from functools import partial
from typing import Final, NamedTuple

from argosy.model.offer import Placement
from argosy.model.tenancy import Amounts
from argosy.scheduler.ask import Ask, Reservation
from argosy.scheduler.backfill import RELEASES_MAX, RESERVATIONS_MAX, ReservationBook
from argosy.scheduler.cycle_state import CycleState, nominee
from argosy.scheduler.ends import Release
from argosy.scheduler.equivalence import Variant
from argosy.scheduler.estimate import expected_s
from argosy.scheduler.heads import Heads
from argosy.scheduler.whatif import Allocation, WhatIf, rate_of

LARGER_MAX: Final = 3  # reservations of one queue, each for at least twice as much as the one before
LOOKS_MAX: Final = 500  # requests of a cycle that are looked at behind reservations
SEARCH_WORK: Final = 3000  # ends and machines that the searches of one cycle may go through
NEVER_MS: Final = 1 << 62
PROMISE_MS: Final = 120_000  # so long a reservation stands where not all can be searched anew in each cycle


class Promise(NamedTuple):
    """A reservation of an earlier cycle."""

    at_ms: int
    allocation: Allocation
    made_ms: int


class Reserving:
    """What one cycle reserves."""

    def __init__(self, state: CycleState) -> None:
        self.state = state
        self.book: ReservationBook | None = None  # reservations in the future inventory
        self.noted: list[Ask] = []  # who gets a reservation as soon as it matters
        pool = state.pool
        each = min(len(pool.ends), RELEASES_MAX) + len(pool.inventory.machines())
        self._searches_left = max(1, SEARCH_WORK // max(1, each))
        self._looks = 0
        self._made_ms: dict[str, int] = {}  # by request: when its reservation was searched
        self._sizes: dict[str, list[int]] = {}  # by queue: the sizes of those who get a reservation
        self._spared: dict[str | None, tuple[int, frozenset[str]]] = {}  # see `spared`, and for how many
        # By equivalence class: nobody who would run until then fits beside the reservations.
        self._too_long: dict[int, int] = {}
        # Started, but not in the book yet: no reservation is on their machines.
        self._started: list[tuple[Ask, Allocation]] = []
        self._to_come: list[Ask] = []  # of `_standing`: who has not been looked at yet
        self._standing: dict[str, Promise] = {}
        # Fewer searches than reservations: those of earlier cycles stand, the others have their turn.
        self._in_turns = len(pool.promised) >= self._searches_left
        if self._in_turns:
            self._stand()

    def _stand(self) -> None:
        """Reservations of earlier cycles whose time is still to come and whose machines are still open."""
        pool, now_ms = self.state.pool, self.state.now_ms
        if now_ms - pool.timeless_ms >= PROMISE_MS:
            pool.timeless_ms = now_ms
            pool.timeless.clear()
        machines = pool.inventory.machines()
        for ask_id, promise in pool.promised.items():
            ask = pool.order.get(ask_id)
            if ask is None or promise.at_ms <= now_ms:
                continue
            places = promise.allocation.placements
            if all((m := machines.get(p.node_id)) is not None and m.open for p in places):
                self._standing[ask_id] = promise
                self._to_come.append(ask)

    @property
    def _none(self) -> bool:
        """Whether the future is the same as today: nothing is reserved, nominated or terminating."""
        return self.state.future is None and self.book is None and not self.noted

    # --- what may start

    def beside(
        self, ask: Ask, variant: Variant, today: tuple[Placement, ...], kind: int
    ) -> tuple[Placement, ...] | None:
        """A placement that is free today and in the future, and delays no reservation. `today`: the best
        that is free today."""
        if self._none:
            return today
        ends_ms = self.state.ends_ms(ask)
        placements = self._place_beside(ask.queue, variant, today, ends_ms, kind)
        if placements is None:
            return None
        amounts = self.state.amounts(variant, placements, ask) if variant.capped else variant.amounts
        if self._is_promised(ask.queue, amounts, ends_ms):
            return None
        return placements

    def _place_beside(
        self, queue: str, variant: Variant, today: tuple[Placement, ...], ends_ms: int | None, kind: int
    ) -> tuple[Placement, ...] | None:
        pool = self.state.pool
        failed = self._too_long.get(kind)
        last = NEVER_MS if ends_ms is None else ends_ms
        if failed is not None and last >= failed and not self.noted:
            return None
        book = self.book if self.book is not None and not self.noted else self.search()
        if not pool.nominated and not pool.terminating and not book.touches(today):
            return today
        self._catch_up()
        if len(book.heeded(ends_ms)) == len(book.all):
            placements = self.state.find(queue, variant, pool.inventory, within=self.state.future)
        else:
            mark = book.books.mark()
            book.lift(ends_ms, pool.inventory.hosting(variant.need, 1))
            placements = self.state.find(queue, variant, pool.inventory, within=self.state.future)
            book.books.rollback(mark)
        if placements is not None and book.refuses(placements, ends_ms):
            placements = None
        if placements is None:
            self._too_long[kind] = last
        return placements

    def delays_nobody(self, ask: Ask, allocation: Allocation) -> bool:
        """Whether a certain allocation delays no reservation."""
        if self._none:
            return True
        ends_ms = self.state.ends_ms(ask)
        book = self.search()
        mark = book.books.mark()
        book.lift(ends_ms, {placement.node_id for placement in allocation.placements})
        fits = book.books.allows(ask.queue, allocation)
        book.books.rollback(mark)
        return (
            fits
            and not book.refuses(allocation.placements, ends_ms)
            and not self.state.passes_limit_today(ask.queue, allocation.amounts)
        )

    def passes_limit(self, queue: str, amounts: Amounts, ends_ms: int | None) -> bool:
        """Whether a limit is in the way, with what reservations keep of it. (What others lend is asked after
        the place: it is also short when the pool is simply full.)"""
        quotas = self.state.pool.quotas
        if quotas.over(queue, amounts) is None:
            return False
        if self.book is None or not any(each.scope is not None for each in self.book.all):
            return True
        mark = quotas.mark()
        self.book.lift_quotas(ends_ms)
        over = quotas.over(queue, amounts) is not None
        quotas.rollback(mark)
        return over

    def _is_promised(self, queue: str, amounts: Amounts, ends_ms: int | None) -> bool:
        """Whether what a limit leaves is kept for a reservation, or still used by what is terminating."""
        return self.passes_limit(queue, amounts, ends_ms) or self.state.passes_limit_today(queue, amounts)

    def started(self, ask: Ask, allocation: Allocation) -> None:
        """A request has started today: it is there in the future, too."""
        if self.book is not None:
            self._started.append((ask, allocation))
            if self.book.counts(ask.queue) or self.book.touches(allocation.placements):
                self._catch_up()
        elif self.state.future is not None:
            self.state.future.take(ask.id, allocation.need, allocation.placements)

    def _catch_up(self) -> None:
        """The book learns what has started."""
        for ask, allocation in self._started:
            assert self.book is not None
            self.book.started(ask.id, ask.queue, allocation, self.state.ends_ms(ask))
        self._started.clear()

    # --- who gets one

    def fall_behind(self, ask: Ask, reason: str, heads: Heads, *, may_preempt: bool) -> None:
        """It waits. The first of its queue is to have a reservation, and after it the first that needs at
        least twice as much: small jobs find room sooner or later, large ones only where it is kept."""
        backfill = self.state.policy.backfill
        sizes = self._sizes.setdefault(ask.queue, [])
        size = rate_of(ask.needs[0], ask.num_nodes)
        first = not sizes or (len(sizes) < LARGER_MAX and size >= 2 * sizes[-1])
        if first:
            sizes.append(size)
        free = self._has_slot(ask)
        everybody = free and backfill == "conservative"
        if free and (first or everybody) and backfill != "none":
            self.noted.append(ask)
            self._count_search(ask)
            self._to_come = [each for each in self._to_come if each.id != ask.id]
        if backfill == "none":
            heads.close(ask)
        elif reason == "kept" and not everybody and self._all_too_long(ask):
            if free:
                heads.skip_here(ask)
            else:
                heads.skip_class(ask)
        elif reason == "kept" or everybody:
            # Another of its class may be over sooner, or is to have a reservation, too.
            self._looks += 1
            if self._looks > LOOKS_MAX:
                heads.skip_class(ask)
        elif reason == "quota" or free or may_preempt:
            heads.skip_here(ask)
        else:
            heads.skip_class(ask, but=self._promised_in(ask))

    def _has_slot(self, ask: Ask) -> bool:
        """Whether one more reservation may be worked out for it in this cycle."""
        count = self._count()
        if count >= RESERVATIONS_MAX:
            return False
        if ask.id in self._standing:
            return True
        if self._searches_left <= 0 or (self._in_turns and ask.id in self.state.pool.timeless):
            return False
        # Slots of those who have a promise: only who is more urgent comes before them.
        return count + sum(ask.urgency >= each.urgency for each in self._to_come) < RESERVATIONS_MAX

    def _count_search(self, ask: Ask) -> None:
        """A reservation that stands is searched again when it is old, and a search is left for it."""
        promise = self._standing.get(ask.id)
        if promise is not None:
            if self._searches_left <= 0 or self.state.now_ms - promise.made_ms < PROMISE_MS:
                return
            del self._standing[ask.id]
        self._searches_left -= 1

    def _count(self) -> int:
        """How many have a reservation in this cycle, or are to have one."""
        return len(self.noted) + (len(self.book.all) if self.book is not None else 0)

    def is_full(self, urgency: int) -> bool:
        """Whether nobody of this priority class or a less urgent one gets a new reservation in this cycle. It
        stays so."""
        if self.state.policy.backfill != "easy":
            return False
        to_come = sum(each.urgency <= urgency for each in self._to_come)
        return self._searches_left <= 0 or self._count() + to_come >= RESERVATIONS_MAX

    def _all_too_long(self, ask: Ask) -> bool:
        """Whether nobody of its class is over before the reservations that stand in the way of all that are
        so long."""
        order = self.state.pool.order
        number = order.shape(ask)
        failed = self._too_long.get(number)
        return failed is not None and self.state.now_ms + order.shortest_s(number) * 1000 >= failed

    def _promised_in(self, ask: Ask) -> frozenset[str]:
        """Queues in which somebody of its class, who has not been looked at yet, has a promise that
        stands."""
        if not self._to_come:
            return frozenset()
        order = self.state.pool.order
        number = order.shape(ask)
        return frozenset(each.queue for each in self._to_come if order.shape(each) == number)

    # --- when

    def search(self) -> ReservationBook:
        """The book, with a reservation for everybody who is noted."""
        state, pool = self.state, self.state.pool
        future = state.look_ahead()
        if self.book is None:
            books = WhatIf(future, pool.quotas, bounded=state.bounded)
            self.book = ReservationBook(books, pool.neighbour, pool.scope_of)
        self._catch_up()
        if self.noted:
            self.book.learn(self._releases())
        for ask in self.noted:
            promise = self._standing.get(ask.id)
            if promise is None:
                promise = self._earliest(self.book, ask)
            if promise is None:
                pool.timeless.add(ask.id)
                continue
            length_s = expected_s(ask)
            ends_ms = None if length_s is None else promise.at_ms + length_s * 1000
            self.book.add(ask, promise.at_ms, ends_ms, promise.allocation)
            self._made_ms[ask.id] = promise.made_ms
            self._too_long.clear()
        self.noted.clear()
        return self.book

    def _earliest(self, book: ReservationBook, ask: Ask) -> Promise | None:
        state = self.state
        promised = state.pool.promised.get(ask.id)
        preferred = promised.allocation if promised is not None else None
        found = book.earliest(ask, partial(state.place, ask=ask, preferred=preferred), state.now_ms)
        return Promise(*found, state.now_ms) if found is not None else None

    def _releases(self) -> list[Release]:
        """What is expected to end, in order, and then who is bound to a nominated placement."""
        pool = self.state.pool
        releases = pool.ends.first(RELEASES_MAX)
        for ask_id, nominated in pool.nominated.items():
            at_ms = self.state.ends_ms(nominated.ask)
            if at_ms is not None:
                releases.append(Release(at_ms, nominee(ask_id), nominated.ask.queue, nominated.allocation))
        return sorted(releases)

    def spared(self, but: str | None = None) -> frozenset[str]:
        """Running jobs on whose end a reservation counts: they are not preempted for others. `but`: a queue
        whose reservations, and those of the queues below it, do not matter."""
        pool, book = self.state.pool, self.search()
        known = self._spared.get(but)
        if known is None or known[0] != len(book.all):
            found = frozenset(
                job_id
                for each in book.all
                if but is None or not f"{each.ask.queue}/".startswith(f"{but}/")
                for node_id in each.needs
                for job_id in pool.on.get(node_id, ())
                if each.counts_on(pool.held[job_id].running.placements)
            )
            known = self._spared[but] = (len(book.all), found)
        return known[1]

    # --- the outcome

    def result(self) -> tuple[Reservation, ...]:
        """All reservations of this cycle; also kept in the pool as promises."""
        pool, book = self.state.pool, self.book
        reservations: tuple[Reservation, ...] = ()
        if book is not None:
            reservations = tuple(each.reservation for each in book.all)
            pool.promised = {
                each.ask.id: Promise(each.at_ms, each.allocation, self._made_ms[each.ask.id])
                for each in book.all
            }
            book.clear_quotas()
        # Nobody came after those who are still only noted, so nobody can have disturbed what stands.
        for ask in self.noted:
            if ask.id in self._standing:
                promise = pool.promised[ask.id] = self._standing[ask.id]
                places = promise.allocation.placements
                kept = Reservation(ask_id=ask.id, starts_at_ms=promise.at_ms, placements=places)
                reservations = (*reservations, kept)
        return reservations

    def wakes(self) -> list[int]:
        """When reservations come due."""
        return [each.at_ms for each in self.book.all] if self.book is not None else []
