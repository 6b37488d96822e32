"""Open requests: when access is revoked, they end within a second, also terminals and streams."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.server.doorkeeper import Doorkeeper

_LOOK_S: Final = 0.5


class Visit:
    """One request of somebody who was let in. `is_over`: they may not stay."""

    __slots__ = ("caller", "is_over", "task")

    def __init__(self, caller: Caller, task: asyncio.Task[object] | None) -> None:
        self.caller, self.task = caller, task
        self.is_over = False


class Visitors:
    """Looks twice a second whether those who are in may stay; not at all while nobody is."""

    def __init__(self, keeper: Doorkeeper) -> None:
        self._keeper = keeper
        self._open: set[Visit] = set()
        self._looker: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def visit(self, caller: Caller) -> Iterator[Visit]:
        """While it lasts, the request's task is cancelled when its caller may not stay."""
        visit = Visit(caller, asyncio.current_task())
        self._open.add(visit)
        if self._looker is None or self._looker.done():
            self._looker = asyncio.create_task(self._look())
        try:
            yield visit
        finally:
            self._open.discard(visit)

    async def _look(self) -> None:
        while self._open:
            await asyncio.sleep(_LOOK_S)
            there = {visit.caller.credential: visit.caller for visit in self._open}
            for credential, caller in there.items():
                try:
                    stays = await self._keeper.is_good(caller)
                except ArgosyError:  # the database does not answer: nobody is put out for that
                    continue
                if not stays:
                    self._put_out(credential)

    def _put_out(self, credential: str) -> None:
        for visit in [each for each in self._open if each.caller.credential == credential]:
            self._open.discard(visit)
            visit.is_over = True
            if visit.task is not None:
                visit.task.cancel()
