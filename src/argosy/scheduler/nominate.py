"""Nominated placements: room that is being made for a request is taken by nobody else until its victims have
left; then the request is bound to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from argosy.scheduler.ask import Ask, Evict
from argosy.scheduler.cycle_state import CycleState, Nominated, nominee
from argosy.scheduler.explain import guarantee_of, why_evicted
from argosy.scheduler.inventory import OverCommitted
from argosy.scheduler.preempt import Room
from argosy.scheduler.whatif import Allocation, WhatIf

COMES_BACK_MS: Final = 60_000  # so long the new place of a job that was moved is kept for it

#: Starts a request at an allocation.
Bind = Callable[[Ask, Allocation], None]


class Nominations:
    """Those of one cycle."""

    def __init__(self, state: CycleState) -> None:
        self.state = state

    def bind(self, start: Bind) -> None:
        """Look ahead to when what is terminating has left, keep the nominated placements there, and start
        every request whose placement is free today already."""
        state, pool = self.state, self.state.pool
        if not pool.nominated and not pool.terminating:
            return
        future = state.look_ahead()
        for job_id in pool.terminating:
            future.give(job_id)
            pool.quotas.refund(job_id)
        for ask_id, nominated in list(pool.nominated.items()):
            self._renew(ask_id, nominated)
        self._adopt()
        for ask_id, nominated in list(pool.nominated.items()):
            if nominated.moving or nominated.ask.not_before_ms > state.now_ms:
                continue
            free = self._is_free(ask_id, nominated)
            found = nominated.allocation if free else self._elsewhere(ask_id, nominated)
            if found is not None:
                self._release(ask_id)
                del pool.nominated[ask_id]
                start(nominated.ask, found)
        if not pool.nominated and not pool.terminating:
            state.future = None

    def _renew(self, ask_id: str, nominated: Nominated) -> None:
        """Keep a placement for another cycle, or make the request pending again."""
        pool, now_ms = self.state.pool, self.state.now_ms
        if nominated.tentative:
            del pool.nominated[ask_id]
            pool.wait(nominated.ask)
            return
        if nominated.moving and ask_id not in pool.held:
            if nominated.gone_ms is None:
                nominated = pool.nominated[ask_id] = nominated._replace(gone_ms=now_ms)
            if now_ms - (nominated.gone_ms or 0) >= COMES_BACK_MS:
                del pool.nominated[ask_id]
                return
        if not self._keep(ask_id, nominated):
            del pool.nominated[ask_id]
            if not nominated.moving:
                pool.wait(nominated.ask)

    def _adopt(self) -> None:
        """After a restart: what is terminating says for whom, but the placement is not stored."""
        state, pool = self.state, self.state.pool
        for ask_id in dict.fromkeys(pool.terminating.values()):
            ask = pool.order.get(ask_id)
            if ask is not None and ask.not_before_ms <= state.now_ms:
                books = WhatIf(state.look_ahead(), pool.quotas, bounded=state.bounded)
                allocation = state.place(books, ask)
                if allocation is not None:
                    pool.wait_no_more(ask_id)
                    self.nominate(ask, Room((), allocation))

    def _keep(self, ask_id: str, nominated: Nominated) -> bool:
        machines = self.state.pool.inventory.machines()
        for placement in nominated.allocation.placements:
            machine = machines.get(placement.node_id)
            if machine is None or not machine.open:
                return False
        return self._take(ask_id, nominated)

    def _take(self, ask_id: str, nominated: Nominated) -> bool:
        allocation = nominated.allocation
        try:
            self.state.look_ahead().take(nominee(ask_id), allocation.need, allocation.placements)
        except OverCommitted:
            return False
        self.state.pool.quotas.charge(nominee(ask_id), nominated.ask.queue, allocation.amounts)
        return True

    def _release(self, ask_id: str) -> None:
        self.state.pool.quotas.refund(nominee(ask_id))
        self.state.look_ahead().give(nominee(ask_id))

    def _is_free(self, ask_id: str, nominated: Nominated) -> bool:
        """Whether a nominated placement can be had today."""
        pool, allocation = self.state.pool, nominated.allocation
        try:
            pool.inventory.take(ask_id, allocation.need, allocation.placements)
        except OverCommitted:
            return False
        pool.inventory.give(ask_id)
        mark = pool.quotas.mark()
        pool.quotas.refund(nominee(ask_id))
        queue, amounts = nominated.ask.queue, allocation.amounts
        free = pool.quotas.over(queue, amounts) is None and not self.state.passes_limit_today(queue, amounts)
        pool.quotas.rollback(mark)
        return free

    def _elsewhere(self, ask_id: str, nominated: Nominated) -> Allocation | None:
        """Another placement that has become free before the nominated one: its victims leave all the
        same."""
        state, pool, queue = self.state, self.state.pool, nominated.ask.queue
        future = state.look_ahead()
        mark, before = future.mark(), pool.quotas.mark()
        self._release(ask_id)
        found = None
        for variant in pool.equivalence_class(nominated.ask).variants:
            if pool.quotas.over(queue, variant.amounts) is not None or state.passes_limit_today(
                queue, variant.amounts
            ):
                continue
            placements = state.find(queue, variant, pool.inventory, within=future)
            if placements is not None and pool.quotas.lends(queue, variant.amounts):
                amounts = state.amounts(variant, placements, nominated.ask)
                found = Allocation(variant.need, placements, amounts)
                break
        future.rollback(mark)
        pool.quotas.rollback(before)
        return found

    def nominate(self, ask: Ask, room: Room) -> None:
        """Preempt the victims of `room`, and keep their room for the request."""
        state, pool = self.state, self.state.pool
        future = state.look_ahead()
        queues = {queue.path: queue for queue in pool.tenancy.queues}
        for victim in room.victims:
            held = victim.held
            guaranteed = None
            if victim.kind == "reclaim" and pool.quotas.below_guarantee(ask.queue, room.allocation.amounts):
                guaranteed = guarantee_of(queues, ask.queue, room.allocation.amounts)
            why = why_evicted(ask, held.ask, victim.kind, guaranteed=guaranteed)
            state.evictions.append(Evict(job_id=held.id, for_id=ask.id, kind=victim.kind, why=why))
        for victim in room.victims:
            held = victim.held
            pool.terminating[held.id] = ask.id
            running = msgspec.structs.replace(held.running, leaving=True)
            pool.enter(msgspec.structs.replace(held, running=running))
            pool.quotas.refund(held.id)
            future.give(held.id)
        tentative = ask.id not in pool.terminating.values()
        new = [(ask.id, Nominated(ask, room.allocation, tentative=tentative))]
        for job_id, allocation in room.moved:
            new.append((job_id, Nominated(pool.held[job_id].ask, allocation, moving=True)))
        for ask_id, nominated in new:
            pool.nominated[ask_id] = nominated
            kept = self._take(ask_id, nominated)
            assert kept, "its room was found in these books"
