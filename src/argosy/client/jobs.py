"""Managed jobs, as `argosy.jobs`: each owns its nodes and recovers when it loses them.

import argosy as sky

job_id, _ = sky.jobs.launch(sky.Task(run="python train.py"), name="train")
sky.jobs.tail_logs(job_id=job_id)
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO

import msgspec

from argosy.api import types as t
from argosy.client.facade import (
    Launched,
    all_jobs,
    current_client,
    find_job,
    prepared,
    queued_of,
    show_log,
    user_name,
)
from argosy.client.tasks import Launchable
from argosy.model.errors import ArgosyError


def launch(task: Launchable, name: str | None = None) -> Launched:
    """Queue a managed job; returns when it is queued. Unpacks as `job_id, handle`."""
    client = current_client()
    model = prepared(task)
    if name is not None:
        model = msgspec.structs.replace(model, name=name)
    return queued_of(client.jobs_launch([client.send_files(model).task], user=user_name()), None)


def queue(refresh: bool = False, skip_finished: bool = False) -> list[t.JobView]:
    """Managed jobs, newest first. `refresh` is always so."""
    return all_jobs(current_client(), None, skip_finished)


def cancel(name: str | None = None, job_ids: Iterable[int] | int | None = None, all: bool = False) -> t.Done:
    """Cancel managed jobs: by number, all live ones of a name, or all."""
    numbers: list[str] = []
    if job_ids is not None:
        numbers = [str(job_ids)] if isinstance(job_ids, int) else [str(one) for one in job_ids]
    if name is not None:
        numbers += [job.id for job in queue(skip_finished=True) if job.name == name]
    if not numbers and not all:
        raise ArgosyError(
            "usage", "there is nothing to cancel", hint="give `job_ids`, the name of a live job, or all=True"
        )
    return current_client().cancel(None, numbers, all=all)


def tail_logs(
    name: str | None = None,
    job_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    output_stream: BinaryIO | None = None,
) -> int:
    """Print a managed job's log until it ends; 0 when it succeeded, else 1. By default of the newest."""
    client = current_client()
    if name is not None and job_id is None:
        job_id = next((job.number for job in all_jobs(client, None) if job.name == name), None)
        if job_id is None:
            raise ArgosyError("not-found", f"there is no managed job `{name}`")
    return show_log(client, find_job(client, None, job_id), follow, tail, output_stream)
