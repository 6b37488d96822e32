"""Confirmed plans: what a launch must keep to, and whether it still can. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from argosy.model.offer import Capacity, Choice, Confirmed, Offer, Plan, offer_key
from argosy.model.units import render_price

TRIED: Final = 6  # so many choices of a plan are tried before it is planned again


def limit_of(plan: Plan, offers: Sequence[Offer]) -> int | None:
    """The most that a launch of this plan costs per hour: the dearest of the choices that it tries, and the
    cheapest of each capacity (a deadline may take on-demand after spot). One that waits for owned machines
    costs what these do; None when nothing is known."""
    if not plan.choices:
        owned = [offer.price_micro_usd for offer in offers if offer.capacity is Capacity.OWNED]
        return max(owned) * plan.num_nodes if owned else None
    least: dict[Capacity, int] = {}
    for choice in plan.choices:
        price = choice.price_micro_usd
        least[choice.offer.capacity] = min(price, least.get(choice.offer.capacity, price))
    return max(*least.values(), *(choice.price_micro_usd for choice in plan.choices[:TRIED]))


def order_of_plan(plan: Plan) -> tuple[str, ...]:
    return tuple(offer_key(choice.offer) for choice in plan.choices[:TRIED])


def keep_to(choices: Sequence[Choice], confirmed: Confirmed | None) -> tuple[tuple[Choice, ...], str]:
    """The choices that are not too dear, those first that were confirmed; and why there is none, when all
    are too dear."""
    if confirmed is None:
        return tuple(choices), ""
    limit = confirmed.max_hourly_micro_usd
    kept = [each for each in choices if limit is None or each.price_micro_usd <= limit]
    if limit is not None and choices and not kept:
        least = min(choices, key=lambda each: each.price_micro_usd)
        return (), (
            f"waits for a price of at most {render_price(limit)}/h, as it was launched: "
            f"{place_text(least)} costs {render_price(least.price_micro_usd)}/h now"
        )
    place = {key: number for number, key in enumerate(confirmed.order)}
    kept.sort(key=lambda each: place.get(offer_key(each.offer), len(place)))
    return tuple(kept), ""


def what_changed(confirmed: Plan, now: Plan, offers: Sequence[Offer]) -> str:
    """Why `confirmed` cannot be ordered any more, as `now` is what can be had; "" when it can. An owned
    machine that is in use by now is waited for."""
    if not confirmed.choices:
        return ""
    first = confirmed.choices[0]
    key = offer_key(first.offer)
    price = f"{render_price(first.price_micro_usd)}/h"
    prices = [each.price_micro_usd for each in now.choices if offer_key(each.offer) == key]
    if not prices:
        is_owned = first.offer.capacity is Capacity.OWNED
        if is_owned and any(offer_key(offer) == key for offer in offers):
            return ""
        return f"{place_text(first)} at {price} is not offered any more"
    if min(prices) <= first.price_micro_usd:
        return ""
    return f"{place_text(first)} costs {render_price(min(prices))}/h now, it was {price}"


def place_text(choice: Choice) -> str:
    """The place and the machine of a choice, as people read of them in a sentence."""
    offer = choice.offer
    place = "/".join(part for part in (offer.provider, offer.region, offer.zone) if part)
    spot = "spot" if offer.capacity is Capacity.SPOT else ""
    return " ".join(part for part in (place, offer.shape.instance_type, spot) if part)
