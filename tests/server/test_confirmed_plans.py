"""A plan is made once: `launch` names the one that people confirmed, and orders that or nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from argosy.api.location import Location
from argosy.client.client import Client
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.errors import ArgosyError
from argosy.model.kinds.cluster import cluster_spec
from argosy.model.kinds.job import job_spec
from argosy.model.offer import Capacity, Offer
from argosy.model.phases import WorkloadPhase
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Workload
from argosy.model.task import Task
from argosy.server import planner
from argosy.testing.builders import a_shape
from argosy.testing.idle_server import IdleServer, StaticProvider, a_pool

USD = 1_000_000
TASK = Task(name="t", run="x", resources=(Resources(infra=Infra(provider="cloud")),))


def offer(region: str, usd: float) -> Offer:
    return Offer(
        provider="cloud",
        region=region,
        shape=msgspec.structs.replace(a_shape(), instance_type="m1"),
        capacity=Capacity.ON_DEMAND,
        price_micro_usd=round(usd * USD),
    )


class Cloud(StaticProvider):
    def __init__(self, **usd: float) -> None:
        can = Capabilities(multi_node=True, spot=True)
        super().__init__(Manifest(name="cloud", title="a cloud", capabilities=can), [])
        self.prices(**usd)

    def prices(self, **usd: float) -> None:
        self.offers = [offer(region, price) for region, price in usd.items()]


@pytest.fixture
def cloud() -> Cloud:
    return Cloud(east=1, west=3)


@pytest.fixture
def server(cloud: Cloud) -> Iterator[IdleServer]:
    with IdleServer(cloud, a_pool()) as running:
        yield running


@pytest.fixture
def client(server: IdleServer) -> Client:
    return Client(Location(socket=server.socket))


@pytest.fixture
def plans(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every plan that the server makes from here on."""
    made: list[Any] = []
    real: Callable[..., Any] = planner.plan_offered

    def counting(*args: Any, **kwargs: Any) -> Any:
        made.append(real(*args, **kwargs))
        return made[-1]

    monkeypatch.setattr(planner, "plan_offered", counting)
    return made


def row(server: IdleServer, id: str) -> Workload:
    found = server.do(server.store.load(id))
    assert isinstance(found, Workload)
    return found


def claimed(server: IdleServer) -> list[str]:
    server.order()
    return [claim.choice.offer.region for claim in server.do(server.store.load_claims(since_ms=0))]


def refused(call: Callable[..., object], *args: Any, **kwargs: Any) -> ArgosyError:
    with pytest.raises(ArgosyError) as error:
        call(*args, **kwargs)
    return error.value


def test_a_plan_has_an_id_a_price_and_the_revision_of_its_offers(client: Client, cloud: Cloud) -> None:
    made, again = client.plan(TASK, managed=False), client.plan(TASK, managed=False)
    assert made.id.startswith("pln-") and (again.id, again.revision) == (made.id, made.revision)
    assert made.max_hourly_micro_usd == 3 * USD
    assert client.plan(TASK, managed=False, prices=True).id == made.id
    assert client.plan(TASK).id != made.id  # a managed job is another thing
    cloud.prices(east=2, west=3)
    later = client.plan(TASK, managed=False)
    assert later.id != made.id and later.revision > made.revision


def test_a_launch_is_planned_once(client: Client, server: IdleServer, plans: list[Any]) -> None:
    launched = client.launch(TASK, cluster="a")
    assert len(plans) == 1 and launched.plan is not None
    assert [choice.price_micro_usd for choice in launched.plan.choices] == [USD, 3 * USD]
    client.jobs_launch([TASK, TASK])
    assert len(plans) == 2


def test_a_plan_that_was_shown_is_not_made_again(client: Client, plans: list[Any]) -> None:
    shown = client.plan(TASK, managed=False)
    launched = client.launch(TASK, cluster="a", plan=shown.id)
    assert len(plans) == 1 and launched.plan == shown.plan


def test_a_launch_writes_no_claim(client: Client, server: IdleServer) -> None:
    launched = client.launch(TASK, cluster="a")
    assert row(server, launched.cluster_id).phase is WorkloadPhase.QUEUED
    assert server.do(server.store.load_claims(since_ms=0)) == []
    assert claimed(server) == ["east"]


