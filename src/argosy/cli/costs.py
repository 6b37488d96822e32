"""cost-report, budget: what was spent, what was saved, and how much may be spent in a month."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from argosy.cli.session import Amount, Session, answering, examples
from argosy.model.units import render_duration, render_price

if TYPE_CHECKING:
    from collections.abc import Sequence

    from argosy.api.costs import BudgetView, CostGroup, CostView


@click.command(
    epilog="""\b
Examples:
  argosy cost-report
  argosy cost-report --days 7 --json
  argosy cost-report --by user --days 30
  argosy cost-report --by infra --against aws

ARGOSY_DEFAULT_CLOUD names the cloud of --against."""
)
@click.option("--days", type=click.IntRange(min=1), help="Only the last N days. [default: all]")
@click.option(
    "--by",
    type=click.Choice(["user", "project", "task", "infra", "day"]),
    help="Group by this, most expensive first.",
)
@click.option("--against", metavar="CLOUD", help="Also show what the same would cost there on demand today.")
@click.option("-a", "--all", "every", is_flag=True, hidden=True)
@answering
def cost_report(session: Session, days: int | None, by: str | None, against: str | None, every: bool) -> None:
    """Show what clusters and managed jobs cost, and what was saved.

    With --by, --json has the `groups` and leaves `costs` empty.
    """
    import msgspec

    against = against or session.env.get("ARGOSY_DEFAULT_CLOUD") or None
    reply = session.client.costs(days, by=by, against=against)
    screen = session.screen
    if screen.told(reply if by is None else msgspec.structs.replace(reply, costs=())):
        return
    if not reply.costs:
        screen.print("Nothing was held, so nothing was spent.")
        return
    if by is not None:
        _group_table(session, reply.groups, by, against)
    else:
        _cost_table(session, reply.costs)
    screen.print(f"Total: {render_price(reply.total_micro_usd)}")
    for amount, than in (
        (reply.saved_on_demand_micro_usd, "on demand"),
        (reply.saved_elsewhere_micro_usd, f"on {against}"),
    ):
        if amount is not None:
            word = "less" if amount >= 0 else "more"
            screen.print(f"~{render_price(abs(amount))} {word} than {than} at today's prices")


def _group_table(session: Session, groups: Sequence[CostGroup], by: str, against: str | None) -> None:
    elsewhere = f"SAVED AGAINST {(against or '').upper()}".rstrip()
    session.screen.table(
        (by.upper(), "HELD", "COST", "SAVED ON SPOT", elsewhere),
        [
            [
                group.key,
                render_duration(group.held_s),
                render_price(group.cost_micro_usd),
                _saved(group.saved_on_demand_micro_usd),
                _saved(group.saved_elsewhere_micro_usd),
            ]
            for group in groups
        ],
        right=("HELD", "COST", "SAVED ON SPOT", elsewhere),
    )


def _cost_table(session: Session, costs: Sequence[CostView]) -> None:
    session.screen.table(
        ("NAME", "KIND", "STATUS", "INFRA", "RESOURCES", "NODES", "HELD", "$/H", "COST"),
        [
            [
                cost.name,
                cost.kind,
                cost.status,
                cost.infra,
                cost.resources,
                str(cost.num_nodes),
                render_duration(cost.held_s),
                render_price(cost.price_micro_usd),
                render_price(cost.cost_micro_usd),
            ]
            for cost in costs
        ],
        right=("NODES", "HELD", "$/H", "COST"),
        spare=("RESOURCES", "KIND", "STATUS", "$/H", "NODES", "HELD", "INFRA"),
    )


def _saved(micro_usd: int | None) -> str:
    """Savings are estimates: they compare with the prices of today."""
    if micro_usd is None:
        return ""
    return f"~{'-' if micro_usd < 0 else ''}{render_price(abs(micro_usd))}"


@click.group(epilog=examples("argosy budget set default 500 --alert 80 --hard-stop", "argosy budget list"))
def budget() -> None:
    """Budgets of projects: a monthly amount, an alert, a hard stop."""


@budget.command(
    "set",
    epilog=examples(
        "argosy budget set default 500",
        "argosy budget set default 500 --alert 90 --hard-stop",
        "argosy budget set default 0",
    ),
)
@click.argument("project")
@click.argument("usd", type=Amount(min=0), metavar="USD")
@click.option(
    "--alert",
    type=click.IntRange(1, 100),
    default=80,
    show_default=True,
    help="Notify when this percentage is spent.",
)
@click.option("--hard-stop", is_flag=True, help="When it is spent, refuse launches that cost money.")
@answering
def budget_set(session: Session, project: str, usd: float, alert: int, hard_stop: bool) -> None:
    """Set the monthly budget of a project in US dollars; 0 removes it."""
    from argosy.api.costs import BudgetRequest

    request = BudgetRequest(
        project=project, monthly_micro_usd=round(usd * 1_000_000), alert_pct=alert, hard_stop=hard_stop
    )
    reply = session.client.set_budget(request)
    if session.screen.told(reply):
        return
    if request.monthly_micro_usd:
        _budget_table(session, [one for one in reply.budgets if one.project == project])
    else:
        session.screen.print(f"project `{project}` has no budget any more")


@budget.command("get", epilog=examples("argosy budget get default"))
@click.argument("project")
@answering
def budget_get(session: Session, project: str) -> None:
    """Show the budget of a project, and what is spent of it this month."""
    from argosy.model.errors import ArgosyError

    found = [one for one in session.client.budgets().budgets if one.project == project]
    if not found:
        raise ArgosyError(
            "not-found",
            f"project `{project}` has no budget",
            hint=f"`argosy budget set {project} USD` gives it one",
        )
    if not session.screen.told(found[0]):
        _budget_table(session, found)


@budget.command("list", epilog=examples("argosy budget list", "argosy budget list --json"))
@answering
def budget_list(session: Session) -> None:
    """Show all budgets, and what is spent of them this month."""
    reply = session.client.budgets()
    if session.screen.told(reply):
        return
    if reply.budgets:
        _budget_table(session, reply.budgets)
    else:
        session.screen.print("No project has a budget: `argosy budget set PROJECT USD` gives it one.")


def _budget_table(session: Session, budgets: Sequence[BudgetView]) -> None:
    session.screen.table(
        ("PROJECT", "MONTH", "BUDGET", "SPENT", "USED", "ALERT AT", "HARD STOP"),
        [
            [
                one.project,
                one.month,
                render_price(one.monthly_micro_usd),
                render_price(one.spent_micro_usd),
                f"{100 * one.spent_micro_usd // one.monthly_micro_usd} %",
                f"{one.alert_pct} %",
                "yes" if one.hard_stop else "no",
            ]
            for one in budgets
        ],
        right=("BUDGET", "SPENT", "USED", "ALERT AT"),
    )
