"""Supposing: a state of the books that is tried and taken back, and how much of a list it takes until
something fits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, TypeVar

import msgspec

from argosy.model.offer import Placement
from argosy.model.tenancy import Amounts
from argosy.scheduler.ask import Ask, Need, Running
from argosy.scheduler.inventory import Inventory, OverCommitted
from argosy.scheduler.quota import Quotas

PROBE: Final = "probe"  # a holder that takes something for a moment

T = TypeVar("T")


class Allocation(msgspec.Struct, frozen=True, gc=False):
    """Where a gang goes, for which of its needs, and what that counts."""

    need: Need
    placements: tuple[Placement, ...]
    amounts: Amounts


class Held(msgspec.Struct, frozen=True, gc=False):
    """A running job in the books."""

    running: Running
    allocation: Allocation
    rate: int  # attained service per millisecond: milli-GPU of all ranks; of a job without GPU its milli-CPU

    @property
    def id(self) -> str:
        return self.running.ask.id

    @property
    def ask(self) -> Ask:
        return self.running.ask

    def attained(self, now_ms: int) -> int:
        return self.running.ask.attained + self.rate * max(0, now_ms - self.running.started_ms)

    def lost(self, now_ms: int) -> int:
        """Work that ending it now throws away, in the unit of `attained`."""
        saved_ms = max(self.running.started_ms, self.running.checkpoint_ms)
        return self.rate * max(0, now_ms - saved_ms)


def rate_of(need: Need, num_nodes: int) -> int:
    return (need.gpu_milli or need.cpus_milli) * num_nodes


class WhatIf:
    """Inventory and quotas as one thing that can be changed and rolled back. `bounded`: somebody has written
    queues, so quotas may be in the way where there is room."""

    def __init__(self, inventory: Inventory, quotas: Quotas, *, bounded: bool = True) -> None:
        self.inventory = inventory
        self.quotas = quotas
        self.bounded = bounded

    def mark(self) -> tuple[int, int]:
        return self.inventory.mark(), self.quotas.mark()

    def rollback(self, mark: tuple[int, int]) -> None:
        self.inventory.rollback(mark[0])
        self.quotas.rollback(mark[1])

    def take(self, holder: str, queue: str, allocation: Allocation) -> None:
        """Raises OverCommitted, and then nothing has changed."""
        self.inventory.take(holder, allocation.need, allocation.placements)
        self.quotas.charge(holder, queue, allocation.amounts)

    def give(self, holder: str) -> None:
        self.inventory.give(holder)
        self.quotas.refund(holder)

    def within(self, queue: str, amounts: Amounts) -> bool:
        """Whether quotas allow so much more."""
        if not self.bounded:
            return True
        return self.quotas.over(queue, amounts) is None and self.quotas.lends(queue, amounts)

    def allows(self, queue: str, allocation: Allocation) -> bool:
        """Whether a certain place is free and within quotas."""
        if self.quotas.over(queue, allocation.amounts) is not None or not self.quotas.lends(
            queue, allocation.amounts
        ):
            return False
        machines = self.inventory.machines()
        if not all(
            (m := machines.get(place.node_id)) is not None and m.open for place in allocation.placements
        ):
            return False
        mark = self.inventory.mark()
        try:
            self.inventory.take(PROBE, allocation.need, allocation.placements)
        except OverCommitted:
            return False
        finally:
            self.inventory.rollback(mark)
        return True

    def shortest(
        self, count: int, step: Callable[[int], object], test: Callable[[], T | None], *, at_least: int = 0
    ) -> tuple[int, T] | None:
        """The smallest k for which `test` holds after steps 0 … k-1, with what it said; None when it does not
        after all `count`.

        Fewer than `at_least` are known not to do. It is found by doubling, then by halving: `test` must hold
        after more steps when it holds after fewer. The books are left as they are after k steps, or as they
        were.
        """
        marks = [self.mark()]

        def go_to(size: int) -> None:
            if size + 1 < len(marks):
                self.rollback(marks[size])
                del marks[size:]
                marks.append(self.mark())
            while len(marks) <= size:
                step(len(marks) - 1)
                marks.append(self.mark())

        failed, size, more = at_least - 1, at_least, 1
        while True:
            go_to(size)
            found = test()
            if found is not None:
                break
            if size == count:
                self.rollback(marks[0])
                return None
            failed, size, more = size, min(count, size + more), more * 2
        while size - failed > 1:
            middle = (failed + size) // 2
            go_to(middle)
            other = test()
            if other is None:
                failed = middle
            else:
                size, found = middle, other
        go_to(size)
        return size, found
