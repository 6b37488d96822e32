"""Pipelines through the real API and the shipped catalog, and how tasks become stages and links."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from argosy.api.location import Location
from argosy.catalog import Catalog
from argosy.client.client import Client
from argosy.model.errors import ArgosyError, render_error
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.task import DataSize, Task, VolumeMount
from argosy.model.units import GIB, Bound
from argosy.planning.dag import Flow
from argosy.planning.objective import Known, Run
from argosy.server.pipelines import shape_of, tariffs_of, with_assumed
from argosy.testing.idle_server import IdleServer


@pytest.fixture
def client() -> Iterator[Client]:
    with IdleServer() as running:
        yield Client(Location(socket=running.socket))


def data(**sizes_gib: int) -> tuple[DataSize, ...]:
    return tuple(DataSize(url=f"s3://{name}", size_bytes=size * GIB) for name, size in sizes_gib.items())


def task(name: str | None, hours: int | None = 1, **fields: Any) -> Task:
    seconds = None if hours is None else hours * 3600
    return Task(name=name, run="x", estimated_s=seconds, **fields)


AWS = Resources(cpus=Bound(16000), infra=Infra(provider="aws"))
A100 = Resources(accelerator=Accelerator(model="A100", milli=8000))


def pair(hours: int, size_gib: int) -> list[Task]:
    prep = task("prep", 1, resources=(AWS,), outputs=data(tokens=size_gib))
    return [prep, task("train", hours, resources=(A100,), inputs=data(tokens=size_gib))]


def test_deadlines_of_stages_are_said_not_to_be_weighed(client: Client) -> None:
    prep, train = pair(1, 10)
    late = [prep, msgspec.structs.replace(train, deadline_s=60)]
    assert client.plan_pipeline(late).warnings == (
        "the deadline of `train` is not weighed: a plan of several tasks has no deadlines yet",
    )


def test_a_plan_of_several_tasks_says_what_their_folders_cost(client: Client) -> None:
    client.make_folder("tokens", user="ann")
    prep, train = pair(1, 10)
    given = [
        msgspec.structs.replace(prep, volumes=(VolumeMount(target="/out", folder="tokens"),)),
        msgspec.structs.replace(train, volumes=(VolumeMount(target="/d", folder="tokens", read_only=True),)),
    ]
    first, second = client.plan_pipeline(given).folders
    assert first.startswith("prep: `/out` is `tokens` itself, mounted through the server")
    assert second.startswith("train: `/d` is a copy of `tokens`, as it is at the launch: 0 files (")
    assert client.plan_pipeline([prep, train]).folders == ()


# -- through the server -----------------------------------------------------------------------------


def test_a_stage_moves_only_when_it_saves_more_than_the_traffic(client: Client) -> None:
    stays, moves = client.plan_pipeline(pair(1, 2000)), client.plan_pipeline(pair(100, 200))
    assert {stage.offer.provider for stage in stays.stages} == {"aws"} and stays.egress_micro_usd == 0
    assert stays.alone_micro_usd > stays.cost_micro_usd
    assert any("`train` stays in aws/" in reason and "more in traffic" in reason for reason in stays.reasons)
    assert stays.reasons[-1].startswith("every stage at its own cheapest place would cost $")
    prep, train = moves.stages
    assert train.offer.provider != "aws" and prep.egress_micro_usd == moves.egress_micro_usd > 0
    (move,) = moves.moves
    assert (move.src, move.dst, move.size_bytes) == ("prep", "train", 200 * GIB)
    assert any(
        "`train` leaves aws/" in reason and "staying would cost $" in reason for reason in moves.reasons
    )
    for reply in (stays, moves):
        assert reply.method == "tree" and not reply.warnings
        assert reply.cost_micro_usd == reply.egress_micro_usd + sum(s.cost_micro_usd for s in reply.stages)
        assert reply.egress_micro_usd == sum(each.cost_micro_usd for each in reply.moves)
        assert reply.makespan_s >= sum(stage.offer.runtime_s or 0 for stage in reply.stages)


@pytest.mark.parametrize(("hours", "size_gib"), [(1, 50), (1, 2000), (3, 500), (100, 200)])
def test_nothing_is_cheaper_than_the_plan(client: Client, hours: int, size_gib: int) -> None:
    """Against every pair of places that plans of one task list."""
    tasks = pair(hours, size_gib)
    tariffs = tariffs_of(Catalog.load())
    lists = [client.plan(each, prices=True, limit=2000).offers for each in tasks]
    cheapest = []
    for offers in lists:
        places: dict[tuple[str, str], int] = {}
        for offer in offers:
            place = (offer.provider, offer.region)
            assert offer.total_micro_usd is not None
            places[place] = min(places.get(place, offer.total_micro_usd), offer.total_micro_usd)
        cheapest.append(places)

    def total(src: tuple[str, str], dst: tuple[str, str]) -> int:
        tariff = tariffs(*src)
        per_gb = tariff.between_micro_usd if src[0] == dst[0] else tariff.outside_micro_usd
        return cheapest[0][src] + cheapest[1][dst] + (0 if src == dst else size_gib * per_gb)

    best = min(total(src, dst) for src, dst in itertools.product(*cheapest))
    assert abs(client.plan_pipeline(tasks).cost_micro_usd - best) <= len(tasks)  # micro-USD, by rounding


def test_the_fastest_says_what_it_costs(client: Client) -> None:
    reply = client.plan_pipeline(pair(100, 200), objective="time")
    assert reply.makespan_s <= client.plan_pipeline(pair(100, 200)).makespan_s
    assert len(reply.reasons) == 1


def test_what_is_assumed_is_marked(client: Client) -> None:
    tasks = [task(None, None, deadline_s=60, not_executed=("outputs",)), task("b", 2)]
    reply = client.plan_pipeline(tasks)
    assert [(s.name, s.offer.basis, s.offer.runtime_s) for s in reply.stages] == [
        ("task 1", "assumed", 3600),
        ("b", "estimate", 7200),
    ]
    assert reply.notes[0].startswith("how long `task 1` runs is not known")
    assert reply.warnings == (
        "the deadline of `1` is not weighed: a plan of several tasks has no deadlines yet",
    )
    assert reply.stages[0].offer.provider == "pool" and reply.stages[0].offer.launchable
    assert reply.reasons == (
        "every stage is at its own cheapest place; `outputs` and `inputs` say how much data travels",
    )


def test_candidates_in_order_of_preference(client: Client) -> None:
    gcp = Resources(cpus=Bound(16000), infra=Infra(provider="gcp"))
    dear = task("a", resources=(gcp, AWS), ordered=True)
    assert client.plan_pipeline([dear]).stages[0].offer.provider == "gcp"
    nowhere = Resources(cpus=Bound(16000), memory=Bound(900_000 * GIB))
    second = task("a", resources=(nowhere, AWS), ordered=True)
    assert client.plan_pipeline([second]).stages[0].offer.provider == "aws"


def test_what_cannot_be_planned(client: Client) -> None:
    def refused(tasks: list[Task], **options: Any) -> str:
        with pytest.raises(ArgosyError) as error:
            client.plan_pipeline(tasks, **options)
        return render_error(error.value)

    huge = Resources(accelerator=A100.accelerator, memory=Bound(900_000 * GIB))
    assert "stage `big`: nothing fits `A100:8, " in refused([task("a"), task("big", resources=(huge,))])
    odd = Resources(accelerator=Accelerator(model="A1000000", milli=1000))
    assert "A1000000" in refused([task("a", resources=(odd,))])
    assert "in a circle" in refused([task("a"), task("b")], edges=[(0, 1), (1, 0)])
    assert "no edge from task 0 to task 7" in refused([task("a")], edges=[(0, 7)])
    assert "not planned by carbon" in refused([task("a")], objective="carbon")
    assert "`joy` is no objective" in refused([task("a")], objective="joy")
    assert "at most 100 tasks" in refused([task("a")] * 101)
    assert "no task is given" in refused([])


# -- stages and links -------------------------------------------------------------------------------


def links(*tasks: Task, edges: Any = None) -> list[tuple[str, str, int]]:
    return [(link.src, link.dst, link.size_bytes // GIB) for link in shape_of(tasks, edges).links]


def test_what_is_read_comes_from_who_makes_it() -> None:
    a = task("a", outputs=data(x=10, y=5))
    assert links(a, task("b")) == [("a", "b", 15)]  # it names nothing: all of it
    assert links(a, task("b", inputs=data(x=10))) == [("a", "b", 10)]
    last = task("c", inputs=data(y=5))
    assert links(a, task("b", inputs=data(x=10)), last) == [("a", "b", 10), ("a", "c", 5), ("b", "c", 0)]
    assert links(a, task("b"), edges=()) == []


def test_what_nobody_makes_or_reads_travels_to_and_from_storage() -> None:
    last = task("b", inputs=(*data(x=10, corpus=7), DataSize(url="https://e.org/z", size_bytes=1)))
    shape = shape_of([task("a", outputs=data(x=10, y=5)), last], None)
    assert shape.flows == (
        (Flow(provider="aws", size_bytes=5 * GIB, reads=False),),
        (Flow(provider="aws", size_bytes=7 * GIB),),
    )
    assert (shape.urls, shape.unknown) == ((("s3://y",), ("s3://corpus",)), ("https://e.org/z",))
    assert shape_of([task("a"), task("a")], ()).names == ("a", "a (2)")


def test_a_stage_that_ran_elsewhere_is_taken_to_run_as_long() -> None:
    runs = (Run(duration_s=100), Run(duration_s=300), Run(duration_s=200))
    assert with_assumed(Known(runs=runs)).estimated_s == 200
    assert with_assumed(Known(runs=runs, estimated_s=5)).estimated_s == 5
    assert with_assumed(Known()).estimated_s == 3600
