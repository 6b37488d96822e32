"""events: what happened."""

from __future__ import annotations

import click

from argosy.cli.clusters import age
from argosy.cli.session import Session, answering, examples


@click.command(epilog=examples("argosy events", "argosy events dev -n 20"))
@click.argument("subject", required=False)
@click.option("--after", type=int, help="Only events after this number, oldest first.")
@click.option(
    "-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True, help="At most this many."
)
@answering
def events(session: Session, subject: str | None, after: int | None, limit: int) -> None:
    """Show what happened last, to everything or to one cluster or job."""
    reply = session.client.events(subject, after=after, limit=limit)
    now_ms = session.now_ms()
    session.screen.listed(
        reply,
        ("NUMBER", "AGE", "SUBJECT", "EVENT", "TEXT"),
        [
            [str(event.seq), age(event.at_ms, now_ms), event.name or event.subject, event.code, event.text]
            for event in reply.events
        ],
        right=("NUMBER", "AGE"),
        spare=("EVENT", "AGE"),
    )
