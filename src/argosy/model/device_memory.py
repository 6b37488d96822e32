"""The memory that a card is sold with. What its driver reports is less: error correction takes a sixteenth of
it on some cards, and the driver keeps a part."""

from __future__ import annotations

from bisect import bisect_left
from functools import lru_cache
from typing import Final

from argosy.model.units import GIB

#: Sizes of cards on sale, in GiB.
_SIZES: Final = (
    *(2, 3, 4, 5, 6, 8, 10, 11, 12, 16, 20, 22, 24, 32, 40, 48),
    *(64, 80, 94, 96, 128, 141, 144, 180, 192, 256, 288),
)
#: No card reports less than this share of its size (15,109 MiB of a T4's 16 GiB are the least known).
_LEAST: Final = 0.92


@lru_cache(256)
def sold_memory(reported_bytes: int) -> int:
    """Bytes of memory that a card of which `reported_bytes` are seen is sold with; what is seen where no
    size is near.

    >>> sold_memory(23_034 << 20) // GIB, sold_memory(81_559 << 20) // GIB, sold_memory(95_830 << 20) // GIB
    (24, 80, 94)
    >>> sold_memory(13 * GIB) // GIB
    13
    """
    place = bisect_left(_SIZES, reported_bytes / GIB)
    if place == len(_SIZES):
        return reported_bytes
    size = _SIZES[place] * GIB
    return size if reported_bytes >= size * _LEAST else reported_bytes
