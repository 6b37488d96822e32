"""How an offer and its price are said: one column each of several tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.model.units import render_duration, render_milli, render_price

if TYPE_CHECKING:
    from collections.abc import Sequence

    from argosy.api.planning import OfferView
    from argosy.model.priced import PriceView, Refused


def place_of(offer: OfferView) -> str:
    """`provider/region/zone`, as far as there is one."""
    return "/".join(part for part in (offer.provider, offer.region, offer.zone) if part)


def accelerators_of(offer: OfferView) -> str:
    """`A100:8`, of one node; "" when there is none."""
    if not offer.accelerators_milli:
        return ""
    return f"{offer.accelerator}:{render_milli(offer.accelerators_milli)}"


def render_view(price: PriceView | None) -> str:
    """A price; estimates are marked."""
    if price is None:
        return ""
    return ("~" if price.estimated else "") + render_price(price.micro_usd)


def render_refused(refused: Sequence[Refused], now_ms: int) -> str:
    """When and where capacity was not there: the last time, and how often else."""
    if not refused:
        return ""
    last = refused[0]
    where = last.zone or last.region
    text = f"{'spot ' if last.spot else ''}{render_duration(max(0, now_ms - last.at_ms) / 1000)} ago"
    text += f" in {where}" if where else ""
    return text + (f", and {len(refused) - 1} more" if len(refused) > 1 else "")
