"""Answers with plans: where tasks would run."""

from __future__ import annotations

from argosy.api.planning import PipelineReply, PipelineRequest, PlanReply, PlanRequest
from argosy.server.exchange import Exchange
from argosy.server.services import Services


class PlanningFeature:
    def __init__(self, services: Services) -> None:
        self._planner = services.planner

    async def plan(self, exchange: Exchange) -> PlanReply:
        return await self._planner.plan(await exchange.decode(PlanRequest), exchange.caller)

    async def plan_pipeline(self, exchange: Exchange) -> PipelineReply:
        return await self._planner.plan_pipeline(await exchange.decode(PipelineRequest), exchange.caller)
