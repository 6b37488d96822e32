"""What the catalog prices is launched where a driver is in use: the plan shows the same rows that launch
takes."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.api.location import Location
from argosy.catalog.table import PriceRow, build_block, write_table
from argosy.client.client import Client
from argosy.infra.border import CredentialsRejected
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.errors import ArgosyError
from argosy.model.market import Note
from argosy.model.offer import Capacity, Offer, Shape, Tried
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.rows import Workload
from argosy.model.task import Task
from argosy.model.units import GIB
from argosy.testing.idle_server import IdleServer, StaticProvider, a_pool

USD = 1_000_000
TASK = Task(name="t", run="x", resources=(Resources(accelerator=Accelerator(model="T4", milli=1000)),))


def priced(region: str, zone: str, usd: float, *, spot: bool = False) -> PriceRow:
    capacity = Capacity.SPOT if spot else Capacity.ON_DEMAND
    return PriceRow(
        "g4", "T4", 1000, 16 * GIB, 4000, 16 * GIB, 0, "x86_64", region, zone, capacity,
        round(usd * USD), Note(20_000, "list"),
    )  # fmt: skip


ROWS = [
    priced("east", "east-a", 2),
    priced("east", "east-b", 2),
    priced("west", "west-a", 3),
    priced("east", "east-a", 0.5, spot=True),
]


class Cloud(StaticProvider):
    """Offers what the catalog prices; `offers` are what differs from that."""

    def __init__(self) -> None:
        can = Capabilities(multi_node=True, spot=True)
        super().__init__(Manifest(name="aws", title="a cloud", capabilities=can, priced_by_catalog=True), [])


@pytest.fixture
def cloud() -> Cloud:
    return Cloud()


@pytest.fixture
def server(cloud: Cloud, tmp_path: Path) -> Iterator[IdleServer]:
    table = tmp_path / "prices.bin"
    others = [each._replace(region="r", zone="", price_micro_usd=USD) for each in ROWS[:1]]
    table.write_bytes(write_table("2026-01-01", [build_block("aws", ROWS), build_block("gcp", others)]))
    with IdleServer(cloud, a_pool(), prices=table, state_dir=tmp_path / "state") as running:
        yield running


@pytest.fixture
def client(server: IdleServer) -> Client:
    return Client(Location(socket=server.socket))


def claimed(server: IdleServer) -> list[str]:
    server.order()
    return [claim.choice.offer.zone for claim in server.do(server.store.load_claims(since_ms=0))]


def test_the_plan_shows_the_rows_that_launch_takes(client: Client, server: IdleServer) -> None:
    shown = client.plan(TASK, prices=True, managed=False, limit=10)
    rows = [(each.provider, each.zone, each.launchable, each.hourly_micro_usd) for each in shown.offers]
    assert rows == [
        ("gcp", "", False, USD),  # is not in use here
        ("aws", "east-a", True, 2 * USD),
        ("aws", "east-b", True, 2 * USD),
        ("aws", "west-a", True, 3 * USD),
    ]
    assert shown.fitting == 4 and shown.max_hourly_micro_usd == 3 * USD
    launched = client.launch(TASK, cluster="a", plan=shown.id)
    assert launched.plan is not None
    zones = [each.offer.zone for each in launched.plan.choices]
    assert zones == ["east-a", "east-b", "west-a"] == [each.offer.zone for each in shown.plan.choices]
    assert claimed(server) == ["east-a"]


def test_a_managed_job_gets_the_same_rows(client: Client, server: IdleServer) -> None:
    shown = client.plan(TASK)
    client.jobs_launch([TASK], plan=shown.id)
    assert [each.offer.zone for each in shown.plan.choices][:1] == claimed(server) == ["east-a"]


def test_spot_is_among_them_for_who_asks(client: Client) -> None:
    spot = Task(run="x", resources=(Resources(accelerator=TASK.resources[0].accelerator, use_spot=True),))
    (choice,) = client.plan(spot).plan.choices
    assert (choice.offer.capacity, choice.price_micro_usd) == (Capacity.SPOT, USD // 2)


def test_what_the_provider_tells_counts_more_than_the_catalog(client: Client, cloud: Cloud) -> None:
    first = client.plan(TASK, managed=False)
    dear = first.plan.choices[0].offer
    cloud.offers = [
        Offer(provider="aws", region="east", zone="east-a", shape=dear.shape,
              capacity=Capacity.ON_DEMAND, price_micro_usd=4 * USD),
        Offer(provider="aws", region="west", shape=Shape(), capacity=Capacity.ON_DEMAND,
              price_micro_usd=0, closed="region `west` is not enabled for your account"),
    ]  # fmt: skip
    made = client.plan(TASK, managed=False)
    assert [(each.offer.zone, each.price_micro_usd) for each in made.plan.choices] == [
        ("east-b", 2 * USD), ("east-a", 4 * USD),
    ]  # fmt: skip
    assert "region `west` is not enabled for your account" in [each.text for each in made.plan.rejected]
    with pytest.raises(ArgosyError, match="the plan has changed since it was confirmed"):
        client.launch(TASK, cluster="a", plan=first.id)


def test_without_credentials_there_is_nothing_to_launch(client: Client, cloud: Cloud) -> None:
    client.plan(TASK)
    cloud.error = CredentialsRejected("the key of profile `default` has expired")
    made = client.plan(TASK)
    assert made.plan.choices == () and made.id == ""
    assert "the key of profile `default` has expired" in [each.text for each in made.plan.rejected]
    with pytest.raises(ArgosyError) as error:
        client.launch(TASK, cluster="a")
    assert error.value.code == "no-offer"


def test_refreshed_prices_make_another_plan(client: Client, server: IdleServer) -> None:
    """Within a moment, and what was confirmed before is not launched at the new price."""
    shown = client.plan(TASK, managed=False)
    pricing = server.application.pricing
    dearer = [each._replace(price_micro_usd=9 * USD) for each in ROWS]
    (server.home.parent / "prices.bin").write_bytes(write_table("2026-01-02", [build_block("aws", dearer)]))
    (pricing.prices.folder / "live").mkdir(parents=True)
    (pricing.prices.folder / "live" / "touched").write_text("")
    server.call(lambda: setattr(pricing.rented, "_given", None))  # as after two seconds
    made = client.plan(TASK, managed=False)
    assert made.revision > shown.revision and made.plan.choices[0].price_micro_usd == 9 * USD
    with pytest.raises(ArgosyError, match=r"costs \$9.00/h now, it was \$2.00/h"):
        client.launch(TASK, cluster="a", plan=shown.id)


def test_a_region_that_does_not_exist_is_an_error(client: Client) -> None:
    there = Resources(accelerator=TASK.resources[0].accelerator, infra=Infra(provider="aws", region="eats"))
    with pytest.raises(ArgosyError) as error:
        client.launch(Task(run="x", resources=(there,)), cluster="a")
    assert error.value.what == "aws has no region `eats`"


def test_explain_lists_every_place_that_refused(client: Client, server: IdleServer) -> None:
    """With what it said and when, also after the launch has failed."""
    launched = client.launch(TASK, cluster="a")
    now_ms = int(time.time() * 1000)
    tried = (
        Tried(provider="aws", region="east", zone="east-a", instance_type="g4",
              text="InsufficientInstanceCapacity", at_ms=now_ms - 90_000),
        Tried(provider="aws", region="west", zone="west-a", instance_type="g4", spot=True, reach="region",
              text="MaxSpotInstanceCountExceeded", at_ms=now_ms),
    )  # fmt: skip
    row = server.do(server.store.load(launched.cluster_id))
    assert isinstance(row, Workload)
    server.do(server.store.commit([row.with_status(tried=tried)]))
    told = client.explain(launched.cluster_id)
    assert told.tried == tried
    lines = [re.sub(r"refused .* ago", "refused AGO", line) for line in told.lines[-2:]]
    assert lines == [
        "aws/east/east-a g4 refused AGO: InsufficientInstanceCapacity",
        "aws/west/west-a g4 spot refused AGO: MaxSpotInstanceCountExceeded",
    ]


def test_a_fraction_rents_the_smallest_machine_that_has_one(client: Client, server: IdleServer) -> None:
    """What the machine costs as a whole and for each task is said before it is ordered."""
    part = Task(run="x", resources=(Resources(accelerator=Accelerator(model="T4", milli=250)),))
    made = client.plan(part, managed=False)
    best = made.plan.choices[0]
    assert (best.offer.zone, best.accelerators_milli, best.price_micro_usd) == ("east-a", 1000, 2 * USD)
    assert made.notes == (
        "aws/east rents whole machines: g4 with 1 T4 costs $2.00/h and has room for 4 such tasks, "
        "$0.50/h each",
    )
    assert client.plan(TASK, managed=False).notes == ()
    client.launch(part, cluster="a", plan=made.id)
    assert claimed(server) == ["east-a"]
