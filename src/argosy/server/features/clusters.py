"""Clusters: how they are, and what becomes of them."""

from __future__ import annotations

import asyncio
from typing import Final

from argosy.api.clusters import AutostopRequest, ClusterView, StatusReply
from argosy.api.endpoint import Done
from argosy.server.exchange import Exchange, encode
from argosy.server.services import Services
from argosy.server.views import view_cluster, view_job

_REFRESH_S: Final = 10.0


class ClusterFeature:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._store, self._controllers = services.store, services.controllers
        self._operations, self._tenants, self._clock = services.operations, services.tenants, services.clock
        self._kept: dict[bool, tuple[tuple[int, ...], bytes]] = {}  # the last answers of `status`

    async def status(self, exchange: Exchange) -> bytes:
        """The hottest request: its bytes are kept until a row, a fact or (for costs) the second changes."""
        if exchange.flag("refresh"):
            await self._refresh()
        everything = exchange.flag("all")
        snapshot, as_of_ms = await self._store.last_known()
        now_ms = self._clock.now_ms()
        seen, observed = self._controllers.picture.seq, self._controllers.observed
        key = (snapshot.seq, as_of_ms, seen, observed.revision, now_ms // 1000)
        kept = self._kept.get(everything)
        if kept is not None and kept[0] == key:
            return kept[1]
        clusters, managed = snapshot.clusters(), snapshot.managed_jobs()
        pending = await self._tenants.pending(snapshot, (*clusters, *managed))
        views = [
            view_cluster(row, snapshot, observed, now_ms=now_ms, pending=pending.get(row.id))
            for row in clusters
        ]
        if everything:
            claims = await self._services.claims_by_owner()
            views += [
                view_cluster(row, snapshot, observed, now_ms=now_ms, claims=claims[row.id])
                for row in await self._store.load_clusters()
                if not row.is_live
            ]
        jobs = [
            view_job(job, cluster=None, attempt=snapshot.attempt_of(job.id), pending=pending.get(job.id))
            for job in managed
        ]
        body = encode(StatusReply(clusters=tuple(views), jobs=tuple(jobs), as_of_ms=as_of_ms))
        self._kept[everything] = (key, body)
        return body

    async def _refresh(self) -> None:
        """Ask the infrastructure now; what does not answer in time is shown as it was."""
        try:
            async with asyncio.timeout(_REFRESH_S):
                await self._controllers.refresh()
        except TimeoutError:
            return

    async def cluster(self, exchange: Exchange) -> ClusterView:
        snapshot = await self._store.snapshot()
        name, project = exchange.path["cluster"], exchange.caller.project
        found = await self._services.cluster_called(name, project, snapshot)
        claims = () if found.is_live else (await self._services.claims_by_owner())[found.id]
        now_ms = self._clock.now_ms()
        pending = (await self._tenants.pending(snapshot, (found,))).get(found.id)
        observed = self._controllers.observed
        return view_cluster(found, snapshot, observed, now_ms=now_ms, claims=claims, pending=pending)

    async def stop(self, exchange: Exchange) -> Done:
        return await self._operations.stop(exchange.path["cluster"], exchange.caller.project)

    async def start(self, exchange: Exchange) -> Done:
        return await self._operations.start(exchange.path["cluster"], exchange.caller.project)

    async def down(self, exchange: Exchange) -> Done:
        return await self._operations.down(exchange.path["cluster"], exchange.caller.project)

    async def autostop(self, exchange: Exchange) -> Done:
        request = await exchange.decode(AutostopRequest)
        project = exchange.caller.project
        return await self._operations.autostop(exchange.path["cluster"], request.autostop, project)
