"""Who a credential belongs to, and what its holder may: read from the rows of one moment.

Grants of a person are worked out once for every state of the directory; after that, a request costs a hash of
its credential and two look-ups.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from argosy.identity.credentials import digest
from argosy.identity.roles import BUILT_IN, Role, known
from argosy.model.access import Caller, Grant
from argosy.model.people import AccessToken, Binding, OwnRole, Project, SignIn, User
from argosy.store.snapshot import Snapshot

GROUP: Final = "group:"  # what a binding calls a group of an identity provider
_CREDENTIALS_KEPT: Final = 4096


class Directory:
    """Answers from snapshots; keeps what it worked out as long as no entry changes."""

    def __init__(self) -> None:
        self._people: object = None  # of the snapshot that the rest is of
        self._grants: dict[str, tuple[Grant, ...]] = {}
        self._limits: dict[str, Grant | None] = {}

    def caller_with(self, rows: Snapshot, token: str, now_ms: int, address: str = "") -> Caller | None:
        """Who holds this token of a person, a service account or a signed-in command line; None: nobody who
        may come in."""
        sha256 = digest(token)
        found = rows.entry_called(f"token:{sha256}") or rows.entry_called(f"sign-in:{sha256}")
        if isinstance(found, AccessToken):
            user = self.user_of(rows, found, now_ms)
            return None if user is None else self._caller(rows, user, "token", found, address)
        if isinstance(found, SignIn) and found.client == "cli":
            return self.signed_in(rows, found, now_ms, address)
        return None

    def caller_with_cookie(
        self, rows: Snapshot, cookie: str, now_ms: int, address: str = ""
    ) -> Caller | None:
        """Who signed in with this browser."""
        found = rows.entry_called(f"sign-in:{digest(cookie)}")
        if not isinstance(found, SignIn) or found.client != "browser":
            return None
        return self.signed_in(rows, found, now_ms, address)

    def signed_in(self, rows: Snapshot, entry: SignIn, now_ms: int, address: str = "") -> Caller | None:
        user = self.user_of(rows, entry, now_ms)
        return None if user is None else self._caller(rows, user, "session", entry, address)

    def user_of(self, rows: Snapshot, entry: AccessToken | SignIn, now_ms: int) -> User | None:
        """The account behind a credential that is good now; None: it is not."""
        user = rows.people.get(entry.user_id)
        if not isinstance(user, User) or user.is_disabled or entry.generation != user.generation:
            return None
        if now_ms >= entry.expires_ms:
            return None
        if isinstance(entry, SignIn) and now_ms >= entry.seen_ms + entry.idle_ms:
            return None
        return user

    def caller_again(self, rows: Snapshot, caller: Caller, now_ms: int) -> Caller | None:
        """Who came in with this credential, with the rights of now; None: it lets them in no longer."""
        entry = rows.people.get(caller.credential)
        user = self.user_of(rows, entry, now_ms) if isinstance(entry, AccessToken | SignIn) else None
        if user is None or not isinstance(entry, AccessToken | SignIn):
            return None
        return self._caller(rows, user, caller.via, entry, caller.address)

    def _caller(
        self, rows: Snapshot, user: User, via: str, entry: AccessToken | SignIn, address: str
    ) -> Caller:
        self._renew(rows)
        grants = self._grants.get(user.id)
        if grants is None:
            grants = self._grants[user.id] = tuple(self.grants_of(rows, user))
        limit: Grant | None = None
        if isinstance(entry, AccessToken):
            if entry.id not in self._limits and len(self._limits) < _CREDENTIALS_KEPT:
                self._limits[entry.id] = limit_of(entry)
            limit = self._limits[entry.id] if entry.id in self._limits else limit_of(entry)
        return Caller(
            id=user.id,
            name=user.name,
            via=via,
            credential=entry.id,
            grants=grants,
            limit=limit,
            address=address,
        )

    def _renew(self, rows: Snapshot) -> None:
        if rows.people is not self._people:
            self._people = rows.people
            self._grants, self._limits = {}, {}

    def grants_of(self, rows: Snapshot, user: User) -> Iterator[Grant]:
        """What the roles of a person, and of their groups, come to."""
        for binding in bindings_of(rows, user):
            role = role_called(rows, binding.role)
            if role is not None:
                yield role.over(projects_under(rows, binding))


def bindings_of(rows: Snapshot, user: User) -> Iterator[Binding]:
    for subject in (user.id, *(f"{GROUP}{name}" for name in user.groups)):
        for entry in rows.entries_of(subject):
            if isinstance(entry, Binding):
                yield entry


def role_called(rows: Snapshot, name: str) -> Role | None:
    """A built-in role, or one that somebody made; None: there is none of that name."""
    if name in BUILT_IN:
        return BUILT_IN[name]
    entry = rows.entry_called(f"role:{name}")
    if not isinstance(entry, OwnRole):
        return None
    return Role(name=name, about=entry.about, permissions=known(entry.permissions), own=known(entry.own))


def projects_under(rows: Snapshot, binding: Binding) -> frozenset[str] | None:
    """The projects that a binding reaches; None: everything."""
    if binding.project:
        return frozenset({binding.project})
    if not binding.organisation:
        return None
    return frozenset(
        entry.name
        for entry in rows.people.values()
        if isinstance(entry, Project) and entry.organisation == binding.organisation
    )


def limit_of(token: AccessToken) -> Grant | None:
    """What a token is for; None: for all that its owner may."""
    if token.permissions == ("*",) and not token.projects:
        return None
    projects = frozenset(token.projects) if token.projects else None
    return Grant(permissions=known(token.permissions), projects=projects)


def owners(rows: Snapshot) -> list[User]:
    """Who has the role `owner` over everything and can sign in."""
    found: dict[str, User] = {}
    for entry in rows.people.values():
        if isinstance(entry, Binding) and entry.role == "owner" and not (entry.project or entry.organisation):
            user = rows.people.get(entry.subject)
            if isinstance(user, User) and not user.is_disabled:
                found[user.id] = user
    return list(found.values())


def user_called(rows: Snapshot, name: str) -> User | None:
    """By name or id."""
    entry = rows.people.get(name) or rows.entry_called(f"user:{name}")
    return entry if isinstance(entry, User) else None
