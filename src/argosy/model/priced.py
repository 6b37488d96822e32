"""What listings show of prices and places: one form for the catalog, the API and its faces."""

from __future__ import annotations

import msgspec

from argosy.model.units import render_price


class PriceView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Micro-USD per node (slice, device) and hour, and what the figure is worth."""

    micro_usd: int
    provider: str = ""  # where it is not told beside it
    region: str = ""
    zone: str = ""
    estimated: bool = False
    as_of: str = ""  # YYYY-MM-DD; "": undated

    def render(self) -> str:
        """Estimates are marked.

        >>> PriceView(micro_usd=1_500_000, estimated=True).render()
        '~$1.50'
        """
        return ("~" if self.estimated else "") + render_price(self.micro_usd)


class PriceSource(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How a price service is asked. `keys`: environment variables with what lets us in; all are needed. The
    first is sent as `header`, unless the provider logs in with them by itself (`login`), or talks through the
    vendor's SDK (`sdk`)."""

    keys: tuple[str, ...] = ()
    header: str = "Authorization"
    scheme: str = "Bearer "
    login: bool = False
    sdk: bool = False


class Refused(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """No capacity was there when it was asked for, lately. An empty `region` is the whole provider, an empty
    `zone` the whole region."""

    at_ms: int
    region: str = ""
    zone: str = ""
    spot: bool = False


class GpuView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One kind of machine of one provider, at its cheapest places. Prices are those of all its hosts."""

    accelerator: str
    accelerators_milli: int
    device_memory_bytes: int
    provider: str
    instance_type: str
    hosts: int = 1  # over which one of it is spread, as slices of TPUs are
    cpus_milli: int  # of one host
    memory_bytes: int
    arch: str = ""
    vendor: str = ""
    architecture: str = ""
    interconnect: str = ""
    on_demand: PriceView | None = None
    spot: PriceView | None = None
    regions: tuple[str, ...] = ()
    launchable: bool = False
    refused: tuple[Refused, ...] = ()  # newest first


class RegionView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    provider: str
    region: str
    city: str = ""
    country: str = ""
    continent: str = ""
    areas: tuple[str, ...] = ()  # eu, eea
    zones: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    offers: int = 0
    carbon_g_per_kwh: float | None = None  # of its grid; None: not known
    carbon_estimated: bool = False
    carbon_source: str = ""


class CompareView(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The best of one capacity. None: not known, as no runtime was given."""

    kind: str  # owned, reserved, spot, on-demand, queued
    place: str  # provider/region/zone
    instance_type: str
    num_nodes: int
    price_micro_usd: int  # per hour, of all nodes
    estimated: bool = False  # the price is an estimate
    total_micro_usd: int | None = None  # expected, with what losses cost
    finish_s: int | None = None  # expected, from now
    losses: float | None = None  # expected number
    in_time: float | None = None  # chance of meeting the deadline
    against_on_demand: float | None = None  # 0.6: costs 60 % less than on-demand
    note: str = ""
