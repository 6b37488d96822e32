"""A pool as its last cycle left it, for whoever reads: why each pending workload waits, its place, its start.

Reading changes nothing: what has to be tried is tried in a copy. The reason is worked out once for each
equivalence class (equal needs, ranks and topology) in a queue, and only for those that somebody asks about.
Every change of the cache makes another snapshot (`PoolCache.snapshot`), so what was worked out stays true.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from heapq import nsmallest
from typing import TYPE_CHECKING, Final, NamedTuple

from argosy.model.errors import ArgosyError
from argosy.model.tenancy import QueueUsage
from argosy.scheduler.ask import Ask, Running, Waiting
from argosy.scheduler.estimate import is_guess
from argosy.scheduler.explain import behind_text, beyond_text, later_text, leaving_text, sentence, users_text
from argosy.scheduler.free import CPUS, GPUS, MEMORY, Free
from argosy.scheduler.outlook import Outlook
from argosy.scheduler.owed import owed_text

if TYPE_CHECKING:
    from argosy.scheduler.equivalence import EquivalenceClass, Variant
    from argosy.scheduler.inventory import Inventory
    from argosy.scheduler.pool import Pool

LINE_MAX: Final = 1000  # pending workloads of which the place in the order of the pool is told
HOLDERS_TOLD: Final = 3  # holders of what is short that are named
FORESEEN: Final = 4  # pending workloads of which lists tell when they start,
FORESEEN_MACHINES: Final = 64  # in pools of at most so many machines
AT_ONCE_MAX: Final = 64  # machines, running jobs and pending workloads: then it takes a few milliseconds

STARTS_NOW: Final = "There is room, and it is about to be considered."


class Verdict(NamedTuple):
    """Why a class of asks does not start in a queue. `text` "": it would have room (code `order`)."""

    code: str
    text: str = ""


class Shortage(NamedTuple):
    """What a class of asks lacks on the machines that suit it, and who has it."""

    scarce: str  # gpus | memory | cpus
    models: tuple[str, ...]  # of the devices that would do
    wanted: int  # by each rank
    used: int
    total: int
    holders: tuple[str, ...]  # ids of the first `HOLDERS_TOLD`
    others: int  # so many hold something of it besides


class PoolSnapshot:
    """One pool at one moment. `now_ms`: until when the pool was told. `foreseen`: who starts first, by id, as
    an earlier snapshot foresaw it."""

    def __init__(self, pool: Pool, now_ms: int, foreseen: Sequence[str] = ()) -> None:
        self._pool = pool
        self._foreseen = foreseen
        self.now_ms = now_ms
        self._verdicts: dict[tuple[int, str], Verdict] = {}
        self._fulls: dict[tuple[int, int], Verdict] = {}  # by class and candidate
        self._words: dict[int, str] = {}  # what readers say of a class
        self._models: dict[tuple[str, ...], tuple[str, ...]] = {}  # by machines
        self._held: dict[str, dict[str, list[tuple[str, int]]]] = {}
        self._users_of_machines: dict[tuple[str, tuple[str, ...]], tuple[int, tuple[str, ...], int]] = {}
        self._users: dict[str, str] = {}

    # --- what was known anyway

    @cached_property
    def line(self) -> tuple[Ask, ...]:
        """Who waits, in the order in which they will probably start: the first `LINE_MAX`. The next cycles
        say who is first, as shares are others when something has ended: played now in small pools, else as
        they were foreseen last. The rest, as a cycle would consider them now."""
        considered, order = self._considered, self._foreseen
        if len(considered) < 2:
            return considered
        if self.machine_count + len(self._pool.held) + len(considered) <= AT_ONCE_MAX:
            self._outlook.play_until(most=FORESEEN)
            order = self._outlook.order
        first = {id: number for number, id in enumerate(order)}
        return tuple(sorted(considered, key=lambda ask: first.get(ask.id, len(first))))

    @cached_property
    def _considered(self) -> tuple[Ask, ...]:
        return self._pool.line(self.now_ms, LINE_MAX)

    @cached_property
    def _outlook(self) -> Outlook:
        return Outlook(self._pool, self._considered, self.now_ms)

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """The place in `line`, from 1, by id."""
        return {ask.id: number for number, ask in enumerate(self.line, 1)}

    @cached_property
    def usage(self) -> Sequence[QueueUsage]:
        """What every queue uses of this pool, by path."""
        return sorted(self._pool.quotas.rows(), key=lambda row: row.path)

    @cached_property
    def pending(self) -> tuple[Ask, ...]:
        """All that wait: those of `line` in their order, then the others as they came."""
        places, last = self.positions, len(self.positions) + 1
        seated = (nominated.ask for nominated in self._pool.nominated.values() if not nominated.moving)
        asks = {ask.id: ask for ask in (*seated, *self._pool.order.asks())}
        return tuple(
            sorted(
                asks.values(),
                key=lambda ask: (places.get(ask.id, last), ask.submitted_ms, ask.number, ask.id),
            )
        )

    @cached_property
    def allocations(self) -> Mapping[str, Running]:
        """Who holds which parts of the machines, by id."""
        return {id: held.running for id, held in sorted(self._pool.held.items())}

    @property
    def machine_count(self) -> int:
        return len(self._pool.inventory.machines())

    def ask(self, ask_id: str) -> Ask | None:
        """What waits under this id; None when nothing does."""
        nominated = self._pool.nominated.get(ask_id)
        if nominated is not None:
            return None if nominated.moving else nominated.ask
        return self._pool.order.get(ask_id)

    # --- copies for what has to be tried

    @cached_property
    def _inventory(self) -> Inventory:
        return self._pool.inventory.copy()

    # --- why

    def explain(self, ask_id: str, now_ms: int, *, when: bool = True) -> Waiting:
        """Why something waits, and when it probably starts: by a forecast of the line up to it (`when`), else
        only what a reservation of the last cycle says. ArgosyError when nothing of that id waits."""
        pool = self._pool
        nominated = pool.nominated.get(ask_id)
        ask = nominated.ask if nominated is not None else pool.order.get(ask_id)
        if ask is None:
            raise ArgosyError("not-found", f"nothing with the id {ask_id} waits in this pool")
        if ask.not_before_ms > now_ms:
            text = later_text(ask.not_before_ms, now_ms)
            return Waiting(ask_id=ask_id, code="later", text=text, starts_at_ms=ask.not_before_ms)
        if nominated is not None:
            leaving = [pool.held[job].ask for job, taker in pool.terminating.items() if taker == ask_id]
            return Waiting(ask_id=ask_id, code="order", text=leaving_text(leaving), starts_at_ms=now_ms)
        verdict = self._verdict(ask)
        if verdict.code == "never":
            return Waiting(ask_id=ask_id, code="never", text=verdict.text)
        if verdict.code == "beyond":
            return Waiting(ask_id=ask_id, code="limit", text=verdict.text)
        return Waiting(
            ask_id=ask_id,
            code=verdict.code,
            text=verdict.text or self._behind(ask, now_ms),
            place=pool.order.place(ask_id),
            starts_at_ms=self._expected(ask_id) if when else self._reserved(ask_id),
            owed=owed_text(pool, ask, now_ms) if when else "",
        )

    def _verdict(self, ask: Ask) -> Verdict:
        kind = self._pool.equivalence_class(ask)
        key = (kind.number, ask.queue)
        found = self._verdicts.get(key)
        if found is None:
            found = self._verdicts[key] = self._judge(ask, kind)
        return found

    def _judge(self, ask: Ask, kind: EquivalenceClass) -> Verdict:
        pool, queue = self._pool, ask.queue
        never = pool.inventory.never(ask)
        if never is not None:
            return Verdict("never", sentence(never.text))
        limits = [pool.quotas.never(queue, variant.amounts) for variant in kind.variants]
        if all(limits) and limits[0] is not None:
            return Verdict("beyond", beyond_text(limits[0]))
        over = lack = full = None
        for at, variant in self._possible(kind):
            passed = pool.quotas.over(queue, variant.amounts)
            if passed is not None:
                over = over or passed
            elif not self._fits(kind, at, variant):
                full = full or (at, variant)
            elif (missing := pool.quotas.lack(queue, variant.amounts)) is not None:
                lack = lack or missing
            else:
                return Verdict("order")
        if lack is not None:
            return Verdict("quota", sentence(lack.render()))
        if full is not None:
            return self._full(kind.number, *full)
        assert over is not None
        return Verdict("limit", sentence(over.render()))

    def _possible(self, kind: EquivalenceClass) -> list[tuple[int, Variant]]:
        """Candidates that some state of the machines could hold: only those have a reason that ends."""
        numbered = list(enumerate(kind.variants))
        if len(numbered) == 1:
            return numbered
        never = self._pool.inventory.never
        return [pair for pair in numbered if never(pair[1].ask) is None] or numbered

    def _fits(self, kind: EquivalenceClass, at: int, variant: Variant) -> bool:
        if kind.blocked[at] == self._pool.inventory.version:
            return False  # the last cycle has looked
        return self._inventory.find(variant.ask) is not None

    def _full(self, number: int, at: int, variant: Variant) -> Verdict:
        """A candidate does not fit now: the same in every queue."""
        found = self._fulls.get((number, at))
        if found is None:
            why = self._inventory.why_not(variant.ask)
            text = sentence(why.text)
            if why.scarce:
                text = f"{text} {self._users_of(why.scarce)}".strip()
            found = self._fulls[number, at] = Verdict(why.code, text)
        return found

    def _users_of(self, name: str) -> str:
        if name not in self._users:
            users: dict[str, int] = {}
            for held in self._pool.held.values():
                amount = held.allocation.amounts.get(name, 0)
                users[held.ask.queue] = users.get(held.ask.queue, 0) + amount
            self._users[name] = users_text(users, name)
        return self._users[name]

    def _behind(self, ask: Ask, now_ms: int) -> str:
        """There is room: who comes before it, and has it reserved."""
        pool = self._pool
        before = next((each for each in pool.reservations if each.ask_id != ask.id), None)
        first = pool.order.get(before.ask_id) if before is not None else None
        if before is not None and first is not None:
            known = before.starts_at_ms < self._guessed_from_ms
            return behind_text(first, before.starts_at_ms if known else None, now_ms)
        if pool.tenancy.policy.backfill == "none":
            first = self.line[0] if self.line else ask
            if first.id != ask.id:
                return behind_text(first, None, now_ms)
        return STARTS_NOW

    def noted(self, ask: Ask, words: Callable[[], str]) -> str:
        """`words` about the class of an ask, asked for once."""
        number = self._pool.order.shape(ask)
        if number not in self._words:
            self._words[number] = words()
        return self._words[number]

    def shortage(self, ask: Ask, nobody: str) -> Shortage | None:
        """What it lacks and who has it; None where that says nothing. `nobody`: how ids of holders begin that
        are nobody."""
        need = ask.needs[0]
        free = self._inventory.free_for(need)
        if len(free.machines) < ask.num_nodes and ask.spread == "node":
            return None
        scarce = free.scarce(need, ask.num_nodes)
        wanted = {GPUS: need.gpu_milli, MEMORY: need.memory_bytes, CPUS: need.cpus_milli}[scarce]
        used, first, others = self._users_on(scarce, free.machines, nobody)
        if not first:
            return None
        total, models = self._all_of(scarce, free, ask)
        return Shortage(scarce, models, wanted, used, total, first, others)

    def _users_on(
        self, scarce: str, machines: tuple[str, ...], nobody: str
    ) -> tuple[int, tuple[str, ...], int]:
        """How much of a resource is held on these machines, the first holders by id, and how many more."""
        key = (scarce, machines)
        if key not in self._users_of_machines:
            held = self._held_on(scarce)
            used: dict[str, int] = {}
            for machine_id in machines:
                for holder, amount in held.get(machine_id, ()):
                    if not holder.startswith(nobody):
                        used[holder] = used.get(holder, 0) + amount
            first = tuple(nsmallest(HOLDERS_TOLD, used))
            self._users_of_machines[key] = sum(used.values()), first, len(used) - len(first)
        return self._users_of_machines[key]

    def _held_on(self, scarce: str) -> Mapping[str, Sequence[tuple[str, int]]]:
        """Who holds how much of a resource, by machine."""
        if scarce not in self._held:
            found: dict[str, list[tuple[str, int]]] = {}
            for holder, held in self._pool.held.items():
                for place in held.running.placements:
                    if scarce == GPUS:
                        amount = sum([share.milli for share in place.devices])
                    else:
                        amount = place.cpus_milli if scarce == CPUS else place.memory_bytes
                    if amount:
                        found.setdefault(place.node_id, []).append((holder, amount))
            self._held[scarce] = found
        return self._held[scarce]

    def _all_of(self, scarce: str, free: Free, ask: Ask) -> tuple[int, tuple[str, ...]]:
        machines = self._pool.inventory.machines()
        if scarce == CPUS:
            return sum(machines[each].cpus_milli for each in free.machines), ()
        if scarce == MEMORY:
            return sum(machines[each].memory_bytes for each in free.machines), ()
        models = ask.needs[0].models
        if not models:
            key = free.machines
            if key not in self._models:
                self._models[key] = tuple(sorted({d.model for each in key for d in machines[each].devices}))
            models = self._models[key]
        return 1000 * free.devices, models

    # --- when

    def foresee(self, most: int = FORESEEN) -> Sequence[str]:
        """Who will probably start first, by id, worked out anew."""
        self._outlook.play_until(most=most)
        return self._outlook.order[:most]

    def forecast(self, most: int) -> Mapping[str, int]:
        """When the first that start will probably do so, by id, in their order, where that is known."""
        starts = self._outlook.starts
        return {id: starts[id] for id in self.foresee(most) if id in starts}

    def _expected(self, ask_id: str) -> int | None:
        """When it will probably start, if it is among those who are considered first. What hangs on the end
        of a job of which nothing is known is not told."""
        self._outlook.play_until(ask_id)
        return self._outlook.starts.get(ask_id, self._reserved(ask_id))

    def _reserved(self, ask_id: str) -> int | None:
        """The same for those who have a reservation since the last cycle: it costs nothing."""
        for reservation in self._pool.reservations:
            if reservation.ask_id == ask_id and reservation.starts_at_ms < self._guessed_from_ms:
                return reservation.starts_at_ms
        return None

    @cached_property
    def _guessed_from_ms(self) -> float:
        """The first moment at which something is expected to end of which nothing is known: from then on all
        is guessing."""
        held = self._pool.held
        ends = (
            end.at_ms for end in self._pool.ends if end.at_ms > self.now_ms and is_guess(held[end.holder].ask)
        )
        return next(ends, float("inf"))
