"""What the pool scheduler places on: nodes of clusters, and the machines that owned offers stand for.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from argosy.model.facts import Device, NodeFacts
from argosy.model.kinds import gang_of
from argosy.model.offer import Capacity, DeviceShare, Offer, OwnedMachine, Placement, machine_id, place_of
from argosy.model.phases import NodePhase
from argosy.model.rows import Claim, Node, Workload
from argosy.model.tenancy import Tenancy
from argosy.planning import Ability
from argosy.scheduler.ask import UNANSWERED, WHOLE_MILLI, Ask, Machine, Need, Running
from argosy.scheduler.devices import mig_bits, mig_card

#: Labels of our own, so that a need can name the place of its offer, or a machine in it, and each owned
#: machine is a kind of its own. Users' labels have no slash first.
PLACE: Final = "/place"
MACHINE: Final = "/machine"
NAMED: Final = "/named"
#: Beginning of the ids of holders that are nobody: what is not a cluster's of the devices that it has a part
#: of.
WITHHELD: Final = "/withheld/"
#: Why a node takes nothing new, as the end of a sentence.
_CLOSED: Final = {
    NodePhase.BOOTING: "is still starting",
    NodePhase.UNREACHABLE: UNANSWERED,
    NodePhase.DRAINING: "is being given up",
    NodePhase.STOPPED: "is stopped",
}


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
        closed=_CLOSED.get(node.phase, ""),
    )


def withheld_of(cluster: Workload, claims: Iterable[Claim], nodes: Iterable[Node]) -> dict[str, Running]:
    """What other clusters may use of the devices of which this one has claimed a part: a holder for each
    node, by its id.

    A node sees its devices whole. With the rest held, all jobs of the cluster together get what was claimed,
    by the mechanism and up to the memory of the claim. Where a claim does not say which devices it stands on,
    nothing is known to withhold.
    """
    promised = {
        (claim.id, place.rank): (claim, place.devices) for claim in claims for place in claim.placements
    }
    found: dict[str, Running] = {}
    shared = gang_of(cluster).scheduling.share == "any"
    need = Need(tenant=cluster.project, open=shared)
    for node in nodes:
        claim, shares = promised.get((node.claim_id, node.index), (None, ()))
        mine = devices_on(claim, node, shares) if claim is not None and shares else None
        cards = {device.index: device for device in node.facts.devices}
        rests = [rest for share in mine or () for rest in _rests(share, cards[share.index])]
        if rests:
            id = f"{WITHHELD}{node.id}"
            found[id] = Running(
                ask=Ask(id=id, needs=(need,)),
                placements=tuple(
                    Placement(rank=rank, node_id=node.id, devices=(rest,)) for rank, rest in enumerate(rests)
                ),
                started_ms=0,
            )
    return found


def _rests(share: DeviceShare, device: Device) -> list[DeviceShare]:
    """All of a device but a share of it. Of a card that is divided: each of the other memory slices."""
    left = WHOLE_MILLI - share.milli
    if left <= 0:
        return []
    if share.mechanism != "mig":
        # never more than its part: who shares a device by parts gets so much of its memory
        most = device.memory_bytes * left // WHOLE_MILLI
        memory = min(most, max(0, device.memory_bytes - share.memory_bytes)) if share.memory_bytes else 0
        return [DeviceShare(index=share.index, milli=left, mechanism=share.mechanism, memory_bytes=memory)]
    card = mig_card(device.model, device.memory_bytes)
    profile = next((each for each in card[1] if each.name == share.profile), None) if card else None
    if card is None or profile is None or device.mig_profile:
        return []
    own = mig_bits(profile, share.slot)
    others = [slot for slot in range(card[0]) if not own >> slot & 1]
    return [
        DeviceShare(
            index=share.index,
            milli=left * (number + 1) // len(others) - left * number // len(others),
            mechanism="mig",
            profile=card[1][0].name,
            slot=slot,
        )
        for number, slot in enumerate(others)
    ]


def devices_on(claim: Claim, node: Node, promised: Sequence[DeviceShare]) -> tuple[DeviceShare, ...] | None:
    """The node's devices by index, with the shares and mechanisms that the claim was given, in the same
    order."""
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


def is_owned(offer: Offer, abilities: Mapping[str, Ability]) -> bool:
    """Whether an offer is a part of machines whose books we keep."""
    ability = abilities.get(offer.provider)
    return offer.capacity is Capacity.OWNED and ability is not None and ability.owned


def machines_of_offers(offers: Iterable[Offer], tenancy: Tenancy) -> list[Machine]:
    """The machines of owned offers: those that an offer names, else `nodes_max` of each place (not known:
    one). What is known of a machine comes from the facts of the offer, else from its shape."""
    places: dict[str, list[Offer]] = {}
    for offer in offers:
        places.setdefault(place_of(offer), []).append(offer)
    machines: list[Machine] = []
    for place in sorted(places):
        same = places[place]
        named = {each.name: each for offer in same for each in offer.machines}
        if named:
            provider = same[0].provider
            machines += [
                _named(place, each, provider, index, tenancy)
                for index, (_, each) in enumerate(sorted(named.items()), len(machines))
            ]
            continue
        for number in range(max(each.nodes_max if each.nodes_max is not None else 1 for each in same)):
            machines.append(_machine(place, number, same, len(machines), tenancy))
    return machines


def _named(place: str, each: OwnedMachine, provider: str, index: int, tenancy: Tenancy) -> Machine:
    """One of a place whose machines differ."""
    id, facts = machine_id(place, each.name), each.facts
    return Machine(
        id=id,
        index=index,
        name=f"{place}/{each.name}",  # as `infra:` takes it
        cpus_milli=facts.cpus_milli,
        memory_bytes=facts.memory_bytes,
        devices=tuple(map(_lasting, facts.devices)),
        arch=facts.arch,
        labels=(*facts.labels, (PLACE, place), (MACHINE, id), (NAMED, each.name)),
        taints=facts.taints,
        domains=facts.domains,
        groups=groups_of((id, place, each.name, facts.hostname, provider), tenancy),
        sharing=facts.sharing,
        open=each.is_open,
        closed=each.closed,
    )


def _machine(place: str, number: int, offers: Sequence[Offer], index: int, tenancy: Tenancy) -> Machine:
    many = any((offer.nodes_max or 1) > 1 for offer in offers)
    id = machine_id(place, str(number)) if many else place
    shape = offers[0].shape
    facts = next((offer.facts for offer in offers if offer.facts is not None), None)
    known = facts or NodeFacts()
    devices = tuple(map(_lasting, known.devices)) if facts is not None else _devices_of(offers)
    return Machine(
        id=id,
        index=index,
        name=id,
        cpus_milli=max(offer.shape.cpus_milli for offer in offers),
        memory_bytes=max(offer.shape.memory_bytes for offer in offers),
        devices=devices,
        arch=shape.arch,
        labels=(*known.labels, (PLACE, place), (MACHINE, id)),
        taints=known.taints,
        domains=known.domains,
        groups=groups_of((id, known.hostname, offers[0].provider), tenancy),
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
