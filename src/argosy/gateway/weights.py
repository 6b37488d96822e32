"""Which revision a request goes to: exact shares without dice, or the same one for the same user.

The k-th request goes where the share that a revision is owed is largest, so of every 1,000 requests at
90:10 one revision gets 900 and the other 100, give or take one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Protocol, TypeVar


class Weighted(Protocol):
    """What has an id and a weight of at least 0."""

    @property
    def id(self) -> str: ...

    @property
    def weight(self) -> int: ...


W = TypeVar("W", bound=Weighted)


class Shares:
    """A counter of low discrepancy (smooth weighted round robin): no stretch of requests is far from its
    share."""

    __slots__ = ("_owed",)

    def __init__(self) -> None:
        self._owed: dict[str, int] = {}

    def next(self, among: Sequence[W]) -> W:
        """The one whose turn it is. `among` is not empty."""
        if len(among) == 1:
            return among[0]
        total, best = 0, among[0]
        owed = self._owed
        for each in among:
            total += each.weight
            owed[each.id] = owed.get(each.id, 0) + each.weight
            if owed[each.id] > owed[best.id]:
                best = each
        owed[best.id] -= total
        return best


def sticky(user: bytes, among: Sequence[W]) -> W:
    """The revision of a user, by weighted rendezvous hashing: when weights change or a revision comes or
    goes, only as many users move as the change is large."""
    if len(among) == 1:
        return among[0]
    return max(among, key=lambda each: _draw(user, each.id) * each.weight)


def _draw(user: bytes, name: str) -> float:
    """Of several draws times their weights, each is the largest as often as its weight says."""
    digest = hashlib.blake2b(user, key=hashlib.blake2b(name.encode()).digest(), digest_size=8).digest()
    return -1.0 / math.log((int.from_bytes(digest, "big") + 1) / ((1 << 64) + 2))
