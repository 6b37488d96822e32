"""Where capacity was refused lately is seen in listings and plans, until it has faded."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from argosy.api.location import Location
from argosy.cli.offer_words import render_refused
from argosy.client.client import Client
from argosy.infra.system import SystemClock
from argosy.model.priced import Refused
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.task import Task
from argosy.planning.availability import Refusal, remember
from argosy.testing.idle_server import IdleServer

P4D = "p4d.24xlarge"


@pytest.fixture
def idle() -> Iterator[IdleServer]:
    with IdleServer() as running:
        yield running


@pytest.fixture
def client(idle: IdleServer) -> Client:
    return Client(Location(socket=idle.socket))


def refuse(idle: IdleServer, now_ms: int, **where: object) -> None:
    """As the controllers do when a provider has no capacity."""
    refusal = Refusal(provider="aws", instance_type=P4D, at_ms=now_ms, **where)  # type: ignore[arg-type]
    idle.controllers.memory = remember(idle.controllers.memory, refusal)


def test_gpus_and_offers_say_where_it_was_refused(idle: IdleServer, client: Client) -> None:
    now_ms = SystemClock().now_ms()
    assert not any(row.refused for row in client.gpus("A100").gpus)
    refuse(idle, now_ms - 300_000, region="us-east-1", zone="use1-az1")
    refuse(idle, now_ms - 60_000, region="us-east-1", spot=True)
    refuse(idle, now_ms - 7_200_000, region="us-west-2")  # two hours ago: it has faded
    rows = {(row.provider, row.instance_type): row for row in client.gpus("A100:8").gpus}
    assert [(each.region, each.zone, each.spot) for each in rows["aws", P4D].refused] == [
        ("us-east-1", "", True), ("us-east-1", "use1-az1", False),
    ]  # fmt: skip
    assert not any(row.refused for key, row in rows.items() if key != ("aws", P4D))
    wish = Resources(
        accelerator=Accelerator(model="A100", milli=8000), infra=Infra(provider="aws"), use_spot=False
    )
    offers = client.plan(Task(run="x", resources=(wish,)), prices=True, limit=500).offers
    told = {(each.region, each.zone) for each in offers if each.refused}
    assert told and {region for region, _ in told} == {"us-east-1"}
    assert all(each.zone in ("", "use1-az1") for each in offers if each.refused)
    assert all(not seen.spot for each in offers for seen in each.refused)


def test_words() -> None:
    one = Refused(at_ms=700_000, region="us-east-1", zone="use1-az1")
    assert render_refused((), 1_000_000) == ""
    assert render_refused((one,), 1_000_000) == "5m ago in use1-az1"
    spot = Refused(at_ms=940_000, region="us-east-1", spot=True)
    assert render_refused((spot, one), 1_000_000) == "spot 1m ago in us-east-1, and 1 more"
    assert render_refused((Refused(at_ms=1_000_000),), 1_000_000) == "0s ago"
