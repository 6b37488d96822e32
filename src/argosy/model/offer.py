"""Offers, plans and refusals: what is available, what was chosen, and why not the others."""

from __future__ import annotations

from enum import StrEnum

import msgspec

from argosy.model.facts import NodeFacts
from argosy.model.resources import Resources


class Capacity(StrEnum):
    OWNED = "owned"
    ON_DEMAND = "on-demand"
    SPOT = "spot"
    QUEUED = "queued"
    RESERVED = "reserved"  # paid for or promised by contract: a finite number of nodes


class Shape(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node of an offer."""

    instance_type: str = ""
    cpus_milli: int = 0
    memory_bytes: int = 0
    accelerator: str | None = None
    accelerators_milli: int = 0
    accelerator_memory_bytes: int = 0  # per device
    arch: str = "x86_64"
    disk_bytes: int = 0


class OwnedMachine(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One of the machines of an owned offer that stands for different ones."""

    name: str  # as people call it: `gpu1`; unique in its place
    facts: NodeFacts  # without what changes from minute to minute
    closed: str = ""  # why it takes nothing new, as the end of a sentence: `does not answer`

    @property
    def is_open(self) -> bool:
        return not self.closed


class Offer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Something that can be had at a price.

    An owned offer is one machine, `nodes_max` equal ones, or all of `machines`: then `shape` says of each
    amount the most that one of them has, and `accelerator` is one of the models that they have.
    """

    provider: str
    region: str = ""
    zone: str = ""
    shape: Shape
    capacity: Capacity
    price_micro_usd: int  # per node and hour
    quoted_at_ms: int = 0
    estimated: bool = False
    nodes_max: int | None = None  # None: not known
    divisible: bool = (
        False  # not owned, and still any part of a node can be had: its books are kept elsewhere
    )
    parts: bool = False  # a part of one accelerator, too
    wait_s: int | None = None  # until it could start, as the queue of its place estimates; None: not known
    order: int = 0  # of equally dear offers of a place the lowest comes first
    facts: NodeFacts | None = None  # owned machines: what each of them is; kept out of choices
    # Why it cannot be had: a quota of 0. An empty region, zone or type stands for all of them.
    closed: str = ""
    machines: tuple[
        OwnedMachine, ...
    ] = ()  # of a place with different ones: all of them; kept out of choices
    apart: bool = False  # nodes of one claim stand on different machines: so it is where `machines` are named

    def machines_for(self, zone: str | None) -> tuple[OwnedMachine, ...]:
        """Those that `infra: PROVIDER/REGION/ZONE` asks for: the machine of that name, or all."""
        if zone in (None, "", "*"):
            return self.machines
        return tuple(each for each in self.machines if each.name == zone)


BUSY = "busy"  # the code of rejections that time may cure: the capacity is there and in use


class Rejection(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A class of offers that does not fit, and why. Never raised: a value."""

    provider: str
    region: str = ""
    code: (
        str  # kebab-case: cpus, memory, accelerator, capacity, price-cap, disk, region, spot, busy, fraction
    )
    text: str


class Choice(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An offer with the candidate that it satisfies, and what a node of it will hold."""

    offer: Offer
    resources: Resources
    cpus_milli: int  # per node, granted (0: shares all CPUs)
    memory_bytes: int  # per node, granted (0: shares)
    accelerator: str | None = None
    accelerators_milli: int = 0  # per node
    price_micro_usd: int = 0  # for all nodes, per hour


class Plan(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A complete decision: choices in the order in which they are tried, and every refusal."""

    num_nodes: int
    choices: tuple[Choice, ...] = ()
    rejected: tuple[Rejection, ...] = ()


class Confirmed(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a launch was told to keep to. Controllers order nothing dearer, and try these offers first."""

    max_hourly_micro_usd: int | None = None  # of all nodes; None: any price
    order: tuple[str, ...] = ()  # keys of offers (`offer_key`)


def place_of(offer: Offer) -> str:
    """What the machines of an owned offer have in common. Offers of one machine that differ in the model of
    accelerator only are the same place."""
    parts = (offer.provider, offer.region, offer.zone, offer.shape.instance_type)
    return "/".join(parts).rstrip("/")


def machine_id(place: str, name: str) -> str:
    """How placements call a machine of a place that has several.

    >>> machine_id("ssh/lab", "gpu1")
    'ssh/lab#gpu1'
    """
    return f"{place}#{name}"


class Tried(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A place that was asked for machines and gave none."""

    provider: str
    region: str = ""
    zone: str = ""
    instance_type: str = ""
    spot: bool = False
    reach: str = "zone"  # how far the refusal reaches: zone, region (of this type), provider
    text: str  # what the provider said
    at_ms: int


def offer_key(offer: Offer) -> str:
    """Which offer it is, whatever it costs at present."""
    shape = offer.shape
    parts = (offer.provider, offer.region, offer.zone, offer.capacity.value, shape.instance_type)
    return "/".join((*parts, shape.accelerator or ""))


def waits_for(plan: Plan) -> str:
    """What a task waits for that has nowhere to go at present but will; "" when that is not so."""
    return "" if plan.choices else next((each.text for each in plan.rejected if each.code == BUSY), "")


class DeviceShare(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    index: int
    milli: int  # 1000 is the whole device
    mechanism: str = (
        ""  # how a part is kept apart: mps, mig; "": it takes turns with others, or is the whole device
    )
    memory_bytes: int = 0  # of the device's memory; 0: no limit
    profile: str = ""  # of a MIG instance: `2g.20gb`
    slot: int = -1  # and its first memory slice on the card


class Placement(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, gc=False):
    """Where one rank goes and what it may use there."""

    rank: int
    node_id: str
    cpus_milli: int = 0
    memory_bytes: int = 0
    devices: tuple[DeviceShare, ...] = ()
