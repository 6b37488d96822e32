"""The caller of the present request, for the audit log. The log itself is loaded with the first change."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from argosy.model.audit import Act


class Acting:
    """Who acts in this request: commits that are made meanwhile write it down. `written`: how many did."""

    __slots__ = ("act", "used", "written")

    def __init__(self, act: Act) -> None:
        self.act = act
        self.used: list[str] = []  # secrets that what is made will have
        self.written = 0


ACTING: Final[ContextVar[Acting | None]] = ContextVar("acting", default=None)


def note_used(names: Iterable[str]) -> None:
    """Whoever acts gives these secrets to what is committed next."""
    acting = ACTING.get()
    if acting is not None:
        acting.used += names
