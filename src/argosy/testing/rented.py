"""A cloud whose machines the catalog prices, in the simulated world: what every place says is scripted.

`RentedProvider` quotes only what differs from its rows; `says` holds what places answer when they are asked,
and `asked` which were. `a_block` makes rows, `FixedPrices` gives them to a shell.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Sequence
from typing import NamedTuple

from argosy.infra import border
from argosy.infra.provider import Capabilities, Manifest
from argosy.model.areas import Atlas
from argosy.model.market import Block, Lane, Note, Place, market_of
from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.planning.offered import Priced
from argosy.testing.sim_provider import SimProvider
from argosy.testing.world import World

_CAN = Capabilities(spot=True, stop=True, multi_node=True, preemption_notice=True)


class Row(NamedTuple):
    """One price: dollars per hour of one node."""

    region: str
    zone: str
    usd: float
    instance_type: str = "g1"
    spot: bool = False
    gpus: int = 1
    model: str = "A100"


def a_block(provider: str, rows: Sequence[Row]) -> Block:
    """Rows as a market has them. Machines of a type are alike: 12 CPUs and 85 GiB for each of its devices."""
    kinds = sorted({(row.instance_type, row.gpus, row.model) for row in rows})
    places = sorted({Place(row.region, row.zone) for row in rows})
    return Block(
        provider,
        instance_types=[kind for kind, _, _ in kinds],
        models=[model if gpus else "" for _, gpus, model in kinds],
        accelerators_milli=[1000 * gpus for _, gpus, _ in kinds],
        device_memory_bytes=[40 * GIB if gpus else 0 for _, gpus, _ in kinds],
        cpus_milli=[12_000 * max(1, gpus) for _, gpus, _ in kinds],
        memory_bytes=[85 * GIB * max(1, gpus) for _, gpus, _ in kinds],
        disk_bytes=[0] * len(kinds),
        arch=["x86_64"] * len(kinds),
        places=places,
        lanes=[_lane(rows, kinds, places, spot=spot) for spot in (False, True)],
        notes=[Note(20_000, "test prices")],
    )


def _lane(
    rows: Sequence[Row], kinds: Sequence[tuple[str, int, str]], places: Sequence[Place], *, spot: bool
) -> Lane:
    start, place, price = [0], array("H"), array("q")
    for kind in kinds:
        mine = [row for row in rows if (row.instance_type, row.gpus, row.model) == kind and row.spot == spot]
        for usd, at in sorted((row.usd, places.index(Place(row.region, row.zone))) for row in mine):
            place.append(at)
            price.append(round(usd * 1_000_000))
        start.append(len(price))
    capacity = Capacity.SPOT if spot else Capacity.ON_DEMAND
    return Lane(capacity, start, place, price, array("H", [0] * len(price)))


class FixedPrices:
    """`controllers.view.Prices` over rows that a test may replace."""

    def __init__(self, *blocks: Block) -> None:
        self._priced = Priced(market_of(blocks)) if blocks else None

    def replace(self, *blocks: Block) -> None:
        self._priced = Priced(market_of(blocks))

    def atlas(self) -> Atlas:
        return {}

    def priced(self) -> Priced | None:
        return self._priced


class RentedProvider(SimProvider):
    """Any number of machines of every row, unless `says` has another answer for the place: an error that it
    raises, by zone, region, instance type or `TYPE in ZONE`."""

    def __init__(self, world: World, name: str = "aws", *, capabilities: Capabilities = _CAN) -> None:
        manifest = Manifest(
            name=name, title=f"a cloud called {name}", capabilities=capabilities, priced_by_catalog=True
        )
        super().__init__(world, manifest, [])
        self.says: dict[str, Callable[[], border.BorderError]] = {}
        self.asked: list[str] = []  # places, in order
        self.differs: Sequence[Offer] = ()
        self.boots_s: dict[str, float] = {}  # by zone; others boot as clouds do

    async def quote(self, want: object) -> Sequence[Offer]:
        return self.differs

    def full(self, *places: str, text: str = "InsufficientInstanceCapacity") -> None:
        """These zones, regions or types have nothing."""
        for place in places:
            self.says[place] = lambda place=place: border.OutOfCapacity(place, text)  # type: ignore[misc]

    def _take_capacity(self, claim: Claim) -> list[tuple[tuple[int, int], ...]]:
        offer = claim.choice.offer
        kind = offer.shape.instance_type
        self.asked.append(" ".join(part for part in (kind, offer.zone or offer.region) if part))
        for place in (f"{kind} in {offer.zone}", offer.zone, offer.region, kind, ""):
            if place in self.says:
                raise self.says[place]()
        return []

    def _boot_s(self) -> float:
        zone = self.asked[-1].rpartition(" ")[2] if self.asked else ""
        return self.boots_s[zone] if zone in self.boots_s else super()._boot_s()


def closed(provider: str, region: str = "", zone: str = "", *, kind: str = "", why: str) -> Offer:
    """What a provider says of machines on demand that it cannot give."""
    return Offer(
        provider=provider, region=region, zone=zone, shape=Shape(instance_type=kind),
        capacity=Capacity.ON_DEMAND, price_micro_usd=0, closed=why,
    )  # fmt: skip
