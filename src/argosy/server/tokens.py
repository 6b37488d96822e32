"""Tokens for requests over TCP, of which the store keeps only the SHA-256.

Over the unix socket the file system decides: the socket belongs to its owner alone, and no token is asked
for.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from typing import Final

from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.store.accounts import Token
from argosy.store.reads import ANSWER_S
from argosy.store.store import Store

SCOPES: Final = ("use", "admin")  # admin may also stop the server and see how it is


class Tokens:
    """The tokens of one database. A new one works at once, on every server that shares it."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._last: tuple[Token, ...] = ()  # for while the database does not answer

    async def add(self, secret: str, *, name: str, scope: str, now_ms: int) -> None:
        """Let `secret` in from now on; one of the same name is replaced."""
        if scope not in SCOPES:
            raise ArgosyError("usage", f"a token's scope is `use` or `admin`, not `{scope}`")
        await self._store.put_token(
            Token(name=name, sha256=hash_token(secret), scope=scope, created_ms=now_ms)
        )

    async def remove(self, name: str) -> bool:
        """Whether there was one of that name."""
        return await self._store.remove_token(name)

    async def names(self) -> list[str]:
        return [token.name for token in await self._store.load_tokens()]

    async def caller_of(self, secret: str) -> Caller | None:
        """Who the holder of `secret` is; None: nobody. Takes the same time for every wrong one. Raises
        `store-busy`: it cannot be told now."""
        wanted = hash_token(secret)
        found: Token | None = None
        known, is_all = await self._load()
        for token in known:
            if hmac.compare_digest(token.sha256, wanted):
                found = token
        if found is None:
            if not is_all:
                raise nobody_knows()
            return None
        from argosy.identity.roles import TOKEN_GRANTS

        grants = TOKEN_GRANTS.get(found.scope, ())
        return Caller(via="token", credential=found.name, grants=grants)

    async def _load(self) -> tuple[tuple[Token, ...], bool]:
        """All of them; and whether these are all, not those that were read last."""
        try:
            async with asyncio.timeout(ANSWER_S):
                self._last = tuple(await self._store.load_tokens())
                return self._last, True
        except TimeoutError:
            pass
        except ArgosyError as error:
            if error.code != "store-busy":
                raise
        return self._last, False


def nobody_knows() -> ArgosyError:
    """A good credential is not refused because the database does not answer."""
    return ArgosyError("store-busy", "the database does not answer, so nobody knows whose the credential is")


def hash_token(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
