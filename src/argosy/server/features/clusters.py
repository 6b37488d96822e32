"""Clusters: their status, and stop, start, down, autostop."""

from __future__ import annotations

import asyncio
from typing import Final

from msgspec.structs import replace

from argosy.api.clusters import AutostopRequest, ClusterView, StatusReply
from argosy.api.endpoint import Done
from argosy.identity.deciding import Scopes
from argosy.model.errors import ArgosyError
from argosy.model.kinds.cluster import cluster_spec, cluster_state
from argosy.model.offer import Plan
from argosy.model.phases import Desired
from argosy.model.reasons import Reason
from argosy.model.rows import Event, Workload
from argosy.server.exchange import Exchange, encode
from argosy.server.group_views import view_managed
from argosy.server.guarding import require_over, scopes
from argosy.server.naming import cluster_called
from argosy.server.refusals import no_cluster
from argosy.server.services import Services
from argosy.server.views import view_cluster
from argosy.server.writing import choice_of

_REFRESH_S: Final = 10.0
_KEPT: Final = 64  # answers for callers who see different things


class ClusterFeature:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._store, self._controllers = services.store, services.controllers
        self._tenants, self._clock, self._writer = services.tenants, services.clock, services.writer
        self._kept: dict[
            tuple[bool, Scopes, Scopes], tuple[tuple[int, ...], bytes]
        ] = {}  # the last answers of `status`

    async def status(self, exchange: Exchange) -> bytes:
        """The hottest request: its bytes are kept until a row, a fact or (for costs) the second changes."""
        if exchange.flag("refresh"):
            await self._refresh()
        everything, may_see = exchange.flag("all"), scopes(exchange.caller)
        jobs_seen = scopes(exchange.caller, "jobs.read")
        snapshot, as_of_ms = await self._store.last_known()
        now_ms = self._clock.now_ms()
        seen, observed = self._controllers.picture.seq, self._controllers.observed
        key = (snapshot.seq, as_of_ms, seen, observed.revision, now_ms // 1000)
        which = (everything, may_see, jobs_seen)
        kept = self._kept.get(which)
        if kept is not None and kept[0] == key:
            return kept[1]
        clusters = [row for row in snapshot.clusters() if may_see.holds(row.project, row.user)]
        single = [job for job in snapshot.managed_jobs() if job.parent_id is None]
        single = [row for row in single if jobs_seen.holds(row.project, row.user)]
        groups = [row for row in snapshot.groups() if jobs_seen.holds(row.project, row.user)]
        managed = sorted([*single, *groups], key=lambda row: (row.number, row.id))
        pending = await self._tenants.pending(snapshot, (*clusters, *single))
        views = [
            view_cluster(row, snapshot, observed, now_ms=now_ms, pending=pending.get(row.id))
            for row in clusters
        ]
        if everything:
            claims = await self._services.claims_by_owner()
            views += [
                view_cluster(row, snapshot, observed, now_ms=now_ms, claims=claims[row.id])
                for row in await self._store.load_clusters()
                if not row.is_live and may_see.holds(row.project, row.user)
            ]
        jobs = [view_managed(job, snapshot, pending=pending.get(job.id)) for job in managed]
        body = encode(StatusReply(clusters=tuple(views), jobs=tuple(jobs), as_of_ms=as_of_ms))
        if len(self._kept) >= _KEPT:
            self._kept.clear()
        self._kept[which] = (key, body)
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
        name, caller = exchange.path["cluster"], exchange.caller
        found = await self._services.cluster_called(name, caller, snapshot)
        claims = () if found.is_live else (await self._services.claims_by_owner())[found.id]
        now_ms = self._clock.now_ms()
        pending = (await self._tenants.pending(snapshot, (found,))).get(found.id)
        observed = self._controllers.observed
        return view_cluster(found, snapshot, observed, now_ms=now_ms, claims=claims, pending=pending)

    async def stop(self, exchange: Exchange) -> Done:
        name, caller = exchange.path["cluster"], exchange.caller

        async def act() -> Done:
            cluster = await self._writer.cluster(name, caller)
            for claim in (await self._store.snapshot()).claims_of(cluster.id):
                provider = claim.choice.offer.provider
                if not self._services.providers.get(provider).manifest.capabilities.stop:
                    raise ArgosyError(
                        "unsupported",
                        f"nodes of `{provider}` cannot be stopped",
                        hint=f"`argosy down {name}` ends the cluster",
                    )
            told = self._writer.event(cluster.id, "stopping", "asked to stop")
            wished = replace(cluster, desired=Desired.STOP, reason=Reason.STOPPED_BY_USER, detail="")
            return await self._wish(cluster, wished, told)

        return await self._writer.retried(act)

    async def start(self, exchange: Exchange) -> Done:
        name, caller = exchange.path["cluster"], exchange.caller

        async def act() -> Done:
            cluster = await self._writer.cluster(name, caller)
            held = choice_of(await self._store.snapshot(), cluster)
            if held is not None and cluster.desired is Desired.STOP:
                made = Plan(num_nodes=1, choices=(held,))
                await self._services.accounts.check(made, cluster.project)
            told = self._writer.event(cluster.id, "starting", "asked to start again")
            wished = replace(cluster, desired=Desired.RUN, reason=None, detail="")
            return await self._wish(cluster, wished, told)

        return await self._writer.retried(act)

    async def down(self, exchange: Exchange) -> Done:
        name, caller = exchange.path["cluster"], exchange.caller

        async def act() -> Done:
            snapshot = await self._store.snapshot()
            cluster = cluster_called(snapshot, name, caller)
            if cluster is None:
                raise no_cluster(name, snapshot, caller)
            require_over(caller, cluster)
            told = self._writer.event(cluster.id, "ending", "asked to end, with its jobs")
            return await self._wish(
                cluster, replace(cluster, desired=Desired.END, reason=None, detail=""), told
            )

        return await self._writer.retried(act)

    async def autostop(self, exchange: Exchange) -> Done:
        request = await exchange.decode(AutostopRequest)
        name, caller = exchange.path["cluster"], exchange.caller

        async def act() -> Done:
            cluster = await self._writer.cluster(name, caller)
            wished = replace(cluster, spec=replace(cluster_spec(cluster), autostop=request.autostop))
            if cluster_state(cluster).active_ms:  # who waits a minute more has a minute from now on
                wished = wished.with_status(active_ms=self._clock.now_ms())
            return await self._wish(cluster, wished)

        return await self._writer.retried(act)

    async def _wish(self, cluster: Workload, wished: Workload, *told: Event) -> Done:
        if wished != cluster:
            await self._store.commit([wished], events=told)
        self._controllers.wake(cluster.id)
        return Done(names=(cluster.name,))
