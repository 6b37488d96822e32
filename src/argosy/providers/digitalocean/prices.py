"""DigitalOcean: `GET /v2/sizes`, with a token, paged by `links.pages.next`.

https://docs.digitalocean.com/reference/api/reference/sizes/
"""

from __future__ import annotations

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book, sized
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.offer import Capacity, Shape
from argosy.model.units import MIB

URL = "https://api.digitalocean.com"
SOURCE = "DigitalOcean API"
_PAGES_MAX = 100


class _Amount(msgspec.Struct, frozen=True):
    amount: float
    unit: str = "gib"


class _Gpu(msgspec.Struct, frozen=True):
    count: int
    model: str
    vram: _Amount


class _Size(msgspec.Struct, frozen=True):
    slug: str
    memory: int  # MB
    vcpus: int
    price_hourly: float
    disk: float = 0  # GB
    regions: list[str] = []
    available: bool = True
    gpu_info: _Gpu | None = None


class _Pages(msgspec.Struct, frozen=True):
    next: str | None = None


class _Links(msgspec.Struct, frozen=True):
    pages: _Pages = _Pages()


class _Answer(msgspec.Struct, frozen=True):
    sizes: list[_Size]
    links: _Links = _Links()


def fetch(wire: Wire, book: Book) -> Fetched:
    rows: list[PriceRow] = []
    skipped = 0
    answer = wire.get("/v2/sizes", _Answer, {"per_page": "200"})
    for _ in range(_PAGES_MAX):
        for size in answer.sizes:
            shape = _shape(size, book)
            if shape is None or not size.available or not size.regions:
                skipped += 1
                continue
            rows += [book.row(shape, region, size.price_hourly, source=SOURCE) for region in size.regions]
        if not answer.links.pages.next:
            break
        answer = wire.get(answer.links.pages.next, _Answer)
    else:
        raise wire.refused(f"it has more than {_PAGES_MAX} pages")
    return book.fetched(rows, Capacity.ON_DEMAND, skipped=skipped)


def _shape(size: _Size, book: Book) -> Shape | None:
    gpu, fact = size.gpu_info, None
    if gpu is not None:
        # The amount is that of one device, or of all of them: what fits the model decides.
        fact = book.accelerator(gpu.model, gpu.vram.amount) or book.accelerator(
            gpu.model, gpu.vram.amount / max(1, gpu.count)
        )
        if fact is None:
            return None
    return sized(size.slug, size.vcpus, size.memory * MIB, fact, gpu.count if gpu else 0, size.disk * 10**9)
