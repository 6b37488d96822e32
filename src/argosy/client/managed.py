"""Managed jobs and their pools of workers from Python: SkyPilot's names and arguments, as flows (see `flow`).

`argosy.jobs` has them blocking, `argosy.aio.jobs` as coroutines.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from argosy.api.endpoint import Done
from argosy.api.groups import GroupCalls, TaskView
from argosy.api.job_pools import JobPoolCalls, JobPoolView
from argosy.api.jobs import JobCalls
from argosy.api.launching import LaunchingCalls
from argosy.client import login
from argosy.client.facade import Handle, all_jobs, check_flag, find_job, numbers_of, prepared, show_log
from argosy.client.groups import grouped, names_of, when_of
from argosy.client.printing import Out
from argosy.client.records import JobRecord, as_job
from argosy.client.shared import SharedClient
from argosy.client.tasks import Launchable, model_of
from argosy.client.telling import tell
from argosy.model.errors import ArgosyError
from argosy.model.group import When


class JobNumber(int):
    """The number of a managed job. Also a list of itself alone, which is what SkyPilot returns.

    >>> number = JobNumber(7)
    >>> number == 7, number[0], list(number), len(number)
    (True, 7, [7], 1)
    """

    def __getitem__(self, at: int) -> int:
        return [int(self)][at]

    def __iter__(self) -> Iterator[int]:
        return iter([int(self)])

    def __len__(self) -> int:
        return 1


class LaunchedJob(NamedTuple):
    """What was queued: unpacks as `job_id, handle`."""

    job_id: JobNumber
    handle: Handle


class JobQueue(NamedTuple):
    """Managed jobs as SkyPilot's `queue_v2` returns them: unpacks into four."""

    jobs: list[JobRecord]
    total: int
    status_counts: dict[str, int]
    total_no_filter: int


async def launch_job(
    task: Launchable,
    name: str | None = None,
    *,
    num_jobs: int | None = None,
    parallel: int | None = None,
    fail_fast: bool = False,
    after: Iterable[int | str] | int | str | None = None,
    when: When | str = When.SUCCEEDED,
    pool: str | None = None,
) -> LaunchedJob:
    """Queue a managed job; returns when it is queued. Unpacks as `job_id, handle`.

    A Dag with several tasks is queued as one group, in its order (`a >> b`); `num_jobs` makes an array of one
    task, of which `parallel` run at once. `after`: managed jobs that must have ended before, as `when` says.
    `pool`: they run on workers of this pool (`pool_apply`).

        with sky.Dag("nightly") as dag:
            sky.Task("prepare", run="python prepare.py") >> sky.Task("train", run="python train.py")
        job_id, _ = sky.jobs.launch(dag)
    """
    group = grouped(
        task,
        name=name,
        num_jobs=num_jobs,
        parallel=parallel,
        fail_fast=fail_fast,
        waits=bool(names_of(after)) or pool is not None,
    )
    user = login.user_name(os.environ)
    if group is not None:
        tell(group.warnings)
        models = []
        for one in group.tasks:
            sent = await SharedClient.send_files(one)
            tell(sent.warnings)
            models.append(sent.task)
        reply = await GroupCalls.launch_group(
            models,
            group.layout,
            name=group.name,
            after=names_of(after),
            when=when_of(when),
            notify=group.notify,
            pool=pool or "",
            user=user,
        )
    else:
        model = prepared(task)
        if name is not None:
            model = msgspec.structs.replace(model, name=name)
        sent = await SharedClient.send_files(model)
        tell(sent.warnings)
        reply = await LaunchingCalls.jobs_launch([sent.task], user=user)
    tell(reply.warnings, of_reply=True)
    return LaunchedJob(JobNumber(reply.jobs[0].number), Handle(None))


async def tasks_of_managed(job_id: int | str) -> list[TaskView]:
    """The tasks of a group of managed jobs, by position. Errors: "not-found", "wrong-state" for one job."""
    return list((await GroupCalls.group(str(job_id))).tasks)


async def queue_of_managed(refresh: bool = False, skip_finished: bool = False) -> list[JobRecord]:
    """Managed jobs, newest first. `refresh` is always so."""
    return [as_job(job) for job in await all_jobs(None, skip_finished)]


