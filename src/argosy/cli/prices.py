"""gpus, regions, catalog: what infrastructure offers, at which prices, and how old those are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from argosy.cli.offer_words import render_refused, render_view
from argosy.cli.session import Session, answering, examples
from argosy.model.units import many, render_bytes, render_milli, render_price

if TYPE_CHECKING:
    from collections.abc import Sequence

    from argosy.api.prices import ModelView
    from argosy.model.offer import Offer
    from argosy.model.priced import GpuView, PriceView, RegionView


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
@click.option("--infra", metavar="PROVIDER", help="Only at this place: PROVIDER[/REGION[/ZONE]].")
@click.option("-a", "--all", "every", is_flag=True, help="Every machine, also own ones without accelerators.")
@click.option("--cheapest", is_flag=True, help="One machine for each model, count and provider.")
@click.option("--spot", is_flag=True, help="Only spot machines, with their spot prices.")
@answering
def gpus(
    session: Session, gpu: str | None, infra: str | None, every: bool, cheapest: bool, spot: bool
) -> None:
    """Show available accelerators, and what they cost in clouds.

    First what is in use; then, without a model, one line for each that is known.
    """
    import msgspec

    wanted = None if gpu == "list" else gpu or None
    reply = session.client.gpus(wanted, infra=infra, spot=spot, cheapest=cheapest, all=every)
    if not every:
        chosen = tuple(offer for offer in reply.offers if offer.shape.accelerator)
        reply = msgspec.structs.replace(reply, offers=chosen)
    screen = session.screen
    if screen.told(reply):
        return
    if reply.models or reply.gpus:
        screen.warn(reply.notes)
    rows = [_own_row(offer) for offer in reply.offers] + [
        _cloud_row(each, spot, session.now_ms()) for each in reply.gpus
    ]
    if rows:
        _machine_table(session, rows)
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


def _machine_table(session: Session, rows: Sequence[Sequence[str]]) -> None:
    session.screen.table(
        (
            "ACCELERATOR",
            "COUNT",
            "MEMORY",
            "INFRA",
            "INSTANCE",
            "HOSTS",
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
        right=("COUNT", "MEMORY", "HOSTS", "CPUS", "RAM", "$/H", "SPOT $/H", "REGIONS"),
        spare=(
            "REFUSED",
            "REGIONS",
            "SPOT IN",
            "RAM",
            "CPUS",
            "MEMORY",
            "INSTANCE",
            "SPOT $/H",
            "KIND",
            "COUNT",
        ),
    )


def _own_row(offer: Offer) -> list[str]:
    shape = offer.shape
    return [
        shape.accelerator or "none",
        render_milli(shape.accelerators_milli),
        render_bytes(shape.accelerator_memory_bytes) if shape.accelerator_memory_bytes else "",
        "/".join(part for part in (offer.provider, offer.region, offer.zone) if part),
        shape.instance_type,
        "",
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
    shown = row.spot if spot or row.on_demand is None else row.on_demand
    other = row.spot if shown is row.on_demand else None
    return [
        row.accelerator,
        render_milli(row.accelerators_milli),
        render_bytes(row.device_memory_bytes) if row.device_memory_bytes else "",
        "/".join(part for part in (row.provider, shown.region if shown else "") if part),
        row.instance_type,
        str(row.hosts) if row.hosts > 1 else "",
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
        spare=("SPOT WHERE", "WHERE", "ARCHITECTURE", "COUNTS", "CLOUDS", "MEMORY", "SPOT EACH"),
    )


@click.command(epilog=examples("argosy regions", "argosy regions aws", "argosy regions --area eu"))
@click.argument("provider", required=False)
@click.option("--area", metavar="AREA", help="Only in eu, eea, a country (kr) or a continent (asia).")
@answering
def regions(session: Session, provider: str | None, area: str | None) -> None:
    """Show the regions of clouds, and what they have."""
    reply = session.client.regions(provider, area=area)
    screen = session.screen
    screen.listed(
        reply,
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
        spare=("ZONES", "G CO2/KWH", "OFFERS", "WHERE"),
        none="No region is known there.",
    )


def _carbon(row: RegionView) -> str:
    if row.carbon_g_per_kwh is None:
        return ""
    return f"{'~' if row.carbon_estimated else ''}{row.carbon_g_per_kwh:.0f}"


@click.group(epilog=examples("argosy catalog show", "argosy catalog refresh azure"))
def catalog() -> None:
    """Known prices: how old they are, and how to get new ones."""


@catalog.command("show", epilog=examples("argosy catalog show", "argosy catalog show --json"))
@answering
def catalog_show(session: Session) -> None:
    """Show how many prices are known of each provider, and how old they are."""
    reply = session.client.catalog()
    screen = session.screen
    if screen.told(reply):
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
        spare=("UNDATED", "OLDEST", "FROM", "NEWEST", "REFRESH", "PRICES"),
    )
    total = sum(age.offers for age in reply.providers)
    stale = sum(age.stale for age in reply.providers)
    screen.print(f"{many(total, 'price')}; your own folder is {reply.folder}")
    if stale:
        screen.print(
            f"! old: {stale} of {len(reply.providers)}; `argosy catalog refresh PROVIDER` gets new ones"
        )


@catalog.command("refresh", epilog=examples("argosy catalog refresh azure", "argosy catalog refresh"))
@click.argument("providers", nargs=-1)
@click.option("--force", is_flag=True, help="Accept the new prices even when there are suspiciously few.")
@answering
def catalog_refresh(session: Session, providers: tuple[str, ...], force: bool) -> None:
    """Fetch current prices from the providers' own services; without a name, from all that can be asked.

    A provider that fails keeps its old prices, and the exit status is not 0. Ctrl-C cancels the one under
    way.
    """
    from argosy.model.errors import ArgosyError

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
                screen.say_error(error)
                continue
            done.append(reply)
            if not screen.for_programs:
                more = f", {many(reply.skipped, 'entry')} skipped" if reply.skipped else ""
                screen.end_progress()
                screen.print(f"{reply.provider}: {many(reply.after, 'price')} (before: {reply.before}{more})")
    screen.told(done)
    if failed is not None:
        raise click.exceptions.Exit(failed.exit_status)
