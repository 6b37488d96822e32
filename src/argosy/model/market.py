"""Priced machines of providers as columns: tens of thousands of offers without an object for each.

A block holds one provider: its kinds of machines (columns by kind), the places where they can be had, and one
lane of prices for each capacity. The catalog fills markets, the planner ranks them; an `Offer` is made only
for what is shown.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from argosy.model.offer import Capacity, Offer, Shape
from argosy.model.resources import is_family, serves
from argosy.model.slices import hosts_of

DAY_MS = 86_400_000
_KEPT_ROWS = 20_000  # in the answers of `Block.in_places` that a block keeps: below a megabyte


class Note(NamedTuple):
    """Where a figure is from."""

    as_of_day: int  # days since 1970-01-01; 0: undated
    source: str
    rule: str = ""  # how it was computed; "": it was read
    estimated: bool = False


class Place(NamedTuple):
    region: str
    zone: str


class Lane(NamedTuple):
    """Prices for one capacity. Rows of kind k are `start[k]` to `start[k + 1]`, cheapest first, then by
    place."""

    capacity: Capacity
    start: Sequence[int]
    place: array[int]  # index of Block.places
    price: array[int]  # micro-USD per node and hour, above 0
    note: array[int]  # index of Block.notes


class Block:
    """All offers of one provider.

    Columns by kind have the same length. Laws: kinds are distinct (instance type, accelerator, share); rows
    of a kind in a lane are sorted by price, region, zone; `start` never decreases.
    """

    __slots__ = (
        "_arches",
        "_by_cpus",
        "_by_model",
        "_by_type",
        "_counts",
        "_in_lane",
        "_in_places",
        "_kept_rows",
        "_slices",
        "accelerators_milli",
        "arch",
        "cpus_milli",
        "device_memory_bytes",
        "disk_bytes",
        "instance_types",
        "lanes",
        "memory_bytes",
        "models",
        "notes",
        "places",
        "provider",
    )

    def __init__(
        self,
        provider: str,
        *,
        instance_types: Sequence[str],
        models: Sequence[str],  # accelerator by kind; "": none
        accelerators_milli: Sequence[int],
        device_memory_bytes: Sequence[int],
        cpus_milli: Sequence[int],
        memory_bytes: Sequence[int],
        disk_bytes: Sequence[int],
        arch: Sequence[str],
        places: Sequence[Place],
        lanes: Sequence[Lane],
        notes: Sequence[Note],
    ) -> None:
        self.provider = provider
        self.instance_types = instance_types
        self.models = models
        self.accelerators_milli = accelerators_milli
        self.device_memory_bytes = device_memory_bytes
        self.cpus_milli = cpus_milli
        self.memory_bytes = memory_bytes
        self.disk_bytes = disk_bytes
        self.arch = arch
        self.places = places
        self.lanes = tuple(lanes)
        self.notes = notes
        self._arches: frozenset[str] | None = None
        self._slices: dict[int, int] | None = None
        self._by_cpus: tuple[list[int], list[int]] | None = None
        self._by_model: dict[str, list[int]] | None = None
        self._counts: dict[int, list[int]] = {}
        self._by_type: dict[str, list[int]] | None = None
        self._in_places: dict[tuple[int, frozenset[int]], dict[int, list[int]]] = {}
        self._kept_rows = 0
        self._in_lane: dict[int, tuple[list[int], frozenset[int]]] = {}

    @property
    def arches(self) -> frozenset[str]:
        """All architectures that its kinds have. Kept."""
        if self._arches is None:
            self._arches = frozenset(self.arch)
        return self._arches

    @property
    def slices(self) -> dict[int, int]:
        """Kinds that are slices of several hosts, with how many. Kept."""
        if self._slices is None:
            hosts = {model: hosts_of(model) for model in set(self.models)}
            self._slices = {kind: hosts[model] for kind, model in enumerate(self.models) if hosts[model] > 1}
        return self._slices

    def __len__(self) -> int:
        """How many offers."""
        return sum(len(lane.price) for lane in self.lanes)

    def of_model(self, model: str) -> list[int]:
        """Kinds with this accelerator, or with one of this family; any case."""
        if self._by_model is None:
            index: dict[str, list[int]] = {}
            for kind, name in enumerate(self.models):
                if name:
                    index.setdefault(name.lower(), []).append(kind)
            self._by_model = index
        if is_family(model):
            return [kind for name, kinds in self._by_model.items() if serves(name, model) for kind in kinds]
        return self._by_model.get(model.lower(), [])

    def of_type(self, instance_type: str) -> list[int]:
        if self._by_type is None:
            index: dict[str, list[int]] = {}
            for kind, name in enumerate(self.instance_types):
                index.setdefault(name, []).append(kind)
            self._by_type = index
        return self._by_type.get(instance_type, [])

    def by_cpus(self) -> tuple[list[int], list[int]]:
        """All kinds by CPUs, fewest first, and their milli-CPUs: for bisection. Kept."""
        if self._by_cpus is None:
            kinds = sorted(range(len(self.cpus_milli)), key=self.cpus_milli.__getitem__)
            self._by_cpus = kinds, [self.cpus_milli[kind] for kind in kinds]
        return self._by_cpus

    def counts(self, lane: int) -> list[int]:
        """How many rows each kind has in `lane`. Kept."""
        found = self._counts.get(lane)
        if found is None:
            start = self.lanes[lane].start
            found = self._counts[lane] = [start[k + 1] - start[k] for k in range(len(self.instance_types))]
        return found

    def in_lane(self, lane: int) -> tuple[list[int], frozenset[int]]:
        """Kinds that have rows in `lane`: by the price of their cheapest row, and as a set. Kept."""
        found = self._in_lane.get(lane)
        if found is None:
            columns = self.lanes[lane]
            start, price = columns.start, columns.price
            kinds = [kind for kind in range(len(self.instance_types)) if start[kind] < start[kind + 1]]
            kinds.sort(key=lambda kind: price[start[kind]])
            found = self._in_lane[lane] = kinds, frozenset(kinds)
        return found

    def in_places(self, lane: int, places: frozenset[int]) -> dict[int, list[int]]:
        """Rows of one lane at some places (indexes of `places`) by kind, cheapest first. The last few are
        kept."""
        found = self._in_places.get((lane, places))
        if found is None:
            found = {}
            columns = self.lanes[lane]
            start, kind = columns.start, 0
            for row, place in enumerate(columns.place):
                if place in places:
                    while start[kind + 1] <= row:
                        kind += 1
                    found.setdefault(kind, []).append(row)
            rows = sum(map(len, found.values()))
            if self._kept_rows + rows > _KEPT_ROWS:
                self._in_places.clear()
                self._kept_rows = 0
            self._kept_rows += rows
            self._in_places[lane, places] = found
        return found

    def shape(self, kind: int) -> Shape:
        return Shape(
            instance_type=self.instance_types[kind],
            cpus_milli=self.cpus_milli[kind],
            memory_bytes=self.memory_bytes[kind],
            accelerator=self.models[kind] or None,
            accelerators_milli=self.accelerators_milli[kind],
            accelerator_memory_bytes=self.device_memory_bytes[kind],
            arch=self.arch[kind],
            disk_bytes=self.disk_bytes[kind],
        )

    def offer(self, lane: int, kind: int, row: int) -> Offer:
        columns = self.lanes[lane]
        place = self.places[columns.place[row]]
        note = self.notes[columns.note[row]]
        return Offer(
            provider=self.provider,
            region=place.region,
            zone=place.zone,
            shape=self.shape(kind),
            capacity=columns.capacity,
            price_micro_usd=columns.price[row],
            quoted_at_ms=note.as_of_day * DAY_MS,
            estimated=note.estimated,
        )

    def rows(self) -> Iterator[tuple[int, int, int]]:
        """Every (lane, kind, row), in the order that breaks ties of equal offers."""
        for lane, columns in enumerate(self.lanes):
            for kind in range(len(self.instance_types)):
                for row in range(columns.start[kind], columns.start[kind + 1]):
                    yield lane, kind, row


class OfferBlock(Block):
    """Single offers of one provider as a block: every offer is a kind of its own with one row."""

    __slots__ = ("offers",)

    def __init__(self, provider: str, offers: Sequence[Offer]) -> None:
        self.offers = tuple(offers)
        shapes, rows = [offer.shape for offer in offers], range(len(offers))
        nowhere = array("q", [0] * len(offers))
        prices = array("q", [offer.price_micro_usd for offer in offers])
        super().__init__(
            provider,
            instance_types=[shape.instance_type for shape in shapes],
            models=[shape.accelerator or "" for shape in shapes],
            accelerators_milli=[shape.accelerators_milli for shape in shapes],
            device_memory_bytes=[shape.accelerator_memory_bytes for shape in shapes],
            cpus_milli=[shape.cpus_milli for shape in shapes],
            memory_bytes=[shape.memory_bytes for shape in shapes],
            disk_bytes=[shape.disk_bytes for shape in shapes],
            arch=[shape.arch for shape in shapes],
            places=[Place(offer.region, offer.zone) for offer in offers],
            lanes=[Lane(Capacity.OWNED, range(len(offers) + 1), array("q", rows), prices, nowhere)],
            notes=[Note(0, "")],
        )

    def offer(self, lane: int, kind: int, row: int) -> Offer:
        return self.offers[row]


class Market:
    """Blocks by provider, loaded when they are first needed."""

    __slots__ = ("_blocks", "_load", "providers", "vendors")

    def __init__(
        self, providers: Sequence[str], load: Callable[[str], Block], vendors: Mapping[str, str] | None = None
    ) -> None:
        self.providers = tuple(providers)
        self.vendors = vendors if vendors is not None else {}  # accelerator, lower case -> vendor, lower case
        self._load = load
        self._blocks: dict[str, Block] = {}

    def block(self, provider: str) -> Block:
        block = self._blocks.get(provider)
        if block is None:
            block = self._blocks[provider] = self._load(provider)
        return block

    def __len__(self) -> int:
        """How many offers. Loads every block."""
        return sum(len(self.block(name)) for name in self.providers)

    def offers(self) -> Iterator[Offer]:
        """Every offer as an object: for tests and small markets."""
        for name in self.providers:
            block = self.block(name)
            for lane, kind, row in block.rows():
                yield block.offer(lane, kind, row)


def market_of(blocks: Sequence[Block], vendors: Mapping[str, str] | None = None) -> Market:
    by_name = {block.provider: block for block in blocks}
    return Market(tuple(by_name), by_name.__getitem__, vendors)
