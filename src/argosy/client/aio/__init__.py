"""The façade for asyncio, as `argosy.aio`: the same names and arguments, each a coroutine.

    from argosy import aio

    job_id, handle = await aio.launch(Task(run="echo hi"), cluster_name="dev")
    await aio.tail_logs("dev", job_id)

Each event loop has its own client; `AsyncClient` has every endpoint.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterable, Sequence
from typing import BinaryIO, Final, overload
from weakref import WeakKeyDictionary

from argosy.api import types as t
from argosy.api.location import Location, locate
from argosy.api.sharing import ExplainReply, PoolView
from argosy.client.aio import jobs
from argosy.client.async_client import AsyncClient
from argosy.client.facade import (
    Handle,
    Launched,
    exit_status,
    idle_policy,
    launched_of,
    prepared,
    queued_of,
    user_name,
)
from argosy.client.frames import Prefixer
from argosy.client.tasks import Dag, Launchable, Task
from argosy.model.errors import ArgosyError
from argosy.model.offer import Plan
from argosy.model.resources import Autostop
from argosy.model.task import Task as ModelTask

__all__ = [
    "autostop",
    "cancel",
    "check",
    "cost_report",
    "current_client",
    "down",
    "estimate",
    "exec",
    "explain",
    "job_status",
    "jobs",
    "launch",
    "optimize",
    "pools",
    "queue",
    "start",
    "status",
    "stop",
    "tail_logs",
]

_clients: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Location, AsyncClient]]] = (
    WeakKeyDictionary()
)


def current_client() -> AsyncClient:
    """The client of the running loop, for the server that the environment names now."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    location = locate(os.environ)
    if location not in clients:
        clients[location] = AsyncClient(location)
    return clients[location]


async def launch(
    task: Launchable,
    cluster_name: str | None = None,
    retry_until_up: bool = False,
    idle_minutes_to_autostop: int | None = None,
    dryrun: bool = False,
    down: bool = False,
    *,
    wait_for: str | None = None,
    no_setup: bool = False,
    fast: bool = False,
) -> Launched:
    """See `argosy.launch`."""
    client = current_client()
    model = prepared(task)
    if dryrun:
        return Launched(None, Handle(cluster_name, plan=(await client.plan(model)).plan))
    model = (await client.send_files(model)).task
    policy = idle_policy(idle_minutes_to_autostop, down, wait_for)
    return launched_of(
        await client.launch(
            model,
            cluster=cluster_name,
            autostop=policy,
            down=down and policy is None,
            setup=not (no_setup or fast),
            user=user_name(),
        )
    )


async def exec(task: Launchable, cluster_name: str) -> Launched:
    """See `argosy.exec`."""
    client = current_client()
    model = (await client.send_files(prepared(task), cluster=cluster_name)).task
    return queued_of(await client.exec(cluster_name, [model], user=user_name()), cluster_name)


@overload
async def optimize(task: Task | ModelTask) -> Plan: ...
@overload
async def optimize(task: Dag) -> Plan | t.PipelineReply: ...
async def optimize(task: Launchable) -> Plan | t.PipelineReply:
    """See `argosy.optimize`."""
    if isinstance(task, Dag):
        found = await estimate(task, limit=1)
        return found.plan if isinstance(found, t.PlanReply) else found
    return (await estimate(task, limit=1)).plan


@overload
async def estimate(task: Task | ModelTask, *, limit: int = 20, objective: str = "cost") -> t.PlanReply: ...
@overload
async def estimate(
    task: Dag, *, limit: int = 20, objective: str = "cost"
) -> t.PlanReply | t.PipelineReply: ...
async def estimate(
    task: Launchable, *, limit: int = 20, objective: str = "cost"
) -> t.PlanReply | t.PipelineReply:
    """See `argosy.estimate`."""
    client = current_client()
    if isinstance(task, Dag) and len(task) > 1:
        tasks = [prepared(one) for one in task.tasks]
        return await client.plan_pipeline(tasks, edges=task.positions(), objective=objective)
    return await client.plan(prepared(task), prices=True, limit=limit, distinct=True, objective=objective)


async def status(
    cluster_names: Sequence[str] | str | None = None, refresh: bool = False, all: bool = False
) -> list[t.ClusterView]:
    """See `argosy.status`."""
    names = [cluster_names] if isinstance(cluster_names, str) else cluster_names
    reply = await current_client().status(refresh=refresh, all=all)
    return [cluster for cluster in reply.clusters if names is None or cluster.name in names]


