"""What `argosy explain SERVICE` says."""

from __future__ import annotations

import msgspec

from argosy.model.kinds.service import (
    SERVICE,
    Failed,
    Replica,
    ReplicaState,
    Revision,
    Rollout,
    RolloutPhase,
    ServiceSpec,
    ServiceStatus,
)
from argosy.model.rows import Workload
from argosy.model.served import ServedFact
from argosy.model.serving import Replicas, Serving, Strategy
from argosy.model.task import Task
from argosy.server.service_words import service_lines

NOW_MS = 1_000_000


def _service(policy: Replicas, *, fixed: int | None = None, **status: object) -> Workload:
    task = Task(run="serve", service=Serving(replicas=policy))
    revisions = (
        Revision(number=1, digest="a", task=task),
        Revision(number=2, digest="b", task=task, strategy=Strategy(name="canary")),
    )
    return Workload(
        id="svc-1",
        kind=SERVICE.name,
        name="chat",
        spec=ServiceSpec(revisions=revisions, wanted=1, fixed=fixed),
        status=msgspec.structs.replace(ServiceStatus(serves=1), **status),
        created_ms=1,
    )


def _replica(number: int, state: ReplicaState, why: str = "", revision: int = 1) -> Replica:
    return Replica(
        job_id=f"job-{number}",
        number=number,
        revision=revision,
        port=20_000 + number,
        state=state,
        since_ms=NOW_MS - 40_000,
        why=why,
    )


def test_why_there_are_so_many() -> None:
    load = Replicas(least=1, most=5)
    row = _service(load, target=3, scaled_ms=NOW_MS - 60_000, scaled_why="work of 2.4 replicas arrives")
    assert service_lines(row, ServedFact(held=2), {}, NOW_MS) == (
        "0 replicas of it are ready; 3 are wanted (between 1 and 5), as of 1m ago: "
        "work of 2.4 replicas arrives.",
        "2 requests wait at the gateway until a replica is ready.",
    )
    trouble = ServedFact(troubles=("its trigger `jobs` has no value: away",))
    assert service_lines(row, trouble, {}, NOW_MS)[1:] == ("Its trigger `jobs` has no value: away.",)
    [line] = service_lines(_service(load), None, {}, NOW_MS)
    assert line.endswith("as many as the load needs, between 1 and 5, and no load was seen yet.")
    [line] = service_lines(_service(load, fixed=4), None, {}, NOW_MS)
    assert line == "0 replicas of it are ready; `argosy serve scale` asked for 4."
    [line] = service_lines(_service(Replicas(least=2, most=2)), None, {}, NOW_MS)
    assert line == "0 replicas of it are ready; its file asks for 2."


def test_why_a_replica_is_not_ready() -> None:
    replicas = (
        _replica(1, ReplicaState.READY),
        _replica(2, ReplicaState.STARTING),
        _replica(3, ReplicaState.WARMING, "/health answers 503"),
    )
    failed = Failed(
        job_id="job-0", number=0, revision=1, at_ms=NOW_MS - 5_000, was_proven=False, detail="exit code 1"
    )
    row = _service(Replicas(least=3, most=3), replicas=replicas, failed=(failed,))
    assert service_lines(row, None, {"job-2": "8 GPUs are needed, 2 are free."}, NOW_MS) == (
        "1 replica of it is ready; its file asks for 3.",
        "Replica 2 of revision 1 is starting for 40s: 8 GPUs are needed, 2 are free.",
        "Replica 3 of revision 1 is warming for 40s: /health answers 503.",
        "Replica 0 of revision 1 ended 5s ago: exit code 1.",
    )


def test_why_a_new_revision_without_machines_waits_and_who_answers_meanwhile() -> None:
    replicas = (_replica(1, ReplicaState.READY), _replica(5, ReplicaState.STARTING, revision=2))
    waiting = Rollout(old=1, new=2, phase=RolloutPhase.PROGRESSING, since_ms=NOW_MS - 40_000)
    row = _service(Replicas(least=1, most=1), replicas=replicas, rollout=waiting, weights=((1, 1000),))
    assert service_lines(row, None, {"job-5": "8 GPUs are needed, 2 are free."}, NOW_MS) == (
        "1 replica of it is ready; its file asks for 1.",
        "Revision 2 is progressing (canary): 0 of 1 replica ready, 0 % of the requests; it waits until its "
        "replicas are ready.",
        "Replica 5 of revision 2 is starting for 40s: 8 GPUs are needed, 2 are free.",
    )


def test_why_a_rollout_waits_or_was_taken_back() -> None:
    new = _replica(4, ReplicaState.READY, revision=2)
    baking = Rollout(old=1, new=2, phase=RolloutPhase.BAKING, since_ms=NOW_MS - 30_000)
    row = _service(Replicas(least=1, most=1), replicas=(new,), rollout=baking, weights=((1, 900), (2, 100)))
    assert service_lines(row, None, {}, NOW_MS)[1:] == (
        "Revision 2 is baking (canary): 1 of 1 replica ready, 10 % of the requests; it is watched for 30s.",
    )
    back = msgspec.structs.replace(baking, phase=RolloutPhase.ROLLED_BACK, why="3.1 % of its answers fail")
    row = _service(Replicas(least=1, most=1), rollout=back)
    assert service_lines(row, None, {}, NOW_MS)[1:] == (
        "Revision 2 was rolled back (canary): 3.1 % of its answers fail.",
    )
