"""One pool: its books, and one cycle after the other that decides who starts, who makes room, and who has a
reservation.

A cycle costs what has changed. Nothing new: a comparison. Each class of equal asks is looked at once and then
skipped until something that it could use has become free (`Inventory.gained`). Reservations are worked out
only when somebody who comes later could start.

What is terminating still holds its room. The request that it was preempted for has a *nominated placement*,
kept in a second inventory of the near future (what is terminating has left, nominated placements are taken).
Whatever starts must fit today and in that future, so nobody else takes the room, and nobody is preempted
twice for it.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from itertools import chain, islice, takewhile
from typing import Final

import msgspec

from argosy.model.offer import DeviceShare, Placement
from argosy.model.tenancy import Tenancy
from argosy.scheduler.ask import WHOLE_MILLI, Ask, Decision, Machine, Need, Reservation, Running, Waiting
from argosy.scheduler.cycle import Cycle, Nominated
from argosy.scheduler.ends import Ends, Release
from argosy.scheduler.equivalence import EquivalenceClass, Variant
from argosy.scheduler.estimate import expected_end_ms
from argosy.scheduler.inventory import Inventory, OverCommitted, need_of
from argosy.scheduler.order import Order
from argosy.scheduler.preempt import Roster
from argosy.scheduler.quota import Quotas, amounts_of
from argosy.scheduler.reserve import Promise
from argosy.scheduler.snapshot import PoolSnapshot
from argosy.scheduler.whatif import Allocation, Held, rate_of

WHOLE_DEVICE: Final = Need(gpu_milli=WHOLE_MILLI)


class Pool:
    """The books of one pool. The caller tells what happens; `cycle` decides, and enters what it decided."""

    def __init__(
        self,
        tenancy: Tenancy = Tenancy(),  # noqa: B008 (a frozen value)
        *,
        owner: str = "",
        machines: Iterable[Machine] = (),
    ) -> None:
        self.tenancy = tenancy
        self.owner = owner
        self.inventory = Inventory(machines)
        self.quotas = Quotas(tenancy, self.inventory.capacity(), owner=owner)
        self.order = Order()
        self.held: dict[str, Held] = {}
        self.terminating: dict[str, str] = {}  # what is being ended → for whom; "": for nobody here
        self.nominated: dict[str, Nominated] = {}
        self.reservations: tuple[Reservation, ...] = ()
        self.promised: dict[str, Promise] = {}  # what they promise: when, and where
        self.weighed = 0  # so many waited when the inventory was last told what is asked for
        self.timeless: set[str] = set()  # for whom no time was found lately,
        self.timeless_ms = -(1 << 62)  # since this moment
        self.epoch = 0  # grows with every event
        self._cycled = -1  # epoch after the last cycle
        self._wake_ms: int | None = None
        self._resized = False
        self._classes: dict[int, EquivalenceClass] = {}
        self.on: dict[str, dict[str, None]] = {}  # machine → who holds something there
        self.roster = Roster(tenancy.policy)  # who may be made to go
        self.ends = Ends()  # when what runs will probably end
        self._limited = _limited_paths(tenancy)
        self._models = _names_models(tenancy)

    # --- what happens

    def put_machine(self, machine: Machine) -> None:
        """Add a machine or replace a changed one."""
        if self.inventory.machines().get(machine.id) != machine:
            self.inventory.put(machine)
            self._changed_machines()

    def drop_machine(self, machine_id: str) -> None:
        """A machine is gone. What ran there is told by `ended`."""
        if machine_id in self.inventory.machines():
            self.inventory.drop(machine_id)
            self._changed_machines()

    def _changed_machines(self) -> None:
        self.epoch += 1
        self._resized = True
        self._classes.clear()

    def submit(self, ask: Ask) -> None:
        """Add a pending request. The same one again changes nothing, another one with its id replaces it; one
        that runs already is ignored."""
        if ask.id in self.held or self.order.get(ask.id) == ask:
            return
        nominated = self.nominated.get(ask.id)
        if nominated is not None:
            if nominated.ask == ask or nominated.moving:
                self.nominated[ask.id] = nominated._replace(ask=ask, moving=False, gone_ms=None)
                self.epoch += 1
                return
            del self.nominated[ask.id]
        self.wait(ask)
        self.epoch += 1

    def withdraw(self, ask_id: str) -> None:
        """Remove a pending request; absent is fine. Victims that are already terminating for it still end."""
        if ask_id in self.order:
            self.wait_no_more(ask_id)
            self.epoch += 1
        if self.nominated.pop(ask_id, None) is not None:
            self.epoch += 1

    def running(self, running: Running, *, leaving_for: str = "") -> None:
        """Something holds a part of the pool: what other hands have started, what ran before a restart, news
        of what runs.

        `leaving_for`: of what is being ended, the ask that it makes room for. What the machines do not have
        (any more) is not held.
        """
        job_id = running.ask.id
        old = self.held.get(job_id)
        if old is not None and old.running == running:
            return
        self.epoch += 1
        self.wait_no_more(job_id)
        self.nominated.pop(job_id, None)
        if running.leaving and not running.stuck:
            self.terminating[job_id] = leaving_for or self.terminating.get(job_id, "")
        else:
            self.terminating.pop(job_id, None)
        if old is not None and old.running.placements == running.placements:
            if old.ask.queue != running.ask.queue:  # the tree is another one
                self.quotas.refund(job_id)
                self.quotas.charge(job_id, running.ask.queue, old.allocation.amounts)
            self.enter(msgspec.structs.replace(old, running=running))
            return
        if old is not None:
            self._remove(job_id)
        need = need_of(running.ask, running.placements)
        amounts = amounts_of(need, running.ask.num_nodes, self.models_of(need, running.placements))
        allocation = Allocation(need, running.placements, amounts)
        kept: list[Placement] = []
        try:
            self.inventory.take(job_id, need, running.placements)
        except OverCommitted:  # a machine is gone or smaller: what is there all the same
            for placement in running.placements:
                self.inventory.give(job_id)
                try:
                    self.inventory.take(job_id, need, [*kept, placement])
                    kept.append(placement)
                except OverCommitted:
                    if kept:
                        self.inventory.take(job_id, need, kept)
        self.quotas.charge(job_id, running.ask.queue, amounts)
        self.enter(Held(running, allocation, rate_of(need, running.ask.num_nodes)))

    def ended(self, job_id: str) -> None:
        """Remove an allocation; absent is fine."""
        if job_id in self.held:
            self._remove(job_id)
            self.terminating.pop(job_id, None)
            self.epoch += 1

    def set_tenancy(self, tenancy: Tenancy) -> None:
        """Other queues, other limits, another policy, from the next cycle on."""
        if tenancy == self.tenancy:
            return
        self.tenancy = tenancy
        self.quotas = self.quotas.successor(tenancy)
        self.roster = Roster(tenancy.policy)
        for held in self.held.values():
            self.roster.add(held)
        self._limited = _limited_paths(tenancy)
        self._models = _names_models(tenancy)
        self._classes.clear()
        self.epoch += 1

    # --- books

    def wait(self, ask: Ask) -> None:
        self.order.add(ask)

    def wait_no_more(self, ask_id: str) -> None:
        self.order.remove(ask_id)

    def enter(self, held: Held) -> None:
        self.held[held.id] = held
        for placement in held.running.placements:
            self.on.setdefault(placement.node_id, {})[held.id] = None
        self.roster.add(held)
        if held.running.leaving or not self._expect_end(held, held.running.started_ms):
            self.ends.remove(held.id)

    def _expect_end(self, held: Held, now_ms: int) -> bool:
        at_ms = expected_end_ms(held.running, now_ms)
        if at_ms is not None:
            self.ends.add(Release(at_ms, held.id, held.ask.queue, held.allocation))
        return at_ms is not None

    def advance(self, now_ms: int) -> None:
        """Let time pass: what was borrowed fades, jobs become old enough to go, who overruns the estimate is
        expected later."""
        self.order.advance(self.tenancy.policy, now_ms)
        self.quotas.advance(now_ms)
        self.roster.advance(now_ms)
        due_ms = self.ends.next_ms()
        if due_ms is not None and due_ms <= now_ms:
            for release in list(takewhile(lambda each: each.at_ms <= now_ms, self.ends)):
                self._expect_end(self.held[release.holder], now_ms)

    def _remove(self, job_id: str) -> None:
        held = self.held.pop(job_id)
        self.roster.remove(job_id)
        self.ends.remove(job_id)
        self.inventory.give(job_id)
        self.quotas.refund(job_id)
        for placement in held.running.placements:
            on = self.on.get(placement.node_id)
            if on is not None:
                on.pop(job_id, None)
                if not on:
                    del self.on[placement.node_id]

    def model_of(self, placements: Iterable[Placement]) -> str:
        """The model of the first device of these placements; "": they have none."""
        return next(iter(self.models_of(WHOLE_DEVICE, placements)), "")

    def models_of(self, need: Need, placements: Iterable[Placement]) -> dict[str, int]:
        """Milli-GPU of each model that a gang counts at these placements."""
        found: dict[str, int] = {}
        for placement in placements:
            if placement.devices:
                names = self.inventory.models_on(placement.node_id)
                for share in placement.devices:
                    model = names.get(share.index)
                    if model is not None:
                        milli = WHOLE_MILLI if need.gpu_milli >= WHOLE_MILLI else need.gpu_milli
                        found[model] = found.get(model, 0) + milli
        return found

    def neighbour(self, node_id: str, index: int) -> tuple[Need, DeviceShare] | None:
        """Who uses a part of a device."""
        for job_id in self.on.get(node_id, ()):
            held = self.held[job_id]
            for placement in held.running.placements:
                for share in placement.devices if placement.node_id == node_id else ():
                    if share.index == index:
                        return held.allocation.need, share
        return None

    def scope_of(self, queue: str) -> str | None:
        """The lowest queue on the way up that has a limit."""
        while queue:
            if queue in self._limited:
                return queue
            queue = queue.rpartition("/")[0]
        return None

    def equivalence_class(self, ask: Ask) -> EquivalenceClass:
        number = self.order.shape(ask)
        found = self._classes.get(number)
        if found is None:
            found = self._classes[number] = EquivalenceClass(number, tuple(self._variants(ask)))
        return found

    def _variants(self, ask: Ask) -> Iterable[Variant]:
        """One for each candidate."""
        for need in ask.needs:
            alone = msgspec.structs.replace(ask, needs=(need,))
            capped = self._models and bool(need.gpu_milli) and len(need.models) != 1
            yield Variant(alone, need, amounts_of(need, ask.num_nodes), {}, capped)

    # --- deciding

    def cycle(self, now_ms: int) -> Decision:
        """What to do now. It is entered in the books: what starts is running, what must end is leaving.

        The same books, told in any order, give the same answer but for ties between equal ids.
        """
        if self.is_settled(now_ms):
            return Decision(reservations=self.reservations, wake_ms=self._wake_ms)
        self._resize()
        cycle = Cycle(self, now_ms)
        decision = cycle.run()
        self.reservations = decision.reservations
        self._wake_ms = decision.wake_ms
        self.inventory.settle()
        self.quotas.settle()
        # What was decided may allow more: only a cycle that decided nothing need not be repeated.
        self._cycled = -1 if decision.starts or decision.evictions else self.epoch
        return decision

    def is_settled(self, now_ms: int) -> bool:
        """Whether a cycle would find nothing new since the last one, and nothing due."""
        due = self._wake_ms is not None and self._wake_ms <= now_ms
        return self.epoch == self._cycled and not due

    def _resize(self) -> None:
        if self._resized:
            self.quotas.set_capacity(self.inventory.capacity())
            self._resized = False

    # --- reading

    def line(self, now_ms: int, most: int | None = None) -> tuple[Ask, ...]:
        """Who waits, in the order in which a cycle would consider them as the pool is; those with a
        nominated placement first."""
        bound = [each.ask for each in self.nominated.values() if not each.moving]
        heads = self.order.heads(self.quotas, self.tenancy.policy, now_ms)
        return tuple(islice(chain(bound, heads), most))

    def explain(self, ask_id: str, now_ms: int, *, when: bool = True) -> Waiting:
        """`PoolSnapshot.explain` of the pool as it will be at `now_ms` if nothing happens."""
        return PoolSnapshot(self.twin(), now_ms).explain(ask_id, now_ms, when=when)

    def twin(self) -> Pool:
        """A copy for what-ifs: what is tried there changes nothing here. O(machines + allocations)."""
        self._resize()
        other = copy.copy(self)
        other.inventory = self.inventory.copy()
        other.quotas = self.quotas.successor(self.tenancy)
        other._classes = {}
        other.held, other.terminating = dict(self.held), dict(self.terminating)
        other.nominated, other.promised = dict(self.nominated), dict(self.promised)
        other.timeless = set(self.timeless)
        return other

    def rehearsal(self, asks: Iterable[Ask]) -> Pool:
        """A copy in which cycles can be played, with these asks waiting. O(machines + allocations)."""
        other = self.twin()
        other.order, other.roster, other.ends, other.on = Order(), Roster(self.tenancy.policy), Ends(), {}
        for held in list(other.held.values()):
            other.enter(held)
        for ask in asks:
            if ask.id not in other.nominated:
                other.wait(ask)
        other.weighed, other._cycled = len(other.order), -1
        return other


def _limited_paths(tenancy: Tenancy) -> frozenset[str]:
    return frozenset(queue.path for queue in tenancy.queues if queue.limit)


def _names_models(tenancy: Tenancy) -> bool:
    """Whether queues count single models of devices."""
    return any(
        "/" in name
        for queue in tenancy.queues
        for amounts in (queue.guaranteed, queue.deserved, queue.limit, queue.lend_limit)
        for name in amounts
    )
