"""Who may give what to whom: checks before roles, accounts and credentials change. Pure.

One law stands behind all of them: nobody gives, takes over or resets what goes beyond their own rights.
"""

from __future__ import annotations

from collections.abc import Iterable

from argosy.identity.deciding import Denied, may
from argosy.identity.directory import Directory, owners, projects_under, role_called
from argosy.identity.roles import BUILT_IN, exceeds
from argosy.model.access import Caller, Grant, Target
from argosy.model.errors import ArgosyError
from argosy.model.people import Binding, User
from argosy.store.snapshot import Snapshot

_ANYWHERE = Target()


def require(caller: Caller, permission: str, target: Target = _ANYWHERE) -> None:
    """Raises `forbidden`."""
    decided = may(caller, permission, target)
    if isinstance(decided, Denied):
        raise ArgosyError(
            "forbidden", decided.reason, hint="administrators of the project or the server give roles"
        )


def check_binding(rows: Snapshot, caller: Caller, binding: Binding) -> None:
    """Whether the caller may give or take this role there. Raises `forbidden`, `not-found` for an unknown
    role."""
    role = role_called(rows, binding.role)
    if role is None:
        raise ArgosyError(
            "not-found", f"there is no role `{binding.role}`", hint="`argosy role ls` lists the roles"
        )
    if binding.project:
        require(caller, "members.write", Target(binding.project))
    else:
        require(caller, "users.write")
    if binding.role == "owner" and not binding.project:
        require(caller, "owners.write")
    lacking = beyond(caller, role.over(projects_under(rows, binding)))
    if lacking:
        raise ArgosyError(
            "forbidden",
            f"role `{binding.role}` has `{min(lacking)}`, which you do not have there: "
            "nobody gives more than they have",
            hint="ask somebody who has it, or give a smaller role",
        )


def check_not_above(directory: Directory, rows: Snapshot, caller: Caller, user: User) -> None:
    """Whether somebody with the rights of the caller may act for `user`: set the password, make tokens.
    Raises `forbidden`."""
    for grant in directory.grants_of(rows, user):
        lacking = beyond(caller, grant)
        if lacking:
            raise ArgosyError(
                "forbidden",
                f"`{user.name}` has `{min(lacking)}`, which you do not have: you cannot act for them",
                hint="ask somebody who has at least the same roles",
            )


def beyond(caller: Caller, wanted: Grant) -> frozenset[str]:
    """Permissions of `wanted` that the caller does not have where it gives them."""
    lacking = exceeds(wanted, caller.grants)
    return lacking if caller.limit is None else lacking | exceeds(wanted, (caller.limit,))


def check_last_owner(rows: Snapshot, user: User, *, leaves: bool) -> None:
    """Raises `conflict` when nobody would own the server any more. `leaves`: they stop being one."""
    there = owners(rows)
    if leaves and [each.id for each in there] == [user.id]:
        raise ArgosyError(
            "conflict",
            f"`{user.name}` is the last owner",
            hint="make somebody else an owner first: `argosy role give NAME owner`",
        )


def check_new_role(name: str, taken: Iterable[str]) -> None:
    """Raises `conflict` for a name that is taken."""
    if name in BUILT_IN or name in taken:
        raise ArgosyError(
            "conflict", f"there is a role `{name}` already", hint="`argosy role ls` lists the roles"
        )
