"""Answers about the server itself."""

from __future__ import annotations

import asyncio
import os
from typing import Final

from argosy import __version__
from argosy.api.endpoint import API_VERSION, Done
from argosy.api.server import Health, PruneReply, PruneRequest, ServerStatus
from argosy.model.errors import ArgosyError
from argosy.model.kinds import kind_of
from argosy.server.exchange import Exchange
from argosy.server.services import Services

_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class ServerFeature:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._started_ms = services.clock.now_ms()

    async def health(self, exchange: Exchange) -> Health:
        return self._health(tell_all=exchange.is_local)

    def _health(self, *, tell_all: bool) -> Health:
        return Health(
            version=__version__,
            api=API_VERSION,
            pid=os.getpid(),
            started_ms=self._started_ms,
            state_dir=self._services.state_dir if tell_all else "",
            store=self._services.store.place if tell_all else "",
        )

    async def server_status(self, exchange: Exchange) -> ServerStatus:
        snapshot = await self._services.store.snapshot()
        listening, certificate = self._services.listening()
        return ServerStatus(
            health=self._health(tell_all=True),
            memory_bytes=resident_bytes(),
            listening=listening,
            clusters=len(snapshot.clusters()),
            jobs_live=sum(kind_of(row).runs for row in snapshot.workloads.values()),
            log_file=self._services.log_file,
            certificate=certificate,
        )

    async def server_prune(self, exchange: Exchange) -> PruneReply:
        request = await exchange.decode(PruneRequest)
        if request.days < 0:
            raise ArgosyError("usage", "`days` is not below 0")
        return await self._services.housekeeping.prune(days=request.days, dry_run=request.dry_run)

    async def server_stop(self, exchange: Exchange) -> Done:
        # After the answer is on its way.
        asyncio.get_running_loop().call_later(0.05, self._services.stop)
        return Done(names=("server",))


def resident_bytes() -> int:
    """Memory of this process."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES
