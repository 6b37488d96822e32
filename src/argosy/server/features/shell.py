"""Terminals on nodes."""

from __future__ import annotations

from argosy.server.exchange import Exchange
from argosy.server.services import Services
from argosy.server.terminal import serve_terminal


class ShellFeature:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def shell(self, exchange: Exchange) -> None:
        services = self._services
        await serve_terminal(exchange, services.store, services.agents, services.controllers)
