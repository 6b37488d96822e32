"""Rows for `argosy gpus`, `argosy offers` and `argosy regions`: typed, sorted, ready to be rendered or sent as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from argosy.catalog.catalog import Catalog
from argosy.model.market import DAY_MS, Block
from argosy.model.offer import Capacity, Choice, Offer
from argosy.model.resources import Infra
from argosy.model.units import render_milli, render_price

#: Members of the European Union, for data residency (`eu`).
EU = frozenset(
    [
        "AT", "BE", "BG", "CY", "CZ", "DE", "DK", "EE", "ES", "FI", "FR", "GR", "HR", "HU", "IE", "IT", "LT", "LU",
        "LV", "MT", "NL", "PL", "PT", "RO", "SE", "SI", "SK",
    ]
)  # fmt: skip
EEA = EU | {"IS", "LI", "NO"}


class Price(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Micro-USD per node and hour, and what it is worth."""

    micro_usd: int
    region: str = ""
    zone: str = ""
    estimated: bool = False
    as_of: str = ""  # YYYY-MM-DD; "": undated

    def render(self) -> str:
        """Estimates are marked.

        >>> Price(micro_usd=1_500_000, estimated=True).render()
        '~$1.50'
        """
        return ("~" if self.estimated else "") + render_price(self.micro_usd)


class GpuRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One kind of machine of one provider, at its cheapest places."""

    accelerator: str
    accelerators_milli: int
    device_memory_bytes: int
    provider: str
    instance_type: str
    cpus_milli: int
    memory_bytes: int
    arch: str = "x86_64"
    vendor: str = ""
    architecture: str = ""
    interconnect: str = ""
    on_demand: Price | None = None
    spot: Price | None = None
    regions: tuple[str, ...] = ()
    launchable: bool = False

    @property
    def count(self) -> str:
        return render_milli(self.accelerators_milli)


class OfferRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One choice of a plan."""

    provider: str
    region: str = ""
    zone: str = ""
    capacity: Capacity
    instance_type: str = ""
    accelerator: str = ""
    accelerators_milli: int = 0
    cpus_milli: int = 0
    memory_bytes: int = 0
    price: Price  # per node
    total_micro_usd: int = 0  # all nodes
    interrupted_pct_low: int | None = None  # of spot machines, in a month; None: not known
    interrupted_pct_high: int | None = None
    source: str = ""
    rule: str = ""
    launchable: bool = False


