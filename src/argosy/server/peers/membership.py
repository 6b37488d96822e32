"""Which servers share this database, and whether this one decides."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from typing import Final

from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.store.servers import Peer, Seen, Servers

_log: Final = logging.getLogger(__name__)
DECIDING: Final = "deciding"  # the term of the server that decides
BEAT_S: Final = 1.0
TERM_MS: Final = 5000  # so long after its last beat another server takes over
SILENT_MS: Final = 4000  # who said nothing for so long is not asked
_MARGIN_S: Final = 0.5


class Membership:
    """Says all the time that this server is there. `began` is called when it begins to decide."""

    def __init__(self, servers: Servers, me: Peer, clock: Clock) -> None:
        self.me, self.began = me, list[Callable[[], None]]()
        self._servers, self._clock = servers, clock
        self._term, self._until_s = 0, float("-inf")
        self._known: Sequence[Seen] = ()

    def term(self) -> int:
        """The number of the term in which this server decides; 0: it does not. A server that was paused
        learns from its own clock that its term is over."""
        return self._term if self._clock.monotonic_s() < self._until_s else 0

    @property
    def others(self) -> list[Peer]:
        """Those that said lately that they are there."""
        return [each.peer for each in self._known if 0 <= each.silent_ms < SILENT_MS]

    @property
    def silent(self) -> list[Seen]:
        """Those that neither are there nor have ended in good order, with how long that is so."""
        return [each for each in self._known if each.silent_ms >= SILENT_MS]

    def seen(self, id: str) -> Seen | None:
        return next((each for each in self._known if each.peer.id == id), None)

    async def beat(self) -> None:
        """Once. Raises ArgosyError: then nothing is known, and the term ends with its time."""
        asked_s = self._clock.monotonic_s()
        term, known = await self._servers.beat(self.me, DECIDING, TERM_MS, SILENT_MS)
        self._known = [each for each in known if each.peer.id != self.me.id]
        decided = self.term()
        self._term, self._until_s = term, asked_s + TERM_MS / 1000 - _MARGIN_S
        if term and term != decided:
            _log.info("this server decides (term %d)", term)
            for began in self.began:
                began()
        elif decided and not term:
            _log.info("another server decides")

    async def keep(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(TERM_MS / 1000):
                    await self.beat()
            except (ArgosyError, OSError, TimeoutError) as error:
                said = str(error) or "it did not answer in time"
                _log.warning("the database does not say which servers there are: %s", said)
            await asyncio.sleep(BEAT_S)

    async def leave(self) -> None:
        """In good order: another server decides at once."""
        self._until_s = float("-inf")
        with contextlib.suppress(ArgosyError, OSError):
            await self._servers.take(DECIDING, self.me.id, 0)
            await self._servers.leave(self.me.id)
