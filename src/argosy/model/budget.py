"""What a project may spend in a month: one row with a revision for each project."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.rows import Event
from argosy.model.units import render_price


def budget_id(project: str) -> str:
    return f"budget-{project}"


class Budget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """For each month (UTC). When a share of it is spent, an event says so, once a month; when it is spent and
    the budget is a hard stop, nothing that costs money is launched any more. What runs goes on."""

    id: str
    project: str
    monthly_micro_usd: int  # 0: the project has no budget any more
    alert_pct: int = 80
    hard_stop: bool = False
    told: tuple[str, ...] = ()  # `2026-01 alert`, `2026-01 spent`: what was said, of the last month only
    rev: int = 0

    @property
    def is_live(self) -> bool:
        return self.monthly_micro_usd > 0


def check_budget(budget: Budget) -> None:
    """Raises `usage` for amounts that make no sense."""
    if not 0 <= budget.monthly_micro_usd <= 1 << 60:
        raise ArgosyError("usage", "a budget is not below $0, nor beyond all money there is")
    if not 1 <= budget.alert_pct <= 100:
        raise ArgosyError("usage", f"the alert is at 1 to 100 percent, not {budget.alert_pct}")


def refuse_spending(
    budget: Budget | None, spent_micro_usd: int, month: str, next_month: str
) -> ArgosyError | None:
    """Why nothing that costs money may be launched; None when it may."""
    if budget is None or not budget.hard_stop or spent_micro_usd < budget.monthly_micro_usd:
        return None
    return ArgosyError(
        "over-budget",
        f"project `{budget.project}` has spent {render_price(spent_micro_usd)} of its "
        f"{render_price(budget.monthly_micro_usd)} for {month}: nothing that costs money is launched",
        hint=f"raise it with `argosy budget set {budget.project} USD`, or wait until {next_month}-01 (UTC)",
    )


def budget_news(
    budgets: Sequence[Budget],
    spent: Mapping[str, int],
    live: Mapping[str, Sequence[str]],
    month: str,
    now_ms: int,
) -> tuple[tuple[Budget, ...], tuple[Event, ...]]:
    """Events that were not told this month, and the budgets that remember them: to be written together.

    Args:
        spent: micro-USD of this month by project.
        live: ids of running clusters and jobs by project: each gets the event, and the project itself.
    """
    changed: list[Budget] = []
    events: list[Event] = []
    for budget in budgets:
        project, used = budget.project, spent.get(budget.project, 0)
        level = _level(budget, used)
        mark = f"{month} {level}"
        if not level or mark in budget.told or f"{month} spent" in budget.told:
            continue
        told = (*(each for each in budget.told if each.startswith(month)), mark)
        changed.append(msgspec.structs.replace(budget, told=told))
        text = (
            f"project `{project}` has spent {render_price(used)} of its "
            f"{render_price(budget.monthly_micro_usd)} for {month}"
        )
        if level == "spent" and budget.hard_stop:
            text += "; nothing that costs money is launched, what runs goes on"
        code = "budget-spent" if level == "spent" else "budget-alert"
        events += [
            Event(at_ms=now_ms, subject=subject, code=code, text=text)
            for subject in (project, *live.get(project, ()))
        ]
    return tuple(changed), tuple(events)


def _level(budget: Budget, used_micro_usd: int) -> str:
    if used_micro_usd >= budget.monthly_micro_usd:
        return "spent"
    return "alert" if used_micro_usd * 100 >= budget.monthly_micro_usd * budget.alert_pct else ""
