"""Arrays of native mode: attempts of one group that come together are submitted as one order."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import RankOrder
from argosy.model.ids import Clock
from argosy.providers.slurm import array_script
from argosy.providers.slurm.array_script import ArrayTask, ArrayWish
from argosy.providers.slurm.native_script import NativeClaim
from argosy.providers.slurm.runner import Runner
from argosy.providers.slurm.words import RETRY_S, refusal

_QUIET_S: Final = 1.0  # when for so long no further task came, those that are there are submitted
_LONGEST_S: Final = 120.0
_BYTES_MAX: Final = 3 << 20  # of one order: Slurm takes scripts of 4 MiB
_GROUPS_MAX: Final = 1000
_REFUSED_S: Final = 30.0  # so long a refusal holds for others of the group


class _Batch:
    """Tasks of one group that wait for the others."""

    def __init__(self, wish: ArrayWish) -> None:
        self.wish = wish
        self.tasks: dict[str, ArrayTask] = {}  # by attempt
        self.changed = asyncio.Event()
        self.done: asyncio.Task[None] | None = None


class Arrays:
    """The arrays of one cluster."""

    def __init__(self, name: str, runner: Runner, clock: Clock, *, quiet_s: float = _QUIET_S) -> None:
        self._name = name
        self._clock = clock
        self._runner = runner
        self._quiet_s = quiet_s
        self._batches: dict[tuple[str, bytes], _Batch] = {}
        self._begun: dict[str, set[int]] = {}  # by group: the tasks that were submitted
        self._refused: dict[str, tuple[float, border.BorderError]] = {}
        self._size_max = 0

    async def add(
        self, claim: NativeClaim, attempt: str, ranks: Sequence[RankOrder], wish: ArrayWish
    ) -> asyncio.Task[None]:
        """What ends when the attempt is submitted, and raises what Slurm says against it. Raises
        RequestRefused for an array that is larger than the site allows, and what was refused a moment ago."""
        await self._fits(wish)
        until_s, error = self._refused.get(wish.group, (0.0, None))
        if error is not None and self._clock.monotonic_s() < until_s:
            raise error
        alike = msgspec.structs.replace(claim.order, claim_id="")
        devices = tuple(len(each.devices) for each in ranks)
        key = wish.group, msgspec.json.encode((alike, claim.gres, claim.shards, devices, ranks[0].workdir))
        batch = self._batches.get(key)
        if batch is None:
            batch = self._batches[key] = _Batch(wish)
            batch.done = asyncio.create_task(self._gather(key, batch))
            batch.done.add_done_callback(lambda task: task.cancelled() or task.exception())
        batch.tasks[attempt] = ArrayTask(wish.index, claim, attempt, tuple(ranks))
        batch.changed.set()
        assert batch.done is not None
        return batch.done

    def drop(self, attempt: str) -> bool:
        """True when the attempt waited for others and is not submitted any more."""
        return any(batch.tasks.pop(attempt, None) is not None for batch in self._batches.values())

    async def _gather(self, key: tuple[str, bytes], batch: _Batch) -> None:
        ends_s = self._clock.monotonic_s() + _LONGEST_S
        try:
            while not self._is_whole(batch) and self._clock.monotonic_s() < ends_s:
                batch.changed.clear()
                try:
                    async with asyncio.timeout(self._quiet_s):
                        await batch.changed.wait()
                except TimeoutError:
                    break
        finally:
            del self._batches[key]
        tasks = sorted(batch.tasks.values(), key=lambda each: each.index)
        for part in _parts(tasks):
            await self._submit(batch.wish, part)

    def _is_whole(self, batch: _Batch) -> bool:
        begun = self._begun.get(batch.wish.group, set())
        there = {each.index for each in batch.tasks.values()}
        return len(begun | there) >= batch.wish.size

    async def _submit(self, wish: ArrayWish, tasks: Sequence[ArrayTask]) -> None:
        name = array_script.array_name(wish.group, tasks)
        text = array_script.array_script(name, tasks, wish.parallel)
        data = array_script.array_data(tasks)
        while True:
            # The script is long, and one argument of a program may have 128 KiB: it is read from the input.
            ran = await self._runner.run(
                f'script=$(head -c {len(text.encode())}); eval "$script"',
                data=text.encode() + data,
                timeout_s=120,
            )
            if not ran.status:
                break
            error = refusal(ran.err, f"{self._name}/{tasks[0].claim.order.partition}")
            if not isinstance(error, border.Transient):
                self._refused[wish.group] = self._clock.monotonic_s() + _REFUSED_S, error
                raise error
            await asyncio.sleep(RETRY_S)
        if len(self._begun) > _GROUPS_MAX:
            self._begun.clear()
        self._begun.setdefault(wish.group, set()).update(each.index for each in tasks)

    async def _fits(self, wish: ArrayWish) -> None:
        if not self._size_max:
            ran = await self._runner.run(array_script.limit_script())
            told = ran.out.decode("utf-8", "replace").strip()
            self._size_max = int(told) if told.isdigit() else 0
        if self._size_max and wish.size > self._size_max:
            raise border.RequestRefused(
                "num_jobs",
                f"the array has {wish.size} tasks, and Slurm on {self._name} takes at most "
                f"{self._size_max} in one (MaxArraySize); launch it in parts of "
                f"`--num-jobs {self._size_max}`, or leave out `native`",
            )


def _parts(tasks: Sequence[ArrayTask]) -> list[list[ArrayTask]]:
    """As few orders as Slurm takes: one, unless what differs between tasks is very long, or a task is there
    in two attempts."""
    parts: list[list[ArrayTask]] = []
    size, there = 0, set[int]()
    for each in tasks:
        its = sum(len(str(rank.env)) for rank in each.ranks)
        if not parts or size + its > _BYTES_MAX or each.index in there:
            parts.append([])
            size, there = 0, set()
        parts[-1].append(each)
        size += its
        there.add(each.index)
    return parts
