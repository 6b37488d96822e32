"""What hosts of Vast.ai offer, read: for prices and for orders."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from argosy.model.offer import Shape
from argosy.model.units import MIB

if TYPE_CHECKING:
    from argosy.catalog.refresh.book import Book


class Ask(msgspec.Struct, frozen=True):
    """What a host offers; the fields that prices and orders need."""

    gpu_name: str
    num_gpus: int
    dph_total: float
    gpu_ram: float = 0  # MB of one device
    cpu_cores: float | None = None
    cpu_cores_effective: float | None = None
    cpu_ram: float = 0  # MB of the whole machine
    min_bid: float | None = None
    geolocation: str | None = None
    rentable: bool = True
    rented: bool | None = False
    id: int = 0
    reliability2: float | None = None  # 0 to 1: how seldom the host was away


def region_of(offer: Ask) -> str:
    return (offer.geolocation or "").strip() or "unknown"


def shape_of(offer: Ask, book: Book) -> Shape | None:
    """None for an unknown model, or a machine whose CPUs are not told."""
    fact = book.accelerator(offer.gpu_name, offer.gpu_ram / 1024)
    cpus = offer.cpu_cores_effective or 0
    if fact is None or cpus < 1 or offer.num_gpus < 1:
        return None
    # Part of a host: its memory is shared like its cores.
    share = min(1.0, cpus / offer.cpu_cores) if offer.cpu_cores else 1.0
    memory_mb = round(offer.cpu_ram * share)
    name = re.sub(r"\s+", "_", offer.gpu_name.strip())
    return Shape(
        instance_type=f"{offer.num_gpus}x-{name}-{int(cpus)}-{memory_mb}",
        cpus_milli=int(cpus) * 1000,
        memory_bytes=memory_mb * MIB,
        accelerator=fact.name,
        accelerators_milli=offer.num_gpus * 1000,
        accelerator_memory_bytes=fact.memory_bytes,
        disk_bytes=0,
    )
