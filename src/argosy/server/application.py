"""The server without its surroundings: from a store, providers, controllers and folders to an ASGI door.

`serve` (run.py) gives it the real ones, tests give it fakes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING

from argosy.api.location import log_path
from argosy.infra.agent_port import AgentDirectory, Channel
from argosy.infra.provider import Providers
from argosy.infra.quotes import Quotes
from argosy.model.ids import Clock, Ids
from argosy.server.accounts import Accounts
from argosy.server.admission import Admission
from argosy.server.apps.live import LiveApps
from argosy.server.channels import ChannelFile
from argosy.server.data_checks import DataChecks
from argosy.server.dialling import DialDoor
from argosy.server.door import Door, Limits
from argosy.server.exchange import Scope, Send
from argosy.server.features import FEATURES
from argosy.server.folder_traffic import FolderTraffic
from argosy.server.folders import Folders
from argosy.server.front import Front, Mounted, bind
from argosy.server.housekeeping import Housekeeping, Retention
from argosy.server.identity import Identity
from argosy.server.intake import Intake
from argosy.server.keeping import Keeping
from argosy.server.listeners import bind_tcp, connected, render_address
from argosy.server.log_stream import LogStreams
from argosy.server.made_buckets import MadeBuckets
from argosy.server.node_folders import NodeFolders
from argosy.server.objects import MOUNT, Objects
from argosy.server.planner import Planner
from argosy.server.ports import Controllers
from argosy.server.price_list import PriceList
from argosy.server.pricing import Pricing
from argosy.server.recording import Recorder
from argosy.server.refreshing import Refreshes
from argosy.server.scim import mounted_scim
from argosy.server.services import Services
from argosy.server.store_here import StoreHere
from argosy.server.tenancy import Tenants
from argosy.server.writing import Writer
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store.store import Store

if TYPE_CHECKING:
    from argosy.catalog.refresh import PriceServices
    from argosy.identity.oidc import Settings
    from argosy.server.doorkeeper import Doorkeeper
    from argosy.server.service_way import ServiceWay
    from argosy.server.sign_in_pages import SignInPages


_NO_PAGES: SignInPages | None = None


class Application:
    """All requests. `stopping` is set when the server should go down: by `stop`, a signal, or a request.
    `pricing`: what things cost (None: made here, with `prices` as the table in place of the shipped one).
    `quotes`: what providers offer (None: a cache of its own, which every request asks anew)."""

    listening: tuple[str, ...] = ()
    encryption: Callable[[], str] = str  # which certificate TLS has, in words
    _inner: Door | None = None  # of browsers that come by a command line
    _programs: Door | None = None  # of programs that come to buckets by another server
    _services: ServiceWay | None = None  # from the first request to a service that came here

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
        retention: Retention | None = None,
        prices: Path | None = None,
        quotes: Quotes | None = None,
    ) -> None:
        self.stopping, self._pages, self.doors = asyncio.Event(), _NO_PAGES, list[Door]()
        self.streams = LogStreams(store, logs, controllers, self.stopping)
        pricing = pricing or pricing_of(state_dir, providers, clock, shipped=prices)
        self.pricing, pricing.prices.refusals = pricing, controllers.refusals
        self.refreshes, self.accounts = Refreshes(pricing.prices.refresh), Accounts(store, clock)
        tenants, self.identity = Tenants(store, controllers, clock), Identity(store, clock, ids)
        intake = Intake(store=store, blobs=blobs, tenants=tenants, channels=ChannelFile(state_dir))
        self._state_dir, self.objects = state_dir, _objects(store, state_dir / "objects", clock, ids)
        intake.data, intake.identity = DataChecks(self.objects.open_stores, self.objects.made), self.identity
        quotes = quotes or Quotes(providers, clock, price=pricing.prices.own_prices, fresh_s=0)
        pricing.rented.names = lambda: quotes.usable() & _priced_by_catalog(providers)
        planner = Planner(
            store=store, providers=providers, quotes=quotes, pricing=pricing, intake=intake, clock=clock
        )
        self.apps = LiveApps(store, agents, controllers, clock)
        self.housekeeping = Housekeeping(store, blobs, logs, clock, retention, sweep=self.objects.sweep)
        services = Services(
            identity=self.identity,
            store=store,
            providers=providers,
            intake=intake,
            writer=Writer(store=store, controllers=controllers, clock=clock),
            planner=planner,
            admission=Admission(planner, self.accounts, controllers, clock),
            controllers=controllers,
            agents=agents,
            streams=self.streams,
            blobs=blobs,
            objects=self.objects,
            clock=clock,
            ids=ids,
            state_dir=str(state_dir),
            log_file=str(log_path(state_dir)),
            listening=lambda: (self.listening, self.encryption()),
            stop=self.stop,
            pricing=pricing,
            accounts=self.accounts,
            tenants=tenants,
            refreshes=self.refreshes,
            housekeeping=self.housekeeping,
            apps=self.apps,
        )
        self.front = _front(services, self.objects)

    @property
    def keeper(self) -> Doorkeeper:
        return self.front.keeper

    def open_pages(self, provider: Settings | None) -> None:
        """Let people sign in through an identity provider. Loaded with the first of them."""

        async def answer(scope: Scope, send: Send) -> None:
            if self._pages is None:
                from argosy.server.sign_in_pages import SignInPages

                store = self.keeper.store
                self._pages = SignInPages(provider, store, store.clock, store.ids, self.identity)
            await self._pages.answer(scope, send)

        self.front.pages, self.front.has_provider = answer, provider is not None

    def stop(self) -> None:
        """Ask the server to go down. Streams end; their readers come back with a cursor."""
        self.stopping.set()
        self.refreshes.close()
        self.streams.commits.wake_all()

    @contextlib.asynccontextmanager
    async def listen(
        self,
        local: socket.socket,
        tcp: socket.socket | None = None,
        limits: Limits | None = None,
        dials: DialDoor | None = None,
        tls: ssl.SSLContext | None = None,
        s3: str = "",
    ) -> AsyncIterator[None]:
        """Answer on these sockets; at the end, finish the requests that are under way. `s3`: HOST:PORT where
        programs reach the buckets."""
        self.doors = doors = [Door(self.front.over_socket, [local])]
        if tcp is not None:
            guarded = limits or Limits()
            door = Door(
                self.front.over_tcp, [tcp], guarded, dials=dials, tls=tls, apps=self.apps, services=self._way
            )
            doors.append(door)
        store = bind_tcp(s3) if s3 else None
        if store is not None:
            doors.append(Door(self.objects.for_programs, [store], limits or Limits(headers=200), tls=tls))
            self.objects.address = render_address(store, tls is not None)
        here = StoreHere(self._state_dir / "objects-port", self.objects, doors)
        self.objects.door = here.open
        self.apps.inner_door = self._open_inner
        self.listening = (
            render_address(local),
            *(render_address(sock, tls is not None) for sock in (tcp, store) if sock is not None),
        )
        for door in doors:
            await door.open()
        if store is None:
            await here.open_again()
        try:
            yield
        finally:
            self.stop()
            await asyncio.gather(*(door.close() for door in doors))
            self.objects.close()
            self.apps.close()
            if self._services is not None:
                self._services.close()
            here.close()
            if store is not None:
                store.close()

    def _way(self) -> ServiceWay:
        if self._services is None:
            from argosy.server.service_way import ServiceWay

            self._services = ServiceWay(self._state_dir / "gateway")
        return self._services

    async def _open_inner(self) -> Callable[[], asyncio.Protocol]:
        """Protocols of a door as over TCP that listens nowhere; it is opened with the first of them."""
        if self._inner is None:
            inner = Door(self.front.over_tcp, [], Limits(), apps=self.apps, services=self._way)
            await inner.open()
            self.doors.append(inner)
            self._inner = inner
        return self._inner.protocol

    def share_files(self, keeping: Keeping) -> None:
        """Who keeps buckets and folders, of several servers."""
        self.front.keeping = self.objects.keeping = self.objects.folders.folders.keeping = keeping

    async def open_door(self, door: str, address: str) -> Channel:
        """A connection within this process, for what another server passes on: to the door `socket`, `tcp` or
        `programs`. `address`: of who asks."""
        if door == "programs" and self._programs is None:
            self._programs = Door(self.objects.for_programs, [], Limits(headers=200))
            await self._programs.open()
            self.doors.append(self._programs)
        if door == "programs" and self._programs is not None:
            made = self._programs.protocol()
        else:
            made = self.doors[0].protocol() if door == "socket" else (await self._open_inner())()
        channel = await connected(lambda: made)
        made.client = (address, 0)  # type: ignore[attr-defined]  # whom uvicorn takes for the one who asks
        return channel

    async def answer_on(self, local: socket.socket) -> None:
        """Answer on another unix socket, too, until `listen` ends."""
        door = Door(self.front.over_socket, [local])
        await door.open()
        self.doors.append(door)


def _objects(store: Store, folder: Path, clock: Clock, ids: Ids) -> Objects:
    objects = Objects(folder, clock, ids, os.environ)
    objects.made = MadeBuckets(store, objects.open_stores, clock, ids)
    folders = Folders(store, clock, ids, str(folder.parent), objects.open_stores)
    objects.folders = NodeFolders(folders, FolderTraffic(clock), ids)
    return objects


def _front(services: Services, objects: Objects) -> Front:
    routes = bind(feature(services) for feature in FEATURES)
    mounts = {MOUNT: Mounted(objects.for_owner, "buckets.read", "buckets.write"), **mounted_scim(services)}

    def keeper() -> Doorkeeper:
        from argosy.server.doorkeeper import Doorkeeper

        return Doorkeeper(services.store, services.clock, services.identity)

    recorder = Recorder(services.store, services.clock, services.ids)
    front = Front(routes, keeper=keeper, recorder=recorder, ids=services.ids, mounts=mounts)
    services.apps.current = lambda caller: front.keeper.current(caller)
    front.form_hosts = services.apps.form_hosts
    return front


def pricing_of(
    state_dir: Path, providers: Providers, clock: Clock, *, shipped: Path | None = None
) -> Pricing:
    """What things cost, by the catalog and the user's folder beside the state."""
    prices = PriceList(
        state_dir / "catalog",
        clock=clock,
        drivers=lambda: providers.all(),
        services=_price_services,
        shipped=shipped,
    )
    return Pricing(prices, clock)


def _priced_by_catalog(providers: Providers) -> set[str]:
    return {name for name, each in providers.all().items() if each.manifest.priced_by_catalog}


def _price_services() -> PriceServices:
    from argosy.catalog.refresh import PriceServices
    from argosy.providers import price_services

    return PriceServices(price_services(), os.environ)