def test_what_became_dearer_is_a_conflict_before_anything_is_written(
    client: Client, server: IdleServer, cloud: Cloud
) -> None:
    shown = client.plan(TASK, managed=False)
    cloud.prices(east=2, west=3)
    error = refused(client.launch, TASK, cluster="a", plan=shown.id)
    assert (error.code, error.exit_status) == ("conflict", 5)
    assert error.what == (
        "the plan has changed since it was confirmed: cloud/east m1 costs $2.00/h now, it was $1.00/h"
    )
    assert error.details == ("confirmed: cloud/east m1 at $1.00/h", "now: cloud/east m1 at $2.00/h")
    assert client.status().clusters == ()
    managed = client.plan(TASK)
    cloud.prices(east=2.5, west=3)
    assert refused(client.jobs_launch, [TASK], plan=managed.id).code == "conflict"


def test_a_first_choice_that_is_gone_is_a_conflict(client: Client, cloud: Cloud) -> None:
    shown = client.plan(TASK, managed=False)
    cloud.prices(west=0.5)
    error = refused(client.launch, TASK, cluster="a", plan=shown.id)
    assert error.code == "conflict" and "cloud/east m1 at $1.00/h is not offered any more" in error.what
    assert error.details[-1] == "now: cloud/west m1 at $0.50/h"
    cloud.prices()
    assert "now: nothing fits" in refused(client.launch, TASK, cluster="a", plan=shown.id).details


def test_what_was_confirmed_is_ordered_also_when_something_cheaper_has_come(
    client: Client, server: IdleServer, cloud: Cloud
) -> None:
    shown = client.plan(TASK, managed=False)
    cloud.prices(north=0.9, east=1, west=3)
    launched = client.launch(TASK, cluster="a", plan=shown.id)
    assert launched.plan is not None and launched.plan.choices[0].offer.region == "east"
    assert claimed(server) == ["east"]


def test_nothing_dearer_is_ordered_later(client: Client, server: IdleServer, cloud: Cloud) -> None:
    shown = client.plan(TASK, managed=False)
    launched = client.launch(TASK, cluster="a", plan=shown.id)
    assert cluster_spec(row(server, launched.cluster_id)).confirmed is not None
    cloud.prices(east=4, west=5)
    assert claimed(server) == []
    assert row(server, launched.cluster_id).phase is WorkloadPhase.QUEUED  # it waits, it did not fail
    cloud.prices(east=4, west=2.5)
    assert claimed(server) == ["west"]


def test_as_you_find_it_up_to_a_price(client: Client, server: IdleServer, cloud: Cloud) -> None:
    error = refused(client.launch, TASK, cluster="a", max_hourly_micro_usd=USD // 2)
    assert error.code == "no-offer" and any("cap is $0.50/h" in line for line in error.details)
    launched = client.launch(TASK, cluster="a", max_hourly_micro_usd=2 * USD)
    assert launched.plan is not None and len(launched.plan.choices) == 1
    confirmed = cluster_spec(row(server, launched.cluster_id)).confirmed
    assert confirmed is not None and confirmed.max_hourly_micro_usd == 2 * USD
    job = client.jobs_launch([TASK], max_hourly_micro_usd=2 * USD).jobs[0]
    kept = job_spec(row(server, job.id)).confirmed
    assert kept is not None and kept.max_hourly_micro_usd == 2 * USD
    cloud.prices(west=3)
    assert claimed(server) == []


def test_another_server_makes_the_plan_again_and_compares(client: Client, cloud: Cloud) -> None:
    with IdleServer(Cloud(east=1, west=3), a_pool()) as other:
        shown = Client(Location(socket=other.socket)).plan(TASK, managed=False)
    assert client.launch(TASK, cluster="a", plan=shown.id).created
    cloud.prices(east=2, west=3)
    error = refused(client.launch, TASK, cluster="b", plan=shown.id)
    assert error.code == "conflict" and "is not known here" in error.what


def test_a_plan_is_of_one_task(client: Client) -> None:
    shown = client.plan(TASK)
    other = msgspec.structs.replace(TASK, num_nodes=2)
    assert refused(client.jobs_launch, [other], plan=shown.id).code == "usage"
    assert refused(client.jobs_launch, [TASK, other], plan=shown.id).code == "usage"
    reply = client.jobs_launch([TASK, TASK], plan=shown.id)
    assert len(reply.jobs) == 2 and reply.plan == shown.plan


def test_owned_machines_that_are_in_use_by_now_are_waited_for(client: Client, server: IdleServer) -> None:
    """The plan is not another one for it: people wait in the order of the pool."""
    task = Task(run="x", resources=(Resources(infra=Infra(provider="pool")),))
    shown = client.plan(task, managed=False)
    assert shown.max_hourly_micro_usd == 0
    assert client.launch(task, cluster="a", plan=shown.id).created
    assert client.launch(task, cluster="b", plan=shown.id).created
