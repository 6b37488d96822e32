"""Which replica has read which beginning of a prompt before: an approximate picture of their caches.

A prompt is a chain of keys, one for each block of it; a key stands for its block and all before it. Replicas
are numbered slots; where a key may be cached is a bit mask, so that one walk along a prompt finds the
longest match of all replicas at once.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence


class Prefixes:
    """What each slot is believed to hold: the `capacity` keys that were used last, whole beginnings only."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self._where: dict[int, int] = {}  # key -> mask of slots
        self._recent: dict[int, OrderedDict[int, None]] = {}  # slot -> its keys, the least recent first

    def match(self, keys: Sequence[int]) -> dict[int, int]:
        """slot -> how many of the first keys it holds; slots that hold none are not named."""
        where = self._where
        found: dict[int, int] = {}
        alive = where.get(keys[0], 0) if keys else 0
        count = 1
        while alive:
            if count == len(keys):
                _note(found, alive, count)
                break
            there = where.get(keys[count], 0) & alive
            if there != alive:
                _note(found, alive & ~there, count)
                alive = there
            count += 1
        return found

    def add(self, slot: int, keys: Sequence[int]) -> None:
        """The slot reads a prompt. The deepest keys count as used first, so they are forgotten first."""
        recent = self._recent.setdefault(slot, OrderedDict())
        where, bit = self._where, 1 << slot
        for key in reversed(keys):
            if key in recent:
                recent.move_to_end(key)
            else:
                recent[key] = None
                where[key] = where.get(key, 0) | bit
        while len(recent) > self.capacity:
            self._clear(recent.popitem(last=False)[0], bit)

    def drop(self, slot: int) -> None:
        """The replica is gone, or began anew."""
        bit = 1 << slot
        for key in self._recent.pop(slot, ()):
            self._clear(key, bit)

    def _clear(self, key: int, bit: int) -> None:
        left = self._where[key] & ~bit
        if left:
            self._where[key] = left
        else:
            del self._where[key]

    def __len__(self) -> int:
        """Keys that are known of any slot."""
        return len(self._where)


def _note(found: dict[int, int], mask: int, count: int) -> None:
    while mask:
        low = mask & -mask
        found[low.bit_length() - 1] = count
        mask ^= low
