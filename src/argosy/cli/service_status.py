"""`serve status`, `logs`, `endpoint`, `scale`, `promote`, `rollback` and `down`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from argosy.cli.service_models import members
from argosy.cli.session import Session, answering, examples, pass_session, yes_option

if TYPE_CHECKING:
    from argosy.api.services import ReplicaView, ServiceReply, ServiceView


_PACE: Final = ("REQ/S", "P50", "P99")


@click.command(
    epilog=examples(
        "argosy serve status",
        "argosy serve status chat --json",
        "curl $(argosy serve status --endpoint chat)",
    )
)
@click.argument("names", metavar="[SERVICE]...", nargs=-1)
@click.option("-a", "--all", "every", is_flag=True, hidden=True)
@click.option("--endpoint", is_flag=True, help="Print only where they answer.")
@answering
def status(session: Session, names: tuple[str, ...], every: bool, endpoint: bool) -> None:
    """Show services and their replicas."""
    from argosy.api.services import ServiceList

    if names:
        found = tuple(each for name in names for each in members(session, name))
    else:
        found = session.client.services().services
    if session.screen.told(ServiceList(services=found)):
        return
    if endpoint:
        for each in found:
            session.screen.print(each.shared_endpoint or each.endpoint)
    elif not found:
        session.screen.print("No services. Make one: argosy serve up FILE.yaml")
    else:
        _show(session, found)


def _show(session: Session, services: tuple[ServiceView, ...]) -> None:
    from argosy.cli.clusters import age
    from argosy.cli.service_key import spending
    from argosy.model.units import render_price

    screen, now_ms = session.screen, session.now_ms()
    screen.table(
        (*("SERVICE", "STATUS", "READY", "REVISION"), *_PACE, *("ENDPOINT", "$/H", "$/1M", "DETAIL")),
        [
            [
                each.name,
                each.status,
                f"{each.ready}/{each.wanted}",
                _revisions(each) + (f" {each.share_milli / 10:g}%" if each.shared else ""),
                *_pace(each),
                each.shared_endpoint or each.endpoint,
                render_price(each.hourly_micro_usd) if each.hourly_micro_usd else "",
                _per_million(each),
                each.detail,
            ]
            for each in services
        ],
    )
    screen.print()
    screen.table(
        (*("REPLICA", "REVISION", "STATE", "FOR", "PLACE", "IN FLIGHT"), *_PACE, "$/H", "DETAIL"),
        [
            [
                f"{service.name}/{each.number}",
                str(each.revision),
                each.state,
                age(each.since_ms, now_ms) if each.since_ms else "",
                each.place,
                str(each.in_flight or ""),
                *_pace(each),
                render_price(each.hourly_micro_usd) if each.hourly_micro_usd else "",
                each.detail,
            ]
            for service in services
            for each in service.replicas
        ],
        right=("IN FLIGHT",),
    )
    for service in services:
        _say_why(session, service)
        for key in service.budgets:
            screen.say(f"{service.name}: key `{key.name}` has spent {spending(key)}", "dim")


def _pace(each: ServiceView | ReplicaView) -> tuple[str, str, str]:
    """Requests per second and latencies of the last minute."""
    return (
        f"{each.requests_milli_per_s / 1000:.3g}" if each.requests_milli_per_s else "",
        f"{each.p50_ms} ms" if each.p50_ms else "",
        f"{each.p99_ms} ms" if each.p99_ms else "",
    )


def _per_million(each: ServiceView) -> str:
    """What a million tokens cost at the pace of the last minute; requests, where none are counted."""
    from argosy.model.units import render_price

    if each.micro_usd_per_million_tokens:
        return f"{render_price(each.micro_usd_per_million_tokens)} tokens"
    if each.micro_usd_per_million_requests:
        return f"{render_price(each.micro_usd_per_million_requests)} requests"
    return ""


def _say_why(session: Session, service: ServiceView) -> None:
    """Why the rollout stands where it does, and what replicas that failed said."""
    if service.rollout is not None:
        way = service.rollout
        shares = " → ".join(f"{step / 10:g}%" for step in way.steps)
        session.screen.say(
            f"\n{service.name}: revision {way.old} → {way.new}, {way.strategy} {shares}: {way.phase}"
            + (f"; {way.detail}" if way.detail else "")
        )
    if service.status != "ready":
        for line in service.failures:
            session.screen.say(f"  {line}", "dim")
        for line in service.last_lines:
            session.screen.say(f"  {line}", "dim")
        for each in service.replicas:
            for line in each.last_lines:
                session.screen.say(f"  {service.name}/{each.number}: {line}", "dim")


def _revisions(service: ServiceView) -> str:
    """`2`, or during a rollout the shares: `1 90% 2 10%`."""
    shares = [each for each in service.revisions if each.weight and each.ready]
    if len(shares) < 2:
        return str(service.revision or "")
    return " ".join(f"{each.number} {each.weight / 10:g}%" for each in shares)


@click.command(
    epilog=examples(
        "argosy serve logs chat", "argosy serve logs chat 3 --no-follow", "argosy serve logs chat/3"
    )
)
@click.argument("service")
@click.argument("replica", required=False, type=int)
@click.option("--follow/--no-follow", default=True, help="Go on until it ends.")
@click.option("--tail", type=click.IntRange(min=0), help="Only the last N lines.")
@pass_session
def logs(session: Session, service: str, replica: int | None, follow: bool, tail: int | None) -> int:
    """Show or follow the log of a replica: the newest, or the one with this number."""
    from argosy.cli.following import Followed
    from argosy.cli.following import follow as follow_job
    from argosy.model.errors import ArgosyError

    service, _, number = service.partition("/")
    if number.isdecimal():
        replica = int(number)
    found = session.client.service(service)
    chosen = [each for each in found.replicas if replica in (None, each.number)]
    if not chosen:
        numbers = ", ".join(str(each.number) for each in found.replicas)
        raise ArgosyError(
            "not-found",
            f"service `{found.name}` has no replica {replica}"
            if replica
            else f"`{found.name}` has no replica",
            hint=f"it has {numbers}" if numbers else f"`argosy serve status {found.name}` says why",
        )
    each = chosen[-1]
    job = Followed(each.job, each.number, f"{found.name}/{each.number}", None, 1)
    return follow_job(session, job, follow=follow, tail=tail)


@click.command(epilog=examples("curl $(argosy serve endpoint chat)/v1/models"))
@click.argument("service")
@answering
def endpoint(session: Session, service: str) -> None:
    """Print the address of a service."""
    from argosy.model.errors import ArgosyError

    found = members(session, service)[0]
    place = found.shared_endpoint if found.name != service and found.shared == service else found.endpoint
    if session.screen.told(found):
        return
    if place:
        session.screen.print(place)
    else:
        raise ArgosyError(
            "wrong-state",
            f"no replica of `{found.name}` is ready yet",
            hint=f"`argosy serve status {found.name}` says why",
        )


@click.command(epilog=examples("argosy serve scale chat 5", "argosy serve scale chat auto"))
@click.argument("service")
@click.argument("replicas", metavar="NUMBER|auto")
@answering
def scale(session: Session, service: str, replicas: str) -> None:
    """Set the number of replicas; `auto`: as the file says."""
    if replicas != "auto" and not replicas.isdecimal():
        raise click.UsageError(f"`{replicas}` is no number of replicas: write 3, or auto")
    reply = session.client.scale_service(service, None if replicas == "auto" else int(replicas))
    _say(session, reply)


@click.command(epilog=examples("argosy serve promote chat"))
@click.argument("service")
@click.argument("revision", type=int, default=0)
@answering
def promote(session: Session, service: str, revision: int) -> None:
    """Let the new revision take over without further waiting."""
    _say(session, session.client.promote_service(service, revision))


@click.command(epilog=examples("argosy serve rollback chat", "argosy serve rollback chat 3"))
@click.argument("service")
@click.argument("revision", type=int, default=0)
@answering
def rollback(session: Session, service: str, revision: int) -> None:
    """Go back to the revision before, or to one of this number."""
    _say(session, session.client.rollback_service(service, revision))


def _say(session: Session, reply: ServiceReply) -> None:
    session.screen.answer(reply.service, reply.said)


@click.command(epilog=examples("argosy serve down chat", "argosy serve down chat --now"))
@click.argument("services", metavar="SERVICE...", nargs=-1, required=True)
@click.option("--now", is_flag=True, help="Do not wait for requests that are under way.")
@click.option("--purge", is_flag=True, hidden=True)
@yes_option
@answering
def down(session: Session, services: tuple[str, ...], now: bool, purge: bool, yes: bool) -> None:
    """End services and their replicas, after the requests that are under way."""
    from argosy.api.endpoint import Done

    session.screen.confirm(f"End {', '.join(f'`{name}`' for name in services)}?", yes=yes)
    meant = [each.name for name in services for each in members(session, name)]
    names = [name for each in meant for name in session.client.down_service(each, now=now or purge).names]
    session.screen.answer(Done(names=tuple(names)), *(f"service `{name}`: going down" for name in names))
