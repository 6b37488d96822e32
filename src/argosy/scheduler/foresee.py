"""When a request could fit at the earliest, as running jobs end or are preempted one after the other.

It saves the placer all questions that have no chance.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Sequence
from typing import NamedTuple

from argosy.model.offer import Placement
from argosy.scheduler.ask import Need
from argosy.scheduler.ends import Release
from argosy.scheduler.inventory import Inventory


class Reach(NamedTuple):
    least: int  # fewer do not do
    nodes: frozenset[str]  # only these can host a rank then


class _Sums:
    """Free milli-CPU, bytes and milli-GPU of the machines that suit a need, while room comes back."""

    def __init__(self, inventory: Inventory, need: Need, most: int) -> None:
        self._inventory = inventory
        self._need = need
        self._most = most
        self._spare: dict[str, list[int] | None] = {}  # None: does not suit

    def give(self, placement: Placement) -> int:
        """How many ranks the machine could host once this is back."""
        node_id, need = placement.node_id, self._need
        spare = self._spare.get(node_id)
        if spare is None:
            if node_id in self._spare or not self._inventory.suits(node_id, need):
                self._spare[node_id] = None
                return 0
            spare = self._spare[node_id] = list(self._inventory.spare(node_id))
        spare[0] += placement.cpus_milli
        spare[1] += placement.memory_bytes
        for share in placement.devices:
            spare[2] += share.milli
        if spare[2] < need.gpu_milli or spare[0] < need.cpus_milli or spare[1] < need.memory_bytes:
            return 0
        most = self._most
        if most > 1:
            for free, amount in zip(spare, (need.cpus_milli, need.memory_bytes, need.gpu_milli), strict=True):
                if amount:
                    most = min(most, free // amount)
        return most


def reach(
    inventory: Inventory, need: Need, num_nodes: int, gives: Sequence[Sequence[Placement]]
) -> Reach | None:
    """By sums alone: how many of `gives`, in this order, it takes at least until `num_nodes` ranks could fit;
    None: all are too few."""
    found = inventory.hosting_by_sums(need, num_nodes)
    total = sum(found.values())
    if total >= num_nodes:
        return Reach(0, frozenset(found))
    sums = _Sums(inventory, need, num_nodes)
    for count, placements in enumerate(gives, 1):
        for placement in placements:
            ranks = sums.give(placement)
            if ranks:
                total += ranks - found.get(placement.node_id, 0)
                found[placement.node_id] = ranks
        if total >= num_nodes:
            return Reach(count, frozenset(found))
    return None


def foresee(
    inventory: Inventory,
    need: Need,
    num_nodes: int,
    moments: Sequence[Sequence[Release]],
    *,
    by_sums: Container[str] = (),
    enough: int,
) -> Reach | None:
    """As `reach`, but each machine is looked at as it will be: halves of two devices do not make one.
    `by_sums`: machines where more is kept than holders hold, of which only the sums are known. `enough`: of
    so many machines with room no more are looked for."""
    found = inventory.hosting(need, num_nodes)
    total = sum(found.values())
    if total >= num_nodes:
        return Reach(0, frozenset(found))
    sums = _Sums(inventory, need, num_nodes)
    gone: dict[str, dict[str, None]] = {}
    for count, releases in enumerate(moments, 1):
        for release in releases:
            for placement in release.allocation.placements:
                node_id = placement.node_id
                hosted = sums.give(placement)
                left = gone.setdefault(node_id, {})
                left[release.holder] = None
                known = found.get(node_id, 0)
                if hosted <= known or (total >= num_nodes and len(found) >= enough):
                    continue
                if node_id not in by_sums:
                    hosted = inventory.hosts(node_id, need, num_nodes, left)
                if hosted > known:
                    total += hosted - known
                    found[node_id] = hosted
                    if total >= num_nodes and len(found) >= enough:
                        return Reach(count, frozenset(found))
        if total >= num_nodes:
            return Reach(count, frozenset(found))
    return None


def ever_hosting(inventory: Inventory, needs: Iterable[Need], releases: Iterable[Release]) -> frozenset[str]:
    """The machines that could host a rank of some need by sums, now or when all releases are back."""
    found: set[str] = set()
    for need in needs:
        sums = _Sums(inventory, need, 1)
        found.update(inventory.hosting_by_sums(need, 1))
        for release in releases:
            found.update(
                placement.node_id for placement in release.allocation.placements if sums.give(placement)
            )
    return frozenset(found)


__all__ = ["Reach", "ever_hosting", "foresee", "reach"]