async def queue_v2_of_managed(
    refresh: bool = False,
    skip_finished: bool = False,
    all_users: bool = True,
    job_ids: Sequence[int] | None = None,
    limit: int | None = None,
    fields: Sequence[str] | None = None,
) -> JobQueue:
    """Managed jobs, newest first: all, or those of `job_ids`, at most `limit`. `fields` and `refresh` change
    nothing: every field is there, and up to date."""
    me = login.user_name(os.environ)
    every = [as_job(job) for job in await all_jobs(None, skip_finished)]
    shown = [
        job for job in every if (all_users or job.user == me) and (job_ids is None or job.number in job_ids)
    ]
    counts = Counter(str(job["status"].name) for job in shown)
    return JobQueue(shown[:limit], len(shown), dict(counts), len(every))


async def cancel_managed(
    name: str | None = None, job_ids: Iterable[int] | int | None = None, all: bool = False
) -> Done:
    """Cancel managed jobs: by number, all live ones of a name, or all."""
    check_flag("all", all)
    numbers = numbers_of(job_ids)
    if name is not None:
        numbers += [job.id for job in await all_jobs(None, live=True) if job.name == name]
    if not numbers and not all:
        raise ArgosyError(
            "usage", "there is nothing to cancel", hint="give `job_ids`, the name of a live job, or all=True"
        )
    return await JobCalls.cancel(None, numbers, all=all)


async def tail_logs_of_managed(
    name: str | None = None,
    job_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    output_stream: Out | None = None,
) -> int:
    """Print a managed job's log until it ends; 0 when it succeeded, else 1. By default of the newest."""
    if name is not None and job_id is None:
        job_id = next((job.number for job in await all_jobs(None) if job.name == name), None)
        if job_id is None:
            raise ArgosyError("not-found", f"there is no managed job `{name}`")
    return await show_log(await find_job(None, job_id), follow, tail, output_stream)


# Pools of workers ---------------------------------------------------------------------------------------


async def pool_apply(
    task: Launchable, pool_name: str, mode: str = "rolling", workers: int | None = None
) -> JobPoolView:
    """Make a pool of workers, or change one: `task` says what each has and how it is set up, and how many
    there are: `pool: {workers: 4}`, or `workers`. Errors: "usage" for another `mode` than rolling.

        sky.jobs.pool_apply(sky.Task.from_yaml("pool.yaml"), "warm")
        sky.jobs.launch(task, pool="warm", num_jobs=10)
    """
    if mode != "rolling":
        raise ArgosyError(
            "usage", f"`mode` is rolling, not {mode!r}: workers are replaced when they are free"
        )
    model, said = model_of(task, heeded=("pool",))
    tell(said)
    pool = msgspec.json.decode(model.extra or "{}").get("pool") or {}
    size = workers if workers is not None else pool.get("workers", pool.get("min_workers"))
    if not isinstance(size, int):
        raise ArgosyError(
            "usage", "how many workers?", hint="write `pool: {workers: 4}` in the file, or give workers=4"
        )
    sent = await SharedClient.send_files(model)
    tell(sent.warnings)
    return await JobPoolCalls.apply_job_pool(pool_name, sent.task, size, user=login.user_name(os.environ))


async def pool_status(pool_names: Sequence[str] | str | None = None) -> list[JobPoolView]:
    """Pools of workers: all, or those that are named."""
    names = [pool_names] if isinstance(pool_names, str) else pool_names
    return [each for each in (await JobPoolCalls.job_pools()).pools if names is None or each.name in names]


async def pool_down(pool_names: Sequence[str] | str | None = None, all: bool = False) -> Done:
    """End pools, their workers and the jobs on them. Errors: "usage", "not-found"."""
    check_flag("all", all)
    names = [pool_names] if isinstance(pool_names, str) else list(pool_names or ())
    if all:
        names = [each.name for each in (await JobPoolCalls.job_pools()).pools]
    elif not names:
        raise ArgosyError("usage", "no pool is named", hint="give `pool_names`, or all=True")
    for name in names:
        await JobPoolCalls.down_job_pool(name)
    return Done(names=tuple(names))
