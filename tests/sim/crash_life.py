"""A server that is killed at a chosen point, and its successors: a managed job and a cluster, from launch
to the empty place."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Mapping, Sequence
from typing import cast

import msgspec

from argosy.controllers.shell import Shell
from argosy.infra.provider import Provider
from argosy.model.phases import ClaimPhase, Desired, Outcome, WorkloadPhase
from argosy.model.rows import Claim, Row, Workload
from argosy.store import Store
from argosy.testing.faults import NONE, SimCrash
from argosy.testing.harness import SimStore
from argosy.testing.memory_log_sink import MemoryLogSink
from argosy.testing.sim_agent import SimAgentDirectory
from argosy.testing.world import INCARNATION, Incarnation, World


class CountingWorld(World):
    """Kills the server at its `at`-th point (0: never), or at the first of that name, and notes what all
    points are."""

    def __init__(self, at: int | str) -> None:
        super().__init__(7, NONE)
        self.at = at
        self.points: list[str] = []
        self.knows_rows = True

    def maybe_crash(self, point: str) -> None:
        life = INCARNATION.get()
        if life is None or point.startswith(("before agent", "during agent", "after agent")):
            return
        if life.dead.is_set():
            raise SimCrash(f"{life.name} is dead")
        self.points.append(point)
        if self.at in (len(self.points), point) and not self.crashes:
            self.crashes += 1
            life.die()
            raise SimCrash(point)


class One:
    """`infra.provider.Providers` of one provider."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    def get(self, name: str) -> Provider:
        return self.provider

    def all(self) -> Mapping[str, Provider]:
        return {self.provider.manifest.name: self.provider}


class Life:
    """One run. `provider` makes the driver of each server; `check` asserts what holds at any time."""

    def __init__(
        self,
        world: CountingWorld,
        store: Store,
        provider: Callable[[], Provider],
        check: Callable[[Mapping[str, Row]], None],
    ) -> None:
        self.world, self.inner, self._provider, self._check_place = world, store, provider, check
        self.store = SimStore(store, world, self._committed)
        self.shell: Shell | None = None
        self.over = False

    def _committed(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.world.rows[row.id] = row

    async def serve(self) -> None:
        """One server after another, each with a driver of its own over the same folder."""
        number = 0
        while not self.over:
            number += 1
            life = Incarnation(f"server-{number}")
            context = contextvars.copy_context()
            context.run(INCARNATION.set, life)
            self.shell = Shell(
                store=cast("Store", self.store),
                providers=One(self._provider()),
                agents=SimAgentDirectory(self.world),
                logs=MemoryLogSink(),
                clock=self.world.clock,
                ids=self.world.ids,
                is_ours=life.is_ours,
            )
            task = asyncio.get_running_loop().create_task(self.shell.run(), context=context)
            task.add_done_callback(lambda _, life=life: life.die())  # type: ignore[misc]
            try:
                await life.left.wait()
            finally:
                life.die()
                task.cancel()
                await asyncio.wait([task], timeout=60)
            await asyncio.sleep(3)

    async def put(self, *rows: Row) -> None:
        made = await self.inner.commit(rows)
        self._committed(made)
        if self.shell is not None:
            self.shell.wake()

    async def want(self, row_id: str, desired: Desired) -> None:
        row = (await self.inner.snapshot()).workloads[row_id]
        await self.put(msgspec.structs.replace(row, desired=desired))

    async def until(self, what: str, seen: Callable[[], bool], limit_s: float = 1200) -> None:
        ends_s = self.world.now_s + limit_s
        while not seen():
            assert self.world.now_s < ends_s, f"waited in vain: {what}; {self.world.log[-30:]}"
            self.check()
            await asyncio.sleep(0.5)

    def row(self, row_id: str) -> Workload:
        row = self.world.rows[row_id]
        assert isinstance(row, Workload)
        return row

    def check(self) -> None:
        assert not self.world.violations, self.world.violations[0].render()
        self._check_place(self.world.rows)

    def runs(self, job_id: str) -> bool:
        """Whether a rank of the job runs somewhere."""
        attempts = {rank_id.rpartition(".")[0] for rank_id in self.world.running}
        return any(getattr(self.world.rows.get(each), "workload_id", "") == job_id for each in attempts)

    async def restart(self, cluster_id: str) -> None:
        """Stopped and started again."""
        await self.want(cluster_id, Desired.STOP)
        await self.until("it rests", lambda: self.row(cluster_id).phase is WorkloadPhase.STOPPED)
        await self.want(cluster_id, Desired.RUN)
        await self.until("it runs again", lambda: self.row(cluster_id).phase is WorkloadPhase.RUNNING)

    async def end(self, cluster_id: str, job_ids: Sequence[str], is_empty: Callable[[], bool]) -> None:
        """`down`, and all jobs to their end: nothing is left, and no job was lost."""
        await self.want(cluster_id, Desired.END)
        await self.until("jobs ended", lambda: not any(self.row(each).is_live for each in job_ids))
        await self.until("the cluster is gone", lambda: not self.row(cluster_id).is_live)
        rows = self.world.rows.values
        await self.until(
            "claims are gone",
            lambda: all(row.phase is ClaimPhase.GONE for row in rows() if isinstance(row, Claim)),
        )
        await self.until("the place is empty", is_empty, 300)
        lost = [each for each in job_ids if self.row(each).outcome is not Outcome.SUCCEEDED]
        assert not lost, f"jobs were lost: {lost}"

    async def close(self, looking: asyncio.Future[None], serving: asyncio.Future[None]) -> None:
        self.over = True
        serving.cancel()
        looking.cancel()
        await asyncio.wait([serving, looking])
        await self.inner.close()
        assert not self.world.violations, self.world.violations[0].render()
