"""Dynamic batching: requests that are waiting at the same time become one run of the model."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from argosy.inference.engines import Engine
from argosy.inference.figures import Figures
from argosy.inference.tensors import Array, BadRequest

Arrays = dict[str, Array]


class Limits:
    """Of one model: rows of one run, how long a row waits for others, requests that may wait."""

    __slots__ = ("delay_s", "queue", "rows")

    def __init__(self, rows: int = 32, delay_s: float = 0.0, queue: int = 1000) -> None:
        self.rows, self.delay_s, self.queue = max(1, rows), delay_s, queue


class _Waiting:
    """One request in line."""

    __slots__ = ("answer", "inputs", "key", "rows", "since_s", "wanted")

    def __init__(
        self, inputs: Arrays, wanted: tuple[str, ...], answer: asyncio.Future[Arrays], since_s: float
    ) -> None:
        self.inputs, self.wanted, self.answer, self.since_s = inputs, wanted, answer, since_s
        shapes = {array.shape[:1] for array in inputs.values()}
        self.rows = next(iter(shapes))[0] if len(shapes) == 1 and shapes != {()} else 0
        #: Only requests with the same one go together.
        self.key = (
            tuple(sorted((name, str(each.dtype), each.shape[1:]) for name, each in inputs.items())),
            wanted,
        )


class Batcher:
    """Runs of one model, one at a time in a thread of its own. While one goes on, the next one gathers;
    `delay_s` makes it wait for more even when the model is free."""

    def __init__(self, engine: Engine, limits: Limits, figures: Figures) -> None:
        self.engine, self.limits, self.figures = engine, limits, figures
        self._line: deque[_Waiting] = deque()
        self._more = asyncio.Event()
        self._thread = ThreadPoolExecutor(1)
        self._closing = False
        self._working = asyncio.ensure_future(self._work())

    async def infer(self, inputs: Arrays, wanted: Sequence[str] = ()) -> Arrays:
        """The outputs of one request. Raises BadRequest, with status 503 when too many wait."""
        if len(self._line) >= self.limits.queue:
            raise BadRequest(f"{len(self._line)} requests wait already; try again later", 503)
        loop = asyncio.get_running_loop()
        waiting = _Waiting(inputs, tuple(wanted), loop.create_future(), loop.time())
        self._line.append(waiting)
        self._more.set()
        return await waiting.answer

    async def close(self) -> None:
        """Requests that wait are answered first."""
        self._closing = True
        self._more.set()
        await self._working
        self._thread.shutdown(wait=False)

    async def _work(self) -> None:
        while not self._closing or self._line:
            await self._more.wait()
            await self._gather()
            batch = self._take()
            if batch:
                await self._serve(batch)
            if not self._line and not self._closing:
                self._more.clear()

    async def _gather(self) -> None:
        """Until a run is full, or the first in line has waited long enough."""
        loop = asyncio.get_running_loop()
        while self._line and self.limits.delay_s and not self._closing:
            rest_s = self._line[0].since_s + self.limits.delay_s - loop.time()
            if rest_s <= 0 or sum(max(1, each.rows) for each in self._line) >= self.limits.rows:
                return
            self._more.clear()
            try:
                await asyncio.wait_for(self._more.wait(), rest_s)
            except asyncio.TimeoutError:
                self._more.set()

    def _take(self) -> list[_Waiting]:
        """The first in line, and who may go with it, in their order. Whoever has left is passed over."""
        batch: list[_Waiting] = []
        rows, rest = 0, deque[_Waiting]()
        while self._line:
            each = self._line.popleft()
            if each.answer.done():
                continue
            alone = not self.engine.batches or not each.rows
            fits = not batch or (
                not alone and each.key == batch[0].key and rows + each.rows <= self.limits.rows
            )
            if fits and (not batch or batch[0].rows):
                batch.append(each)
                rows += each.rows
                if alone or rows >= self.limits.rows:
                    break
            else:
                rest.append(each)
        rest.extend(self._line)
        self._line = rest
        return batch

    async def _serve(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        begun_s = loop.time()
        for each in batch:
            self.figures.waited(begun_s - each.since_s)
        try:
            found = await loop.run_in_executor(self._thread, self._run, batch)
        except Exception as error:  # libraries raise what they like
            await self._one_by_one(batch, error)
            return
        self.figures.ran(loop.time() - begun_s, sum(max(1, each.rows) for each in batch))
        for each, outputs in zip(batch, found):
            if not each.answer.done():
                each.answer.set_result(outputs)

    async def _one_by_one(self, batch: list[_Waiting], error: Exception) -> None:
        """Only who is to blame hears of an error."""
        if len(batch) > 1:
            for each in batch:
                await self._serve([each])
            return
        if not batch[0].answer.done():
            batch[0].answer.set_exception(error)

    def _run(self, batch: list[_Waiting]) -> list[Arrays]:
        if len(batch) == 1:
            return [self.engine.run(batch[0].inputs, batch[0].wanted)]
        inputs = {name: np.concatenate([each.inputs[name] for each in batch]) for name in batch[0].inputs}
        outputs = self.engine.run(inputs, batch[0].wanted)
        rows = sum(each.rows for each in batch)
        if any(array.shape[:1] != (rows,) for array in outputs.values()):
            self.engine.batches = False  # its outputs have no row for each row
            return [self.engine.run(each.inputs, each.wanted) for each in batch]
        found, at = [], 0
        for each in batch:
            found.append({name: array[at : at + each.rows] for name, array in outputs.items()})
            at += each.rows
        return found
