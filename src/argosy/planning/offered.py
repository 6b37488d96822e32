"""Available offers of all places in use: live quotes, and the rows of the catalog for providers whose offers
are priced there.

`plan_offered` is `choose.plan` over both. A live quote takes the place of the catalog's row of the same
machine in the same place; a closed one takes rows away. Of tens of thousands of rows only the cheapest of
each provider, candidate and capacity become choices; what was found is kept until prices change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from argosy.model.areas import Atlas
from argosy.model.market import Market
from argosy.model.offer import Capacity, Choice, Offer, Plan, Rejection
from argosy.model.resources import Resources
from argosy.planning.ability import Ability, Usage
from argosy.planning.choose import order_of, plan
from argosy.planning.market import rank

ROWS: Final = 48  # of the catalog that become choices, for each provider, candidate and capacity
_ROWS_WEIGHED: Final = 400  # where not the cheapest is the best: all regions are looked at
_KEPT_MAX: Final = 2000  # answers that are kept for other tasks with the same wish

Hidden = Callable[[Offer], bool]


def rows_for(objective: str) -> int:
    """How many rows of each provider are choices of a task with this objective."""
    return ROWS if objective == "cost" else _ROWS_WEIGHED


class Offered(NamedTuple):
    """A plan, and how many offers fit in all: only the cheapest of them are its choices."""

    plan: Plan
    fitting: int


class Supply(NamedTuple):
    """What can be had. `priced`: rows of the catalog that can be launched (None: there are none); the other
    fields are as for `choose.plan`."""

    offers: Sequence[Offer]
    abilities: Mapping[str, Ability]
    priced: Priced | None = None
    usage: Mapping[str, Usage] | None = None
    atlas: Atlas | None = None


class _Rows(NamedTuple):
    """The cheapest rows of one provider for one candidate and capacity. `more`: there are dearer ones."""

    choices: Sequence[Choice]
    fitting: int
    more: bool
    refused: tuple[Rejection, ...]


class KeptPlans:
    """Plans, kept while the live offers are the same object: a thousand jobs that ask for the same are
    planned once. For one set of rows of the catalog, abilities and atlas; not for use by two threads."""

    def __init__(self) -> None:
        self._plans: dict[tuple[tuple[Resources, ...], int, bool, int], Plan] = {}
        self._offers: Sequence[Offer] = ()

    def plan(
        self, resources: tuple[Resources, ...], num_nodes: int, supply: Supply, *, ordered: bool, limit: int
    ) -> Plan:
        """`plan_offered` for controllers."""
        if supply.offers is not self._offers or len(self._plans) >= _KEPT_MAX:
            self._plans.clear()
            self._offers = supply.offers
        key = (resources, num_nodes, ordered, limit)
        found = self._plans.get(key)
        if found is None:
            found, _ = plan_offered(resources, num_nodes, supply, ordered=ordered, limit=limit)
            self._plans[key] = found
        return found


class Priced(KeptPlans):
    """Rows of the catalog that can be launched: those of `market`. Keeps what it found for a wish, too."""

    def __init__(self, market: Market) -> None:
        super().__init__()
        self.market = market
        self._rows: dict[tuple[str, Resources, int, int], _Rows] = {}

    def rows(
        self, name: str, wish: Resources, num_nodes: int, limit: int, ability: Ability, atlas: Atlas | None
    ) -> _Rows:
        """The `limit` cheapest rows of one provider for one candidate that says whether it wants spot."""
        key = (name, wish, num_nodes, limit)
        found = self._rows.get(key)
        if found is None:
            only = Market((name,), self.market.block, self.market.vendors)
            ranking = rank((wish,), num_nodes, only, abilities={name: ability}, limit=limit, atlas=atlas)
            choices = ranking.plan.choices
            found = _Rows(choices, ranking.fitting, len(choices) == limit, ranking.plan.rejected)
            if len(self._rows) >= _KEPT_MAX:
                self._rows.clear()
            self._rows[key] = found
        return found


def plan_offered(
    resources: Sequence[Resources],
    num_nodes: int,
    supply: Supply,
    *,
    ordered: bool = False,
    limit: int = ROWS,
    without: Hidden | None = None,
) -> Offered:
    """The plan over live offers and the catalog's rows.

    Args:
        limit: how many rows of each provider, candidate and capacity become choices.
        without: offers that are left out silently: places that have just refused.
    """
    offers, abilities, priced, usage, atlas = supply
    closed = [offer for offer in offers if offer.closed]
    open_offers = [offer for offer in offers if not offer.closed] if closed else offers
    names = frozenset(priced.market.providers) if priced is not None else frozenset()
    live = plan(
        resources, num_nodes, open_offers, abilities=abilities, usage=usage, ordered=ordered, atlas=atlas
    )  # fmt: skip
    kept = [each for each in live.choices if without is None or not without(each.offer)]
    if priced is None:
        return Offered(
            replace(live, choices=tuple(kept)) if len(kept) < len(live.choices) else live, len(kept)
        )
    rejected = [each for each in live.rejected if each.provider != "-"]
    fitting = len(kept)
    overlay = _Overlay(open_offers, closed, names, without)
    ranked = [(order_of(each, _preference(resources, each, ordered)), each) for each in kept]
    for name in priced.market.providers:
        ability = abilities.get(name, Ability())
        found_any = any(each.offer.provider == name for each in kept)
        last: tuple[Rejection, ...] = ()
        for position, wish in enumerate(resources):
            for asked in _by_capacity(wish, ability):
                rows, count, refused = _visible(
                    priced, name, asked, num_nodes, limit, ability, atlas, overlay
                )
                fitting += count
                last = refused[-1:] or last
                for choice in rows:
                    found_any = True
                    choice = choice if asked is wish else replace(choice, resources=wish)
                    ranked.append((order_of(choice, position if ordered else 0), choice))
        if not found_any:
            rejected += last
    rejected += overlay.told()
    ranked.sort(key=lambda pair: pair[0])
    made = Plan(num_nodes=num_nodes, choices=tuple(choice for _, choice in ranked), rejected=tuple(rejected))
    return Offered(made, fitting)


def _preference(resources: Sequence[Resources], choice: Choice, ordered: bool) -> int:
    return list(resources).index(choice.resources) if ordered else 0


def _by_capacity(wish: Resources, ability: Ability) -> Sequence[Resources]:
    """One wish for each capacity that would do: the cheapest of one must not hide the other."""
    if wish.use_spot is not None:
        return (wish,)
    steady = replace(wish, use_spot=False)
    return (steady, replace(wish, use_spot=True)) if ability.spot else (steady,)


class _Overlay:
    """Which rows of the catalog count: those that no live offer speaks of and nothing closes."""

    def __init__(
        self, offers: Sequence[Offer], closed: Sequence[Offer], names: frozenset[str], without: Hidden | None
    ) -> None:
        self._live = {_key(offer) for offer in offers if offer.provider in names}
        self._closed = [offer for offer in closed if offer.provider in names]
        self._without = without
        self._hid: dict[tuple[str, str, str], Rejection] = {}

    @property
    def hides_some(self) -> bool:
        return bool(self._live or self._closed or self._without is not None)

    def hides(self, offer: Offer) -> bool:
        """Whether the row is not an offer. What closed it is told later."""
        if _key(offer) in self._live:
            return True
        for each in self._closed:
            if closes(each, offer):
                key = (each.provider, each.region, each.closed)
                text = each.closed
                self._hid.setdefault(
                    key, Rejection(provider=each.provider, region=each.region, code="capacity", text=text)
                )
                return True
        return self._without is not None and self._without(offer)

    def told(self) -> Iterable[Rejection]:
        """What was closed of what would have fitted."""
        return self._hid.values()


def closes(closed: Offer, offer: Offer) -> bool:
    """Whether a closed offer speaks of `offer`: an empty region, zone or instance type stands for all."""
    return (
        closed.provider == offer.provider
        and closed.region in ("", offer.region)
        and closed.zone in ("", offer.zone)
        and closed.shape.instance_type in ("", offer.shape.instance_type)
        and closed.capacity is offer.capacity
    )


def _key(offer: Offer) -> tuple[str, str, str, Capacity, str]:
    return offer.provider, offer.region, offer.zone, offer.capacity, offer.shape.instance_type


def _visible(
    priced: Priced,
    name: str,
    wish: Resources,
    num_nodes: int,
    limit: int,
    ability: Ability,
    atlas: Atlas | None,
    overlay: _Overlay,
) -> tuple[list[Choice], int, tuple[Rejection, ...]]:
    """The `limit` cheapest rows that count. Where many are hidden, more are looked at."""
    asked = limit
    while True:
        found = priced.rows(name, wish, num_nodes, asked, ability, atlas)
        if not overlay.hides_some:
            return list(found.choices), found.fitting, found.refused
        rows = [each for each in found.choices if not overlay.hides(each.offer)]
        hidden = len(found.choices) - len(rows)
        if len(rows) >= limit or not found.more:
            return rows[:limit], found.fitting - hidden, found.refused
        asked *= 2
