"""Which offer serves a wish: every candidate against every offer, cheapest first, every refusal with its
reason.

Pure: the same wish, offers and claims give the same plan. `launch`, `--dryrun` and the controllers call the
same function, so what is shown is what happens. The constraints themselves are the table in `constraints`;
`market.rank` is the same decision over offers in columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from argosy.model.areas import Atlas
from argosy.model.offer import Capacity, Choice, Offer, Plan, Rejection, Shape
from argosy.model.resources import Resources
from argosy.planning.ability import Ability, Usage
from argosy.planning.constraints import Applied

Key = tuple[int, int, str, str, int, str, str]
PART_CPUS_MILLI: Final = 4000  # of a node that is had in parts, for who names neither CPUs nor accelerators


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
        usage: what live claims hold of owned providers; None: what is free at present does not matter.
        atlas: where regions are, for wishes with `areas` or `excluded` countries; without it no country is
        known.
    """
    ranked: list[tuple[Key, Choice]] = []
    refused: dict[tuple[str, str, str], Rejection] = {}
    for position, wish in enumerate(resources):
        constraints = Applied(wish, num_nodes)
        for offer in offers:
            name = offer.provider
            refusal = constraints.refuse(
                offer,
                abilities.get(name, Ability()),
                usage.get(name, Usage()) if usage is not None else None,
                atlas,
            )
            if refusal is not None:
                code, text = refusal
                rejection = Rejection(provider=name, region=offer.region, code=code, text=text)
                refused.setdefault((name, offer.region, code), rejection)
                continue
            choice = grant(wish, num_nodes, offer)
            ranked.append((order_of(choice, position if ordered else 0), choice))
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


def order_of(choice: Choice, preference: int) -> Key:
    """The order of choices: by preference, then price, then what the place says, then names."""
    offer = choice.offer
    return (
        preference,
        choice.price_micro_usd,
        offer.provider,
        offer.region,
        offer.order,
        offer.zone,
        offer.shape.instance_type,
    )


def grant(wish: Resources, num_nodes: int, offer: Offer) -> Choice:
    """What a node of `offer` will hold for `wish`. On owned machines CPUs and memory without a number are
    shared; of a node that is had in parts they are as large a part as the accelerators are."""
    if offer.capacity is Capacity.OWNED:
        cpus = wish.cpus.amount if wish.cpus else 0
        memory = wish.memory_for(cpus)
        milli = wish.accelerator.milli if wish.accelerator else 0
    elif offer.divisible:
        cpus, memory, milli = _part(wish, offer.shape)
    else:
        shape = offer.shape
        cpus, memory, milli = shape.cpus_milli, shape.memory_bytes, shape.accelerators_milli
    return Choice(
        offer=replace(offer, facts=None, machines=()) if offer.facts or offer.machines else offer,
        resources=wish,
        cpus_milli=cpus,
        memory_bytes=memory,
        accelerator=offer.shape.accelerator if milli else None,
        accelerators_milli=milli,
        price_micro_usd=offer.price_micro_usd * num_nodes,
    )


def _part(wish: Resources, shape: Shape) -> tuple[int, int, int]:
    """CPUs, memory and accelerators of a part of a node."""
    milli = wish.accelerator.milli if wish.accelerator else 0
    if milli and shape.accelerators_milli:
        part = shape.cpus_milli * milli // shape.accelerators_milli // 1000 * 1000
    else:
        part = min(shape.cpus_milli, PART_CPUS_MILLI)
    cpus = wish.cpus.amount if wish.cpus else max(part, 1000)
    memory = wish.memory_for(cpus) or shape.memory_bytes * cpus // max(shape.cpus_milli, 1)
    return cpus, memory, milli
