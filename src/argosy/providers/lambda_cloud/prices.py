"""Lambda Cloud: `GET /api/v1/instance-types`, with an API key.

A type is listed with the regions that have some now; where else it was known to be sold comes from the prices
in use.
"""

from __future__ import annotations

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book, sized
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.offer import Capacity, Shape
from argosy.model.units import GIB

URL = "https://cloud.lambda.ai"
SOURCE = "Lambda Cloud API"


class _Specs(msgspec.Struct, frozen=True):
    vcpus: int
    memory_gib: float
    storage_gib: float = 0
    gpus: int | None = None  # older answers have none


class _Type(msgspec.Struct, frozen=True):
    name: str
    price_cents_per_hour: float
    specs: _Specs
    description: str = ""
    gpu_description: str = ""


class _Region(msgspec.Struct, frozen=True):
    name: str


class _Entry(msgspec.Struct, frozen=True):
    instance_type: _Type
    regions_with_capacity_available: list[_Region] = []


class _Answer(msgspec.Struct, frozen=True):
    data: dict[str, _Entry]


def fetch(wire: Wire, book: Book) -> Fetched:
    rows: list[PriceRow] = []
    skipped = 0
    for entry in wire.get("/api/v1/instance-types", _Answer).data.values():
        shape = _shape(entry.instance_type, book)
        regions = book.regions(entry.instance_type.name) | {
            region.name for region in entry.regions_with_capacity_available
        }
        if shape is None or not regions:
            skipped += 1
            continue
        usd = entry.instance_type.price_cents_per_hour / 100
        rows += [book.row(shape, region, usd, source=SOURCE) for region in sorted(regions)]
    return book.fetched(rows, Capacity.ON_DEMAND, skipped=skipped)


def _shape(told: _Type, book: Book) -> Shape | None:
    known = book.shapes(told.name)
    if known:
        return known[0]
    text = told.gpu_description or told.description
    fact = None
    count = told.specs.gpus
    if count is None:
        head = told.description.split("x ", 1)[0]
        count = int(head) if head.isdigit() else 0
    if count:
        fact = book.accelerator(text)
        if fact is None:
            return None
    return sized(
        told.name, told.specs.vcpus, told.specs.memory_gib * GIB, fact, count, told.specs.storage_gib * GIB
    )
