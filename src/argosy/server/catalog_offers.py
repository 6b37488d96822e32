"""Catalog offers that fit a task, or why none fits: of providers that this server does not use, and rented
machines of those that it uses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import msgspec

from argosy.model.areas import Atlas
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.offer import Choice, Offer
from argosy.model.resources import Resources
from argosy.model.task import Task
from argosy.server.price_list import PriceList
from argosy.server.price_rows import by_price, nobody_has, steady
from argosy.server.rented import RentedRows, some_of

if TYPE_CHECKING:
    from argosy.model.market import Market
    from argosy.planning.ability import Ability
    from argosy.planning.market import Ranking


class CatalogOffers:
    """Ranks the offers of the catalog, which claims no driver."""

    def __init__(self, prices: PriceList, rented: RentedRows, clock: Clock) -> None:
        self._prices, self._rented, self._clock = prices, rented, clock

    def rank(self, task: Task, *, limit: int, rented: bool = False) -> Ranking:
        """Offers of the catalog from providers that are not in use here, best first: all of them are only
        `shown`. `rented`: also of those that are in use."""
        from argosy.planning import market

        wishes = tuple(map(steady, task.resources))
        ranking = market.rank(
            wishes,
            task.num_nodes,
            self.market(rented=rented),
            ordered=task.ordered,
            limit=limit,
            launchable=lambda provider: False,
            atlas=self.atlas(wishes),
        )
        reserved = self.reserved(wishes, task)
        if not reserved:
            return ranking
        shown = sorted([*reserved, *ranking.shown], key=by_price)[:limit]
        return msgspec.structs.replace(ranking, shown=tuple(shown), fitting=ranking.fitting + len(reserved))

    def reserved(self, wishes: Sequence[Resources], task: Task) -> list[Choice]:
        from argosy.planning import Ability, plan

        drivers = self._prices.drivers()
        offers = [
            each for each in self._prices.catalog.owned(self._clock.now_ms()) if each.provider not in drivers
        ]
        if not offers:
            return []
        able = {offer.provider: Ability(multi_node=True) for offer in offers}
        return list(plan(wishes, task.num_nodes, offers, abilities=able, ordered=task.ordered).choices)

    def market(self, *, rented: bool = False) -> Market:
        """Priced providers that are not in use here; with `rented` also those in use that are priced here."""
        market = self._prices.catalog.market
        hidden = self._prices.drivers() - (self._rented.names() if rented else frozenset())
        names = [name for name in market.providers if name not in hidden]
        return market if len(names) == len(market.providers) else some_of(market, names)

    def atlas(self, wishes: Sequence[Resources]) -> Atlas | None:
        """Where regions are, for wishes that care."""
        return self._prices.catalog.atlas() if any(wish.says_where for wish in wishes) else None

    def unknown(self, task: Task, offers: Sequence[Offer]) -> ArgosyError | None:
        """The error when every candidate asks for something that does not exist anywhere; None otherwise."""
        own = {offer.shape.accelerator for offer in offers if offer.shape.accelerator}
        drivers, catalog = self._prices.drivers(), self._prices.catalog
        first: ArgosyError | None = None
        for wish in task.resources:
            error = None
            if wish.infra.provider not in drivers or wish.infra.provider in self._rented.names():
                error = catalog.unknown_place(wish.infra.provider, wish.infra.region, wish.infra.zone)
            error = error or nobody_has(wish, own, catalog)
            if error is None:
                return None
            first = first or error
        return first

    def not_in_use(self, task: Task) -> ArgosyError | None:
        """What is missing to use the places that the task insists on; None when some of them have prices, or
        are in use here."""
        from argosy.providers import what_is_missing

        drivers = self._prices.drivers()
        asked = {wish.infra.provider or "*" for wish in task.resources}
        if asked & {"*", *drivers, *self._prices.catalog.providers}:
            return None
        missing = [said for name in sorted(asked) if (said := what_is_missing(name)) is not None]
        if not missing:
            return None
        fixes = [fix for _, fix in missing if fix]
        return ArgosyError(
            "no-offer",
            "; ".join(fact for fact, _ in missing),
            hint="; ".join(fixes) or f"available: {', '.join(sorted(drivers)) or 'nothing'}",
        )

    def nothing_there(self, task: Task, offers: Sequence[Offer]) -> ArgosyError | None:
        """The task insists on places of this server that have no machine at all now: a pool of hosts to
        which nobody has added one."""
        asked = {wish.infra.provider or "*" for wish in task.resources}
        if not asked <= self._prices.drivers() - set(self._prices.catalog.providers):
            return None
        if any(offer.provider in asked for offer in offers):
            return None
        names = " and ".join(sorted(asked))
        return ArgosyError(
            "no-offer",
            f"{names} has no machine now",
            hint=f"`argosy check {min(asked)}` says what is missing",
        )

    def impossible(
        self, task: Task, ranking: Ranking, offers: Sequence[Offer], abilities: Mapping[str, Ability]
    ) -> str:
        """Which constraint removes the last candidate; "" when only machines of this server were asked
        for."""
        from argosy.planning.impossible import explain_impossible
        from argosy.planning.market import explain_none

        said = []
        for wish, steps in zip(task.resources, ranking.steps, strict=True):
            if steps:
                sentence = explain_impossible(
                    steady(wish),
                    offers,
                    num_nodes=task.num_nodes,
                    abilities=abilities,
                    market=self.market(rented=True),
                    atlas=self._prices.catalog.atlas(),
                    spot_was_asked=wish.use_spot is not None,
                )
                said.append(sentence or explain_none(wish, steps))
        return "; ".join(dict.fromkeys(said))
