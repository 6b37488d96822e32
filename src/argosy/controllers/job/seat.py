"""Ranks of a managed job on the nodes of its claim: one each, with the devices that the claim was given. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.model.offer import DeviceShare, Placement
from argosy.model.rows import Claim, Node, Workload
from argosy.planning.pool.ask import WHOLE_MILLI


def seat_gang(job: Workload, claim: Claim, nodes: Sequence[Node]) -> tuple[Placement, ...] | None:
    """One placement for each node, in their order; None when a node lacks the devices that the claim stands for.

    CPUs are not counted again: the claim holds them, and the ranks have the nodes for themselves.
    """
    promised = {place.rank: place.devices for place in claim.placements}
    seats: list[Placement] = []
    for rank, node in enumerate(sorted(nodes, key=lambda each: each.index)):
        devices = _devices(claim, node, promised.get(node.index, ()))
        if devices is None:
            return None
        seats.append(
            Placement(rank=rank, node_id=node.id, memory_bytes=claim.choice.memory_bytes, devices=devices)
        )
    return tuple(seats)


def _devices(claim: Claim, node: Node, promised: Sequence[DeviceShare]) -> tuple[DeviceShare, ...] | None:
    """The node's devices by index, with the shares and mechanisms that the claim was given, in the same order."""
    choice = claim.choice
    if not choice.accelerators_milli or not choice.resources.accelerator:
        return ()
    model = choice.accelerator
    mine = sorted(
        device.index
        for device in node.facts.devices
        if device.index in node.devices and (model is None or device.model == model)
    )
    whole, part = divmod(choice.accelerators_milli, WHOLE_MILLI)
    wanted = promised or (
        *(DeviceShare(index=0, milli=WHOLE_MILLI) for _ in range(whole)),
        *((DeviceShare(index=0, milli=part),) if part else ()),
    )
    if len(mine) < len(wanted):
        return None
    ordered = sorted(wanted, key=lambda share: share.index)
    return tuple(
        msgspec.structs.replace(share, index=index) for share, index in zip(ordered, mine, strict=False)
    )
