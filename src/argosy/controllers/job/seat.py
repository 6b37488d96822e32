"""Ranks of a managed job on the nodes of its claim: one each, with the devices that the claim was given.
Pure."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.model.offer import Placement
from argosy.model.rows import Claim, Node, Workload
from argosy.scheduler.machines import devices_on


def seat_gang(job: Workload, claim: Claim, nodes: Sequence[Node]) -> tuple[Placement, ...] | None:
    """One placement for each node, in their order; None when a node lacks the devices that the claim stands
    for.

    CPUs are not counted again: the claim holds them, and the ranks have the nodes for themselves.
    """
    promised = {place.rank: place.devices for place in claim.placements}
    seats: list[Placement] = []
    for rank, node in enumerate(sorted(nodes, key=lambda each: each.index)):
        devices = devices_on(claim, node, promised.get(node.index, ()))
        if devices is None:
            return None
        seats.append(
            Placement(rank=rank, node_id=node.id, memory_bytes=claim.choice.memory_bytes, devices=devices)
        )
    return tuple(seats)
