"""The search for a gang's places: all ranks of one candidate, or nothing. It takes nothing from the books.

Ranks are placed one after the other at the lowest cost; the rooms that they leave are kept beside the books.
Wishes about the topology first choose the machines (`topology.share_out`); since a machine hosts equal ranks
independently of the others, what was counted can then be placed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from argosy.model.offer import Placement
from argosy.model.scheduling import LEVELS
from argosy.scheduler import plain
from argosy.scheduler.ask import WHOLE_MILLI, Ask, Need
from argosy.scheduler.devices import Kind, Room, Use, use_of
from argosy.scheduler.plain import NEVER
from argosy.scheduler.topology import DEPTH, NAMES, Path, Share, level_problem, share_out

if TYPE_CHECKING:
    from argosy.scheduler.inventory import Inventory

Held = tuple[int, int, tuple[tuple[int, Use], ...]]  # cpus, memory, uses of devices by position


class Layout:
    """The rows of a pool by their lowest domain."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.rows: dict[Path, list[int]] = {}
        for row, path in enumerate(paths):
            self.rows.setdefault(path, []).append(row)
        self.depth = max((len(path) for path in self.rows), default=0)

    def below(self, share: Share) -> list[int]:
        length = len(share.path)
        if length == self.depth:
            return self.rows[share.path]
        return sorted(row for path, rows in self.rows.items() if path[:length] == share.path for row in rows)


