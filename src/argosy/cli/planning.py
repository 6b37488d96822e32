"""plan, offers, regions, catalog, budget: what tasks would cost and where, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli.session import Amount, Session, json_option, pass_session
from argosy.cli.task_options import parse_all, parse_described, task_options, weighing_options
from argosy.model.units import render_bytes, render_duration, render_milli, render_price

if TYPE_CHECKING:
    from collections.abc import Sequence

    from argosy.api.costs import BudgetView
    from argosy.api.planning import CompareView, OfferView, PlanReply
    from argosy.model.priced import PriceView, Refused, RegionView
    from argosy.model.task import Task

_OFFERS_MAX: Final = 2000
_PIPELINED: Final = ("inputs", "outputs")  # by plans of several tasks


@click.command(
    epilog="""\b
Examples:
  argosy plan train.yaml
  argosy plan --gpus A100:8 --use-spot -- python train.py
  argosy plan train.yaml --compare --html plan.html

Prices that were computed instead of read are shown with `~`. Nothing is launched and nothing is asked of any cloud."""  # noqa: E501
)
@click.argument("words", nargs=-1, metavar="[FILE.yaml | -- COMMAND...]")
@task_options
@weighing_options
@click.option("--compare", is_flag=True, help="Also owned, spot and on-demand side by side.")
@click.option("--html", metavar="OUT", help="Write the comparison to this file, with a chart.")
@click.option(
    "--top", type=click.IntRange(1, _OFFERS_MAX), default=10, show_default=True, help="So many candidates."
)
@json_option
@pass_session
def plan(
    session: Session,
    /,
    words: tuple[str, ...],
    compare: bool,
    html: str | None,
    top: int,
    as_json: bool,
    **flags: Any,
) -> None:
    """Show where a task would run best, what it costs, and why not elsewhere.

    Also what clouds would take that Argosy cannot launch on yet. Several tasks in one file are planned
    together, with the traffic between them.
    """
    tasks, warnings, at_once = parse_all(session, words, flags)
    if html is not None and len(tasks) > 1:
        raise click.UsageError(f"`{words[0]}` has {len(tasks)} tasks, a page shows one")
    screen = session.screen
    if len(tasks) > 1:
        from argosy.cli.pipelines import plan_pipeline

        screen.warn(_unheeded(warnings, _PIPELINED))
        objective = flags["objective"] or tasks[0].objective
        plan_pipeline(session, tasks, at_once=at_once, objective=objective, as_json=as_json)
        if not compare or as_json:
            return
    else:
        screen.warn(warnings)
    for number, task in enumerate(tasks, 1):
        reply = session.client.plan(
            task,
            prices=True,
            limit=top,
            distinct=True,
            compare=compare or html is not None,
            html=html is not None,
        )
        _refuse_nothing(task, reply)
        if html is not None:
            _write(session, html, reply.page)
        if len(tasks) == 1:
            screen.warn(news_of(reply.warnings, warnings))
        if as_json:
            screen.json(reply)
            return
        warn_of_files(session, task)
        if len(tasks) > 1:
            screen.print(f"\nTask {number} of {len(tasks)} alone: {task.name or '(no name)'}")
        else:
            screen.warn(reply.notes)
        show_plan(session, task, reply, compare=compare)


@click.command(
    epilog="""\b
Examples:
  argosy offers train.yaml
  argosy offers --gpus H100:8 --infra gcp --top 50
  argosy offers train.yaml --json
