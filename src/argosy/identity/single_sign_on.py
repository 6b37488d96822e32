"""Accounts of people who sign in through an identity provider."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping
from typing import Final, NamedTuple

import msgspec

from argosy.identity.credentials import digest, make_secret
from argosy.identity.directory import bindings_of
from argosy.identity.id_tokens import Refused
from argosy.identity.oidc import Person, RelyingParty
from argosy.identity.signing_in import SSO_MS
from argosy.identity.tokens import Credentials, Made
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.people import OneTime, User
from argosy.store.errors import Conflict
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

STARTED_MS: Final = 5 * 60_000
LOOPBACK_MS: Final = 60_000
_PENDING_MAX: Final = 1000
NAME_TRIES: Final = 20  # names of accounts that were removed stand in no rows


class Came(NamedTuple):
    """Somebody who came back from the provider: `code` for the command line that began it, else a sign-in."""

    user: User
    made: Made | None
    code: str
    port: int


class SingleSignOn:
    """From the first click to a signed-in account."""

    def __init__(
        self, party: RelyingParty, store: Store, clock: Clock, ids: Ids, credentials: Credentials
    ) -> None:
        self.party = party
        self._store, self._clock, self._ids, self._credentials = store, clock, ids, credentials

    async def begin(self, *, port: int = 0, proof: str = "") -> tuple[str, str]:
        """(what the browser keeps, where it goes). `port` and `proof`: of a command line that waits on this
        machine's loopback, and the hash of what it will show. Raises `Refused`."""
        now_ms, rows = self._clock.now_ms(), await self._store.snapshot()
        waiting = [each for each in rows.people.values() if isinstance(each, OneTime)]
        old = [each for each in waiting if now_ms >= each.expires_ms]
        if len(waiting) - len(old) >= _PENDING_MAX:
            raise Refused("too-many", "too many people are signing in at this moment; try again in a minute")
        secret = make_secret()
        address = await self.party.address(secret, now_ms)
        entry = OneTime(
            id=self._ids.new("cod"),
            created_ms=now_ms,
            purpose="oidc",
            sha256=digest(secret),
            expires_ms=now_ms + STARTED_MS,
            told={"port": str(port), "proof": proof} if port else {},
        )
        gone = [msgspec.structs.replace(each, removed_ms=now_ms) for each in old]
        await self._store.commit([entry, *gone])
        return secret, address

    async def finish(
        self, secret: str, answer: Mapping[str, str], *, address: str = "", agent: str = ""
    ) -> Came:
        """Raises `Refused`."""
        entry = await self._used(secret)
        person = await self.party.finish(secret, answer, self._clock.now_ms())
        user = await self._account(person)
        if entry.told.get("port"):
            code = make_secret()
            now_ms = self._clock.now_ms()
            handed = OneTime(
                id=self._ids.new("cod"),
                created_ms=now_ms,
                purpose="loopback",
                sha256=digest(code),
                expires_ms=now_ms + LOOPBACK_MS,
                user_id=user.id,
                told={"proof": entry.told["proof"]},
            )
            await self._store.commit([handed])
            return Came(user, None, code, int(entry.told["port"]))
        made = await self._credentials.sign_in(
            user, method="oidc", address=address, agent=agent, life_ms=SSO_MS
        )
        return Came(user, made, "", 0)

    async def _used(self, secret: str) -> OneTime:
        """What was begun with this secret; it is over with this."""
        entry = (await self._store.snapshot()).entry_called(f"code:{digest(secret)}")
        if not isinstance(entry, OneTime) or entry.purpose != "oidc":
            raise Refused("sign-in-unknown", "this sign-in was not begun here, or has expired")
        now_ms = self._clock.now_ms()
        try:
            await self._store.commit([msgspec.structs.replace(entry, removed_ms=now_ms)])
        except Conflict:
            raise Refused("sign-in-used", "this sign-in was used") from None
        if now_ms >= entry.expires_ms:
            raise Refused("sign-in-over", "signing in took too long; begin again")
        return entry

    async def _account(self, person: Person) -> User:
        """The account of this identity: known, linked by a verified address where that is allowed or the
        provider itself made the account, or new."""
        for skip in range(NAME_TRIES):
            rows = await self._store.snapshot()
            known = self._known(rows, person)
            if known is not None and known.is_disabled:
                raise Refused("account-disabled", "this account may not sign in")
            wanted = self._wanted(rows, person, known, skip)
            if not any(True for _ in bindings_of(rows, wanted)):
                raise Refused("no-access", "you are known, but none of your groups has a role here")
            if wanted == known:
                return known
            with contextlib.suppress(Conflict, ArgosyError):
                [user] = await self._store.commit([wanted])
                return user
            if known is not None:
                break
        raise Refused("account-busy", "the account changed in this moment; begin again")

    def _wanted(self, rows: Snapshot, person: Person, known: User | None, skip: int) -> User:
        changes: dict[str, object] = {"issuer": person.issuer, "subject": person.subject}
        if known is None or not known.user_name:  # else the provider says it as it changes, by SCIM
            changes |= {"full_name": person.full_name, "email": person.email, "groups": person.groups}
        if known is not None:
            return msgspec.structs.replace(known, **changes)
        id, now_ms = self._ids.new("usr"), self._clock.now_ms()
        return User(id=id, created_ms=now_ms, name=free_name(rows, person.name, skip), **changes)  # type: ignore[arg-type]

    def _known(self, rows: Snapshot, person: Person) -> User | None:
        for entry in rows.entries_of(f"identity:{person.issuer} {person.subject}"):
            if isinstance(entry, User):
                return entry
        if not person.email:
            return None
        same = [
            each
            for each in rows.people.values()
            if isinstance(each, User) and each.email.lower() == person.email.lower() and not each.is_service
        ]
        if len(same) != 1 or same[0].issuer:
            return None
        return same[0] if self.party.settings.link_email or same[0].user_name else None


def free_name(rows: Snapshot, called: str, skip: int = 0) -> str:
    """A name for a new account, as people know themselves, with a number where it is taken. Names of accounts
    that were removed are taken, too, and stand in no rows: then the next one is asked for, with `skip`."""
    plain = re.sub(r"[^a-z0-9._-]+", "-", called.lower().partition("@")[0]).strip("-._")[:40] or "user"
    name, number = plain, 1
    while skip or rows.entry_called(f"user:{name}") is not None or name in ("owner", "root"):
        if rows.entry_called(f"user:{name}") is None:
            skip = max(0, skip - 1)
        number += 1
        name = f"{plain}-{number}"
    return name
