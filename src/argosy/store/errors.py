"""What a commit may be refused for."""

from __future__ import annotations

from collections.abc import Iterable

from argosy.model.errors import ArgosyError


class Conflict(ArgosyError):
    """Somebody else was first: `keys` are the ids that are not as the writer believed. Read again, decide
    again."""

    def __init__(self, keys: Iterable[str], what: str = "") -> None:
        self.keys = tuple(keys)
        super().__init__("conflict", what or f"{', '.join(self.keys)} changed in the meantime")


class IllegalMove(ArgosyError):
    """A move that `model.phases` does not allow, or a change of what a row is or belongs to. Always a bug."""

    def __init__(self, id: str, what: str) -> None:
        self.id = id
        super().__init__("internal", what, where=id)


class KeyUsed(ArgosyError):
    """A request with this idempotency key was carried out before; `reply` is what it answered."""

    def __init__(self, reply: bytes) -> None:
        self.reply = reply
        super().__init__("conflict", "this request was carried out before")
