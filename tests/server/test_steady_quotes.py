"""Who does not ask for spot gets none, also from providers that quote for themselves; own machines have the
price of terms.toml."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from argosy.api.location import Location
from argosy.client.client import Client
from argosy.infra.provider import Capabilities, Manifest, Want
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.resources import Infra, Resources
from argosy.model.task import Task
from argosy.model.units import GIB
from argosy.testing.idle_server import IdleServer, StaticProvider, a_pool

SHAPE = Shape(
    instance_type="n1", cpus_milli=8000, memory_bytes=32 * GIB, accelerator="L4", accelerators_milli=1000
)


class Cloud(StaticProvider):
    """Quotes spot at a tenth of the price, and notes what it was asked for."""

    def __init__(self) -> None:
        steady = Offer(
            provider="nimbus",
            region="east",
            shape=SHAPE,
            capacity=Capacity.ON_DEMAND,
            price_micro_usd=1_000_000,
        )
        spot = msgspec.structs.replace(steady, capacity=Capacity.SPOT, price_micro_usd=100_000)
        can = Capabilities(multi_node=True, spot=True)
        super().__init__(Manifest(name="nimbus", title="a cloud", capabilities=can), [steady, spot])
        self.wants: list[Want] = []

    async def quote(self, want: Want) -> Sequence[Offer]:
        self.wants.append(want)
        return await super().quote(want)


@pytest.mark.parametrize(
    ("use_spot", "capacity"), [(None, "on-demand"), (False, "on-demand"), (True, "spot")]
)
def test_spot_is_asked_for(use_spot: bool | None, capacity: str) -> None:
    cloud = Cloud()
    with IdleServer(cloud) as idle:
        client = Client(Location(socket=idle.socket))
        wish = Resources(infra=Infra(provider="nimbus"), use_spot=use_spot)
        task = Task(run="x", resources=(wish,))
        plain, priced = client.plan(task).plan, client.plan(task, prices=True)
        assert {choice.offer.capacity.value for choice in plain.choices} == {capacity}
        assert {offer.capacity for offer in priced.offers} == {capacity}
        launched = client.launch(task, cluster="dev")
        idle.order()
        claims = idle.do(idle.store.load_claims(since_ms=0))
        assert launched.plan is not None and [c.choice.offer.capacity.value for c in claims] == [capacity]
        assert all(wish.use_spot is bool(use_spot) for want in cloud.wants for wish in want.resources)


def test_discounts_hold_for_what_drivers_quote() -> None:
    """The driver has the name of a cloud with prices: a discount must be of one of those."""
    cloud = Cloud()
    cloud.manifest = msgspec.structs.replace(cloud.manifest, name="lambda")
    cloud.offers = [msgspec.structs.replace(offer, provider="lambda") for offer in cloud.offers]
    with IdleServer(cloud) as idle:
        client = Client(Location(socket=idle.socket))
        folder = Path(client.catalog().folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "terms.toml").write_text('[[discount]]\nprovider = "lambda"\nfamily = "n*"\npercent = 25\n')
        task = Task(run="x", resources=(Resources(infra=Infra(provider="lambda"), use_spot=False),))
        assert [choice.price_micro_usd for choice in client.plan(task).plan.choices] == [750_000]
        spot = Task(run="x", resources=(Resources(infra=Infra(provider="lambda"), use_spot=True),))
        assert [choice.price_micro_usd for choice in client.plan(spot).plan.choices] == [100_000]


OWNED = ("kubernetes", "slurm", "ssh", "vsphere")


@pytest.fixture
def farm() -> Iterator[IdleServer]:
    """One driver for each kind of own machines, with two pools each."""
    drivers = []
    for name in OWNED:
        can = Capabilities(owned=True, multi_node=True)
        offers = [
            Offer(
                provider=name,
                region=pool,
                shape=SHAPE,
                capacity=Capacity.OWNED,
                price_micro_usd=0,
                nodes_max=4,
            )
            for pool in ("lab", "hall")
        ]
        drivers.append(StaticProvider(Manifest(name=name, title=name, capabilities=can), offers))
    with IdleServer(*drivers) as running:
        yield running


def test_owned_machines_of_every_kind_at_their_price(farm: IdleServer) -> None:
    client = Client(Location(socket=farm.socket))
    free = client.gpus("L4").offers
    assert {offer.price_micro_usd for offer in free} == {0}
    folder = Path(client.catalog().folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "terms.toml").write_text(
        "[owned]\n" + "".join(f'{name} = 0.8\n"{name}/lab" = 0.4\n' for name in OWNED)
    )
    rows = {(offer.provider, offer.region): offer for offer in client.gpus("L4").offers}
    assert {place: offer.price_micro_usd for place, offer in rows.items()} == {
        (name, pool): usd for name in OWNED for pool, usd in (("lab", 400_000), ("hall", 800_000))
    }
    assert {offer.capacity for offer in rows.values()} == {Capacity.OWNED}
    for name in OWNED:
        task = Task(run="x", resources=(Resources(infra=Infra(provider=name)),))
        reply = client.plan(task, prices=True)
        assert [
            (each.region, each.price.micro_usd, each.capacity, each.launchable) for each in reply.offers
        ] == [("lab", 400_000, "owned", True), ("hall", 800_000, "owned", True)]


class Hanging(Cloud):
    """Answers once."""

    async def quote(self, want: Want) -> Sequence[Offer]:
        if self.wants:
            await asyncio.Event().wait()
        return await super().quote(want)


def test_requests_go_on_while_a_provider_hangs() -> None:
    with IdleServer(a_pool(), Hanging()) as idle:
        client = Client(Location(socket=idle.socket))
        task = Task(run="x")
        for _ in range(3):
            plan = client.plan(task).plan
            assert {choice.offer.provider for choice in plan.choices} == {"pool", "nimbus"}
            assert {offer.provider for offer in client.gpus().offers} == {"pool", "nimbus"}
        assert client.launch(task, cluster="dev").cluster == "dev"


class Silent(Cloud):
    """Never answers."""

    async def quote(self, want: Want) -> Sequence[Offer]:
        await asyncio.Event().wait()
        raise AssertionError


def test_a_provider_that_is_still_asked_is_not_called_disabled() -> None:
    with IdleServer(Silent()) as idle:
        client = Client(Location(socket=idle.socket))
        (rejection,) = client.plan(Task(run="x")).plan.rejected
        assert (rejection.provider, rejection.code) == ("nimbus", "unreachable")
