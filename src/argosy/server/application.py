"""The server without its surroundings: from a store, providers, controllers and folders to an ASGI door.

`serve` (run.py) gives it the real ones, tests give it fakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from argosy.api.location import log_path
from argosy.infra.agent_port import AgentDirectory
from argosy.infra.provider import Providers
from argosy.infra.quotes import Quotes
from argosy.model.ids import Clock, Ids
from argosy.server.accounts import Accounts
from argosy.server.budgets import Budgets
from argosy.server.features import FEATURES
from argosy.server.front import Front, bind
from argosy.server.intake import Intake
from argosy.server.listeners import render_address
from argosy.server.log_stream import LogStreams
from argosy.server.operations import Operations
from argosy.server.planner import Planner
from argosy.server.ports import Controllers
from argosy.server.pricing import Pricing
from argosy.server.refreshing import Refreshes
from argosy.server.services import Services
from argosy.server.tenancy import Tenants
from argosy.server.tokens import Tokens
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store.store import Store

if TYPE_CHECKING:
    from argosy.catalog.refresh import PriceServices

_log: Final = logging.getLogger(__name__)
_GRACE_S: Final = 3  # how long requests under way may take when the server stops
_KEEP_ALIVE_S: Final = 75
_TERMINAL_MESSAGE_BYTES: Final = 1 << 20


class Application:
    """All requests. `stopping` is set when the server should go down: by `stop`, a signal, or a request.
    `pricing`: what things cost (None: made here, with `prices` as the table in place of the shipped one).
    `quotes`: what providers offer (None: a cache of its own, which every request asks anew)."""

    def __init__(
        self,
        *,
        store: Store,
        providers: Providers,
        controllers: Controllers,
        agents: AgentDirectory,
        logs: LogStore,
        blobs: BlobStore,
        clock: Clock,
        ids: Ids,
        state_dir: Path,
        pricing: Pricing | None = None,
        prices: Path | None = None,
        quotes: Quotes | None = None,
    ) -> None:
        self.stopping = asyncio.Event()
        self.listening: tuple[str, ...] = ()
        self.streams = LogStreams(store, logs, controllers, self.stopping)
        pricing = pricing or pricing_of(state_dir, providers, clock, shipped=prices)
        pricing.refusals = controllers.refusals
        self.refreshes = Refreshes(pricing.refresh)
        self.accounts = Accounts(store, Budgets(state_dir / "budgets.json"), clock)
        tenants = Tenants(store, controllers, clock)
        intake = Intake(store=store, blobs=blobs, tenants=tenants)
        quotes = quotes or Quotes(providers, clock, price=pricing.own_prices, fresh_s=0)
        planner = Planner(store=store, providers=providers, quotes=quotes, pricing=pricing, intake=intake)
        operations = Operations(
            store=store,
            providers=providers,
            controllers=controllers,
            clock=clock,
            ids=ids,
            accounts=self.accounts,
            tenants=tenants,
            intake=intake,
            planner=planner,
        )
        services = Services(
            store=store,
            operations=operations,
            planner=planner,
            controllers=controllers,
            agents=agents,
            streams=self.streams,
            blobs=blobs,
            clock=clock,
            state_dir=str(state_dir),
            log_file=str(log_path(state_dir)),
            listening=lambda: self.listening,
            stop=self.stop,
            pricing=pricing,
            accounts=self.accounts,
            tenants=tenants,
            refreshes=self.refreshes,
        )
        self.front = Front(bind(feature(services) for feature in FEATURES), tokens=Tokens(state_dir), ids=ids)

    def stop(self) -> None:
        """Ask the server to go down. Streams end; their readers come back with a cursor."""
        self.stopping.set()
        self.refreshes.close()
        self.streams.commits.wake_all()

    @contextlib.asynccontextmanager
    async def listen(self, local: socket.socket, tcp: socket.socket | None = None) -> AsyncIterator[None]:
        """Answer on these sockets; at the end, finish the requests that are under way."""
        doors = [_Door(self.front.over_socket, [local])]
        if tcp is not None:
            doors.append(_Door(self.front.over_tcp, [tcp]))
        self.listening = tuple(render_address(sock) for sock in (local, tcp) if sock is not None)
        for door in doors:
            await door.open()
        try:
            yield
        finally:
            self.stop()
            await asyncio.gather(*(door.close() for door in doors))


def pricing_of(
    state_dir: Path, providers: Providers, clock: Clock, *, shipped: Path | None = None
) -> Pricing:
    """What things cost, by the catalog and the user's folder beside the state."""
    return Pricing(
        state_dir / "catalog",
        clock=clock,
        drivers=lambda: providers.all(),
        services=_price_services,
        shipped=shipped,
    )


def _price_services() -> PriceServices:
    from argosy.catalog.refresh import PriceServices
    from argosy.providers import price_services

    return PriceServices(price_services(), os.environ)


class _Door(uvicorn.Server):
    """uvicorn without its loop and its signal handlers: both are the composition root's."""

    def __init__(
        self, app: Any, sockets: Sequence[socket.socket]
    ) -> None:  # Any: uvicorn's type of an application
        super().__init__(
            uvicorn.Config(
                app,
                interface="asgi3",
                http=HttpToolsProtocol,
                ws=_terminal_protocol,  # type: ignore[arg-type]  # called like the class that it stands for
                ws_max_size=_TERMINAL_MESSAGE_BYTES,
                ws_per_message_deflate=False,
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_GRACE_S,
            )
        )
        self._sockets = list(sockets)

    async def open(self) -> None:
        self.config.load()
        self.lifespan = self.config.lifespan_class(self.config)
        await self.startup(sockets=self._sockets)
        await self.on_tick(0)  # the headers of every reply

    async def close(self) -> None:
        await self.shutdown(sockets=self._sockets)


def _terminal_protocol(**arguments: Any) -> asyncio.Protocol:  # Any: what uvicorn gives to its protocols
    """WebSockets are imported when the first terminal is opened: most servers never open one."""
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    return WebSocketsSansIOProtocol(**arguments)
