"""What is free in a pool: integers with transactions, and the cheapest place for each ask.

Every change has a version. `mark` opens a transaction, `rollback` undoes what was taken and given since, `settle` keeps it. Nothing is
ever over-committed: a take that does not fit raises and changes nothing. `copy` is cheap, since rooms never change.

Costs are kept per class of equal needs and computed again only for machines that changed; nothing else depends on these caches.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from argosy.model.offer import Placement
from argosy.model.scheduling import Isolation
from argosy.model.tenancy import Amounts
from argosy.model.units import render_bytes, render_milli
from argosy.planning.pool import plain
from argosy.planning.pool.ask import WHOLE_MILLI, Ask, Machine, Need
from argosy.planning.pool.devices import Kind, Room, Use, Way, instance_milli, kind_key, use_of
from argosy.planning.pool.plain import Typical
from argosy.planning.pool.topology import DEPTH, Domains, Path, Share, level_problem, share_out

VECTOR_MIN: Final = 49  # machines from which on numpy is worth its import
HISTORY_MAX: Final = 8192  # placements remembered; then all weights halve
NEVER: Final = 1 << 62  # the cost of a place that does not fit

Held = tuple[str, int, int, tuple[tuple[int, Use], ...]]  # machine, cpus, memory, uses of devices by position


class OverCommitted(Exception):
    """A take of what is not free. Nothing was changed."""


class Nearest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Why an ask can never start here, with the machine that comes closest."""

    code: str = "never"
    machine_id: str = ""  # "": there is no machine, or the wish itself cannot be met
    lacks: str = ""  # what that machine lacks
    text: str = ""  # a whole sentence


class Why(msgspec.Struct, frozen=True, kw_only=True):
    """Why an ask does not fit now: a code of `ask.Waiting`, and amounts in words."""

    code: str
    text: str


class _Holding(msgspec.Struct, frozen=True):
    need: Need
    placements: tuple[Placement, ...]
    held: tuple[Held, ...]


