"""What a place is worth, one machine at a time: the definition, and what small pools use.

The score begins with the fragmentation gradient of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023),
exact in integers. With typical needs m of weight p (in millionths), what a machine can still be used for is

    V = sum over m that its CPUs and memory can host of p x (milli of those devices that have at least m's
    part free) S = devices that would be idle for want of CPUs, if typical needs came in their usual
    proportion, at their full weight cost of a place = (V before - V after) + (S after - S before) + what is
    free on the machine at a small rate

A typical need that few machines could host weighs more, by as much as they are few (at most tenfold), so
scarce models are kept for who insists on them. V sees one step ahead: a machine with four free devices and
CPUs for one more need counts as usable. S looks at all of them at once, so CPUs are taken first where they
are left over; it is worth half a point of allocation. The last term is best-fit. Needs without devices add
the same everywhere and drop out. The cheapest place wins, then the machine that comes first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from argosy.model.facts import Device
from argosy.model.offer import DeviceShare, Placement
from argosy.scheduler.ask import WHOLE_MILLI, Need
from argosy.scheduler.devices import Kind, Room, Use, Way, counting, lock_of, may_join, mig_bits, mig_start

WEIGHT: Final = 1_000_000  # sum of the weights of typical needs
TYPES_MAX: Final = 64
TYPICAL_PERCENT: Final = 95  # of what is asked for makes the typical needs
COUNT_MAX: Final = 1 << 20  # ranks on one machine
SCARCITY_MAX: Final = 10
DEVICES_MAX: Final = 32  # devices of one machine that the table of whole ones counts

# The best-fit term, per milli-device and per milli-CPU that stays free on the machine: lambda x (0.5/8
# devices + 0.5/128 CPUs) of the study, with lambda = 50 milli-devices.
LEFT_RATE: Final = 50 * WEIGHT // (2 * 8 * 1000)
CPU_RATE: Final = 50 * WEIGHT // (2 * 128 * 1000)

NEVER: Final = 1 << 62  # the cost of a place that does not fit
CLASSES_MAX: Final = (
    4_000_000  # costs kept, over all classes of equal needs; those that were not used for longest go
)

Mask = int


class Table:
    """For one set of typical needs that can be hosted: worth per milli of a device in part use by its level,
    and of untouched ones by their number."""

    __slots__ = ("levels", "whole")

    def __init__(self, levels: tuple[int, ...], whole: tuple[int, ...]) -> None:
        self.levels = levels
        self.whole = whole


class Typical:
    """The needs that the score keeps places for."""

    def __init__(self, weights: Mapping[Need, int], kinds: Mapping[Kind, int] | None = None) -> None:
        """`weights` in any unit; `kinds`: how many devices there are of each kind of machine."""
        total = sum(weights.values())
        chosen: list[tuple[Need, int]] = []
        seen = 0
        for need, weight in sorted(weights.items(), key=lambda each: (-each[1], rank_key(each[0]))):
            if seen * 100 >= total * TYPICAL_PERCENT or len(chosen) == TYPES_MAX:
                break
            seen += weight
            chosen.append((need, weight))
        self.types = tuple(
            (need, weight * WEIGHT // seen * _scarcity_percent(need, kinds or {}) // 100)
            for need, weight in chosen
            if need.gpu_milli and weight
        )
        parts = sorted({n.gpu_milli for n, _ in self.types if n.gpu_milli < WHOLE_MILLI})
        self.parts = tuple(parts)
        # By the milli that are left; untouched devices have a level of their own, where nothing counts: they
        # count by their number.
        self.level_of = (*(bisect_right(parts, left) for left in range(WHOLE_MILLI)), len(parts) + 1)
        self.cpus = tuple(sorted({n.cpus_milli for n, _ in self.types}))
        self.memory = tuple(sorted({n.memory_bytes for n, _ in self.types}))
        self.cpu_masks = self._masks(self.cpus, [n.cpus_milli for n, _ in self.types])
        self.memory_masks = self._masks(self.memory, [n.memory_bytes for n, _ in self.types])
        devices = sum(weight * need.gpu_milli for need, weight in self.types)
        self.cpus_per_device = WHOLE_MILLI * sum(w * n.cpus_milli for n, w in self.types) // max(1, devices)
        self.short_rate = WEIGHT * WHOLE_MILLI // max(1, self.cpus_per_device)
        self._by_kind: dict[int, Mask] = {}
        self._tables: dict[Mask, Table] = {}

    @staticmethod
    def _masks(steps: tuple[int, ...], amounts: list[int]) -> tuple[Mask, ...]:
        """By the number of steps that are reached: the types that ask for no more."""
        return (0, *(sum(1 << i for i, amount in enumerate(amounts) if amount <= step) for step in steps))

    def mask(self, kind: Kind) -> Mask:
        """The types that machines of a kind could ever host."""
        found = self._by_kind.get(kind.id)
        if found is None:
            found = sum(1 << i for i, (need, _) in enumerate(self.types) if not kind.way(need).why)
            self._by_kind[kind.id] = found
        return found

    def table(self, mask: Mask) -> Table:
        found = self._tables.get(mask)
        if found is None:
            hosted = [each for i, each in enumerate(self.types) if mask >> i & 1]
            partly = [(need.gpu_milli, weight) for need, weight in hosted if need.gpu_milli < WHOLE_MILLI]
            levels = [
                sum(weight for milli, weight in partly if milli in self.parts[:reached])
                for reached in range(len(self.parts) + 1)
            ]
            whole = tuple(
                n
                * WHOLE_MILLI
                * (
                    levels[-1]
                    + sum(w for need, w in hosted if WHOLE_MILLI <= need.gpu_milli <= n * WHOLE_MILLI)
                )
                for n in range(DEVICES_MAX + 1)
            )
            found = self._tables[mask] = Table((*levels, 0), whole)
        return found

    def table_at(self, kind: Kind, cpus: int, memory: int) -> Table:
        hosted = self._by_kind.get(kind.id)
        mask = (
            (self.mask(kind) if hosted is None else hosted)
            & self.cpu_masks[bisect_right(self.cpus, cpus)]
            & self.memory_masks[bisect_right(self.memory, memory)]
        )
        return self._tables.get(mask) or self.table(mask)

    def short(self, total: int, cpus: int) -> int:
        """S of a machine with `total` milli of devices and so many CPUs free."""
        lack = total * self.cpus_per_device // WHOLE_MILLI - cpus
        return lack * self.short_rate if lack > 0 else 0

    def before(self, kind: Kind, room: Room) -> int:
        """V - S of a machine as it is, and the best-fit term."""
        if room.judge is not self:
            worth = self._worth(kind, room) if room.total else 0
            room.judge, room.before = self, worth + rest(room) - self.short(room.total, room.cpus)
        return room.before

    def _worth(self, kind: Kind, room: Room) -> int:
        """V of a machine."""
        table = self.table_at(kind, room.cpus, room.memory)
        levels, level_of = table.levels, self.level_of
        worth = table.whole[room.whole if room.whole <= DEVICES_MAX else DEVICES_MAX]
        for left in room.mixed:
            worth += left * levels[level_of[left]]
        return worth


def _scarcity_percent(need: Need, kinds: Mapping[Kind, int]) -> int:
    """How much more a device matters to a need that few can host: all devices over those of machines that
    could, at most tenfold. A need that insists on one model of ten is hurt ten times as often by who takes
    one of those."""
    hosting = sum(devices for kind, devices in kinds.items() if not kind.way(need).why)
    if not hosting:
        return 100
    return min(100 * SCARCITY_MAX, 100 * sum(kinds.values()) // hosting)


def rank_key(need: Need) -> tuple[object, ...]:
    """An order of needs that depends on nothing but themselves."""
    return (
        need.gpu_milli,
        need.cpus_milli,
        need.memory_bytes,
        need.models,
        need.gpu_memory_bytes,
        need.arch,
        need.labels,
        need.tolerations,
        need.groups,
        need.only_group,
        need.isolation,
        need.tenant,
        need.open,
    )


def class_of(need: Need) -> Need:
    """The need without what makes no difference to where it fits: tenants matter only to those who share a
    device."""
    if (need.tenant or need.open) and not 0 < need.gpu_milli < WHOLE_MILLI:
        return msgspec.structs.replace(need, tenant="", open=False)
    return need


def rest(room: Room) -> int:
    """The best-fit term: what is free, at its rate."""
    return LEFT_RATE * room.total + CPU_RATE * room.cpus


Pick = tuple[int, int]  # cost; position of the device of a fraction, -1: whole devices, or none


def pick(
    typical: Typical, need: Need, way: Way, kind: Kind, room: Room, also: Room | None = None
) -> Pick | None:
    """The best place for one rank on a machine, or None. `also`: another room of the same machine that must
    have it, too."""
    cpus = room.cpus - need.cpus_milli
    memory = room.memory - need.memory_bytes
    if cpus < 0 or memory < 0 or way.why:
        return None
    if also is not None and (also.cpus < need.cpus_milli or also.memory < need.memory_bytes):
        return None
    if way.milli:
        return _pick_part(typical, need, way, kind, room, also, cpus, memory)
    if way.count:
        left = room.left
        free = 0
        if also is None and way.every:
            free = room.whole
        else:
            for p in way.positions:
                if left[p] == WHOLE_MILLI and (also is None or also.left[p] == WHOLE_MILLI):
                    free += 1
        if free < way.count:
            return None
    total = room.total
    before = room.before if room.judge is typical else typical.before(kind, room)
    if not total:
        return before, -1
    table = typical.table_at(kind, cpus, memory)
    levels, level_of = table.levels, typical.level_of
    whole = (
        room.whole - way.count if way.count < room.whole else 0
    )  # instances that are asked for by name do not count
    after = table.whole[whole if whole <= DEVICES_MAX else DEVICES_MAX]
    for each in room.mixed:
        after += each * levels[level_of[each]]
    return before - after + typical.short(total - way.count * WHOLE_MILLI, cpus), -1


def _pick_part(
    typical: Typical, need: Need, way: Way, kind: Kind, room: Room, also: Room | None, cpus: int, memory: int
) -> Pick | None:
    left, total = room.left, room.total
    table = typical.table_at(kind, cpus, memory)
    levels, level_of = table.levels, typical.level_of
    whole = room.whole if room.whole <= DEVICES_MAX else DEVICES_MAX
    after = table.whole[whole]
    for each in room.mixed:
        after += each * levels[level_of[each]]
    cost = typical.before(kind, room) - after
    for position in way.instances:  # an instance that exists is outside of the score: its size is its merit
        if left[position] == WHOLE_MILLI and (also is None or also.left[position] == WHOLE_MILLI):
            return cost + typical.short(total, cpus), position
    best_loss, best_free, best = NEVER, 0, -1
    broken = table.whole[whole] - table.whole[whole - 1] if whole else 0
    seen = 0  # milli of the last untouched device: the next one is worth the same
    simple = also is None and way.profile is None
    for position in way.positions:
        free = left[position]
        if free < way.milli or (simple and free == seen):
            continue
        milli = way.milli
        if not simple or room.locks[position] is not None:
            milli = part_milli(way, room, also, position, need)
            if not milli:
                continue
        after_milli = free - milli
        loss = free * levels[level_of[free]] - after_milli * levels[level_of[after_milli]]
        if free == WHOLE_MILLI:
            seen = free
            loss += broken
        if loss < best_loss or (loss == best_loss and free < best_free):
            best_loss, best_free, best = loss, free, position
    if best < 0:
        return None
    return cost + best_loss + typical.short(total - part_size(way), cpus), best


def part_size(way: Way) -> int:
    """What a fraction takes of a card: a MIG instance may be larger than what was asked for."""
    if way.profile is None or way.card is None:
        return way.milli
    return way.profile.slices * WHOLE_MILLI // way.card[0]


def count(need: Need, way: Way, kind: Kind, room: Room) -> int:
    """How many ranks a machine could host, however many those are."""
    if way.why:
        return 0
    most = COUNT_MAX
    if need.cpus_milli:
        most = min(most, room.cpus // need.cpus_milli)
    if need.memory_bytes:
        most = min(most, room.memory // need.memory_bytes)
    if most <= 0 or room.cpus < 0 or room.memory < 0:
        return 0
    if way.count:
        return min(most, sum(room.left[p] == WHOLE_MILLI for p in way.positions) // way.count)
    if not way.milli:
        return most
    places = sum(room.left[p] == WHOLE_MILLI for p in way.instances)
    for position in way.positions:
        if way.profile is None or way.card is None:
            if part_milli(way, room, None, position, need):
                places += room.left[position] // way.milli
            continue
        lock, slots = room.locks[position], room.slots[position]
        if lock is None or lock[0] == "mig":
            while (start := mig_start(way.card, way.profile, slots)) >= 0:
                slots |= mig_bits(way.profile, start)
                places += 1
    return min(most, places)


def part_milli(way: Way, room: Room, also: Room | None, position: int, need: Need) -> int:
    """What a fraction takes of the device at `position`; 0 when it cannot go there."""
    free = room.left[position]
    if way.profile is not None and way.card is not None:
        lock = room.locks[position]
        if lock is not None and lock[0] != "mig":
            return 0
        taken = room.slots[position]
        if also is not None:
            other = also.locks[position]
            if other is not None and other[0] != "mig":
                return 0
            taken |= also.slots[position]
        if mig_start(way.card, way.profile, taken) < 0:
            return 0
        return way.profile.slices * WHOLE_MILLI // way.card[0]
    if free < way.milli or not may_join(
        room.locks[position], way.mechanism, way.milli, need.tenant, need.open
    ):
        return 0
    if also is not None:
        if also.left[position] < way.milli:
            return 0
        if not may_join(also.locks[position], way.mechanism, way.milli, need.tenant, need.open):
            return 0
        ours, theirs = room.locks[position], also.locks[position]
        if ours is not None and theirs is not None and ours[0] != theirs[0]:
            return 0
    return way.milli


def shares(way: Way, kind: Kind, room: Room, also: Room | None, position: int) -> tuple[DeviceShare, ...]:
    """The devices of a pick, as a placement names them."""
    if position < 0:
        if not way.count:
            return ()
        free = tuple(
            [
                p
                for p in way.positions
                if room.left[p] == WHOLE_MILLI and (also is None or also.left[p] == WHOLE_MILLI)
            ]
        )
        return tuple(
            [
                DeviceShare(index=kind.devices[p].index, milli=WHOLE_MILLI)
                for p in kind.topology.best(free, way.count)
            ]
        )
    if room.left[position] == WHOLE_MILLI and way.profile is None and position not in way.instances:
        untouched = tuple(
            p
            for p in way.positions
            if room.left[p] == WHOLE_MILLI and (also is None or also.left[p] == WHOLE_MILLI)
        )
        if untouched:  # else others use a part of it in the other view, and it may be joined
            position = kind.topology.best(untouched, 1)[0]
    device = kind.devices[position]
    if device.mig_profile:
        return (
            DeviceShare(
                index=device.index,
                milli=WHOLE_MILLI,
                mechanism="mig",
                memory_bytes=device.memory_bytes,
                profile=device.mig_profile,
                slot=device.mig_slots[0],
            ),
        )
    if way.profile is not None and way.card is not None:
        taken = room.slots[position] | (also.slots[position] if also is not None else 0)
        return (
            DeviceShare(
                index=device.index,
                milli=way.profile.slices * WHOLE_MILLI // way.card[0],
                mechanism="mig",
                memory_bytes=device.memory_bytes * way.profile.slices // way.card[0],
                profile=way.profile.name,
                slot=mig_start(way.card, way.profile, taken),
            ),
        )
    there = room.locks[position] or (also.locks[position] if also is not None else None)
    return (
        DeviceShare(
            index=device.index,
            milli=way.milli,
            mechanism=there[0] if there is not None else way.mechanism,
            memory_bytes=device.memory_bytes * way.milli // WHOLE_MILLI,
        ),
    )


def taken(kind: Kind, room: Room, cpus: int, memory: int, uses: Iterable[tuple[int, Use]]) -> Room:
    """The room after a take; amounts may become negative, the caller checks."""
    return _changed(kind, room, -cpus, -memory, uses, ())


def given(kind: Kind, room: Room, cpus: int, memory: int, uses: Iterable[tuple[int, Use]]) -> Room:
    return _changed(kind, room, cpus, memory, (), uses)


def _changed(
    kind: Kind,
    room: Room,
    cpus: int,
    memory: int,
    more: Iterable[tuple[int, Use]],
    fewer: Iterable[tuple[int, Use]],
) -> Room:
    if not more and not fewer:
        return Room(
            room.cpus + cpus,
            room.memory + memory,
            room.left,
            room.locks,
            room.uses,
            room.slots,
            room.total,
            room.whole,
            room.mixed,
        )
    left, locks, held, slots = list(room.left), list(room.locks), list(room.uses), list(room.slots)
    for position, use in more:
        uses = held[position] = (*held[position], use)
        left[position] -= use[0]
        slots[position] |= use[5]
        locks[position] = lock_of(uses)
    for position, use in fewer:
        there = list(held[position])
        there.remove(use)
        uses = held[position] = tuple(there)
        left[position] += use[0]
        bits = 0
        for other in uses:
            bits |= other[5]
        slots[position] = bits
        locks[position] = lock_of(uses)
    counted = left if len(kind.counted) == len(left) else [left[position] for position in kind.counted]
    return Room(
        room.cpus + cpus,
        room.memory + memory,
        tuple(left),
        tuple(locks),
        tuple(held),
        tuple(slots),
        *counting(counted),
    )


def over_committed(
    machine_id: str,
    kind: Kind,
    room: Room,
    placement: Placement,
    held: tuple[int, int, tuple[tuple[int, Use], ...]],
) -> str:
    """Why a machine cannot take a placement; "" when it can."""
    cpus, memory, uses = held
    if cpus < 0 or memory < 0 or room.cpus < cpus > 0 or room.memory < memory > 0:
        return f"{machine_id} has {room.cpus} milli-CPU and {room.memory} bytes free, {cpus} and {memory} are taken"  # noqa: E501
    if len(uses) < len(placement.devices):
        return f"{machine_id} lacks a device of {sorted(share.index for share in placement.devices)}"
    if len(uses) > 1 and len({position for position, _ in uses}) < len(uses):
        return f"a device of {machine_id} is named twice"
    for position, use in uses:
        why = _over_shared(kind.devices[position], room, position, use)
        if why:
            return f"device {kind.devices[position].index} of {machine_id} {why}"
    return ""


def _over_shared(device: Device, room: Room, position: int, use: Use) -> str:
    milli, memory, mechanism, tenant, shared, bits = use
    if milli < 1 or room.left[position] < milli:
        return f"has {room.left[position]} milli free, {milli} are taken"
    lock = room.locks[position]
    if lock is None:
        return ""
    if lock[0] != mechanism:
        return f"is shared by `{lock[0] or 'turns'}`, not by `{mechanism or 'turns'}`"
    if mechanism == "mig":
        if room.slots[position] & bits:
            return "has no such MIG slices left"
    elif lock[1] != tenant and not (lock[2] and shared):
        return "is shared by another tenant"
    if sum(each[1] for each in room.uses[position]) + memory > device.memory_bytes:
        return "has not so much memory left"
    return ""


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


__all__ = [
    "NEVER",
    "Pick",
    "Sheet",
    "Table",
    "Typical",
    "class_of",
    "count",
    "given",
    "over_committed",
    "part_milli",
    "pick",
    "rank_key",
    "rest",
    "shares",
    "taken",
]
