"""Jobs of clusters and managed jobs, and their logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.api.endpoint import LOG_MEDIA_TYPE, Done
from argosy.api.jobs import CancelRequest, JobList, JobView
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.kinds import kind_of
from argosy.model.kinds.job import job_label, job_state, job_task
from argosy.model.phases import Desired
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Workload
from argosy.server.exchange import Exchange
from argosy.server.group_views import index_of, view_group, view_managed
from argosy.server.guarding import projects_of, require_over, scopes, sees
from argosy.server.log_stream import Wish, render_text
from argosy.server.services import Services
from argosy.server.views import view_job
from argosy.store.snapshot import Snapshot

_LIST_MAX: Final = 10_000


def _managed(rows: Snapshot) -> list[Workload]:
    """Live managed jobs and groups; not the jobs of groups, which end with them."""
    return [*rows.groups(), *(job for job in rows.managed_jobs() if job.parent_id is None)]


def _view_group(group: Workload, rows: Snapshot) -> JobView:
    return view_managed(group, rows) if group.is_live else view_group(group, None)


def _label(row: Workload) -> str:
    return job_label(row) if kind_of(row).runs else str(row.number)


class JobFeature:
    def __init__(self, services: Services) -> None:
        self._services = services
        self._store = services.store
        self._tenants, self._streams, self._writer = services.tenants, services.streams, services.writer

    async def queue(self, exchange: Exchange) -> JobList:
        name = exchange.text("cluster")
        seen = scopes(exchange.caller)
        limit = min(max(exchange.number("limit") or 1000, 1), _LIST_MAX)
        snapshot = await self._store.snapshot()
        cluster: Workload | None = None
        if name:
            cluster = await self._services.cluster_called(name, exchange.caller, snapshot)
        jobs = await self._store.load_jobs(
            host_id=cluster.id if cluster is not None else None,
            live=exchange.flag("live"),
            limit=limit,
            after=exchange.text("after") or None,
            projects=projects_of(seen),
        )
        last = jobs[-1].id if len(jobs) == limit else None
        jobs = [job for job in jobs if seen.holds(job.project, job.user)]
        single = [job for job in jobs if kind_of(job).runs]
        ended = {job.id: job_state(job).attempt_id for job in single if not job.is_live}
        attempts = await self._store.load_by_id(Attempt, [each for each in ended.values() if each])
        pending = await self._tenants.pending(snapshot, single)
        views = tuple(
            _view_group(job, snapshot)
            if kind_of(job).gathers
            else view_job(
                job, cluster=name or None, attempt=snapshot.attempt_of(job.id), pending=pending.get(job.id)
            )
            if job.is_live
            else view_job(job, cluster=name or None, attempt=attempts.get(ended[job.id] or ""))
            for job in jobs
        )
        return JobList(jobs=views, next=last)

    async def job(self, exchange: Exchange) -> JobView:
        caller = exchange.caller
        group = await self._find_job(exchange.path["job"], None, caller)
        snapshot = await self._store.snapshot()
        if group is not None and kind_of(group).gathers:
            return _view_group(group, snapshot)
        job = await self._streams.job(exchange.path["job"], caller)
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
        request, caller = await exchange.decode(CancelRequest), exchange.caller
        if not request.jobs and not request.all:
            raise ArgosyError("usage", "no job is named", hint="name jobs, or say `--all`")

        async def act() -> Done:
            cluster = (
                None
                if request.cluster is None
                else await self._writer.cluster(request.cluster, caller, "clusters.read")
            )
            snapshot = await self._store.snapshot()
            all_there = snapshot.jobs_of(cluster.id) if cluster is not None else _managed(snapshot)
            mine = [job for job in all_there if sees(caller, job)]
            ends = scopes(caller)
            chosen = (
                [job for job in mine if ends.holds(job.project, job.user)]
                if request.all
                else [
                    job
                    for name in request.jobs
                    if (job := await self._named_job(name, cluster, mine, caller)) is not None
                ]
            )
            for job in chosen:
                require_over(caller, job)
            ending = [
                msgspec.structs.replace(job, desired=Desired.END, reason=Reason.CANCELLED_BY_USER)
                for job in {job.id: job for job in chosen}.values()
                if job.desired is not Desired.END
            ]
            told = [self._writer.event(job.id, "cancelling", "asked to cancel") for job in ending]
            await self._store.commit(ending, events=told)
            self._services.controllers.wake(*(job.id for job in ending), *((cluster.id,) if cluster else ()))
            return Done(names=tuple(_label(job) for job in chosen))

        return await self._writer.retried(act)

    async def _named_job(
        self, name: str, cluster: Workload | None, live: Sequence[Workload], caller: Caller
    ) -> Workload | None:
        """A live job by number or id; None when it has finished (there is nothing to cancel). Raises
        `not-found`."""
        for job in live:
            if name in (job.id, str(job.number)):
                return job
        if cluster is None and "/" in name:
            return await self._task(name, caller)
        where = f"on cluster `{cluster.name}`" if cluster is not None else "among managed jobs"
        known = await self._find_job(name, cluster.id if cluster is not None else None, caller)
        if known is None:
            raise ArgosyError(
                "not-found",
                f"there is no job `{name}` {where}",
                hint=f"`argosy queue {cluster.name}` lists them"
                if cluster
                else "`argosy jobs queue` lists them",
            )
        return None

    async def _task(self, name: str, caller: Caller) -> Workload | None:
        """A live job of a group, as `7/3` or `7/NAME`. Raises `not-found`, `wrong-state` before its turn has
        come."""
        number, _, which = name.partition("/")
        group = await self._find_job(number, None, caller)
        if group is None or not kind_of(group).gathers:
            raise ArgosyError(
                "not-found", f"there is no group of jobs `{number}`", hint="`argosy jobs queue` lists them"
            )
        index = index_of(group, which)
        jobs = [job for job in await self._store.load_children(group.id) if job.number == index]
        if not jobs:
            raise ArgosyError(
                "wrong-state",
                f"task {name} has not begun: its turn has not come",
                hint=f"`argosy jobs cancel {number}` cancels all of them",
            )
        return jobs[-1] if jobs[-1].is_live else None

    async def _find_job(self, name: str, cluster_id: str | None, caller: Caller) -> Workload | None:
        """Of those that the caller may see."""
        row: object
        if name.isascii() and name.isdigit():
            row = await self._store.find_job(cluster_id, int(name))
        else:
            row = await self._store.load(name)
        if not isinstance(row, Workload) or not sees(caller, row):
            return None
        return row if kind_of(row).numbered and row.host_id == cluster_id else None

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
        job = await self._streams.job(exchange.path["job"], exchange.caller)
        require_over(exchange.caller, job)
        frames = await self._streams.open(job, wish)
        if as_text:
            many = job_task(job).num_nodes > 1 and wish.rank is None
            await exchange.reply_stream("text/plain; charset=utf-8", render_text(frames, with_ranks=many))
        else:
            await exchange.reply_stream(LOG_MEDIA_TYPE, (frame.render() async for frame in frames))
