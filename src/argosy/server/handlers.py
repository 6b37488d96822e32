"""One function for each row of the endpoint table."""

from __future__ import annotations

import asyncio
import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from argosy import __version__
from argosy.api import sharing as s
from argosy.api import types as t
from argosy.api.endpoint import API_VERSION, CHUNK_PACK_LIMIT_BYTES, LOG_MEDIA_TYPE
from argosy.infra.agent_port import AgentDirectory
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.kinds import kind_of
from argosy.model.kinds.job import job_state, job_task
from argosy.model.offer import Capacity
from argosy.model.phases import Outcome
from argosy.model.rows import Attempt, Claim, Workload
from argosy.scheduler.picture import Queued
from argosy.server.accounts import Accounts
from argosy.server.exchange import Exchange, encode
from argosy.server.front import Handler
from argosy.server.log_stream import LogStreams, Wish, render_text
from argosy.server.naming import cluster_called, split_name
from argosy.server.operations import Operations
from argosy.server.planner import Planner
from argosy.server.ports import Controllers
from argosy.server.pricing import Pricing
from argosy.server.refreshing import Refreshes
from argosy.server.refusals import no_cluster
from argosy.server.spending import Rates, grouped, saved
from argosy.server.tenancy import Tenants
from argosy.server.terminal import serve_terminal
from argosy.server.views import view_cluster, view_cost, view_job
from argosy.storage.blobs import BlobStore
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

_LIST_MAX: Final = 10_000
_EXIT_CODES_MAX: Final = 100  # failed jobs of one page whose attempts are looked up
_CHECK_LIMIT_S: Final = 30.0
_REFRESH_S: Final = 10.0
_DAY_MS: Final = 86_400_000
_PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


