"""What a machine can still be used for, by the needs that are typical of a pool.

The fragmentation gradient of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), exact in integers.
With typical needs m of weight p (in millionths):

    V = sum over m that its CPUs and memory can host of p x (milli of those devices that have at least m's
        part free)
    S = devices that would be idle for want of CPUs, if typical needs came in their usual proportion, at their
        full weight

A typical need that few machines could host weighs more, by as much as they are few (at most tenfold), so
scarce models are kept for who insists on them. V sees one step ahead: a machine with four free devices and
CPUs for one more need counts as usable. S looks at all of them at once, so CPUs are taken first where they
are left over; it is worth half a point of allocation. The last term of a cost is best-fit. Needs without
devices add the same everywhere and drop out.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain, pairwise
from typing import Final

import msgspec

from argosy.scheduler.ask import WHOLE_MILLI, Need
from argosy.scheduler.devices import Kind, Room

WEIGHT: Final = 1_000_000  # sum of the weights of typical needs
TYPES_MAX: Final = 64
TYPICAL_PERCENT: Final = 95  # of what is asked for makes the typical needs
SCARCITY_MAX: Final = 10
DEVICES_MAX: Final = 32  # devices of one machine that the table of whole ones counts
HISTORY_MAX: Final = 8192  # placements remembered; then all weights halve

EVIDENCE_MIN: Final = 64  # requests and placements; below, as many requests for a whole device are assumed
ANY_DEVICE: Final = Need(gpu_milli=WHOLE_MILLI)

# The best-fit term, per milli-device and per milli-CPU that stays free on the machine: lambda x (0.5/8
# devices + 0.5/128 CPUs) of the study, with lambda = 50 milli-devices.
LEFT_RATE: Final = 50 * WEIGHT // (2 * 8 * 1000)
CPU_RATE: Final = 50 * WEIGHT // (2 * 128 * 1000)

Mask = int


def rest(room: Room) -> int:
    """The best-fit term: what is free, at its rate."""
    return LEFT_RATE * room.total + CPU_RATE * room.cpus


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
        # By the milli that are left: how many of the parts fit. Untouched devices have a level of their own,
        # where nothing counts: they count by their number.
        spans = pairwise((0, *parts, WHOLE_MILLI))
        levels = ((level,) * (high - low) for level, (low, high) in enumerate(spans))
        self.level_of = (*chain.from_iterable(levels), len(parts) + 1)
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


class Demand:
    """What is asked for: what waits, and what was placed before, in equal parts."""

    def __init__(self) -> None:
        self.typical = Typical({})
        self._history: dict[Need, int] = {}
        self._total = 0
        self._next = 64
        self._pending: dict[Need, int] = {}

    def copy(self) -> Demand:
        other = Demand()
        other.typical = self.typical
        other._history = dict(self._history)
        other._total, other._next = self._total, self._next
        other._pending = self._pending
        return other

    def wait(self, needs: Sequence[tuple[Need, int]]) -> None:
        """What waits, with counts."""
        pending: dict[Need, int] = {}
        for need, count in needs:
            shape = typical_of(need)
            pending[shape] = pending.get(shape, 0) + count
        self._pending = pending

    def remember(self, need: Need, count: int) -> None:
        """So many ranks were placed; less than 0: that was undone."""
        shape = typical_of(need)
        self._history[shape] = self._history.get(shape, 0) + count
        self._total += count

    @property
    def is_due(self) -> bool:
        """History has grown so much that it is worth to look at it anew."""
        return self._total >= self._next

    def follow(self, kinds: Iterable[Kind]) -> bool:
        """`judge`, and wait for more history: ever longer."""
        changed = self.judge(kinds)
        if self._total > HISTORY_MAX:
            self._history = {need: count // 2 for need, count in self._history.items() if count > 1}
            self._total = sum(self._history.values())
        self._next = min(4 * self._total, self._total + HISTORY_MAX // 2)
        return changed

    def judge(self, kinds: Iterable[Kind]) -> bool:
        """Take the typical needs anew, if they differ from those in use by more than a tenth of their weight.
        `kinds`: of every machine."""
        waiting = sum(self._pending.values())
        seen = self._total
        weights: dict[Need, int] = {}
        scale = 1 << 40
        # History counts as much as the queue once it has a thousand placements.
        past = min(seen, 1000) * scale // 1000 if waiting else scale
        for need, count in self._pending.items():
            if count > 0:
                weights[need] = count * scale // waiting
        for need, count in self._history.items():
            if count > 0:
                weights[need] = weights.get(need, 0) + count * past // seen
        if 0 < waiting + seen < EVIDENCE_MIN:
            # A handful of requests says little about the next one. Without this, the second of two small
            # fractions went to a device of its own, and nothing kept whole devices together.
            weights[ANY_DEVICE] = weights.get(ANY_DEVICE, 0) + sum(weights.values())
        devices: dict[Kind, int] = {}
        for kind in kinds:
            devices[kind] = devices.get(kind, 0) + len(kind.devices)
        typical = Typical(weights, devices)
        old, new = dict(self.typical.types), dict(typical.types)
        moved = sum(abs(old.get(each, 0) - new.get(each, 0)) for each in old.keys() | new.keys())
        if moved * 10 <= WEIGHT:
            return False
        self.typical = typical
        return True


def typical_of(need: Need) -> Need:
    """The need as the score knows it: who asks does not matter."""
    if not need.tenant and not need.open:
        return need
    return msgspec.structs.replace(need, tenant="", open=False)
