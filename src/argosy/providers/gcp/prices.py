"""Google Cloud Billing Catalog: prices of parts (a core hour, a GB hour, a GPU hour) by family and region,
with an API key.

A machine costs the sum of its parts. Shapes and places come from the prices in use; a sum that is far from
the known price is not believed (a part was not recognised) and the known price stays.

https://cloud.google.com/billing/docs/reference/rest/v1/services.skus
"""

from __future__ import annotations

import re

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.offer import Capacity
from argosy.model.units import GIB

URL = "https://cloudbilling.googleapis.com"
SOURCE = "Google Cloud Billing Catalog"
_SERVICE = "/v1/services/6F81-5844-456A/skus"  # Compute Engine
_PAGES_MAX = 200
_BELIEVED = (0.4, 2.5)  # a sum outside of these shares of the known price missed a part
_SIZE = re.compile(
    r"^(?:Spot Preemptible )?([A-Z]\d(?:Plus|Ultra|[A-Z])?)(?: Predefined| AMD| Arm)? Instance (Core|Ram) "
    r"running in",
    re.IGNORECASE,
)
_OPTIMIZED = re.compile(
    r"^(?:Spot Preemptible )?Compute optimized (Core|Ram|Instance Core|Instance Ram) running in"
)
_GPU = re.compile(r"^(.+?) GPU (?:attached to (?:Spot )?Preemptible VMs )?running in", re.IGNORECASE)
_OTHER = ("Custom", "Sole Tenancy", "Workstation", "Commitment", "Reserved")
_FAMILIES = {"a3-megagpu": "a3plus", "a3-ultragpu": "a3ultra"}  # the others are called like their machines
_SHARED = re.compile(r"^(e2-(micro|small|medium)|f1-|g1-)")


class _Money(msgspec.Struct, frozen=True, rename="camel"):
    currency_code: str = "USD"
    units: int | str = 0  # int64 is a string in JSON
    nanos: int = 0


class _Rate(msgspec.Struct, frozen=True, rename="camel"):
    unit_price: _Money
    start_usage_amount: float = 0


class _Expression(msgspec.Struct, frozen=True, rename="camel"):
    usage_unit: str = ""
    tiered_rates: list[_Rate] = []


class _Pricing(msgspec.Struct, frozen=True, rename="camel"):
    pricing_expression: _Expression


class _Category(msgspec.Struct, frozen=True, rename="camel"):
    resource_family: str = ""
    usage_type: str = ""


class _Sku(msgspec.Struct, frozen=True, rename="camel"):
    description: str
    category: _Category
    service_regions: list[str] = []
    pricing_info: list[_Pricing] = []

    @property
    def usd(self) -> float | None:
        """Per hour; None when it is not a plain price."""
        if not self.pricing_info:
            return None
        told = self.pricing_info[-1].pricing_expression
        if not told.tiered_rates or told.usage_unit not in ("h", "GiBy.h"):
            return None
        money = told.tiered_rates[-1].unit_price
        return int(money.units) + money.nanos / 1e9 if money.currency_code == "USD" else None


class _Answer(msgspec.Struct, frozen=True, rename="camel"):
    skus: list[_Sku] = []
    next_page_token: str = ""


def fetch(wire: Wire, book: Book) -> Fetched:
    parts: dict[tuple[str, str, bool], float] = {}  # (part, region, spot) -> USD
    query = {"pageSize": "5000", "currencyCode": "USD"}
    for _ in range(_PAGES_MAX):
        answer = wire.get(_SERVICE, _Answer, query)
        for sku in answer.skus:
            _add(sku, parts, book)
        if not answer.next_page_token:
            break
        query["pageToken"] = answer.next_page_token
    else:
        raise wire.refused(f"it has more than {_PAGES_MAX} pages")
    if not parts:
        raise wire.refused("it has no price that we recognise")
    rows: list[PriceRow] = []
    kept = 0
    for old in book.rows():
        priced = _priced(old, parts, book)
        kept += priced is None
        rows.append(old if priced is None else priced)
    return book.fetched(rows, Capacity.ON_DEMAND, Capacity.SPOT, skipped=kept)


def _add(sku: _Sku, parts: dict[tuple[str, str, bool], float], book: Book) -> None:
    if sku.category.resource_family != "Compute" or sku.category.usage_type not in (
        "OnDemand",
        "Preemptible",
    ):
        return
    usd = sku.usd
    if not usd or any(word in sku.description for word in _OTHER):
        return
    part = ""
    size, optimized, gpu = (pattern.match(sku.description) for pattern in (_SIZE, _OPTIMIZED, _GPU))
    if size:
        part = f"{size[1].lower()} {size[2].lower()}"
    elif optimized:
        part = f"c2 {optimized[1].split()[-1].lower()}"
    elif gpu:
        name = re.sub(r"\bPlus\b", "MEGA", gpu[1])
        fact = book.accelerator(re.sub(r"\b\d+GB MEGA", "MEGA", name))
        part = fact.name if fact else ""
    if part:
        for region in sku.service_regions:
            parts[part, region, sku.category.usage_type == "Preemptible"] = usd


def _priced(old: PriceRow, parts: dict[tuple[str, str, bool], float], book: Book) -> PriceRow | None:
    """The row at the sum of its parts; None when a part is not known or the sum is not believed."""
    spot = old.capacity is Capacity.SPOT
    name = old.instance_type
    family = _FAMILIES.get("-".join(name.split("-")[:2]), name.split("-")[0])
    core = parts.get((f"{family} core", old.region, spot))
    ram = parts.get((f"{family} ram", old.region, spot))
    if core is None or ram is None or _SHARED.match(old.instance_type):
        return None
    cores, gib = old.cpus_milli / 1000, old.memory_bytes / GIB
    usd = cores * core + gib * ram
    rule = f"{cores:g} cores x {core:g} + {gib:g} GiB x {ram:g}"
    if old.model:
        gpu = parts.get((old.model, old.region, spot))
        if gpu is None:
            return None
        count = old.accelerators_milli / 1000
        usd += count * gpu
        rule += f" + {count:g} {old.model} x {gpu:g}"
    known = old.price_micro_usd / 1e6
    if not _BELIEVED[0] * known <= usd <= _BELIEVED[1] * known:
        return None
    # Local SSDs of these are priced apart and not counted.
    partial = (
        "lssd" in old.instance_type
        or family.startswith(("a3", "a4"))
        or old.instance_type.startswith("a2-ultra")
    )
    if partial:
        rule += "; local SSD not counted"
    return old._replace(
        price_micro_usd=round(usd * 1e6),
        note=old.note._replace(as_of_day=book.day, source=SOURCE, rule=rule, estimated=partial),
    )
