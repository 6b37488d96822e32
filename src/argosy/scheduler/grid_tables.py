"""Arrays behind `fragment.Grid`: typical needs as tables, and the costs of one class."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from argosy.scheduler.devices import Kind, Way
from argosy.scheduler.typical import Typical

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


class Tables:
    """The tables of `Typical` as arrays, made as machines need them."""

    def __init__(self, typical: Typical) -> None:
        self.typical = typical
        self.level = np.array(typical.level_of, np.int64)
        self.cpus = np.array(typical.cpus, np.int64)
        self.memory = np.array(typical.memory, np.int64)
        self.steps = (len(typical.cpus) + 1, len(typical.memory) + 1)
        self.width = len(typical.parts) + 2
        self.masks: dict[int, int] = {}  # types that a kind could host: its number
        self.of_kind: list[int] = []
        self.ids = np.zeros(0, np.int64)
        self.by_mask: dict[int, int] = {}
        self.levels = np.zeros(0, np.int64)
        self.whole = np.zeros(0, np.int64)

    def know(self, kinds: Sequence[Kind]) -> None:
        """Kinds by their number."""
        for kind in kinds[len(self.of_kind) :]:
            mask = self.typical.mask(kind)
            self.of_kind.append(self.masks.setdefault(mask, len(self.masks)) * self.steps[0] * self.steps[1])
        more = len(self.masks) * self.steps[0] * self.steps[1] - len(self.ids)
        self.ids = np.concatenate([self.ids, np.full(more, -1, np.int64)])

    def at(self, cells: Ints, cpus: Ints, memory: Ints) -> Ints:
        """The number of the table for each row."""
        cells = self.cpus.searchsorted(cpus, "right") * self.steps[1] + cells
        cells += self.memory.searchsorted(memory, "right")
        found = self.ids.take(cells)
        if found.size and found.min() < 0:
            self._fill(cells[found < 0])
            found = self.ids.take(cells)
        return found

    def _fill(self, cells: Ints) -> None:
        masks = list(self.masks)
        levels, whole = [self.levels], [self.whole]
        for cell in np.unique(cells):
            rest, memory = divmod(int(cell), self.steps[1])
            kind, cpus = divmod(rest, self.steps[0])
            mask = masks[kind] & self.typical.cpu_masks[cpus] & self.typical.memory_masks[memory]
            number = self.by_mask.get(mask)
            if number is None:
                number = self.by_mask[mask] = len(self.by_mask)
                table = self.typical.table(mask)
                levels.append(np.array(table.levels, np.int64))
                whole.append(np.array(table.whole, np.int64))
            self.ids[cell] = number
        self.levels = np.concatenate(levels)
        self.whole = np.concatenate(whole)


class ClassCosts:
    """Costs of one class of equal needs, by row."""

    __slots__ = (
        "costs",
        "counts",
        "counts_seen",
        "eligible",
        "floor",
        "join",
        "mechanism",
        "seen",
        "shared",
        "special",
        "suits",
        "tables",
        "uneven",
        "ways",
    )

    def __init__(self) -> None:
        self.costs: Ints = np.zeros(0, np.int64)
        self.seen = -1  # how much of the log the costs know
        self.tables: Tables | None = None  # for which they were computed
        self.counts: Ints | None = None
        self.counts_seen = -1
        self.shared = False  # with the same class of a copy
        self.ways: list[Way] = []  # by kind
        self.suits: Bools = np.zeros(0, np.bool_)  # by kind
        self.special: Bools = np.zeros(0, np.bool_)  # by kind: one by one
        self.eligible: Bools = np.zeros((0, 0), np.bool_)  # by kind and position
        self.uneven = False  # some kind has devices that the need may not use
        self.floor = (0, 0, 0)  # CPUs, memory, milli of devices: nothing fits where less is free
        self.mechanism: Ints = np.zeros(0, np.int64)  # by kind
        self.join: Bools = np.zeros((3, 0), np.bool_)  # by mechanism and lock

    def twin(self) -> ClassCosts:
        other = ClassCosts()
        for name in ClassCosts.__slots__:
            setattr(other, name, getattr(self, name))
        return other

    def own(self) -> None:
        """Before costs are changed in place."""
        if self.shared:
            self.costs = self.costs.copy()
            self.counts = None if self.counts is None else self.counts.copy()
            self.shared = False


__all__ = ["Bools", "ClassCosts", "Ints", "Tables"]
