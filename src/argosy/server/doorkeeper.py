"""Who comes in over TCP: a bearer token, or the cookie of a browser that signed in.

Rows are asked of memory, and of a database that several servers share at most twice a second: who is put out
is out everywhere within a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.server.door_rules import DoorRules, check_host, check_method, check_page, cookie_of
from argosy.server.exchange import Scope
from argosy.server.identity import Identity
from argosy.server.tokens import Tokens, nobody_knows
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

FRESH_MS: Final = 500  # how old rows of a shared database may be


class Doorkeeper:
    """Tells callers from strangers. `is_good` is asked again while something stays open."""

    def __init__(self, store: Store, clock: Clock, identity: Identity) -> None:
        self.store, self._clock = store, clock
        self.identity = identity
        self._tokens = Tokens(store)
        self.rules = DoorRules()

    async def identify(self, scope: Scope) -> Caller | None:
        """Who asks; None: nobody says. Raises `unauthorized` for a credential that is not good, `wrong-host`,
        `wrong-method`, `foreign-page`, `store-busy`."""
        headers = self.look(scope)
        is_websocket = scope["type"] == "websocket"
        bearer, address = headers.get("authorization"), str(scope["argosy.address"])
        if bearer is not None:
            kind, _, secret = bearer.partition(" ")
            caller = await self.caller_of(secret.strip(), address) if kind.lower() == "bearer" else None
            if caller is None:
                raise ArgosyError("unauthorized", "the server does not know this token")
            return caller
        cookie = cookie_of(headers.get("cookie", ""))
        if not cookie:
            return None
        check_page(self.rules, headers, is_websocket=is_websocket)
        directory, now_ms = self.identity.directory, self._clock.now_ms()
        # one that is over is none: whoever is to sign in must be able to
        return await self._found(lambda rows: directory.caller_with_cookie(rows, cookie, now_ms, address))

    def look(self, scope: Scope) -> dict[str, str]:
        """Headers of a request that may come in at all; who it is from stands in the scope. Raises
        `wrong-host`, `wrong-method`."""
        headers = _headers(scope)
        if scope["type"] != "websocket":
            check_method(scope["method"])
        local = scope.get("server") or ("", 0)
        has_bearer = "authorization" in headers
        check_host(self.rules, headers.get("host", ""), str(local[0] or ""), has_bearer=has_bearer)
        peer = scope.get("client") or ("", 0)
        forwarded = headers.get("x-forwarded-for", "")
        scope["argosy.address"] = self.rules.address_of(str(peer[0]), forwarded)
        return headers

    async def caller_of(self, secret: str, address: str = "") -> Caller | None:
        """Who holds this token."""
        from argosy.identity.credentials import KINDS, is_well_formed  # not before somebody comes by TCP

        if not secret.startswith(KINDS):
            return await self._tokens.caller_of(secret)
        if not is_well_formed(secret):
            return None
        directory, now_ms = self.identity.directory, self._clock.now_ms()
        return await self._found(lambda rows: directory.caller_with(rows, secret, now_ms, address))

    async def _found(self, find: Callable[[Snapshot], Caller | None]) -> Caller | None:
        """Who has a credential. It may be of a moment ago, at another server. Raises `store-busy`: whose it
        is cannot be told now."""
        found = find(await self.store.recent(FRESH_MS))
        if found is None:
            rows, read_ms = await self.store.last_known()
            found = find(rows)
            if found is None and read_ms:
                raise nobody_knows()
        if found is not None:
            self.identity.uses.note(found.credential)
        return found

    async def is_good(self, caller: Caller) -> bool:
        """Whether who came in may stay."""
        return await self.current(caller) is not None

    async def current(self, caller: Caller) -> Caller | None:
        """Who came in, with the rights of now; None: they may not stay."""
        if caller.id:
            rows, now_ms = await self.store.recent(FRESH_MS), self._clock.now_ms()
            return self.identity.directory.caller_again(rows, caller, now_ms)
        is_good = caller.via != "token" or caller.credential in await self._tokens.names()
        return caller if is_good else None


def _headers(scope: Scope) -> dict[str, str]:
    """The first of each name, but cookies together (HTTP/2 splits them)."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key, text = name.decode("latin-1").lower(), value.decode("latin-1")
        if key == "cookie" and key in found:
            found[key] += "; " + text
        else:
            found.setdefault(key, text)
    return found
