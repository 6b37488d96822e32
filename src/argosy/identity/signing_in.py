"""Signing in: by password (and one-time code), by a code on another device, by a code of this machine.

Wrong is wrong: no answer says which half it was, and who does not exist takes as long as who does.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import msgspec

from argosy.identity.credentials import digest, make_secret, make_short_code, plain_code
from argosy.identity.directory import user_called
from argosy.identity.limits import Attempts
from argosy.identity.one_time_codes import render_key, step_of
from argosy.identity.passwords import Passwords
from argosy.identity.tokens import Credentials, Made
from argosy.model.access import Caller
from argosy.model.audit import Act
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.people import OneTime, User
from argosy.store.errors import Conflict
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

DEVICE_MS: Final = 10 * 60_000  # how long a code waits for its person
LOCAL_MS: Final = 60_000
SSO_MS: Final = 12 * 3_600_000  # then the identity provider is asked again
_WRONG: Final = "the name, the password or the one-time code is wrong"
_PENDING_MAX: Final = 1000  # codes that wait at once


class Device(NamedTuple):
    """A device that waits to be let in."""

    secret: str  # its own
    short: str  # what a person types
    expires_ms: int


class SigningIn:
    """Each way in ends in `Credentials.sign_in`: a fresh secret, never one that was there before."""

    def __init__(
        self, store: Store, clock: Clock, ids: Ids, credentials: Credentials, passwords: Passwords
    ) -> None:
        self._store, self._clock, self._ids = store, clock, ids
        self._credentials, self._passwords = credentials, passwords
        self.attempts = Attempts(store)

    # -- password -----------------------------------------------------------------------------------

    async def by_password(
        self, name: str, password: str, code: str = "", *, client: str, address: str, agent: str
    ) -> tuple[User, Made]:
        """Raises `unauthorized`, `second-factor` when only the one-time code is missing, `too-often`."""
        rows, now_ms = await self._store.snapshot(), self._clock.now_ms()
        with self.attempts.one(rows, name, address, now_ms):
            user = await self._shown(rows, name, password, code, address)
        await self.attempts.note_right(rows, name, now_ms)
        return user, await self._credentials.sign_in(
            user, method="password", client=client, address=address, agent=agent
        )

    async def _shown(self, rows: Snapshot, name: str, password: str, code: str, address: str) -> User:
        """Whose name, password and code these are."""
        user = user_called(rows, name)
        may_enter = user is not None and not user.is_service and not user.is_disabled
        kept = user.password if user is not None and may_enter else ""
        if not await self._passwords.matches(kept, password) or user is None:
            raise await self._refused(name, address)
        if user.second_factor:
            if not code:
                raise ArgosyError("second-factor", "the account wants a one-time code, too")
            user = await self._with_code(user, code)
            if user is None:
                raise await self._refused(name, address)
        return user

    async def _with_code(self, user: User, code: str) -> User | None:
        """The account with the code's step noted, so that it is not taken twice; None: it is wrong."""
        kept = await self._store.load_secrets(second_factor_id(user))
        step = step_of(kept.get("key", ""), code, self._clock.now_ms(), user.second_factor_step)
        if step is None:
            return None
        try:
            [user] = await self._store.commit([msgspec.structs.replace(user, second_factor_step=step)])
        except Conflict:
            return None  # somebody else used it in this moment
        return user

    async def _refused(self, name: str, address: str) -> ArgosyError:
        now_ms = self._clock.now_ms()
        act = Act(
            at_ms=now_ms, who=name[:100], via="nobody", address=address, action="login", outcome="denied"
        )
        await self.attempts.note_wrong(name, address, now_ms, acts=(act,))
        return ArgosyError("unauthorized", _WRONG, hint="try again; nobody is told which of them it was")

    # -- second factor ------------------------------------------------------------------------------

    async def begin_second_factor(self, caller: Caller, random: bytes) -> tuple[User, str]:
        """A new key for an authenticator app; it counts once a code of it was shown."""
        user = self._own(await self._store.snapshot(), caller)
        key = render_key(random)
        await self._store.commit(secrets={second_factor_id(user, new=True): {"key": key}})
        return user, key

    async def confirm_second_factor(self, caller: Caller, code: str) -> User:
        """Raises `unauthorized`. Other sign-ins and tokens of the account end."""
        user = self._own(await self._store.snapshot(), caller)
        kept = await self._store.load_secrets(second_factor_id(user, new=True))
        step = step_of(kept["key"], code, self._clock.now_ms(), 0) if kept else None
        if step is None:
            raise ArgosyError(
                "unauthorized",
                "that is not the current code",
                hint="check the clock of the device that shows it, and type the next one",
            )
        changed = msgspec.structs.replace(
            user, second_factor="totp", second_factor_step=step, generation=user.generation + 1
        )
        [user] = await self._store.commit([changed], secrets={second_factor_id(user): kept})
        return user

    async def drop_second_factor(self, user: User) -> User:
        """Of one's own account, or of somebody who lost the device: the caller was asked already."""
        changed = msgspec.structs.replace(
            user, second_factor="", second_factor_step=0, generation=user.generation + 1
        )
        [user] = await self._store.commit([changed])
        return user

    def _own(self, rows: Snapshot, caller: Caller) -> User:
        user = rows.people.get(caller.id)
        if not isinstance(user, User) or user.is_service:
            raise ArgosyError("usage", "only a person who signed in has a second factor")
        return user

    # -- a code on another device -------------------------------------------------------------------

    async def begin_device(self, *, host: str, address: str) -> Device:
        """A command line without a browser asks to be let in. Raises `too-often`."""
        rows, now_ms = await self._store.snapshot(), self._clock.now_ms()
        waiting = [each for each in rows.people.values() if isinstance(each, OneTime)]
        old = [each for each in waiting if now_ms >= each.expires_ms]
        if len(waiting) - len(old) >= _PENDING_MAX:
            raise ArgosyError(
                "too-often", "too many devices are waiting to be confirmed", hint="try again in a minute"
            )
        device = Device(make_secret(), make_short_code(), now_ms + DEVICE_MS)
        entry = OneTime(
            id=self._ids.new("cod"),
            created_ms=now_ms,
            purpose="device",
            sha256=digest(device.secret),
            expires_ms=device.expires_ms,
            short=digest(device.short),
            told={"host": host[:100], "address": address},
        )
        gone = [msgspec.structs.replace(each, removed_ms=now_ms) for each in old]
        await self._store.commit([entry, *gone])
        return device

    async def waiting_device(self, caller: Caller, typed: str) -> OneTime:
        """The device that shows this code. Raises `not-found`, `too-often`."""
        if not caller.id:
            raise ArgosyError("usage", "sign in yourself first: a device signs in as you")
        now_ms = self._clock.now_ms()
        key = f"code of {caller.id}"
        rows = await self._store.snapshot()
        with self.attempts.one(rows, key, "", now_ms):
            found = rows.entries_of(f"short:{digest(plain_code(typed))}")
            entry = next((each for each in found if isinstance(each, OneTime)), None)
            if entry is not None and not entry.user_id and now_ms < entry.expires_ms:
                return entry
            await self.attempts.note_wrong(key, "", now_ms)
            raise ArgosyError(
                "not-found", "no device waits with this code", hint="a code is good for ten minutes, once"
            )

    async def confirm_device(self, caller: Caller, typed: str) -> OneTime:
        """Let it in as the caller."""
        entry = await self.waiting_device(caller, typed)
        [entry] = await self._store.commit([msgspec.structs.replace(entry, user_id=caller.id)])
        return entry

    async def finish_device(self, secret: str, *, address: str, agent: str) -> tuple[User, Made] | None:
        """The sign-in of a device that was let in; None: its person has not said yet. Raises
        `unauthorized`."""
        rows, now_ms = await self._store.snapshot(), self._clock.now_ms()
        entry = rows.entry_called(f"code:{digest(secret)}")
        if not isinstance(entry, OneTime) or entry.purpose != "device" or now_ms >= entry.expires_ms:
            raise ArgosyError("unauthorized", "this code has expired", hint="`argosy login` begins again")
        if not entry.user_id:
            return None
        user = await self._used(rows, entry)
        return user, await self._credentials.sign_in(
            user, method="device", client="cli", address=address, agent=agent
        )

    # -- a one-time code of this machine ------------------------------------------------------------

    async def begin_local(self, caller: Caller, user: str, *, purpose: str = "code") -> str:
        """A code for a browser (`code`) or a command line (`loopback`) of this person, good for a minute."""
        rows, now_ms = await self._store.snapshot(), self._clock.now_ms()
        owner = self._credentials.owner(rows, caller, user)
        secret = make_secret()
        entry = OneTime(
            id=self._ids.new("cod"),
            created_ms=now_ms,
            purpose=purpose,
            sha256=digest(secret),
            expires_ms=now_ms + LOCAL_MS,
            user_id=owner.id,
        )
        await self._store.commit([entry])
        return secret

    async def by_code(
        self, secret: str, *, purpose: str, client: str, address: str, agent: str, proof: str = ""
    ) -> tuple[User, Made]:
        """Raises `unauthorized` for a code that is used, over, or of another purpose. `proof`: what whoever
        began it said it would show."""
        rows = await self._store.snapshot()
        entry = rows.entry_called(f"code:{digest(secret)}")
        if (
            not isinstance(entry, OneTime)
            or entry.purpose != purpose
            or self._clock.now_ms() >= entry.expires_ms
            or entry.told.get("proof", "") != (digest(proof) if proof else "")
        ):
            raise ArgosyError(
                "unauthorized", "this code has expired", hint="begin again: it is good for a minute"
            )
        user = await self._used(rows, entry)
        life_ms = SSO_MS if purpose == "loopback" else 0
        return user, await self._credentials.sign_in(
            user, method=purpose, client=client, address=address, agent=agent, life_ms=life_ms
        )

    async def _used(self, rows: Snapshot, entry: OneTime) -> User:
        """Whose code it is; it is over with this."""
        try:
            await self._store.commit([msgspec.structs.replace(entry, removed_ms=self._clock.now_ms())])
        except Conflict:
            raise ArgosyError("unauthorized", "this code was used", hint="begin again") from None
        user = rows.people.get(entry.user_id)
        if not isinstance(user, User) or user.is_disabled:
            raise ArgosyError("unauthorized", "this account may not sign in", hint="ask an administrator")
        return user


def second_factor_id(user: User, *, new: bool = False) -> str:
    """Under which the key of one-time codes is sealed. `new`: one that was not confirmed."""
    return f"{user.id}-{'new-' if new else ''}codes"
