"""Managed jobs for asyncio, as `argosy.aio.jobs`: see `argosy.jobs`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

import msgspec

from argosy.api import types as t
from argosy.client import aio
from argosy.client.facade import Launched, prepared, queued_of, user_name
from argosy.client.tasks import Launchable
from argosy.model.errors import ArgosyError


async def launch(task: Launchable, name: str | None = None) -> Launched:
    """See `argosy.jobs.launch`."""
    client = aio.current_client()
    model = prepared(task)
    if name is not None:
        model = msgspec.structs.replace(model, name=name)
    sent = await client.send_files(model)
    return queued_of(await client.jobs_launch([sent.task], user=user_name()), None)


async def queue(refresh: bool = False, skip_finished: bool = False) -> list[t.JobView]:
    """See `argosy.jobs.queue`."""
    return await aio.all_jobs(aio.current_client(), None, skip_finished)


async def cancel(
    name: str | None = None, job_ids: Iterable[int] | int | None = None, all: bool = False
) -> t.Done:
    """See `argosy.jobs.cancel`."""
    numbers: list[str] = []
    if job_ids is not None:
        numbers = [str(job_ids)] if isinstance(job_ids, int) else [str(one) for one in job_ids]
    if name is not None:
        numbers += [job.id for job in await queue(skip_finished=True) if job.name == name]
    if not numbers and not all:
        raise ArgosyError(
            "usage", "there is nothing to cancel", hint="give `job_ids`, the name of a live job, or all=True"
        )
    return await aio.current_client().cancel(None, numbers, all=all)


async def tail_logs(
    name: str | None = None,
    job_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    output_stream: BinaryIO | None = None,
) -> int:
    """See `argosy.jobs.tail_logs`."""
    client = aio.current_client()
    if name is not None and job_id is None:
        found = await aio.all_jobs(client, None)
        job_id = next((job.number for job in found if job.name == name), None)
        if job_id is None:
            raise ArgosyError("not-found", f"there is no managed job `{name}`")
    return await aio.show_log(client, await aio.find_job(client, None, job_id), follow, tail, output_stream)