"""
)
@click.argument("words", nargs=-1, metavar="[FILE.yaml]")
@task_options
@click.option(
    "--top",
    type=click.IntRange(1, _OFFERS_MAX),
    default=40,
    show_default=True,
    help="So many, cheapest first.",
)
@json_option
@pass_session
def offers(session: Session, /, words: tuple[str, ...], top: int, as_json: bool, **flags: Any) -> None:
    """List every offer that a task could run on, with the source of its price."""
    described = parse_described(session, words, flags, needs_run=False)
    screen = session.screen
    screen.warn(described.warnings)
    reply = session.client.plan(described.task, prices=True, limit=top)
    if as_json:
        screen.json(reply)
    else:
        screen.warn(reply.notes)
    _refuse_nothing(described.task, reply)
    if as_json:
        return
    now_ms = session.now_ms()
    screen.table(
        (
            "INFRA",
            "INSTANCE",
            "ACCELERATORS",
            "CPUS",
            "MEMORY",
            "KIND",
            "$/H",
            "LOST/MONTH",
            "REFUSED",
            "DATE",
            "SOURCE",
        ),
        [
            [
                place_of(offer),
                offer.instance_type,
                accelerators_of(offer),
                render_milli(offer.cpus_milli) if offer.cpus_milli else "",
                render_bytes(offer.memory_bytes) if offer.memory_bytes else "",
                offer.capacity,
                render_view(offer.price),
                _interrupted(offer),
                render_refused(offer.refused, now_ms),
                offer.price.as_of,
                offer.source,
            ]
            for offer in reply.offers
        ],
        right=("CPUS", "MEMORY", "$/H", "LOST/MONTH"),
    )
    _say_more(session, reply)


@click.command(
    epilog="""\b
Examples:
  argosy regions
  argosy regions aws
  argosy regions --area eu
"""
)
@click.argument("provider", required=False)
@click.option("--area", metavar="AREA", help="Only in eu, eea, a country (kr) or a continent (asia).")
@json_option
@pass_session
def regions(session: Session, provider: str | None, area: str | None, as_json: bool) -> None:
    """Show the regions of clouds, and what they have."""
    reply = session.client.regions(provider, area=area)
    screen = session.screen
    if as_json:
        screen.json(reply)
        return
    if not reply.regions:
        screen.print("No region is known there.")
        return
    screen.table(
        ("PROVIDER", "REGION", "WHERE", "ZONES", "OFFERS", "G CO2/KWH", "ACCELERATORS"),
        [
            [
                row.provider,
                row.region,
                ", ".join(part for part in (row.city, row.country) if part),
                str(len(row.zones)) if row.zones else "",
                str(row.offers) if row.offers else "",
                _carbon(row),
                ", ".join(row.accelerators),
            ]
            for row in reply.regions
        ],
        right=("ZONES", "OFFERS", "G CO2/KWH"),
    )


@click.group(
    epilog="""\b
Examples:
  argosy catalog show
  argosy catalog refresh azure
"""
)
def catalog() -> None:
    """Known prices: how old they are, and how to get new ones."""


@catalog.command(
    "show",
    epilog="""\b
Examples:
  argosy catalog show
  argosy catalog show --json
""",
)
@json_option
@pass_session
def catalog_show(session: Session, as_json: bool) -> None:
    """Show how many prices are known of each provider, and how old they are."""
    reply = session.client.catalog()
    screen = session.screen
    if as_json:
        screen.json(reply)
        return
    screen.warn(reply.warnings)
    screen.table(
        ("PROVIDER", "PRICES", "FROM", "NEWEST", "OLDEST", "AGE", "UNDATED", "REFRESH"),
        [
            [
                age.provider,
                str(age.offers),
                age.source,
                age.newest,
                age.oldest,
                f"{age.days} d{' !' if age.stale else ''}" if age.days is not None else "no date !",
                str(age.undated) if age.undated else "",
                f"needs {', '.join(age.needs)}" if age.needs else "yes" if age.refreshable else "",
            ]
            for age in reply.providers
        ],
        right=("PRICES", "AGE", "UNDATED"),
    )
    total = sum(age.offers for age in reply.providers)
    stale = sum(age.stale for age in reply.providers)
    screen.print(f"{total:,} prices; your own folder is {reply.folder}")
    if stale:
        screen.print(
            f"! old: {stale} of {len(reply.providers)}; `argosy catalog refresh PROVIDER` gets new ones"
        )


@catalog.command(
    "refresh",
    epilog="""\b
