"""Routing rules of other projects, from their published formulas and defaults, for `routing.py`.

They are told the engines' true speed, queues and memory without delay: more than they have in reality.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

from argosy.testing.language_replica import BLOCK, Engine, Query, Replica

Told = dict[Hashable, tuple[float, int]]  # replica -> units that wait, requests

RIVALS = ("random", "round-robin", "power-of-two", "least", "smg", "llm-d", "dynamo")


class Books:
    """What one router of any of these projects knows."""

    def __init__(
        self, rule: str, replicas: Sequence[Replica], engine: Engine, seed: int, capacity: int
    ) -> None:
        count = len(replicas)
        self.replicas, self.engine, self.capacity = replicas, engine, capacity
        self.dice = random.Random(seed)
        self.turn = self.dice.randrange(count)
        self.requests, self.total = [0] * count, [0] * count
        self.pending_s, self.blocks = [0.0] * count, [0] * count
        self.other = [0] * count
        self.index: list[OrderedDict[Hashable, None]] = [OrderedDict() for _ in range(count)]
        self.paid: dict[int, tuple[int, float]] = {}
        rules: dict[str, Callable[[Query, Sequence[int]], int]] = {
            "random": lambda query, there: self.dice.choice(list(there)),
            "round-robin": self._round_robin,
            "power-of-two": self._power_of_two,
            "least": lambda query, there: self._least(there, self._load),
            "smg": self._smg,
            "llm-d": self._llm_d,
            "dynamo": self._dynamo,
        }
        self.rule = rules[rule]

    # --- books -------------------------------------------------------------------------------------

    def pick(self, query: Query, there: Sequence[int], now_s: float) -> int:
        chosen = self.rule(query, there)
        hit = min(self._match(chosen, query) * BLOCK, query.prompt - 1)
        cost = self.engine.reading_s(query.prompt - hit, hit)
        recent = self.index[chosen]
        for block in reversed(query.blocks):
            recent[block] = None
            recent.move_to_end(block)
        while len(recent) > self.capacity:
            recent.popitem(last=False)
        self.requests[chosen] += 1
        self.total[chosen] += 1
        self.pending_s[chosen] += cost
        self.blocks[chosen] += query.need
        self.paid[query.number] = (chosen, cost)
        return chosen

    def first(self, query: Query) -> None:
        chosen, cost = self.paid[query.number]
        self.pending_s[chosen] -= cost
        self.paid[query.number] = (chosen, 0.0)

    def ended(self, query: Query) -> None:
        chosen, cost = self.paid.pop(query.number)
        self.pending_s[chosen] -= cost
        self.requests[chosen] -= 1
        self.blocks[chosen] -= query.need

    def told(self) -> Told:
        return {number: (0.0, count) for number, count in enumerate(self.requests)}

    def hear(self, others: Sequence[Told], there: Sequence[int], now_s: float) -> None:
        for number in there:
            self.other[number] = sum(other[number][1] for other in others)

    # --- rules -------------------------------------------------------------------------------------

    def _load(self, number: int) -> float:
        return self.requests[number] + self.other[number]

    def _match(self, number: int, query: Query) -> int:
        for count, block in enumerate(query.blocks):
            if block not in self.index[number]:
                return count
        return len(query.blocks)

    def _least(self, there: Sequence[int], cost: Callable[[int], float]) -> int:
        costs = {number: cost(number) for number in there}
        low = min(costs.values()) + 1e-12
        return self.dice.choice([number for number in there if costs[number] <= low])

    def _round_robin(self, query: Query, there: Sequence[int]) -> int:
        self.turn += 1
        return there[self.turn % len(there)]

    def _power_of_two(self, query: Query, there: Sequence[int]) -> int:
        one, other = self.dice.sample(list(there), 2)
        return one if self._load(one) <= self._load(other) else other

    def _smg(self, query: Query, there: Sequence[int]) -> int:
        """cache_aware: balance thresholds 64 and 1.5, cache threshold 0.3."""
        loads = [self._load(number) for number in there]
        if max(loads) - min(loads) > 64 and max(loads) > 1.5 * min(loads):
            return self._least(there, self._load)
        hits = {number: self._match(number, query) for number in there}
        if max(hits.values()) * BLOCK / query.prompt > 0.3:
            return self._least(there, lambda number: -hits[number])
        return self._least(there, lambda number: self._load(number) * 1e6 + self.total[number])

    def _llm_d(self, query: Query, there: Sequence[int]) -> int:
        """Scorers prefix 3, queue 2, memory 2."""
        queues = {number: len(self.replicas[number].waiting) for number in there}
        most, fewest = max(queues.values()), min(queues.values())

        def score(number: int) -> float:
            queue = 1.0 if most == fewest else (most - queues[number]) / (most - fewest)
            prefix = self._match(number, query) / max(1, len(query.blocks))
            return -(3 * prefix + 2 * queue + 2 * (1 - self.replicas[number].used))

        return self._least(there, score)

    def _dynamo(self, query: Query, there: Sequence[int]) -> int:
        """Blocks to read, less what overlaps, and blocks in decode."""

        def cost(number: int) -> float:
            waits = self.pending_s[number] / self.engine.prompt_s / BLOCK
            return waits + len(query.blocks) - self._match(number, query) + self.blocks[number]

        return self._least(there, cost)
