"""Costs of clusters and managed jobs, and the budgets of projects."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Reply, Request, endpoint


class CostView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    kind: str
    infra: str
    resources: str
    num_nodes: int
    held_s: int
    price_micro_usd: int
    cost_micro_usd: int
    status: str
    user: str = ""
    project: str = ""
    on_demand_micro_usd: int | None = None  # what it would have cost on demand; None: not known
    elsewhere_micro_usd: int | None = None  # what it would have cost on the cloud that was asked about


class CostGroup(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """Costs of one user, project, task, place or day (UTC). Savings count only what is known."""

    key: str
    held_s: int
    cost_micro_usd: int
    saved_on_demand_micro_usd: int | None = None
    saved_elsewhere_micro_usd: int | None = None


class CostReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    costs: tuple[CostView, ...]
    total_micro_usd: int
    groups: tuple[CostGroup, ...] = ()
    saved_on_demand_micro_usd: int | None = None
    saved_elsewhere_micro_usd: int | None = None


class BudgetRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The budget of a project for every month (UTC). `monthly_micro_usd` 0: it has none any more."""

    project: str
    monthly_micro_usd: int
    alert_pct: int = 80  # an event when so much is spent
    hard_stop: bool = False  # nothing more is launched when it is spent


class BudgetView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    project: str
    monthly_micro_usd: int
    alert_pct: int
    hard_stop: bool
    month: str  # YYYY-MM
    spent_micro_usd: int


class BudgetList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    budgets: tuple[BudgetView, ...]


class CostCalls:
    @endpoint("GET", "/costs", permission="costs.read")
    def costs(
        self,
        days: Annotated[int | None, "of the last days"] = None,
        *,
        by: Annotated[str | None, "also in groups: user, project, task, infra or day"] = None,
        against: Annotated[str | None, "the cloud to compare with"] = None,
    ) -> CostReply:
        """What claims cost, in micro-USD."""

    @endpoint("GET", "/budgets", permission="budgets.read")
    def budgets(self) -> BudgetList:
        """Budgets of projects and what is spent this month."""

    @endpoint("PUT", "/budgets", BudgetRequest, permission="budgets.write")
    def set_budget(self, request: BudgetRequest) -> BudgetList:
        """Set the budget of a project; 0 removes it."""
