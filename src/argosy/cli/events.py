"""events: what happened."""

from __future__ import annotations

import click

from argosy.cli.clusters import age
from argosy.cli.session import Session, examples, json_option, pass_session


@click.command(epilog=examples("argosy events", "argosy events dev -n 20"))
@click.argument("subject", required=False)
@click.option("--after", type=int, help="Only events after this number, oldest first.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most this many."
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
        spare=("EVENT", "AGE"),
    )
