"""Asks providers for what they have of ours: rarely while all is well, at once when a node stops
answering."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, cast

from argosy.infra.border import BorderError
from argosy.infra.provider import Provider, Watches
from argosy.model.errors import ArgosyError
from argosy.model.facts import ClaimFact
from argosy.model.phases import NodePhase
from argosy.model.rows import Node

_log = logging.getLogger(__name__)

SOON_S: Final = 2.0  # so soon again after a node was lost, then less and less often
_PAUSE_S: Final = 1.0  # between two questions, whatever happens


class Looks:
    """One loop for each provider. `listed` is told what it has."""

    def __init__(
        self, listed: Callable[[str, Sequence[ClaimFact]], Awaitable[None]], decides: Callable[[], bool]
    ) -> None:
        """While this server does not decide, nobody is asked."""
        self._listed, self._decides = listed, decides
        self._doubts: dict[str, asyncio.Event] = {}  # by provider

    def look(self) -> None:
        """Everywhere, soon."""
        for doubt in self._doubts.values():
            doubt.set()

    def lost(self, node: Node) -> None:
        """A node does not answer any more: if it was there, its provider may know why."""
        if node.phase in (NodePhase.READY, NodePhase.UNREACHABLE) and node.provider in self._doubts:
            self._doubts[node.provider].set()

    async def keep_looking(self, provider: Provider) -> None:
        """As slowly as the provider wants it; soon when a node does not answer, then less and less often."""
        name, slow_s = provider.manifest.name, provider.manifest.observe_s
        doubt = self._doubts[name] = asyncio.Event()
        if provider.manifest.watches:
            hearing = asyncio.ensure_future(_hear(cast(Watches, provider), doubt))
            try:
                await self._look_again(provider, doubt, slow_s)
            finally:
                hearing.cancel()
        await self._look_again(provider, doubt, slow_s)

    async def _look_again(self, provider: Provider, doubt: asyncio.Event, slow_s: float) -> None:
        name = provider.manifest.name
        pace_s = slow_s
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pace_s):
                    await doubt.wait()
            pace_s = min(slow_s, SOON_S if doubt.is_set() else 1.5 * pace_s)
            doubt.clear()
            if not self._decides():
                await asyncio.sleep(_PAUSE_S)
                continue
            try:
                await self.observe(provider)
            except ArgosyError as error:  # the database does not answer: we look again soon
                _log.error("%s is not looked at: %s", name, error)
            await asyncio.sleep(_PAUSE_S)

    async def observe(self, provider: Provider) -> None:
        """Ask once. What goes wrong at the provider is noted, and is no error of ours."""
        name = provider.manifest.name
        try:
            listed = await provider.observe([])
        except (BorderError, OSError) as error:
            _log.info("%s cannot be observed: %s", name, error)
            return
        except Exception:  # noqa: BLE001  broad by intent: a driver's bug must not end the server
            _log.exception("%s failed to observe", name)
            return
        await self._listed(name, listed)


async def _hear(provider: Watches, doubt: asyncio.Event) -> None:
    while True:
        await provider.changed()
        doubt.set()
