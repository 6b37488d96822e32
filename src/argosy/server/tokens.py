"""Who may ask over TCP: tokens, of which only SHA-256 is kept in `<state>/tokens.json`.

Over the unix socket the file system decides: the socket belongs to its owner alone, and no token is asked
for.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from pathlib import Path
from typing import Final

import msgspec

from argosy.model.errors import ArgosyError
from argosy.storage.disk import write_whole

SCOPES: Final = ("use", "admin")  # admin may also stop the server and see how it is


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """A token that exists; never the token itself."""

    name: str
    sha256: str
    scope: str
    created_ms: int


class Tokens:
    """The tokens of one state folder. Read again when the file changed, so a new token works at once."""

    def __init__(self, state_dir: Path) -> None:
        self._path = state_dir / "tokens.json"
        self._seen: tuple[int, int, int] | None = None
        self._tokens: tuple[Token, ...] = ()

    def add(self, secret: str, *, name: str, scope: str, now_ms: int) -> None:
        """Let `secret` in from now on; one of the same name is replaced."""
        if scope not in SCOPES:
            raise ArgosyError("usage", f"a token's scope is `use` or `admin`, not `{scope}`")
        kept = tuple(token for token in self._load() if token.name != name)
        token = Token(name=name, sha256=_hash(secret), scope=scope, created_ms=now_ms)
        write_whole(self._path, msgspec.json.format(msgspec.json.encode((*kept, token))))

    def remove(self, name: str) -> bool:
        """Whether there was one of that name."""
        old = self._load()
        kept = tuple(token for token in old if token.name != name)
        if len(kept) != len(old):
            write_whole(self._path, msgspec.json.format(msgspec.json.encode(kept)))
        return len(kept) != len(old)

    def names(self) -> list[str]:
        return [token.name for token in self._load()]

    def scope_of(self, secret: str) -> str | None:
        """What the holder of `secret` may do; None: nothing. Takes the same time for every wrong one."""
        wanted = _hash(secret)
        found: str | None = None
        for token in self._load():
            if hmac.compare_digest(token.sha256, wanted):
                found = token.scope
        return found

    def _load(self) -> tuple[Token, ...]:
        try:
            stat = os.stat(self._path)  # noqa: PTH116
        except FileNotFoundError:
            self._tokens, self._seen = (), None
            return ()
        seen = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
        if seen != self._seen:
            try:
                self._tokens = msgspec.json.decode(self._path.read_bytes(), type=tuple[Token, ...])
            except msgspec.DecodeError as error:
                raise ArgosyError(
                    "internal",
                    f"`{self._path}` is damaged: {error}",
                    hint=f"delete it and make new tokens with `argosy server token`: {self._path}",
                ) from None
            self._seen = seen
        return self._tokens


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()
