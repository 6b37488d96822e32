"""A replica of a language model without a GPU, in virtual time: continuous batching, a cache of prompts.

One step of the engine answers all requests in their decode phase with one token each, and reads pieces of
waiting prompts, first come first served, up to a budget of tokens:

    step = fixed_s + prompt_s * prompt tokens + attention_s * sum(piece * context)
           + request_s * requests in decode + context_s * tokens of their contexts

Prompts are chains of blocks; a block that is cached need not be read again. Blocks of running requests stay,
of the others the least recently used go first, of one request the deepest. Deterministic: there are no dice.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Sequence
from typing import Final

import msgspec

BLOCK: Final = 512  # tokens


class Engine(msgspec.Struct, frozen=True, kw_only=True):
    """How fast a replica is. The defaults are textbook values of a dense model of 70 B on 4 H100."""

    fixed_s: float = 0.016
    prompt_s: float = 70e-6
    attention_s: float = 1.65e-9
    request_s: float = 50e-6
    context_s: float = 35e-9
    budget: int = 8192  # tokens in one step
    max_running: int = 256
    blocks: int = 880

    def reading_s(self, tokens: int, context: int = 0) -> float:
        """Seconds for `tokens` more of a prompt behind `context` that is there already."""
        return self.prompt_s * tokens + self.attention_s * tokens * (context + tokens / 2)

    def alone_s(self, tokens: int) -> float:
        """Until the first token of an answer, with an idle replica and an empty cache."""
        return self.fixed_s * (1 + tokens // self.budget) + self.reading_s(tokens)


class Query:
    """One request on its way through a replica. Times are virtual seconds; None: not yet."""

    __slots__ = (
        "answer",
        "blocks",
        "done",
        "ended_s",
        "first_s",
        "hit",
        "number",
        "prompt",
        "replica",
        "sent_s",
    )

    def __init__(
        self, number: int, sent_s: float, prompt: int, answer: int, blocks: Sequence[Hashable]
    ) -> None:
        self.number, self.sent_s = number, sent_s
        self.prompt, self.answer = max(1, prompt), max(1, answer)  # tokens
        self.blocks = tuple(blocks)
        self.hit = self.done = 0  # tokens of the prompt that were cached, that were read
        self.first_s: float | None = None
        self.ended_s: float | None = None
        self.replica = -1

    @property
    def session(self) -> Hashable:
        """What requests of one conversation share: the second block, since the first is everybody's."""
        return self.blocks[1] if len(self.blocks) > 1 else self.blocks[0]

    @property
    def need(self) -> int:
        """Blocks with its answer."""
        return (self.prompt + self.answer + BLOCK - 1) // BLOCK

    @property
    def private(self) -> int:
        """Blocks that nobody shares."""
        return max(0, self.need - len(self.blocks))


Told = Callable[[Query], None]


def _nobody(query: Query) -> None:
    """Nobody wants to know."""


