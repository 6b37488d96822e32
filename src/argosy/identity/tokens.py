"""Personal tokens, tokens of service accounts, and sign-ins: made, listed, ended."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from argosy.identity.credentials import PERSONAL, SERVICE, SIGNED_IN, digest, make_secret, make_token
from argosy.identity.directory import Directory, user_called
from argosy.identity.rights import beyond, check_not_above, require
from argosy.identity.roles import expand
from argosy.model.access import Caller, Grant
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.people import AccessToken, SignIn, User
from argosy.store.errors import Conflict
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

DAY_MS: Final = 86_400_000
DAYS: Final = 90  # unless somebody says otherwise
DAYS_MAX: Final = 366
_SIGN_IN_MS: Final = {"browser": (14 * DAY_MS, DAY_MS // 2), "cli": (90 * DAY_MS, 30 * DAY_MS)}
_SIGN_INS_MAX: Final = 50  # of one person; the oldest makes room


class Made(NamedTuple):
    """A credential, and the secret that is shown once."""

    entry: AccessToken | SignIn
    secret: str


class Credentials:
    """What is done to tokens and sign-ins."""

    def __init__(self, store: Store, clock: Clock, ids: Ids, directory: Directory) -> None:
        self._store, self._clock, self._ids, self._directory = store, clock, ids, directory

    async def add_token(
        self,
        caller: Caller,
        *,
        name: str,
        user: str = "",
        days: int = DAYS,
        permissions: tuple[str, ...] = ("*",),
        projects: tuple[str, ...] = (),
    ) -> Made:
        """One's own, or (`user`) a service account's. It never does more than its owner may now, nor than the
        credential with which it was asked for."""
        if not 1 <= days <= DAYS_MAX:
            raise ArgosyError("usage", f"a token is valid for 1 to {DAYS_MAX} days, not {days}")
        rows = await self._store.snapshot()
        owner = self.owner(rows, caller, user)
        expand(permissions)
        if caller.limit is not None:
            wanted = Grant(
                permissions=expand(permissions), projects=frozenset(projects) if projects else None
            )
            lacking = beyond(Caller(grants=(caller.limit,)), wanted)
            if lacking:
                raise ArgosyError(
                    "forbidden",
                    f"the token would have `{min(lacking)}`, which the credential you use does not have",
                    hint="sign in with a password to make a larger one",
                )
        if any(each.name == name for each in tokens_of(rows, owner)):
            raise ArgosyError(
                "conflict",
                f"`{owner.name}` has a token `{name}` already",
                hint=f"`argosy token rm {name}` takes it back",
            )
        now_ms = self._clock.now_ms()
        secret = make_token(SERVICE if owner.is_service else PERSONAL)
        entry = AccessToken(
            id=self._ids.new("tok"),
            created_ms=now_ms,
            user_id=owner.id,
            name=name,
            sha256=digest(secret),
            expires_ms=now_ms + days * DAY_MS,
            permissions=permissions,
            projects=projects,
            generation=owner.generation,
        )
        [entry] = await self._store.commit([entry])
        return Made(entry, secret)

    async def remove_token(self, caller: Caller, name: str, user: str = "") -> AccessToken:
        rows = await self._store.snapshot()
        owner = self.owner(rows, caller, user)
        found = next((each for each in tokens_of(rows, owner) if name in (each.name, each.id)), None)
        if found is None:
            raise ArgosyError(
                "not-found", f"`{owner.name}` has no token `{name}`", hint="`argosy token ls` lists them"
            )
        await self._store.commit([msgspec.structs.replace(found, removed_ms=self._clock.now_ms())])
        return found

    async def sign_in(
        self,
        user: User,
        *,
        method: str,
        client: str = "browser",
        address: str = "",
        agent: str = "",
        life_ms: int = 0,
    ) -> Made:
        """A new sign-in of somebody who has shown who they are: always a fresh secret. `life_ms`: no longer
        than this."""
        now_ms = self._clock.now_ms()
        rows = await self._store.snapshot()
        secret = make_token(SIGNED_IN) if client == "cli" else make_secret()
        longest_ms, idle_ms = _SIGN_IN_MS[client]
        entry = SignIn(
            id=self._ids.new("sin"),
            created_ms=now_ms,
            user_id=user.id,
            sha256=digest(secret),
            expires_ms=now_ms + min(life_ms or longest_ms, longest_ms),
            idle_ms=idle_ms,
            seen_ms=now_ms,
            generation=user.generation,
            method=method,
            client=client,
            address=address,
            agent=agent[:200],
        )
        older = sorted(sign_ins_of(rows, user), key=lambda each: each.created_ms)
        gone = [
            msgspec.structs.replace(each, removed_ms=now_ms)
            for at, each in enumerate(older)
            if self._directory.user_of(rows, each, now_ms) is None or at < len(older) + 1 - _SIGN_INS_MAX
        ]
        done = await self._store.commit([entry, *gone])
        return Made(done[0], secret)

    async def end_sign_in(self, caller: Caller, id: str = "", user: str = "") -> int:
        """The one with this id; "": all of the account. How many ended."""
        rows = await self._store.snapshot()
        owner = self.owner(rows, caller, user)
        gone = [each for each in sign_ins_of(rows, owner) if id in ("", each.id)]
        if id and not gone:
            raise ArgosyError("not-found", f"there is no sign-in `{id}`", hint="`argosy token ls` lists them")
        now_ms = self._clock.now_ms()
        if gone:
            await self._store.commit([msgspec.structs.replace(each, removed_ms=now_ms) for each in gone])
        return len(gone)

    def owner(self, rows: Snapshot, caller: Caller, user: str) -> User:
        """The account that is meant: one's own, or one that the caller may act for."""
        named = user_called(rows, user or caller.id) if user or caller.id else None
        if named is None and not user:
            raise ArgosyError(
                "usage",
                "you have no account here: you came over the unix socket, or with a token of the server",
                hint="name one with `--user`; `argosy user add NAME` makes one",
            )
        if named is not None and named.id == caller.id:
            return named
        require(caller, "users.write")
        if named is None:
            raise ArgosyError(
                "not-found", f"there is no user `{user}`", hint="`argosy user ls` lists who has an account"
            )
        check_not_above(self._directory, rows, caller, named)
        return named


