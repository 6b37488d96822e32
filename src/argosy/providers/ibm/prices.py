"""IBM Cloud: the Global Catalog, public, paged by `_offset`.

Profiles of virtual servers (`kind:instance.profile`) name the plan that they are billed by. Prices of a plan
come by region. Newer profiles have a plan of their own with one price an hour; older ones share a plan whose
deployments, one for each profile and region, have the price of each part for the whole profile.

https://cloud.ibm.com/apidocs/resource-catalog/global-catalog
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book, sized
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.offer import Shape
from argosy.model.units import GIB

URL = "https://globalcatalog.cloud.ibm.com"
SOURCE = "IBM Cloud Global Catalog"
_PAGE = 200
_PAGES_MAX = 200
_PROFILE = re.compile(r"^[a-z]+\d[a-z0-9]*-(?P<cpus>\d+)x(?P<gib>\d+)(?:x(?P<gpus>\d+)(?P<model>[a-z]\w*))?$")
#: Memory of a device where the name of a profile leaves it open (IBM: accelerated profiles of virtual
#: servers).
_DEVICE_GIB: Final = {"v100": 16.0, "a100": 80.0}
_HOURS, _SPOT = "part-is.instance-hours-", "part-is.spot-"


class _Meter(msgspec.Struct, frozen=True):
    unit: str = ""
    quantity: str = ""


class _Deployed(msgspec.Struct, frozen=True):
    type: str = ""
    plan: str = ""
    meters: list[_Meter] = []


class _Measure(msgspec.Struct, frozen=True):
    component: str = ""
    deployments: list[_Deployed] = []


class _Profile(msgspec.Struct, frozen=True):
    resource_type: str = ""
    measures: list[_Measure] = []


class _Other(msgspec.Struct, frozen=True):
    profile: _Profile | None = None


class _Place(msgspec.Struct, frozen=True):
    location: str = ""


class _Metadata(msgspec.Struct, frozen=True):
    other: _Other | None = None
    deployment: _Place | None = None


class _Entry(msgspec.Struct, frozen=True):
    id: str
    name: str
    metadata: _Metadata | None = None


class _Entries(msgspec.Struct, frozen=True):
    count: int = 0  # of all pages
    resources: list[_Entry] = []


class _Price(msgspec.Struct, frozen=True):
    price: float | None = None
    quantity_tier: int = 1


class _Amount(msgspec.Struct, frozen=True):
    country: str = ""
    currency: str = ""
    prices: list[_Price] = []


class _Metric(msgspec.Struct, frozen=True):
    metric_id: str | None = None
    charge_unit_name: str | None = None
    charge_unit_quantity: float | None = 1
    amounts: list[_Amount] | None = None

    @property
    def usd(self) -> float:
        """Of the first tier, for accounts in the USA; 0: no price."""
        for amount in self.amounts or ():
            if (amount.country, amount.currency) == ("USA", "USD") and amount.prices:
                return (amount.prices[0].price or 0) / (self.charge_unit_quantity or 1)
        return 0


class _Quote(msgspec.Struct, frozen=True):
    deployment_id: str = ""
    deployment_region: str = ""
    deployment_location: str = ""
    metrics: list[_Metric] | None = None

    @property
    def region(self) -> str:
        return self.deployment_region or self.deployment_location


class _Quotes(msgspec.Struct, frozen=True):
    count: int = 0
    resources: list[_Quote] = []


def fetch(wire: Wire, book: Book) -> Fetched:
    shapes: dict[str, Shape] = {}
    plans: dict[str, dict[str, _Deployed]] = {}  # plan -> profile -> how it is billed
    skipped = 0
    for entry in _entries(wire, "/api/v1", {"q": "kind:instance.profile", "include": "*"}):
        billed, shape = _billed(entry), _shape(entry.name, book)
        if billed is None or shape is None:
            skipped += 1
            continue
        shapes[entry.name] = shape
        plans.setdefault(billed.plan, {})[entry.name] = billed
    rows: list[PriceRow] = []
    for plan, profiles in sorted(plans.items()):
        quotes = list(_quotes(wire, f"/api/v1/{plan}/pricing/deployment"))
        shared = any(not _whole(billed) for billed in profiles.values())
        names = _deployment_names(wire, plan) if shared and quotes else {}
        before = len(rows)
        for quote in quotes:
            if not quote.region or quote.region == "DEFAULT":
                continue
            for name, billed in profiles.items():
                if not _whole(billed) and names.get(quote.deployment_id) not in (
                    name,
                    f"{name}-{quote.region}",
                ):
                    continue
                for spot, usd, rule in _prices(quote.metrics or (), name, billed):
                    rows.append(
                        book.row(shapes[name], quote.region, usd, source=SOURCE, spot=spot, rule=rule)
                    )
        skipped += len(profiles) if len(rows) == before else 0
    return book.fetched(rows, skipped=skipped)


def _entries(wire: Wire, path: str, query: dict[str, str]) -> Iterator[_Entry]:
    offset = 0
    for _ in range(_PAGES_MAX):
        page = wire.get(path, _Entries, {**query, "_offset": str(offset), "_limit": str(_PAGE)})
        yield from page.resources
        offset += len(page.resources)
        if not page.resources or offset >= page.count:
            return
    raise wire.refused(f"it has more than {_PAGES_MAX} pages")


def _quotes(wire: Wire, path: str) -> Iterator[_Quote]:
    offset = 0
    for _ in range(_PAGES_MAX):
        page = wire.get_if_there(path, _Quotes, {"_offset": str(offset), "_limit": str(_PAGE)})
        if page is None:  # a plan that is not published
            return
        yield from page.resources
        offset += len(page.resources)
        if not page.resources or offset >= page.count:
            return
    raise wire.refused(f"it has more than {_PAGES_MAX} pages")


def _deployment_names(wire: Wire, plan: str) -> dict[str, str]:
    """By id: `bx2-8x32-us-south`, the profile and the region."""
    return {entry.id: entry.name for entry in _entries(wire, f"/api/v1/{plan}/deployment", {"include": "*"})}


def _billed(entry: _Entry) -> _Deployed | None:
    """How a profile is billed on hosts that are shared with others; None when it is not, or not in one
    way."""
    other = entry.metadata.other if entry.metadata else None
    profile = other.profile if other else None
    if profile is None or profile.resource_type != "instance":
        return None
    found = [
        each
        for measure in profile.measures
        if measure.component == "instance"
        for each in measure.deployments
        if each.type == "multi-tenant" and each.plan
    ]
    return found[0] if len(found) == 1 else None


def _whole(billed: _Deployed) -> bool:
    """One price for the whole machine, not for its parts."""
    return any(meter.unit == "INSTANCE_MULTI_TENANT" for meter in billed.meters)


def _prices(metrics: Sequence[_Metric], name: str, billed: _Deployed) -> Iterator[tuple[bool, float, str]]:
    """(spot, USD an hour, rule) of a profile, from the prices of its plan in one region."""
    if _whole(billed):
        for metric in metrics:
            if metric.metric_id in (_HOURS + name, _SPOT + name) and metric.usd > 0:
                yield metric.metric_id == _SPOT + name, metric.usd, ""
        return
    by_unit = {metric.charge_unit_name: metric.usd for metric in metrics if metric.charge_unit_name}
    units = _units(billed)
    if units and all(by_unit.get(unit) for unit in units):
        parts = [f"{unit.removesuffix('_HOURS').lower()} {by_unit[unit]:g}" for unit in units]
        yield False, sum(by_unit[unit] for unit in units), " + ".join(parts)


def _units(billed: _Deployed) -> list[str]:
    """Names of the charges that make up the price: `VCPU_HOURS`, `MEMORY_HOURS`, `V100_HOURS`."""
    card = next((meter.quantity for meter in billed.meters if meter.unit == "GPU_CARD"), "")
    units = []
    for meter in billed.meters:
        if meter.unit in ("PROFILE", "GPU_CARD", "INSTANCE") or meter.quantity in ("", "0"):
            continue
        if meter.unit == "GPU":
            units.append(f"{card}_HOURS")
        elif meter.unit.endswith("STORAGE"):
            units.append(f"{meter.unit}_GIGABYTE_HOURS")
        else:
            units.append(f"{meter.unit}_HOURS")
    return units


def _shape(name: str, book: Book) -> Shape | None:
    known = book.shapes(name)
    if known:
        return known[0]
    told = _PROFILE.match(name)
    if told is None:
        return None
    fact = None
    if told["model"]:
        fact = book.accelerator(told["model"], _DEVICE_GIB.get(told["model"], 0))
        if fact is None:
            return None
    return sized(name, int(told["cpus"]), int(told["gib"]) * GIB, fact, int(told["gpus"]))
