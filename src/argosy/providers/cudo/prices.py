"""Cudo Compute: `GET /v1/vms/machine-types-2`, prices of a CPU, a GiB and a GPU by machine type and data
centre.

Users choose the sizes of a machine, within limits that the answer tells. The catalog lists the sizes that it
already knows of any machine type (`_2x8v16gb`: two GPUs, eight CPUs, 16 GiB), where they are within the
limits. Disks and addresses are not counted.

https://www.cudocompute.com/docs/rest-api/introduction
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book, sized
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.offer import Capacity
from argosy.model.units import GIB

URL = "https://rest.compute.cudo.org"
SOURCE = "Cudo Compute API"
_NAME = re.compile(r"^(?P<type>.+)_(?P<gpus>\d+)x(?P<cpus>\d+)v(?P<gib>\d+)gb$")


class _Money(msgspec.Struct, frozen=True):
    value: str = "0"


class _Type(msgspec.Struct, frozen=True, rename="camel"):
    machine_type: str
    data_center_id: str
    gpu_model: str = ""
    vcpu_price_hr: _Money = _Money()
    memory_gib_price_hr: _Money = _Money()
    gpu_price_hr: _Money = _Money()
    # Limits are numbers, or the text "Infinity".
    min_vcpu_per_memory_gib: float | str = 0
    max_vcpu_per_memory_gib: float | str = "Infinity"
    min_vcpu_per_gpu: float | str = 0
    max_vcpu_per_gpu: float | str = "Infinity"


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    machine_types: list[_Type]


class _Size(NamedTuple):
    gpus: int
    cpus: int
    gib: int


def fetch(wire: Wire, book: Book) -> Fetched:
    known: dict[str, set[_Size]] = {}
    for name in book.types():
        parsed = _NAME.match(name)
        if parsed:
            size = _Size(int(parsed["gpus"]), int(parsed["cpus"]), int(parsed["gib"]))
            known.setdefault(parsed["type"], set()).add(size)
    every = set().union(*known.values()) if known else set()
    rows: list[PriceRow] = []
    skipped = 0
    for told in wire.get("/v1/vms/machine-types-2", _Answer).machine_types:
        made = list(_rows(told, known.get(told.machine_type, every), book))
        skipped += not made
        rows += made
    return book.fetched(rows, Capacity.ON_DEMAND, skipped=skipped)


def _rows(told: _Type, sizes: set[_Size], book: Book) -> Iterator[PriceRow]:
    fact = book.accelerator(told.gpu_model) if told.gpu_model else None
    if told.gpu_model and fact is None:
        return
    cpu, gib, gpu = (
        float(each.value) for each in (told.vcpu_price_hr, told.memory_gib_price_hr, told.gpu_price_hr)
    )
    if fact is not None and gpu <= 0:
        return
    for size in sorted(sizes):
        if bool(size.gpus) != bool(fact) or not _fits(told, size):
            continue
        shape = sized(
            f"{told.machine_type}_{size.gpus}x{size.cpus}v{size.gib}gb",
            size.cpus,
            size.gib * GIB,
            fact,
            size.gpus,
        )
        usd = size.cpus * cpu + size.gib * gib + size.gpus * gpu
        if usd > 0:
            rule = f"{size.cpus} CPUs x {cpu:g} + {size.gib} GiB x {gib:g}"
            rule += f" + {size.gpus} GPUs x {gpu:g}" if size.gpus else ""
            yield book.row(shape, told.data_center_id, usd, source=SOURCE, rule=rule)


def _fits(told: _Type, size: _Size) -> bool:
    per_gib = size.cpus / size.gib
    if not float(told.min_vcpu_per_memory_gib) <= per_gib <= float(told.max_vcpu_per_memory_gib or "inf"):
        return False
    per_gpu = size.cpus / size.gpus if size.gpus else None
    return per_gpu is None or (
        float(told.min_vcpu_per_gpu) <= per_gpu <= float(told.max_vcpu_per_gpu or "inf")
    )
