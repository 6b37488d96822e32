"""Ranks of a managed job on the nodes of its claim: one each, with the devices that the claim was given.
Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.controllers.sharing import part_asked, take_seat, takes_part
from argosy.model.offer import DeviceShare, Placement
from argosy.model.rows import Attempt, Claim, Node, Workload
from argosy.model.tenancy import Tenancy
from argosy.scheduler.estimate import History
from argosy.scheduler.inventory import Inventory, need_of
from argosy.scheduler.machines import devices_on, machine_of_node
from argosy.scheduler.requests import ask_of_job


def seat_gang(
    job: Workload, claim: Claim, nodes: Sequence[Node], others: Sequence[tuple[Workload, Attempt]] = ()
) -> tuple[Placement, ...] | None:
    """One placement for each node, in their order; None when a node lacks the devices that the claim stands
    for, or others have them.

    CPUs are not counted again: the claim holds them, and the ranks have the nodes for themselves. Where a
    whole machine was rented for a fraction of a device, each rank gets that fraction, beside `others`.
    """
    promised = {place.rank: place.devices for place in claim.placements}
    seats: list[Placement] = []
    for rank, node in enumerate(sorted(nodes, key=lambda each: each.index)):
        devices = devices_on(claim, node, promised.get(node.index, ()))
        if devices is None:
            return None
        seat = Placement(rank=rank, node_id=node.id, memory_bytes=claim.choice.memory_bytes, devices=devices)
        if takes_part(claim.choice):
            part = _part_of(job, claim, node, others)
            if part is None and others:
                return None
            seat = part or _first_part(claim, seat)
        seats.append(msgspec.structs.replace(seat, rank=rank))
    return tuple(seats)


def _part_of(
    job: Workload, claim: Claim, node: Node, others: Sequence[tuple[Workload, Attempt]]
) -> Placement | None:
    """The fraction as the pool scheduler gives it: with the mechanism that the node has."""
    inventory = Inventory([machine_of_node(node, None, Tenancy())])
    for other, attempt in others:
        held = tuple(place for place in attempt.placements if place.node_id == node.id)
        inventory.take(other.id, need_of(ask_of_job(other, Tenancy(), History()), held), held)
    return take_seat(inventory, job, part_asked(job, claim))


def _first_part(claim: Claim, seat: Placement) -> Placement:
    """The fraction of the first device, in turns with whoever else uses it."""
    asked = claim.choice.resources.accelerator
    milli = asked.milli if asked is not None else 0
    devices = tuple(DeviceShare(index=each.index, milli=milli) for each in seat.devices[:1])
    return msgspec.structs.replace(seat, devices=devices)
