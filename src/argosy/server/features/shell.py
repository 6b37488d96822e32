"""Ways into nodes: terminals, ports, ssh, copies."""

from __future__ import annotations

from argosy.model.errors import ArgosyError
from argosy.server.exchange import Exchange
from argosy.server.node_streams import serve_stream
from argosy.server.services import Services
from argosy.server.terminal import serve_terminal


class ShellFeature:
    def __init__(self, services: Services) -> None:
        self._services = services

    async def shell(self, exchange: Exchange) -> None:
        services = self._services
        await serve_terminal(exchange, services.store, services.agents, services.controllers)

    async def forward(self, exchange: Exchange) -> None:
        port = exchange.number("port") or 0
        if not 0 < port < 65536:
            raise ArgosyError("usage", f"there is no port {port}", hint="ports are 1 to 65535")
        await serve_stream(exchange, self._services, lambda agent: agent.forward(port))

    async def ssh(self, exchange: Exchange) -> None:
        key = exchange.text("key")
        refusal = ("unsupported", "`argosy ssh`, `argosy cp` and `argosy port-forward` work without it")
        await serve_stream(exchange, self._services, lambda agent: agent.ssh(key), refusal)

    async def copy(self, exchange: Exchange) -> None:
        path, name, read = exchange.text("path"), exchange.text("name"), exchange.flag("read")
        refusal = ("not-found", f"`argosy ssh {exchange.path['cluster']} -- ls` shows what is there")
        await serve_stream(exchange, self._services, lambda agent: agent.copy(path, name, read=read), refusal)
