"""Quotas: the tree of queues."""

from __future__ import annotations

from argosy.api.quota import QueueExplanation, QueueRequest, TenancyReply, TenancyRequest
from argosy.server.exchange import Exchange
from argosy.server.services import Services


class QuotaFeature:
    def __init__(self, services: Services) -> None:
        self._tenants = services.tenants

    async def tenancy(self, exchange: Exchange) -> TenancyReply:
        return await self._tenants.show()

    async def set_tenancy(self, exchange: Exchange) -> TenancyReply:
        return await self._tenants.set(await exchange.decode(TenancyRequest))

    async def set_queue(self, exchange: Exchange) -> TenancyReply:
        return await self._tenants.set_queue(await exchange.decode(QueueRequest))

    async def explain_queue(self, exchange: Exchange) -> QueueExplanation:
        nodes = exchange.number("nodes") or 1
        return await self._tenants.explain_queue(exchange.text("queue"), exchange.text("request"), nodes)
