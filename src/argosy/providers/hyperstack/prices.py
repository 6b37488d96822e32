"""Hyperstack: `GET /v1/core/flavors` for machines by region, `GET /v1/pricebook` for prices of their parts;
with an API key.

A flavor with GPUs costs its GPUs (CPUs and memory are free with them), one without costs its CPUs and memory.
A GPU whose name ends in `-spot` is the same one at the spot price.

https://docs.hyperstack.cloud/docs/api-reference/get-pricebook
"""

from __future__ import annotations

import re

import msgspec

from argosy.catalog.facts import AcceleratorFact
from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book, sized
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.units import GIB

URL = "https://infrahub-api.nexgencloud.com"
SOURCE = "Hyperstack API"
_VCPU, _RAM = "vCPU (cpu-only-flavors)", "RAM (cpu-only-flavors)"
_SPOT = "-spot"


class _Flavor(msgspec.Struct, frozen=True):
    name: str
    region_name: str = ""
    cpu: int = 0
    ram: float = 0  # GB
    disk: float = 0  # GB
    ephemeral: float = 0  # GB
    gpu: str | None = None
    gpu_count: int | None = None


class _Group(msgspec.Struct, frozen=True):
    region_name: str = ""
    flavors: list[_Flavor] = []


class _Flavors(msgspec.Struct, frozen=True):
    data: list[_Group]


class _Part(msgspec.Struct, frozen=True):
    name: str
    value: float | str


def fetch(wire: Wire, book: Book) -> Fetched:
    prices = {part.name: float(part.value) for part in wire.get("/v1/pricebook", list[_Part])}
    rows: list[PriceRow] = []
    skipped = 0
    for group in wire.get("/v1/core/flavors", _Flavors).data:
        for flavor in group.flavors:
            row = _row(flavor, flavor.region_name or group.region_name, prices, book)
            if row is None:
                skipped += 1
            else:
                rows.append(row)
    return book.fetched(rows, skipped=skipped)


def _row(flavor: _Flavor, region: str, prices: dict[str, float], book: Book) -> PriceRow | None:
    """None for an accelerator that is not known, a part without a price, a flavor without a region."""
    count, part = flavor.gpu_count or 0, flavor.gpu or ""
    fact: AcceleratorFact | None = None
    if count and part:
        each = prices.get(part, 0.0)
        fact = _accelerator(part.removesuffix(_SPOT), book)
        if fact is None:
            return None
        usd, rule = count * each, f"{count} x {part}"
    else:
        usd = flavor.cpu * prices.get(_VCPU, 0.0) + flavor.ram * prices.get(_RAM, 0.0)
        rule = f"{flavor.cpu} x {_VCPU} + {flavor.ram:g} x {_RAM}"
        if not prices.get(_VCPU) and not prices.get(_RAM):
            return None
    if usd <= 0 or not region or not flavor.cpu:
        return None
    known = book.shapes(flavor.name)
    shape = (
        known[0]
        if known
        else sized(
            flavor.name, flavor.cpu, flavor.ram * GIB, fact, count, (flavor.disk + flavor.ephemeral) * 10**9
        )
    )
    return book.row(shape, region, usd, source=SOURCE, spot=part.endswith(_SPOT), rule=rule)


def _accelerator(part: str, book: Book) -> AcceleratorFact | None:
    """`A100-80G-PCIe-NVLink` -> A100-80GB: the memory in the name chooses the variant."""
    memory = re.search(r"-(\d+)G\b", part)
    text = re.sub(r"-\d+G\b", "", part).replace("-", " ")
    return book.accelerator(text, float(memory[1]) if memory else 0)
