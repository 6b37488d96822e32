"""RunPod: GraphQL `gpuTypes`, with an API key. Prices are for one GPU of the secure cloud; pods have several.

The service tells CPUs and memory for a number of GPUs, so it is asked once for each number. It does not tell
regions: they come from the prices in use, and a type that is new there is `any`where.
"""

from __future__ import annotations

import msgspec

from argosy.catalog.keep import Fetched
from argosy.catalog.refresh.book import Book
from argosy.catalog.refresh.wire import Wire
from argosy.catalog.table import PriceRow
from argosy.model.offer import Shape
from argosy.model.units import GIB

URL = "https://api.runpod.io"
SOURCE = "RunPod GraphQL API"
_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8)
_QUERY = """
query GpuTypes($lowest: GpuLowestPriceInput) {
  gpuTypes {
    id displayName memoryInGb maxGpuCount secureCloud securePrice secureSpotPrice
    lowestPrice(input: $lowest) { minVcpu minMemory }
  }
}
"""


class _Lowest(msgspec.Struct, frozen=True, rename="camel"):
    min_vcpu: int | None = None
    min_memory: float | None = None  # GB


class _Gpu(msgspec.Struct, frozen=True, rename="camel"):
    id: str
    display_name: str
    memory_in_gb: float = 0
    max_gpu_count: int | None = None
    secure_cloud: bool = False
    secure_price: float | None = None
    secure_spot_price: float | None = None
    lowest_price: _Lowest | None = None


class _Data(msgspec.Struct, frozen=True, rename="camel"):
    gpu_types: list[_Gpu]


class _Problem(msgspec.Struct, frozen=True):
    message: str = ""


class _Answer(msgspec.Struct, frozen=True):
    data: _Data | None = None
    errors: list[_Problem] = []


def fetch(wire: Wire, book: Book) -> Fetched:
    rows: list[PriceRow] = []
    skipped = 0
    for count in _COUNTS:
        lowest = {"gpuCount": count, "secureCloud": True}
        answer = wire.post("/graphql", {"query": _QUERY, "variables": {"lowest": lowest}}, _Answer)
        if answer.data is None or answer.errors:
            told = answer.errors[0].message if answer.errors else "no data"
            raise wire.refused(f"it says: {told[:200]}")
        for gpu in answer.data.gpu_types:
            made = _rows(gpu, count, book)
            skipped += not made and count <= (gpu.max_gpu_count or 1)
            rows += made
    return book.fetched(rows, skipped=skipped)


def _rows(gpu: _Gpu, count: int, book: Book) -> list[PriceRow]:
    if not gpu.secure_cloud or not gpu.secure_price or count > (gpu.max_gpu_count or 1):
        return []
    fact = book.accelerator(gpu.display_name, gpu.memory_in_gb)
    if fact is None:
        return []
    name = f"{count}x_{fact.name}_SECURE"
    lowest = gpu.lowest_price or _Lowest()
    if lowest.min_vcpu and lowest.min_memory:
        shape = Shape(
            instance_type=name,
            cpus_milli=lowest.min_vcpu * 1000,
            memory_bytes=round(lowest.min_memory * GIB),
            accelerator=fact.name,
            accelerators_milli=count * 1000,
            accelerator_memory_bytes=fact.memory_bytes,
        )
    elif book.shapes(name):
        shape = book.shapes(name)[0]  # out of stock: the service tells no size
    else:
        return []
    made = []
    for region in sorted(book.regions(name)) or ["any"]:
        made.append(book.row(shape, region, gpu.secure_price * count, source=SOURCE))
        if gpu.secure_spot_price and gpu.secure_spot_price < gpu.secure_price:
            made.append(book.row(shape, region, gpu.secure_spot_price * count, source=SOURCE, spot=True))
    return made
