"""check, gpus, cost-report, events: what the world offers, costs and did."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from argosy.cli.clusters import age
from argosy.cli.session import Session, json_option, pass_session
from argosy.model.units import render_bytes, render_duration, render_milli, render_price

if TYPE_CHECKING:
    from collections.abc import Sequence

    from argosy.api.prices import ModelView
    from argosy.model.offer import Offer
    from argosy.model.priced import GpuView, PriceView


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

    from argosy.model.errors import ArgosyError

    reply = session.client.check()
    if infra:
        known = {finding.provider for finding in reply.findings}
        if unknown := [name for name in infra if name not in known]:
            raise ArgosyError(
                "usage",
                f"Argosy cannot run on {unknown[0]} yet; available: {', '.join(sorted(known))}",
                hint="`argosy plan` shows prices of other places, too",
            )
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
  argosy gpus A100:8
  argosy gpus H100 --infra gcp --spot
  argosy gpus --all --json

Prices that were computed instead of read are shown with `~`."""
)
@click.argument("gpu", required=False, metavar="[MODEL[:COUNT]]")
@click.option("--infra", metavar="PROVIDER", help="Only there: PROVIDER[/REGION[/ZONE]].")
@click.option("-a", "--all", "every", is_flag=True, help="Every machine, also own ones without accelerators.")
@click.option("--cheapest", is_flag=True, help="One machine for each model, count and provider.")
@click.option("--spot", is_flag=True, help="Only what can be had as spot, by that price.")
@json_option
@pass_session
def gpus(
    session: Session,
    gpu: str | None,
    infra: str | None,
    every: bool,
    cheapest: bool,
    spot: bool,
    as_json: bool,
) -> None:
    """Show accelerators that can be had, and what clouds take for them.

    First what is in use; then, without a model, one line for each that is known.
    """
    import msgspec

    wanted = None if gpu == "list" else gpu or None
    reply = session.client.gpus(wanted, infra=infra, spot=spot, cheapest=cheapest, all=every)
    if not every:
        chosen = tuple(offer for offer in reply.offers if offer.shape.accelerator)
        reply = msgspec.structs.replace(reply, offers=chosen)
    screen = session.screen
    if as_json:
        screen.json(reply)
        return
    if reply.models or reply.gpus:
        screen.warn(reply.notes)
    rows = [_own_row(offer) for offer in reply.offers] + [
        _cloud_row(each, spot, session.now_ms()) for each in reply.gpus
    ]
    if rows:
        screen.table(
            (
                "ACCELERATOR",
                "COUNT",
                "MEMORY",
                "INFRA",
                "INSTANCE",
                "CPUS",
                "RAM",
                "KIND",
                "$/H",
                "SPOT $/H",
                "SPOT IN",
                "REGIONS",
                "REFUSED",
            ),
            rows,
            right=("COUNT", "MEMORY", "CPUS", "RAM", "$/H", "SPOT $/H", "REGIONS"),
        )
    if wanted and reply.gpus:
        screen.print(_device_line(reply.gpus[0]))
    if reply.models:
        if rows:
            screen.print()
        _model_table(session, reply.models)
    if not rows and not reply.models:
        screen.print(
            f"Nobody offers {wanted or 'accelerators'}{f' on {infra}' if infra else ''}. See "
            "`argosy gpus` and `argosy check`."
        )


def _own_row(offer: Offer) -> list[str]:
    shape = offer.shape
    return [
        shape.accelerator or "none",
        render_milli(shape.accelerators_milli),
        render_bytes(shape.accelerator_memory_bytes) if shape.accelerator_memory_bytes else "",
        "/".join(part for part in (offer.provider, offer.region, offer.zone) if part),
        shape.instance_type,
        render_milli(shape.cpus_milli),
        render_bytes(shape.memory_bytes),
        offer.capacity.value,
        ("~" if offer.estimated else "") + render_price(offer.price_micro_usd),
        "",
        "",
        "",
        "",
    ]


def _cloud_row(row: GpuView, spot: bool, now_ms: int) -> list[str]:
    """One kind of machine at its cheapest place."""
    from argosy.cli.planning import render_refused, render_view

    shown = row.spot if spot or row.on_demand is None else row.on_demand
    other = row.spot if shown is row.on_demand else None
    return [
        row.accelerator,
        render_milli(row.accelerators_milli),
        render_bytes(row.device_memory_bytes) if row.device_memory_bytes else "",
        "/".join(part for part in (row.provider, shown.region if shown else "") if part),
        row.instance_type,
        render_milli(row.cpus_milli) if row.cpus_milli else "",
        render_bytes(row.memory_bytes) if row.memory_bytes else "",
        "spot" if shown is row.spot else "on-demand",
        render_view(shown),
        render_view(other),
        other.region if other else "",
        str(len(row.regions)),
        render_refused(row.refused, now_ms),
    ]