Examples:
  argosy catalog refresh azure
  argosy catalog refresh
""",
)
@click.argument("providers", nargs=-1)
@click.option("--force", is_flag=True, help="Take the new prices also when they are strangely few.")
@json_option
@pass_session
def catalog_refresh(session: Session, providers: tuple[str, ...], force: bool, as_json: bool) -> None:
    """Get present prices from providers' own services. Without a name: of all that can be asked.

    What fails keeps its old prices; the exit status then is not 0. Ctrl-C calls off the one under way.
    """
    from argosy.model.errors import ArgosyError, render_error

    screen = session.screen
    every = not providers
    if every:
        ages = [age for age in session.client.catalog().providers if age.refreshable]
        providers = tuple(age.provider for age in ages if not age.needs)
        for age in ages:
            if age.needs:
                screen.say(f"not asked: {age.provider}, the server has no {' and no '.join(age.needs)}")
    done = []
    failed: ArgosyError | None = None
    with session.on_interrupt(lambda: "What was refreshed is kept; the others have their old prices."):
        for number, name in enumerate(providers, 1):
            which = f" ({number} of {len(providers)})" if len(providers) > 1 else ""

            def tell(text: str, head: str = f"asking {name} for prices{which}") -> None:
                screen.progress(f"{head}: {text}" if text else head)

            try:
                reply = session.client.refresh_prices(name, force=force, tell=tell)
            except ArgosyError as error:
                if len(providers) == 1:
                    raise
                failed = failed or error
                screen.say(render_error(error))
                continue
            done.append(reply)
            if not as_json:
                more = f", {reply.skipped} entries skipped" if reply.skipped else ""
                screen.end_progress()
                screen.print(f"{reply.provider}: {reply.after} prices (before: {reply.before}{more})")
    if as_json:
        screen.json(done)
    if failed is not None:
        raise click.exceptions.Exit(failed.exit_status)


@click.group(
    epilog="""\b
Examples:
  argosy budget set default 500 --alert 80 --hard-stop
  argosy budget list
"""
)
def budget() -> None:
    """Budgets of projects: a monthly amount, an alert, a hard stop."""


@budget.command(
    "set",
    epilog="""\b
Examples:
  argosy budget set default 500
  argosy budget set default 500 --alert 90 --hard-stop
  argosy budget set default 0
""",
)
@click.argument("project")
@click.argument("usd", type=Amount(min=0), metavar="USD")
@click.option(
    "--alert", type=click.IntRange(1, 100), default=80, show_default=True, help="Tell at this percentage."
)
@click.option("--hard-stop", is_flag=True, help="Launch nothing that costs money when it is spent.")
@json_option
@pass_session
def budget_set(
    session: Session, project: str, usd: float, alert: int, hard_stop: bool, as_json: bool
) -> None:
    """Set the monthly budget of a project in US dollars; 0 removes it."""
    from argosy.api.costs import BudgetRequest

    request = BudgetRequest(
        project=project, monthly_micro_usd=round(usd * 1_000_000), alert_pct=alert, hard_stop=hard_stop
    )
    reply = session.client.set_budget(request)
    if as_json:
        session.screen.json(reply)
    elif request.monthly_micro_usd:
        _budget_table(session, [one for one in reply.budgets if one.project == project])
    else:
        session.screen.print(f"project `{project}` has no budget any more")


@budget.command(
    "get",
    epilog="""\b
Examples:
  argosy budget get default
""",
)
@click.argument("project")
@json_option
@pass_session
def budget_get(session: Session, project: str, as_json: bool) -> None:
    """Show the budget of a project, and what is spent of it this month."""
    from argosy.model.errors import ArgosyError

    found = [one for one in session.client.budgets().budgets if one.project == project]
    if not found:
        raise ArgosyError(
            "not-found",
            f"project `{project}` has no budget",
            hint=f"`argosy budget set {project} USD` gives it one",
        )
    if as_json:
        session.screen.json(found[0])
    else:
        _budget_table(session, found)


@budget.command(
    "list",
    epilog="""\b
