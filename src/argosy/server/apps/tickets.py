"""Codes that open an app once, and the tickets that they become: what a browser's cookie stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final

import msgspec

from argosy.model.access import Caller

CODE_S: Final = 30
TICKET_S: Final = 12 * 3600
_MAX: Final = 10_000


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


def _hash(secret: bytes) -> bytes:
    return hashlib.sha256(secret).digest()
