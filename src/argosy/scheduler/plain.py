"""The placement score, one machine at a time: its definition, and what small pools use.

    cost = (V before - V after) + (S after - S before) + what stays free on the machine, at a small rate

`typical` says what V and S are. The cheapest place wins, then the machine that comes first.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from argosy.model.facts import Device
from argosy.model.offer import DeviceShare, Placement
from argosy.scheduler.ask import WHOLE_MILLI, Need
from argosy.scheduler.devices import Kind, Room, Use, Way, counting, lock_of, may_join, mig_bits, mig_start
from argosy.scheduler.typical import DEVICES_MAX, Typical

COUNT_MAX: Final = 1 << 20  # ranks on one machine
NEVER: Final = 1 << 62  # the cost of a place that does not fit


def class_of(need: Need) -> Need:
    """The need without what makes no difference to where it fits: tenants matter only to those who share a
    device."""
    if (need.tenant or need.open) and not 0 < need.gpu_milli < WHOLE_MILLI:
        return msgspec.structs.replace(need, tenant="", open=False)
    return need


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


__all__ = [
    "NEVER",
    "Pick",
    "class_of",
    "count",
    "given",
    "over_committed",
    "part_milli",
    "pick",
    "shares",
    "taken",
]
