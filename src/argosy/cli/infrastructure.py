"""check, gpus, cost-report, events: what the world offers, costs and did."""

from __future__ import annotations

import click

from argosy.cli.clusters import age
from argosy.cli.session import Session, json_option, pass_session
from argosy.model.units import render_bytes, render_duration, render_milli, render_price


@click.command(
    epilog="""\b
Examples:
  argosy check
  argosy check local
"""
)
@click.argument("infra", nargs=-1)
@click.option("-v", "--verbose", is_flag=True, hidden=True)
@json_option
@pass_session
def check(session: Session, infra: tuple[str, ...], verbose: bool, as_json: bool) -> None:
    """Say which infrastructure works, and what to do about the rest."""
    import msgspec

    reply = session.client.check()
    if infra:
        known = {finding.provider for finding in reply.findings}
        if unknown := [name for name in infra if name not in known]:
            raise click.UsageError(f"`{unknown[0]}` is not one of {', '.join(sorted(known))}")
        chosen = tuple(finding for finding in reply.findings if finding.provider in infra)
        reply = msgspec.structs.replace(reply, findings=chosen)
    screen = session.screen
    if as_json:
        screen.json(reply)
        return
    width = max((len(finding.provider) for finding in reply.findings), default=0)
    for finding in reply.findings:
        mark = (
            screen.paint("ok", "green", screen.out) if finding.ok else screen.paint("no", "red", screen.out)
        )
        screen.print(f"{mark}  {finding.provider.ljust(width)}  {finding.what}")
        if finding.hint and not finding.ok:
            screen.print(f"    {' ' * width}  hint: {finding.hint}")
    if not any(finding.ok for finding in reply.findings):
        raise click.exceptions.Exit(1)


@click.command(
    epilog="""\b
Examples:
  argosy gpus
  argosy gpus A100
"""
)
@click.argument("gpu", required=False)
@click.option("-a", "--all", "every", is_flag=True, help="Also machines without accelerators.")
@json_option
@pass_session
def gpus(session: Session, gpu: str | None, every: bool, as_json: bool) -> None:
    """Show accelerators that can be had, and their price."""
    import msgspec

    model = None if gpu in (None, "list") else gpu.partition(":")[0] if gpu else None
    reply = session.client.offers(model)
    if as_json:
        session.screen.json(reply)
        return
    if not every:
        chosen = tuple(offer for offer in reply.offers if offer.shape.accelerator)
        reply = msgspec.structs.replace(reply, offers=chosen)
    if not reply.offers:
        what = f"no `{model}`" if model else "no accelerators"
        session.screen.print(
            f"There are {what} on the infrastructure in use. `argosy check` shows what that is."
        )
        return
    session.screen.table(
        ("ACCELERATOR", "COUNT", "MEMORY", "INFRA", "INSTANCE", "CPUS", "RAM", "KIND", "$/H"),
        [
            [
                offer.shape.accelerator or "none",
                render_milli(offer.shape.accelerators_milli),
                render_bytes(offer.shape.accelerator_memory_bytes)
                if offer.shape.accelerator_memory_bytes
                else "",
                "/".join(part for part in (offer.provider, offer.region, offer.zone) if part),
                offer.shape.instance_type,
                render_milli(offer.shape.cpus_milli),
                render_bytes(offer.shape.memory_bytes),
                offer.capacity.value,
                render_price(offer.price_micro_usd) + ("~" if offer.estimated else ""),
            ]
            for offer in reply.offers
        ],
        right=("COUNT", "MEMORY", "CPUS", "RAM", "$/H"),
    )


@click.command(
    epilog="""\b
Examples:
  argosy cost-report
  argosy cost-report --days 7 --json
"""
)
@click.option("--days", type=click.IntRange(min=1), help="Of the last so many days. [default: all]")
@click.option("-a", "--all", "every", is_flag=True, hidden=True)
@json_option
@pass_session
def cost_report(session: Session, days: int | None, every: bool, as_json: bool) -> None:
    """Show what clusters and managed jobs cost."""
    reply = session.client.costs(days)
    screen = session.screen
    if as_json:
        screen.json(reply)
        return
    if not reply.costs:
        screen.print("Nothing was held, so nothing was spent.")
        return
    screen.table(
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
            for cost in reply.costs
        ],
        right=("NODES", "HELD", "$/H", "COST"),
    )
    screen.print(f"Total: {render_price(reply.total_micro_usd)}")


@click.command(
    epilog="""\b
Examples:
  argosy events
  argosy events dev -n 20
"""
)
@click.argument("subject", required=False)
@click.option("--after", type=int, help="Only later than this number.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."
)
@json_option
@pass_session
def events(session: Session, subject: str | None, after: int | None, limit: int, as_json: bool) -> None:
    """Show what happened, to everything or to one cluster or job."""
    reply = session.client.events(subject, after=after, limit=limit)
    if as_json:
        session.screen.json(reply)
        return
    now_ms = session.now_ms()
    session.screen.table(
        ("NUMBER", "AGE", "SUBJECT", "EVENT", "TEXT"),
        [
            [str(event.seq), age(event.at_ms, now_ms), event.subject, event.code, event.text]
            for event in reply.events
        ],
        right=("NUMBER", "AGE"),
    )
