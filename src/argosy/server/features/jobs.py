"""Jobs of clusters and managed jobs, and their logs."""

from __future__ import annotations

from typing import Final

from argosy.api.endpoint import LOG_MEDIA_TYPE, Done
from argosy.api.jobs import CancelRequest, JobList, JobView
from argosy.model.errors import ArgosyError
from argosy.model.kinds.job import job_state, job_task
from argosy.model.phases import Outcome
from argosy.model.rows import Attempt, Workload
from argosy.server.exchange import Exchange
from argosy.server.log_stream import Wish, render_text
from argosy.server.services import Services
from argosy.server.views import view_job

_LIST_MAX: Final = 10_000
_EXIT_CODES_MAX: Final = 100  # failed jobs of one page whose attempts are looked up


class JobFeature:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._operations, self._tenants = services.operations, services.tenants
        self._streams = services.streams

    async def queue(self, exchange: Exchange) -> JobList:
        name = exchange.text("cluster")
        limit = min(max(exchange.number("limit") or 1000, 1), _LIST_MAX)
        snapshot = await self._store.snapshot()
        cluster: Workload | None = None
        if name:
            cluster = await self._services.cluster_called(name, exchange.caller.project, snapshot)
        jobs = await self._store.load_jobs(
            host_id=cluster.id if cluster is not None else None,
            live=exchange.flag("live"),
            limit=limit,
            after=exchange.text("after") or None,
        )
        attempts = await self._failed_attempts(jobs)
        pending = await self._tenants.pending(snapshot, jobs)
        views = tuple(
            view_job(
                job, cluster=name or None, attempt=snapshot.attempt_of(job.id), pending=pending.get(job.id)
            )
            if job.is_live
            else view_job(job, cluster=name or None, attempt=attempts.get(job.id))
            for job in jobs
        )
        return JobList(jobs=views, next=jobs[-1].id if len(jobs) == limit else None)

    async def _failed_attempts(self, jobs: list[Workload]) -> dict[str, Attempt]:
        """The last attempts of jobs that failed: their exit codes are wanted, and few."""
        found: dict[str, Attempt] = {}
        failed = (job for job in jobs if job.outcome is Outcome.FAILED and job_state(job).attempts)
        for job, _ in zip(failed, range(_EXIT_CODES_MAX), strict=False):
            attempts = await self._store.load_attempts(job.id)
            if attempts:
                found[job.id] = attempts[-1]
        return found

    async def job(self, exchange: Exchange) -> JobView:
        job = await self._streams.job(exchange.path["job"])
        snapshot = await self._store.snapshot()
        name: str | None = None
        if job.host_id is not None:
            cluster = await self._store.load(job.host_id)
            if isinstance(cluster, Workload):
                name = cluster.name
        attempts = await self._store.load_attempts(job.id)
        last = attempts[-1] if attempts else None
        pending = (await self._tenants.pending(snapshot, (job,))).get(job.id)
        return view_job(job, cluster=name, attempt=last, pending=pending)

    async def cancel(self, exchange: Exchange) -> Done:
        request = await exchange.decode(CancelRequest)
        return await self._operations.cancel(request, exchange.caller.project)

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
