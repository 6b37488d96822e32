"""Gangs and the topology: which domains the ranks of a gang go to.

Machines name their domains from the widest (block, rack, leaf). How many ranks each leaf could host is summed
upwards; `required` asks for one domain of that level, `preferred` for the narrowest level from there up that
has one, `spread` for a domain of its own for each rank. Among domains that fit the fullest wins (the fewest
free places), and inside it the fewest subdomains are used. The counting is that of Kueue's topology-aware
scheduling, which follows the block and tree plugins of Slurm.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from argosy.model.errors import ArgosyError
from argosy.model.scheduling import LEVELS
from argosy.model.units import many
from argosy.scheduler.ask import Machine

#: Number of names in `domains` that reach down to a level.
DEPTH: Final = {"block": 1, "rack": 2, "leaf": 3}
NAMES: Final = ("block", "rack", "leaf")
Path = tuple[str, ...]


class Share(NamedTuple):
    """`ranks` of the gang go to machines below `path`."""

    path: Path
    ranks: int


class Domains:
    """The domains of a pool's machines, without contradictions."""

    def __init__(self) -> None:
        self._above: dict[tuple[int, str], Path] = {}  # (depth, name): its path
        self._members: dict[Path, int] = {}
        self._depths: dict[int, int] = {}

    def copy(self) -> Domains:
        other = Domains()
        other._above = dict(self._above)
        other._members = dict(self._members)
        other._depths = dict(self._depths)
        return other

    @property
    def depth(self) -> int:
        return max(self._depths, default=0)

    def check(self, machine: Machine, instead_of: Machine | None = None) -> None:
        """Raises ArgosyError("spec-invalid") when the machine contradicts the others."""
        path = machine.domains
        if not path:
            return
        who = machine.name or machine.id
        old = instead_of.domains if instead_of is not None else ()
        if len(path) > len(NAMES):
            raise ArgosyError(
                "spec-invalid",
                f"machine {who} names {len(path)} levels of the topology: {'/'.join(path)}",
                hint="Name at most block, rack and leaf, the widest first.",
            )
        others = {depth for depth, count in self._depths.items() if count > (depth == len(old))}
        if others and others != {len(path)}:
            raise ArgosyError(
                "spec-invalid",
                f"machine {who} names {many(len(path), 'level')} of the topology "
                f"({'/'.join(path)}), others name {min(others)}",
                hint="Give all machines of a pool the same levels, the widest first (block, rack, leaf), "
                "or none at all.",
            )
        for depth in range(1, len(path)):
            name = path[depth]
            above = self._above.get((depth, name))
            if above is None or above == path[: depth + 1]:
                continue
            if self._members.get(above, 0) <= (old[: depth + 1] == above):
                continue  # only this machine was there, and it moves
            raise ArgosyError(
                "spec-invalid",
                f"{NAMES[depth]} {name} of machine {who} lies in {NAMES[depth - 1]} {path[depth - 1]}, "
                f"for other machines it lies in {NAMES[depth - 1]} {above[-2]}",
                hint=f"Correct the domains of one of the machines, or give the {NAMES[depth]} another name.",
            )

    def add(self, machine: Machine) -> None:
        path = machine.domains
        if not path:
            return
        self._depths[len(path)] = self._depths.get(len(path), 0) + 1
        for depth in range(len(path)):
            part = path[: depth + 1]
            self._members[part] = self._members.get(part, 0) + 1
            self._above[depth, path[depth]] = part

    def remove(self, machine: Machine) -> None:
        path = machine.domains
        if not path:
            return
        self._depths[len(path)] -= 1
        if not self._depths[len(path)]:
            del self._depths[len(path)]
        for depth in range(len(path)):
            part = path[: depth + 1]
            self._members[part] -= 1
            if not self._members[part]:
                del self._members[part]
                if self._above.get((depth, path[depth])) == part:
                    del self._above[depth, path[depth]]


def level_problem(num_nodes: int, required: str, spread: str, depth: int) -> str:
    """Why no machine whatever could satisfy the wish; "" when that is not so. `depth`: how many levels the
    machines name."""
    for level in (required, spread):
        if level and level not in LEVELS:
            return f"there is no level `{level}`; there are {', '.join(LEVELS)}"
        if level and level != "node" and DEPTH[level] > depth:
            return f"no machine says which {level} it is in"
    if required and spread and num_nodes > 1 and LEVELS.index(spread) >= LEVELS.index(required):
        return f"its ranks are to be within one {required} and each in another {spread}"
    return ""


def share_out(
    counts: Mapping[Path, int],
    num_nodes: int,
    *,
    unnamed: int = 0,
    required: str = "",
    preferred: str = "",
    spread: str = "",
) -> list[Share] | None:
    """How many ranks go where, or None when the gang does not fit.

    `counts`: ranks that each lowest domain could host; `unnamed`: those of machines that name no domain,
    which serve only a gang that may go anywhere. Levels are those of `DEPTH`; what concerns single nodes is
    the caller's.
    """
    tree = _Tree(counts, 0 if spread in DEPTH else unnamed, DEPTH.get(spread, 0))
    last = DEPTH.get(required, 0)
    for depth in range(max(DEPTH.get(preferred, 0), last), last - 1, -1):
        fitting = [path for path in tree.order if len(path) == depth and tree.room[path] >= num_nodes]
        if fitting:
            best = min(fitting, key=lambda path: (tree.room[path], tree.order[path]))
            return tree.inside(best, num_nodes)
    return None


class _Tree:
    def __init__(self, counts: Mapping[Path, int], unnamed: int, spread: int) -> None:
        self.spread = spread
        self.order: dict[Path, int] = {(): 0}  # by first mention: the order of the machines
        self.below: dict[Path, list[Path]] = {}
        self.room: dict[Path, int] = dict(counts)
        for path in counts:
            for length in range(1, len(path) + 1):
                part = path[:length]
                if part not in self.order:
                    self.order[part] = len(self.order)
                    self.below.setdefault(part[:-1], []).append(part)
        for part in sorted(self.order, key=len, reverse=True):
            if part in self.below:
                self.room[part] = sum(self.room[child] for child in self.below[part])
            if spread and len(part) == spread:
                self.room[part] = min(self.room[part], 1)
        self.room[()] = self.room.get((), 0) + unnamed

    def inside(self, path: Path, ranks: int) -> list[Share]:
        """The fewest subdomains: the emptiest first, and last the fullest that still holds the rest."""
        left = [child for child in self.below.get(path, ()) if self.room[child]]
        if not left or len(path) == self.spread != 0:
            return [Share(path, ranks)]
        left.sort(key=lambda child: (-self.room[child], self.order[child]))
        shares: list[Share] = []
        while ranks and left:
            enough = [child for child in left if self.room[child] >= ranks]
            child = min(enough, key=lambda c: (self.room[c], self.order[c])) if enough else left[0]
            part = min(ranks, self.room[child])
            shares += self.inside(child, part)
            ranks -= part
            left.remove(child)
        if ranks:  # machines that name no domain serve what the others cannot hold
            shares.append(Share(path, ranks))
        return shares


__all__ = ["DEPTH", "NAMES", "Domains", "Path", "Share", "level_problem", "share_out"]
