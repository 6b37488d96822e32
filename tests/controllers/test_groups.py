"""Groups of jobs: what starts when, what is skipped, how the whole ends. Tables, and the simulation."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from argosy.controllers.group.decide import AHEAD
from argosy.controllers.group.standing import Standing, standings_of
from argosy.controllers.kinds import decide_workload
from argosy.controllers.observed import Facts
from argosy.controllers.view import Action, Put, View, WakeAt
from argosy.model.group import Layout, Member, When
from argosy.model.kinds import title
from argosy.model.kinds.group import GROUP, GroupSpec, GroupStatus, group_state
from argosy.model.kinds.job import job_spec, job_task
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Row, Workload
from argosy.model.task import Task
from argosy.store import Conflict, Snapshot, Store
from argosy.testing.builders import a_job, changed
from argosy.testing.harness import SimStore, Simulation
from argosy.testing.sim_users import Load
from argosy.testing.virtual_time import EPOCH_MS, FixedClock, SimIds
from argosy.testing.world import World

NOW = EPOCH_MS + 50_000
_ids = itertools.count(1)
DIAMOND = (
    Member(name="prep"),
    Member(name="left", after=(0,)),
    Member(name="right", after=(0,)),
    Member(name="join", after=(1, 2)),
    Member(name="mourn", after=(1, 2), when=When.FAILED),
    Member(name="clean", after=(3, 4), when=When.ALWAYS),
)


def a_group(layout: Layout, *, id: str = "grp-1", task: Task | None = None, **fields: Any) -> Workload:
    awaits = fields.pop("awaits", ())
    when = fields.pop("when", When.SUCCEEDED)
    row = Workload(
        id=id,
        kind=GROUP.name,
        name="sweep",
        spec=GroupSpec(tasks=(task or Task(run="true"),), layout=layout, awaits=awaits, when=when),
        status=GroupStatus(),
        number=7,
        created_ms=EPOCH_MS,
    )
    return changed(row, **fields)


def rows_of(*rows: Row) -> Snapshot:
    """As after commits: first all live, then with those that ended."""
    live = [
        msgspec.structs.replace(row, phase=WorkloadPhase.QUEUED) if not row.is_live else row for row in rows
    ]
    return Snapshot.of(live).changed(rows, seq=2)


def decide(group: Workload, *others: Row, now_ms: int = NOW) -> list[Action]:
    view = View(now_ms=now_ms, rows=rows_of(group, *others), observed=Facts(), offers=[], abilities={})
    return decide_workload(view, group, lambda prefix: f"{prefix}-{next(_ids)}")


def written(actions: list[Action]) -> tuple[Workload | None, list[Workload]]:
    """(the group, its jobs)."""
    rows = [action.row for action in actions if isinstance(action, Put)]
    groups = [row for row in rows if isinstance(row, Workload) and row.kind == GROUP.name]
    jobs = [row for row in rows if isinstance(row, Workload) and row.kind != GROUP.name]
    return (groups[0] if groups else None), jobs


def member(index: int, outcome: Outcome | None = None, **fields: Any) -> Workload:
    phase = WorkloadPhase.FINISHED if outcome is not None else WorkloadPhase.RUNNING
    return a_job(
        id=f"job-m{index}", managed=True, parent_id="grp-1", number=index,
        **{"phase": phase, "outcome": outcome, "started_ms": NOW - 1000} | fields,
    )  # fmt: skip


def test_an_array_makes_its_jobs_when_their_turn_comes() -> None:
    group = a_group(Layout(size=1000), task=Task(run="x", envs={"A": "1"}))
    changed_group, jobs = written(decide(group))
    assert changed_group is not None and changed_group.phase is WorkloadPhase.STARTING
    assert [job.number for job in jobs] == list(range(AHEAD)) and group_state(changed_group).made == AHEAD
    first = jobs[5]
    member_of = job_spec(first).member
    assert member_of is not None and title(first) == "job 7/5"
    assert member_of.envs["ARGOSY_ARRAY_INDEX"] == member_of.envs["SKYPILOT_JOB_RANK"] == "5"
    assert member_of.envs["SKYPILOT_NUM_JOBS"] == "1000"
    assert first.parent_id == "grp-1" and job_spec(first).managed and first.created_ms == group.created_ms
    assert job_task(jobs[0]) is job_task(jobs[1])  # nothing is copied for equal tasks


@pytest.mark.parametrize(("parallel", "running", "new"), [(0, 3, 7), (4, 3, 1), (3, 3, 0)])
def test_at_most_so_many_at_once(parallel: int, running: int, new: int) -> None:
    group = a_group(Layout(size=10, parallel=parallel), phase=WorkloadPhase.RUNNING)
    _, jobs = written(decide(group, *(member(index) for index in range(running))))
    assert len(jobs) == new


def test_a_place_that_takes_arrays_has_all_jobs_at_once_and_keeps_the_limit() -> None:
    wish = Resources(infra=Infra(provider="slurm"))
    task = Task(run="x", resources=(wish,), config='{"slurm": {"native": true}}')
    layout = Layout(size=AHEAD + 50, parallel=4)
    _, jobs = written(decide(a_group(layout, task=task)))
    assert len(jobs) == AHEAD + 50
    member_of = job_spec(jobs[7]).member
    assert member_of is not None
    told = {name: member_of.envs[f"ARGOSY_ARRAY_{name}"] for name in ("INDEX", "SIZE", "PARALLEL")}
    assert told == {"INDEX": "7", "SIZE": str(AHEAD + 50), "PARALLEL": "4"}
    elsewhere = msgspec.structs.replace(task, resources=(wish, Resources()))
    _, jobs = written(decide(a_group(layout, task=elsewhere)))
    assert len(jobs) == 4 and "ARGOSY_ARRAY_PARALLEL" not in job_spec(jobs[0]).member.envs  # type: ignore[union-attr]


def test_a_sweep_fills_in_its_values() -> None:
    task = Task(run="train --lr {{matrix.lr}} --m {{ matrix.model }} {{other}}", envs={"lr": "0", "B": "2"})
    layout = Layout(size=1, members=(Member(values={"lr": "0.1", "model": "big"}),))
    _, [job] = written(decide(a_group(layout, task=task)))
    assert job_task(job).run == "train --lr 0.1 --m big {{other}}"
    assert job_task(job).envs == {"lr": "0.1", "B": "2", "model": "big"}


@pytest.mark.parametrize(
    ("ended", "made", "skipped"),
    [
        ({}, [0], []),
        ({0: Outcome.SUCCEEDED}, [1, 2], []),
        ({0: Outcome.SUCCEEDED, 1: Outcome.SUCCEEDED}, [2], []),
        ({0: Outcome.SUCCEEDED, 1: Outcome.SUCCEEDED, 2: Outcome.SUCCEEDED}, [3], [4]),
        ({0: Outcome.SUCCEEDED, 1: Outcome.FAILED, 2: Outcome.SUCCEEDED}, [4], [3]),
        ({0: Outcome.FAILED}, [5], [1, 2, 3, 4]),
    ],
)
def test_a_graph_goes_in_its_order(ended: dict[int, Outcome], made: list[int], skipped: list[int]) -> None:
    layout = Layout(size=6, members=DIAMOND)
    rows = [member(index, outcome) for index, outcome in ended.items()]
    _, jobs = written(decide(a_group(layout, phase=WorkloadPhase.RUNNING), *rows))
    assert [job.number for job in jobs] == made
    assert standings_of(layout, rows).those(Standing.SKIPPED) == skipped


def test_a_task_that_is_retried_runs_once_more_and_what_it_held_up_waits_for_it() -> None:
    layout = Layout(size=6, members=DIAMOND)
    rows = [member(0, Outcome.SUCCEEDED), member(1, Outcome.FAILED), member(2)]
    group = a_group(layout, phase=WorkloadPhase.RUNNING, made=3)
    _, [mourn] = written(decide(group, *rows))
    assert mourn.number == 4
    asked = changed(group, retried=(1,))
    assert standings_of(layout, rows, retried=(1,)).those(Standing.SKIPPED) == []
    after, [again] = written(decide(asked, *rows))
    assert again.number == 1 and after is not None
    assert (group_state(after).retried, group_state(after).made) == ((), 4)
    found = standings_of(layout, [*rows, again])
    assert found.found[1] is Standing.LIVE and found.jobs[1].id == again.id


def test_a_task_knows_those_before_it() -> None:
    group = a_group(Layout(size=6, members=DIAMOND), phase=WorkloadPhase.RUNNING)
    rows = [member(0, Outcome.SUCCEEDED), member(1, Outcome.SUCCEEDED), member(2, Outcome.SUCCEEDED)]
    _, [join] = written(decide(group, *rows))
    member_of = job_spec(join).member
    assert member_of is not None
    assert member_of.envs["ARGOSY_AFTER_LEFT_TASK_ID"] == "argosy-job-m1"
    assert member_of.envs["ARGOSY_AFTER_TASK_IDS"] == "argosy-job-m1\nargosy-job-m2"
    assert member_of.envs["ARGOSY_AFTER_RIGHT_OUTCOME"] == "succeeded"


def test_one_failure_does_not_end_the_others() -> None:
    group = a_group(Layout(size=3), phase=WorkloadPhase.RUNNING)
    assert written(decide(group, member(0, Outcome.FAILED), member(1), member(2))) == (None, [])
    rows = [member(0, Outcome.FAILED, detail="exit 3"), member(1, Outcome.SUCCEEDED), member(2, Outcome.LOST)]
    ended, _ = written(decide(group, *rows))
    assert ended is not None and (ended.outcome, ended.reason) == (Outcome.FAILED, Reason.TASKS_FAILED)
    assert ended.detail == "2 of 3 tasks failed: 0, 2 (0: exit 3)"
    assert ended.status == GroupStatus(succeeded=1, failed=2)


def test_fail_fast_ends_the_others_and_makes_no_more() -> None:
    group = a_group(Layout(size=5, fail_fast=True, parallel=2), phase=WorkloadPhase.RUNNING)
    told, jobs = written(decide(group, member(0, Outcome.FAILED), member(1)))
    assert told is not None and group_state(told).ending_ms == NOW
    assert [(job.number, job.desired, job.reason) for job in jobs] == [(1, Desired.END, Reason.GROUP_ENDED)]
    ended, _ = written(decide(told, member(0, Outcome.FAILED), member(1, Outcome.CANCELLED)))
    assert ended is not None and ended.outcome is Outcome.FAILED
    assert ended.status == GroupStatus(failed=1, cancelled=1, skipped=3, ending_ms=NOW)


def test_primary_tasks_end_the_group() -> None:
    layout = Layout(
        size=3, members=(Member(), Member(), Member()), together=True, primary=(0,), delays_s=(0, 30)
    )
    group = a_group(layout, phase=WorkloadPhase.RUNNING)
    actions = decide(group, member(0, Outcome.SUCCEEDED), member(1), member(2))
    told, jobs = written(actions)
    assert told is not None and [job.number for job in jobs] == [2]
    assert [action.at_ms for action in actions if isinstance(action, WakeAt)] == [NOW + 30_000]
    _, jobs = written(decide(told, member(0, Outcome.SUCCEEDED), member(1), now_ms=NOW + 30_000))
    assert [job.number for job in jobs] == [1]
    rows = [member(0, Outcome.SUCCEEDED), member(1, Outcome.CANCELLED), member(2, Outcome.CANCELLED)]
    ended, _ = written(decide(told, *rows))
    assert ended is not None and ended.outcome is Outcome.SUCCEEDED  # only the primary ones count


@pytest.mark.parametrize(
    ("when", "outcome", "result"),
    [
        (When.SUCCEEDED, None, "waits"),
        (When.SUCCEEDED, Outcome.SUCCEEDED, "runs"),
        (When.SUCCEEDED, Outcome.FAILED, "skipped"),
        (When.FAILED, Outcome.FAILED, "runs"),
        (When.FAILED, Outcome.SUCCEEDED, "skipped"),
        (When.ALWAYS, Outcome.CANCELLED, "runs"),
    ],
)
def test_a_group_waits_for_other_jobs(when: When, outcome: Outcome | None, result: str) -> None:
    group = a_group(Layout(size=1), awaits=("job-12",), when=when)
    other = a_job(
        id="job-12", managed=True, number=12, outcome=outcome,
        phase=WorkloadPhase.FINISHED if outcome is not None else WorkloadPhase.RUNNING,
    )  # fmt: skip
    row, jobs = written(decide(group, other))
    if result == "runs":
        assert len(jobs) == 1
    elif result == "waits":
        assert row is None and not jobs
    else:
        assert row is not None and (row.outcome, row.reason) == (Outcome.CANCELLED, Reason.NOT_DUE)
        assert "job 12" in row.detail


def test_cancelling_ends_the_jobs_first() -> None:
    group = a_group(Layout(size=5), desired=Desired.END, reason=Reason.CANCELLED_BY_USER)
    assert decide(group, member(0)) == []
    ended, _ = written(decide(group, member(0, Outcome.CANCELLED)))
    assert ended is not None and ended.outcome is Outcome.CANCELLED
    assert ended.status == GroupStatus(cancelled=1, skipped=4)


def test_the_store_remembers_how_jobs_of_live_groups_ended(tmp_path: Path) -> None:
    url = f"sqlite://{tmp_path}/argosy.db"

    async def write() -> None:
        store = await Store.open(url, ids=SimIds(), clock=FixedClock())
        await store.commit([a_group(Layout(size=2)), a_job(id="job-12", managed=True, number=12)])
        await store.commit([a_group(Layout(size=1), id="grp-2", awaits=("job-12",))])
        live = await store.commit([member(0), member(1), member(2)])
        over = [changed(row, phase=WorkloadPhase.FINISHED, outcome=Outcome.FAILED) for row in live[:2]]
        await store.commit(over)
        job = (await store.snapshot()).workloads["job-12"]
        await store.commit([changed(job, phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED)])
        await check(store)
        await store.close()

    async def check(store: Store) -> None:
        rows = await store.snapshot()
        assert [row.id for row in rows.ends_for("grp-1")] == ["job-m0", "job-m1"]
        assert [row.id for row in rows.ends_for("grp-2")] == ["job-12"]
        assert [row.id for row in rows.groups()] == ["grp-1", "grp-2"]
        assert [row.id for row in rows.managed_jobs()] == ["job-m2"]
        assert rows.job(None, 7) is rows.workloads["grp-1"]
        assert rows.job(None, 2) is None is await store.find_job(None, 2)  # a job of a group has no number
        assert [row.id for row in await store.load_children("grp-1")] == ["job-m0", "job-m1", "job-m2"]
        shown = await store.load_jobs(host_id=None)
        assert [row.id for row in shown] == ["job-12", "grp-2", "grp-1"]

    async def read() -> None:
        store = await Store.open(url, ids=SimIds(), clock=FixedClock())
        await check(store)
        await store.prune(before_ms=EPOCH_MS * 2)
        assert await store.load("job-m0") is not None  # its group has to know it after the next start
        group = (await store.snapshot()).workloads["grp-1"]
        await store.commit([changed(group, phase=WorkloadPhase.FINISHED, outcome=Outcome.FAILED)])
        assert not (await store.snapshot()).ends_for("grp-1")
        await store.close()

    asyncio.run(write())
    asyncio.run(read())


class WithGroups(SimStore):
    """People who use groups, too: an array, a graph, one that is cancelled, one that waits for another."""

    def __init__(self, inner: Store, world: World, committed: Callable[[Any], None]) -> None:
        super().__init__(inner, world, committed)
        self.work = asyncio.ensure_future(self._use())

    async def _use(self) -> None:
        await asyncio.sleep(20)
        task = Task(run="sim exit=0 work_s=10")
        array = a_group(Layout(size=60, parallel=20), id="grp-array", task=task)
        graph = a_group(Layout(size=6, members=DIAMOND), id="grp-graph", task=task)
        cut = a_group(Layout(size=150), id="grp-cut", task=task)
        later = a_group(Layout(size=1), id="grp-later", task=task, awaits=("grp-graph",))
        await self.write(
            [msgspec.structs.replace(row, number=at) for at, row in enumerate((array, graph, cut), 900)]
        )
        await self.write([later])
        while not (await self.inner.snapshot()).children_of("grp-cut"):
            await asyncio.sleep(1)
        while True:
            row = (await self.inner.snapshot()).workloads["grp-cut"]
            try:
                await self.write([changed(row, desired=Desired.END, reason=Reason.CANCELLED_BY_USER)])
                return
            except Conflict:
                continue


@pytest.mark.parametrize("seed", [3])
def test_groups_live_through_the_simulation(seed: int) -> None:
    """With crashes, lost replies and two servers: every task runs once, in its order."""
    stores: list[WithGroups] = []

    def make_store(inner: Store, world: World, committed: Callable[[Any], None]) -> SimStore:
        stores.append(WithGroups(inner, world, committed))
        return stores[-1]

    load = Load(minutes=6, clusters_max=1, managed_max=1, crowds=0)
    simulation = Simulation(seed, load=load, make_store=make_store)
    outcome = simulation.run()
    assert outcome.violations == ()
    rows = [row for row in simulation.world.rows.values() if isinstance(row, Workload)]
    groups = {row.id: row for row in rows if row.kind == GROUP.name}
    assert all(row.phase is WorkloadPhase.FINISHED for row in groups.values())
    assert groups["grp-cut"].outcome is Outcome.CANCELLED
    jobs = {
        id: sorted((row for row in rows if row.parent_id == id), key=lambda row: row.number) for id in groups
    }
    assert [job.number for job in jobs["grp-array"]] == list(range(60))
    graph = {job.number: job for job in jobs["grp-graph"]}
    assert len(graph) == len(jobs["grp-graph"])
    if groups["grp-graph"].outcome is Outcome.SUCCEEDED:
        assert sorted(graph) == [0, 1, 2, 3, 5]
        assert max(graph[1].ended_ms, graph[2].ended_ms) <= graph[3].started_ms
        assert graph[5].ended_ms <= jobs["grp-later"][0].started_ms
    assert len({job.number for job in jobs["grp-cut"]}) == len(jobs["grp-cut"]) <= 150