class RegionRow(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    provider: str
    region: str
    city: str = ""
    country: str = ""
    continent: str = ""
    areas: tuple[str, ...] = ()  # eu, eea
    zones: tuple[str, ...] = ()
    accelerators: tuple[str, ...] = ()
    offers: int = 0
    carbon_g_per_kwh: float | None = None


def gpu_rows(
    catalog: Catalog,
    *,
    model: str | None = None,
    milli: int | None = None,
    infra: Infra | None = None,
    spot: bool | None = None,
    cheapest: bool = False,
) -> tuple[GpuRow, ...]:
    """Machines with accelerators, by model, count and price.

    Args:
        model: accelerator, any case, or an alias of it; None: all of them.
        milli: devices per machine in thousandths.
        infra: only there.
        spot: True: only what can be had as spot; False: only what can be had on demand.
        cheapest: one row for each model, count and provider.
    """
    place = infra or Infra()
    fact = catalog.accelerator(model) if model else None
    names = {model.lower(), *([fact.name.lower()] if fact else ())} if model else set()
    rows = []
    for provider in catalog.providers:
        if place.provider not in (None, "*", provider):
            continue
        block = catalog.market.block(provider)
        for kind, name in enumerate(block.models):
            if not name or (names and name.lower() not in names):
                continue
            if milli is not None and block.accelerators_milli[kind] != milli:
                continue
            row = _gpu_row(catalog, block, kind, place)
            if row is None or (spot is True and not row.spot) or (spot is False and not row.on_demand):
                continue
            rows.append(row)

    def price_of(row: GpuRow) -> int:
        prices = [row.spot] if spot else [row.on_demand] if spot is False else [row.on_demand, row.spot]
        known = [price.micro_usd for price in prices if price]
        return known[0] if known else 0

    rows.sort(
        key=lambda row: (
            row.accelerator,
            row.accelerators_milli,
            price_of(row),
            row.provider,
            row.instance_type,
        )
    )
    if cheapest:
        first: dict[tuple[str, int, str], GpuRow] = {}
        for row in rows:
            first.setdefault((row.accelerator, row.accelerators_milli, row.provider), row)
        rows = list(first.values())
    return tuple(rows)


def _gpu_row(catalog: Catalog, block: Block, kind: int, place: Infra) -> GpuRow | None:
    """None when it is not to be had there."""
    best: dict[Capacity, Price] = {}
    regions: set[str] = set()
    for columns in block.lanes:
        for row in range(columns.start[kind], columns.start[kind + 1]):
            at = block.places[columns.place[row]]
            if place.region not in (None, "*", at.region) or (
                at.zone and place.zone not in (None, "*", at.zone)
            ):
                continue
            regions.add(at.region)
            if columns.capacity not in best:  # rows are sorted by price
                note = block.notes[columns.note[row]]
                best[columns.capacity] = Price(
                    micro_usd=columns.price[row],
                    region=at.region,
                    zone=at.zone,
                    estimated=note.estimated,
                    as_of=_date(note.as_of_day),
                )
    if not best:
        return None
    fact = catalog.accelerator(block.models[kind])
    return GpuRow(
        accelerator=block.models[kind],
        accelerators_milli=block.accelerators_milli[kind],
        device_memory_bytes=block.device_memory_bytes[kind],
        provider=block.provider,
        instance_type=block.instance_types[kind],
        cpus_milli=block.cpus_milli[kind],
        memory_bytes=block.memory_bytes[kind],
        arch=block.arch[kind],
        vendor=fact.vendor if fact else "",
        architecture=fact.architecture if fact else "",
        interconnect=fact.interconnect if fact else "",
        on_demand=best.get(Capacity.ON_DEMAND),
        spot=best.get(Capacity.SPOT),
        regions=tuple(sorted(regions)),
        launchable=catalog.launchable(block.provider),
    )


def offer_rows(catalog: Catalog, choices: Iterable[Choice]) -> tuple[OfferRow, ...]:
    """Rows for the choices of a plan, in their order, with source and hazard."""
    return tuple(_offer_row(catalog, choice.offer, choice.price_micro_usd) for choice in choices)


def price_rows(catalog: Catalog, offers: Iterable[Offer]) -> tuple[OfferRow, ...]:
    """Rows for single offers, for example of `Catalog.prices_for`."""
    return tuple(_offer_row(catalog, offer, offer.price_micro_usd) for offer in offers)


def _offer_row(catalog: Catalog, offer: Offer, total_micro_usd: int) -> OfferRow:
    priced = offer.provider in catalog.providers and offer.capacity in (Capacity.ON_DEMAND, Capacity.SPOT)
    source, rule = catalog.source_of(offer) if priced else ("", "")
    hazard = None
    if offer.capacity is Capacity.SPOT:
        hazard = catalog.hazard(offer.provider, offer.region, offer.shape.instance_type)
    return OfferRow(
        provider=offer.provider,
        region=offer.region,
        zone=offer.zone,
        capacity=offer.capacity,
        instance_type=offer.shape.instance_type,
        accelerator=offer.shape.accelerator or "",
        accelerators_milli=offer.shape.accelerators_milli,
        cpus_milli=offer.shape.cpus_milli,
        memory_bytes=offer.shape.memory_bytes,
        price=Price(
            micro_usd=offer.price_micro_usd,
            region=offer.region,
            zone=offer.zone,
            estimated=offer.estimated,
            as_of=_date(offer.quoted_at_ms // DAY_MS),
        ),
        total_micro_usd=total_micro_usd,
        interrupted_pct_low=hazard.low_pct if hazard else None,
        interrupted_pct_high=hazard.high_pct if hazard else None,
        source=source,
        rule=rule,
        launchable=catalog.launchable(offer.provider) or offer.capacity is Capacity.OWNED,
    )


def region_rows(
    catalog: Catalog, *, provider: str | None = None, area: str | None = None
) -> tuple[RegionRow, ...]:
    """Every known region with what it has.

    Args:
        provider: only its regions.
        area: `eu`, `eea`, a country code (`kr`) or a continent (`asia`), any case.
    """
    inside: dict[tuple[str, str], tuple[set[str], set[str], int]] = {}
    for name in catalog.providers if provider is None else (provider,):
        if name in catalog.providers:
            _survey(catalog.market.block(name), inside)
    rows = []
    grids = catalog.grids()
    for fact in catalog.regions(provider):
        if area is not None and not in_area(fact.country, fact.continent, area):
            continue
        zones, models, offers = inside.get((fact.provider, fact.region), (set(), set(), 0))
        rows.append(
            RegionRow(
                provider=fact.provider,
                region=fact.region,
                city=fact.city,
                country=fact.country,
                continent=fact.continent,
                areas=tuple(
                    label for label, members in (("eu", EU), ("eea", EEA)) if fact.country in members
                ),
                zones=tuple(sorted(zones)),
                accelerators=tuple(sorted(models)),
                offers=offers,
                carbon_g_per_kwh=grids.get((fact.provider, fact.region)),
            )
        )
    return tuple(sorted(rows, key=lambda row: (row.provider, row.region)))


def _survey(block: Block, inside: dict[tuple[str, str], tuple[set[str], set[str], int]]) -> None:
    """Zones, accelerators and number of offers by region of a block."""
    by_place: dict[int, tuple[set[str], int]] = {}
    for columns in block.lanes:
        for kind, model in enumerate(block.models):
            for at in columns.place[columns.start[kind] : columns.start[kind + 1]]:
                models, offers = by_place.get(at, (set(), 0))
                if model:
                    models.add(model)
                by_place[at] = models, offers + 1
    for index, (models, offers) in by_place.items():
        place = block.places[index]
        zones, known, count = inside.get((block.provider, place.region), (set(), set(), 0))
        if place.zone:
            zones.add(place.zone)
        inside[block.provider, place.region] = zones, known | models, count + offers


def in_area(country: str, continent: str, area: str) -> bool:
    """Whether a place lies in an area of data residency.

    >>> in_area("DE", "Europe", "eu"), in_area("CH", "Europe", "eu"), in_area("KR", "Asia", "kr")
    (True, False, True)
    """
    wanted = area.lower()
    if wanted in ("eu", "eea"):
        return country in (EU if wanted == "eu" else EEA)
    return wanted in (country.lower(), continent.lower())


def regions_in(catalog: Catalog, areas: Sequence[str]) -> frozenset[tuple[str, str]]:
    """(provider, region) of every region in one of `areas`: for `regions: [eu]`. Regions of unknown country are out."""
    return frozenset(
        (fact.provider, fact.region)
        for fact in catalog.regions()
        if any(in_area(fact.country, fact.continent, area) for area in areas)
    )


def _date(day: int) -> str:
    import datetime

    return (datetime.date(1970, 1, 1) + datetime.timedelta(days=day)).isoformat() if day else ""
