"""check: which infrastructure works, what is missing, and the command that mends it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from argosy.cli.session import Session, answering

if TYPE_CHECKING:
    from argosy.api.prices import CheckReply, DiagnosticView

_LOOK_S: Final = 0.1


@click.command(
    epilog="""\b
Examples:
  argosy check
  argosy check aws ssh
  argosy check --all
  argosy check --json

Ends with 0 when something works; with names: when all of them do. With 1 otherwise."""
)
@click.argument("infra", nargs=-1)
@click.option("-a", "--all", "every", is_flag=True, help="Also infrastructure that is not in use.")
@click.option("-v", "--verbose", is_flag=True, hidden=True)
@answering
def check(session: Session, infra: tuple[str, ...], every: bool, verbose: bool) -> None:
    """Show which infrastructure works, what is missing, and the command that fixes it."""
    import msgspec

    from argosy.model.errors import ArgosyError

    names = ",".join(infra)
    with session.on_interrupt(lambda: "Not all have answered."):
        first = session.client.check(names or None, all=every, quick=True)
        findings = [*first.findings, *_ask_all(session, first)]
    known = {finding.provider for finding in findings}
    if unknown := [name for name in infra if name not in known]:
        raise ArgosyError(
            "usage",
            f"Argosy cannot run on {unknown[0]} yet; available: {_available(session, known)}",
            hint="`argosy plan` shows prices of other places, too",
        )
    chosen = [one for one in findings if not infra or one.provider in infra]
    chosen.sort(key=lambda one: (not one.in_use, one.provider))
    reply = msgspec.structs.replace(first, findings=tuple(chosen), asking=())
    if not session.screen.told(reply):
        _show(session, reply, told_all=every or bool(infra))
    works = {one.provider for one in chosen if one.ok}
    if not works or set(infra) - works:
        raise click.exceptions.Exit(1)


def _ask_all(session: Session, first: CheckReply) -> list[DiagnosticView]:
    """Everyone in use at once, so that one that is slow holds up no other; who is waited for is shown."""
    from concurrent.futures import ThreadPoolExecutor

    if not first.asking:
        return []
    began_s = time.monotonic()
    with ThreadPoolExecutor(len(first.asking)) as pool:
        calls = {name: pool.submit(session.client.check, name) for name in first.asking}
        while waiting := [name for name, call in calls.items() if not call.done()]:
            waited = f" ({time.monotonic() - began_s:.0f} s)" if time.monotonic() - began_s > 1 else ""
            session.screen.progress(f"asks {', '.join(waiting)}{waited}")
            time.sleep(_LOOK_S if time.monotonic() - began_s > _LOOK_S else 0.005)
    session.screen.end_progress()
    return [finding for call in calls.values() for finding in call.result().findings]


def _available(session: Session, known: set[str]) -> str:
    names = known or {one.provider for one in session.client.check().findings}
    return ", ".join(sorted(names))


def _show(session: Session, reply: CheckReply, *, told_all: bool) -> None:
    screen = session.screen
    width = max((len(finding.provider) for finding in reply.findings), default=0)
    for finding in reply.findings:
        mark = ("ok", "green") if finding.ok else ("no", "red") if finding.in_use else ("--", "dim")
        screen.print(f"{screen.paint(*mark, screen.out)}  {finding.provider.ljust(width)}  {finding.what}")
        if finding.hint and not finding.ok:
            screen.print(f"    {' ' * width}  hint: {finding.hint}")
    if not told_all:
        screen.say("`argosy check --all` also shows what is not in use", "dim")