class Uses:
    """When credentials were last used, by the minute: noted in memory, written now and then."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock
        self._seen: dict[str, int] = {}
        self._written: dict[str, int] = {}

    def note(self, credential: str) -> None:
        self._seen[credential] = self._clock.now_ms() // 60_000

    async def write(self) -> int:
        """How many were written. Sign-ins that are used stay: their idle time begins anew."""
        fresh = [id for id, minute in self._seen.items() if self._written.get(id) != minute]
        if fresh:
            await self._store.note_use(self._clock.now_ms() // 60_000 * 60_000, fresh)
            self._written |= {id: self._seen[id] for id in fresh}
            await self._extend(fresh)
        return len(fresh)

    async def _extend(self, ids: list[str]) -> None:
        rows, now_ms = await self._store.snapshot(), self._clock.now_ms()
        used = [each for id in ids if isinstance(each := rows.people.get(id), SignIn)]
        late = [each for each in used if now_ms - each.seen_ms > each.idle_ms // 24]
        if late:
            with contextlib.suppress(Conflict):  # it has just ended, or another server was first
                await self._store.commit([msgspec.structs.replace(each, seen_ms=now_ms) for each in late])

    async def of(self, ids: list[str]) -> Mapping[str, int]:
        """By id: milliseconds, by the minute. What was never used is not in it."""
        known = dict(await self._store.load_uses(ids)) if ids else {}
        return known | {id: self._seen[id] * 60_000 for id in ids if id in self._seen}


def tokens_of(rows: Snapshot, user: User) -> list[AccessToken]:
    return [each for each in rows.entries_of(user.id) if isinstance(each, AccessToken)]


def sign_ins_of(rows: Snapshot, user: User) -> list[SignIn]:
    return [each for each in rows.entries_of(user.id) if isinstance(each, SignIn)]
