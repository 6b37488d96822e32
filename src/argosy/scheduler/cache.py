"""The scheduler cache of one pool: what it has been told, kept in step by telling only what differs.

It has one owner, who tells it about machines, pending workloads and allocations between two cycles. Nothing
that answers a request changes it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.tenancy import Tenancy
from argosy.scheduler.ask import Ask, Decision, Machine, Running
from argosy.scheduler.inventory import Inventory, OverCommitted, need_of
from argosy.scheduler.pool import Pool
from argosy.scheduler.quota import amounts_of
from argosy.scheduler.recall import Use
from argosy.scheduler.snapshot import FORESEEN, FORESEEN_MACHINES, PoolSnapshot


class PoolCache:
    """One pool, and what is known of it. Only changes are entered."""

    def __init__(self, tenancy: Tenancy, owner: str) -> None:
        self.pool = Pool(tenancy, owner=owner)
        self.machines: dict[str, Machine] = {}
        self.known: dict[str, Ask | Running] = {}
        self.waiting: set[str] = set()  # ids of asks
        self.faults: dict[str, str] = {}  # by machine: what is wrong in what it says of itself
        self.unheld: dict[str, Running] = {}  # what the machines have no room for: see `_hold`
        self._closed: set[str] = set()
        self._withheld: Mapping[str, Running] = {}
        self._empty: Inventory | None = None  # all is free but what is withheld
        self.unchecked: set[str] = set()  # asks of which it is not known whether they could ever fit
        self.now_ms = 0  # until when it was told
        self._snapshot: PoolSnapshot | None = None  # of the pool as it is
        self.expected: Mapping[str, int] = {}  # when the first in line start, by the last forecast
        self._foreseen: tuple[str, ...] = ()  # who they are, in their order

    # -- what there is --------------------------------------------------------------------------------------

    def set_machines(self, machines: Iterable[Machine]) -> None:
        wanted = {machine.id: machine for machine in machines}
        if wanted == self.machines:
            return
        self._snapshot = None
        for machine_id in [each for each in self.machines if each not in wanted]:
            del self.machines[machine_id]
            self.faults.pop(machine_id, None)
            self.pool.drop_machine(machine_id)
        for machine_id, machine in wanted.items():
            if self.machines.get(machine_id) != machine:
                self.machines[machine_id] = machine
                self._put(machine)
        left = 0
        while self.faults and left != len(self.faults):  # those that stood against them may have changed
            left = len(self.faults)
            for machine_id in list(self.faults):
                self._put(self.machines[machine_id])
        self.unchecked = set(self.waiting)

    def _put(self, machine: Machine) -> None:
        """Into the pool. One whose domains contradict those of the others is used like any other, but has no
        place in the topology until one of them is corrected."""
        machine = self._opened(machine)
        try:
            self.pool.put_machine(machine)
        except ArgosyError as error:
            self.faults[machine.id] = (
                f"{error.what}; until that is corrected, {machine.name or machine.id} has no place in the "
                "topology"
            )
            self.pool.put_machine(msgspec.structs.replace(machine, domains=()))
        else:
            self.faults.pop(machine.id, None)

    def _opened(self, machine: Machine) -> Machine:
        if machine.id in self._closed and machine.open:
            return msgspec.structs.replace(machine, open=False, closed="has less than what runs on it holds")
        return machine

    # -- allocations and pending requests -------------------------------------------------------------------

    def set(self, id: str, value: Ask | Running | None, *, leaving_for: str = "") -> None:
        """Set whether `id` is pending, holds an allocation, or is absent. `leaving_for`: for an allocation
        that is being ended, the request that it makes room for."""
        old = self.known.get(id)
        if old == value:
            return
        self._snapshot = None
        if id in self.unheld:
            del self.unheld[id]
            self._close_machines()
        if isinstance(old, Running) and not isinstance(value, Running):
            self.pool.ended(id)
        elif isinstance(old, Ask) and value is None:
            self.pool.withdraw(id)
        if isinstance(value, Ask):
            self.pool.submit(value)
            self.waiting.add(id)
            self.unchecked.add(id)
        else:
            self.waiting.discard(id)
            self.unchecked.discard(id)
        if value is None:
            del self.known[id]
            return
        self.known[id] = value
        if isinstance(value, Running):
            self._hold(id, value, leaving_for)

    def _hold(self, id: str, value: Running, leaving_for: str) -> None:
        """Where the cache has no room for it (a machine has shrunk, or is not known yet), its machines take
        nothing new, so that nothing is allocated twice."""
        self.pool.running(value, leaving_for=leaving_for)
        if self.pool.inventory.holding(id) != value.placements:
            stays = msgspec.structs.replace(
                value.ask, preemptible=False
            )  # it could give back what nobody has
            self.pool.running(msgspec.structs.replace(value, ask=stays), leaving_for=leaving_for)
            self.unheld[id] = value
            self._close_machines()

    def settle(self) -> None:
        """Try again to enter allocations that did not fit."""
        for id, value in sorted(self.unheld.items()):
            self.set(id, None)
            self.set(id, value)

    def _close_machines(self) -> None:
        closed = {place.node_id for value in self.unheld.values() for place in value.placements}
        for machine_id in sorted(closed ^ self._closed):
            self._closed ^= {machine_id}
            if machine_id in self.machines:
                self._put(self.machines[machine_id])

    def hopeless(self) -> list[tuple[str, str]]:
        """Requests that would not fit even if these machines were empty, each with the machine that comes
        nearest. Each is checked once for one set of machines; those that are returned are removed from the
        cache."""
        found: list[tuple[str, str]] = []
        for id in sorted(self.unchecked):
            ask = self.known[id]
            assert isinstance(ask, Ask)
            never = self.never(ask)
            if never:
                found.append((id, never))
        self.unchecked.clear()
        for id, _ in found:
            self.set(id, None)
        return found

    def never(self, ask: Ask) -> str:
        """Why no state of these machines could hold the ask, with the nearest machine; "" when some could."""
        nearest = self.pool.inventory.never(ask)
        if nearest is not None:
            return nearest.text.removesuffix(".")
        if not self._withheld:
            return ""
        if self._empty is None:
            self._empty = Inventory(
                msgspec.structs.replace(each, open=True) for each in self.machines.values()
            )
            for value in self._withheld.values():
                try:
                    self._empty.take(value.ask.id, value.ask.needs[0], value.placements)
                except OverCommitted:  # its facts say something else meanwhile
                    continue
        if self._empty.find(ask) is not None:
            return ""
        return f"the cluster has a part of its devices only. {self._empty.why_not(ask).text}".removesuffix(
            "."
        )

    def stretched(self, ask: Ask, most: int) -> Ask:
        """The ask with the largest number of nodes up to `most` that there are room and quota for now; as it
        is where there are for none. Bisection: where some fit, fewer do."""
        quotas, inventory = self.pool.quotas, self.pool.inventory
        quotas.set_capacity(inventory.capacity())
        low, high = ask.num_nodes, most
        while low < high:
            middle = (low + high + 1) // 2
            larger = msgspec.structs.replace(ask, num_nodes=middle)
            placements = inventory.find(larger)
            amounts = amounts_of(need_of(ask, placements), middle) if placements is not None else {}
            fits = placements is not None and quotas.over(ask.queue, amounts) is None
            if fits and quotas.lends(ask.queue, amounts):
                low = middle
            else:
                high = middle - 1
        return ask if low == ask.num_nodes else msgspec.structs.replace(ask, num_nodes=low)

    def withhold(self, wanted: Mapping[str, Running]) -> None:
        """Set which parts of the machines nobody may use in this pool."""
        for id in self._withheld.keys() - wanted.keys():
            self.set(id, None)
        self._withheld, self._empty = wanted, None
        self._snapshot = None
        for id, value in sorted(wanted.items()):
            self.set(id, value)

    # -- deciding -------------------------------------------------------------------------------------------

    def snapshot(self) -> PoolSnapshot:
        """The pool as it is now, for whoever reads: the same object until something changes. Nothing is
        copied before somebody looks."""
        if self._snapshot is None:
            self._snapshot = PoolSnapshot(self.pool, self.now_ms, self._foreseen)
        return self._snapshot

    def foresee(self) -> None:
        """Work out anew when the first in line will probably start: longer work than a cycle, so it is for
        the time between two of them, and for pools in which it takes milliseconds."""
        self.expected, foreseen = {}, self._foreseen
        self._foreseen = ()
        if self.waiting and len(self.machines) <= FORESEEN_MACHINES:
            self._foreseen = tuple(self.snapshot().foresee())
            self.expected = self.snapshot().forecast(FORESEEN)
        if self._foreseen != foreseen:
            self._snapshot = None  # its line has another order

    def set_tenancy(self, tenancy: Tenancy) -> None:
        """Replace the queues, limits and policy."""
        self._snapshot = None
        self.pool.set_tenancy(tenancy)

    def recall(self, uses: Iterable[Use], now_ms: int) -> None:
        """Restore what queues borrowed lately from records of usage. The machines must be known already."""
        self._snapshot = None
        quotas = self.pool.quotas
        quotas.set_capacity(self.pool.inventory.capacity())
        quotas.recall((use.span(self.pool, now_ms) for use in uses), now_ms)

    def pass_time(self, now_ms: int) -> None:
        """Advance the clock. Call it before any change is entered: until then everything was as the cache has
        it."""
        self._snapshot, self.now_ms = None, now_ms
        self.pool.quotas.advance(now_ms)

    def cycle(self, now_ms: int) -> Decision:
        """One cycle of the pool. What it started and evicted stands in the books until rows say otherwise:
        the caller has it looked at again (`PoolCaches.recheck`)."""
        if not self.pool.is_settled(now_ms):
            self._snapshot, self.now_ms = None, now_ms
        decision = self.pool.cycle(now_ms)
        for evict in decision.evictions:
            value = self.known.get(evict.job_id)
            if isinstance(value, Running):
                self.known[evict.job_id] = msgspec.structs.replace(value, leaving=True)
        for start in decision.starts:
            ask = self.known[start.ask_id]
            assert isinstance(ask, Ask)
            self.known[start.ask_id] = Running(ask=ask, placements=start.placements, started_ms=now_ms)
            self.waiting.discard(start.ask_id)
            self.unchecked.discard(start.ask_id)
        return decision
