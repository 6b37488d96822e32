"""The machines of a small pool in rows, and what each is worth to each class of equal needs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from argosy.scheduler.ask import Need
from argosy.scheduler.devices import Kind, Room
from argosy.scheduler.plain import NEVER, class_of, count, pick
from argosy.scheduler.typical import Typical

# Costs kept, over all classes of equal needs; those that were not used for longest go.
CLASSES_MAX: Final = 4_000_000


class _Class:
    """Costs of one class of equal needs, by row."""

    __slots__ = ("costs", "seen", "typical")

    def __init__(self, costs: list[int], seen: int, typical: Typical) -> None:
        self.costs = costs
        self.seen = seen  # how much of the log the costs know
        self.typical = typical


class Sheet:
    """The rooms of an inventory in rows, and what each is worth to each class: `fragment.Grid` for small
    pools."""

    def __init__(
        self, ids: Sequence[str], kinds: Sequence[Kind], rooms: Sequence[Room], typical: Typical
    ) -> None:
        self.ids = list(ids)
        self.row_of = {each: row for row, each in enumerate(self.ids)}
        self.kinds = list(kinds)
        self.rooms = list(rooms)
        self.typical = typical
        self._log: list[int] = []  # rows in the order of their changes
        self._classes: dict[Need, _Class] = {}

    def copy(self) -> Sheet:
        other = Sheet(self.ids, self.kinds, self.rooms, self.typical)
        other._log = list(self._log)
        other._classes = {
            need: _Class(list(each.costs), each.seen, each.typical) for need, each in self._classes.items()
        }
        return other

    def set(self, row: int, room: Room) -> None:
        self.rooms[row] = room
        self._log.append(row)
        if len(self._log) > 64 * len(self.ids) + 1024:
            self._log.clear()
            self._classes.clear()

    def set_kind(self, row: int, kind: Kind, room: Room) -> bool:
        """A machine became another; False: the rows must be made anew."""
        self.kinds[row] = kind
        self.set(row, room)
        return True

    def add(self, machine_id: str, kind: Kind, room: Room) -> bool:
        """One more machine, after all others; False: the rows must be made anew."""
        return False

    def costs(self, need: Need) -> list[int]:
        """Of one rank on each row; NEVER where it does not fit. Not to be changed."""
        key = class_of(need)
        each = self._classes.pop(key, None)
        end = len(self._log)
        if each is None or each.typical is not self.typical:
            while len(self._classes) * len(self.ids) > CLASSES_MAX:
                del self._classes[next(iter(self._classes))]
            each = _Class([self._cost(need, row) for row in range(len(self.ids))], end, self.typical)
        elif each.seen < end:
            for row in set(self._log[each.seen :]):
                each.costs[row] = self._cost(need, row)
            each.seen = end
        self._classes[key] = each
        return each.costs

    def fits_any(self, need: Need, rows: Sequence[int]) -> bool:
        """Whether one of these rows could host a rank."""
        costs = self.costs(need)
        return any(costs[row] < NEVER for row in rows)

    def _cost(self, need: Need, row: int) -> int:
        kind = self.kinds[row]
        got = pick(self.typical, need, kind.way(need), kind, self.rooms[row])
        return NEVER if got is None else got[0]

    def counts(self, need: Need) -> list[int]:
        """How many ranks each row could host."""
        return [
            count(need, kind.way(need), kind, room) for kind, room in zip(self.kinds, self.rooms, strict=True)
        ]

    def hosting(self, need: Need, most: int) -> dict[str, int]:
        """The machines that could host a rank now, and how many up to `most`."""
        counts = zip(self.ids, self.counts(need), strict=True)
        return {machine_id: min(most, ranks) for machine_id, ranks in counts if ranks}

    def hosting_by_sums(self, need: Need, most: int) -> dict[str, int]:
        """The same by the sums of what is free on each machine: more than really fit."""
        found = {}
        for machine_id, kind, room in zip(self.ids, self.kinds, self.rooms, strict=True):
            ranks = 0 if kind.way(need).why else most
            spare = (room.cpus, room.memory, sum(room.left))
            for free, amount in zip(spare, (need.cpus_milli, need.memory_bytes, need.gpu_milli), strict=True):
                if amount:
                    ranks = min(ranks, free // amount)
            if ranks > 0:
                found[machine_id] = ranks
        return found

    def lowest(self, costs: Sequence[int]) -> int:
        """The row of the lowest cost, the first of equals; -1 when nothing fits."""
        best = min(costs, default=NEVER)
        return -1 if best == NEVER else costs.index(best)

    def own(self, costs: Sequence[int], rows: Sequence[int] | None = None) -> list[int]:
        """Costs of some rows, to be changed."""
        return list(costs) if rows is None else [costs[row] for row in rows]

    def bar(self, costs: list[int], others: Sequence[int]) -> list[int]:
        """Costs, NEVER also where the others are."""
        return [NEVER if other == NEVER else cost for cost, other in zip(costs, others, strict=True)]


__all__ = ["CLASSES_MAX", "Sheet"]
