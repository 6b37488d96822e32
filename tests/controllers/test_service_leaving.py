"""Replicas whose node is taken away: out of the routes at the notice, replaced ahead, requests answered."""

from __future__ import annotations

import msgspec
import pytest
from service_stage import Stage

from argosy.controllers.job.draining import drains_until_ms
from argosy.controllers.observed import Facts
from argosy.controllers.service.routes import route_of
from argosy.controllers.view import View
from argosy.model.facts import Notice
from argosy.model.kinds.job import JOB, JobSpec, JobStatus, ReplicaOf
from argosy.model.kinds.service import ReplicaState, service_spec
from argosy.model.phases import AttemptPhase, Desired, Outcome
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Workload
from argosy.model.task import Task
from argosy.store import Snapshot

READY, DRAINING = ReplicaState.READY, ReplicaState.DRAINING


@pytest.mark.parametrize("reason", [Reason.PREEMPTED, Reason.EVICTED])
def test_at_the_notice_it_leaves_the_routes_and_another_one_is_ordered(reason: Reason) -> None:
    stage = Stage(replicas=2)
    stage.beat()
    first = stage.replicas()[0]
    stage.busy, stage.room = {first.job_id: 1}, 2
    stage.must_leave(first.job_id, "node 0 is taken away in 120 s (terminate)", reason)
    generation = stage.state.generation
    stage.beat()
    [leaving] = stage.replicas(DRAINING)
    assert leaving.job_id == first.job_id and leaving.left == generation + 1 == stage.state.generation
    routed = {each.id: each.state for each in route_of(stage.row).revisions[0].replicas}
    assert routed[first.job_id] == "draining"
    assert len(stage.replicas()) == 3, "ordered while the old one is still there"
    assert stage.told("replica-leaves") == [
        "replica 1: node 0 is taken away in 120 s (terminate); another one takes its place"
    ]
    assert stage.rows.workloads[first.job_id].desired is Desired.RUN, "a request is under way"
    stage.busy, stage.room = {}, 100
    stage.beat(times=2)
    assert first.job_id not in stage.rows.workloads and stage.ready() == 2
    assert not stage.state.failed, "it did nothing wrong"


def test_requests_are_waited_for_as_long_as_the_service_says() -> None:
    stage = Stage(replicas=2)
    stage.beat()
    first = stage.replicas()[0]
    stage.busy = {first.job_id: 1}
    row = stage.row
    spec = service_spec(row)
    serving = msgspec.structs.replace(spec.revisions[0].serving, drain_ms=90_000)
    task = msgspec.structs.replace(spec.revisions[0].task, service=serving)
    revisions = (msgspec.structs.replace(spec.revisions[0], task=task),)
    stage.put(msgspec.structs.replace(row, spec=msgspec.structs.replace(spec, revisions=revisions)))
    stage.must_leave(first.job_id, "node 0 is taken away (terminate)")
    stage.beat()
    stage.beat(seconds=89)
    assert stage.rows.workloads[first.job_id].desired is Desired.RUN, "a request is under way"
    stage.beat(seconds=2)
    assert first.job_id not in stage.rows.workloads or (
        stage.rows.workloads[first.job_id].desired is Desired.END
    )


def test_a_program_that_is_gone_before_its_requests_are_does_not_come_back() -> None:
    stage = Stage(replicas=2)
    stage.beat()
    first = stage.replicas()[0]
    stage.busy = {first.job_id: 1}
    stage.must_leave(first.job_id, "spot instance: terminate")
    stage.beat()
    attempt = stage.rows.attempt_of(first.job_id)
    assert attempt is not None
    stage.put(msgspec.structs.replace(attempt, phase=AttemptPhase.ENDED))
    assert stage.rows.attempt_of(first.job_id) is None
    stage.room = 0
    stage.beat()
    stage.room = 100
    stage.beat()
    assert first.job_id not in stage.rows.workloads and stage.ready() == 2


def test_a_replica_that_never_answered_is_replaced_at_the_notice_too() -> None:
    stage = Stage(replicas=1)
    stage.broken = {1}
    stage.beat()
    first = stage.replicas()[0]
    stage.must_leave(first.job_id, "spot instance: terminate")
    stage.broken = set()
    stage.beat(times=2)
    assert first.job_id not in stage.rows.workloads and stage.ready() == 1


def _until(reason: Reason, notice_in_s: int | None, *, replica: bool = True, desired: Desired) -> int:
    """Seconds after the notice."""
    job = Workload(
        id="job-1",
        kind=JOB.name,
        name="chat-1",
        spec=JobSpec(
            task=Task(run="serve", grace_s=10),
            managed=True,
            replica=ReplicaOf(service="chat", revision=1, port=20_000) if replica else None,
        ),
        status=JobStatus(),
        desired=desired,
        created_ms=1,
    )
    attempt = Attempt(
        id="att-1",
        workload_id="job-1",
        number=1,
        placements=(),
        phase=AttemptPhase.ENDING,
        outcome=Outcome.PREEMPTED,
        reason=reason,
        placed_ms=1,
        ending_ms=1_000_000,
    )
    view = View(now_ms=1_000_000, rows=Snapshot.of([job]), observed=Facts(), offers=[], abilities={})
    told = None
    if notice_in_s is not None:
        told = Notice(code="terminate", at_ms=1_000_000 + notice_in_s * 1000)
    until_ms = drains_until_ms(view, job, attempt, told)
    return (until_ms - 1_000_000) // 1000 if until_ms else 0


@pytest.mark.parametrize(
    ("reason", "notice_in_s", "seconds"),
    [
        (Reason.PREEMPTED, 120, 105),  # 5 s reserve, 10 s for the program
        (Reason.PREEMPTED, 30, 16),  # a third of the 25 s that are left
        (Reason.PREEMPTED, 4, 0),  # too late
        (Reason.PREEMPTED, None, 0),  # gone without notice
        (Reason.EVICTED, None, 10),
        (Reason.NODE_LOST, 120, 0),
    ],
)
def test_requests_have_the_time_that_is_left(reason: Reason, notice_in_s: int | None, seconds: int) -> None:
    assert _until(reason, notice_in_s, desired=Desired.RUN) == seconds
    assert _until(reason, notice_in_s, desired=Desired.END) == 0, "its requests are done"
    assert _until(reason, notice_in_s, replica=False, desired=Desired.RUN) == 0, "a job without clients"