def _device_line(row: GpuView) -> str:
    """`A100: NVIDIA, Ampere, 40 GB, NVLink 600 GB/s`"""
    memory = render_bytes(row.device_memory_bytes) if row.device_memory_bytes else ""
    told = [part for part in (row.vendor, row.architecture, memory, row.interconnect) if part]
    return f"{row.accelerator}: {', '.join(told)}"


def _model_table(session: Session, models: Sequence[ModelView]) -> None:
    from argosy.cli.planning import render_view

    def where(price: PriceView | None) -> str:
        return f"{price.provider}/{price.region}" if price else ""

    session.screen.table(
        (
            "ACCELERATOR",
            "MEMORY",
            "ARCHITECTURE",
            "COUNTS",
            "CLOUDS",
            "$/H EACH",
            "WHERE",
            "SPOT EACH",
            "SPOT WHERE",
        ),
        [
            [
                model.accelerator,
                render_bytes(model.device_memory_bytes) if model.device_memory_bytes else "",
                model.architecture,
                ",".join(render_milli(count) for count in model.counts_milli),
                str(len(model.providers)),
                render_view(model.on_demand),
                where(model.on_demand),
                render_view(model.spot),
                where(model.spot),
            ]
            for model in models
        ],
        right=("MEMORY", "CLOUDS", "$/H EACH", "SPOT EACH"),
    )


@click.command(
    epilog="""\b
Examples:
  argosy cost-report
  argosy cost-report --days 7 --json
  argosy cost-report --by user --days 30
  argosy cost-report --by infra --against aws

ARGOSY_DEFAULT_CLOUD names the cloud of --against."""
)
@click.option("--days", type=click.IntRange(min=1), help="Of the last so many days. [default: all]")
@click.option(
    "--by", type=click.Choice(["user", "project", "task", "infra", "day"]), help="In groups, dearest first."
)
@click.option("--against", metavar="CLOUD", help="What the same would cost there on demand today.")
@click.option("-a", "--all", "every", is_flag=True, hidden=True)
@json_option
@pass_session
def cost_report(
    session: Session, days: int | None, by: str | None, against: str | None, every: bool, as_json: bool
) -> None:
    """Show what clusters and managed jobs cost, and what was saved.

    With --by, --json has the `groups` and leaves `costs` empty.
    """
    import msgspec

    against = against or session.env.get("ARGOSY_DEFAULT_CLOUD") or None
    reply = session.client.costs(days, by=by, against=against)
    screen = session.screen
    if as_json:
        screen.json(reply if by is None else msgspec.structs.replace(reply, costs=()))
        return
    if not reply.costs:
        screen.print("Nothing was held, so nothing was spent.")
        return
    if by is not None:
        screen.table(
            (
                by.upper(),
                "HELD",
                "COST",
                "SAVED ON SPOT",
                f"SAVED AGAINST {(against or '').upper()}".rstrip(),
            ),
            [
                [
                    group.key,
                    render_duration(group.held_s),
                    render_price(group.cost_micro_usd),
                    _saved(group.saved_on_demand_micro_usd),
                    _saved(group.saved_elsewhere_micro_usd),
                ]
                for group in reply.groups
            ],
            right=("HELD", "COST", "SAVED ON SPOT", f"SAVED AGAINST {(against or '').upper()}".rstrip()),
        )
    else:
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
    for amount, than in (
        (reply.saved_on_demand_micro_usd, "on demand"),
        (reply.saved_elsewhere_micro_usd, f"on {against}"),
    ):
        if amount is not None:
            word = "less" if amount >= 0 else "more"
            screen.print(f"~{render_price(abs(amount))} {word} than {than} at today's prices")


def _saved(micro_usd: int | None) -> str:
    """Savings are estimates: they compare with the prices of today."""
    if micro_usd is None:
        return ""
    return f"~{'-' if micro_usd < 0 else ''}{render_price(abs(micro_usd))}"


@click.command(
    epilog="""\b
Examples:
  argosy events
  argosy events dev -n 20
"""
)
@click.argument("subject", required=False)
@click.option("--after", type=int, help="Only later than this number, oldest first.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most so many."
)
@json_option
@pass_session
def events(session: Session, subject: str | None, after: int | None, limit: int, as_json: bool) -> None:
    """Show what happened last, to everything or to one cluster or job."""
    reply = session.client.events(subject, after=after, limit=limit)
    if as_json:
        session.screen.json(reply)
        return
    now_ms = session.now_ms()
    session.screen.table(
        ("NUMBER", "AGE", "SUBJECT", "EVENT", "TEXT"),
        [
            [str(event.seq), age(event.at_ms, now_ms), event.name or event.subject, event.code, event.text]
            for event in reply.events
        ],
        right=("NUMBER", "AGE"),
    )
