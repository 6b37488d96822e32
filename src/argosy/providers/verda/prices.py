"""Verda, formerly DataCrunch: `GET /v1/instance-types` after an OAuth2 login with client credentials.

Prices are the same in every location. A type is listed with the locations that have some now; where else it
was known to be sold comes from the prices in use.

https://api.verda.com/v1/docs
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book, sized
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.offer import Capacity, Shape
from argosy.model.units import GIB

URL = "https://api.verda.com"
SOURCE = "Verda API"


class _Token(msgspec.Struct, frozen=True):
    access_token: str


class _Cpu(msgspec.Struct, frozen=True):
    number_of_cores: int = 0


class _Gpus(msgspec.Struct, frozen=True):
    number_of_gpus: int = 0
    description: str = ""


class _Memory(msgspec.Struct, frozen=True):
    size_in_gigabytes: float = 0


class _Type(msgspec.Struct, frozen=True):
    instance_type: str
    price_per_hour: float | str  # written as a text
    spot_price: float | str | None = None
    model: str | None = None
    cpu: _Cpu | None = None
    gpu: _Gpus | None = None
    memory: _Memory | None = None
    gpu_memory: _Memory | None = None  # of all devices together


class _Stock(msgspec.Struct, frozen=True):
    location_code: str
    availabilities: list[str] = []


def login(wire: Wire, secrets: Mapping[str, str]) -> None:
    """Exchange the client's id and secret for a token."""
    asked = {
        "grant_type": "client_credentials",
        "client_id": secrets["VERDA_CLIENT_ID"],
        "client_secret": secrets["VERDA_CLIENT_SECRET"],
    }
    token = wire.post("/v1/oauth2/token", asked, _Token).access_token
    wire.carry("Authorization", f"Bearer {token}")


def fetch(wire: Wire, book: Book) -> Fetched:
    stocked: dict[tuple[str, bool], set[str]] = {}
    for spot in (False, True):
        query = {"is_spot": "true" if spot else "false"}
        for stock in wire.get("/v1/instance-availability", list[_Stock], query):
            for name in stock.availabilities:
                stocked.setdefault((name, spot), set()).add(stock.location_code)
    rows: list[PriceRow] = []
    skipped = 0
    for told in wire.get("/v1/instance-types", list[_Type]):
        shape = _shape(told, book)
        known = book.regions(told.instance_type)
        made: list[PriceRow] = []
        for spot, price in ((False, told.price_per_hour), (True, told.spot_price)):
            usd = _usd(price)
            if shape is not None and usd > 0:
                regions = known | stocked.get((told.instance_type, spot), set())
                made += [book.row(shape, each, usd, source=SOURCE, spot=spot) for each in sorted(regions)]
        skipped += not made
        rows += made
    return book.fetched(rows, Capacity.ON_DEMAND, Capacity.SPOT, skipped=skipped)


def _shape(told: _Type, book: Book) -> Shape | None:
    known = book.shapes(told.instance_type)
    if known:
        return known[0]
    count = told.gpu.number_of_gpus if told.gpu else 0
    fact = None
    if count:
        memory_gib = told.gpu_memory.size_in_gigabytes / count if told.gpu_memory else 0
        text = told.model or (told.gpu.description if told.gpu else "")
        # The amount is that of all devices, or of one: what fits the model decides.
        fact = book.accelerator(text, memory_gib) or book.accelerator(text, memory_gib * count)
        if fact is None:
            return None
    if not told.cpu or not told.cpu.number_of_cores or not told.memory:
        return None
    return sized(
        told.instance_type, told.cpu.number_of_cores, told.memory.size_in_gigabytes * GIB, fact, count
    )


def _usd(price: float | str | None) -> float:
    """0 for what is no price."""
    try:
        return float(price or 0)
    except ValueError:
        return 0