class Inventory:
    def __init__(self, machines: Iterable[Machine] = ()) -> None:
        self.version = 0
        self._machines: dict[str, Machine] = {}
        self._rooms: dict[str, Room] = {}
        self._kind: dict[str, Kind] = {}
        self._kinds: dict[tuple[object, ...], Kind] = {}
        self._on: dict[str, dict[str, None]] = {}  # who holds something on a machine
        self._holdings: dict[str, _Holding] = {}
        self._domains = Domains()
        self._journal: list[tuple[str, _Holding, bool]] = []  # holder, what, whether it was taken
        self._marks: list[tuple[int, int, int]] = []  # lengths of journal and gains, version
        self._gains: list[tuple[int, int, str]] = []  # version, floor, machine: see `gained`
        self._lost_gains = 0  # versions up to this one are too old to tell
        self._sorted = True
        self._last: tuple[int, str] = (-(1 << 62), "")
        self._set_version = 0  # of the machines, not of what is free
        self._nevers: dict[object, Nearest | None] = {}
        self._typical = Typical({})
        self._history: dict[Need, int] = {}
        self._history_total = 0
        self._history_next = 16
        self._pending: dict[Need, int] = {}
        for machine in machines:
            self.put(machine)

    # Machines

    def machines(self) -> Mapping[str, Machine]:
        return self._machines

    def put(self, machine: Machine) -> None:
        """A new machine, or a changed one: what is taken stays taken. Raises ArgosyError when its domains contradict others."""
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
            for _, cpus, memory, uses in self._held_on(holder, machine.id):
                room = plain.taken(kind, room, cpus, memory, uses)
        self._rooms[machine.id] = room
        place = (machine.index, machine.id)
        if old is None and place > self._last:
            self._last = place
        elif old is None or old.index != machine.index:
            self._sorted = False
        self._set_version += 1
        self._nevers.clear()
        self._changed(machine.id, gain=True)

    def drop(self, machine_id: str) -> None:
        machine = self._machines.pop(machine_id, None)
        if machine is None:
            return
        self._domains.remove(machine)
        del self._kind[machine_id], self._rooms[machine_id]
        self._set_version += 1
        self._nevers.clear()
        self.version += 1

    def _held_on(self, holder: str, machine_id: str) -> list[Held]:
        """What a holder has on a machine, with positions of the devices that the machine has now."""
        holding = self._holdings[holder]
        kind = self._kind[machine_id]
        return [
            _held(placement, kind, holding.need, strict=False)
            for placement in holding.placements
            if placement.node_id == machine_id
        ]

    def _order(self) -> None:
        """Machines by index and id."""
        if not self._sorted:
            ids = sorted(self._machines, key=lambda each: (self._machines[each].index, each))
            self._machines = {each: self._machines[each] for each in ids}
            self._last = (self._machines[ids[-1]].index, ids[-1]) if ids else (-(1 << 62), "")
            self._sorted = True

    def _changed(self, machine_id: str, *, gain: bool) -> None:
        self.version += 1
        if gain:
            self._gains.append((self.version, -1, machine_id))

    # Takes and gives

    def take(self, holder: str, need: Need, placements: Sequence[Placement]) -> None:
        """Raises OverCommitted when anything of it is not free; then nothing was taken."""
        if holder in self._holdings:
            raise OverCommitted(f"{holder} already holds a part of the pool")
        rooms: dict[str, Room] = {}
        held: list[Held] = []
        for placement in placements:
            machine = self._machines.get(placement.node_id)
            if machine is None:
                raise OverCommitted(f"there is no machine {placement.node_id}")
            kind = self._kind[placement.node_id]
            each = _held(placement, kind, need, strict=True)
            room = rooms.get(placement.node_id) or self._rooms[placement.node_id]
            if room.cpus < each[1] > 0 or room.memory < each[2] > 0:
                raise OverCommitted(
                    f"{machine.id} has {room.cpus} milli-CPU and {room.memory} bytes free, {each[1]} and {each[2]} are taken"
                )
            for position, use in each[3]:
                why = plain.over_committed(kind, machine, room, position, use)
                if why:
                    raise OverCommitted(why)
            rooms[placement.node_id] = plain.taken(kind, room, each[1], each[2], each[3])
            held.append(each)
        holding = _Holding(need, tuple(placements), tuple(held))
        self._holdings[holder] = holding
        for machine_id, room in rooms.items():
            self._rooms[machine_id] = room
            self._on[machine_id][holder] = None
            self._changed(machine_id, gain=False)
        self._remember(need, len(holding.placements))
        if self._marks:
            self._journal.append((holder, holding, True))

    def give(self, holder: str) -> None:
        """Everything that it holds becomes free. Absent is fine."""
        holding = self._holdings.pop(holder, None)
        if holding is None:
            return
        self._put_back(holder, holding)
        if self._marks:
            self._journal.append((holder, holding, False))

    def _put_back(self, holder: str, holding: _Holding) -> None:
        for placement in holding.placements:
            machine_id = placement.node_id
            self._on.get(machine_id, {}).pop(holder, None)
            kind = self._kind.get(machine_id)
            if kind is None:
                continue  # the machine is gone, and what was held there with it
            _, cpus, memory, uses = _held(placement, kind, holding.need, strict=False)
            self._rooms[machine_id] = plain.given(kind, self._rooms[machine_id], cpus, memory, uses)
            self._changed(machine_id, gain=True)

    def holding(self, holder: str) -> tuple[Placement, ...] | None:
        holding = self._holdings.get(holder)
        return None if holding is None else holding.placements

    # Transactions

    def mark(self) -> int:
        """Opens a transaction; they nest."""
        self._marks.append((len(self._journal), len(self._gains), self.version))
        return len(self._marks) - 1

    def rollback(self, mark: int) -> None:
        """Undo every take and give since, and close the transaction with those inside it."""
        journal, gains, version = self._marks[mark]
        del self._marks[mark:]
        kept = self._gains[gains:]
        undone = self._journal[journal:]
        del self._journal[journal:]
        freed: list[str] = []
        for holder, holding, was_taken in reversed(undone):
            if was_taken:
                del self._holdings[holder]
                self._put_back(holder, holding)
                freed += (placement.node_id for placement in holding.placements)
                self._forget(holding.need, len(holding.placements))
            else:
                self._holdings[holder] = holding
                for placement in holding.placements:
                    kind = self._kind.get(placement.node_id)
                    self._on.setdefault(placement.node_id, {})[holder] = None
                    if kind is not None:
                        _, cpus, memory, uses = _held(placement, kind, holding.need, strict=False)
                        room = self._rooms[placement.node_id]
                        self._rooms[placement.node_id] = plain.taken(kind, room, cpus, memory, uses)
                        self._changed(placement.node_id, gain=False)
        # What was free at the mark is free again: news only for those who looked meanwhile. (Machines that were put meanwhile stay.)
        del self._gains[gains:]
        self._gains += [each for each in kept if each[2] in self._machines and not undone]
        self._gains += ((self.version, version, each) for each in freed)

    def settle(self) -> None:
        """Keep everything, and close all transactions."""
        self._marks.clear()
        self._journal.clear()
        if len(self._gains) > 4 * max(64, len(self._machines)):
            self._lost_gains = self._gains[len(self._gains) // 2][0]
            del self._gains[: len(self._gains) // 2 + 1]

    def gained(self, need: Need, version: int) -> bool:
        """Whether something that one rank of `need` could use may have become free since `version`."""
        if version < self._lost_gains:
            return True
        for when, floor, machine_id in reversed(self._gains):
            if when <= version:
                break
            if version <= floor or machine_id not in self._machines:
                continue
            kind, room = self._kind[machine_id], self._rooms[machine_id]
            if plain.pick(self._typical, need, kind.way(need), kind, room) is not None:
                return True
        return False

    def copy(self) -> Inventory:
        """A twin for what-ifs: it has its own books and transactions."""
        other = Inventory()
        other.version = self.version
        other._machines = dict(self._machines)
        other._rooms = dict(self._rooms)
        other._kind = dict(self._kind)
        other._kinds = self._kinds  # facts: shared
        other._on = {key: dict(value) for key, value in self._on.items()}
        other._holdings = dict(self._holdings)
        other._domains = self._domains.copy()
        other._gains = list(self._gains)
        other._lost_gains = self._lost_gains
        other._sorted, other._last = self._sorted, self._last
        other._typical = self._typical
        other._history = dict(self._history)
        other._history_total, other._history_next = self._history_total, self._history_next
        other._pending = self._pending
        return other

    # Places

    def find(self, ask: Ask, *, within: Inventory | None = None) -> tuple[Placement, ...] | None:
        """Where all ranks of the first candidate that fits would go; None when none does. Takes nothing.

        `within`: another view of the same machines (a later time) in which the same places must be free, too.
        """
        self._order()
        self._follow()
        for need in ask.needs:
            found = _Search(self, ask, need, within).run()
            if found is not None:
                return found
        return None

    # What is typical

    def weigh(self, needs: Sequence[tuple[Need, int]]) -> None:
        """What waits, with counts: half of what the score keeps places for; history is the other half."""
        pending: dict[Need, int] = {}
        for need, count in needs:
            shape = typical_of(need)
            pending[shape] = pending.get(shape, 0) + count
        self._pending = pending
        self._reweigh()

    def _remember(self, need: Need, count: int) -> None:
        shape = typical_of(need)
        self._history[shape] = self._history.get(shape, 0) + count
        self._history_total += count

    def _forget(self, need: Need, count: int) -> None:
        shape = typical_of(need)
        self._history[shape] = self._history.get(shape, 0) - count
        self._history_total -= count

    def _follow(self) -> None:
        if self._history_total >= self._history_next:
            self._reweigh()
            self._history_next = min(2 * self._history_total, self._history_total + HISTORY_MAX // 2)
            if self._history_total > HISTORY_MAX:
                self._history = {need: count // 2 for need, count in self._history.items() if count > 1}
                self._history_total = sum(self._history.values())
                self._history_next = self._history_total + HISTORY_MAX // 2

    def _reweigh(self) -> None:
        """Take the typical needs anew, if they differ from those in use by more than a twentieth."""
        waiting = sum(self._pending.values())
        seen = self._history_total
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
        typical = Typical(weights, self._typical.version + 1)
        old, new = dict(self._typical.types), dict(typical.types)
        moved = sum(abs(old.get(each, 0) - new.get(each, 0)) for each in old.keys() | new.keys())
        if moved * 20 > plain.WEIGHT:
            self._typical = typical

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
        """Why no state of these machines could hold the ask, with the nearest machine and what it lacks. None: some state could."""
        key = (ask.needs, ask.num_nodes, ask.required, ask.spread)
        if key not in self._nevers:
            self._nevers[key] = self._never(ask)
        return self._nevers[key]

    def _never(self, ask: Ask) -> Nearest | None:
        problem = level_problem(ask.num_nodes, ask.required, ask.spread, self._domains.depth)
        if problem:
            return Nearest(text=f"It can never start: {problem}.")
        if not self._machines:
            return Nearest(text="It can never start: the pool has no machine.")
        empty = Inventory(msgspec.structs.replace(each, open=True) for each in self._machines.values())
        if empty.find(ask) is not None:
            return None
        nearest: tuple[int, int, str, str] | None = None
        alone = msgspec.structs.replace(ask, num_nodes=1, required="", preferred="", spread="")
        if empty.find(alone) is not None:
            return Nearest(text=f"It can never start: {empty._too_few(ask)}.")
        for number, (machine_id, machine) in enumerate(empty._machines.items()):
            for need in ask.needs:
                lacks = _lacks(machine, empty._kind[machine_id], need)
                if nearest is None or (len(lacks), number) < nearest[:2]:
                    nearest = (len(lacks), number, machine_id, "; ".join(lacks))
        assert nearest is not None
        name = empty._machines[nearest[2]].name or nearest[2]
        return Nearest(
            machine_id=nearest[2],
            lacks=nearest[3],
            text=f"It can never start: no machine has all that it needs. {name} comes nearest: {nearest[3]}.",
        )

    def _too_few(self, ask: Ask) -> str:
        most = 0
        for need in ask.needs:
            search = _Search(self, ask, need, None)
            most = max(most, search.most())
        where = f"within one {ask.required}" if ask.required else "in all"
        spread = f", each in another {ask.spread}" if ask.spread else ""
        return f"it has {ask.num_nodes} ranks{spread}, and at most {most} fit {where}"

    def why_not(self, ask: Ask) -> Why:
        """Why `find` gives None now. Codes: capacity, fragmented, topology, isolation, group."""
        self._order()
        need = ask.needs[0]
        if level_problem(ask.num_nodes, ask.required, ask.spread, self._domains.depth):
            return Why(
                code="topology",
                text=level_problem(ask.num_nodes, ask.required, ask.spread, self._domains.depth),
            )
        if ask.required or ask.spread:
            loose = msgspec.structs.replace(ask, required="", preferred="", spread="")
            if self.find(loose) is not None:
                return Why(code="topology", text=self._too_few(ask) + " at present")
        anywhere = msgspec.structs.replace(
            need, only_group="", groups=tuple({g for m in self._machines.values() for g in m.groups})
        )
        if anywhere != need and self.find(msgspec.structs.replace(ask, needs=(anywhere,))) is not None:
            group = f"group {need.only_group}" if need.only_group else "the groups that it may use"
            return Why(code="group", text=f"there is room only outside of {group}")
        if 0 < need.gpu_milli < WHOLE_MILLI:
            trusting = self._if_all_shared(ask, need)
            if trusting:
                return Why(code="isolation", text=trusting)
        return self._amounts_short(ask, need)

    def _if_all_shared(self, ask: Ask, need: Need) -> str:
        """In words, when there is room beside other tenants or under a weaker isolation; else ""."""
        if need.isolation != Isolation.NONE:
            weak = msgspec.structs.replace(need, isolation=Isolation.NONE)
            if self.find(msgspec.structs.replace(ask, needs=(weak,))) is not None:
                return f"there is room only where {need.isolation} isolation cannot be given"
        for machine_id in self._machines:
            kind, room = self._kind[machine_id], self._rooms[machine_id]
            way = kind.way(need)
            if way.why or room.cpus < need.cpus_milli or room.memory < need.memory_bytes:
                continue
            if any(room.left[p] >= way.milli for p in way.positions):
                return "the devices with room are shared with other tenants, or in another way"
        return ""

    def _amounts_short(self, ask: Ask, need: Need) -> Why:
        """Amounts over the machines that suit: enough in sum is fragmentation, else it is capacity."""
        cpus = memory = milli = devices = suited = fits = 0
        for machine_id in self._machines:
            kind, room = self._kind[machine_id], self._rooms[machine_id]
            way = kind.way(need)
            if way.why:
                continue
            suited += 1
            cpus += max(0, room.cpus)
            memory += max(0, room.memory)
            milli += sum(room.left[p] for p in way.positions)
            devices += sum(room.left[p] == WHOLE_MILLI for p in way.positions)
            fits += plain.pick(self._typical, need, way, kind, room) is not None
        n = ask.num_nodes
        if not suited:
            return Why(code="capacity", text="no machine that suits it is open")
        short = []
        if cpus < n * need.cpus_milli:
            short.append(
                f"{render_milli(n * need.cpus_milli)} CPUs are needed, {render_milli(cpus)} are free"
            )
        if memory < n * need.memory_bytes:
            short.append(
                f"{render_bytes(n * need.memory_bytes)} of memory are needed, {render_bytes(memory)} are free"
            )
        if milli < n * need.gpu_milli:
            wanted = "/".join(need.models) or "GPU"
            short.append(
                f"{render_milli(n * need.gpu_milli)} {wanted} are needed, {render_milli(milli)} are free"
            )
        if short:
            return Why(code="capacity", text="; ".join(short))
        parts = [f"{render_milli(cpus)} CPUs"]
        if need.memory_bytes:
            parts.append(f"{render_bytes(memory)} of memory")
        if need.gpu_milli:
            parts.append(f"{render_milli(milli)} GPUs ({devices} whole)")
        where = f"on {fits} of {n} machines" if n > 1 else "on no single machine"
        return Why(
            code="fragmented",
            text=f"{' and '.join(parts)} are free, but together what it needs is {where}",
        )


def _held(placement: Placement, kind: Kind, need: Need, *, strict: bool) -> Held:
    uses: list[tuple[int, Use]] = []
    for share in placement.devices:
        position = kind.index_of.get(share.index)
        if position is None:
            if strict:
                raise OverCommitted(f"{placement.node_id} has no device {share.index}")
            continue  # the device is gone
        uses.append((position, use_of(share, kind, position, need)))
    return placement.node_id, placement.cpus_milli, placement.memory_bytes, tuple(uses)


def _lacks(machine: Machine, kind: Kind, need: Need) -> list[str]:
    lacks = []
    way = kind.way(need)
    if way.why:
        lacks.append(way.text)
    if machine.cpus_milli < need.cpus_milli:
        lacks.append(f"it has {render_milli(machine.cpus_milli)} of {render_milli(need.cpus_milli)} CPUs")
    if machine.memory_bytes < need.memory_bytes:
        lacks.append(
            f"it has {render_bytes(machine.memory_bytes)} of {render_bytes(need.memory_bytes)} of memory"
        )
    return lacks


class _Search:
    """One candidate of an ask: ranks are placed one after the other, the rooms that they leave are kept beside the books."""

    def __init__(self, inventory: Inventory, ask: Ask, need: Need, within: Inventory | None) -> None:
        self.inventory = inventory
        self.ask = ask
        self.need = need
        self.within = within
        self.rooms: dict[str, Room] = {}  # that ranks of this gang have changed
        self.other: dict[str, Room] = {}  # the same of `within`
        self.costs: dict[str, int] = {}

    def run(self) -> tuple[Placement, ...] | None:
        ask, inventory = self.ask, self.inventory
        if level_problem(ask.num_nodes, ask.required, ask.spread, inventory._domains.depth):
            return None
        if ask.num_nodes == 1 and not ask.preferred and not ask.required:
            return self.place([(tuple(inventory._machines), 1)])
        groups = self.groups()
        return None if groups is None else self.place(groups)

    def groups(self) -> list[tuple[tuple[str, ...], int]] | None:
        """Sets of machines, and how many ranks go to each."""
        ask, machines = self.ask, self.inventory._machines
        n = ask.num_nodes
        everywhere = tuple(machines)
        if "node" in (ask.required, ask.preferred) and ask.spread != "node":
            whole = [
                (count, number, each)
                for number, each in enumerate(everywhere)
                if (count := self.count(each, n)) >= n
            ]
            if whole:
                # All of them hold it; where the first rank is cheapest.
                best = min(whole, key=lambda each: (self.cost(each[2]), each[1]))
                return [((best[2],), n)]
            if ask.required == "node":
                return None
        levels = [level for level in (ask.required, ask.preferred, ask.spread) if level in DEPTH]
        if ask.preferred == "node" and self.inventory._domains.depth:
            levels.append("leaf")
        if not levels:
            return [(everywhere, n)]
        counts, below, unnamed = self.domains()
        preferred = ask.preferred
        if preferred == "node":
            preferred = (
                "leaf"
                if self.inventory._domains.depth == 3
                else ("", "block", "rack")[self.inventory._domains.depth]
            )
        shares = share_out(
            counts, n, unnamed=unnamed, required=ask.required, preferred=preferred, spread=ask.spread
        )
        return None if shares is None else [(self.below(share, below), share.ranks) for share in shares]

    def domains(self) -> tuple[dict[Path, int], dict[Path, list[str]], int]:
        counts: dict[Path, int] = {}
        below: dict[Path, list[str]] = {}
        unnamed = 0
        for machine_id, machine in self.inventory._machines.items():
            count = self.count(machine_id, 1 if self.ask.spread == "node" else self.ask.num_nodes)
            if machine.domains:
                counts[machine.domains] = counts.get(machine.domains, 0) + count
            else:
                unnamed += count
            below.setdefault(machine.domains, []).append(machine_id)
        return counts, below, unnamed

    def below(self, share: Share, below: dict[Path, list[str]]) -> tuple[str, ...]:
        length = len(share.path)
        return tuple(each for path, ids in below.items() if path[:length] == share.path for each in ids)

    def most(self) -> int:
        """How many ranks fit in the best domain."""
        if self.ask.required == "node":
            return max((self.count(each, self.ask.num_nodes) for each in self.inventory._machines), default=0)
        counts, _, unnamed = self.domains()
        low, high = 0, self.ask.num_nodes
        while low < high:
            middle = (low + high + 1) // 2
            if (
                share_out(counts, middle, unnamed=unnamed, required=self.ask.required, spread=self.ask.spread)
                is None
            ):
                high = middle - 1
            else:
                low = middle
        return low

    def count(self, machine_id: str, most: int) -> int:
        """How many ranks one machine could host, at most `most`."""
        kind = self.inventory._kind[machine_id]
        way = kind.way(self.need)
        rooms = self._rooms_of(machine_id)
        if rooms is None:
            return 0
        room, also = rooms
        for count in range(most):
            got = plain.pick(self.inventory._typical, self.need, way, kind, room, also)
            if got is None:
                return count
            placement = self._placement(0, machine_id, way, kind, room, also, got[1])
            room = _after(room, placement, kind, self.need)
            also = None if also is None else _after(also, placement, kind, self.need)
        return most

    def _rooms_of(self, machine_id: str) -> tuple[Room, Room | None] | None:
        room = self.rooms.get(machine_id) or self.inventory._rooms[machine_id]
        if self.within is None:
            return room, None
        also = self.other.get(machine_id) or self.within._rooms.get(machine_id)
        if also is None or self.within._kind[machine_id].devices != self.inventory._kind[machine_id].devices:
            return None
        return room, also

    def cost(self, machine_id: str) -> int:
        found = self.costs.get(machine_id)
        if found is None:
            kind = self.inventory._kind[machine_id]
            rooms = self._rooms_of(machine_id)
            got = rooms and plain.pick(
                self.inventory._typical, self.need, kind.way(self.need), kind, rooms[0], rooms[1]
            )
            found = self.costs[machine_id] = got[0] if got else NEVER
        return found

    def place(self, groups: list[tuple[tuple[str, ...], int]]) -> tuple[Placement, ...] | None:
        placements: list[Placement] = []
        alone = self.ask.spread == "node"
        for ids, ranks in groups:
            left = list(ids) if alone else ids
            for _ in range(ranks):
                best = min(left, key=self.cost, default=None)
                if best is None or self.cost(best) == NEVER:
                    return None
                placements.append(self.put(len(placements), best))
                if alone:
                    left = [each for each in left if each != best]
        return tuple(placements)

    def put(self, rank: int, machine_id: str) -> Placement:
        kind = self.inventory._kind[machine_id]
        way = kind.way(self.need)
        rooms = self._rooms_of(machine_id)
        assert rooms is not None
        room, also = rooms
        got = plain.pick(self.inventory._typical, self.need, way, kind, room, also)
        assert got is not None
        placement = self._placement(rank, machine_id, way, kind, room, also, got[1])
        if self.ask.num_nodes > 1:
            self.rooms[machine_id] = _after(room, placement, kind, self.need)
            if also is not None:
                self.other[machine_id] = _after(also, placement, kind, self.need)
            self.costs.pop(machine_id, None)
        return placement

    def _placement(
        self, rank: int, machine_id: str, way: Way, kind: Kind, room: Room, also: Room | None, position: int
    ) -> Placement:
        return Placement(
            rank=rank,
            node_id=machine_id,
            cpus_milli=self.need.cpus_milli,
            memory_bytes=self.need.memory_bytes,
            devices=plain.shares(way, kind, room, also, position),
        )


def _after(room: Room, placement: Placement, kind: Kind, need: Need) -> Room:
    _, cpus, memory, uses = _held(placement, kind, need, strict=True)
    return plain.taken(kind, room, cpus, memory, uses)


def typical_of(need: Need) -> Need:
    """The need as the score knows it: who asks does not matter."""
    if not need.tenant and not need.open:
        return need
    return msgspec.structs.replace(need, tenant="", open=False)


def need_of(ask: Ask, placements: Sequence[Placement]) -> Need:
    """Which of the ask's candidates the placements serve: the first with their amounts."""
    first = placements[0]
    milli = sum(share.milli for share in first.devices)
    for need in ask.needs:
        if (need.cpus_milli, need.memory_bytes) != (first.cpus_milli, first.memory_bytes):
            continue
        divided = any(share.mechanism == "mig" for share in first.devices)
        if milli == need.gpu_milli or (divided and 0 < need.gpu_milli < WHOLE_MILLI):
            return need
    return ask.needs[0]


__all__ = ["Inventory", "Nearest", "OverCommitted", "Why", "need_of", "typical_of"]
