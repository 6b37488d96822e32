"""Pools of workers: kept up, set up once, replaced when they are lost, lent to one job at a time."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest

from argosy.controllers.kinds import decide_workload
from argosy.controllers.observed import Facts
from argosy.controllers.view import Action, Put, View, WakeAt
from argosy.model.group import Layout
from argosy.model.kinds import kind_of
from argosy.model.kinds.group import GROUP, GroupSpec, GroupStatus
from argosy.model.kinds.job import job_spec, job_task
from argosy.model.kinds.workers import WORKERS, WorkersSpec, WorkersStatus, workers_state
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Row, Workload
from argosy.model.task import Task
from argosy.store import Snapshot
from argosy.testing.builders import a_cluster, a_job, changed
from argosy.testing.virtual_time import EPOCH_MS

NOW = EPOCH_MS + 100_000
_ids = itertools.count(1)


def a_pool(size: int = 2, generation: int = 1, **fields: Any) -> Workload:
    row = Workload(
        id="wrk-1",
        kind=WORKERS.name,
        name="warm",
        spec=WorkersSpec(task=Task(setup="pip install x"), size=size, generation=generation),
        status=WorkersStatus(made=2),
        phase=WorkloadPhase.RUNNING,
        created_ms=EPOCH_MS,
    )
    return changed(row, **fields)


def a_worker(index: int, setup: Outcome | None = Outcome.SUCCEEDED, **fields: Any) -> list[Workload]:
    """Its cluster and the job that sets it up."""
    cluster = a_cluster(
        id=f"clu-{index}", name=f"warm-{index}", parent_id="wrk-1", number=1,
        **{"phase": WorkloadPhase.RUNNING, "started_ms": NOW} | fields,
    )  # fmt: skip
    phase = WorkloadPhase.FINISHED if setup is not None else WorkloadPhase.RUNNING
    job = a_job(
        id=f"job-s{index}", host_id=cluster.id, parent_id="wrk-1", number=1, phase=phase, outcome=setup
    )
    return [cluster, job]


def decide(row: Workload, *others: Row) -> list[Action]:
    live = [msgspec.structs.replace(each, phase=WorkloadPhase.QUEUED) for each in (row, *others)]
    rows = Snapshot.of(live).changed([row, *others], seq=2)
    view = View(now_ms=NOW, rows=rows, observed=Facts(), offers=[], abilities={})
    return decide_workload(view, row, lambda prefix: f"{prefix}-new{next(_ids)}")


def written(actions: list[Action]) -> list[Workload]:
    return [a.row for a in actions if isinstance(a, Put) and isinstance(a.row, Workload)]


def test_missing_workers_are_made_with_their_setup() -> None:
    pool, cluster, setup = written(decide(a_pool(size=2), *a_worker(1)))
    assert workers_state(pool).made == 3 and cluster.name == "warm-3" and kind_of(cluster).hosts
    assert setup.host_id == cluster.id and cluster.parent_id == setup.parent_id == "wrk-1"
    assert job_task(setup).setup == "pip install x" and job_spec(setup).run_setup
    assert written(decide(a_pool(size=1), *a_worker(1))) == []


def test_a_lost_worker_is_replaced_at_once_and_one_that_cannot_be_set_up_with_a_pause() -> None:
    lost = a_worker(1, phase=WorkloadPhase.FINISHED, outcome=Outcome.LOST, ended_ms=NOW - 1)
    assert len(written(decide(a_pool(size=1), *lost))) == 3
    [ended] = written(decide(a_pool(size=1), *a_worker(1, setup=Outcome.FAILED)))
    assert (ended.desired, ended.reason) == (Desired.END, Reason.SETUP_FAILED)
    over = {"phase": WorkloadPhase.FINISHED, "outcome": Outcome.CANCELLED, "reason": Reason.SETUP_FAILED}
    failed = a_worker(1, setup=Outcome.FAILED, ended_ms=NOW - 1, **over)
    actions = decide(a_pool(size=1), *failed)
    assert written(actions) == [] and any(isinstance(each, WakeAt) and each.at_ms > NOW for each in actions)


def test_a_smaller_pool_ends_free_workers_and_a_changed_one_replaces_them_one_by_one() -> None:
    busy = a_job(id="job-b", host_id="clu-1", number=5, phase=WorkloadPhase.RUNNING)
    rows = [*a_worker(1), *a_worker(2), busy]
    assert [row.id for row in written(decide(a_pool(size=1), *rows))] == ["clu-2"]
    assert written(decide(a_pool(size=2, generation=2), *rows))[0].id == "clu-2"
    assert written(decide(a_pool(size=2, generation=2), *a_worker(1), *a_worker(2, setup=None))) == []


def a_group(id: str, number: int, size: int = 3) -> Workload:
    return Workload(
        id=id,
        kind=GROUP.name,
        name="g",
        spec=GroupSpec(tasks=(Task(run="x"),), layout=Layout(size=size), pool_id="wrk-1"),
        status=GroupStatus(),
        phase=WorkloadPhase.RUNNING,
        number=number,
        created_ms=EPOCH_MS + number,
    )


def test_jobs_take_free_workers_in_the_order_of_their_groups() -> None:
    rows = [a_pool(), *a_worker(1), *a_worker(2), *a_worker(3, setup=None)]
    first, second = a_group("grp-1", 1, size=1), a_group("grp-2", 2)
    jobs = written(decide(second, first, *rows))[1:]
    assert [(job.host_id, job.number) for job in jobs] == [("clu-2", 0)]
    assert not job_spec(jobs[0]).managed and not job_spec(jobs[0]).run_setup
    assert written(decide(first, second, *rows))[1].host_id == "clu-1"


@pytest.mark.parametrize(("outcome", "again"), [(Outcome.LOST, True), (Outcome.FAILED, False)])
def test_a_job_whose_worker_was_lost_goes_to_another(outcome: Outcome, again: bool) -> None:
    job = a_job(
        id="job-a", host_id="clu-9", parent_id="grp-1", number=0,
        phase=WorkloadPhase.FINISHED, outcome=outcome,
    )  # fmt: skip
    found = written(decide(a_group("grp-1", 1, size=1), a_pool(), *a_worker(1), job))
    made = [row for row in found if row.kind != GROUP.name]
    assert [row.host_id for row in made] == (["clu-1"] if again else [])


def test_without_its_pool_a_group_fails() -> None:
    [ended] = written(decide(a_group("grp-1", 1)))
    assert (ended.outcome, ended.reason) == (Outcome.FAILED, Reason.CLUSTER_GONE)
