"""Which offer serves a wish: every candidate against every offer, cheapest first, every refusal with its
reason.

Pure: the same wish, offers and claims give the same plan. `launch`, `--dryrun` and the controllers call the
same function, so what is shown is what happens.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import msgspec
from msgspec.structs import replace

from argosy.model.areas import Atlas, Where, is_within, names_country
from argosy.model.offer import BUSY, Capacity, Choice, Offer, Plan, Rejection
from argosy.model.phases import ClaimPhase
from argosy.model.resources import Accelerator, LocalDisk, Resources
from argosy.model.rows import Claim
from argosy.model.units import render_bytes, render_disk, render_milli, render_price


class Ability(msgspec.Struct, frozen=True, kw_only=True):
    """What the planner needs to know of a provider."""

    spot: bool = False
    multi_node: bool = False
    fractions: bool = False
    owned: bool = False
    nodes_max: int | None = None  # of one claim
    nodes_text: str = ""  # why: this machine runs at most 128 nodes


def refuse_number(num_nodes: int, ability: Ability) -> tuple[str, str] | None:
    """Code and text of why a provider cannot give so many nodes at once; None when it can."""
    if num_nodes > 1 and not ability.multi_node:
        return "multi-node", f"cannot give {num_nodes} nodes at once"
    if ability.nodes_max is not None and num_nodes > ability.nodes_max:
        limit = ability.nodes_text or f"gives at most {ability.nodes_max} nodes at once"
        return "nodes", f"{limit}, asked for {num_nodes}"
    return None


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """What claims hold of one owned provider. CPUs and memory count only where they were asked for by
    number."""

    cpus_milli: int = 0
    memory_bytes: int = 0
    accelerators_milli: int = 0
    holders: tuple[str, ...] = ()  # names or ids of workloads


def usage_by_provider(claims: Iterable[Claim], names: Mapping[str, str] | None = None) -> dict[str, Usage]:
    """Sum of what live claims hold, by provider. Claims at rest hold nothing.

    Args:
        names: what to call the owner of a claim (default: its id).
    """
    total: dict[str, Usage] = {}
    for claim in claims:
        if claim.phase in (ClaimPhase.GONE, ClaimPhase.STOPPED):
            continue
        name, choice = claim.choice.offer.provider, claim.choice
        old = total.get(name, Usage())
        total[name] = Usage(
            cpus_milli=old.cpus_milli + choice.cpus_milli * claim.count,
            memory_bytes=old.memory_bytes + choice.memory_bytes * claim.count,
            accelerators_milli=old.accelerators_milli + choice.accelerators_milli * claim.count,
            holders=(*old.holders, (names or {}).get(claim.workload_id, claim.workload_id)),
        )
    return total


def plan(
    resources: Sequence[Resources],
    num_nodes: int,
    offers: Sequence[Offer],
    *,
    abilities: Mapping[str, Ability],
    usage: Mapping[str, Usage] | None = None,
    ordered: bool = False,
    atlas: Atlas | None = None,
) -> Plan:
    """Choices in the order in which to try them, and one rejection for each class of offers that does not
    fit.

    Args:
        resources: candidates; any of them will do (in order of preference when `ordered`).
        num_nodes: how many equal nodes, all or none.
        offers: what can be had.
        abilities: by provider name; an offer of a provider that is not listed is refused.
        usage: what live claims hold of owned providers.
        atlas: where regions are, for wishes with `areas` or `excluded` countries; without it no country is
        known.
    """
    usage = usage or {}
    ranked: list[tuple[tuple[int, int, str, str, str, str], Choice]] = []
    refused: dict[tuple[str, str, str], Rejection] = {}
    for position, wish in enumerate(resources):
        for offer in offers:
            ability = abilities.get(offer.provider, Ability())
            rejection = refuse(wish, num_nodes, offer, ability, usage.get(offer.provider, Usage()), atlas)
            if rejection is not None:
                refused.setdefault((rejection.provider, rejection.region, rejection.code), rejection)
                continue
            choice = grant(wish, num_nodes, offer)
            preference = position if ordered else 0
            key = (
                preference,
                choice.price_micro_usd,
                offer.provider,
                offer.region,
                offer.zone,
                offer.shape.instance_type,
            )
            ranked.append((key, choice))
    ranked.sort(key=lambda pair: pair[0])
    if not offers:
        refused[("-", "", "capability")] = Rejection(
            provider="-",
            code="capability",
            text="no infrastructure is enabled; `argosy check` says what to do",
        )
    return Plan(
        num_nodes=num_nodes, choices=tuple(choice for _, choice in ranked), rejected=tuple(refused.values())
    )


def grant(wish: Resources, num_nodes: int, offer: Offer) -> Choice:
    """What a node of `offer` will hold for `wish`. On owned machines CPUs and memory without a number are
    shared."""
    owned = offer.capacity is Capacity.OWNED
    cpus = wish.cpus.amount if wish.cpus and owned else (0 if owned else offer.shape.cpus_milli)
    memory = memory_wished(wish, cpus) if owned else offer.shape.memory_bytes
    milli = (
        wish.accelerator.milli
        if wish.accelerator and owned
        else (0 if owned else offer.shape.accelerators_milli)
    )
    return Choice(
        offer=offer if offer.facts is None else replace(offer, facts=None),
        resources=wish,
        cpus_milli=cpus,
        memory_bytes=memory,
        accelerator=offer.shape.accelerator if milli else None,
        accelerators_milli=milli,
        price_micro_usd=offer.price_micro_usd * num_nodes,
    )


def memory_wished(wish: Resources, cpus_milli: int) -> int:
    """Bytes per node that `wish` names: directly, or per CPU."""
    if wish.memory:
        return wish.memory.amount
    return wish.memory_per_cpu_bytes * cpus_milli // 1000


def refuse(
    wish: Resources, num_nodes: int, offer: Offer, ability: Ability, usage: Usage, atlas: Atlas | None = None
) -> Rejection | None:
    """Why `offer` cannot serve `wish`, or None. The first reason in a fixed order; `busy` is the last."""
    shape = offer.shape

    def no(code: str, text: str) -> Rejection:
        return Rejection(provider=offer.provider, region=offer.region, code=code, text=text)

    place = wish.infra
    if place.provider and place.provider != offer.provider:
        return no("infra", f"`infra` asks for {place.provider}")
    if place.region and place.region not in ("*", offer.region):
        return no("region", f"`infra` asks for region {place.region}")
    anywhere = not offer.zone and offer.capacity is not Capacity.OWNED  # in any zone of its region
    if place.zone and place.zone not in ("*", offer.zone) and not anywhere:
        return no("zone", f"`infra` asks for zone {place.zone}")
    if wish.says_where:
        ruled_out = refuse_place(wish, offer.provider, offer.region, offer.zone, atlas)
        if ruled_out is not None:
            return no(*ruled_out)
        if kind_excluded(wish, shape.instance_type, shape.accelerator or "", offer.provider):
            return no("excluded", f"`not` rules out {shape.instance_type or shape.accelerator}")
    if wish.instance_type and wish.instance_type != shape.instance_type:
        return no("instance-type", f"has no instance type {wish.instance_type}")
    if wish.use_spot and not ability.spot:
        return no("spot", "has no spot capacity")
    if wish.use_spot is not None and not ability.owned and wish.use_spot != (offer.capacity is Capacity.SPOT):
        return no("spot", "is spot" if offer.capacity is Capacity.SPOT else "is not spot")
    number = refuse_number(num_nodes, ability)
    if number is not None:
        return no(*number)
    rejection = _refuse_accelerator(wish.accelerator, num_nodes, offer, ability)
    if rejection is not None:
        return rejection
    count = num_nodes if offer.capacity is Capacity.OWNED else 1  # owned offers describe the whole machine
    each = f" for each of {num_nodes} nodes" if count > 1 else ""
    if wish.cpus is not None:
        owned_fits = _gang_fits(wish.cpus.amount, count, shape.cpus_milli, offer)
        if not (owned_fits if offer.capacity is Capacity.OWNED else wish.cpus.holds(shape.cpus_milli)):
            return no(
                "cpus",
                f"has {render_milli(shape.cpus_milli)} CPUs, asked for "
                f"{render_milli(wish.cpus.amount)}{each}",
            )
    cpus = wish.cpus.amount if wish.cpus else shape.cpus_milli
    memory = memory_wished(wish, cpus)
    if memory:
        exact = wish.memory is not None and wish.memory.exact and offer.capacity is not Capacity.OWNED
        fits = _gang_fits(memory, count, shape.memory_bytes, offer)
        if not fits or (exact and memory != shape.memory_bytes):
            return no(
                "memory",
                f"has {render_bytes(shape.memory_bytes)} of memory, asked for {render_bytes(memory)}{each}",
            )
    if wish.node_disk is not None:
        lacking = lacks_disk(wish.node_disk, count, offer)
        if lacking:
            return no("local-disk", lacking + each)
    if (
        wish.disk_size_bytes
        and offer.capacity is Capacity.OWNED
        and wish.disk_size_bytes > shape.disk_bytes > 0
    ):
        return no(
            "disk",
            f"has {render_bytes(shape.disk_bytes)} of free disk, asked for "
            f"{render_bytes(wish.disk_size_bytes)}",
        )
    price = offer.price_micro_usd * num_nodes
    if wish.max_hourly_micro_usd is not None and price > wish.max_hourly_micro_usd:
        return no(
            "price-cap", f"costs {render_price(price)}/h, cap is {render_price(wish.max_hourly_micro_usd)}/h"
        )
    if offer.capacity is Capacity.OWNED:
        return _refuse_busy(wish, num_nodes, offer, usage)
    if offer.nodes_max is not None and num_nodes > offer.nodes_max:
        return no("capacity", f"has {offer.nodes_max} nodes at present, asked for {num_nodes}")
    return None


def lacks_disk(disk: LocalDisk, count: int, offer: Offer) -> str:
    """What an offer lacks for `count` nodes with this local disk, as a clause; "" when it has it.

    On owned machines it is the free room of their disk, and an exact size is a least one, as for memory.
    """
    have = offer.shape.disk_bytes
    if have <= 0:
        return f"has no local disk that is known, asked for {disk.render()}"
    owned = offer.capacity is Capacity.OWNED
    if _gang_fits(disk.bound.amount, count, have, offer) if owned else disk.bound.holds(have):
        return ""
    return f"has {render_disk(have)} of {'free' if owned else 'local'} disk, asked for {disk.render()}"


def refuse_place(
    wish: Resources, provider: str, region: str, zone: str, atlas: Atlas | None
) -> tuple[str, str] | None:
    """Code and text of why a place is outside of the wished areas or in an excluded one; None: it will do.

    Where a country is asked for, a place that is not known to be in it is refused: residency is a promise.
    """
    where = (atlas or {}).get((provider, region))
    if wish.areas and not any(is_within(area, provider, region, zone, where) for area in wish.areas):
        asked = f"`regions` asks for {', '.join(wish.areas)}"
        if where is None and any(names_country(area) for area in wish.areas):
            return "residency", f"its country is not known, {asked}"
        country = f"is in {where.country}, " if where is not None and where.country else ""
        return "residency", f"{country}{asked}"
    for each in wish.excluded:
        if each.instance_type or each.accelerator or not each.area:
            continue
        if is_within(each.area, provider, region, zone, where):
            return "excluded", f"`not` rules out {each.area}"
        if where is None and names_country(each.area):
            return "excluded", f"its country is not known, `not` rules out {each.area}"
    return _refuse_site(wish, provider, region, zone, where)


def _refuse_site(
    wish: Resources, provider: str, region: str, zone: str, where: Where | None
) -> tuple[str, str] | None:
    """The same for sites at the edge: a name of a place is its location, too."""
    if wish.location:
        site = where.location if where is not None else ""
        names = [name.lower() for name in (site, region, zone, f"{provider}/{region}") if name]
        if wish.location.lower() not in names:
            return (
                "location",
                f"is at {site}, not at {wish.location}" if site else f"is not at {wish.location}",
            )
    edge, known = wish.edge, where or Where()
    if edge.bandwidth_kbps and known.bandwidth_kbps < edge.bandwidth_kbps:
        asked = f"`edge_config` asks for {render_bandwidth(edge.bandwidth_kbps)}"
        if not known.bandwidth_kbps:
            return "edge", f"its link is not known, {asked}"
        return "edge", f"its link has {render_bandwidth(known.bandwidth_kbps)}, {asked}"
    if edge.latency_us and not 0 < known.latency_us <= edge.latency_us:
        asked = f"`edge_config` asks for at most {edge.latency_us / 1000:g} ms"
        if not known.latency_us:
            return "edge", f"its latency is not known, {asked}"
        return "edge", f"answers in {known.latency_us / 1000:g} ms, {asked}"
    if edge.power_mw and not 0 < known.power_mw <= edge.power_mw:
        asked = f"`edge_config` allows {edge.power_mw / 1000:g} W"
        if not known.power_mw:
            return "edge", f"its power is not known, {asked}"
        return "edge", f"draws {known.power_mw / 1000:g} W, {asked}"
    return None


def render_bandwidth(kbps: int) -> str:
    """
    >>> render_bandwidth(50_000), render_bandwidth(500), render_bandwidth(2_500_000)
    ('50 Mbps', '500 kbps', '2.5 Gbps')
    """
    for unit, name in ((1_000_000, "Gbps"), (1000, "Mbps")):
        if kbps >= unit:
            return f"{kbps / unit:g} {name}"
    return f"{kbps} kbps"


def kind_excluded(wish: Resources, instance_type: str, accelerator: str, provider: str) -> bool:
    """Whether `not` names this kind of machine (of this provider, where it names one)."""
    return any(
        (not each.instance_type or fnmatchcase(instance_type.lower(), each.instance_type.lower()))
        and (not each.accelerator or each.accelerator.lower() == accelerator.lower())
        and (not each.area or each.area.lower() == provider.lower())
        for each in wish.excluded
        if each.instance_type or each.accelerator
    )


def _refuse_accelerator(
    wish: Accelerator | None, num_nodes: int, offer: Offer, ability: Ability
) -> Rejection | None:
    if wish is None:
        return None
    shape = offer.shape

    def no(code: str, text: str) -> Rejection:
        return Rejection(provider=offer.provider, region=offer.region, code=code, text=text)

    if not shape.accelerators_milli or shape.accelerator is None:
        return no("accelerator", f"has no accelerator, asked for {wish.render()}")
    if wish.model is not None and wish.model.lower() != shape.accelerator.lower():
        return no("accelerator", f"has {shape.accelerator}, asked for {wish.model}")
    if wish.memory_min_bytes > shape.accelerator_memory_bytes:
        has = render_bytes(shape.accelerator_memory_bytes)
        return no(
            "accelerator-memory",
            f"{shape.accelerator} has {has}, asked for {render_bytes(wish.memory_min_bytes)}",
        )
    if offer.capacity is not Capacity.OWNED and wish.milli == shape.accelerators_milli:
        return None  # some clouds sell machines with a part of a device
    if wish.is_fraction and not ability.fractions:
        return no("fraction", "gives whole accelerators only")
    if wish.is_fraction and wish.milli > 1000:
        return no(
            "fraction", f"{render_milli(wish.milli)} accelerators: a share is below 1, more are whole numbers"
        )
    if offer.capacity is Capacity.OWNED:
        if not _gang_fits(wish.milli, num_nodes, shape.accelerators_milli, offer):
            each = f" for each of {num_nodes} nodes" if num_nodes > 1 else ""
            has = f"{render_milli(shape.accelerators_milli)} {shape.accelerator}"
            return no("accelerator", f"has {has}, asked for {render_milli(wish.milli)}{each}")
    elif wish.milli != shape.accelerators_milli and not wish.is_fraction:
        return no(
            "accelerator",
            f"has {render_milli(shape.accelerators_milli)} per node, asked for {render_milli(wish.milli)}",
        )
    return None


def machines_in(offer: Offer) -> int:
    """How many machines an owned offer stands for: its nodes share them."""
    return offer.nodes_max if offer.nodes_max is not None else 1


def _gang_fits(each: int, count: int, shape: int, offer: Offer) -> bool:
    """Whether `count` nodes of `each` fit into the machines of an owned offer, of which one has `shape`; of
    others, into a node."""
    if offer.capacity is not Capacity.OWNED:
        return each <= shape
    return not each or shape // each * machines_in(offer) >= count


def _refuse_busy(wish: Resources, num_nodes: int, offer: Offer, usage: Usage) -> Rejection | None:
    """Whether what is asked for exists here but is held by others at present."""
    shape = offer.shape
    cpus = (wish.cpus.amount if wish.cpus else 0) * num_nodes
    wants = (
        (cpus, usage.cpus_milli, shape.cpus_milli, "CPU" if cpus == 1000 else "CPUs", render_milli),
        (
            memory_wished(wish, cpus // num_nodes) * num_nodes,
            usage.memory_bytes,
            shape.memory_bytes,
            "of memory",
            render_bytes,
        ),
        (
            (wish.accelerator.milli if wish.accelerator else 0) * num_nodes,
            usage.accelerators_milli,
            shape.accelerators_milli,
            shape.accelerator or "",
            render_milli,
        ),
    )
    for want, used, each, unit, render in wants:
        total = each * machines_in(offer)
        if want and want + used > total:
            by = ", ".join(sorted(set(usage.holders))[:3])
            text = f"waits for {render(want)} {unit}: {render(used)} of {render(total)} in use by {by}"
            return Rejection(provider=offer.provider, region=offer.region, code=BUSY, text=text)
    return None
