"""Answer requests about pools: allocations, pending workloads, and why they are pending."""

from __future__ import annotations

from argosy.api.pool import ExplainReply, PoolList
from argosy.server.exchange import Exchange
from argosy.server.services import Services


class PoolFeature:
    def __init__(self, services: Services) -> None:
        self._tenants = services.tenants

    async def pools(self, exchange: Exchange) -> PoolList:
        return self._tenants.pools(exchange.caller)

    async def explain(self, exchange: Exchange) -> ExplainReply:
        return await self._tenants.explain(exchange.path["workload"], exchange.caller)