Examples:
  argosy budget list
  argosy budget list --json
""",
)
@json_option
@pass_session
def budget_list(session: Session, as_json: bool) -> None:
    """Show all budgets, and what is spent of them this month."""
    reply = session.client.budgets()
    if as_json:
        session.screen.json(reply)
    elif reply.budgets:
        _budget_table(session, reply.budgets)
    else:
        session.screen.print("No project has a budget: `argosy budget set PROJECT USD` gives it one.")


def render_refused(refused: Sequence[Refused], now_ms: int) -> str:
    """When and where capacity was not there: the last time, and how often else."""
    if not refused:
        return ""
    last = refused[0]
    where = last.zone or last.region
    text = f"{'spot ' if last.spot else ''}{render_duration(max(0, now_ms - last.at_ms) / 1000)} ago"
    text += f" in {where}" if where else ""
    return text + (f", and {len(refused) - 1} more" if len(refused) > 1 else "")


def _carbon(row: RegionView) -> str:
    if row.carbon_g_per_kwh is None:
        return ""
    return f"{'~' if row.carbon_estimated else ''}{row.carbon_g_per_kwh:.0f}"


# --- output ----------------------------------------------------------------------------------------


def render_view(price: PriceView | None) -> str:
    """A price; estimates are marked."""
    if price is None:
        return ""
    return ("~" if price.estimated else "") + render_price(price.micro_usd)


def _unheeded(warnings: tuple[str, ...], heeded: tuple[str, ...]) -> list[str]:
    """What a task says that nothing heeds yet, but for what plans do heed."""
    return [text for text in warnings if not any(f"`{name}`" in text for name in heeded)]


def news_of(said: Sequence[str], before: Sequence[str]) -> list[str]:
    """Warnings of the server about fields that the file's own warnings did not name."""
    return [text for text in said if not any(_field_of(text) in told for told in before)]


def _field_of(warning: str) -> str:
    """The first name in backticks, with them.

    >>> _field_of("`service` is accepted and does nothing yet")
    '`service`'
    """
    parts = warning.split("`")
    return f"`{parts[1]}`" if len(parts) > 2 else warning


def _refuse_nothing(task: Task, reply: PlanReply) -> None:
    """Raises `no-offer` when nothing fits anywhere, with the constraint that is to blame."""
    from argosy.api.plans import no_offer
    from argosy.model.errors import ArgosyError
    from argosy.model.offer import waits_for

    if reply.offers or waits_for(reply.plan):
        return
    error = no_offer(task, reply.plan)
    raise ArgosyError("no-offer", reply.text or error.what, details=error.details, hint=error.hint)


def warn_of_files(session: Session, task: Task) -> None:
    """Say when the workdir or a local mount is not there: a launch would be refused."""
    from argosy.client.progress import needs_files
    from argosy.model.errors import ArgosyError

    if needs_files(task):
        from argosy.client.sending import check_files

        try:
            check_files(task, cwd=session.cwd, env=session.env)
        except ArgosyError as error:
            session.screen.warn([f"{error.what}; a launch will be refused"])


def show_plan(session: Session, task: Task, reply: PlanReply, *, compare: bool = False) -> None:
    """Candidates, why the first is the first, and why not elsewhere."""
    import msgspec

    from argosy.api.plans import grouped_lines
    from argosy.model.offer import waits_for

    screen = session.screen
    waits = waits_for(reply.plan)
    if waits:
        screen.print(f"It would wait: {waits}\n")
    if reply.offers:
        _plan_table(session, reply, task.num_nodes)
        _say_more(session, reply)
    said = [text for text in (reply.text, reply.deadline) if text]
    for text in said:
        if text is said[0]:
            screen.print()
        screen.paragraph(text)
    if reply.offers and not reply.plan.choices and not waits:
        screen.print("None of these can be launched yet: Argosy has no driver for them.")
    if compare:
        screen.print()
        _compare_table(session, reply.compared)
    if any(each.code != "no-driver" for each in reply.plan.rejected):
        screen.print("\nNot considered:")
        # The column says it of each offer.
        left = [each for each in reply.plan.rejected if each.code != "no-driver" or not reply.offers]
        for line in grouped_lines(msgspec.structs.replace(reply.plan, rejected=tuple(left))):
            screen.print(f"  {line}")


