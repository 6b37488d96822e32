"""What the next cycles will start when what runs ends as expected: the same cycles, played on in a copy.

So the order and the times that people read come from what starts jobs: fair shares that change when something
ends, reservations, backfill and preemption are all in them. From the first end on that nobody knows
(`estimate.is_guess`) the order goes on by guesses, and no time is told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import takewhile
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.scheduler.ask import Ask, Decision
from argosy.scheduler.estimate import is_guess

if TYPE_CHECKING:
    from argosy.scheduler.pool import Pool

PLAYED_MAX: Final = 64  # pending workloads that take part, the first of the line,
PLAYED_OF_QUEUE: Final = 8  # and of each queue so many, as who is late in the line today may be next tomorrow
WORK_MAX: Final = 200_000  # machines, running jobs and pending workloads that all its cycles go through
CYCLES: Final = (8, 256)  # at least and at most


class Outlook:
    """`line`: pending workloads in the order of a cycle now. `pool` is left as it is."""

    def __init__(self, pool: Pool, line: Iterable[Ask], now_ms: int) -> None:
        asks: dict[str, Ask] = {}
        of_queue: Counter[str] = Counter()
        for ask in line:
            of_queue[ask.queue] += 1
            if len(asks) < PLAYED_MAX or of_queue[ask.queue] <= PLAYED_OF_QUEUE:
                asks[ask.id] = ask
        self.order: list[str] = []  # ids in the order of their starts
        self.starts: dict[str, int] = {}  # when, where that is known
        self._asks = asks
        self._now_ms = now_ms
        self._is_known = True
        self._pool = pool.rehearsal(asks.values())
        each = len(pool.inventory.machines()) + len(pool.held) + len(asks)
        self._cycles_left = min(CYCLES[1], max(CYCLES[0], WORK_MAX // max(1, each)))
        for job_id in list(self._pool.terminating):
            self._pool.ended(job_id)

    def play_until(self, ask_id: str = "", *, most: int = PLAYED_MAX) -> None:
        """Until this one has started, or so many have; not longer than the cycles last."""
        while self._cycles_left > 0 and len(self.order) < most and ask_id not in self.order:
            self._cycles_left -= 1
            decision = self._pool.cycle(self._now_ms)
            self._enter(decision)
            if not decision.evictions and not self._pass_time(decision.wake_ms):
                self._cycles_left = 0

    def _enter(self, decision: Decision) -> None:
        for start in decision.starts:
            if start.ask_id in self._asks and start.ask_id not in self.order:
                self.order.append(start.ask_id)
                if self._is_known:
                    self.starts[start.ask_id] = self._now_ms
        for evict in decision.evictions:
            held = self._pool.held[evict.job_id]
            attained = held.attained(self._now_ms) if held.ask.checkpoint else held.ask.attained
            self._pool.ended(evict.job_id)
            self._pool.submit(
                msgspec.structs.replace(held.ask, attained=attained, evictions=held.ask.evictions + 1)
            )

    def _pass_time(self, wake_ms: int | None) -> bool:
        """To the next end, or whatever comes first; False: nothing comes any more."""
        pool = self._pool
        times = [each for each in (wake_ms, pool.ends.next_ms()) if each is not None and each > self._now_ms]
        if not times or not len(pool.order):
            return False
        self._now_ms = min(times)
        for release in list(takewhile(lambda each: each.at_ms <= self._now_ms, pool.ends)):
            self._is_known = self._is_known and not is_guess(pool.held[release.holder].ask)
            pool.ended(release.holder)
        return True
