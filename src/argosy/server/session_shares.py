"""Sessions that are shared: who else may see one and open its app. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.identity.deciding import may, visible
from argosy.model.access import Caller, Grant
from argosy.model.errors import ArgosyError
from argosy.model.kinds.session import SESSION, Share, session_state
from argosy.model.rows import Workload
from argosy.server.guarding import target_of
from argosy.store.snapshot import Snapshot

LONGEST_S: Final = 30 * 24 * 3600
SHARES_MAX: Final = 50
#: What a share allows, whatever the roles of whom it is for: never typing, ssh, stopping or ending.
_ALLOWED: Final = Grant(permissions=frozenset(("sessions.read", "sessions.enter")))


def is_shared(session: Workload, caller: Caller, now_ms: int) -> bool:
    """Whether this caller may see the session and open its app because it is shared. What a limited token is
    not for stays forbidden."""
    return _holds(session, caller, now_ms, watch=False)


def is_watched(session: Workload, caller: Caller, now_ms: int) -> bool:
    """Whether this caller may see the session and watch its terminals because it is shared so."""
    return _holds(session, caller, now_ms, watch=True)


def _holds(session: Workload, caller: Caller, now_ms: int, *, watch: bool) -> bool:
    shares = [each for each in session_state(session).shares if each.watch is watch]
    if not any(_meets(share, caller) and share.until_ms > now_ms for share in shares):
        return False
    as_shared = msgspec.structs.replace(caller, grants=(_ALLOWED,))
    return bool(may(as_shared, "sessions.enter", target_of(session)))


def _meets(share: Share, caller: Caller) -> bool:
    kind, colon, name = share.who.partition(":")
    if not colon:
        return bool(caller.id) and caller.name == kind
    return bool(caller.id) and visible(caller, "sessions.read").holds(name, caller.name)


def shared_sessions(rows: Snapshot, caller: Caller, now_ms: int) -> list[Workload]:
    """Live sessions that others share with this caller."""
    return [
        row
        for row in rows.named(SESSION.name)
        if is_shared(row, caller, now_ms) or is_watched(row, caller, now_ms)
    ]


def find_shared(rows: Snapshot, name: str, caller: Caller, now_ms: int) -> Workload | None:
    """By id, or by a name that only one of them has."""
    found = [row for row in shared_sessions(rows, caller, now_ms) if name in (row.id, row.name)]
    exact = [row for row in found if row.id == name]
    return exact[0] if exact else found[0] if len(found) == 1 else None


def with_share(session: Workload, who: str, seconds: int, now_ms: int, *, watch: bool = False) -> Workload:
    """The session with this share, in place of one for the same; without those whose time is over, and
    without all of theirs for `seconds` 0. Raises `usage`."""
    from argosy.spec.names import check_name

    kind, colon, name = who.partition(":")
    if not kind or (colon and (kind != "project" or not name)):
        raise ArgosyError(
            "usage",
            f"`{who}` is nobody to share with",
            hint="write the name of a user, or project:NAME for all who have a role there",
        )
    if colon:
        check_name("project", name)
    if not 0 <= seconds <= LONGEST_S:
        raise ArgosyError("usage", f"{seconds} seconds: a share lasts 30 days at most", hint="share it again")
    kept = [
        each
        for each in session_state(session).shares
        if each.until_ms > now_ms and (each.who != who or (seconds and each.watch is not watch))
    ]
    if seconds:
        kept.append(Share(who=who, until_ms=now_ms + seconds * 1000, watch=watch))
    if len(kept) > SHARES_MAX:
        raise ArgosyError(
            "usage", f"session `{session.name}` has {SHARES_MAX} shares", hint="share it with a project"
        )
    return session.with_status(shares=tuple(kept))
