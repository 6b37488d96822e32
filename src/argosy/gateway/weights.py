"""Which revision a request goes to: exact shares without dice, or the same one for the same user.

Of every 1,000 requests at 90:10 one revision gets 900 and the other 100, give or take one. Which ones these
are follows no period: requests often do, and a revision that got each tenth of them might get nothing but the
slow ones.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Final, Protocol, TypeVar


class Weighted(Protocol):
    """What has an id and a weight of at least 0."""

    @property
    def id(self) -> str: ...

    @property
    def weight(self) -> int: ...


W = TypeVar("W", bound=Weighted)
_GOLDEN: Final = 0.6180339887498949


class Shares:
    """A counter of low discrepancy: no stretch of requests is far from its share. Of each stretch in which
    one request is due to a revision, that is the first, the last or one between, by turns (multiples of the
    golden ratio, which repeat with no period)."""

    __slots__ = ("_owed",)

    def __init__(self) -> None:
        self._owed: dict[str, list[float]] = {}  # by id: requests that are owed, and how many there were

    def next(self, among: Sequence[W]) -> W:
        """The one whose turn it is; the one with most weight takes what no other is owed. `among` is not
        empty."""
        if len(among) == 1:
            return among[0]
        most = max(among, key=lambda each: each.weight)
        total = sum(each.weight for each in among)
        chosen, late = most, 0.0
        for each in among:
            if each is most or not each.weight:
                continue
            owed = self._owed.setdefault(each.id, [0.0, 0])
            owed[0] += each.weight / total
            after = owed[0] - (owed[1] + 0.5) * _GOLDEN % 1.0
            if after >= late:  # of two that are due, who has waited longer
                chosen, late = each, after
        if chosen is not most:
            owed = self._owed[chosen.id]
            owed[0] -= 1.0
            owed[1] += 1
        return chosen


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
