"""Managed jobs, as `argosy.jobs`: each owns its nodes and recovers when it loses them.

import argosy as sky

job_id, _ = sky.jobs.launch(sky.Task(run="python train.py"), name="train")
sky.jobs.tail_logs(job_id=job_id)
"""

from __future__ import annotations

from argosy.client import managed
from argosy.client.blocking import blocking
from argosy.client.records import JobStatus as ManagedJobStatus

__all__ = [
    "ManagedJobStatus",
    "cancel",
    "launch",
    "pool_apply",
    "pool_down",
    "pool_status",
    "queue",
    "queue_v2",
    "tail_logs",
    "tasks",
]

cancel = blocking(managed.cancel_managed)
launch = blocking(managed.launch_job)
pool_apply = blocking(managed.pool_apply)
pool_down = blocking(managed.pool_down)
pool_status = blocking(managed.pool_status)
queue = blocking(managed.queue_of_managed)
queue_v2 = blocking(managed.queue_v2_of_managed)
tail_logs = blocking(managed.tail_logs_of_managed)
tasks = blocking(managed.tasks_of_managed)