class Replica:
    """`advance(until_s)` runs the steps that begin before that time; `now_s` is the end of the last one."""

    def __init__(
        self, number: int, engine: Engine, *, first: Told = _nobody, ended: Told = _nobody, now_s: float = 0.0
    ) -> None:
        self.number, self.engine, self.now_s = number, engine, now_s
        self.first, self.ended = first, ended
        self.waiting: deque[Query] = deque()
        self.reading: deque[Query] = deque()
        self.computed = 0  # tokens of prompts that were not cached
        self._decoding: list[tuple[int, int, Query]] = []  # heap by the step of its last token
        self._step = self._contexts = self._private = 0
        self._idle: OrderedDict[Hashable, None] = OrderedDict()  # cached, used by nobody now
        self._pinned: dict[Hashable, int] = {}  # by running requests, so many

    @property
    def running(self) -> int:
        return len(self._decoding) + len(self.reading)

    @property
    def is_idle(self) -> bool:
        return not (self.waiting or self.reading or self._decoding)

    @property
    def used(self) -> float:
        """The share of blocks that running requests hold."""
        return (len(self._pinned) + self._private) / self.engine.blocks

    def cached(self, blocks: Sequence[Hashable]) -> int:
        """How many of the first blocks are here."""
        for count, block in enumerate(blocks):
            if block not in self._pinned and block not in self._idle:
                return count
        return len(blocks)

    def submit(self, query: Query, at_s: float | None = None) -> None:
        query.replica = self.number
        if self.is_idle:
            self.now_s = max(self.now_s, query.sent_s if at_s is None else at_s)
        self.waiting.append(query)

    def drop(self) -> list[Query]:
        """It dies: everything that was not answered to its end."""
        lost = [*self.waiting, *self.reading, *(query for _, _, query in self._decoding)]
        self.waiting.clear()
        self.reading.clear()
        self._decoding.clear()
        return lost

    def advance(self, until_s: float) -> None:
        while self.now_s < until_s:
            if self.waiting:
                self._admit()
            if self.reading:
                self._mixed_step()
            elif self._decoding:
                self._decode_until(until_s)
            elif not self.waiting:
                return
            while self._decoding and self._decoding[0][0] <= self._step:
                query = heapq.heappop(self._decoding)[2]
                self._contexts -= query.prompt + query.answer
                self._end(query)

    def _admit(self) -> None:
        while self.waiting and self.running < self.engine.max_running:
            query = self.waiting[0]
            hit = min(self.cached(query.blocks), (query.prompt - 1) // BLOCK)
            fresh = sum(block not in self._pinned for block in query.blocks)
            asked = len(self._pinned) + self._private + fresh + query.private
            if asked > self.engine.blocks and self.running:
                return
            self.waiting.popleft()
            for block in query.blocks:
                self._idle.pop(block, None)
                self._pinned[block] = self._pinned.get(block, 0) + 1
            self._private += query.private
            over = len(self._pinned) + self._private + len(self._idle) - self.engine.blocks
            for _ in range(min(over, len(self._idle))):
                self._idle.popitem(last=False)
            query.hit = query.done = hit * BLOCK
            self.reading.append(query)

    def _step_s(self) -> float:
        engine = self.engine
        return engine.fixed_s + engine.request_s * len(self._decoding) + engine.context_s * self._contexts

    def _mixed_step(self) -> None:
        left = self.engine.budget - len(self._decoding)
        step_s, read = self._step_s(), 0
        for query in self.reading:
            if left <= 0:
                break
            piece = min(left, query.prompt - query.done)
            step_s += self.engine.reading_s(piece, query.done)
            query.done += piece
            left -= piece
            self.computed += piece
            read += query.done >= query.prompt
        self.now_s += step_s
        self._step += 1
        self._contexts += len(self._decoding)
        for _ in range(read):
            query = self.reading.popleft()
            query.first_s = self.now_s
            self.first(query)
            if query.answer <= 1:
                self._end(query)
                continue
            heapq.heappush(self._decoding, (self._step + query.answer - 1, query.number, query))
            self._contexts += query.prompt + 1

    def _decode_until(self, until_s: float) -> None:
        """Many steps at once: to the end of the first answer, or to the last step that begins in time."""
        most = self._decoding[0][0] - self._step
        first_s = self._step_s()
        more_s = self.engine.context_s * len(self._decoding)  # each step is so much longer than the last
        steps = min(most, max(1, int((until_s - self.now_s) / first_s) + 1))
        while steps > 1 and self.now_s + _sum(first_s, more_s, steps - 1) >= until_s:
            steps -= 1
        self.now_s += _sum(first_s, more_s, steps)
        self._step += steps
        self._contexts += len(self._decoding) * steps

    def _end(self, query: Query) -> None:
        query.ended_s = self.now_s
        for block in reversed(query.blocks):
            left = self._pinned[block] - 1
            if left:
                self._pinned[block] = left
            else:
                del self._pinned[block]
                self._idle[block] = None
        self._private -= query.private
        self.ended(query)


def _sum(first: float, more: float, count: int) -> float:
    return count * first + more * count * (count - 1) / 2
