"""`serve key`: who may send requests to a service, and how many."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from argosy.cli.session import Session, json_option, pass_session

if TYPE_CHECKING:
    from argosy.api.services import ServiceKeyView


@click.command(
    epilog="""\b
Examples:
  argosy serve key chat
  argosy serve key chat ann --requests-per-minute 600 --tokens-per-minute 100000
  argosy serve key chat ci --expires 30d
  argosy serve key chat ann --remove

A client says `Authorization: Bearer KEY`. From the first key on, no request passes without one.
"""
)
@click.argument("service")
@click.argument("name", required=False)
@click.option("--requests-per-minute", type=click.IntRange(min=0), default=0, help="At most so many.")
@click.option("--tokens-per-minute", type=click.IntRange(min=0), default=0, help="Of a language model.")
@click.option("--concurrency", type=click.IntRange(min=0), default=0, help="So many at the same time.")
@click.option("--expires", default="", metavar="30d", help="It ends after so long.")
@click.option("--remove", is_flag=True, help="It lets nobody in any longer.")
@json_option
@pass_session
def key(
    session: Session,
    /,
    service: str,
    name: str | None,
    expires: str,
    remove: bool,
    as_json: bool,
    **limits: int,
) -> None:
    """Keys that let requests in: list them, make one, remove one."""
    from argosy.model.units import parse_duration_s

    screen, client = session.screen, session.client
    if name is None:
        reply = client.service_keys(service)
        if as_json:
            screen.json(reply)
        else:
            _show(session, reply.keys)
        return
    if remove:
        done = client.remove_service_key(service, name)
        screen.json(done) if as_json else screen.say(f"The key `{name}` lets nobody in any longer.")
        return
    made = client.make_service_key(
        service,
        name,
        requests_per_minute=limits["requests_per_minute"],
        tokens_per_minute=limits["tokens_per_minute"],
        max_concurrency=limits["concurrency"],
        expires_s=parse_duration_s(expires) if expires else 0,
    )
    if as_json:
        screen.json(made)
        return
    screen.print(made.secret)
    screen.say(
        f"It is shown this once. A request says it so:\n"
        f"  curl -H 'Authorization: Bearer {made.secret[:14]}...' {made.endpoint or 'ENDPOINT'}/",
        "dim",
    )


def _show(session: Session, keys: tuple[ServiceKeyView, ...]) -> None:
    from argosy.cli.clusters import age

    if not keys:
        session.screen.print("No keys.")
        return
    now_ms = session.now_ms()
    session.screen.table(
        ("NAME", "REQUESTS/MIN", "TOKENS/MIN", "AT ONCE", "MADE", "EXPIRES"),
        [
            [
                each.name,
                str(each.requests_per_minute or ""),
                str(each.tokens_per_minute or ""),
                str(each.max_concurrency or ""),
                f"{age(each.made_ms, now_ms)} ago",
                _expiry(each.expires_ms, now_ms),
            ]
            for each in keys
        ],
    )


def _expiry(expires_ms: int, now_ms: int) -> str:
    from argosy.cli.clusters import age

    if not expires_ms:
        return ""
    return "expired" if expires_ms <= now_ms else f"in {age(now_ms, expires_ms)}"
