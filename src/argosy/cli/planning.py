"""plan, offers: where a task would run and what it would cost, before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from argosy.cli.offer_words import accelerators_of, place_of, render_refused, render_view
from argosy.cli.session import Session, answering, examples
from argosy.cli.task_options import parse_all, parse_described, task_options, weighing_options
from argosy.model.units import render_bytes, render_duration, render_milli, render_price

if TYPE_CHECKING:
    from argosy.api.planning import OfferView, PlanReply
    from argosy.model.priced import CompareView
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
    "--top",
    type=click.IntRange(1, _OFFERS_MAX),
    default=10,
    show_default=True,
    help="At most this many candidates.",
)
@answering
def plan(
    session: Session, /, words: tuple[str, ...], compare: bool, html: str | None, top: int, **flags: Any
) -> None:
    """Show where a task would run best, what it costs, and why not elsewhere.

    Also the prices of clouds that are not in use on this server. Several tasks in one file are planned
    together, with the traffic between them.
    """
    tasks, warnings, edges = parse_all(session, words, flags, heeded=_PIPELINED)
    if html is not None and len(tasks) > 1:
        raise click.UsageError(f"`{words[0]}` has {len(tasks)} tasks, a page shows one")
    screen = session.screen
    if len(tasks) > 1:
        from argosy.cli.pipelines import plan_pipeline

        screen.warn(warnings)
        objective = flags["objective"] or tasks[0].objective
        plan_pipeline(session, tasks, edges=edges, objective=objective)
        if not compare or screen.for_programs:
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
            user=session.user,
        )
        _refuse_nothing(task, reply)
        if html is not None:
            _write(session, html, reply.page)
        if len(tasks) == 1:
            screen.warn(reply.warnings)
        if screen.told(reply):
            return
        warn_of_files(session, task)
        if len(tasks) > 1:
            screen.print(f"\nTask {number} of {len(tasks)} alone: {task.name or '(no name)'}")
        else:
            screen.warn(reply.notes)
        show_plan(session, task, reply, compare=compare)
        for line in reply.folders:
            screen.print(line)


@click.command(
    epilog=examples(
        "argosy offers train.yaml",
        "argosy offers --gpus H100:8 --infra gcp --top 50",
        "argosy offers train.yaml --json",
    )
)
@click.argument("words", nargs=-1, metavar="[FILE.yaml]")
@task_options
@click.option(
    "--top",
    type=click.IntRange(1, _OFFERS_MAX),
    default=40,
    show_default=True,
    help="At most this many, cheapest first.",
)
@answering
def offers(session: Session, /, words: tuple[str, ...], top: int, **flags: Any) -> None:
    """List every offer that a task could run on, with the source of its price."""
    described = parse_described(session, words, flags, needs_run=False)
    screen = session.screen
    screen.warn(described.warnings)
    reply = session.client.plan(described.task, prices=True, limit=top)
    if not screen.told(reply):
        screen.warn(reply.notes)
    _refuse_nothing(described.task, reply)
    if screen.for_programs:
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
        spare=(
            "SOURCE",
            "DATE",
            "REFUSED",
            "LOST/MONTH",
            "MEMORY",
            "CPUS",
            "KIND",
            "INSTANCE",
            "ACCELERATORS",
        ),
    )
    _say_more(session, reply)


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
        screen.print("None of these is in use on this server: `argosy check --all` says what each needs.")
    if compare:
        screen.print()
        _compare_table(session, reply.compared)
    if any(each.code != "not-in-use" for each in reply.plan.rejected):
        screen.print("\nNot considered:")
        # The column says it of each offer.
        left = [each for each in reply.plan.rejected if each.code != "not-in-use" or not reply.offers]
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
                "yes" if offer is chosen else "" if offer.launchable else "not in use",
            ]
            for offer in reply.offers
        ],
        right=("NODES", "CPUS", "MEMORY", "$/H", "TIME", "TOTAL", "G CO2", "PLACES"),
        spare=("PLACES", "CPUS", "MEMORY", "TIME", "NODES", "CHOSEN"),
    )


def _compare_table(session: Session, rows: tuple[CompareView, ...]) -> None:
    from argosy.pages.comparison import HEADINGS, render_cells

    def cells(row: CompareView) -> list[str]:
        """As on the page; what is not known, or the same for every task, leaves its column out."""
        found = ["" if cell == "-" else cell for cell in (*render_cells(row), row.note)]
        at_nodes, at_total = HEADINGS.index("NODES"), HEADINGS.index("TOTAL")
        found[at_nodes] = found[at_nodes] if row.num_nodes > 1 else ""
        found[at_total] = f"~{found[at_total]}" if found[at_total] else ""
        return found

    session.screen.table(
        (*HEADINGS, "NOTE"),
        list(map(cells, rows)),
        right=("NODES", "$/H", "TOTAL", "DONE IN", "LOSSES", "IN TIME", "SAVES"),
        spare=("NOTE", "NODES", "LOSSES", "DONE IN"),
    )


def _say_more(session: Session, reply: PlanReply) -> None:
    shown = sum(offer.places for offer in reply.offers)
    if reply.fitting > shown:
        session.screen.print(f"and {reply.fitting - shown:,} more offers fit (--top shows more)")


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
