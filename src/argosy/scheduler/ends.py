"""When what runs will probably end, in the order of time.

Most of what changes is never asked for: a pass that starts thousands asks for the order once, at its end. So
changes are kept until somebody asks, and then either entered one by one or, when they are many, sorted in at
once.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter
from typing import Final

import msgspec

from argosy.scheduler.whatif import Allocation

FEW: Final = 512  # changes that are entered one by one; each moves a part of the list


class Release(msgspec.Struct, frozen=True, order=True, gc=False):
    """Capacity that one holder gives back."""

    at_ms: int
    holder: str
    queue: str
    allocation: Allocation


class Ends:
    """One release per holder, by time and holder. `add` and `remove` O(1); to ask after k changes O(k log n)
    and k moves of memory, at most O(n log n)."""

    def __init__(self) -> None:
        self._of: dict[str, Release] = {}
        self._sorted: list[Release] = []
        self._added: list[Release] = []
        self._removed: list[Release] = []  # some of them were never sorted in

    def __len__(self) -> int:
        return len(self._of)

    def __iter__(self) -> Iterator[Release]:
        self._settle()
        return iter(self._sorted)

    def add(self, release: Release) -> None:
        """Replaces an earlier one of the same holder."""
        self.remove(release.holder)
        self._of[release.holder] = release
        self._added.append(release)

    def remove(self, holder: str) -> None:
        """Absent is fine."""
        release = self._of.pop(holder, None)
        if release is not None:
            self._removed.append(release)

    def first(self, most: int | None = None) -> list[Release]:
        """The next ones, in order; None: all."""
        self._settle()
        return self._sorted[:most]

    def next_ms(self) -> int | None:
        """When the first of them is expected."""
        self._settle()
        return self._sorted[0].at_ms if self._sorted else None

    def _settle(self) -> None:
        changes = len(self._added) + len(self._removed)
        if not changes:
            return
        if changes > FEW:
            self._merge()
        else:
            for release in self._removed:
                at = bisect_left(self._sorted, _key(release), key=_key)
                if at < len(self._sorted) and self._sorted[at] is release:
                    del self._sorted[at]
            for release in self._added:
                if self._of.get(release.holder) is release:
                    insort(self._sorted, release, key=_key)
        self._added.clear()
        self._removed.clear()

    def _merge(self) -> None:
        """Drop removed releases and merge the new ones into the sorted rest."""
        of = self._of
        rest = [release for release in self._sorted if of.get(release.holder) is release]
        # By time, in each by holder: two sorts by one thing are quicker than one by pairs.
        new = [release for release in self._added if of.get(release.holder) is release]
        new.sort(key=attrgetter("holder"))
        new.sort(key=attrgetter("at_ms"))
        if rest:
            merged: list[Release] = []
            begin = 0
            for release in new:
                end = bisect_left(rest, _key(release), lo=begin, key=_key)
                merged += rest[begin:end]
                merged.append(release)
                begin = end
            new = merged + rest[begin:]
        self._sorted = new


def _key(release: Release) -> tuple[int, str]:
    return release.at_ms, release.holder
