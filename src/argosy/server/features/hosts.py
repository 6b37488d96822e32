"""Hosts that people name: of whichever provider says that it enlists them."""

from __future__ import annotations

from typing import Final, cast

from argosy.api.endpoint import Done
from argosy.api.hosts import (
    CloseHostsRequest,
    DismissRequest,
    EnlistRequest,
    ExamineReply,
    ExamineRequest,
    HostList,
)
from argosy.infra.border import BorderError
from argosy.infra.enlisting import Enlists
from argosy.model.enlisting import HostState
from argosy.model.errors import ArgosyError
from argosy.server.exchange import Exchange
from argosy.server.services import Services

_STATES: Final = ("", "cordoned", "drained")


class HostFeature:
    def __init__(self, services: Services) -> None:
        self._services = services

    def _enlisting(self) -> dict[str, Enlists]:
        providers = self._services.providers.all()
        return {
            name: cast(Enlists, provider)
            for name, provider in sorted(providers.items())
            if provider.manifest.enlists
        }

    def _one(self, name: str) -> Enlists:
        able = self._enlisting()
        if name in able or (not name and able):
            return able[name or next(iter(able))]
        what = (
            f"`{name}` has no hosts that people name" if name else "no infrastructure here has hosts to name"
        )
        raise ArgosyError("not-found", what, hint=f"known are: {', '.join(able) or 'none'}")

    async def examine_host(self, exchange: Exchange) -> ExamineReply:
        request = await exchange.decode(ExamineRequest)
        return ExamineReply(report=await self._one(request.provider).examine(request.host))

    async def enlist_hosts(self, exchange: Exchange) -> Done:
        request = await exchange.decode(EnlistRequest)
        try:
            await self._one(request.provider).enlist(request.hosts)
        except OSError as error:
            raise ArgosyError("store-busy", f"the hosts cannot be written down: {error}") from error
        await self._asked_again()
        return Done(names=tuple(f"{host.pool}/{host.name or host.host}" for host in request.hosts))

    async def hosts(self, exchange: Exchange) -> HostList:
        found: list[HostState] = []
        for name, provider in self._enlisting().items():
            try:
                found += await provider.enlisted()
                await self._services.planner.ask(name)  # whoever sees them open can launch on them
            except BorderError as error:
                raise ArgosyError("store-busy", str(error)) from error
        return HostList(hosts=tuple(found))

    async def close_hosts(self, exchange: Exchange) -> Done:
        request = await exchange.decode(CloseHostsRequest)
        if request.state not in _STATES:
            raise ArgosyError("usage", f"`{request.state}` is no state of a host")
        names = await self._one(request.provider).close(request.hosts, request.state)
        await self._asked_again()
        return Done(names=tuple(names))

    async def dismiss_hosts(self, exchange: Exchange) -> Done:
        request = await exchange.decode(DismissRequest)
        names = await self._one(request.provider).dismiss(request.hosts, force=request.force)
        await self._asked_again()
        return Done(names=tuple(names))

    async def _asked_again(self) -> None:
        """Offers are other ones now: whoever launches next finds them."""
        for name in self._enlisting():
            await self._services.planner.ask(name)
        await self._services.controllers.refresh()
