"""Services: replicas that become ready, fail, are replaced and drained."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from service_stage import Stage

from argosy.model.kinds.job import job_spec, job_task
from argosy.model.kinds.service import ReplicaState
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason

READY, DRAINING = ReplicaState.READY, ReplicaState.DRAINING


def test_a_service_makes_its_replicas_and_runs_when_one_answers() -> None:
    stage = Stage(replicas=3)
    stage.beat()
    assert stage.ready() == 3 and stage.row.phase is WorkloadPhase.RUNNING and stage.weights == {1: 1000}
    jobs = stage.rows.children_of("svc-1")
    replicas = [job_spec(job).replica for job in jobs]
    assert [job.number for job in jobs] == [1, 2, 3] and len({each.port for each in replicas if each}) == 3
    wish = job_task(jobs[0]).resources[0]
    assert wish.priority_class == "service" and wish.recovery.max_restarts_on_errors == 3
    assert stage.told("promoted") == ["revision 1 serves"]


def test_a_replica_leaves_the_routes_before_it_is_told_to_end() -> None:
    stage = Stage(replicas=2)
    stage.beat()
    generation, busy = stage.state.generation, stage.replicas()[0].job_id
    stage.busy = {each.job_id: 1 for each in stage.replicas()}
    stage.is_gateway_there = False
    stage.want(fixed=1)
    stage.beat(times=5)
    [leaving] = stage.replicas(DRAINING)
    assert leaving.job_id == busy and leaving.left == generation + 1 == stage.state.generation
    assert stage.rows.workloads[busy].desired is Desired.RUN, "the gateway has not said that it knows"
    stage.is_gateway_there = True
    stage.beat(times=5)
    assert stage.rows.workloads[busy].desired is Desired.RUN, "a request is under way"
    stage.busy = {}
    stage.beat()
    assert busy not in stage.rows.workloads and stage.ready() == 1


def test_a_request_that_never_ends_does_not_keep_a_replica_for_ever() -> None:
    stage = Stage(replicas=1)
    stage.beat()
    stage.busy = {stage.replicas()[0].job_id: 1}
    stage.want(fixed=0)
    stage.beat()
    stage.beat(598)
    assert stage.replicas(DRAINING)
    stage.beat(2)
    assert not stage.replicas()


def test_a_replica_that_ends_by_itself_is_replaced_with_growing_pauses() -> None:
    stage = Stage(replicas=1)
    stage.crashing = {1}
    made: list[int] = []
    for second in range(70):
        stage.beat()
        if len(made) < len(stage.state.failed) and len(made) < 6:
            made.append(second)
    pauses = [after - before for before, after in itertools.pairwise(made)]
    assert pauses == sorted(pauses) and pauses[0] <= 3 and pauses[-1] >= 16
    assert "replica 1 of revision 1: the program exited with code 1" in stage.told("replica-failed")
    stage.crashing = set()
    stage.beat(60)
    assert stage.ready() == 1


def test_a_clock_that_is_set_back_holds_no_replica_up() -> None:
    stage = Stage(1)
    stage.crashing = {1}
    stage.beat(times=40)
    made = stage.state.made
    assert made > 1 and stage.told("replica-failed")
    stage.now_ms -= 47 * 60_000
    stage.crashing = set()
    stage.beat(times=10)
    assert stage.ready() == 1, "pauses after failures of a future that was none are not waited for"


def test_a_program_that_ends_well_is_told_what_a_server_is() -> None:
    stage = Stage(replicas=1)
    stage.beat()
    stage.end(stage.replicas()[0].job_id, Outcome.SUCCEEDED)
    stage.beat()
    assert "(exit code 0): a server runs until it is stopped" in stage.told("replica-failed")[0]


def test_a_replica_that_is_never_ready_takes_no_requests_and_is_given_up() -> None:
    stage = Stage(replicas=1)
    stage.broken = {1}
    stage.beat(times=59)
    assert stage.ready() == 0 and stage.state.made == 1
    assert stage.replicas()[0].why == "/health answers 503"
    stage.beat(2)
    assert stage.told("replica-failed") == [
        "replica 1 of revision 1: it was not ready after 60 s: /health answers 503"
    ]
    ended = stage.rows.ends_for("svc-1")[0]
    assert ended.reason is Reason.UNREADY


@pytest.mark.parametrize(("refused", "limit_s"), [(True, 5), (False, 90)])
def test_a_ready_replica_that_does_not_answer_is_doubted_then_replaced(refused: bool, limit_s: int) -> None:
    stage = Stage(replicas=2)
    stage.beat()
    [first, _] = stage.replicas()
    fact = stage.facts.replicas[first.job_id]
    stage.facts.replicas[first.job_id] = msgspec.structs.replace(
        fact, good=0, bad=3, since_ms=stage.now_ms, why="no answer", refused=refused
    )
    stage.broken = set()
    real, stage._answer = (
        stage._answer,
        lambda job, attempt, good: (  # type: ignore[method-assign]
            None if job.id == first.job_id else real(job, attempt, good=good)
        ),
    )
    stage.beat(times=limit_s + 1)
    assert stage.state.made == 3 and stage.ready() == 2
    assert first.job_id not in {each.job_id for each in stage.replicas(READY)}


def test_half_of_the_replicas_at_most_are_doubted_on_probes_alone() -> None:
    stage = Stage(replicas=4)
    stage.beat()
    for each in stage.replicas():
        fact = stage.facts.replicas[each.job_id]
        stage.facts.replicas[each.job_id] = msgspec.structs.replace(
            fact, good=0, bad=9, since_ms=stage.now_ms - 60_000, why="no answer"
        )
    stage._answer = lambda job, attempt, good: None  # type: ignore[method-assign]
    stage.beat()
    assert len(stage.replicas(ReplicaState.SUSPECT)) == 2 and stage.ready() == 2


def test_a_lost_replica_is_no_failure() -> None:
    stage = Stage(replicas=1)
    stage.beat()
    stage.end(stage.replicas()[0].job_id, Outcome.LOST, "node 0 is gone")
    stage.beat()
    assert stage.state.failed == () and stage.ready() == 1 and stage.state.made == 2


def test_down_answers_what_is_under_way_first() -> None:
    stage = Stage(replicas=2)
    stage.beat()
    stage.busy = {stage.replicas()[0].job_id: 1}
    stage.put(msgspec.structs.replace(stage.row, desired=Desired.END))
    stage.beat(times=3)
    assert len(stage.replicas(DRAINING)) == 1
    stage.busy = {}
    stage.beat()
    assert "svc-1" not in stage.rows.workloads and not stage.rows.workloads
