"""Sessions: lookup by name, and the address of their app. Pure."""

from __future__ import annotations

import re

from argosy.controllers.session.decide import body_of, node_of
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.kinds.session import SESSION, session_state
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.rows import Node, Workload
from argosy.server.exchange import Exchange
from argosy.server.guarding import project_of, require_over, sees
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store


def seen_sessions(rows: Snapshot, caller: Caller) -> list[Workload]:
    """Live sessions that are there for this caller."""
    return [row for row in rows.named(SESSION.name) if sees(caller, row)]


def find_session(rows: Snapshot, name: str, caller: Caller) -> Workload | None:
    """The live session of this name or id that is there for the caller."""
    found = rows.find_named(SESSION.name, name, project_of(caller))
    if found is None:
        found = next((row for row in rows.named(SESSION.name) if row.id == name), None)
    return found if found is not None and sees(caller, found) else None


async def live_session(store: Store, exchange: Exchange) -> Workload:
    """The session that is asked for, over which the caller may do what is asked. Raises `not-found`,
    `forbidden`."""
    rows = await store.snapshot()
    found = find_session(rows, exchange.path["session"], exchange.caller)
    if found is None:
        raise no_session(exchange.path["session"], rows, exchange.caller)
    require_over(exchange.caller, found)
    return found


def no_session(name: str, rows: Snapshot, caller: Caller) -> ArgosyError:
    known = ", ".join(row.name for row in seen_sessions(rows, caller))
    return ArgosyError(
        "not-found",
        f"there is no session `{name}`",
        hint=f"there are {known}" if known else "`argosy session start terminal` makes one",
    )


def label_of(face: str, name: str) -> str:
    """The first part of a host name: the app or port, and which session.

    >>> label_of("jupyter", "lab")
    'jupyter--lab'
    """
    return f"{face}--{name}"


def name_in_host(session: Workload) -> str:
    """How a session is called in host names: by its name where that can stand there and means it, else by its
    id."""
    plain = re.fullmatch(r"[a-z0-9](?:-?[a-z0-9]){0,38}", session.name) is not None
    return session.name if plain and session.project == "default" else session.id


def free_name(rows: Snapshot, app: str, project: str) -> str:
    """The app's name, with the first number that makes it new."""
    taken = {row.name for row in rows.named(SESSION.name) if row.project == project}
    number = 1
    while (name := app if number == 1 else f"{app}-{number}") in taken:
        number += 1
    return name


def place_of(rows: Snapshot, session: Workload) -> tuple[Node, str]:
    """Where its app runs: the node, and the id of the rank. Raises `wrong-state` for one that is not up."""
    body = body_of(rows, session)
    node = node_of(rows, body) if body is not None else None
    attempt = rows.attempt_of(body.id) if body is not None else None
    if node is None or attempt is None or not session_state(session).up_ms:
        rests = session.phase is WorkloadPhase.STOPPED or session.desired is Desired.STOP
        raise ArgosyError(
            "wrong-state",
            f"session `{session.name}` {'rests' if rests else 'is not up yet'}",
            hint=f"`argosy session start {session.name}` brings it back"
            if rests
            else f"`argosy session logs {session.name}` shows how far it is",
        )
    return node, f"{attempt.id}.0"
