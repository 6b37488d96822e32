"""Services on spot and on demand at once: a fixed part, and a stand-in for each missing spot replica."""

from __future__ import annotations

import msgspec
from service_stage import Stage

from argosy.model.kinds.job import job_spec
from argosy.model.kinds.service import Replica, ReplicaState, service_spec
from argosy.model.resources import Resources
from argosy.model.serving import Replicas

READY = ReplicaState.READY


def _stage(count: int, **fields: int | bool) -> Stage:
    stage = Stage(replicas=count)
    spec = service_spec(stage.row)
    first = spec.revisions[0]
    serving = msgspec.structs.replace(
        first.serving, replicas=msgspec.convert({"least": count, "most": count, **fields}, Replicas)
    )
    task = msgspec.structs.replace(first.task, service=serving, resources=(Resources(use_spot=True),))
    new = msgspec.structs.replace(first, task=task)
    stage.put(msgspec.structs.replace(stage.row, spec=msgspec.structs.replace(spec, revisions=(new,))))
    return stage


def _on_demand(stage: Stage) -> list[Replica]:
    return [each for each in stage.replicas() if each.on_demand]


def _spot(stage: Stage) -> list[Replica]:
    return [each for each in stage.replicas() if not each.on_demand]


def test_some_are_on_demand_at_all_times() -> None:
    stage = _stage(4, on_demand=1)
    stage.beat(times=3)
    assert len(_spot(stage)) == 3 and len(_on_demand(stage)) == 1 and stage.ready() == 4
    for each in stage.replicas():
        task = job_spec(stage.rows.workloads[each.job_id]).task
        assert task.resources[0].use_spot is not each.on_demand
    stage.want(fixed=1)
    stage.beat(10, times=3)
    [left] = stage.replicas()
    assert left.on_demand, "the part that is on demand stays longest"


def test_on_demand_stands_in_while_spot_is_not_there() -> None:
    stage = _stage(2, fallback=True)
    stage.hold_spot = True
    stage.beat(times=3)
    assert len(_spot(stage)) == 2 and len(_on_demand(stage)) == 2
    assert stage.ready() == 2 and all(each.on_demand for each in stage.replicas(READY))
    stage.hold_spot = False
    stage.beat(10, times=4)
    assert not _on_demand(stage) and stage.ready() == 2
    assert stage.least_ready == 2 or stage.told("promoted"), "spot came before on demand went"


def test_a_notice_to_a_spot_replica_orders_both() -> None:
    stage = _stage(2, fallback=True)
    stage.beat(10, times=4)
    assert not _on_demand(stage)
    stage.hold_spot, stage.least_ready = True, 10_000
    first = stage.replicas()[0]
    stage.must_leave(first.job_id, "spot instance: terminate")
    stage.beat(times=4)
    assert len(_on_demand(stage)) == 1 and len(_spot(stage)) == 2 and stage.ready() == 2


def test_without_spot_the_words_change_nothing() -> None:
    stage = _stage(2, on_demand=1, fallback=True)
    spec = service_spec(stage.row)
    plain = msgspec.structs.replace(spec.revisions[0].task, resources=(Resources(),))
    new = msgspec.structs.replace(spec.revisions[0], task=plain)
    stage.put(msgspec.structs.replace(stage.row, spec=msgspec.structs.replace(spec, revisions=(new,))))
    stage.beat(times=3)
    assert len(stage.replicas()) == 2 and not _on_demand(stage)
