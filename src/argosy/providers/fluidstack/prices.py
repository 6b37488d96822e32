"""Fluidstack: `GET /list_available_configurations`, with an API key. Prices are for one GPU; machines have
several.

The service does not tell CPUs and memory: they come from the prices in use, and what they do not know is
skipped.

https://github.com/fluidstackio/fluidstack-typescript-sdk (path and header)
"""

from __future__ import annotations

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.offer import Capacity

URL = "https://platform.fluidstack.io"
SOURCE = "Fluidstack API"


class _Plan(msgspec.Struct, frozen=True):
    gpu_type: str
    price_per_gpu_hr: float | str = 0
    gpu_counts: list[int] = []
    regions: list[str] = []


def fetch(wire: Wire, book: Book) -> Fetched:
    rows: list[PriceRow] = []
    skipped = 0
    for plan in wire.get("/list_available_configurations", list[_Plan]):
        usd = float(plan.price_per_gpu_hr or 0)
        for count in plan.gpu_counts:
            shapes = book.shapes(f"{plan.gpu_type}::{count}")
            regions = plan.regions if usd > 0 and shapes else []
            skipped += not regions
            rows += [
                book.row(shapes[0], region, usd * count, source=SOURCE, rule=f"{count} x {usd:g}")
                for region in regions
            ]
    return book.fetched(rows, Capacity.ON_DEMAND, skipped=skipped)
