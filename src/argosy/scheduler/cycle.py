"""One pass over those who wait: the order of section 5.3 of the study, with books that are changed only by
what is decided.

land     those who have a seat, when what left for them has left
start    in order, what fits today and soon, within quotas, beside reservations
move     (policy) running jobs aside that can all go on elsewhere
end      (policy) what is less urgent, and what other queues have borrowed
reserve  for the first of each queue that can do none of these
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from argosy.model.offer import Placement
from argosy.model.tenancy import Amounts
from argosy.scheduler.ask import Ask, Decision, Evict, Reservation, Running, Start
from argosy.scheduler.backfill import RELEASES_MAX, RESERVATIONS_MAX, Keeps, Release
from argosy.scheduler.estimate import expected_s
from argosy.scheduler.explain import guarantee_of, why_evicted, why_started
from argosy.scheduler.heads import Heads
from argosy.scheduler.inventory import Inventory, OverCommitted
from argosy.scheduler.order import class_of
from argosy.scheduler.preempt import Room, make_room, move_aside
from argosy.scheduler.quota import amounts_of
from argosy.scheduler.whatif import Held, Seated, WhatIf, rate_of

if TYPE_CHECKING:
    from argosy.scheduler.pool import AskClass, Pool, Variant

LARGER_MAX: Final = (
    3  # reservations of one queue, each for somebody who needs at least twice as much as the one before
)
LARGE_POOL: Final = 512  # machines; above, fewer reservations are worked out
RESERVATIONS_LARGE: Final = 8
SEARCHES_LARGE: Final = (
    1  # reservations of a cycle that are worked out there anew; the others have theirs in the next cycles
)
LOOKS_MAX: Final = 2000  # asks of a cycle that are looked at behind reservations
LOOKS_LARGE: Final = 500
FAILURES_MAX: Final = (
    4  # so many one after the other: then all classes are asked at once whether they fit at all
)
ATTEMPTS_MAX: Final = 64  # asks of a cycle for which victims are sought


COMES_BACK_MS: Final = 60_000  # so long the new place of a job that was moved is kept for it
NEVER_MS: Final = 1 << 62
PROMISE_MS: Final = (
    60_000  # in a large pool: so long a reservation stands before an earlier time is looked for
)


class Seat(NamedTuple):
    """Room that is being made for one ask; or where a job goes on that is moved aside."""

    ask: Ask
    seated: Seated
    gone: bool = False  # it is the victim of a consolidation, and has not come back yet
    gone_ms: int | None = None  # since when it runs nowhere
    passing: bool = (
        False  # nobody was ended for it: it only waits for what leaves anyway, and others may come before it
    )


class Cycle:
    def __init__(self, pool: Pool, now_ms: int) -> None:
        self.pool = pool
        self.now_ms = now_ms
        self.policy = pool.tenancy.policy
        self.bounded = bool(pool.tenancy.queues)
        self.starts: list[Start] = []
        self.evictions: list[Evict] = []
        self.wakes: list[int] = []
        self.soon: Inventory | None = (
            None  # what leaves has left, seats are taken, reservations kept; None: as it is today
        )
        self.keeps: Keeps | None = None  # the reservations in `soon`
        self.unkept: list[Ask] = []  # who gets a reservation as soon as it matters
        self.headed: dict[str, list[int]] = {}  # by queue: the sizes of those who are to have a reservation
        self.attempts = 0
        self.tried: set[tuple[str, int]] = set()  # queues and classes for which no room could be made
        self.looks = 0
        self.spared: tuple[int, frozenset[str]] = (0, frozenset())  # whose room so many reservations count on
        self.over_before: dict[
            int, int
        ] = {}  # by class: nobody who would run until then fits beside the reservations
        self.searches = 0
        self.to_come: list[Ask] = []  # of `standing`: who has not been looked at yet
        self.behind: list[
            tuple[Ask, Seated]
        ] = []  # starts that `soon` does not know yet: no reservation is on their machines
        self.large = len(pool.inventory.machines()) > LARGE_POOL
        self.reservations_max = RESERVATIONS_LARGE if self.large else RESERVATIONS_MAX
        self.looks_max = LOOKS_LARGE if self.large else LOOKS_MAX
        self.standing = self._standing() if self.large else {}

    def run(self) -> Decision:
        pool = self.pool
        pool.turn(self.now_ms)
        if pool.seats or pool.leaving_for:
            self._land()
        if len(pool.order) and not self._all_blocked():
            self._pass()
        reservations: tuple[Reservation, ...] = ()
        if self.keeps is not None:
            reservations = tuple(keep.reservation for keep in self.keeps.all)
            pool.promised = {keep.ask.id: (keep.at_ms, keep.seated) for keep in self.keeps.all}
            self.wakes += (keep.at_ms for keep in self.keeps.all if keep.at_ms > self.now_ms)
            self.keeps.clear_quotas()
        for (
            ask
        ) in self.unkept:  # nobody came after them in this cycle, so nobody can have disturbed what stands
            if ask.id in self.standing:
                at_ms, seated = pool.promised[ask.id] = self.standing[ask.id]
                kept = Reservation(ask_id=ask.id, starts_at_ms=at_ms, placements=seated.placements)
                reservations = (*reservations, kept)
        self._restore_quotas()
        return Decision(
            starts=tuple(self.starts),
            evictions=tuple(self.evictions),
            reservations=reservations,
            wake_ms=self._wake(),
        )

    # --- those for whom room was made

    def _land(self) -> None:
        pool = self.pool
        self.soon = pool.inventory.copy()
        for job_id in pool.leaving_for:
            self.soon.give(job_id)
            pool.quotas.refund(job_id)
        for ask_id, seat in list(pool.seats.items()):
            if seat.passing:
                del pool.seats[ask_id]
                pool.wait(seat.ask)
                continue
            if seat.gone and ask_id not in pool.held:
                if seat.gone_ms is None:
                    seat = pool.seats[ask_id] = seat._replace(gone_ms=self.now_ms)
                if self.now_ms - (seat.gone_ms or 0) >= COMES_BACK_MS:
                    del pool.seats[ask_id]
                    continue
            if not self._keep_seat(ask_id, seat):
                del pool.seats[ask_id]
                if not seat.gone:
                    pool.wait(seat.ask)
        for ask_id in dict.fromkeys(pool.leaving_for.values()):  # after a restart: they leave for somebody
            ask = pool.order.get(ask_id)
            if ask is not None and ask.not_before_ms <= self.now_ms:
                seated = self._seat_in(WhatIf(self.soon, pool.quotas, bounded=self.bounded), ask)
                if seated is not None:
                    pool.wait_no_more(ask_id)
                    self._give_seat(ask, Room((), seated))
        for ask_id, seat in list(pool.seats.items()):
            if seat.gone or seat.ask.not_before_ms > self.now_ms:
                continue
            found = seat.seated if self._is_free(ask_id, seat) else self._elsewhere(ask_id, seat)
            if found is not None:
                pool.quotas.refund(_seat_name(ask_id))
                self.soon.give(_seat_name(ask_id))
                del pool.seats[ask_id]
                self._start(seat.ask, found, why_started(seat.ask, seated=True))
        if not pool.seats and not pool.leaving_for:
            self.soon = None

    def _keep_seat(self, ask_id: str, seat: Seat) -> bool:
        assert self.soon is not None
        machines = self.pool.inventory.machines()
        for placement in seat.seated.placements:
            machine = machines.get(placement.node_id)
            if machine is None or not machine.open:
                return False
        try:
            self.soon.take(_seat_name(ask_id), seat.seated.need, seat.seated.placements)
        except OverCommitted:
            return False
        self.pool.quotas.charge(_seat_name(ask_id), seat.ask.queue, seat.seated.amounts)
        return True

    def _is_free(self, ask_id: str, seat: Seat) -> bool:
        """Whether a seat can be had today."""
        pool = self.pool
        try:
            pool.inventory.take(ask_id, seat.seated.need, seat.seated.placements)
        except OverCommitted:
            return False
        pool.inventory.give(ask_id)
        mark = pool.quotas.mark()
        pool.quotas.refund(_seat_name(ask_id))
        queue, amounts = seat.ask.queue, seat.seated.amounts
        free = pool.quotas.over(queue, amounts) is None and not self._over_today(queue, amounts)
        pool.quotas.rollback(mark)
        return free

    def _elsewhere(self, ask_id: str, seat: Seat) -> Seated | None:
        """Another place that has become free before its own: who leaves for it leaves all the same."""
        assert self.soon is not None
        pool, queue = self.pool, seat.ask.queue
        mark, before = self.soon.mark(), pool.quotas.mark()
        self.soon.give(_seat_name(ask_id))
        pool.quotas.refund(_seat_name(ask_id))
        found = None
        for variant in pool.class_of(seat.ask).variants:
            if pool.quotas.over(queue, variant.amounts) is not None or self._over_today(
                queue, variant.amounts
            ):
                continue
            placements = pool.inventory.find(variant.ask, within=self.soon)
            if placements is not None and pool.quotas.lends(queue, variant.amounts):
                found = Seated(variant.need, placements, self._amounts(variant, placements, seat.ask))
                break
        self.soon.rollback(mark)
        pool.quotas.rollback(before)
        return found

    # --- those who wait

    def _all_blocked(self) -> bool:
        """Nothing has become free for anybody who waits, and nobody can be made to go: O(classes of asks)."""
        pool = self.pool
        due_ms = pool.order.next_ms()
        if due_ms is not None and due_ms <= self.now_ms:
            return False
        if self.soon is not None or (
            len(pool.roster) and (self.policy.preemption or self.policy.consolidation)
        ):
            return False
        return all(self._is_blocked(pool.class_of(ask)) for _, ask, _ in pool.order.classes())

    def _is_blocked(self, kind: AskClass) -> bool:
        inventory = self.pool.inventory
        for at, variant in enumerate(kind.variants):
            version = kind.blocked[at]
            if version < 0 or inventory.gained(variant.need, version):
                return False
            kind.blocked[at] = inventory.version
        return True

    def _pass(self) -> None:
        pool = self.pool
        policy = self.policy
        waiting = len(pool.order)
        if self.large and not pool.weighed * 7 <= waiting * 8 <= pool.weighed * 9:
            # Places are kept for what waits, not only for what came before.
            pool.weighed = waiting
            pool.inventory.weigh(
                [(ask.needs[0], count * ask.num_nodes) for _, ask, count in pool.order.classes()]
            )
        heads = pool.order.heads(pool.quotas, policy, self.now_ms)
        failed, probe = 0, FAILURES_MAX
        for ask in heads:
            kind = pool.class_of(ask)
            found, reason = self._try(ask, kind)
            if found is not None:
                self._start(ask, found, self._why(ask))
                heads.started(ask)
                failed = 0
                continue
            room = self._make_room(ask, kind, reason)
            if room is not None:
                self._give_seat(ask, room)
                heads.started(ask)
                continue
            if not self._could_ever(ask, kind):
                heads.skip_here(ask)  # who can never start holds nobody back
                continue
            self._fall_behind(ask, reason, heads)
            failed += reason == "capacity"
            if failed >= probe and self._is_full(class_of(ask, policy, self.now_ms)):
                self._skip_blocked(heads)
                failed, probe = 0, 2 * probe
            if reason == "capacity" and policy.backfill == "none":
                return

    def _is_full(self, urgency: int) -> bool:
        """Whether in a large pool nobody of this class or a less urgent one gets a reservation any more, but
        who was promised one. It stays so."""
        if not self.large or self.policy.backfill != "easy" or self._may_make_room():
            return False
        to_come = sum(each.urgency <= urgency for each in self.to_come)
        return self.searches >= SEARCHES_LARGE or self._reserved() + to_come >= self.reservations_max

    def _reserved(self) -> int:
        """How many have a reservation in this cycle, or are to have one."""
        return len(self.unkept) + (len(self.keeps.all) if self.keeps is not None else 0)

    def _skip_blocked(self, heads: Heads) -> None:
        """All classes that do not fit any more are left out at once, but where somebody was promised a place.
        One after the other each would let all queues in which it is next look for another candidate: with a
        thousand queues that is most of a cycle."""
        pool = self.pool
        spared: dict[int, list[str]] = {}
        for ask_id in pool.promised:
            ask = pool.order.get(ask_id)
            if ask is not None:
                spared.setdefault(pool.order.shape(ask), []).append(ask.queue)
        found = {}
        for number, ask, _ in pool.order.classes():
            kind = pool.class_of(ask)
            if heads.is_blocked(number) or not (self._is_blocked(kind) or self._fits_nowhere(kind)):
                continue
            found[number] = spared.get(number, ())
        heads.skip_classes(found)

    def _fits_nowhere(self, kind: AskClass) -> bool:
        inventory = self.pool.inventory
        if any(inventory.find(variant.ask) is not None for variant in kind.variants):
            return False
        kind.blocked[:] = [inventory.version] * len(kind.blocked)
        return True

    def _try(self, ask: Ask, kind: AskClass) -> tuple[Seated | None, str]:
        """Where it goes now; else why it cannot: capacity | quota | kept."""
        pool = self.pool
        promised = pool.promised.get(ask.id)
        if promised is not None and promised[0] <= self.now_ms:
            seated = promised[1]
            ends_ms = self._ends_ms(ask)
            if WhatIf(pool.inventory, pool.quotas, bounded=self.bounded).allows(
                ask.queue, seated
            ) and self._is_beside(ask, seated, ends_ms):
                return seated, ""
        reason = "capacity"
        for at, variant in enumerate(kind.variants):
            version = kind.blocked[at]
            if version >= 0:
                if not pool.inventory.gained(variant.need, version):
                    kind.blocked[at] = pool.inventory.version
                    continue
                kind.blocked[at] = -1
            ends_ms = self._ends_ms(ask)
            if self._passes_limit(ask.queue, variant.amounts, ends_ms):
                reason = "quota"
                continue
            placements = pool.inventory.find(variant.ask)
            if placements is None:
                kind.blocked[at] = pool.inventory.version
                continue
            if self.bounded and not pool.quotas.lends(ask.queue, variant.amounts):
                reason = "quota"
                continue
            if self.soon is not None or self.keeps is not None or self.unkept:
                placements = self._beside(variant, placements, ends_ms, kind.number)
                if placements is None or self._is_promised(ask.queue, variant.amounts, ends_ms):
                    reason = "kept"
                    continue
            return Seated(variant.need, placements, self._amounts(variant, placements, ask)), ""
        return None, reason

    def _beside(
        self, variant: Variant, today: tuple[Placement, ...], ends_ms: int | None, kind: int
    ) -> tuple[Placement, ...] | None:
        """A place that is free today, soon, and beside all reservations that it touches. `today`: the best
        that is free today."""
        pool = self.pool
        failed = self.over_before.get(kind)
        last = NEVER_MS if ends_ms is None else ends_ms
        if failed is not None and last >= failed and not self.unkept:
            return None
        keeps = self.keeps if self.keeps is not None and not self.unkept else self._keeps()
        if not pool.seats and not pool.leaving_for and not keeps.touches(today):
            return today
        if self.behind:
            self._catch_up()
        if len(keeps.heeded(ends_ms)) == len(keeps.all):
            placements = pool.inventory.find(variant.ask, within=self.soon)
        else:
            mark = keeps.books.mark()
            keeps.lift(ends_ms)
            placements = pool.inventory.find(variant.ask, within=self.soon)
            keeps.books.rollback(mark)
        if placements is not None and keeps.refuses(placements, ends_ms):
            placements = None
        if placements is None:
            self.over_before[kind] = last
        return placements

    def _is_beside(self, ask: Ask, seated: Seated, ends_ms: int | None) -> bool:
        """Whether a certain place disturbs nobody."""
        if self.soon is None and self.keeps is None and not self.unkept:
            return True
        keeps = self._keeps()
        mark = keeps.books.mark()
        keeps.lift(ends_ms)
        fits = keeps.books.allows(ask.queue, seated)
        keeps.books.rollback(mark)
        return (
            fits
            and not keeps.refuses(seated.placements, ends_ms)
            and not self._over_today(ask.queue, seated.amounts)
        )

    def _passes_limit(self, queue: str, amounts: Amounts, ends_ms: int | None) -> bool:
        """Whether a limit is in the way, with what reservations keep of it. (What others lend is asked after
        the place: it is also short when the pool is simply full.)"""
        quotas = self.pool.quotas
        if quotas.over(queue, amounts) is None:
            return False
        if self.keeps is None or not any(keep.scope is not None for keep in self.keeps.all):
            return True
        mark = quotas.mark()
        self.keeps.lift_quotas(ends_ms)
        over = quotas.over(queue, amounts) is not None
        quotas.rollback(mark)
        return over

    def _is_promised(self, queue: str, amounts: Amounts, ends_ms: int | None) -> bool:
        """Whether what a limit leaves is kept for a reservation, or still used by what is leaving."""
        return self._passes_limit(queue, amounts, ends_ms) or self._over_today(queue, amounts)

    def _over_today(self, queue: str, amounts: Amounts) -> bool:
        """Whether a limit is passed while what is leaving still runs."""
        pool = self.pool
        if not pool.leaving_for:
            return False
        mark = pool.quotas.mark()
        for ask_id in pool.seats:
            pool.quotas.refund(_seat_name(ask_id))
        for job_id in pool.leaving_for:
            held = pool.held[job_id]
            pool.quotas.charge(job_id, held.ask.queue, held.seated.amounts)
        over = pool.quotas.over(queue, amounts) is not None
        pool.quotas.rollback(mark)
        return over

    def _amounts(self, variant: Variant, placements: tuple[Placement, ...], ask: Ask) -> Amounts:
        if not variant.need.gpu_milli or len(variant.need.models) == 1:
            return variant.amounts
        model = self.pool.model_of(placements)
        found = variant.by_model.get(model)
        if found is None:  # one for all: thousands may start at once
            found = variant.by_model[model] = amounts_of(variant.need, ask.num_nodes, model)
        return found

    def _ends_ms(self, ask: Ask) -> int | None:
        length_s = expected_s(ask)
        return None if length_s is None else self.now_ms + length_s * 1000

    def _start(self, ask: Ask, seated: Seated, why: str) -> None:
        pool = self.pool
        running = Running(ask=ask, placements=seated.placements, started_ms=self.now_ms)
        pool.inventory.take(ask.id, seated.need, seated.placements)
        pool.quotas.charge(ask.id, ask.queue, seated.amounts)
        if self.keeps is not None:
            self.behind.append((ask, seated))
            if self.keeps.counts(ask.queue) or self.keeps.touches(seated.placements):
                self._catch_up()
        elif self.soon is not None:
            self.soon.take(ask.id, seated.need, seated.placements)
        pool.enter(Held(running, seated, rate_of(seated.need, ask.num_nodes)))
        self.starts.append(Start(ask_id=ask.id, placements=seated.placements, why=why))

    def _catch_up(self) -> None:
        """The books with reservations learn what has started."""
        assert self.keeps is not None
        for ask, seated in self.behind:
            self.keeps.started(ask.id, ask.queue, seated, self._ends_ms(ask))
        self.behind.clear()

    def _why(self, ask: Ask) -> str:
        keeps = self.keeps.all if self.keeps is not None else ()
        if not keeps:
            return why_started(ask)
        ends_ms = self._ends_ms(ask)
        in_time = ends_ms is not None and ends_ms <= keeps[0].at_ms
        return why_started(ask, before=keeps[0].ask, over_in_time=in_time)

    # --- reservations

    def _could_ever(self, ask: Ask, kind: AskClass) -> bool:
        """Whether the open machines, if they were empty, and the limits would do."""
        pool = self.pool
        if kind.could_ever is None:
            large = len(pool.inventory.machines()) > LARGE_POOL  # there only sums are looked at
            kind.could_ever = any(
                pool.inventory.could_ever(variant.need, ask.num_nodes) for variant in kind.variants
            ) and (large or pool.inventory.never(ask) is None)
        return kind.could_ever and any(
            pool.quotas.never(ask.queue, variant.amounts) is None for variant in kind.variants
        )

    def _fall_behind(self, ask: Ask, reason: str, heads: Heads) -> None:
        """It waits. The first of its queue is to have a reservation, and after it the first that needs at
        least twice as much: small jobs find room sooner or later, large ones only where it is kept."""
        conservative = self.policy.backfill == "conservative"
        sizes = self.headed.setdefault(ask.queue, [])
        size = rate_of(ask.needs[0], ask.num_nodes)
        first = not sizes or (len(sizes) < LARGER_MAX and size >= 2 * sizes[-1])
        if first:
            sizes.append(size)
        count = self._reserved()
        room_for_more = count < self.reservations_max
        if self.large and ask.id not in self.standing:
            room_for_more = (
                room_for_more and self.searches < SEARCHES_LARGE and ask.id not in self.pool.timeless
            )
        if self.standing and room_for_more and ask.id not in self.standing:
            # Slots of those who have a promise: only who is more urgent comes before them.
            to_come = [each for each in self.to_come if ask.urgency >= each.urgency]
            room_for_more = count + len(to_come) < self.reservations_max
        if room_for_more and (first or conservative) and self.policy.backfill != "none":
            self.unkept.append(ask)
            self.searches += ask.id not in self.standing
            self.to_come = [each for each in self.to_come if each.id != ask.id]
        if self.policy.backfill == "none":
            heads.close(ask)
        elif reason == "kept" and not (conservative and room_for_more) and self._all_too_long(ask):
            if room_for_more:
                heads.skip_here(ask)
            else:
                heads.skip_class(ask)
        elif reason == "kept" or (conservative and room_for_more):
            # Another of its class may be over sooner, or is to have a reservation, too.
            self.looks += 1
            if self.looks > self.looks_max:
                heads.skip_class(ask)
        elif reason == "quota" or room_for_more or self._may_make_room():
            heads.skip_here(ask)
        else:
            heads.skip_class(ask, but=self._promised_in(ask))

    def _all_too_long(self, ask: Ask) -> bool:
        """Whether nobody of its class is over before the reservations that stand in the way of all that are
        so long."""
        number = self.pool.order.shape(ask)
        failed = self.over_before.get(number)
        return failed is not None and self.now_ms + self.pool.order.shortest_s(number) * 1000 >= failed

    def _promised_in(self, ask: Ask) -> frozenset[str]:
        """Queues in which somebody of its class, who has not been looked at yet, has a promise that
        stands."""
        if not self.to_come:
            return frozenset()
        order = self.pool.order
        number = order.shape(ask)
        return frozenset(each.queue for each in self.to_come if order.shape(each) == number)

    def _keeps(self) -> Keeps:
        """The books with reservations, those that were put off included."""
        pool = self.pool
        if self.soon is None:
            self.soon = pool.inventory.copy()
        if self.keeps is None:
            self.keeps = Keeps(
                WhatIf(self.soon, pool.quotas, bounded=self.bounded),
                pool.neighbour,
                pool.scope_of,
                large=self.large,
            )
        if self.behind:
            self._catch_up()
        for ask in self.unkept:
            releases = self._releases()
            promised = pool.promised.get(ask.id)
            found = self.standing.get(ask.id)
            if found is None:
                place = partial(self._seat_in, ask=ask, first=promised[1] if promised is not None else None)
                found = self.keeps.earliest(ask, releases, place, self.now_ms)
            if found is not None:
                at_ms, seated = found
                length_s = expected_s(ask)
                ends_ms = None if length_s is None else at_ms + length_s * 1000
                self.keeps.add(ask, at_ms, ends_ms, seated, releases)
                self.over_before.clear()
            else:
                pool.timeless.add(ask.id)
        self.unkept.clear()
        return self.keeps

    def _standing(self) -> dict[str, tuple[int, Seated]]:
        """Promises of earlier cycles that hold on: where they were made they may still be kept. In a large
        pool the search for an earlier time costs more than it brings, so it waits until `PROMISE_MS` have
        passed, or the moment has come."""
        pool = self.pool
        if self.now_ms - pool.promised_ms >= PROMISE_MS:
            pool.promised_ms = self.now_ms
            pool.timeless.clear()
            return {}
        machines = pool.inventory.machines()
        found = {}
        for ask_id, (at_ms, seated) in pool.promised.items():
            ask = pool.order.get(ask_id)
            if ask is None or at_ms <= self.now_ms:
                continue
            if all((m := machines.get(p.node_id)) is not None and m.open for p in seated.placements):
                found[ask_id] = at_ms, seated
                self.to_come.append(ask)
        return found

    def _releases(self) -> list[Release]:
        pool = self.pool
        releases = pool.ends.first(RELEASES_MAX if self.large else None)
        for ask_id, seat in pool.seats.items():
            at_ms = self._ends_ms(seat.ask)
            if at_ms is not None:
                releases.append(Release(at_ms, _seat_name(ask_id), seat.ask.queue, seat.seated))
        return releases

    def forecast(self, asks: Iterable[Ask]) -> dict[str, int]:
        """When each of them will probably start, if each had a reservation in this order. Decides nothing."""
        pool = self.pool
        start = pool.quotas.mark()
        soon = pool.inventory.copy()
        for job_id in pool.leaving_for:
            soon.give(job_id)
            pool.quotas.refund(job_id)
        for ask_id, seat in pool.seats.items():
            try:
                soon.take(_seat_name(ask_id), seat.seated.need, seat.seated.placements)
            except OverCommitted:
                continue
            pool.quotas.charge(_seat_name(ask_id), seat.ask.queue, seat.seated.amounts)
        self.soon = soon
        self.unkept = [ask for ask in asks if ask.id not in pool.seats]
        keeps = self._keeps()
        pool.quotas.rollback(start)
        return {keep.ask.id: keep.at_ms for keep in keeps.all}

    # --- making room

    def _may_make_room(self) -> bool:
        if self.attempts >= ATTEMPTS_MAX:
            return False
        if self.pool.leaving_for:
            return True
        return bool(len(self.pool.roster)) and (self.policy.preemption or self.policy.consolidation)

    def _make_room(self, ask: Ask, kind: AskClass, reason: str) -> Room | None:
        pool, policy, roster = self.pool, self.policy, self.pool.roster
        if not self._may_make_room():
            return None
        if (ask.queue, kind.number) in self.tried:
            return None
        amounts = kind.variants[0].amounts
        victims = roster.victims(ask, amounts, pool.quotas, ()) if policy.preemption else []
        moving = policy.consolidation and reason == "capacity" and bool(len(roster))
        if not victims and not moving and not pool.leaving_for:
            return None
        self.attempts += 1
        self.tried.add((ask.queue, kind.number))
        books = self._keeps().books
        seat = partial(self._seat_in, books, ask)
        if pool.leaving_for:
            seated = seat()
            if seated is not None:
                return Room((), seated)
        spared = self._spared()
        if moving:
            room = move_aside(
                ask, seat, lambda held: self._seat_in(books, held.ask),
                books=books, candidates=roster.movable(), spared=spared, now_ms=self.now_ms,
            )  # fmt: skip
            if room is not None:
                return room
        victims = [victim for victim in victims if victim.held.id not in spared]
        return make_room(ask, amounts, victims, seat, books=books) if victims else None

    def _spared(self) -> frozenset[str]:
        """Whose room is promised to reservations."""
        pool, keeps = self.pool, self._keeps()
        if self.spared[0] != len(keeps.all):
            self.spared = (
                len(keeps.all),
                frozenset(
                    job_id
                    for keep in keeps.all
                    for node_id in keep.needs
                    for job_id in pool.on.get(node_id, ())
                    if keeps.counts_on(pool.held[job_id].running.placements)
                ),
            )
        return self.spared[1]

    def _seat_in(self, books: WhatIf, ask: Ask, first: Seated | None = None) -> Seated | None:
        """Where it would go in these books, within quotas. `first`: a place that was promised is preferred,
        so that promises which were made together can be kept together."""
        if first is not None and books.allows(ask.queue, first):
            return first
        for variant in self.pool.class_of(ask).variants:
            if books.bounded and books.quotas.over(ask.queue, variant.amounts) is not None:
                continue
            placements = books.inventory.find(variant.ask)
            if placements is not None and books.within(ask.queue, variant.amounts):
                return Seated(variant.need, placements, self._amounts(variant, placements, ask))
        return None

    def _give_seat(self, ask: Ask, room: Room) -> None:
        pool = self.pool
        if self.soon is None:
            self.soon = pool.inventory.copy()
        if self.behind:
            self._catch_up()
        queues = {queue.path: queue for queue in pool.tenancy.queues}
        for victim in room.victims:
            held = victim.held
            guaranteed = None
            if victim.kind == "reclaim" and pool.quotas.below_guarantee(ask.queue, room.seated.amounts):
                guaranteed = guarantee_of(queues, ask.queue, room.seated.amounts)
            why = why_evicted(ask, held.ask, victim.kind, guaranteed=guaranteed)
            self.evictions.append(Evict(job_id=held.id, for_id=ask.id, kind=victim.kind, why=why))
        for victim in room.victims:
            held = victim.held
            pool.leaving_for[held.id] = ask.id
            running = msgspec.structs.replace(held.running, leaving=True)
            pool.enter(msgspec.structs.replace(held, running=running))
            pool.quotas.refund(held.id)
            self.soon.give(held.id)
        passing = ask.id not in pool.leaving_for.values()
        seats = [(ask.id, Seat(ask, room.seated, passing=passing))]
        for job_id, seated in room.moved:
            seats.append((job_id, Seat(pool.held[job_id].ask, seated, gone=True)))
        for ask_id, seat in seats:
            pool.seats[ask_id] = seat
            pool.quotas.charge(_seat_name(ask_id), seat.ask.queue, seat.seated.amounts)
            self.soon.take(_seat_name(ask_id), seat.seated.need, seat.seated.placements)

    def _restore_quotas(self) -> None:
        """Today's books again: what is leaving counts, seats do not."""
        pool = self.pool
        for ask_id in pool.seats:
            pool.quotas.refund(_seat_name(ask_id))
        for job_id in pool.leaving_for:
            held = pool.held[job_id]
            pool.quotas.charge(job_id, held.ask.queue, held.seated.amounts)

    def _wake(self) -> int | None:
        """When the same books may give another answer."""
        pool = self.pool
        times = self.wakes
        later = pool.order.next_ms()
        if later is not None:
            times.append(later)
        ripe = pool.roster.next_ms() if len(pool.order) else None
        if ripe is not None and (self.policy.preemption or self.policy.consolidation):
            times.append(ripe)
        if any(seat.gone_ms is not None for seat in pool.seats.values()):
            times.append(self.now_ms + COMES_BACK_MS)
        return min((each for each in times if each > self.now_ms), default=None)


def _seat_name(ask_id: str) -> str:
    return f"seat:{ask_id}"
