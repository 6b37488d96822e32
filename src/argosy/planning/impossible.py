"""Which single constraint of a wish removes the last candidate: each is dropped in turn, and what fits then
is counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from msgspec.structs import replace

from argosy.model.areas import Atlas
from argosy.model.market import Market
from argosy.model.offer import Choice, Offer
from argosy.model.resources import Resources
from argosy.model.units import render_price
from argosy.planning.ability import Ability
from argosy.planning.choose import plan
from argosy.planning.constraints import relaxations
from argosy.planning.market import rank
from argosy.planning.places import Relaxed


def explain_impossible(
    wish: Resources,
    offers: Sequence[Offer],
    *,
    num_nodes: int = 1,
    abilities: Mapping[str, Ability] | None = None,
    market: Market | None = None,
    atlas: Atlas | None = None,
    spot_was_asked: bool = True,
) -> str:
    """One sentence for a wish that nothing serves; "" when something does.

    Args:
        offers: single offers; `abilities` by provider, by default several nodes, spot and owned machines are
        possible. market: priced offers in columns, looked through as well. spot_was_asked: False: `use_spot`
        of the wish is not the user's, and not to blame.
    """
    able = abilities or {
        offer.provider: Ability(spot=True, multi_node=True, fractions=True) for offer in offers
    }

    def fitting(each: Resources, count: int = num_nodes) -> list[Choice]:
        if market is not None:
            found = rank([each], count, market, offers=offers, abilities=able, atlas=atlas, limit=1)
            return list(found.plan.choices)
        return list(plan([each], count, offers, abilities=able, atlas=atlas).choices[:1])

    if fitting(wish):
        return ""
    nodes = f" on {num_nodes} nodes" if num_nodes > 1 else ""
    wanted = f"`{wish.render()}`{nodes}"
    if not offers and (market is None or not market.providers):
        return f"nothing fits {wanted}: no infrastructure is enabled"
    steps = list(relaxations(wish, spot_was_asked=spot_was_asked))
    blames = [(step.words, found[0]) for step in steps if (found := fitting(step.wish))]
    if num_nodes > 1 and (one := fitting(wish, 1)):
        blames.append((f"`num_nodes: {num_nodes}`", one[0]))
    if len(blames) == 1:
        words, best = blames[0]
        return f"nothing fits {wanted}: without {words} {_what(best)} would"
    if blames:
        listed = "; ".join(f"without {words} {_what(best)} would" for words, best in blames)
        return f"nothing fits {wanted}, and any one of these is enough: {listed}"
    for first, later in ((a, b) for i, a in enumerate(steps) for b in steps[i + 1 :]):
        both = _both(wish, first, later)
        if both is not None and (found := fitting(both)):
            return (
                f"nothing fits {wanted}, and no single constraint is to blame: without {first.words} and "
                f"{later.words} "
                f"{_what(found[0])} would"
            )
    return f"nothing fits {wanted}, and no two constraints are to blame"


def _both(wish: Resources, first: Relaxed, later: Relaxed) -> Resources | None:
    """The wish without both: what `later` changes is put on top of `first`. None: they drop parts of the same
    field."""
    changed = {
        name: getattr(later.wish, name)
        for name in wish.__struct_fields__
        if getattr(later.wish, name) != getattr(wish, name)
    }
    mine = {name for name in wish.__struct_fields__ if getattr(first.wish, name) != getattr(wish, name)}
    return None if mine & changed.keys() else replace(first.wish, **changed)


def _what(choice: Choice) -> str:
    offer = choice.offer
    place = "/".join(part for part in (offer.provider, offer.region) if part)
    machine = f" {offer.shape.instance_type}" if offer.shape.instance_type else ""
    return f"{place}{machine} at {render_price(choice.price_micro_usd)}/h"
