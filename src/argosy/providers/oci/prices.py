"""OCI price list: public; prices of parts (a GPU hour, an OCPU hour, a GB hour), the same in every commercial
region.

A machine costs the sum of its parts. Which parts a shape has is known from the prices in use (their rule
names the part of a GPU shape); flexible shapes are found by the names of their parts. Preemptible capacity
costs half.
"""

from __future__ import annotations

import re

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.market import Note
from argosy.model.offer import Capacity

URL = "https://apexapps.oracle.com"
SOURCE = "OCI price list"
_PART = re.compile(r"(\d+) x part (B\d+)")
#: `Compute - Standard - E4  - Memory`, `OCI - Compute - Standard - E6 - OCPU`, `Compute - Standard - A2 OCPU`
_NAMED = re.compile(r"Compute\s+-\s+Standard\s+-\s+([A-Z]\d+)\s+(?:-\s+)?(OCPU|Memory)\s*$")
_FLEX = re.compile(r"(?P<ocpus>[\d.]+) OCPU x (?P<ocpu>[\d.]+) \+ (?P<gbs>[\d.]+) GB x (?P<gb>[\d.]+)")


class _Price(msgspec.Struct, frozen=True):
    model: str
    value: float


class _Local(msgspec.Struct, frozen=True, rename="camel"):
    currency_code: str
    prices: list[_Price]


class _Item(msgspec.Struct, frozen=True, rename="camel"):
    part_number: str
    display_name: str = ""
    metric_name: str = ""
    currency_code_localizations: list[_Local] = []

    @property
    def usd(self) -> float | None:
        """Of the last tier: the first ones may be a free allowance."""
        found = None
        for local in self.currency_code_localizations:
            if local.currency_code == "USD":
                for price in local.prices:
                    if price.model == "PAY_AS_YOU_GO":
                        found = price.value
        return found


class _Answer(msgspec.Struct, frozen=True):
    items: list[_Item]


def fetch(wire: Wire, book: Book) -> Fetched:
    parts: dict[str, float] = {}
    answer = wire.get("/pls/apex/cetools/api/v1/products/", _Answer, {"currencyCode": "USD"})
    for item in answer.items:
        usd = item.usd
        if usd:
            parts[item.part_number] = usd
            named = _NAMED.search(item.display_name)
            if named and item.metric_name.endswith("Per Hour"):
                parts[f"{named[1]} {named[2]}"] = usd
    rows: list[PriceRow] = []
    missing: set[str] = set()
    for old in book.rows():
        if old.capacity is not Capacity.ON_DEMAND:
            continue
        priced = _price(old.instance_type, old.note.rule, parts)
        if priced is None:
            missing.add(old.instance_type)
            continue
        usd, rule = priced
        rows.append(_at(old, usd, rule, book.day))
        if not old.model:
            half = _at(old, usd / 2, f"{rule}; preemptible capacity at 50%", book.day)
            rows.append(half._replace(capacity=Capacity.SPOT))
    return book.fetched(rows, Capacity.ON_DEMAND, Capacity.SPOT, skipped=len(missing))


def _at(old: PriceRow, usd: float, rule: str, day: int) -> PriceRow:
    return old._replace(price_micro_usd=round(usd * 1e6), note=Note(day, SOURCE, rule))


def _price(instance_type: str, rule: str, parts: dict[str, float]) -> tuple[float, str] | None:
    """USD per hour and how it was computed; None when a part has no price."""
    counted = _PART.search(rule)
    if counted:
        each = parts.get(counted[2])
        return None if each is None else (int(counted[1]) * each, f"{counted[1]} x part {counted[2]}")
    flexible = _FLEX.search(rule)
    family = re.search(r"\.([A-Z]\d+)\.Flex", instance_type)
    if not flexible or not family:
        return None
    ocpu, gb = parts.get(f"{family[1]} OCPU"), parts.get(f"{family[1]} Memory")
    if ocpu is None or gb is None:
        return None
    ocpus, gbs = float(flexible["ocpus"]), float(flexible["gbs"])
    return ocpus * ocpu + gbs * gb, f"{ocpus:g} OCPU x {ocpu:g} + {gbs:g} GB x {gb:g}"
