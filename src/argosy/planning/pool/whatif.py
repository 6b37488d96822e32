"""Supposing: a state of the books that is tried and taken back, and how much of a list it takes until something fits."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, TypeVar

from argosy.model.offer import Placement
from argosy.model.tenancy import Amounts
from argosy.planning.pool.ask import Ask, Need, Running
from argosy.planning.pool.inventory import Inventory
from argosy.planning.pool.quota import Quotas

HOUR_MS: Final = 3_600_000

T = TypeVar("T")


class Seated(NamedTuple):
    """Where a gang goes, for which of its needs, and what that counts."""

    need: Need
    placements: tuple[Placement, ...]
    amounts: Amounts


class Held(NamedTuple):
    """A running job in the books."""

    running: Running
    seated: Seated
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
    """Inventory and quotas as one thing that can be changed and rolled back."""

    def __init__(self, inventory: Inventory, quotas: Quotas) -> None:
        self.inventory = inventory
        self.quotas = quotas

    def mark(self) -> tuple[int, int]:
        return self.inventory.mark(), self.quotas.mark()

    def rollback(self, mark: tuple[int, int]) -> None:
        self.inventory.rollback(mark[0])
        self.quotas.rollback(mark[1])

    def take(self, holder: str, queue: str, seated: Seated) -> None:
        """Raises OverCommitted, and then nothing has changed."""
        self.inventory.take(holder, seated.need, seated.placements)
        self.quotas.charge(holder, queue, seated.amounts)

    def give(self, holder: str) -> None:
        self.inventory.give(holder)
        self.quotas.refund(holder)

    def shortest(
        self, steps: Sequence[Callable[[], object]], test: Callable[[], T | None]
    ) -> tuple[int, T] | None:
        """The smallest k for which `test` holds after the first k steps, with what it said; None when it never does.

        It is found by doubling, then by halving: `test` must hold after more steps when it holds after fewer. The books are
        left as they are after k steps, or as they were.
        """
        marks = [self.mark()]

        def go_to(count: int) -> None:
            if count + 1 < len(marks):
                self.rollback(marks[count])
                del marks[count:]
                marks.append(self.mark())
            while len(marks) <= count:
                steps[len(marks) - 1]()
                marks.append(self.mark())

        failed, size = -1, 0
        while True:
            go_to(size)
            found = test()
            if found is not None:
                break
            if size == len(steps):
                self.rollback(marks[0])
                return None
            failed, size = size, min(len(steps), size * 2 or 1)
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