async def start(cluster_name: str, idle_minutes_to_autostop: int | None = None, down: bool = False) -> t.Done:
    """See `argosy.start`."""
    done = await current_client().start(cluster_name)
    policy = idle_policy(idle_minutes_to_autostop, down)
    return done if policy is None else await current_client().autostop(cluster_name, policy)


async def stop(cluster_name: str) -> t.Done:
    """See `argosy.stop`."""
    return await current_client().stop(cluster_name)


async def down(cluster_name: str) -> t.Done:
    """See `argosy.down`."""
    return await current_client().down(cluster_name)


async def autostop(
    cluster_name: str, idle_minutes: int = 5, down: bool = False, *, wait_for: str | None = None
) -> t.Done:
    """See `argosy.autostop`."""
    policy = idle_policy(idle_minutes, down, wait_for)
    return await current_client().autostop(cluster_name, policy or Autostop())


async def queue(cluster_name: str, skip_finished: bool = False) -> list[t.JobView]:
    """See `argosy.queue`."""
    return await all_jobs(current_client(), cluster_name, skip_finished)


async def all_jobs(client: AsyncClient, cluster: str | None, live: bool = False) -> list[t.JobView]:
    """Every page of the queue."""
    found: list[t.JobView] = []
    after: str | None = None
    while True:
        page = await client.queue(cluster, live=live, after=after)
        found += page.jobs
        after = page.next
        if after is None:
            return found


async def cancel(cluster_name: str, all: bool = False, job_ids: Iterable[int] | int | None = None) -> t.Done:
    """See `argosy.cancel`."""
    client = current_client()
    numbers: list[str] = []
    if not all and job_ids is None:
        numbers = [str(job.number) for job in (await client.queue(cluster_name, live=True, limit=1)).jobs]
    elif not all and job_ids is not None:
        numbers = [str(job_ids)] if isinstance(job_ids, int) else [str(one) for one in job_ids]
    return await client.cancel(cluster_name, numbers, all=all)


async def job_status(cluster_name: str, job_ids: Sequence[int] | int | None = None) -> dict[int, str | None]:
    """See `argosy.job_status`."""
    wanted = [job_ids] if isinstance(job_ids, int) else job_ids
    client = current_client()
    if wanted is None:
        return {job.number: job.status for job in (await client.queue(cluster_name, limit=1)).jobs}
    known = {job.number: job.status for job in await all_jobs(client, cluster_name)}
    return {number: known.get(number) for number in wanted}


async def tail_logs(
    cluster_name: str,
    job_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    output_stream: BinaryIO | None = None,
) -> int:
    """See `argosy.tail_logs`."""
    client = current_client()
    return await show_log(client, await find_job(client, cluster_name, job_id), follow, tail, output_stream)


async def find_job(client: AsyncClient, cluster: str | None, number: int | None) -> t.JobView:
    """A job by number, or the newest. Errors: "not-found"."""
    found = (
        list((await client.queue(cluster, limit=1)).jobs)
        if number is None
        else await all_jobs(client, cluster)
    )
    for job in found:
        if number is None or job.number == number:
            return job
    place = f"on `{cluster}`" if cluster else "among managed jobs"
    raise ArgosyError("not-found", f"there is no job{'' if number is None else f' {number}'} {place}")


async def show_log(
    client: AsyncClient, job: t.JobView, follow: bool, tail: int, output_stream: BinaryIO | None
) -> int:
    out = output_stream or sys.stdout.buffer
    prefixer = Prefixer(job.name or f"job-{job.number}") if job.num_nodes > 1 else None
    async for piece in client.logs(job.id, follow=follow, tail=tail or None):
        if piece.data:
            out.write(prefixer.add(piece.frame.rank, piece.data) if prefixer else piece.data)
            out.flush()
        if piece.frame.end:
            if prefixer:
                out.write(prefixer.rest())
                out.flush()
            return exit_status(piece.frame.status)
    return 0


async def explain(cluster_name: str | None = None, job_id: int | None = None) -> ExplainReply:
    """See `argosy.explain`."""
    client = current_client()
    if cluster_name is not None and job_id is None:
        return await client.explain((await client.cluster(cluster_name)).id)
    return await client.explain((await find_job(client, cluster_name, job_id)).id)


async def pools() -> list[PoolView]:
    """See `argosy.pools`."""
    return list((await current_client().pools()).pools)


async def cost_report(days: int | None = None) -> list[t.CostView]:
    """See `argosy.cost_report`."""
    return list((await current_client().costs(days)).costs)


async def check(infra_list: Sequence[str] | None = None) -> list[t.DiagnosticView]:
    """See `argosy.check`."""
    findings = (await current_client().check()).findings
    return [finding for finding in findings if infra_list is None or finding.provider in infra_list]
