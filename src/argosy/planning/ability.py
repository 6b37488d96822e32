"""What the planner knows of a provider, and of what claims hold of an owned one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from argosy.model.offer import Placement
from argosy.model.phases import ClaimPhase
from argosy.model.rows import Claim


class Ability(msgspec.Struct, frozen=True, kw_only=True):
    """What a provider can do, as its manifest says."""

    spot: bool = False
    multi_node: bool = False
    fractions: bool = False
    owned: bool = False
    ports: bool = False  # `ports` can be opened to others
    images: bool = False  # programs may run in a container image
    machine_images: bool = False  # machines start from an image of the user's choice
    networks: bool = False  # machines join a network of the user's choice
    quotas: bool = False  # what the account may have is known
    nodes_max: int | None = None  # of one claim
    nodes_text: str = ""  # why: this machine runs at most 128 nodes


class Held(NamedTuple):
    """What claims hold of one machine."""

    cpus_milli: int
    memory_bytes: int
    accelerators_milli: int
    holders: tuple[str, ...]


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What claims hold of one owned provider. CPUs and memory count only where they were asked for by
    number."""

    cpus_milli: int = 0
    memory_bytes: int = 0
    accelerators_milli: int = 0
    holders: tuple[str, ...] = ()  # names or ids of workloads
    machines: Mapping[str, Held] = {}  # what is held of single machines, by the ids of placements


def usage_by_provider(claims: Iterable[Claim], names: Mapping[str, str] | None = None) -> dict[str, Usage]:
    """Sum of what live claims hold, by provider. Claims at rest hold nothing.

    Args:
        names: what to call the owner of a claim (default: its id).
    """
    total: dict[str, Usage] = {}
    machines: dict[str, dict[str, Held]] = {}
    for claim in claims:
        if claim.phase in (ClaimPhase.GONE, ClaimPhase.STOPPED):
            continue
        name, choice = claim.choice.offer.provider, claim.choice
        holder = (names or {}).get(claim.workload_id, claim.workload_id)
        old = total.get(name, Usage())
        if choice.offer.apart:
            _add_placed(machines.setdefault(name, {}), claim.placements, holder)
        total[name] = Usage(
            cpus_milli=old.cpus_milli + choice.cpus_milli * claim.count,
            memory_bytes=old.memory_bytes + choice.memory_bytes * claim.count,
            accelerators_milli=old.accelerators_milli + choice.accelerators_milli * claim.count,
            holders=(*old.holders, holder),
            machines=machines.get(name, {}),
        )
    return total


def _add_placed(machines: dict[str, Held], placements: Iterable[Placement], holder: str) -> None:
    for place in placements:
        held = machines.get(place.node_id, NOTHING_HELD)
        machines[place.node_id] = Held(
            held.cpus_milli + place.cpus_milli,
            held.memory_bytes + place.memory_bytes,
            held.accelerators_milli + sum(share.milli for share in place.devices),
            (*held.holders, holder),
        )


NOTHING_HELD = Held(0, 0, 0, ())
