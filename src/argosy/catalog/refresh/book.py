"""What is known before a refresh: shapes by instance type, regions, and how services spell accelerators.

Price services seldom tell a whole machine. What they leave out is taken from the prices in use; a machine of
which neither knows the shape is skipped and counted, never guessed.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from argosy.catalog.facts import AcceleratorFact
from argosy.catalog.keep import Fetched, merged
from argosy.catalog.table import PriceRow, rows_of
from argosy.model.market import Block, Note
from argosy.model.offer import Capacity, Shape
from argosy.model.units import GIB

_MAKERS = re.compile(r"\b(nvidia|amd|intel|tesla|geforce|quadro|radeon|instinct)\b", re.IGNORECASE)
_MEMORY = re.compile(r"\b(\d+)\s*GB\b", re.IGNORECASE)
_COUNT = re.compile(r"^\s*(\d+)\s*x\s+", re.IGNORECASE)


class Book:
    """Shapes, regions and names for one provider. `day` is today, in days since 1970: the date of what is
    read."""

    def __init__(
        self, provider: str, block: Block | None, accelerators: Iterable[AcceleratorFact], day: int
    ) -> None:
        self.provider = provider
        self.day = day
        self._block = block
        self._shapes: dict[str, list[Shape]] = {}
        self._places: dict[str, set[tuple[str, str]]] = {}
        self._facts = tuple(accelerators)
        self._names: dict[str, AcceleratorFact] = {}
        for fact in reversed(self._facts):
            for alias in fact.aliases:
                self._names[_fold(alias)] = fact
        for fact in self._facts:
            self._names[_fold(fact.name)] = fact
        if block is not None:
            for kind, name in enumerate(block.instance_types):
                self._shapes.setdefault(name, []).append(block.shape(kind))
            for lane, kind, row in block.rows():
                place = block.places[block.lanes[lane].place[row]]
                self._places.setdefault(block.instance_types[kind], set()).add(place)

    def shapes(self, instance_type: str) -> list[Shape]:
        """Known shapes of a type: several when hosts are sold with several accelerators."""
        return self._shapes.get(instance_type, [])

    def types(self) -> list[str]:
        return list(self._shapes)

    def regions(self, instance_type: str) -> set[str]:
        """Where a type was known to be sold."""
        return {region for region, _ in self._places.get(instance_type, ())}

    def places(self, instance_type: str) -> set[tuple[str, str]]:
        return self._places.get(instance_type, set())

    def rows(self) -> Iterable[PriceRow]:
        """The prices in use."""
        return rows_of(self._block) if self._block is not None else ()

    def accelerator(self, text: str, memory_gib: float = 0) -> AcceleratorFact | None:
        """The model that a service means by `text`, such as `8x A100 (80 GB SXM4)` or `NVIDIA GeForce RTX
        4090`.

        `memory_gib` per device chooses among variants (an A100 of 80 GB). None when it is not known.
        """
        if not memory_gib:
            told = _MEMORY.search(text)
            memory_gib = float(told[1]) if told else 0
        plain = _COUNT.sub("", _MAKERS.sub(" ", text.replace("_", " ").replace("(", " ").replace(")", " ")))
        bare = _MEMORY.sub(" ", plain)
        words = bare.split()
        tries = [_fold(plain), *(_fold("".join(words[:count])) for count in range(len(words), 0, -1))]
        fact = next((self._names[each] for each in tries if each in self._names), None)
        if fact is None or not memory_gib:
            return fact
        have = fact.memory_bytes / GIB
        if not 0.8 * have <= memory_gib <= 1.25 * have:  # another variant: 40 and 80 GB, 16 and 32 GB
            base = fact.name.split("-")[0]
            variant = self._names.get(_fold(f"{base}-{round(memory_gib)}GB"))
            near = variant or self._names.get(_fold(base))
            if near is not None and 0.8 * near.memory_bytes <= memory_gib * GIB <= 1.25 * near.memory_bytes:
                return near
            return None
        return fact

    def fetched(
        self,
        rows: Iterable[PriceRow],
        *capacities: Capacity,
        skipped: int,
        regions: Collection[str] | None = None,
    ) -> Fetched:
        """What a service said. `capacities`: those of which it told; none named: what is in the rows, or on
        demand."""
        rows = tuple(rows)
        return Fetched(
            provider=self.provider,
            rows=merged(rows),
            capacities=frozenset(capacities or {row.capacity for row in rows} or (Capacity.ON_DEMAND,)),
            regions=None if regions is None else frozenset(regions),
            skipped=skipped,
        )

    def row(
        self,
        shape: Shape,
        region: str,
        usd: float,
        *,
        source: str,
        zone: str = "",
        spot: bool = False,
        rule: str = "",
        estimated: bool = False,
    ) -> PriceRow:
        return PriceRow(
            instance_type=shape.instance_type,
            model=shape.accelerator or "",
            accelerators_milli=shape.accelerators_milli,
            device_memory_bytes=shape.accelerator_memory_bytes,
            cpus_milli=shape.cpus_milli,
            memory_bytes=shape.memory_bytes,
            disk_bytes=shape.disk_bytes,
            arch=shape.arch,
            region=region,
            zone=zone,
            capacity=Capacity.SPOT if spot else Capacity.ON_DEMAND,
            price_micro_usd=round(usd * 1_000_000),
            note=Note(self.day, source, rule, estimated),
        )


def sized(
    name: str, cpus: int, memory_bytes: float, fact: AcceleratorFact | None, count: int, disk_bytes: float = 0
) -> Shape:
    """A type of machine as a service tells it, with `count` accelerators if `fact` is one."""
    return Shape(
        instance_type=name,
        cpus_milli=cpus * 1000,
        memory_bytes=round(memory_bytes),
        accelerator=fact.name if fact else None,
        accelerators_milli=count * 1000 if fact else 0,
        accelerator_memory_bytes=fact.memory_bytes if fact else 0,
        arch="arm64" if fact and fact.name.startswith(("GH", "GB")) else "x86_64",
        disk_bytes=round(disk_bytes),
    )


def _fold(name: str) -> str:
    return re.sub(r"[\s_\-]+", "", name).lower()
