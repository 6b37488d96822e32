"""A new kind of workload is a folder (`sweep`) and one line in the registry: everything else takes it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from sweep import SWEEP, SweepSpec, SweepStatus

from argosy.controllers.kinds import decide_workload
from argosy.controllers.observed import Facts
from argosy.controllers.view import Put, View
from argosy.model.errors import ArgosyError
from argosy.model.kinds import KINDS, gangs, kind_of_id, title
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Row, Workload
from argosy.store import Conflict, Snapshot, Store
from argosy.testing.builders import a_job, changed
from argosy.testing.harness import SimStore, Simulation
from argosy.testing.sim_users import Load
from argosy.testing.virtual_time import FixedClock, SimIds
from argosy.testing.world import World


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one line."""
    monkeypatch.setitem(KINDS, SWEEP.name, SWEEP)


def a_sweep(id: str = "swp-1", name: str = "lr", trials: int = 3, **fields: Any) -> Workload:
    spec = SweepSpec(run="sim exit=0 run=20", trials=trials)
    row = Workload(
        id=id, kind=SWEEP.name, name=name, spec=spec, status=SweepStatus(), created_ms=FixedClock().now_ms()
    )
    return changed(row, **fields)


def test_what_others_know_of_it() -> None:
    assert gangs(a_sweep()) == () and title(a_sweep()) == "sweep `lr`"
    assert kind_of_id("swp-1") is SWEEP and kind_of_id("sweep") is None


def test_the_store_keeps_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"sqlite://{tmp_path}/argosy.db"

    async def write() -> None:
        store = await Store.open(url, ids=SimIds(), clock=FixedClock())
        [row] = await store.commit([a_sweep()])
        with pytest.raises(Conflict):  # names of this kind are unique
            await store.commit([a_sweep(id="swp-2")])
        child = a_job(id="job-1", managed=True, parent_id="swp-1")
        await store.commit([child, a_job(id="job-2", managed=True)])
        with pytest.raises(Exception, match="parent_id"):
            await store.commit([changed(child, rev=1, parent_id=None)])
        await store.commit([row.with_status(started=3)])
        await store.close()

    async def read() -> None:
        store = await Store.open(url, ids=SimIds(), clock=FixedClock())
        snapshot = await store.snapshot()
        assert snapshot.workloads["swp-1"].status == SweepStatus(started=3)
        assert [child.id for child in snapshot.children_of("swp-1")] == ["job-1"]
        assert snapshot.find_named("sweep", "lr") == await store.find_named("sweep", "lr") is not None
        await store.close()

    asyncio.run(write())
    asyncio.run(read())
    monkeypatch.delitem(KINDS, SWEEP.name)
    with pytest.raises(ArgosyError, match="no kind of workload `sweep`"):  # by a version without it
        asyncio.run(read())


def _view(*rows: Row) -> View:
    return View(now_ms=5, rows=Snapshot.of(rows), observed=Facts(), offers=[], abilities={})


@pytest.mark.parametrize("parent", [None, a_sweep(desired=Desired.END, reason=Reason.IDLE)])
def test_children_end_with_their_parent(parent: Workload | None) -> None:
    child = a_job(id="job-1", managed=True, parent_id="swp-1")
    rows = [child, *([parent] if parent is not None else [])]
    [put] = decide_workload(_view(*rows), child, lambda prefix: prefix)
    assert isinstance(put, Put) and isinstance(put.row, Workload)
    assert (put.row.desired, put.row.reason) == (
        Desired.END,
        Reason.IDLE if parent is not None else Reason.CANCELLED_BY_USER,
    )
    assert decide_workload(_view(a_sweep(), child), child, lambda prefix: prefix) == []


class WithSweeps(SimStore):
    """People who use sweeps, too: one that ends by itself, one that is ended by hand."""

    def __init__(self, inner: Store, world: World, committed: Callable[[Any], None]) -> None:
        super().__init__(inner, world, committed)
        self.work = asyncio.ensure_future(self._use())

    async def _use(self) -> None:
        await asyncio.sleep(20)
        await self.write([a_sweep("swp-done", "done"), a_sweep("swp-cut", "cut", trials=30)])
        while not (await self.inner.snapshot()).children_of("swp-cut"):
            await asyncio.sleep(1)
        row = (await self.inner.snapshot()).workloads["swp-cut"]
        while True:
            try:
                await self.write([changed(row, desired=Desired.END, reason=Reason.CANCELLED_BY_USER)])
                return
            except Conflict:
                row = (await self.inner.snapshot()).workloads["swp-cut"]


@pytest.mark.parametrize("seed", [1])
def test_it_lives_through_the_simulation(seed: int) -> None:
    """With crashes, lost replies and two servers: the same laws as for everybody else."""
    stores: list[WithSweeps] = []

    def make_store(inner: Store, world: World, committed: Callable[[Any], None]) -> SimStore:
        stores.append(WithSweeps(inner, world, committed))
        return stores[-1]

    simulation = Simulation(
        seed, load=Load(minutes=6, clusters_max=1, managed_max=1, crowds=0), make_store=make_store
    )
    outcome = simulation.run()
    rows = simulation.world.rows
    done, cut = rows["swp-done"], rows["swp-cut"]
    assert isinstance(done, Workload) and isinstance(cut, Workload)
    assert done.phase is cut.phase is WorkloadPhase.FINISHED
    assert (done.outcome, cut.outcome) == (Outcome.SUCCEEDED, Outcome.CANCELLED)
    trials = [row for row in rows.values() if isinstance(row, Workload) and row.parent_id]
    assert len(trials) == 33 and not any(row.is_live for row in trials)
    assert outcome.violations == ()