class Search:
    """One candidate of an ask. `within`: another view of the same machines in which the same places must be
    free, too."""

    def __init__(
        self,
        inventory: Inventory,
        ask: Ask,
        need: Need,
        within: Inventory | None = None,
        caps: Mapping[str, int] | None = None,
    ) -> None:
        self.inventory = inventory
        self.ask = ask
        self.need = need
        self.within = within
        self.caps = dict(caps) if caps else None  # milli-GPU that are left of some models
        self.sheet: Any = inventory._rows()
        self.rooms: dict[int, Room] = {}  # that ranks of this gang have changed
        self.other: dict[int, Room] = {}  # the same of `within`

    def run(self) -> tuple[Placement, ...] | None:
        ask, sheet = self.ask, self.sheet
        costs = sheet.costs(self.need)
        alone = ask.num_nodes == 1 and not ask.required and not ask.preferred
        if alone and self.within is None and self.caps is None:
            row = sheet.lowest(costs)
            if row < 0:
                return None
            part = 0 < self.need.gpu_milli < WHOLE_MILLI
            return (self.put(0, row, *(self._pick(row) if part else WHOLE)),)
        if level_problem(ask.num_nodes, ask.required, ask.spread, self.inventory._domains.depth):
            return None
        if self.within is not None:
            costs = sheet.bar(costs, self._costs_within())
        if sheet.lowest(costs) < 0:
            return None
        groups = self.groups(costs)
        return None if groups is None else self.place(costs, groups)

    def _costs_within(self) -> Any:
        assert self.within is not None
        other = self.within._rows()
        costs: Any = other.costs(self.need)
        if other.ids == self.sheet.ids:
            return costs
        return [costs[other.row_of[each]] if each in other.row_of else NEVER for each in self.sheet.ids]

    # Which machines

    def groups(self, costs: Any) -> list[tuple[list[int] | None, int]] | None:
        """Rows (None: all), and how many ranks go to them."""
        ask = self.ask
        n, depth = ask.num_nodes, self.inventory._domains.depth
        preferred = ask.preferred
        if n > 1 and ask.spread and preferred and LEVELS.index(preferred) <= LEVELS.index(ask.spread):
            preferred = (*LEVELS, "")[LEVELS.index(ask.spread) + 1]  # narrower cannot be had
        if "node" in (ask.required, preferred):
            if ask.spread != "node" or n == 1:
                counts = self.counts(costs)
                whole = [row for row in range(len(counts)) if counts[row] >= n]
                if whole:
                    return [([min(whole, key=lambda row: (costs[row], row))], n)]
            if ask.required == "node":
                return None
            preferred = NAMES[depth - 1] if depth else ""
        if preferred in DEPTH and DEPTH[preferred] > depth:
            preferred = NAMES[depth - 1] if depth else ""
        if not {ask.required, preferred, ask.spread} & DEPTH.keys():
            return [(None, n)]
        shares = self.share_out(costs, n, preferred)
        layout = self.inventory._layout()
        return None if shares is None else [(layout.below(share), share.ranks) for share in shares]

    def share_out(self, costs: Any, ranks: int, preferred: str = "") -> list[Share] | None:
        counts = self.counts(costs)
        most = 1 if self.ask.spread == "node" else ranks
        layout = self.inventory._layout()
        sums = {path: sum(min(most, int(counts[row])) for row in rows) for path, rows in layout.rows.items()}
        unnamed = sums.pop((), 0)
        return share_out(
            sums,
            ranks,
            unnamed=unnamed,
            required=self.ask.required,
            preferred=preferred,
            spread=self.ask.spread,
        )

    def counts(self, costs: Any) -> Any:
        """How many ranks each row could host."""
        if self.within is None:
            return self.sheet.counts(self.need)
        return [0 if cost == NEVER else self._count_both(row) for row, cost in enumerate(costs)]

    def _count_both(self, row: int) -> int:
        """The same in both views, by trying."""
        kept, kept_other = dict(self.rooms), dict(self.other)
        count = 0
        while count < self.ask.num_nodes and (got := self._pick(row)) is not None:
            self.put(0, row, *got)
            count += 1
        self.rooms, self.other = kept, kept_other
        return count

    def most(self) -> int:
        """How many ranks of the gang fit, with its topology wishes."""
        costs = self.sheet.costs(self.need)
        if self.ask.required == "node":
            counts = self.counts(costs)
            return min(self.ask.num_nodes, max((int(count) for count in counts), default=0))
        low, high = 0, self.ask.num_nodes
        while low < high:
            middle = (low + high + 1) // 2
            if self.share_out(costs, middle) is None:
                high = middle - 1
            else:
                low = middle
        return low

    # Ranks

    def place(self, costs: Any, groups: list[tuple[list[int] | None, int]]) -> tuple[Placement, ...] | None:
        placements: list[Placement] = []
        alone = self.ask.spread == "node"
        for rows, ranks in groups:
            left = self.sheet.own(costs, rows)
            placed = 0
            while placed < ranks:
                spot = self.sheet.lowest(left)
                if spot < 0:
                    return None
                row = spot if rows is None else rows[spot]
                got = self._pick(row)
                if got is None:  # in the other view its devices are in use
                    left[spot] = NEVER
                    continue
                before, other = self.rooms.get(row), self.other.get(row)
                placement = self.put(len(placements), row, *got)
                if self.caps is not None and not self._within_caps(self.caps, row, placement):
                    _restore(self.rooms, row, before)
                    _restore(self.other, row, other)
                    left[spot] = NEVER
                    continue
                placements.append(placement)
                placed += 1
                if placed == ranks:
                    break
                after = None if alone else self._pick(row)
                left[spot] = NEVER if after is None else after[0]
        return tuple(placements)

    def _within_caps(self, caps: dict[str, int], row: int, placement: Placement) -> bool:
        """Whether the models of a rank are left; then they count."""
        models = self.sheet.kinds[row].models
        milli = min(WHOLE_MILLI, self.need.gpu_milli)
        used: dict[str, int] = {}
        for share in placement.devices:
            model = models[share.index]
            used[model] = used.get(model, 0) + milli
        if any(amount > caps.get(model, amount) for model, amount in used.items()):
            return False
        for model, amount in used.items():
            if model in caps:
                caps[model] -= amount
        return True

    def _rooms_of(self, row: int) -> tuple[Kind, Room, Room | None]:
        kind = self.sheet.kinds[row]
        room = self.rooms.get(row) or self.sheet.rooms[row]
        if self.within is None:
            return kind, room, None
        machine_id = self.sheet.ids[row]
        also = self.other.get(row) or self.within._rooms.get(machine_id)
        if also is None or self.within._kind[machine_id].devices != kind.devices:
            also = NOTHING
        return kind, room, also

    def _pick(self, row: int) -> Any:
        kind, room, also = self._rooms_of(row)
        return plain.pick(self.sheet.typical, self.need, kind.way(self.need), kind, room, also)

    def put(self, rank: int, row: int, cost: int, position: int) -> Placement:
        kind, room, also = self._rooms_of(row)
        need = self.need
        placement = Placement(
            rank=rank,
            node_id=self.sheet.ids[row],
            cpus_milli=need.cpus_milli,
            memory_bytes=need.memory_bytes,
            devices=plain.shares(kind.way(need), kind, room, also, position),
        )
        if self.ask.num_nodes > 1:
            cpus, memory, uses = held_by(placement, kind, need)
            self.rooms[row] = plain.taken(kind, room, cpus, memory, uses)
            if also is not None:
                self.other[row] = plain.taken(kind, also, cpus, memory, uses)
        return placement


def _restore(rooms: dict[int, Room], row: int, before: Room | None) -> None:
    if before is None:
        rooms.pop(row, None)
    else:
        rooms[row] = before


WHOLE = 0, -1  # the pick of whole devices, or of none, whatever it costs
NOTHING = Room(-1, -1, (), (), (), (), 0, 0, ())


def held_by(placement: Placement, kind: Kind, need: Need) -> Held:
    """What a placement takes of its machine. Devices that the machine does not have are left out."""
    if not placement.devices:
        return placement.cpus_milli, placement.memory_bytes, ()
    uses = []
    for share in placement.devices:
        position = kind.index_of.get(share.index)
        if position is not None:
            uses.append((position, use_of(share, kind, position, need)))
    return placement.cpus_milli, placement.memory_bytes, tuple(uses)


__all__ = ["Layout", "Search", "held_by"]
