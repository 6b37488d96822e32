"""Vast.ai: `POST /api/v0/bundles/`, public. A marketplace: what is offered now, the cheapest of each kind and
place.

A spot price is the lowest bid that is taken at present.
"""

from __future__ import annotations

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.offer import Capacity
from argosy.providers.vast.asks import Ask, region_of, shape_of

URL = "https://console.vast.ai"
SOURCE = "Vast.ai offers"
_MOST = 3000


class _Answer(msgspec.Struct, frozen=True):
    offers: list[Ask]


def fetch(wire: Wire, book: Book) -> Fetched:
    query = {
        "rentable": {"eq": True},
        "rented": {"eq": False},
        "verified": {"eq": True},
        "order": [["score", "desc"]],
        "type": "on-demand",
        "limit": _MOST,
    }
    rows: list[PriceRow] = []
    skipped = 0
    for offer in wire.post("/api/v0/bundles/", query, _Answer).offers:
        shape = shape_of(offer, book)
        if shape is None or not offer.rentable or offer.rented:
            skipped += 1
            continue
        region = region_of(offer)
        rows.append(book.row(shape, region, offer.dph_total, source=SOURCE))
        if offer.min_bid:
            rows.append(book.row(shape, region, offer.min_bid, source=SOURCE, spot=True))
    return book.fetched(rows, Capacity.ON_DEMAND, Capacity.SPOT, skipped=skipped)
