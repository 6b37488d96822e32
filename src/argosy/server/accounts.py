"""Budgets of projects, and what has been spent of them."""

from __future__ import annotations

from collections.abc import Mapping

from argosy.api.costs import BudgetList, BudgetRequest, BudgetView
from argosy.model.budget import Budget, budget_id, budget_news, check_budget, refuse_spending
from argosy.model.ids import Clock
from argosy.model.offer import Plan
from argosy.model.rows import Workload
from argosy.server.spending import add_spending, month_of
from argosy.store.errors import Conflict
from argosy.store.store import Store


class Accounts:
    """Free to ask while there are no budgets."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def budgets(self) -> BudgetList:
        """All budgets, and what their projects spent this month."""
        budgets = (await self._store.snapshot()).budgets.values()
        month, spent = await self._spent() if budgets else (month_of(self._clock.now_ms())[0], {})
        return BudgetList(
            budgets=tuple(
                BudgetView(
                    project=budget.project,
                    monthly_micro_usd=budget.monthly_micro_usd,
                    alert_pct=budget.alert_pct,
                    hard_stop=budget.hard_stop,
                    month=month,
                    spent_micro_usd=spent.get(budget.project, 0),
                )
                for budget in budgets
            )
        )

    async def set(self, request: BudgetRequest) -> BudgetList:
        from argosy.spec.names import check_name

        check_name("project", request.project)
        old = await self._store.load_budget(request.project)
        budget = Budget(
            id=budget_id(request.project),
            project=request.project,
            monthly_micro_usd=request.monthly_micro_usd,
            alert_pct=request.alert_pct,
            hard_stop=request.hard_stop,
            rev=old.rev if old is not None else 0,
        )
        check_budget(budget)
        if budget.is_live or old is not None:
            await self._store.commit([budget])
        await self.watch()
        return await self.budgets()

    async def watch(self) -> None:
        """Tell of budgets that are spent, or nearly. Costs nothing when there are none."""
        snapshot = await self._store.snapshot()
        if not snapshot.budgets:
            return
        month, spent = await self._spent()
        live: dict[str, list[str]] = {}
        for claim in snapshot.claims.values():
            owner = snapshot.workloads.get(claim.workload_id)
            if owner is not None and claim.held_ms:
                live.setdefault(owner.project, []).append(owner.id)
        budgets, events = budget_news(
            tuple(snapshot.budgets.values()), spent, live, month, self._clock.now_ms()
        )
        if events:
            try:
                await self._store.commit(budgets, events=events)
            except Conflict:
                return  # another server tells, or somebody changes it: we look again soon

    async def check(self, made: Plan, project: str) -> None:
        """Raises `over-budget` when the plan costs money that the project no longer has."""
        if not made.choices or not made.choices[0].price_micro_usd:
            return
        budget = (await self._store.snapshot()).budget_of(project)
        if budget is None or not budget.hard_stop:
            return
        month, spent = await self._spent()
        following, _, _ = month_of(month_of(self._clock.now_ms())[2])
        refused = refuse_spending(budget, spent.get(project, 0), month, following)
        if refused is not None:
            raise refused

    async def _spent(self) -> tuple[str, Mapping[str, int]]:
        """The name of this month, and micro-USD by project."""
        now_ms = self._clock.now_ms()
        month, start_ms, _ = month_of(now_ms)
        return month, add_spending(await self._store.load_spending(since_ms=start_ms), start_ms, now_ms)

    async def owners(self, since_ms: int) -> dict[str, Workload]:
        """Who holds or held claims since then, by id."""
        return {row.id: row for row in await self._store.load_owners(since_ms=since_ms)}
