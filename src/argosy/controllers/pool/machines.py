"""What the pool scheduler places on: nodes of clusters, and the machines that owned offers stand for. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from argosy.model.facts import Device, NodeFacts
from argosy.model.offer import Capacity, Offer
from argosy.model.phases import NodePhase
from argosy.model.rows import Node, Workload
from argosy.model.tenancy import Tenancy
from argosy.planning import Ability
from argosy.planning.pool.ask import Machine

#: Labels of our own, so that a need can name the place of its offer, or one machine. Users' labels have no slash first.
PLACE: Final = "/place"
MACHINE: Final = "/machine"


def machine_of_node(node: Node, cluster: Workload | None, tenancy: Tenancy) -> Machine:
    """A node as a machine. One that does not answer, or is being given up, takes nothing new."""
    facts = node.facts
    own = frozenset(node.devices)
    names = (node.id, facts.hostname, cluster.name if cluster is not None else "")
    return Machine(
        id=node.id,
        index=node.index,
        name=f"node {node.index}",
        cpus_milli=node.cpus_milli,
        memory_bytes=node.memory_bytes,
        devices=tuple(_lasting(device) for device in facts.devices if device.index in own),
        arch=facts.arch,
        labels=facts.labels,
        taints=facts.taints,
        domains=facts.domains,
        groups=groups_of(names, tenancy),
        sharing=facts.sharing,
        open=node.phase is NodePhase.READY,
    )


def is_owned(offer: Offer, abilities: Mapping[str, Ability]) -> bool:
    """Whether an offer is a part of machines whose books we keep."""
    ability = abilities.get(offer.provider)
    return offer.capacity is Capacity.OWNED and ability is not None and ability.owned


def place_of(offer: Offer) -> str:
    """What the machines of an offer have in common. Offers of one machine that differ in the model of accelerator only
    are the same place."""
    parts = (offer.provider, offer.region, offer.zone, offer.shape.instance_type)
    return "/".join(parts).rstrip("/")


def machines_of_offers(offers: Iterable[Offer], tenancy: Tenancy) -> list[Machine]:
    """The machines of owned offers: `nodes_max` of each place (not known: one). What is known of a machine comes from the
    facts of the offer, else from its shape."""
    places: dict[str, list[Offer]] = {}
    for offer in offers:
        places.setdefault(place_of(offer), []).append(offer)
    machines: list[Machine] = []
    for place in sorted(places):
        same = places[place]
        for number in range(max(each.nodes_max if each.nodes_max is not None else 1 for each in same)):
            machines.append(_machine(place, number, same, len(machines), tenancy))
    return machines


def _machine(place: str, number: int, offers: Sequence[Offer], index: int, tenancy: Tenancy) -> Machine:
    many = any((offer.nodes_max or 1) > 1 for offer in offers)
    machine_id = f"{place}#{number}" if many else place
    shape = offers[0].shape
    facts = next((offer.facts for offer in offers if offer.facts is not None), None)
    known = facts or NodeFacts()
    devices = tuple(map(_lasting, known.devices)) if facts is not None else _devices_of(offers)
    return Machine(
        id=machine_id,
        index=index,
        name=machine_id,
        cpus_milli=max(offer.shape.cpus_milli for offer in offers),
        memory_bytes=max(offer.shape.memory_bytes for offer in offers),
        devices=devices,
        arch=shape.arch,
        labels=(*known.labels, (PLACE, place), (MACHINE, machine_id)),
        taints=known.taints,
        domains=known.domains,
        groups=groups_of((machine_id, known.hostname, offers[0].provider), tenancy),
        sharing=known.sharing,
    )


def _devices_of(offers: Sequence[Offer]) -> tuple[Device, ...]:
    devices: list[Device] = []
    for offer in offers:
        shape = offer.shape
        for _ in range(shape.accelerators_milli // 1000):
            devices.append(
                Device(
                    index=len(devices),
                    model=shape.accelerator or "",
                    memory_bytes=shape.accelerator_memory_bytes,
                )
            )
    return tuple(devices)


def _lasting(device: Device) -> Device:
    """Without what changes from minute to minute."""
    if not device.memory_used_bytes and device.utilisation_percent == -1:
        return device
    return msgspec.structs.replace(device, memory_used_bytes=0, utilisation_percent=-1)


def groups_of(names: Iterable[str], tenancy: Tenancy) -> tuple[str, ...]:
    """The resource groups that a machine with these names belongs to; (): it is everybody's."""
    known = [name for name in names if name]
    return tuple(
        group.name
        for group in tenancy.groups
        if any(fnmatchcase(name, pattern) for pattern in group.nodes for name in known)
    )


def groups_for(kind: str, queue: str, tenancy: Tenancy) -> tuple[str, ...]:
    """The resource groups that a workload of `kind` in `queue` may use."""
    return tuple(
        group.name
        for group in tenancy.groups
        if (not group.kinds or kind in group.kinds)
        and (not group.queues or any(queue == path or queue.startswith(f"{path}/") for path in group.queues))
    )
