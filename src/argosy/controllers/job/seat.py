"""Ranks of a managed job on the nodes of its claim: one each, with the devices that the claim was given.
Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.model.offer import DeviceShare, Placement
from argosy.model.rows import Claim, Node, Workload
from argosy.model.tenancy import Tenancy
from argosy.scheduler.estimate import History
from argosy.scheduler.inventory import Inventory
from argosy.scheduler.machines import devices_on, machine_of_node
from argosy.scheduler.requests import ask_of_job


def seat_gang(job: Workload, claim: Claim, nodes: Sequence[Node]) -> tuple[Placement, ...] | None:
    """One placement for each node, in their order; None when a node lacks the devices that the claim stands
    for.

    CPUs are not counted again: the claim holds them, and the ranks have the nodes for themselves. Where a
    whole machine was rented for a fraction of a device, each rank gets that fraction.
    """
    promised = {place.rank: place.devices for place in claim.placements}
    seats: list[Placement] = []
    for rank, node in enumerate(sorted(nodes, key=lambda each: each.index)):
        devices = devices_on(claim, node, promised.get(node.index, ()))
        if devices is None:
            return None
        if takes_part(claim):
            devices = _part_of(job, claim, node) or _first_part(claim, devices)
        seats.append(
            Placement(rank=rank, node_id=node.id, memory_bytes=claim.choice.memory_bytes, devices=devices)
        )
    return tuple(seats)


def takes_part(claim: Claim) -> bool:
    """Whether more was rented than was asked for: a device, or many, for a part of one."""
    choice, asked = claim.choice, claim.choice.resources.accelerator
    return asked is not None and asked.is_fraction and asked.milli < choice.accelerators_milli


def _part_of(job: Workload, claim: Claim, node: Node) -> tuple[DeviceShare, ...]:
    """The fraction as the pool scheduler gives it: with the mechanism that the node has."""
    ask = ask_of_job(job, Tenancy(), History())
    wanted = [need for need in ask.needs if need.gpu_milli == _asked_milli(claim)]
    one = msgspec.structs.replace(ask, needs=tuple(wanted), num_nodes=1, spread="")
    found = Inventory([machine_of_node(node, None, Tenancy())]).find(one) if wanted else None
    return found[0].devices if found else ()


def _first_part(claim: Claim, devices: Sequence[DeviceShare]) -> tuple[DeviceShare, ...]:
    """The fraction of the first device, in turns with whoever else uses it."""
    return (DeviceShare(index=devices[0].index, milli=_asked_milli(claim)),) if devices else ()


def _asked_milli(claim: Claim) -> int:
    asked = claim.choice.resources.accelerator
    return asked.milli if asked is not None else 0
