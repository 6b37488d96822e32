"""One-time codes that open an app, and the tickets that they are exchanged for, which a browser's cookie
names.

`Tickets` are in the memory of one server; `Shelf` is where the servers of a database find each other's.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from argosy.model.access import OWNER, Caller
from argosy.model.people import OneTime
from argosy.store.errors import Conflict
from argosy.store.store import Store

CODE_S: Final = 30
TICKET_S: Final = 12 * 3600
_MAX: Final = 10_000
_CODE, _TICKET = _PURPOSES = ("app", "app-ticket")
_FORGOTTEN_AT_ONCE: Final = 50


class Right(msgspec.Struct, frozen=True, kw_only=True):
    """Who may open which app of which session, under which host name."""

    caller: Caller
    session: str  # id
    app: str  # its name, or a port
    until_ms: int


class Tickets:
    """Only hashes are kept: what is in memory opens nothing."""

    def __init__(self, now_ms: Callable[[], int], secret: Callable[[], str]) -> None:
        self._now_ms, self._secret = now_ms, secret
        self._codes: dict[bytes, Right] = {}
        self._tickets: dict[bytes, Right] = {}

    def issue(self, caller: Caller, session: str, app: str) -> str:
        """A code for one use within half a minute."""
        code = self._secret()
        until_ms = self._now_ms() + CODE_S * 1000
        self._codes[_hash(code.encode())] = Right(caller=caller, session=session, app=app, until_ms=until_ms)
        self._forget(self._codes)
        return code

    def waiting(self, code: str) -> Right:
        """What a code of this server allows. Raises KeyError."""
        return self._codes[_hash(code.encode())]

    def redeem(self, code: bytes, session: str, app: str) -> str | None:
        """The ticket of a code, which opens nothing any more afterwards, whether it fits or not."""
        right = self._codes.pop(_hash(code), None)
        if right is None or right.until_ms < self._now_ms() or (right.session, right.app) != (session, app):
            return None
        ticket = self._secret()
        until_ms = self._now_ms() + TICKET_S * 1000
        self._tickets[_hash(ticket.encode())] = msgspec.structs.replace(right, until_ms=until_ms)
        self._forget(self._tickets)
        return ticket

    def right_of(self, ticket: bytes, session: str, app: str) -> Right | None:
        """What a ticket allows on this host; None: nothing."""
        right = self._tickets.get(_hash(ticket))
        if right is None or right.until_ms < self._now_ms() or (right.session, right.app) != (session, app):
            return None
        return right

    def find(self, ticket: bytes) -> Right | None:
        """What a ticket allows, wherever it was used; None: it is no longer good."""
        right = self._tickets.get(_hash(ticket))
        return right if right is not None and right.until_ms >= self._now_ms() else None

    def knows(self, secret: bytes) -> bool:
        """Whether this is a code or a ticket of which this server has heard."""
        return _hash(secret) in self._codes or _hash(secret) in self._tickets

    def learn(self, secret: bytes, right: Right, *, is_code: bool) -> None:
        """Take over what another server gave out."""
        (self._codes if is_code else self._tickets)[_hash(secret)] = right

    def revoke(self, gone: Callable[[Right], bool]) -> int:
        """Take back all codes and tickets that `gone` says; how many."""
        count = 0
        for some in (self._codes, self._tickets):
            for key in [key for key, right in some.items() if gone(right)]:
                del some[key]
                count += 1
        return count

    def _forget(self, some: dict[bytes, Right]) -> None:
        if len(some) > _MAX:
            now_ms = self._now_ms()
            for key in [key for key, right in some.items() if right.until_ms < now_ms]:
                del some[key]
        while len(some) > _MAX:
            del some[next(iter(some))]


class Shelf:
    """Codes and tickets as rows, by their hashes."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def keep(self, code: str, right: Right) -> None:
        """Write a code down, so that every server takes it; what is over goes."""
        now_ms = self._store.clock.now_ms()
        rows = (await self._store.snapshot()).people.values()
        over = [each for each in rows if isinstance(each, OneTime) and each.purpose in _PURPOSES]
        over = [each for each in over if each.expires_ms < now_ms][:_FORGOTTEN_AT_ONCE]
        gone = [msgspec.structs.replace(each, removed_ms=now_ms) for each in over]
        try:
            await self._store.commit([self._row(code, right, _CODE), *gone])
        except Conflict:  # another server forgets the same
            await self._store.commit([self._row(code, right, _CODE)])

    async def swap(self, code: bytes, ticket: str, right: Right) -> bool:
        """The code becomes a ticket, once among all servers; False: it had become one."""
        found = await self._find(code, _CODE)
        if found is None:
            return False
        gone = msgspec.structs.replace(found, removed_ms=self._store.clock.now_ms())
        try:
            await self._store.commit([gone, self._row(ticket, right, _TICKET)])
        except Conflict:
            return False
        return True

    async def fetch(self, secret: bytes, tickets: Tickets) -> None:
        """Tell `tickets` of a code or a ticket that another server gave out."""
        for purpose in _PURPOSES:
            found = await self._find(secret, purpose)
            if found is not None:
                caller = msgspec.json.decode(found.told["caller"], type=Caller)
                right = Right(
                    caller=OWNER if caller == OWNER else caller,
                    session=found.told["session"],
                    app=found.told["app"],
                    until_ms=found.expires_ms,
                )
                tickets.learn(secret, right, is_code=purpose == _CODE)

    async def _find(self, secret: bytes, purpose: str) -> OneTime | None:
        entry = (await self._store.snapshot()).entry_called(f"code:{_hash(secret).hex()}")
        return entry if isinstance(entry, OneTime) and entry.purpose == purpose else None

    def _row(self, secret: str, right: Right, purpose: str) -> OneTime:
        caller = msgspec.json.encode(right.caller).decode()
        return OneTime(
            id=self._store.ids.new("cod"),
            created_ms=self._store.clock.now_ms(),
            purpose=purpose,
            sha256=_hash(secret.encode()).hex(),
            expires_ms=right.until_ms,
            told={"session": right.session, "app": right.app, "caller": caller},
        )


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
