"""Costs of clusters and managed jobs, and budgets."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from argosy.api.costs import BudgetList, BudgetRequest, CostGroup, CostReply
from argosy.model.access import Caller, Target
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.server.exchange import Exchange
from argosy.server.guarding import require, scopes
from argosy.server.services import Services
from argosy.server.spending import Rates, grouped, saved
from argosy.server.views import view_cost

_DAY_MS: Final = 86_400_000


class CostFeature:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._accounts, self._pricing, self._clock = services.accounts, services.pricing, services.clock

    async def costs(self, exchange: Exchange) -> CostReply:
        days = exchange.number("days")
        by, against = exchange.text("by"), exchange.text("against")
        now_ms = self._clock.now_ms()
        since_ms = now_ms - days * _DAY_MS if days else 0
        owners = await self._accounts.owners(since_ms)
        claims = await self._services.claims_by_owner(since_ms)
        seen = scopes(exchange.caller)
        known = [
            (owner, mine)
            for owner_id, mine in claims.items()
            if (owner := owners.get(owner_id)) is not None and seen.holds(owner.project, owner.user)
        ]
        rates = await asyncio.to_thread(self._rates, [one for _, mine in known for one in mine], against)
        views = [view_cost(owner, mine, now_ms=now_ms, rates=rates) for owner, mine in known]
        groups: tuple[CostGroup, ...] = ()
        if by:
            every = [one for _, mine in known for one in mine]
            groups = grouped(by, every, owners, lambda one: rates[one.id], since_ms=since_ms, now_ms=now_ms)
        return CostReply(
            costs=tuple(views),
            total_micro_usd=sum(view.cost_micro_usd for view in views),
            groups=groups,
            saved_on_demand_micro_usd=_sum(
                saved(view.cost_micro_usd, 3_600_000, view.on_demand_micro_usd) for view in views
            ),
            saved_elsewhere_micro_usd=_sum(
                saved(view.cost_micro_usd, 3_600_000, view.elsewhere_micro_usd) for view in views
            ),
        )

    def _rates(self, claims: Sequence[Claim], against: str) -> Mapping[str, Rates]:
        """By claim. Prices are only looked up where they are needed: for spot machines, or to compare."""
        return {
            one.id: self._pricing.prices.rates(one, against)
            if against or one.choice.offer.capacity is Capacity.SPOT
            else Rates()
            for one in claims
        }

    async def budgets(self, exchange: Exchange) -> BudgetList:
        return _seen(await self._accounts.budgets(), exchange.caller)

    async def set_budget(self, exchange: Exchange) -> BudgetList:
        request, caller = await exchange.decode(BudgetRequest), exchange.caller
        require(caller, Target(request.project))
        return _seen(await self._accounts.set(request), caller)


def _seen(found: BudgetList, caller: Caller) -> BudgetList:
    seen = scopes(caller, "budgets.read")
    return BudgetList(budgets=tuple(each for each in found.budgets if seen.holds(each.project)))


def _sum(amounts: Iterable[int | None]) -> int | None:
    """Of those that are known; None when none is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None
