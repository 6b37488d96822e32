"""GPU clusters: the machines of a gang that are ordered into one have InfiniBand between them. One for a
claim, with the claim's id as its name; it is made before the machines and goes after them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from argosy.infra import border
from argosy.infra.machine_vendor import MachineOrder
from argosy.model.offer import Capacity
from argosy.providers.nebius.account import LIMITS, Account
from argosy.providers.nebius.orders import kind_of


class Clusters:
    """`told`: waits a little for the end of an operation, and raises what it failed with."""

    def __init__(self, account: Account, told: Callable[[Any, str], Awaitable[None]]) -> None:
        self._account, self._told = account, told
        self._going: dict[str, asyncio.Task[str]] = {}  # by claim

    async def of(self, order: MachineOrder, project: str, fabric: str) -> str:
        """The id of a gang's GPU cluster; "": its type has no InfiniBand. Made once, for all its machines."""
        going = self._going.get(order.claim.id)
        if going is None:
            going = asyncio.ensure_future(self._make(order, project, fabric))
            self._going[order.claim.id] = going
            going.add_done_callback(lambda task: task.cancelled() or task.exception())
        try:
            return await asyncio.shield(going)
        finally:
            self._going.pop(order.claim.id, None)

    async def _make(self, order: MachineOrder, project: str, fabric: str) -> str:
        found = await self._named(project, order.claim.id)
        if found is not None:
            return str(found.metadata.id)
        fabric = fabric or await self._fabric(order)
        if not fabric:
            return ""
        from nebius.api.nebius.common.v1 import ResourceMetadata
        from nebius.api.nebius.compute.v1 import (
            CreateGpuClusterRequest,
            GpuClusterServiceClient,
            GpuClusterSpec,
        )

        labels = order.labels(0)
        request = CreateGpuClusterRequest(
            metadata=ResourceMetadata(parent_id=project, name=order.claim.id, labels=labels),
            spec=GpuClusterSpec(infiniband_fabric=fabric),
        )
        operation = await self._account.ask(
            lambda sdk: GpuClusterServiceClient(sdk).create(request, **LIMITS), scope=f"fabric {fabric}"
        )
        await self._told(operation, f"fabric {fabric}")
        return str(operation.resource_id)

    async def _fabric(self, order: MachineOrder) -> str:
        """Where this type has InfiniBand, the fabric with the most room; "": it has none."""
        platform, preset = kind_of(order.claim)
        found: dict[str, int] = {}
        spot = order.claim.choice.offer.capacity is Capacity.SPOT
        for each in await self._account.advice():
            spec, machine = each.spec, each.spec.compute_instance
            if spec.fabric and (spec.region, machine.platform, machine.preset.name) == (
                order.region,
                platform,
                preset,
            ):
                told = each.status.preemptible if spot else each.status.on_demand
                found[spec.fabric] = max(found.get(spec.fabric, 0), told.available)
        return max(sorted(found), key=lambda name: found[name], default="")

    async def _named(self, project: str, claim_id: str) -> Any:
        from nebius.api.nebius.common.v1 import GetByNameRequest
        from nebius.api.nebius.compute.v1 import GpuClusterServiceClient

        request = GetByNameRequest(parent_id=project, name=claim_id)
        try:
            return await self._account.ask(
                lambda sdk: GpuClusterServiceClient(sdk).get_by_name(request, **LIMITS)
            )
        except border.RequestRefused:
            return None

    async def clear(self, claim_id: str, region: str) -> bool:
        """Whether there is none any more. It can only go after its machines."""
        from nebius.api.nebius.compute.v1 import DeleteGpuClusterRequest

        for project in await self._account.projects():
            if project.region != region:
                continue
            found = await self._named(project.id, claim_id)
            if found is None:
                continue
            if found.status.instances or found.status.reconciling:
                return False
            await self._delete(DeleteGpuClusterRequest(id=found.metadata.id))
        return True

    async def _delete(self, request: Any) -> None:
        from nebius.api.nebius.compute.v1 import GpuClusterServiceClient

        await self._account.ask(lambda sdk: GpuClusterServiceClient(sdk).delete(request, **LIMITS))
