"""audit: who did what."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from argosy.cli.clusters import age
from argosy.cli.session import Session, answering, examples, pass_session
from argosy.model.units import many

if TYPE_CHECKING:
    from argosy.model.audit import Record


@click.group(epilog=examples("argosy audit ls --who ann", "argosy audit verify"))
def audit() -> None:
    """The audit log: who did what. Entries are only ever appended."""


@audit.command("ls", epilog=examples("argosy audit ls", "argosy audit ls --who ann --outcome denied -n 20"))
@click.option("--who", default="", help="Only entries of this account.")
@click.option("--action", default="", help="Only this endpoint, such as `down`.")
@click.option(
    "--outcome", type=click.Choice(["done", "denied"]), help="Only what was done, or what was denied."
)
@click.option("-n", "--limit", type=click.IntRange(min=1), default=100, show_default=True)
@answering
def audit_list(session: Session, who: str, action: str, outcome: str | None, limit: int) -> None:
    """Show the latest entries."""
    reply = session.client.audit(who=who, action=action, outcome=outcome or "", limit=limit)
    now_ms = session.now_ms()
    rows = [
        [
            str(each.seq),
            age(each.act.at_ms, now_ms),
            each.act.who,
            each.act.address or each.act.via,
            each.act.action,
            each.act.outcome,
            each.act.target,
        ]
        for each in reply.records
    ]
    session.screen.listed(
        reply,
        ("NUMBER", "AGE", "WHO", "FROM", "ACTION", "OUTCOME", "TARGET"),
        rows,
        right=("NUMBER", "AGE"),
        spare=("AGE", "FROM"),
    )


@audit.command("verify", epilog=examples("argosy audit verify", "argosy audit verify --json"))
@answering
def audit_verify(session: Session) -> None:
    """Verify that no entry was changed, removed or inserted. Exit status 8 when one was."""
    from argosy.model.errors import ArgosyError

    reply = session.client.verify_audit()
    session.screen.answer(
        reply, f"{many(reply.rows, 'row')}, {reply.first} to {reply.last}; head {reply.head}"
    )
    if reply.broken:
        raise ArgosyError(
            "store-corrupt",
            f"the audit log was tampered with: {reply.broken}",
            hint="compare it with an export, and with the heads in the server's log",
        )


@audit.command(
    "export",
    epilog=examples("argosy audit export > audit.jsonl", "argosy audit export --after 5000 >> audit.jsonl"),
)
@click.option("--after", default=0, show_default=True, help="Only entries after this number.")
@pass_session
def audit_export(session: Session, after: int) -> None:
    """Print every entry as a line of JSON, with its hash."""
    while True:
        page = session.client.audit(after=after, limit=5000)
        for each in page.records:
            session.screen.print(_line(each))
        if not page.more:
            return
        after = page.records[-1].seq


def _line(record: Record) -> str:
    import msgspec

    return msgspec.json.encode(record).decode()