class Handlers:
    """Bound by name: a method for each endpoint."""

    def __init__(
        self,
        *,
        store: Store,
        operations: Operations,
        planner: Planner,
        controllers: Controllers,
        agents: AgentDirectory,
        streams: LogStreams,
        blobs: BlobStore,
        clock: Clock,
        state_dir: str,
        log_file: str,
        listening: Callable[[], tuple[str, ...]],
        stop: Callable[[], None],
        pricing: Pricing,
        accounts: Accounts,
        tenants: Tenants,
        refreshes: Refreshes,
    ) -> None:
        self._pricing, self._accounts, self._refreshes = pricing, accounts, refreshes
        self._tenants, self._planner = tenants, planner
        self._store, self._operations, self._controllers = store, operations, controllers
        self._agents, self._streams, self._blobs, self._clock = agents, streams, blobs, clock
        self._state_dir, self._log_file = state_dir, log_file
        self._listening, self._stop = listening, stop
        self._started_ms = clock.now_ms()
        self._status_cache: dict[bool, tuple[tuple[int, int, int], bytes]] = {}

    def table(self) -> Mapping[str, Handler]:
        return {
            "health": self.health,
            "plan": self.plan,
            "plan_pipeline": self.plan_pipeline,
            "launch": self.launch,
            "exec": self.exec,
            "jobs_launch": self.jobs_launch,
            "status": self.status,
            "cluster": self.cluster,
            "stop": self.stop,
            "start": self.start,
            "down": self.down,
            "autostop": self.autostop,
            "queue": self.queue,
            "job": self.job,
            "cancel": self.cancel,
            "logs": self.logs,
            "events": self.events,
            "costs": self.costs,
            "check": self.check,
            "offers": self.offers,
            "gpus": self.gpus,
            "regions": self.regions,
            "catalog": self.catalog,
            "catalog_refresh": self.catalog_refresh,
            "catalog_refreshing": self.catalog_refreshing,
            "budgets": self.budgets,
            "set_budget": self.set_budget,
            "tenancy": self.tenancy,
            "set_tenancy": self.set_tenancy,
            "set_queue": self.set_queue,
            "explain_queue": self.explain_queue,
            "pools": self.pools,
            "explain": self.explain,
            "missing_chunks": self.missing_chunks,
            "put_chunks": self.put_chunks,
            "put_tree": self.put_tree,
            "server_status": self.server_status,
            "server_stop": self.server_stop,
            "shell": self.shell,
        }

    # -- the server ---------------------------------------------------------------------------------

    async def health(self, exchange: Exchange) -> t.Health:
        return self._health(tell_all=exchange.is_local)

    def _health(self, *, tell_all: bool) -> t.Health:
        return t.Health(
            version=__version__,
            api=API_VERSION,
            pid=os.getpid(),
            started_ms=self._started_ms,
            state_dir=self._state_dir if tell_all else "",
            store=self._store.place if tell_all else "",
        )

    async def server_status(self, exchange: Exchange) -> t.ServerStatus:
        snapshot = await self._store.snapshot()
        return t.ServerStatus(
            health=self._health(tell_all=True),
            memory_bytes=resident_bytes(),
            listening=self._listening(),
            clusters=len(snapshot.clusters()),
            jobs_live=sum(kind_of(row).runs for row in snapshot.workloads.values()),
            log_file=self._log_file,
        )

    async def server_stop(self, exchange: Exchange) -> t.Done:
        asyncio.get_running_loop().call_later(0.05, self._stop)  # after the answer is on its way
        return t.Done(names=("server",))

    # -- what users want ----------------------------------------------------------------------------

    async def plan(self, exchange: Exchange) -> t.PlanReply:
        return await self._planner.plan(await exchange.decode(t.PlanRequest), exchange.caller)

    async def plan_pipeline(self, exchange: Exchange) -> t.PipelineReply:
        return await self._planner.plan_pipeline(await exchange.decode(t.PipelineRequest))

    async def launch(self, exchange: Exchange) -> bytes:
        return await self._operations.launch(await exchange.decode(t.LaunchRequest), exchange.caller)

    async def exec(self, exchange: Exchange) -> bytes:
        return await self._operations.exec(await exchange.decode(t.ExecRequest), exchange.caller)

    async def jobs_launch(self, exchange: Exchange) -> bytes:
        request = await exchange.decode(t.JobsLaunchRequest)
        return await self._operations.jobs_launch(request, exchange.caller)

    async def cancel(self, exchange: Exchange) -> t.Done:
        request = await exchange.decode(t.CancelRequest)
        return await self._operations.cancel(request, exchange.caller.project)

    async def stop(self, exchange: Exchange) -> t.Done:
        return await self._operations.stop(exchange.path["cluster"], exchange.caller.project)

    async def start(self, exchange: Exchange) -> t.Done:
        return await self._operations.start(exchange.path["cluster"], exchange.caller.project)

    async def down(self, exchange: Exchange) -> t.Done:
        return await self._operations.down(exchange.path["cluster"], exchange.caller.project)

    async def autostop(self, exchange: Exchange) -> t.Done:
        request = await exchange.decode(t.AutostopRequest)
        project = exchange.caller.project
        return await self._operations.autostop(exchange.path["cluster"], request.autostop, project)

    # -- what is there ------------------------------------------------------------------------------

    async def status(self, exchange: Exchange) -> bytes:
        """The hottest request: its bytes are kept until a row, a fact or (for costs) the second changes."""
        if exchange.flag("refresh"):
            await self._refresh()
        everything = exchange.flag("all")
        snapshot = await self._store.snapshot()
        now_ms = self._clock.now_ms()
        key = (snapshot.seq, self._controllers.observed.revision, now_ms // 1000)
        kept = self._status_cache.get(everything)
        if kept is not None and kept[0] == key:
            return kept[1]
        observed = self._controllers.observed
        waits = self._controllers.waits(snapshot)
        clusters, managed = snapshot.clusters(), snapshot.managed_jobs()
        queued = self._tenants.queued(snapshot, (*clusters, *managed))
        views = [
            view_cluster(
                row, snapshot, observed, now_ms=now_ms, waits=waits.get(row.id, ""), queued=queued.get(row.id)
            )
            for row in clusters
        ]
        if everything:
            claims = await self._claims_by_owner()
            views += [
                view_cluster(row, snapshot, observed, now_ms=now_ms, claims=claims[row.id])
                for row in await self._store.load_clusters()
                if not row.is_live
            ]
        jobs = [self._view_live(job, snapshot, None, waits, queued) for job in managed]
        body = encode(t.StatusReply(clusters=tuple(views), jobs=tuple(jobs)))
        self._status_cache[everything] = (key, body)
        return body

    async def _refresh(self) -> None:
        """Ask the infrastructure now; what does not answer in time is shown as it was."""
        try:
            async with asyncio.timeout(_REFRESH_S):
                await self._controllers.refresh()
        except TimeoutError:
            return

    async def _claims_by_owner(self, since_ms: int = 0) -> Mapping[str, list[Claim]]:
        found: defaultdict[str, list[Claim]] = defaultdict(list)
        for claim in await self._store.load_claims(since_ms=since_ms):
            found[claim.workload_id].append(claim)
        return found

    async def cluster(self, exchange: Exchange) -> t.ClusterView:
        snapshot = await self._store.snapshot()
        found = await self._cluster_called(exchange.path["cluster"], exchange, snapshot)
        claims = () if found.is_live else (await self._claims_by_owner())[found.id]
        now_ms = self._clock.now_ms()
        waits = self._controllers.waits(snapshot).get(found.id, "") if found.is_live else ""
        queued = self._tenants.queued(snapshot, (found,)).get(found.id)
        observed = self._controllers.observed
        return view_cluster(
            found, snapshot, observed, now_ms=now_ms, claims=claims, waits=waits, queued=queued
        )

    async def _cluster_called(self, name: str, exchange: Exchange, snapshot: Snapshot) -> Workload:
        """The live cluster that is meant, else the last that had the name. Raises `not-found`, `conflict`."""
        project = exchange.caller.project
        found = cluster_called(snapshot, name, project)
        if found is None:
            plain, project = split_name(name, project)
            found = await self._store.find_cluster(plain, project=project, finished=True)
        if found is None:
            raise no_cluster(name, snapshot)
        return found

    async def queue(self, exchange: Exchange) -> t.JobList:
        name = exchange.text("cluster")
        limit = min(max(exchange.number("limit") or 1000, 1), _LIST_MAX)
        snapshot = await self._store.snapshot()
        cluster: Workload | None = None
        if name:
            cluster = await self._cluster_called(name, exchange, snapshot)
        jobs = await self._store.load_jobs(
            host_id=cluster.id if cluster is not None else None,
            live=exchange.flag("live"),
            limit=limit,
            after=exchange.text("after") or None,
        )
        waits = self._controllers.waits(snapshot)
        attempts = await self._failed_attempts(jobs)
        queued = self._tenants.queued(snapshot, jobs)
        views = tuple(
            self._view_live(job, snapshot, name or None, waits, queued)
            if job.is_live
            else view_job(job, cluster=name or None, attempt=attempts.get(job.id))
            for job in jobs
        )
        return t.JobList(jobs=views, next=jobs[-1].id if len(jobs) == limit else None)

    def _view_live(
        self,
        job: Workload,
        snapshot: Snapshot,
        cluster: str | None,
        waits: Mapping[str, str],
        queued: Mapping[str, Queued],
    ) -> t.JobView:
        return view_job(
            job,
            cluster=cluster,
            attempt=snapshot.attempt_of(job.id),
            waits=waits.get(job.id, ""),
            queued=queued.get(job.id),
        )

    async def _failed_attempts(self, jobs: list[Workload]) -> dict[str, Attempt]:
        """The last attempts of jobs that failed: their exit codes are wanted, and few."""
        found: dict[str, Attempt] = {}
        failed = (job for job in jobs if job.outcome is Outcome.FAILED and job_state(job).attempts)
        for job, _ in zip(failed, range(_EXIT_CODES_MAX), strict=False):
            attempts = await self._store.load_attempts(job.id)
            if attempts:
                found[job.id] = attempts[-1]
        return found

    async def job(self, exchange: Exchange) -> t.JobView:
        job = await self._streams.job(exchange.path["job"])
        snapshot = await self._store.snapshot()
        name: str | None = None
        waits = self._controllers.waits(snapshot)
        if job.host_id is not None:
            cluster = await self._store.load(job.host_id)
            if isinstance(cluster, Workload):
                name = cluster.name
        attempts = await self._store.load_attempts(job.id)
        last = attempts[-1] if attempts else None
        queued = self._tenants.queued(snapshot, (job,)).get(job.id)
        return view_job(job, cluster=name, attempt=last, waits=waits.get(job.id, ""), queued=queued)

    async def explain(self, exchange: Exchange) -> s.ExplainReply:
        return await self._tenants.explain(exchange.path["workload"])

    # -- who shares what ----------------------------------------------------------------------------

    async def tenancy(self, exchange: Exchange) -> s.TenancyReply:
        return await self._tenants.show()

    async def set_tenancy(self, exchange: Exchange) -> s.TenancyReply:
        return await self._tenants.set(await exchange.decode(s.TenancyRequest))

    async def set_queue(self, exchange: Exchange) -> s.TenancyReply:
        return await self._tenants.set_queue(await exchange.decode(s.QueueRequest))

    async def explain_queue(self, exchange: Exchange) -> s.QueueExplanation:
        nodes = exchange.number("nodes") or 1
        return await self._tenants.explain_queue(exchange.text("queue"), exchange.text("request"), nodes)

    async def pools(self, exchange: Exchange) -> s.PoolList:
        return await self._tenants.pools()

    async def events(self, exchange: Exchange) -> t.EventList:
        subject = exchange.text("subject") or None
        if subject is not None and await self._store.load(subject) is None:  # a name, or nothing at all
            rows, project = await self._store.snapshot(), exchange.caller.project
            cluster = cluster_called(rows, subject, project)
            if cluster is None:
                plain, project = split_name(subject, project)
                cluster = await self._store.find_cluster(plain, project=project, finished=True)
            subject = cluster.id if cluster is not None else subject
        found = await self._store.load_events(
            subject=subject,
            after=max(exchange.number("after") or 0, 0),
            limit=min(max(exchange.number("limit") or 1000, 1), _LIST_MAX),
        )
        views = (
            t.EventView(seq=one.seq, at_ms=one.at_ms, subject=one.subject, code=one.code, text=one.text)
            for one in found
        )
        return t.EventList(events=tuple(views))

    async def costs(self, exchange: Exchange) -> t.CostReply:
        days = exchange.number("days")
        by, against = exchange.text("by"), exchange.text("against")
        now_ms = self._clock.now_ms()
        since_ms = now_ms - days * _DAY_MS if days else 0
        owners = await self._accounts.owners(since_ms)
        claims = await self._claims_by_owner(since_ms)
        known = [(owners[owner_id], mine) for owner_id, mine in claims.items() if owner_id in owners]
        rates = await asyncio.to_thread(self._rates, [one for _, mine in known for one in mine], against)
        views = [view_cost(owner, mine, now_ms=now_ms, rates=rates) for owner, mine in known]
        groups: tuple[t.CostGroup, ...] = ()
        if by:
            every = [one for _, mine in known for one in mine]
            groups = grouped(by, every, owners, lambda one: rates[one.id], since_ms=since_ms, now_ms=now_ms)
        return t.CostReply(
            costs=tuple(views),
            total_micro_usd=sum(view.cost_micro_usd for view in views),
            groups=groups,
            saved_on_demand_micro_usd=_sum(
                saved(view.cost_micro_usd, 3_600_000, view.on_demand_micro_usd) for view in views
            ),
            saved_elsewhere_micro_usd=_sum(
                saved(view.cost_micro_usd, 3_600_000, view.elsewhere_micro_usd) for view in views
            ),
        )

    def _rates(self, claims: Sequence[Claim], against: str) -> Mapping[str, Rates]:
        """By claim. Prices are only looked up where they are needed: for spot machines, or to compare."""
        return {
            one.id: self._pricing.rates(one, against)
            if against or one.choice.offer.capacity is Capacity.SPOT
            else Rates()
            for one in claims
        }

    async def budgets(self, exchange: Exchange) -> t.BudgetList:
        return await self._accounts.budgets()

    async def set_budget(self, exchange: Exchange) -> t.BudgetList:
        return await self._accounts.set(await exchange.decode(t.BudgetRequest))

    # -- prices -------------------------------------------------------------------------------------

    async def gpus(self, exchange: Exchange) -> t.GpuList:
        offers, _ = await self._planner.quote()
        return await asyncio.to_thread(
            self._pricing.gpus,
            exchange.text("gpu"),
            exchange.text("infra"),
            spot=exchange.flag("spot"),
            cheapest=exchange.flag("cheapest"),
            every=exchange.flag("all"),
            offers=offers,
        )

    async def regions(self, exchange: Exchange) -> t.RegionList:
        return await asyncio.to_thread(
            self._pricing.regions, exchange.text("provider"), exchange.text("area")
        )

    async def catalog(self, exchange: Exchange) -> t.CatalogReply:
        return await asyncio.to_thread(self._pricing.status)

    async def catalog_refresh(self, exchange: Exchange) -> t.RefreshReply:
        request = await exchange.decode(t.RefreshRequest)
        if request.cancel:
            return self._refreshes.call_off(request.provider)
        return self._refreshes.start(request.provider, force=request.force)

    async def catalog_refreshing(self, exchange: Exchange) -> t.RefreshReply:
        return await self._refreshes.look(exchange.text("provider"), exchange.number("after") or 0)

    async def check(self, exchange: Exchange) -> t.CheckReply:
        findings = await self._planner.check(_CHECK_LIMIT_S)
        return t.CheckReply(
            findings=tuple(
                t.DiagnosticView(provider=one.provider, ok=one.ok, what=one.what, hint=one.hint)
                for one in findings
            )
        )

    async def offers(self, exchange: Exchange) -> t.OfferList:
        wanted = exchange.text("gpu").lower()
        offers, failed = await self._planner.quote()
        silent = {each.provider for each in failed}  # what they have now, nobody knows
        return t.OfferList(
            offers=tuple(
                offer
                for offer in offers
                if offer.provider not in silent
                and (not wanted or (offer.shape.accelerator or "").lower() == wanted)
            )
        )

    # -- files --------------------------------------------------------------------------------------

    async def missing_chunks(self, exchange: Exchange) -> t.ChunksReply:
        request = await exchange.decode(t.ChunksRequest)
        return t.ChunksReply(missing=await self._blobs.missing(request.digests))

    async def put_chunks(self, exchange: Exchange) -> t.Done:
        stream = exchange.stream(CHUNK_PACK_LIMIT_BYTES)
        await self._blobs.put_pack(stream, limit_bytes=CHUNK_PACK_LIMIT_BYTES)
        return t.Done()

    async def put_tree(self, exchange: Exchange) -> t.TreeReply:
        return t.TreeReply(digest=await self._blobs.put_tree(await exchange.body()))

    # -- streams ------------------------------------------------------------------------------------

    async def logs(self, exchange: Exchange) -> None:
        as_text = exchange.text("format") == "text"
        if exchange.text("format") not in ("", "text"):
            raise ArgosyError("usage", "`format` is `text`, or left out")
        tail, attempt = exchange.number("tail"), exchange.number("attempt") or 0
        if (tail is not None and tail < 0) or attempt < 0:
            raise ArgosyError("usage", "`tail` and `attempt` are not below 0")
        wish = Wish(
            follow=exchange.flag("follow"),
            tail=tail,
            rank=exchange.number("rank"),
            cursor=exchange.text("cursor"),
            attempt=attempt,
        )
        job = await self._streams.job(exchange.path["job"])
        frames = await self._streams.open(job, wish)
        if as_text:
            many = job_task(job).num_nodes > 1 and wish.rank is None
            await exchange.reply_stream("text/plain; charset=utf-8", render_text(frames, with_ranks=many))
        else:
            await exchange.reply_stream(LOG_MEDIA_TYPE, (frame.render() async for frame in frames))

    async def shell(self, exchange: Exchange) -> None:
        await serve_terminal(exchange, self._store, self._agents, self._controllers)


def _sum(amounts: Iterable[int | None]) -> int | None:
    """Of those that are known; None when none is."""
    known = [amount for amount in amounts if amount is not None]
    return sum(known) if known else None


def resident_bytes() -> int:
    """Memory of this process."""
    with open("/proc/self/statm", "rb") as file:
        return int(file.read().split()[1]) * _PAGE_BYTES
