"""Facts beside the prices of machines: accelerators, regions, storage, traffic, and how often spot machines
are preempted."""

from __future__ import annotations

import msgspec


class AcceleratorFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One model, per device. 0: not known. Flops are dense."""

    name: str
    aliases: tuple[str, ...] = ()
    vendor: str = ""
    architecture: str = ""
    memory_bytes: int = 0
    bandwidth_gb_s: int = 0
    bf16_tflops: float = 0
    fp16_tflops: float = 0
    fp8_tflops: float = 0
    fp32_tflops: float = 0
    interconnect: str = ""
    tdp_w: int = 0
    form: str = ""
    year: int = 0
    source: str = ""


class RegionFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    provider: str
    region: str
    city: str = ""
    country: str = ""  # ISO 3166, two letters
    continent: str = ""
    latitude: float = 0
    longitude: float = 0


class StorageFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """List prices of one class of object storage. None: not known."""

    provider: str
    service: str
    storage_class: str
    region: str
    gb_month_micro_usd: int | None = None
    egress_internet_micro_usd_gb: int | None = None
    egress_free_gb_month: int = 0
    egress_inter_region_micro_usd_gb: int | None = None
    put_micro_usd_per_1000: int | None = None
    get_micro_usd_per_1000: int | None = None
    as_of: str = ""
    source: str = ""
    rule: str = ""
    estimated: bool = False


class AttachedFact(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Price of one accelerator that is attached to a host; the host is not included."""

    provider: str
    model: str
    device: str  # as the provider calls it
    region: str
    zone: str = ""
    price_micro_usd: int
    spot_micro_usd: int = 0  # 0: not known
    as_of: str = ""
    source: str = ""


class HazardBand(msgspec.Struct, frozen=True, array_like=True):
    """How often a spot machine is taken back: percent of them in a month, as the provider publishes it."""

    low_pct: int
    high_pct: int  # 100: no upper end is published
    savings_pct: int
    as_of: str = ""
    source: str = ""


class HazardColumns(msgspec.Struct, frozen=True, array_like=True):
    """Bands by (instance type, region) of one provider: `cells[type][region]` is an index of `bands`."""

    bands: list[HazardBand]
    regions: list[str]
    cells: dict[str, dict[int, int]]


class Facts(msgspec.Struct, frozen=True, array_like=True):
    accelerators: tuple[AcceleratorFact, ...] = ()
    regions: tuple[RegionFact, ...] = ()
    storage: tuple[StorageFact, ...] = ()
    attached: tuple[AttachedFact, ...] = ()
