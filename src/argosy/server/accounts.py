"""What projects spent of what they may spend: from the claims of the store and the file of budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from argosy.api import types as t
from argosy.model.ids import Clock
from argosy.model.offer import Plan
from argosy.model.rows import Workload
from argosy.server.budgets import Budget, Budgets
from argosy.server.spending import month_of, spent_by_project
from argosy.store.store import Store

_OWNERS_MAX: Final = 10_000


class Accounts:
    """Free to ask while there are no budgets."""

    def __init__(self, store: Store, budgets: Budgets, clock: Clock) -> None:
        self._store, self._budgets, self._clock = store, budgets, clock

    async def budgets(self) -> t.BudgetList:
        """All budgets, and what their projects spent this month."""
        month, spent = await self._spent()
        return t.BudgetList(
            budgets=tuple(
                t.BudgetView(
                    project=name,
                    monthly_micro_usd=budget.monthly_micro_usd,
                    alert_pct=budget.alert_pct,
                    hard_stop=budget.hard_stop,
                    month=month,
                    spent_micro_usd=spent.get(name, 0),
                )
                for name, budget in sorted(self._budgets.all().items())
            )
        )

    async def set(self, request: t.BudgetRequest) -> t.BudgetList:
        from argosy.spec.names import check_name

        check_name("project", request.project)
        budget = Budget(
            monthly_micro_usd=request.monthly_micro_usd,
            alert_pct=request.alert_pct,
            hard_stop=request.hard_stop,
        )
        self._budgets.set(request.project, budget if request.monthly_micro_usd else None)
        await self.watch()
        return await self.budgets()

    async def watch(self) -> None:
        """Tell of budgets that are spent, or nearly. Costs nothing when there are none."""
        if not self._budgets.all():
            return
        month, spent = await self._spent()
        live: dict[str, list[str]] = {}
        snapshot = await self._store.snapshot()
        for claim in snapshot.claims.values():
            owner = snapshot.workloads.get(claim.workload_id)
            if owner is not None and claim.held_ms:
                live.setdefault(owner.project, []).append(owner.id)
        events = self._budgets.news(spent, live, month, self._clock.now_ms())
        if events:
            await self._store.commit([], events=events)

    async def check(self, made: Plan, project: str) -> None:
        """Raises `over-budget` when the plan costs money that the project no longer has."""
        if not self._budgets.all() or not made.choices or not made.choices[0].price_micro_usd:
            return
        month, spent = await self._spent()
        following, _, _ = month_of(month_of(self._clock.now_ms())[2])
        refused = self._budgets.refuse(project, spent.get(project, 0), month, following)
        if refused is not None:
            raise refused

    async def _spent(self) -> tuple[str, Mapping[str, int]]:
        """The name of this month, and micro-USD by project."""
        now_ms = self._clock.now_ms()
        month, start_ms, _ = month_of(now_ms)
        claims = await self._store.load_claims(since_ms=start_ms)
        owners = await self.owners(start_ms)
        return month, spent_by_project(claims, owners, start_ms, now_ms)

    async def owners(self, since_ms: int) -> dict[str, Workload]:
        """Who holds or held claims since then, by id."""
        found = {row.id: row for row in await self._store.load_clusters(since_ms=since_ms)}
        found |= {row.id: row for row in await self._store.load_jobs(host_id=None, limit=_OWNERS_MAX)}
        return found
