"""What is free in a pool: integers with transactions, and the cheapest place for each ask.

Every change has a version. `mark` opens a transaction, `rollback` undoes what was taken and given since,
`settle` keeps it. Nothing is ever over-committed: a take that does not fit raises and changes nothing. `copy`
is cheap, since rooms never change.

Costs are kept per class of equal needs and computed again only for machines that changed; nothing else
depends on these caches.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.model.offer import Placement
from argosy.model.tenancy import Amounts
from argosy.scheduler import plain
from argosy.scheduler.ask import WHOLE_MILLI, Ask, Machine, Need
from argosy.scheduler.devices import Kind, Room, instance_milli, kind_key
from argosy.scheduler.free import Free, add_up
from argosy.scheduler.gang import Layout, Search, held_by
from argosy.scheduler.sheet import Sheet
from argosy.scheduler.shortage import Nearest, Why, find_nearest, find_why
from argosy.scheduler.topology import Domains
from argosy.scheduler.typical import Demand, Typical, typical_of

if TYPE_CHECKING:
    from argosy.scheduler.fragment import Grid

GAINS_FEW: Final = 8  # machines that are looked at one by one; of more the known costs tell
VECTOR_MIN: Final = 49  # machines from which on numpy is worth its import
GAINS_MAX: Final = 20_000  # remembered; who looked before the oldest is told that there may be something
PUT: Final = -2  # in the place of a version: the gain comes from a machine that was put
FIRST: Final = (-(1 << 62), "")  # before every machine


class OverCommitted(Exception):
    """Something was to be taken that is not free. Nothing was changed."""


class _Holding(msgspec.Struct, frozen=True, gc=False):
    need: Need
    placements: tuple[Placement, ...]


class Inventory:
    def __init__(self, machines: Iterable[Machine] = (), *, vector_min: int = VECTOR_MIN) -> None:
        """`vector_min`: from so many machines on costs are computed by `fragment`; the answers are the
        same."""
        self.version = 0
        self._vector_min = vector_min
        self._machines: dict[str, Machine] = {}  # by index and id, once `_order` has run
        self._rooms: dict[str, Room] = {}
        self._kind: dict[str, Kind] = {}
        self._kinds: dict[tuple[object, ...], Kind] = {}
        self._on: dict[str, dict[str, None]] = {}  # who holds something on a machine
        self._own: set[str] = set()  # machines of which no copy shares that
        self._holdings: dict[str, _Holding] = {}
        self._domains = Domains()
        self._journal: list[tuple[str, _Holding, bool]] = []  # holder, what, whether it was taken
        self._marks: list[tuple[int, int, int]] = []  # lengths of journal and gains, version
        self._gains: list[tuple[int, int, str]] = []  # version, floor, machine: see `gained`
        self._gains_from = 0  # before this version it is not known what was gained
        self._freed: dict[str, None] = {}  # see `_freed_since`
        self._freed_asked = (0, 0, 0)
        self._sorted = True
        self._last: tuple[int, str] = FIRST
        self._sheet: Sheet | Grid | None = None  # made when it is needed
        self._arranged: Layout | None = None
        self._empty: Inventory | None = None
        self._groups: tuple[str, ...] | None = None
        self._free_for: dict[Need, tuple[int, Free]] = {}
        self._nevers: dict[object, Nearest | None] = {}
        self._demand = Demand()
        for machine in machines:
            self.put(machine)

    # Machines

    def machines(self) -> Mapping[str, Machine]:
        """By id, in the order of index and id."""
        self._order()
        return self._machines

    def put(self, machine: Machine) -> None:
        """A new machine, or a changed one: what is taken stays taken. Raises ArgosyError when its domains
        contradict others."""
        old = self._machines.get(machine.id)
        if old == machine:
            return
        self._domains.check(machine, old)
        if old is not None:
            self._domains.remove(old)
        self._domains.add(machine)
        key = kind_key(machine)
        kind = self._kinds.get(key)
        if kind is None:
            kind = self._kinds[key] = Kind(len(self._kinds), machine)
        self._machines[machine.id] = machine
        self._kind[machine.id] = kind
        room = kind.empty(machine)
        for holder in self._on.setdefault(machine.id, {}):
            holding = self._holdings[holder]
            for placement in holding.placements:
                if placement.node_id == machine.id:
                    room = plain.taken(kind, room, *held_by(placement, kind, holding.need))
        self._rooms[machine.id] = room
        place = (machine.index, machine.id)
        if old is None and place > self._last:
            self._last = place
            if self._sheet is not None and not self._sheet.add(machine.id, kind, room):
                self._sheet = None
        elif old is None or old.index != machine.index:
            self._sorted = False
            self._sheet = None
        elif self._sheet is not None and not self._sheet.set_kind(self._sheet.row_of[machine.id], kind, room):
            self._sheet = None
        self._set_changed(machine.id)

    def drop(self, machine_id: str) -> None:
        """Remove a machine. Allocations on it are kept, and valid again if it returns."""
        machine = self._machines.pop(machine_id, None)
        if machine is None:
            return
        self._domains.remove(machine)
        del self._kind[machine_id], self._rooms[machine_id]
        self._sheet = None
        self._set_changed("")

    def _set_changed(self, machine_id: str) -> None:
        self._arranged = None
        self._empty = None
        self._groups = None
        self._nevers = {}  # copies may know those of the machines as they were
        self.version += 1
        if machine_id:
            self._gains.append((self.version, PUT, machine_id))

    def _order(self) -> None:
        """Machines by index and id."""
        if not self._sorted:
            ids = sorted(self._machines, key=lambda each: (self._machines[each].index, each))
            self._machines = {each: self._machines[each] for each in ids}
            self._last = (self._machines[ids[-1]].index, ids[-1]) if ids else FIRST
            self._sorted = True

    def _rows(self) -> Sheet | Grid:
        """The rooms in rows, as the search wants them."""
        sheet = self._sheet
        if sheet is None:
            self._order()
            ids = list(self._machines)
            kinds = [self._kind[each] for each in ids]
            rooms = [self._rooms[each] for each in ids]
            if len(ids) < self._vector_min:
                sheet = Sheet(ids, kinds, rooms, self._typical)
            else:
                from argosy.scheduler.fragment import Grid

                sheet = Grid(ids, kinds, rooms, self._typical)
            self._sheet = sheet
        return sheet

    def _layout(self) -> Layout:
        if self._arranged is None:
            self._order()
            self._arranged = Layout([machine.domains for machine in self._machines.values()])
        return self._arranged

    def _holders(self, machine_id: str) -> dict[str, None]:
        """Who holds something on a machine, to be changed."""
        if machine_id not in self._own:
            self._on[machine_id] = dict(self._on[machine_id])
            self._own.add(machine_id)
        return self._on[machine_id]

    def _set_room(self, machine_id: str, room: Room) -> None:
        self._rooms[machine_id] = room
        sheet = self._sheet
        if sheet is not None:
            sheet.set(sheet.row_of[machine_id], room)
        self.version += 1

    # Takes and gives

    def take(self, holder: str, need: Need, placements: Sequence[Placement]) -> None:
        """Raises OverCommitted when anything of it is not free; then nothing was taken."""
        if holder in self._holdings:
            raise OverCommitted(f"{holder} already holds a part of the pool")
        rooms: dict[str, Room] = {}
        for placement in placements:
            machine_id = placement.node_id
            kind = self._kind.get(machine_id)
            if kind is None:
                raise OverCommitted(f"there is no machine {machine_id}")
            room = rooms.get(machine_id) or self._rooms[machine_id]
            held = held_by(placement, kind, need)
            why = plain.over_committed(machine_id, kind, room, placement, held)
            if why:
                raise OverCommitted(why)
            rooms[machine_id] = plain.taken(kind, room, *held)
        holding = _Holding(need, tuple(placements))
        self._holdings[holder] = holding
        for machine_id, room in rooms.items():
            self._holders(machine_id)[holder] = None
            self._set_room(machine_id, room)
        self._demand.remember(need, len(placements))
        if self._marks:
            self._journal.append((holder, holding, True))

    def give(self, holder: str) -> None:
        """Free everything that the holder has. Absent is fine."""
        holding = self._holdings.pop(holder, None)
        if holding is None:
            return
        for machine_id in self._put_back(holder, holding):
            self._gains.append((self.version, -1, machine_id))
        if self._marks:
            self._journal.append((holder, holding, False))
        elif len(self._gains) > GAINS_MAX:
            self._shorten()

    def _put_back(self, holder: str, holding: _Holding) -> list[str]:
        """The machines on which something is free now."""
        freed = []
        for placement in holding.placements:
            machine_id = placement.node_id
            self._holders(machine_id).pop(holder, None)
            kind = self._kind.get(machine_id)
            if kind is None:
                continue  # the machine is gone, and what was held there with it
            held = held_by(placement, kind, holding.need)
            self._set_room(machine_id, plain.given(kind, self._rooms[machine_id], *held))
            freed.append(machine_id)
        return freed

    def holding(self, holder: str) -> tuple[Placement, ...] | None:
        holding = self._holdings.get(holder)
        return None if holding is None else holding.placements

    def holders(self, machine_id: str) -> Collection[str]:
        """Who holds something on a machine."""
        return self._on.get(machine_id, {}).keys()

    def kind_and_room(self, machine_id: str) -> tuple[Kind, Room]:
        """What a machine is, and what is free on it."""
        return self._kind[machine_id], self._rooms[machine_id]

    def groups(self) -> tuple[str, ...]:
        """The resource groups that machines belong to, by name."""
        if self._groups is None:
            machines = self._machines.values()
            self._groups = tuple(sorted({group for machine in machines for group in machine.groups}))
        return self._groups

    def free_for(self, need: Need) -> Free:
        """What the open machines that suit a need have left; kept until something changes."""
        version, found = self._free_for.get(need, (-1, None))
        if found is None or version != self.version:
            found = add_up(self, need)
            self._free_for[need] = self.version, found
        return found

    def spare(self, machine_id: str) -> tuple[int, int, int]:
        """Free milli-CPU, bytes and milli-GPU of a machine, as sums: what fits has no more than that."""
        room = self._rooms[machine_id]
        return room.cpus, room.memory, sum(room.left)

    def hosts(self, machine_id: str, need: Need, most: int, without: Iterable[str] = ()) -> int:
        """How many ranks, up to `most`, a machine could host if these holders were gone."""
        kind, room = self._kind[machine_id], self._rooms[machine_id]
        for holder in without:
            holding = self._holdings.get(holder)
            for placement in () if holding is None else holding.placements:
                if holding is not None and placement.node_id == machine_id:
                    room = plain.given(kind, room, *held_by(placement, kind, holding.need))
        if most == 1:
            return plain.pick(self._typical, need, kind.way(need), kind, room) is not None
        return min(most, plain.count(need, kind.way(need), kind, room))

    def grid(self) -> Grid | None:
        """The rooms as arrays; None in a small pool."""
        sheet = self._rows()
        return None if isinstance(sheet, Sheet) else sheet

    def hosting(self, need: Need, most: int) -> dict[str, int]:
        """The machines that could host a rank now, and how many up to `most`."""
        return self._rows().hosting(need, most)

    def hosting_by_sums(self, need: Need, most: int) -> dict[str, int]:
        """The same by the sums of what is free on each machine: more than really fit."""
        return self._rows().hosting_by_sums(need, most)

    def models_on(self, machine_id: str) -> Mapping[int, str]:
        """The models of a machine's devices by index; of one that is gone none."""
        kind = self._kind.get(machine_id)
        return {} if kind is None else kind.models

    def suits(self, machine_id: str, need: Need) -> bool:
        """Whether a machine could host a rank in some state."""
        kind = self._kind.get(machine_id)
        return kind is not None and not kind.way(need).why

    def could_ever(self, need: Need, num_nodes: int) -> bool:
        """Whether so many ranks would fit if nothing ran, by the sums of each open machine. O(machines)."""
        left = num_nodes
        for machine_id, machine in self._machines.items():
            if self.suits(machine_id, need):
                most = left
                if need.cpus_milli:
                    most = min(most, machine.cpus_milli // need.cpus_milli)
                if need.memory_bytes:
                    most = min(most, machine.memory_bytes // need.memory_bytes)
                if need.gpu_milli:
                    most = min(most, len(machine.devices) * WHOLE_MILLI // need.gpu_milli)
                left -= max(0, most)
                if left <= 0:
                    return True
        return False

    # Transactions

    def mark(self) -> int:
        """Opens a transaction; they nest."""
        self._marks.append((len(self._journal), len(self._gains), self.version))
        return len(self._marks) - 1

    def rollback(self, mark: int) -> None:
        """Undo every take and give since, and close the transaction with those inside it."""
        journal, gains, version = self._marks[mark]
        del self._marks[mark:]
        undone = self._journal[journal:]
        del self._journal[journal:]
        freed: dict[str, None] = {}
        for holder, holding, was_taken in reversed(undone):
            if was_taken:
                del self._holdings[holder]
                freed.update(dict.fromkeys(self._put_back(holder, holding)))
                self._demand.remember(holding.need, -len(holding.placements))
            else:
                self._holdings[holder] = holding
                for placement in holding.placements:
                    machine_id = placement.node_id
                    self._holders(machine_id)[holder] = None
                    kind = self._kind.get(machine_id)
                    if kind is not None:
                        held = held_by(placement, kind, holding.need)
                        self._set_room(machine_id, plain.taken(kind, self._rooms[machine_id], *held))
        # What was free at the mark is free again: that is news only for those who looked meanwhile. Machines
        # that were put are news for everybody.
        since = self._gains[gains:]
        freed.update((machine_id, None) for _, _, machine_id in since)
        self._gains[gains:] = [each for each in since if each[1] == PUT]
        self._gains += ((self.version, version, machine_id) for machine_id in freed)

    def settle(self) -> None:
        """Keep all changes and close all transactions."""
        self._marks.clear()
        self._journal.clear()
        if len(self._gains) > GAINS_MAX:
            self._shorten()

    def _shorten(self) -> None:
        cut = len(self._gains) // 2
        self._gains_from = self._gains[cut][0]
        del self._gains[: cut + 1]

    def gained(self, need: Need, version: int) -> bool:
        """Whether something that one rank of `need` could use may have become free since `version`."""
        if version < self._gains_from:
            return True
        freed = self._freed_since(version)
        if len(freed) > GAINS_FEW and self._sheet is not None:
            row_of = self._sheet.row_of
            return self._sheet.fits_any(need, [row_of[each] for each in freed if each in row_of])
        for machine_id in freed:
            kind = self._kind.get(machine_id)
            if kind is None:
                continue
            if plain.pick(self._typical, need, kind.way(need), kind, self._rooms[machine_id]) is not None:
                return True
        return False

    def _freed_since(self, version: int) -> Collection[str]:
        """Machines on which something has become free; some may be gone. Classes that were looked at one
        after the other ask about the same changes, so the last answer is kept."""
        gains = self._gains
        at = bisect_right(gains, version, key=_when)
        if at == len(gains):
            return ()
        asked = (at, len(gains), gains[-1][0])
        if asked != self._freed_asked:
            news = gains[at:]
            if any(floor >= 0 for _, floor, _ in news):  # it depends on when somebody looked
                return {machine_id: None for _, floor, machine_id in news if version > floor}
            self._freed_asked, self._freed = asked, {machine_id: None for _, _, machine_id in news}
        return self._freed

    def copy(self) -> Inventory:
        """A twin for what-ifs: its own books, outside of all transactions; costs that are known are
        shared."""
        self._order()
        other = Inventory(vector_min=self._vector_min)
        other.version = self.version
        other._machines = dict(self._machines)
        other._rooms = dict(self._rooms)
        other._kind = dict(self._kind)
        other._kinds = self._kinds  # what is true of kinds is true of them everywhere
        other._on = dict(self._on)
        self._own.clear()
        other._holdings = dict(self._holdings)
        other._domains = self._domains.copy()
        other._gains = list(self._gains)
        other._gains_from = self._gains_from
        other._last = self._last
        other._sheet = None if self._sheet is None else self._sheet.copy()
        other._arranged = self._arranged
        other._demand = self._demand.copy()
        # What follows from the machines alone:
        other._empty, other._nevers, other._groups = self._empty, self._nevers, self._groups
        return other

    # Places

    def find(
        self, ask: Ask, *, within: Inventory | None = None, caps: Mapping[str, int] | None = None
    ) -> tuple[Placement, ...] | None:
        """Where all ranks of the first candidate that fits would go; None when none does. Takes nothing.

        `within`: another view of the same machines (a later time) in which the same places must be free, too.
        `caps`: of some models so many milli-GPU at most.
        """
        if self._demand.is_due and self._demand.follow(self._kind.values()):
            self._rejudge()
        for need in ask.needs:
            found = Search(self, ask, need, within, caps).run()
            if found is not None:
                return found
        return None

    # What is typical

    @property
    def _typical(self) -> Typical:
        return self._demand.typical

    def weigh(self, needs: Sequence[tuple[Need, int]]) -> None:
        """Set the pending needs with their counts: half of what the score counts as typical."""
        self._demand.wait(needs)
        if self._demand.judge(self._kind.values()):
            self._rejudge()

    def _rejudge(self) -> None:
        if self._sheet is not None:
            self._sheet.typical = self._typical

    # Amounts

    def capacity(self) -> Amounts:
        """All that open and closed machines have, by the names of `model.tenancy`."""
        return self._amounts(None)

    def free(self) -> Amounts:
        return self._amounts(self._rooms)

    def _amounts(self, rooms: Mapping[str, Room] | None) -> Amounts:
        amounts: Amounts = {"cpus": 0, "memory": 0, "gpus": 0}
        for machine_id, machine in self._machines.items():
            kind = self._kind[machine_id]
            room = rooms[machine_id] if rooms is not None else None
            amounts["cpus"] += machine.cpus_milli if room is None else room.cpus
            amounts["memory"] += machine.memory_bytes if room is None else room.memory
            for position, device in enumerate(kind.devices):
                if device.index in kind.parents:
                    continue  # its instances are counted
                milli = WHOLE_MILLI if room is None else room.left[position]
                if device.mig_profile:
                    parent = next((d for d in kind.devices if d.index == device.mig_parent), None)
                    milli = milli * instance_milli(device, parent) // WHOLE_MILLI
                amounts["gpus"] += milli
                key = f"gpus/{device.model}"
                amounts[key] = amounts.get(key, 0) + milli
        return amounts

    # Words

    def never(self, ask: Ask) -> Nearest | None:
        """Why no state of these machines could hold the ask, with the nearest machine and what it lacks.
        None: some state could."""
        key = (ask.needs, ask.num_nodes, ask.required, ask.spread)
        if key not in self._nevers:
            if self._empty is None:
                self._empty = Inventory(
                    msgspec.structs.replace(each, open=True) for each in self._machines.values()
                )
            self._nevers[key] = find_nearest(self._empty, ask)
        return self._nevers[key]

    def why_not(self, ask: Ask) -> Why:
        """Why `find` gives None now. Codes: capacity, fragmented, topology, isolation, group."""
        return find_why(self, ask)


def _when(gain: tuple[int, int, str]) -> int:
    return gain[0]


def need_of(ask: Ask, placements: Sequence[Placement]) -> Need:
    """Which of the ask's candidates the placements serve."""
    return served_need(ask.needs, placements)


def served_need(needs: Sequence[Need], placements: Sequence[Placement]) -> Need:
    """Which of the candidates the placements serve: the first with their amounts. Where nothing is known of
    the placements, the first candidate."""
    if not placements:
        return needs[0]
    first = placements[0]
    milli = sum(share.milli for share in first.devices)
    for need in needs:
        if (need.cpus_milli, need.memory_bytes) != (first.cpus_milli, first.memory_bytes):
            continue
        divided = any(share.mechanism == "mig" for share in first.devices)
        if milli == need.gpu_milli or (divided and 0 < need.gpu_milli < WHOLE_MILLI):
            return need
    return needs[0]


__all__ = ["Inventory", "Nearest", "OverCommitted", "Why", "need_of", "served_need", "typical_of"]
