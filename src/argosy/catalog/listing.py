"""Rows for `argosy gpus`, `argosy offers` and `argosy regions`: typed, sorted, ready to be rendered or sent
as JSON."""

from __future__ import annotations

from argosy.catalog.catalog import Catalog
from argosy.model.areas import EEA, EU, Where, is_within
from argosy.model.market import Block
from argosy.model.offer import Capacity
from argosy.model.priced import GpuView, PriceView, RegionView
from argosy.model.resources import Infra
from argosy.model.slices import hosts_of
from argosy.model.units import render_date


def gpu_rows(
    catalog: Catalog,
    *,
    model: str | None = None,
    milli: int | None = None,
    infra: Infra | None = None,
    spot: bool | None = None,
    cheapest: bool = False,
) -> tuple[GpuView, ...]:
    """Machines with accelerators, by model, count and price.

    Args:
        model: accelerator, any case, or an alias of it; None: all of them.
        milli: devices per machine in thousandths.
        infra: only there.
        spot: True: only what can be had as spot; False: only what can be had on demand.
        cheapest: one row for each model, count and provider.
    """
    place = infra or Infra()
    names = catalog.models_named(model) if model else set()
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

    def price_of(row: GpuView) -> int:
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
        first: dict[tuple[str, int, str], GpuView] = {}
        for row in rows:
            first.setdefault((row.accelerator, row.accelerators_milli, row.provider), row)
        rows = list(first.values())
    return tuple(rows)


def _gpu_row(catalog: Catalog, block: Block, kind: int, place: Infra) -> GpuView | None:
    """None when it is not to be had there."""
    best: dict[Capacity, PriceView] = {}
    regions: set[str] = set()
    hosts = hosts_of(block.models[kind])  # whoever asks for a slice pays for all of them
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
                best[columns.capacity] = PriceView(
                    micro_usd=columns.price[row] * hosts,
                    region=at.region,
                    zone=at.zone,
                    estimated=note.estimated,
                    as_of=render_date(note.as_of_day),
                )
    if not best:
        return None
    fact = catalog.accelerator(block.models[kind])
    return GpuView(
        accelerator=block.models[kind],
        accelerators_milli=block.accelerators_milli[kind],
        device_memory_bytes=block.device_memory_bytes[kind],
        provider=block.provider,
        instance_type=block.instance_types[kind],
        hosts=hosts,
        cpus_milli=block.cpus_milli[kind],
        memory_bytes=block.memory_bytes[kind],
        arch=block.arch[kind],
        vendor=fact.vendor if fact else "",
        architecture=fact.architecture if fact else "",
        interconnect=fact.interconnect if fact else "",
        on_demand=best.get(Capacity.ON_DEMAND),
        spot=best.get(Capacity.SPOT),
        regions=tuple(sorted(regions)),
    )


def region_rows(
    catalog: Catalog, *, provider: str | None = None, area: str | None = None
) -> tuple[RegionView, ...]:
    """Every known region with what it has.

    Args:
        provider: only its regions.
        area: `eu`, `eea`, a country code (`kr`), a continent (`asia`) or a pattern of regions (`us-*`), any
        case.
    """
    inside: dict[tuple[str, str], tuple[set[str], set[str], int]] = {}
    for name in catalog.providers if provider is None else (provider,):
        if name in catalog.providers:
            _survey(catalog.market.block(name), inside)
    rows = []
    grids = catalog.grids()
    for fact in catalog.regions(provider):
        where = Where(country=fact.country, continent=fact.continent)
        if area is not None and not is_within(area, fact.provider, fact.region, "", where):
            continue
        grid = grids.get((fact.provider, fact.region))
        zones, models, offers = inside.get((fact.provider, fact.region), (set(), set(), 0))
        rows.append(
            RegionView(
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
                carbon_g_per_kwh=grid.grams_per_kwh if grid else None,
                carbon_estimated=grid.estimated if grid else False,
                carbon_source=f"{grid.source}, {grid.stands_for}".rstrip(", ") if grid else "",
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
