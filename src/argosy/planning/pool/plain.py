"""What a place is worth, one machine at a time: the definition, and what small pools use.

The score is the fragmentation gradient of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), exact in integers, with a best-fit
term. With typical needs m of weight p (in millionths), what a machine can still be used for is

    V = sum over m that its CPUs and memory can host of p x (milli of those devices that have at least m's part free)

and the cost of a place is V before - V after + what is left there x its rate. Fragments are what V loses; needs without devices add the
same everywhere and drop out. The cheapest place wins, then the machine that comes first.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Final

from argosy.model.offer import DeviceShare
from argosy.planning.pool.ask import WHOLE_MILLI, Machine, Need
from argosy.planning.pool.devices import (
    Kind,
    Lock,
    Room,
    Use,
    Way,
    covers,
    lock_of,
    may_join,
    mig_bits,
    mig_start,
)

WEIGHT: Final = 1_000_000  # sum of the weights of typical needs
TYPES_MAX: Final = 64
TYPICAL_PERCENT: Final = 95  # of what is asked for makes the typical needs
DEVICES_MAX: Final = 32  # devices of one machine that the table of whole ones counts

# The best-fit term, per milli-device and per milli-CPU that stays free on the machine: lambda x (0.5/8 devices + 0.5/128 CPUs) of the
# study, with lambda = 50 milli-devices.
LEFT_RATE: Final = 50 * WEIGHT // (2 * 8 * 1000)
CPU_RATE: Final = 50 * WEIGHT // (2 * 128 * 1000)

Mask = int


class Table:
    """For one set of typical needs that can be hosted: worth per milli of a device by its level, and of whole devices by their number."""

    __slots__ = ("levels", "whole")

    def __init__(self, levels: tuple[int, ...], whole: tuple[int, ...]) -> None:
        self.levels = levels
        self.whole = whole


class Typical:
    """The needs that the score keeps places for."""

    def __init__(self, weights: Mapping[Need, int], version: int = 0) -> None:
        """`weights` in any unit."""
        self.version = version
        total = sum(weights.values())
        chosen: list[tuple[Need, int]] = []
        seen = 0
        for need, weight in sorted(weights.items(), key=lambda each: (-each[1], rank_key(each[0]))):
            if seen * 100 >= total * TYPICAL_PERCENT or len(chosen) == TYPES_MAX:
                break
            seen += weight
            chosen.append((need, weight))
        self.types = tuple(
            (need, weight * WEIGHT // seen) for need, weight in chosen if need.gpu_milli and weight
        )
        parts = sorted({n.gpu_milli for n, _ in self.types if n.gpu_milli < WHOLE_MILLI})
        self.parts = tuple(parts)
        self.level_of = tuple(bisect_right(parts, left) for left in range(WHOLE_MILLI + 1))
        self.cpus = tuple(sorted({n.cpus_milli for n, _ in self.types}))
        self.memory = tuple(sorted({n.memory_bytes for n, _ in self.types}))
        self.cpu_masks = self._masks(self.cpus, [n.cpus_milli for n, _ in self.types])
        self.memory_masks = self._masks(self.memory, [n.memory_bytes for n, _ in self.types])
        self._by_kind: dict[int, Mask] = {}
        self._tables: dict[Mask, Table] = {}

    @staticmethod
    def _masks(steps: tuple[int, ...], amounts: list[int]) -> tuple[Mask, ...]:
        """By the number of steps that are reached: the types that ask for no more."""
        return (
            0,
            *(sum(1 << i for i, amount in enumerate(amounts) if amount <= step) for step in steps),
        )

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
            levels = tuple(
                sum(w for need, w in hosted if need.gpu_milli < WHOLE_MILLI and need.gpu_milli in reached)
                for reached in (self.parts[:count] for count in range(len(self.parts) + 1))
            )
            whole = tuple(
                n
                * WHOLE_MILLI
                * sum(w for need, w in hosted if WHOLE_MILLI <= need.gpu_milli <= n * WHOLE_MILLI)
                for n in range(DEVICES_MAX + 1)
            )
            found = self._tables[mask] = Table(levels, whole)
        return found

    def table_at(self, kind: Kind, cpus: int, memory: int) -> Table:
        mask = (
            self.mask(kind)
            & self.cpu_masks[bisect_right(self.cpus, cpus)]
            & self.memory_masks[bisect_right(self.memory, memory)]
        )
        return self._tables.get(mask) or self.table(mask)

    def worth(self, kind: Kind, room: Room) -> int:
        """V of a machine."""
        if not room.total:
            return 0
        table = self.table_at(kind, room.cpus, room.memory)
        levels, level_of, left = table.levels, self.level_of, room.left
        return (
            sum(left[p] * levels[level_of[left[p]]] for p in kind.counted)
            + table.whole[min(room.whole, DEVICES_MAX)]
        )


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


Pick = tuple[int, int]  # cost; position of the device of a fraction, -1: whole devices, or none


def pick(
    typical: Typical, need: Need, way: Way, kind: Kind, room: Room, also: Room | None = None
) -> Pick | None:
    """The best place for one rank on a machine, or None. `also`: another room of the same machine that must have it, too."""
    cpus = room.cpus - need.cpus_milli
    memory = room.memory - need.memory_bytes
    if cpus < 0 or memory < 0 or way.why:
        return None
    if also is not None and (also.cpus < need.cpus_milli or also.memory < need.memory_bytes):
        return None
    if way.milli:
        return _pick_part(typical, need, way, kind, room, also, cpus, memory)
    if way.count:
        free = sum(
            room.left[p] == WHOLE_MILLI and (also is None or also.left[p] == WHOLE_MILLI)
            for p in way.positions
        )
        if free < way.count:
            return None
    if room.total:
        table = typical.table_at(kind, cpus, memory)
        levels, level_of, left = table.levels, typical.level_of, room.left
        taken = min(way.count, room.whole)  # instances that are asked for by name do not count
        after = (
            sum(left[p] * levels[level_of[left[p]]] for p in kind.counted)
            - taken * WHOLE_MILLI * levels[-1]
            + table.whole[min(room.whole - taken, DEVICES_MAX)]
        )
        before = typical.worth(kind, room)
    else:
        after = before = 0
    return before - after + LEFT_RATE * room.total + CPU_RATE * room.cpus, -1


def _pick_part(
    typical: Typical,
    need: Need,
    way: Way,
    kind: Kind,
    room: Room,
    also: Room | None,
    cpus: int,
    memory: int,
) -> Pick | None:
    left = room.left
    rest = LEFT_RATE * room.total + CPU_RATE * room.cpus
    table = typical.table_at(kind, cpus, memory)
    levels, level_of = table.levels, typical.level_of
    whole = min(room.whole, DEVICES_MAX)
    base = sum(left[p] * levels[level_of[left[p]]] for p in kind.counted) + table.whole[whole]
    before = typical.worth(kind, room)
    for position in way.instances:  # an instance that exists is outside of the score: its size is its merit
        if left[position] == WHOLE_MILLI and (also is None or also.left[position] == WHOLE_MILLI):
            return before - base + rest, position
    best: tuple[int, int, int] | None = None
    broken = table.whole[whole] - table.whole[whole - 1] if whole else 0
    for position in way.positions:
        free = left[position]
        milli = part_milli(way, room, also, position, need)
        if not milli:
            continue
        loss = free * levels[level_of[free]] - (free - milli) * levels[level_of[free - milli]]
        if free == WHOLE_MILLI and room.whole <= DEVICES_MAX:
            loss += broken
        if best is None or (loss, free) < (best[0], best[1]):
            best = (loss, free, position)
    if best is None:
        return None
    position = best[2]
    if best[1] == WHOLE_MILLI and not way.profile:
        untouched = tuple(
            p
            for p in way.positions
            if left[p] == WHOLE_MILLI and (also is None or also.left[p] == WHOLE_MILLI)
        )
        position = kind.topology.best(untouched, 1)[0]
    return before - base + best[0] + rest, position


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
            p
            for p in way.positions
            if room.left[p] == WHOLE_MILLI and (also is None or also.left[p] == WHOLE_MILLI)
        )
        return tuple(
            DeviceShare(index=kind.devices[p].index, milli=WHOLE_MILLI)
            for p in kind.topology.best(free, way.count)
        )
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
        )
    left, locks, held, slots = list(room.left), list(room.locks), list(room.uses), list(room.slots)
    for position, use in more:
        held[position] = (*held[position], use)
        _refresh(position, left, locks, held, slots)
    for position, use in fewer:
        there = list(held[position])
        there.remove(use)
        held[position] = tuple(there)
        _refresh(position, left, locks, held, slots)
    total = whole = 0
    for position in kind.counted:
        total += left[position]
        whole += left[position] == WHOLE_MILLI
    return Room(
        room.cpus + cpus,
        room.memory + memory,
        tuple(left),
        tuple(locks),
        tuple(held),
        tuple(slots),
        total,
        whole,
    )


def _refresh(
    position: int, left: list[int], locks: list[Lock | None], held: list[tuple[Use, ...]], slots: list[int]
) -> None:
    uses = held[position]
    left[position] = WHOLE_MILLI - sum(use[0] for use in uses)
    locks[position] = lock_of(uses)
    bits = 0
    for use in uses:
        bits |= use[5]
    slots[position] = bits


def over_committed(kind: Kind, machine: Machine, room: Room, position: int, use: Use) -> str:
    """Why a device cannot take one more use; "" when it can."""
    milli, memory, mechanism, tenant, shared, bits = use
    device = kind.devices[position]
    if milli < 1 or room.left[position] < milli:
        return (
            f"device {device.index} of {machine.id} has {room.left[position]} milli free, {milli} are taken"
        )
    lock = room.locks[position]
    if lock is None:
        return ""
    if lock[0] != mechanism:
        return f"device {device.index} of {machine.id} is shared by `{lock[0] or 'turns'}`, not by `{mechanism or 'turns'}`"
    if mechanism == "mig":
        if room.slots[position] & bits:
            return f"a MIG slice of device {device.index} of {machine.id} is in use"
    elif lock[1] != tenant and not (lock[2] and shared):
        return f"device {device.index} of {machine.id} is another tenant's"
    if sum(each[1] for each in room.uses[position]) + memory > device.memory_bytes:
        return f"the memory of device {device.index} of {machine.id} is given away"
    return ""


__all__ = [
    "Pick",
    "Table",
    "Typical",
    "covers",
    "given",
    "mig_bits",
    "over_committed",
    "part_milli",
    "pick",
    "rank_key",
    "shares",
    "taken",
]
