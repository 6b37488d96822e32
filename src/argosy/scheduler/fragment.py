"""The placement score for many machines at once: the arithmetic of `plain` on numpy arrays. Only large pools
import it.

Machines are rows in order of index and id; columns are devices by position, those that a machine lacks count
as full. Costs of a class of equal needs are kept, and computed again for rows that changed since. Rows that
share a room (empty machines of one kind do) are worked out once. Machines with MIG partitions are scored one
by one, by `plain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np

from argosy.scheduler import plain
from argosy.scheduler.ask import WHOLE_MILLI, Need
from argosy.scheduler.devices import Kind, Lock, Room, may_join
from argosy.scheduler.grid_tables import Bools, ClassCosts, Ints, Tables
from argosy.scheduler.plain import NEVER, class_of
from argosy.scheduler.sheet import CLASSES_MAX
from argosy.scheduler.typical import CPU_RATE, DEVICES_MAX, LEFT_RATE, Typical

# The column of the first device; before it: cpus, memory, whole, total, before, kind, cell of the kind.
LEFT: Final = 7
MECHANISMS: Final = ("", "mps", "mig")  # how a fraction shares a device
FEW: Final = 24  # rows that are quicker one by one than as arrays
MANY: Final = 64  # changes among which it is worth to look for rows that changed twice


class Suited(NamedTuple):
    """The rows that suit a need, and what is free on each."""

    rows: Ints
    cpus: Ints
    memory: Ints
    left: Ints  # by row and position
    eligible: Bools  # the devices that the need may use


class Grid:
    """The rooms of an inventory as arrays, and what each is worth to each class: `sheet.Sheet` for large
    pools."""

    def __init__(
        self, ids: Sequence[str], kinds: Sequence[Kind], rooms: Sequence[Room], typical: Typical
    ) -> None:
        self.ids = list(ids)
        self.row_of = {each: row for row, each in enumerate(self.ids)}
        self.kinds = list(kinds)
        self.rooms = list(rooms)
        self.typical = typical
        self._kind_list: list[Kind] = []
        self._kind_number: dict[int, int] = {}
        self._locks: dict[Lock | None, int] = {None: 0}
        self._classes: dict[Need, ClassCosts] = {}
        self._log: list[int] = []  # rows in the order of their changes
        self._touched: set[int] = set()  # rows that the table does not know yet
        count = len(self.ids)
        self._width = max((len(kind.devices) for kind in self.kinds), default=0) or 1
        self._numbers = [self._number(kind) for kind in self.kinds]
        self._cells = np.zeros((count, LEFT + 2 * self._width), np.int64)
        self._group_of: Ints = np.zeros(count, np.int64)
        self._grouped = -1
        self._write_all()

    def _number(self, kind: Kind) -> int:
        number = self._kind_number.get(kind.id)
        if number is None:
            number = self._kind_number[kind.id] = len(self._kind_list)
            self._kind_list = [*self._kind_list, kind]
        return number

    def copy(self) -> Grid:
        """Arrays of costs are shared until one of the twins changes them."""
        other = Grid.__new__(Grid)
        other.ids, other.row_of = list(self.ids), dict(self.row_of)
        other.kinds = list(self.kinds)
        other.rooms = list(self.rooms)
        other.typical = self.typical
        other._kind_list, other._kind_number = self._kind_list, dict(self._kind_number)
        other._locks = dict(self._locks)
        other._log = list(self._log)
        other._touched = set(self._touched)
        other._width = self._width
        other._tables = self._tables
        other._group_of, other._grouped = self._group_of, self._grouped
        other._numbers = list(self._numbers)
        other._cells = self._cells.copy()
        other._classes = {}
        for need, each in self._classes.items():
            each.shared = True
            other._classes[need] = each.twin()
        return other

    # Rooms

    def set(self, row: int, room: Room) -> None:
        self.rooms[row] = room
        self._touched.add(row)
        self._log.append(row)

    def set_kind(self, row: int, kind: Kind, room: Room) -> bool:
        """A machine became another; False: the rows must be made anew."""
        if len(kind.devices) > self._width:
            return False
        self.kinds[row] = kind
        self._numbers[row] = self._number(kind)
        self.set(row, room)
        return True

    def add(self, machine_id: str, kind: Kind, room: Room) -> bool:
        """One more machine, after all others; False: the rows must be made anew."""
        if len(kind.devices) > self._width:
            return False
        row = len(self.ids)
        self.ids.append(machine_id)
        self.row_of[machine_id] = row
        self.kinds.append(kind)
        self.rooms.append(room)
        self._numbers.append(self._number(kind))
        self._cells = np.concatenate([self._cells, np.zeros((1, self._cells.shape[1]), np.int64)])
        self._group_of = np.append(self._group_of, 0)  # of a row that has changed it says nothing
        for each in self._classes.values():
            each.own()
            each.costs = np.append(each.costs, NEVER)
            if each.counts is not None:
                each.counts = np.append(each.counts, 0)
        self.set(row, room)
        return True

    def _write(self, row: int) -> None:
        room, kind, number = self.rooms[row], self.kinds[row], self._numbers[row]
        typical = self.typical
        nothing = (0,) * (self._width - len(room.left))
        codes = self._locks
        self._cells[row] = (
            room.cpus,
            room.memory,
            room.whole if room.whole <= DEVICES_MAX else DEVICES_MAX,
            room.total,
            typical.before(kind, room),
            number,
            self._tables.of_kind[number],
            *room.left,
            *nothing,
            *[codes[lock] if lock in codes else codes.setdefault(lock, len(codes)) for lock in room.locks],
            *nothing,
        )

    def _sync(self) -> None:
        """Take over new typical needs, and drop old entries of the change log."""
        if self.typical is not self._tables.typical:
            self._judge_all()
        if len(self._tables.of_kind) < len(self._kind_list):
            self._tables.know(self._kind_list)
        if len(self._log) > 4 * len(self.ids) + 1024:
            cut = len(self._log) - len(self.ids)  # changes so old that everything would be computed anyway
            del self._log[:cut]
            self._grouped = max(-1, self._grouped - cut)
            for each in self._classes.values():
                each.seen = max(-1, each.seen - cut)
                each.counts_seen = max(-1, each.counts_seen - cut)

    def _write_all(self) -> None:
        """The table anew, for these typical needs; each room that rows share once."""
        self._tables = Tables(self.typical)
        self._tables.know(self._kind_list)
        groups: dict[tuple[int, int], int] = {}
        firsts: list[int] = []
        group_of = []
        for row, (room, number) in enumerate(zip(self.rooms, self._numbers, strict=True)):
            group = groups.setdefault((id(room), number), len(firsts))
            if group == len(firsts):
                firsts.append(row)
                self._write(row)
            group_of.append(group)
        self._group_of = np.array(group_of, np.int64)
        self._grouped = len(self._log)  # how much of the log the groups know
        if len(firsts) < len(self.ids):
            self._cells = self._cells.take(np.array(firsts, np.int64).take(self._group_of), axis=0)
        self._touched.clear()

    def _judge_all(self) -> None:
        """Other needs are typical: `Typical.before` of all rows anew, and where their kinds stand."""
        typical = self.typical
        tables = self._tables = Tables(typical)
        tables.know(self._kind_list)
        table = self._table
        kinds, whole, total, cpus = table[:, 5], table[:, 2], table[:, 3], table[:, 0]
        table[:, 6] = np.array(tables.of_kind, np.int64).take(kinds)
        left = table[:, LEFT : LEFT + self._width]
        numbers = tables.at(table[:, 6], cpus, table[:, 1])
        worth = left * tables.levels.take(tables.level.take(left) + (numbers * tables.width)[:, None])
        before = worth.sum(axis=1) + tables.whole.take(numbers * (DEVICES_MAX + 1) + whole)
        before[total == 0] = 0
        before += LEFT_RATE * total + CPU_RATE * cpus
        lack = total * typical.cpus_per_device // WHOLE_MILLI - cpus
        before -= np.maximum(lack, 0) * typical.short_rate
        table[:, 4] = before
        single = [len(k.counted) < len(k.devices) or len(k.devices) > DEVICES_MAX for k in self._kind_list]
        for row in np.flatnonzero(np.array(single, np.bool_).take(kinds)).tolist():
            table[row, 4] = typical.before(self.kinds[row], self.rooms[row])

    @property
    def _table(self) -> Ints:
        """The rooms in numbers; rows that have changed are written when it is read."""
        if self._touched:
            for row in self._touched:
                self._write(row)
            self._touched.clear()
        return self._cells

    # Costs

    def costs(self, need: Need) -> Ints:
        """Of one rank on each row; NEVER where it does not fit. Not to be changed."""
        self._sync()
        return self._fresh(need).costs

    def fits_any(self, need: Need, rows: Sequence[int]) -> bool:
        """Whether one of these rows could host a rank. Costs are not brought up to date for it: most classes
        that do not fit still do not."""
        self._sync()
        each = self._classes.get(class_of(need))
        if each is None or len(each.suits) < len(self._kind_list):
            each = self._fresh(need)
        kinds, rooms, ways, numbers = self.kinds, self.rooms, each.ways, self._numbers
        rows = self._roomy(each, rows)
        if len(rows) > FEW:
            return bool((self._score(need, each, np.array(rows, np.int64)) != NEVER).any())
        return any(
            plain.pick(self.typical, need, ways[numbers[row]], kinds[row], rooms[row]) is not None
            for row in rows
        )

    def _roomy(self, each: ClassCosts, rows: Sequence[int]) -> list[int]:
        """Those of the rows that are not too small by sums already."""
        cpus, memory, milli = each.floor
        rooms = self.rooms
        return [
            row
            for row in rows
            if (room := rooms[row]).cpus >= cpus and room.total >= milli and room.memory >= memory
        ]

    def _fresh(self, need: Need) -> ClassCosts:
        key = class_of(need)
        each = self._classes.pop(key, None)
        if each is None:
            while len(self._classes) * len(self.ids) > CLASSES_MAX:
                del self._classes[next(iter(self._classes))]
            each = ClassCosts()
        if len(each.suits) < len(self._kind_list):
            self._know(need, each)
        self._classes[key] = each
        end = len(self._log)
        if each.tables is not self._tables or each.seen < 0:
            each.tables = self._tables
            each.own()  # counts are shared with a twin, too
            each.costs = self._score_all(need, each)
        elif each.seen < end:
            each.own()
            self._renew(need, each)
        each.seen = end
        return each

    def _renew(self, need: Need, each: ClassCosts) -> None:
        """Costs of the rows that have changed. Most of them have become too small, which is seen without
        working out anything."""
        changed = self._log[each.seen :]
        if len(changed) > MANY:
            changed = list(set(changed))
        costs, rooms = each.costs, self.rooms
        rows = self._roomy(each, changed)
        if len(rows) < len(changed):
            costs[changed] = NEVER
        if len(rows) <= FEW:
            typical, kinds, ways, numbers = self.typical, self.kinds, each.ways, self._numbers
            for row in rows:
                got = plain.pick(typical, need, ways[numbers[row]], kinds[row], rooms[row])
                costs[row] = NEVER if got is None else got[0]
        else:
            index = np.array(rows, np.int64)
            costs[index] = self._score(need, each, index)

    def counts(self, need: Need) -> Ints:
        """How many ranks each row could host. Not to be changed."""
        self._sync()
        each = self._fresh(need)
        end = len(self._log)
        rows: Sequence[int]
        if each.counts is None or each.counts_seen < 0:
            each.counts = np.zeros(len(self.ids), np.int64)
            rows = [int(row) for row in np.flatnonzero(each.costs != NEVER)]
        else:
            rows = list(set(self._log[each.counts_seen :]))
            each.own()
        for row in rows:
            kind = self.kinds[row]
            each.counts[row] = plain.count(need, kind.way(need), kind, self.rooms[row])
        each.counts_seen = end
        return each.counts

    def suited(self, need: Need) -> Suited:
        """What is free on the machines that could host a rank in some state."""
        self._sync()
        table, each = self._table, self._fresh(need)
        rows = np.flatnonzero(each.suits.take(table[:, 5]))
        table = table.take(rows, axis=0)
        eligible = each.eligible.take(table[:, 5], axis=0)
        return Suited(rows, table[:, 0], table[:, 1], table[:, LEFT : LEFT + self._width], eligible)

    def hosting(self, need: Need, most: int) -> dict[str, int]:
        """The machines that could host a rank now, and how many up to `most`."""
        if most == 1:
            rows = np.flatnonzero(self.costs(need) != NEVER)
            return dict.fromkeys(map(self.ids.__getitem__, rows.tolist()), 1)
        return self._named(self.counts(need), most)

    def hosting_by_sums(self, need: Need, most: int) -> dict[str, int]:
        """The same by the sums of what is free on each machine: more than really fit."""
        self._sync()
        table = self._table
        hosted = np.where(self._fresh(need).suits.take(table[:, 5]), most, 0)
        spare = (table[:, 0], table[:, 1], table[:, LEFT : LEFT + self._width].sum(axis=1))
        for free, amount in zip(spare, (need.cpus_milli, need.memory_bytes, need.gpu_milli), strict=True):
            if amount >= NEVER >> 8:
                return {}
            if amount:
                np.minimum(hosted, free // amount, out=hosted)
        return self._named(hosted, most)

    def _named(self, counts: Ints, most: int) -> dict[str, int]:
        rows = np.flatnonzero(counts > 0)
        hosted = np.minimum(counts[rows], most).tolist()
        return dict(zip(map(self.ids.__getitem__, rows.tolist()), hosted, strict=True))

    def lowest(self, costs: Ints) -> int:
        """The row of the lowest cost, the first of equals; -1 when nothing fits."""
        if not len(costs):
            return -1
        row = int(costs.argmin())
        return -1 if costs[row] == NEVER else row

    def own(self, costs: Ints, rows: Sequence[int] | None = None) -> Ints:
        """Costs of some rows, to be changed."""
        return costs.copy() if rows is None else costs[np.array(rows, np.int64)]

    def bar(self, costs: Ints, others: Sequence[int]) -> Ints:
        """Costs, NEVER also where the others are."""
        return np.where(np.asarray(others) == NEVER, NEVER, costs)

    def _know(self, need: Need, each: ClassCosts) -> None:
        """What the need makes of each kind."""
        ways = [kind.way(need) for kind in self._kind_list]
        each.ways = ways
        each.suits = np.array([not way.why for way in ways], np.bool_)
        each.special = np.array(
            [
                not way.why
                and (
                    way.profile is not None
                    or bool(way.instances)
                    or len(kind.counted) < len(kind.devices)
                    or len(kind.devices) > DEVICES_MAX
                )
                for kind, way in zip(self._kind_list, ways, strict=True)
            ],
            np.bool_,
        )
        each.mechanism = np.array([MECHANISMS.index(way.mechanism) for way in ways], np.int64)
        # Instances and their cards are not in the sum of what is free.
        milli = 0 if each.special.any() else need.gpu_milli
        each.floor = (need.cpus_milli, need.memory_bytes, milli)
        each.eligible = np.zeros((len(ways), self._width), np.bool_)
        for number, (kind, way) in enumerate(zip(self._kind_list, ways, strict=True)):
            each.eligible[number, list(way.positions)] = True
            each.uneven |= bool(need.gpu_milli and not way.why and len(way.positions) < len(kind.devices))

    def _join(self, need: Need, each: ClassCosts) -> Bools:
        """Which locks a fraction may join, by mechanism (`ClassCosts.mechanism` of a kind) and lock."""
        known = each.join.shape[1]
        if known < len(self._locks):
            locks = list(self._locks)[known:]
            more = [
                [may_join(lock, mechanism, need.gpu_milli, need.tenant, need.open) for lock in locks]
                for mechanism in MECHANISMS
            ]
            each.join = np.concatenate([each.join, np.array(more, np.bool_)], axis=1)
        return each.join

    def _score_all(self, need: Need, each: ClassCosts) -> Ints:
        """Of all rows, one for each group of which a row has not changed."""
        count = len(self.ids)
        changed = np.array(list(set(self._log[max(self._grouped, 0) :])), np.int64)
        if self._grouped < 0 or 2 * len(changed) >= count:
            table = self._table
            fits = each.suits.take(table[:, 5])
            for column, least in zip((0, 1, 3), each.floor, strict=True):
                fits &= table[:, column] >= least
            rows = np.flatnonzero(fits)  # of a full pool few are left
            costs = np.full(count, NEVER, np.int64)
            costs[rows] = self._score(need, each, rows)
            return costs
        of = self._group_of
        same = np.ones(count, np.bool_)
        same[changed] = False
        unchanged = np.flatnonzero(same)
        firsts = np.full(count, -1, np.int64)
        firsts[of[unchanged]] = unchanged  # any of them
        groups = np.flatnonzero(firsts >= 0)
        got = self._score(need, each, np.concatenate([firsts[groups], changed]))
        of_group = np.full(count, NEVER, np.int64)
        of_group[groups] = got[: len(groups)]
        costs = of_group.take(of)
        costs[changed] = got[len(groups) :]
        return costs

    def _score(self, need: Need, each: ClassCosts, rows: Ints | None) -> Ints:
        if max(need.cpus_milli, need.memory_bytes, need.gpu_milli) >= NEVER >> 8:
            return np.full(len(self.ids if rows is None else rows), NEVER, np.int64)
        tables = self._tables
        table = self._table if rows is None else self._table.take(rows, axis=0)
        kinds = table[:, 5]
        cpus = table[:, 0] - need.cpus_milli
        memory = table[:, 1] - need.memory_bytes
        fits = each.suits.take(kinds)
        fits &= cpus >= 0
        fits &= memory >= 0
        numbers = tables.at(table[:, 6], cpus, memory)
        left = table[:, LEFT : LEFT + self._width]
        cells = (numbers * tables.width)[:, None]
        worth = tables.levels.take(tables.level.take(left) + cells)
        worth *= left
        at_whole = numbers * (DEVICES_MAX + 1)
        at_whole += table[:, 2]
        cost = table[:, 4] - worth.sum(axis=1)
        if not need.gpu_milli:
            cost -= tables.whole.take(at_whole)
        elif need.gpu_milli >= WHOLE_MILLI:
            count = need.gpu_milli // WHOLE_MILLI
            if each.uneven:
                fits &= ((left == WHOLE_MILLI) & each.eligible.take(kinds, axis=0)).sum(axis=1) >= count
            else:
                fits &= table[:, 2] >= count
            cost -= tables.whole.take(np.maximum(at_whole - count, 0))
        else:
            rest = left - need.gpu_milli
            locks = table[:, LEFT + self._width :] + (each.mechanism.take(kinds) * len(self._locks))[:, None]
            free = self._join(need, each).take(locks)
            free &= rest >= 0
            if each.uneven:
                free &= each.eligible.take(kinds, axis=0)
            # Where `rest` is below zero some other level is read; those are not free.
            loss = rest * tables.levels.take(tables.level.take(rest, mode="wrap") + cells)
            np.subtract(worth, loss, out=loss)
            here = tables.whole.take(at_whole)
            less = tables.whole.take(np.maximum(at_whole - 1, 0))
            loss += (left == WHOLE_MILLI) * (here - less)[:, None]
            best = np.where(free, loss, NEVER).min(axis=1)
            fits &= best != NEVER
            cost += best
            cost -= here
        lack = table[:, 3] - need.gpu_milli
        lack *= self.typical.cpus_per_device
        lack //= WHOLE_MILLI
        lack -= cpus
        cost += np.maximum(lack, 0) * self.typical.short_rate
        result = np.where(fits, cost, NEVER)
        if each.special.any():
            for spot in np.flatnonzero(each.special[kinds]):
                row = int(spot if rows is None else rows[spot])
                kind = self.kinds[row]
                got = plain.pick(tables.typical, need, kind.way(need), kind, self.rooms[row])
                result[spot] = NEVER if got is None else got[0]
        return result


__all__ = ["Grid"]
