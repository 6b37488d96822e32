"""Infrastructure and prices: what works, what can be had, what it costs."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

from argosy.api.prices import (
    CatalogReply,
    CheckReply,
    GpuList,
    OfferList,
    RefreshReply,
    RefreshRequest,
    RegionList,
)
from argosy.model.resources import serves
from argosy.server.checking import Checks
from argosy.server.exchange import Exchange
from argosy.server.services import Services

if TYPE_CHECKING:
    from argosy.providers.enabling import Standing


class PriceFeature:
    def __init__(self, services: Services) -> None:
        self._planner, self._pricing, self._refreshes = services.planner, services.pricing, services.refreshes
        self._checks = Checks(services.providers, _standings)

    async def check(self, exchange: Exchange) -> CheckReply:
        names = [name for name in exchange.text("infra").split(",") if name]
        return await self._checks.reply(names, every=exchange.flag("all"), quick=exchange.flag("quick"))

    async def offers(self, exchange: Exchange) -> OfferList:
        wanted = exchange.text("gpu").lower()
        offers, failed = await self._planner.quote()
        silent = {each.provider for each in failed}  # what they have now, nobody knows
        return OfferList(
            offers=tuple(
                offer
                for offer in offers
                if offer.provider not in silent
                and (not wanted or serves(offer.shape.accelerator or "", wanted))
            )
        )

    async def gpus(self, exchange: Exchange) -> GpuList:
        offers, _ = await self._planner.quote()
        return await asyncio.to_thread(
            self._pricing.prices.gpus,
            exchange.text("gpu"),
            exchange.text("infra"),
            spot=exchange.flag("spot"),
            cheapest=exchange.flag("cheapest"),
            every=exchange.flag("all"),
            offers=offers,
        )

    async def regions(self, exchange: Exchange) -> RegionList:
        provider, area = exchange.text("provider"), exchange.text("area")
        return await asyncio.to_thread(self._pricing.prices.regions, provider, area)

    async def catalog(self, exchange: Exchange) -> CatalogReply:
        return await asyncio.to_thread(self._pricing.prices.status)

    async def catalog_refresh(self, exchange: Exchange) -> RefreshReply:
        request = await exchange.decode(RefreshRequest)
        if request.cancel:
            return self._refreshes.call_off(request.provider)
        return self._refreshes.start(request.provider, force=request.force)

    async def catalog_refreshing(self, exchange: Exchange) -> RefreshReply:
        return await self._refreshes.look(exchange.text("provider"), exchange.number("after") or 0)


def _standings() -> list[Standing]:
    from argosy.providers import standings

    return standings(os.environ)
