"""Which single constraint of a wish excludes all candidates: each is dropped in turn, and what fits then is
counted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from msgspec.structs import replace

from argosy.model.areas import Atlas
from argosy.model.errors import ArgosyError
from argosy.model.market import Market
from argosy.model.offer import Choice, Offer
from argosy.model.resources import Resources
from argosy.model.units import render_price
from argosy.planning.ability import Ability
from argosy.planning.choose import plan
from argosy.planning.constraints import relaxations
from argosy.planning.market import rank
from argosy.planning.places import Relaxed

_BOARDS: Final = ("jetson",)  # first words of accelerators that exist in people's own pools only


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
    spread = _spread(wish, num_nodes)
    if spread is not None and (found := fitting(*spread)):
        return (
            f"nothing fits {wanted}: such a board has one device; with one on each, `num_nodes: {spread[1]}` "
            f"takes as many: {_what(found[0])}"
        )
    steps = list(relaxations(wish, spot_was_asked=spot_was_asked))
    blames = [(step.words, found[0]) for step in steps if (found := fitting(step.wish))]
    if num_nodes > 1 and (one := fitting(wish, 1)):
        blames.append((f"`num_nodes: {num_nodes}`", one[0]))
    if len(blames) == 1:
        words, best = blames[0]
        return f"nothing fits {wanted}; without {words} it would run on {_what(best)}"
    if blames:
        listed = "; ".join(f"without {words} it would run on {_what(best)}" for words, best in blames)
        return f"nothing fits {wanted}, and any one of these is enough: {listed}"
    for first, later in ((a, b) for i, a in enumerate(steps) for b in steps[i + 1 :]):
        both = _both(wish, first, later)
        if both is not None and (found := fitting(both)):
            return (
                f"nothing fits {wanted}, and no single constraint is to blame: without {first.words} and "
                f"{later.words} it would run on {_what(found[0])}"
            )
    return f"nothing fits {wanted}, and no two constraints are to blame"


def _spread(wish: Resources, num_nodes: int) -> tuple[Resources, int] | None:
    """As many boards with one device on each node, and how many nodes those are. None: that is what was
    wished, or no board was."""
    accelerator = wish.accelerator
    if accelerator is None or not _is_board(accelerator.model) or accelerator.milli <= 1000:
        return None
    return replace(wish, accelerator=replace(accelerator, milli=1000)), num_nodes * accelerator.milli // 1000


def _is_board(model: str | None) -> bool:
    return model is not None and model.lower().partition("-")[0] in _BOARDS


def explain_no_board(wish: Resources, own: Collection[str]) -> ArgosyError | None:
    """The error for a board at the edge (`Jetson:4`) that no pool has; None when something else is wished.

    Args:
        own: accelerators of the machines in use.
    """
    model = wish.accelerator.model if wish.accelerator is not None else None
    if not _is_board(model):
        return None
    where = f" at `{wish.location}`" if wish.location else ""
    boards = sorted(filter(_is_board, own))
    there = f"; there are {', '.join(boards)}" if boards else ""
    return ArgosyError(
        "no-offer",
        f"no pool has a `{model}`{where}{there}: no cloud rents such boards",
        hint="machines of your own join as a pool (`argosy pool --help`); then `argosy gpus` lists them",
    )


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
    return f"{place}{machine} ({render_price(choice.price_micro_usd)}/h)"
