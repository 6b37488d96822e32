"""Which offer serves a wish: every candidate against every offer, cheapest first, every refusal with its
reason.

Pure: the same wish, offers and claims give the same plan. `launch`, `--dryrun` and the controllers call the
same function, so what is shown is what happens. The constraints themselves are the table in `constraints`;
`market.rank` is the same decision over offers in columns.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from argosy.model.areas import Atlas
from argosy.model.offer import Capacity, Choice, Offer, Plan, Rejection
from argosy.model.resources import Resources
from argosy.planning.ability import Ability, Usage
from argosy.planning.constraints import Applied

Key = tuple[int, int, str, str, str, str]


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
    """The order of choices: by preference, then price, then name of the place and the machine."""
    offer = choice.offer
    return (
        preference,
        choice.price_micro_usd,
        offer.provider,
        offer.region,
        offer.zone,
        offer.shape.instance_type,
    )


def grant(wish: Resources, num_nodes: int, offer: Offer) -> Choice:
    """What a node of `offer` will hold for `wish`. On owned machines CPUs and memory without a number are
    shared."""
    owned = offer.capacity is Capacity.OWNED
    cpus = wish.cpus.amount if wish.cpus and owned else (0 if owned else offer.shape.cpus_milli)
    memory = wish.memory_for(cpus) if owned else offer.shape.memory_bytes
    milli = (
        wish.accelerator.milli
        if wish.accelerator and owned
        else (0 if owned else offer.shape.accelerators_milli)
    )
    return Choice(
        offer=replace(offer, facts=None, machines=()) if offer.facts or offer.machines else offer,
        resources=wish,
        cpus_milli=cpus,
        memory_bytes=memory,
        accelerator=offer.shape.accelerator if milli else None,
        accelerators_milli=milli,
        price_micro_usd=offer.price_micro_usd * num_nodes,
    )
