"""Roles: built-in ones, patterns of permissions, and what a role comes to over projects. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Final

import msgspec

from argosy.model.access import ALL, EVERYTHING, PERMISSIONS, Grant
from argosy.model.errors import ArgosyError, suggest

_LETTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz.*")


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """A name for permissions. `own`: those that hold only for what the holder made."""

    name: str
    about: str
    permissions: frozenset[str]
    own: frozenset[str] = frozenset()

    def over(self, projects: frozenset[str] | None) -> Grant:
        """The role as a grant over these projects; None: over everything."""
        return Grant(permissions=self.permissions, own=self.own, projects=projects)


def known(patterns: Iterable[str]) -> frozenset[str]:
    """As `expand`, of patterns that are stored: one that this version does not know gives nothing."""
    wanted = [pattern.strip().lower().replace(":", ".") for pattern in patterns]
    return frozenset(each for each in ALL if any(fnmatchcase(each, one) for one in wanted))


def expand(patterns: Iterable[str]) -> frozenset[str]:
    """The permissions that patterns such as `jobs.*`, `*.read` or `jobs:write` name. Raises `usage` for one
    that names none."""
    found: set[str] = set()
    for pattern in patterns:
        wanted = pattern.strip().lower().replace(":", ".")
        if wanted in ALL:
            found.add(wanted)
            continue
        some = {each for each in ALL if fnmatchcase(each, wanted)}
        if not some or not set(wanted) <= _LETTERS:
            called = "permissions are called like `jobs.read` and `clusters.write`"
            hint = suggest(wanted, PERMISSIONS, otherwise=called)
            raise ArgosyError("usage", f"there is no permission `{pattern}`", hint=hint)
        found |= some
    return frozenset(found)


_SEEN: Final = expand(
    (
        *("clusters.read", "jobs.read", "logs.read", "services.read", "sessions.read", "folders.read"),
        *("secrets.read", "events.read", "costs.read", "budgets.read", "members.read", "offers.read"),
        *("queues.read", "pools.read", "hosts.read", "buckets.read", "projects.read", "users.read"),
        "roles.read",
    )
)
_WORK: Final = expand(
    ("clusters.write", "clusters.enter", "jobs.write", "services.write", "sessions.*", "folders.write")
)
_SHARED_WORK: Final = expand(("files.write", "buckets.write", "secrets.use"))

OWNER: Final = Role(name="owner", about="everything, also to make and remove owners", permissions=ALL)

BUILT_IN: Final[Mapping[str, Role]] = {
    role.name: role
    for role in (
        Role(name="viewer", about="see everything of a project, change nothing", permissions=_SEEN),
        Role(
            name="member",
            about="see everything of a project; start, change and enter what is their own",
            permissions=_SEEN | _SHARED_WORK,
            own=_WORK,
        ),
        Role(
            name="operator",
            about="start, change, enter and end everybody's work in a project",
            permissions=_SEEN | _SHARED_WORK | _WORK,
        ),
        Role(
            name="project-admin",
            about="as operator, and secrets, budgets and roles of a project",
            permissions=_SEEN
            | _SHARED_WORK
            | _WORK
            | expand(("secrets.write", "budgets.write", "members.write")),
        ),
        Role(
            name="admin", about="everything but to make and remove owners", permissions=ALL - {"owners.write"}
        ),
        Role(
            name="auditor",
            about="see everything there is, also who did what; change nothing",
            permissions=expand(("*.read",)),
        ),
        Role(
            name="provisioner",
            about="make, change and end accounts and groups as an identity provider (SCIM), nothing else",
            permissions=expand(("people.provision",)),
        ),
        OWNER,
    )
}

#: What tokens of `argosy server token` may: as ever, over everything.
TOKEN_GRANTS: Final[Mapping[str, tuple[Grant, ...]]] = {
    "use": (BUILT_IN["operator"].over(None),),
    "admin": (EVERYTHING,),
}


def exceeds(wanted: Grant, held: Iterable[Grant]) -> frozenset[str]:
    """Permissions of `wanted` that whoever holds `held` does not have where `wanted` gives them."""
    lacking = set(wanted.permissions | wanted.own)
    for grant in held:
        covers = grant.projects is None or (wanted.projects is not None and wanted.projects <= grant.projects)
        if covers:
            lacking -= grant.permissions
            lacking -= grant.own - wanted.permissions
    return frozenset(lacking)
