"""Nodes of a cluster as offers: what they have, less what pods ask of them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.model.device_memory import sold_memory
from argosy.model.offer import Capacity, Offer, Shape
from argosy.providers.kubernetes.amounts import model_in, model_named, quantity
from argosy.providers.kubernetes.devices import Lot
from argosy.providers.kubernetes.objects import ClusterNode, Load

#: Accelerators by the names under which device plug-ins give them.
RESOURCES: Final = (
    *("nvidia.com/gpu", "nvidia.com/gpu.shared", "amd.com/gpu", "google.com/tpu", "habana.ai/gaudi"),
    *("aws.amazon.com/neuron", "gpu.intel.com/xe", "gpu.intel.com/i915"),
)
MIG: Final = "nvidia.com/mig-"
#: Where HAMi notes the cards of a node, of which it gives any part. It counts `deviceSplitCount` times
#: as many `nvidia.com/gpu` as there are cards.
HAMI: Final = "hami.io/node-nvidia-register"
MEMORY_PART: Final = "nvidia.com/gpumem-percentage"
CORES_PART: Final = "nvidia.com/gpucores"
_MEMORY_MB: Final = "nvidia.com/gpumem"
_PROFILE: Final = re.compile(r"(\d)g\.\d+gb")
_SPOT: Final = {
    "cloud.google.com/gke-spot": ("true",),
    "cloud.google.com/gke-provisioning": ("spot",),
    "eks.amazonaws.com/capacityType": ("SPOT",),
    "karpenter.sh/capacity-type": ("spot",),
    "kubernetes.azure.com/scalesetpriority": ("spot",),
}
#: Labels of nodes that have a card, plug-in or not.
_HAS_CARD: Final = (
    *("feature.node.kubernetes.io/pci-10de.present", "feature.node.kubernetes.io/pci-0300_10de.present"),
    *("feature.node.kubernetes.io/pci-0302_10de.present", "nvidia.com/gpu.present"),
    *("cloud.google.com/gke-accelerator", "karpenter.k8s.aws/instance-gpu-name"),
    *("feature.node.kubernetes.io/pci-1002.present", "kubernetes.azure.com/accelerator"),
)
_ARCHES: Final = {"amd64": "x86_64", "arm64": "arm64"}


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """So much of a node."""

    cpus_milli: int
    memory_bytes: int
    units: int = 0  # of its accelerator's resource
    disk_bytes: int = 0


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """One node, as what pods can have of it."""

    name: str
    arch: str
    is_open: bool  # ready, and not cordoned
    spot: tuple[str, str] | None  # the label that says so
    resource: str  # of its accelerators, or the class of devices; "": it has none
    unit_milli: int  # of an accelerator in one unit of the resource
    model: str  # "": not known
    label: tuple[str, str]  # that tells the model
    device_bytes: int
    whole: Room
    free: Room
    has_card: bool
    free_milli: int | None = None  # of cards of which any part can be had; None: they are given as units
    by_claim: bool = False  # pods get them by claims on devices
    selector: str = ""  # that tells those devices from others of their class


class Card(msgspec.Struct, frozen=True):
    """One card as HAMi notes it."""

    type: str
    devmem: int = 0  # megabytes
    health: bool = True


def machines_of(
    nodes: Sequence[ClusterNode], loads: Sequence[Load], lots: Sequence[Lot] = ()
) -> list[Machine]:
    """A node with several resources of accelerators, or kinds of devices (`lots`), is several machines. What
    a device plug-in gives is asked for by its resource, whoever else lists it."""
    taken: dict[str, list[Load]] = {}
    for load in loads:
        if load.spec.node_name and load.status.phase not in ("Succeeded", "Failed"):
            taken.setdefault(load.spec.node_name, []).append(load)
    found = []
    for node in nodes:
        have = node.status.allocatable
        kinds = [name for name in have if name in RESOURCES or name.startswith(MIG)]
        kinds = [name for name in kinds if quantity(have[name]) > 0]
        mine = [each for each in lots if each.node == node.metadata.name] if not kinds else []
        bare = [_machine(node, name, taken.get(node.metadata.name, ())) for name in kinds or [""]]
        found += [_of_lot(bare[0], each) for each in mine] or bare
    return found


def _machine(node: ClusterNode, resource: str, loads: Sequence[Load]) -> Machine:
    labels, have = node.metadata.labels, node.status.allocatable
    whole = Room(
        cpus_milli=int(quantity(have.get("cpu", "0")) * 1000),
        memory_bytes=int(quantity(have.get("memory", "0"))),
        units=int(quantity(have.get(resource, "0"))) if resource else 0,
        disk_bytes=int(quantity(have.get("ephemeral-storage", "0"))),
    )
    model, key, value = model_in(labels) if resource else ("", "", "")
    ready = any(each.type == "Ready" and each.status == "True" for each in node.status.conditions)
    spot = next(((name, labels[name]) for name, words in _SPOT.items() if labels.get(name) in words), None)
    made = Machine(
        name=node.metadata.name,
        arch=_ARCHES.get(labels.get("kubernetes.io/arch", ""), "x86_64"),
        is_open=ready and not node.spec.unschedulable,
        spot=spot,
        resource=resource,
        unit_milli=_unit_milli(resource, labels),
        model=model,
        label=(key, value),
        device_bytes=int(quantity(labels.get("nvidia.com/gpu.memory", "0"))) << 20,
        whole=whole,
        free=Room(
            cpus_milli=whole.cpus_milli - _asked(loads, "cpu", 1000),
            memory_bytes=whole.memory_bytes - _asked(loads, "memory", 1),
            units=whole.units - (_asked(loads, resource, 1) if resource else 0),
            disk_bytes=whole.disk_bytes,
        ),
        has_card=any(labels.get(each) not in (None, "", "false") for each in _HAS_CARD),
    )
    cards = _cards_of(node) if resource == "nvidia.com/gpu" else []
    return _of_cards(made, cards, node, loads) if cards else made


def _of_lot(machine: Machine, lot: Lot) -> Machine:
    """A node with devices of one kind."""
    replace = msgspec.structs.replace
    return replace(
        machine,
        resource=lot.device_class,
        unit_milli=_of_profile(lot.profile) or 1000,
        model=lot.model,
        device_bytes=lot.device_bytes,
        whole=replace(machine.whole, units=lot.units),
        free=replace(machine.free, units=lot.free),
        by_claim=True,
        selector=lot.selector,
    )


def _cards_of(node: ClusterNode) -> list[Card]:
    """The cards of a node that HAMi divides; []: it does not, or not so that we can read it."""
    try:
        cards = msgspec.json.decode(node.metadata.annotations.get(HAMI, "[]"), type=list[Card])
    except msgspec.MsgspecError:
        return []
    return [card for card in cards if card.health]


def _of_cards(machine: Machine, cards: Sequence[Card], node: ClusterNode, loads: Sequence[Load]) -> Machine:
    """The machine with its cards as units: HAMi counts as many as tasks that may share them."""
    used = sum(_milli_of(each.resources.requests, cards) for load in loads for each in load.spec.containers)
    free_milli = max(0, 1000 * len(cards) - used)
    host = "kubernetes.io/hostname"
    named = machine.label if machine.model else (host, node.metadata.labels.get(host, node.metadata.name))
    replace = msgspec.structs.replace
    return replace(
        machine,
        model=machine.model or model_named(cards[0].type),
        label=named,
        device_bytes=machine.device_bytes or cards[0].devmem << 20,
        unit_milli=1000,
        whole=replace(machine.whole, units=len(cards)),
        free=replace(machine.free, units=free_milli // 1000),
        free_milli=free_milli,
    )


def _milli_of(requests: dict[str, str], cards: Sequence[Card]) -> int:
    """What a container has of a node's cards together: of each as much as of its memory."""
    count, percent = (int(quantity(requests.get(name, "0"))) for name in ("nvidia.com/gpu", MEMORY_PART))
    if megabytes := int(quantity(requests.get(_MEMORY_MB, "0"))):
        percent = min(100, -(-100 * megabytes // max(1, cards[0].devmem)))
    return count * 10 * (percent or 100)


def _unit_milli(resource: str, labels: dict[str, str]) -> int:
    """A MIG instance is as many sevenths of a card as its name says; a card that programs take in turns
    counts as often as it is told to."""
    product = labels.get("nvidia.com/gpu.product", "").partition("-MIG-")[2]
    if part := _of_profile(resource) or _of_profile(product):
        return part
    replicas = labels.get("nvidia.com/gpu.replicas", "1")
    shared = resource.startswith("nvidia.com/gpu") and replicas.isdigit() and int(replicas) > 1
    return 1000 // int(replicas) if shared else 1000


def _of_profile(text: str) -> int:
    """Thousandths of a card that a MIG profile in a name is; 0: there is none."""
    found = _PROFILE.search(text)
    return 1000 * min(7, int(found[1])) // 7 if found else 0


def _asked(loads: Sequence[Load], resource: str, scale: int) -> int:
    """What pods have asked for: the sum of their containers, or the most that one of those that run before
    them asks for."""
    total = 0
    for load in loads:
        running = sum(quantity(each.resources.requests.get(resource, "0")) for each in load.spec.containers)
        before = [quantity(each.resources.requests.get(resource, "0")) for each in load.spec.init_containers]
        total += int(max([running, *before]) * scale)
    return total


def offers_of(
    machines: Sequence[Machine], *, provider: str, context: str, scale_s: int, now_ms: int
) -> list[Offer]:
    """For each model (and none), architecture and kind of capacity: what is free on one node now, and what
    a whole node gives to whoever waits. `scale_s`: so long until an autoscaler has added a node; 0: none
    does."""
    kinds: dict[tuple[str, int, str, bool], list[Machine]] = {}
    for each in machines:
        if each.is_open and each.model:
            kinds.setdefault((each.model, each.unit_milli, each.arch, each.spot is not None), []).append(each)
    for arch, spot in {(each.arch, each.spot is not None) for each in machines if each.is_open}:
        mine = [
            each for each in machines if each.is_open and (each.arch, each.spot is not None) == (arch, spot)
        ]
        kinds[("", 1000, arch, spot)] = [each for each in mine if not each.resource] or mine
    offers = []
    for (model, unit_milli, arch, spot), mine in sorted(kinds.items()):
        now = max((each.free for each in mine), key=_size)
        whole = max((each.whole for each in mine), key=_size)
        rooms: list[tuple[Room, int | None]] = [(whole, scale_s or None)] if whole != now else []
        if now.cpus_milli > 0 and now.memory_bytes > 0 and (now.units > 0 or not model):
            rooms.append((now, 0))
        for room, wait_s in rooms:
            offer = Offer(
                provider=provider,
                region=context,
                shape=_shape(room, model, unit_milli, arch, max(each.device_bytes for each in mine)),
                capacity=Capacity.SPOT if spot else Capacity.QUEUED,
                price_micro_usd=0,
                quoted_at_ms=now_ms,
                divisible=True,
                wait_s=wait_s,
                order=0 if wait_s == 0 else 1,
            )
            offers.append(offer)
    return offers


def _size(room: Room) -> tuple[int, int, int]:
    return room.units, room.cpus_milli, room.memory_bytes


def _shape(room: Room, model: str, unit_milli: int, arch: str, device_bytes: int) -> Shape:
    """Of shared cards a task gets at most one share: more would not be of the same card."""
    milli = 0 if not model else 1000 * room.units if unit_milli == 1000 else unit_milli
    size = f"{room.cpus_milli // 1000}c-{room.memory_bytes >> 30}g"
    return Shape(
        instance_type=f"{milli / 1000:g}x{model}-{size}" if model else size,
        cpus_milli=room.cpus_milli,
        memory_bytes=room.memory_bytes,
        accelerator=model or None,
        accelerators_milli=milli,
        accelerator_memory_bytes=sold_memory(device_bytes) if model else 0,
        arch=arch,
        disk_bytes=room.disk_bytes,
    )


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """What one pod of a claim asks for."""

    cpus_milli: int
    memory_bytes: int
    model: str
    milli: int
    arch: str
    spot: bool


Expression = tuple[str, str, tuple[str, ...]]  # label, In or NotIn, values


class Match(msgspec.Struct, frozen=True, kw_only=True):
    """Where such a pod can go."""

    resource: str  # of a device plug-in, or a class of devices
    units: int
    terms: tuple[tuple[Expression, ...], ...]  # labels of its node: all of one of them; (): any node
    most: int  # pods that fit when nothing else runs
    now: int  # that fit at present
    percent: int = 0  # of one card, where any part can be had; 0: cards or units as they are
    by_claim: bool = False  # they are had by a claim on devices
    selector: str = ""  # which devices; "": all of their class


def match_of(machines: Sequence[Machine], ask: Ask) -> Match | None:
    """None: no node has such accelerators in such parts."""
    mine = [each for each in machines if each.is_open and each.arch == ask.arch]
    mine = [each for each in mine if (each.spot is not None) == ask.spot]
    if ask.milli:
        whole = ask.milli % 1000 == 0
        mine = [each for each in mine if each.model == ask.model]
        mine = [each for each in mine if (each.unit_milli == 1000) == whole or each.free_milli is not None]
        mine = [each for each in mine if whole or ask.milli <= each.unit_milli]
        mine = mine if whole else [_parted(each, ask.milli) for each in mine]
    if not mine:
        return None
    best = min((each.unit_milli for each in mine), default=1000)
    first = next(each for each in mine if each.unit_milli == best)
    if ask.milli:
        mine = [each for each in mine if _way(each) == _way(first)]
    units = (1 if ask.milli % 1000 else ask.milli // 1000) if ask.milli else 0
    size = Room(cpus_milli=ask.cpus_milli, memory_bytes=ask.memory_bytes, units=units)
    return Match(
        resource=first.resource if units else "",
        units=units,
        terms=_terms(machines, mine, by_model=bool(units)),
        most=sum(_fits(each.whole, size) for each in mine),
        now=sum(_fits(each.free, size) for each in mine),
        percent=-(-ask.milli // 10) if ask.milli % 1000 and first.free_milli is not None else 0,
        by_claim=first.by_claim and units > 0,
        selector=_any_of({each.selector for each in mine}) if first.by_claim and units else "",
    )


def _way(machine: Machine) -> tuple[str, bool, bool]:
    """How a pod asks for accelerators of a node."""
    return machine.resource, machine.free_milli is None, machine.by_claim


def _any_of(selectors: set[str]) -> str:
    """
    >>> _any_of({"a == 1"}), _any_of({"a == 1", "a == 2"})
    ('a == 1', '(a == 1) || (a == 2)')
    """
    several = sorted(selectors)
    return several[0] if len(several) == 1 else " || ".join(f"({each})" for each in several)


def _parted(machine: Machine, milli: int) -> Machine:
    """The machine with parts of its cards as units."""
    if machine.free_milli is None:
        return machine
    replace = msgspec.structs.replace
    whole = replace(machine.whole, units=machine.whole.units * (1000 // milli))
    return replace(machine, whole=whole, free=replace(machine.free, units=machine.free_milli // milli))


def _terms(
    every: Sequence[Machine], mine: Sequence[Machine], *, by_model: bool
) -> tuple[tuple[Expression, ...], ...]:
    spots: dict[str, set[str]] = {}
    for each in every:
        if each.spot is not None:
            spots.setdefault(each.spot[0], set()).add(each.spot[1])
    alike: dict[tuple[str, str], list[Machine]] = {}
    for each in mine:
        keys = (each.label[0] if by_model else "", each.spot[0] if each.spot else "")
        alike.setdefault(keys, []).append(each)
    terms = []
    for (key, spot), ones in sorted(alike.items()):
        models = tuple(sorted({each.label[1] for each in ones}))
        term: list[Expression] = [(key, "In", models)] if key else []
        if spot:
            term.append((spot, "In", tuple(sorted({each.spot[1] for each in ones if each.spot}))))
        else:
            term += [(name, "NotIn", tuple(sorted(values))) for name, values in sorted(spots.items())]
        terms.append(tuple(term))
    return () if () in terms else tuple(terms)


def _fits(room: Room, size: Room) -> int:
    """How often `size` fits into `room`."""
    pairs = (
        (room.cpus_milli, size.cpus_milli),
        (room.memory_bytes, size.memory_bytes),
        (room.units, size.units),
    )
    return max(0, min((have // asked for have, asked in pairs if asked), default=1000))