def _plan_table(session: Session, reply: PlanReply, num_nodes: int) -> None:
    chosen = next((offer for offer in reply.offers if offer.launchable), None)
    session.screen.table(
        (
            "INFRA",
            "INSTANCE",
            "NODES",
            "CPUS",
            "MEMORY",
            "ACCELERATORS",
            "KIND",
            "$/H",
            "TIME",
            "TOTAL",
            "G CO2",
            "PLACES",
            "CHOSEN",
        ),
        [
            [
                place_of(offer),
                offer.instance_type,
                str(num_nodes) if num_nodes > 1 else "",
                render_milli(offer.cpus_milli) if offer.cpus_milli else "",
                render_bytes(offer.memory_bytes) if offer.memory_bytes else "",
                accelerators_of(offer),
                offer.capacity,
                ("~" if offer.price.estimated else "") + render_price(offer.hourly_micro_usd),
                render_duration(offer.runtime_s) if offer.runtime_s is not None else "",
                ("~" if offer.total_micro_usd and offer.basis != "measured" else "")
                + render_price(offer.total_micro_usd)
                if offer.total_micro_usd is not None
                else "",
                f"~{offer.carbon_g:,.0f}" if offer.carbon_g is not None else "",
                str(offer.places) if offer.places > 1 else "",
                "yes" if offer is chosen else "" if offer.launchable else "no driver",
            ]
            for offer in reply.offers
        ],
        right=("NODES", "CPUS", "MEMORY", "$/H", "TIME", "TOTAL", "G CO2", "PLACES"),
        spare=("PLACES", "CPUS", "MEMORY", "TIME", "NODES", "CHOSEN"),
    )


def _compare_table(session: Session, rows: tuple[CompareView, ...]) -> None:
    from argosy.pages.comparison import HEADINGS, render_cells

    session.screen.table(
        (*HEADINGS, "NOTE"),
        [["" if cell == "-" else cell for cell in (*render_cells(row), row.note)] for row in rows],
        right=("NODES", "$/H", "TOTAL", "DONE IN", "LOSSES", "IN TIME", "SAVES"),
        spare=("NOTE", "NODES", "LOSSES", "DONE IN"),
    )


def _say_more(session: Session, reply: PlanReply) -> None:
    shown = sum(offer.places for offer in reply.offers)
    if reply.fitting > shown:
        session.screen.print(f"and {reply.fitting - shown:,} more offers fit (--top shows more)")


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


def place_of(offer: OfferView) -> str:
    """`provider/region/zone`, as far as there is one."""
    return "/".join(part for part in (offer.provider, offer.region, offer.zone) if part)


def accelerators_of(offer: OfferView) -> str:
    """`A100:8`, of one node; "" when there is none."""
    if not offer.accelerators_milli:
        return ""
    return f"{offer.accelerator}:{render_milli(offer.accelerators_milli)}"


def _interrupted(offer: OfferView) -> str:
    if offer.interrupted_pct_low is None or offer.interrupted_pct_high is None:
        return ""
    if offer.interrupted_pct_high >= 100:
        return f"> {offer.interrupted_pct_low} %"
    return f"{offer.interrupted_pct_low}-{offer.interrupted_pct_high} %"


def _write(session: Session, name: str, text: str) -> None:
    from argosy.model.errors import ArgosyError

    path = session.cwd / Path(name).expanduser()
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ArgosyError("usage", f"`{name}` cannot be written: {error.strerror}") from None
    session.screen.say(f"written: {name}")
