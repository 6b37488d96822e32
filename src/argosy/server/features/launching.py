"""Launches: requests to rows."""

from __future__ import annotations

from argosy.api.launching import ExecRequest, JobsLaunchRequest, LaunchRequest
from argosy.server.exchange import Exchange
from argosy.server.services import Services


class LaunchingFeature:
    def __init__(self, services: Services) -> None:
        self._operations = services.operations

    async def launch(self, exchange: Exchange) -> bytes:
        return await self._operations.launch(await exchange.decode(LaunchRequest), exchange.caller)

    async def exec(self, exchange: Exchange) -> bytes:
        return await self._operations.exec(await exchange.decode(ExecRequest), exchange.caller)

    async def jobs_launch(self, exchange: Exchange) -> bytes:
        return await self._operations.jobs_launch(await exchange.decode(JobsLaunchRequest), exchange.caller)
