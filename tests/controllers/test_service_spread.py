"""Several regions of one service: replicas go where fewest are, and not where spot was just lost."""

from __future__ import annotations

from collections import Counter

import msgspec
from service_stage import Stage

from argosy.controllers.service.routes import route_of
from argosy.controllers.service.spread import AVOIDED_MS
from argosy.model.kinds.service import ReplicaState, service_spec
from argosy.model.offer import Capacity, Offer
from argosy.model.resources import Resources
from argosy.model.serving import Replicas
from argosy.testing.builders import a_shape

DEARER = {"east": 100_000, "west": 110_000, "north": 200_000}


def _offers(*capacities: Capacity) -> list[Offer]:
    return [
        Offer(
            provider="sim", region=region, zone=f"{region}-a", shape=a_shape(), capacity=each,
            price_micro_usd=price * (1 if each is Capacity.SPOT else 3),
        )
        for region, price in DEARER.items()
        for each in capacities
    ]  # fmt: skip


def _stage(count: int, *, spot: bool = False, **fields: object) -> Stage:
    stage = Stage(replicas=count)
    stage.offers = _offers(Capacity.SPOT, Capacity.ON_DEMAND) if spot else _offers(Capacity.ON_DEMAND)
    spec = service_spec(stage.row)
    first = spec.revisions[0]
    told = msgspec.convert({"least": count, "most": count, "spread": "region", **fields}, Replicas)
    serving = msgspec.structs.replace(first.serving, replicas=told)
    task = msgspec.structs.replace(first.task, service=serving, resources=(Resources(use_spot=spot or None),))
    new = msgspec.structs.replace(first, task=task)
    stage.put(msgspec.structs.replace(stage.row, spec=msgspec.structs.replace(spec, revisions=(new,))))
    return stage


def _regions(stage: Stage) -> Counter[str]:
    there = [each for each in stage.replicas() if each.state is not ReplicaState.DRAINING]
    return Counter(each.place.split("/")[1] for each in there)


def test_five_replicas_are_in_three_regions_the_cheapest_have_more() -> None:
    stage = _stage(5)
    stage.beat(times=3)
    assert stage.ready() == 5 and _regions(stage) == {"east": 2, "west": 2, "north": 1}
    [revision] = route_of(stage.row).revisions
    assert Counter(each.region for each in revision.replicas) == {
        "sim/east": 2,
        "sim/west": 2,
        "sim/north": 1,
    }


def test_a_region_that_has_nothing_keeps_no_replica_from_starting() -> None:
    stage = _stage(3)
    stage.full = {"west", "north"}
    stage.beat(times=3)
    assert stage.ready() == 3 and _regions(stage) == {"east": 3}


def test_without_a_word_all_are_where_it_is_cheapest() -> None:
    stage = _stage(3, spread="")
    stage.beat(times=3)
    assert _regions(stage) == {"east": 3}


def test_spot_that_was_taken_back_comes_from_elsewhere_for_a_while() -> None:
    stage = _stage(2, spot=True, evade=True)
    stage.beat(times=3)
    assert _regions(stage) == {"east": 1, "west": 1}
    lost = next(each for each in stage.replicas() if "east" in each.place)
    stage.must_leave(lost.job_id, "the spot machine is taken back")
    stage.beat(times=3)
    assert _regions(stage) == {"west": 1, "north": 1}, "north is dearer, and has lost none"
    lost = next(each for each in stage.replicas() if "north" in each.place and each.state.value == "ready")
    stage.now_ms += AVOIDED_MS
    stage.must_leave(lost.job_id, "the spot machine is taken back")
    stage.beat(times=3)
    assert _regions(stage) == {"west": 1, "east": 1}, "east may have machines again"


def test_where_all_have_lost_spot_there_is_some_all_the_same() -> None:
    stage = _stage(1, spot=True, evade=True)
    stage.beat(times=2)
    for _ in range(4):
        [there] = [each for each in stage.replicas() if each.state is ReplicaState.READY]
        stage.must_leave(there.job_id, "the spot machine is taken back")
        stage.beat(10, times=3)
        assert stage.ready() == 1
    assert {each.place.split("/")[1] for each in stage.state.taken_back} == set(DEARER)
