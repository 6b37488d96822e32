"""What handlers ask before they show or change something: `may` in the words of rows and errors.

What a caller may not see is not there: an id of somebody else answers as one that nobody has.
"""

from __future__ import annotations

from argosy.identity.deciding import Denied, Scopes, may, visible
from argosy.model.access import OWNER, Caller, Target
from argosy.model.errors import ArgosyError
from argosy.model.kinds import kind_of
from argosy.model.rows import Workload

DEFAULT = "default"  # the project of who names none


def target_of(row: Workload) -> Target:
    return Target(row.project, row.user)


def sees(caller: Caller, row: Workload) -> bool:
    """Whether the row is there for this caller."""
    if caller is OWNER:
        return True
    return bool(may(caller, f"{kind_of(row).resource}.read", target_of(row)))


def require(caller: Caller, target: Target, permission: str = "") -> None:
    """Raises `forbidden`. `permission`: "" means that of the endpoint that is asked."""
    decided = may(caller, permission or caller.asks, target)
    if isinstance(decided, Denied):
        raise forbidden(decided.reason)


def require_over(caller: Caller, row: Workload, permission: str = "") -> None:
    """Raises `forbidden` when the caller may see the row and not do this to it."""
    require(caller, target_of(row), permission)


def require_new(caller: Caller, project: str, permission: str = "") -> None:
    """Raises `forbidden` when the caller may not make such a thing in this project."""
    require(caller, Target(project, caller.name), permission)


def scopes(caller: Caller, permission: str = "") -> Scopes:
    """What a list of this endpoint shows."""
    return visible(caller, permission or caller.asks)


def project_of(caller: Caller, named: str = "") -> str:
    """The project in which something new is made: the one named by the request or its header, else `default`,
    else the only one in which the caller may. Raises `usage` for what cannot be a project."""
    from argosy.spec.names import check_name

    wanted = named or caller.project
    if wanted:
        return check_name("project", wanted)
    where = scopes(caller) if caller.asks else None
    if where is None or where.holds(DEFAULT, caller.name):
        return DEFAULT
    mine = (where.whole or frozenset()) | (where.own or frozenset())
    return next(iter(mine)) if len(mine) == 1 else DEFAULT


def made_by(caller: Caller, said: str) -> str:
    """Whose a new thing is: the account's, else (over the socket) whom the request names."""
    return caller.name or said


def forbidden(reason: str) -> ArgosyError:
    return ArgosyError(
        "forbidden",
        reason,
        hint="administrators of the project give roles; the owner of the server makes tokens",
    )


def projects_of(seen: Scopes) -> frozenset[str] | None:
    """Projects in which there may be something to see; None: all."""
    if seen.whole is None or seen.own is None:
        return None
    return seen.whole | seen.own


def key_of(caller: Caller, key: str) -> str:
    """An idempotency key as it is kept: nobody reads what somebody else was answered."""
    return f"{caller.id}:{key}" if key and caller.id else key
