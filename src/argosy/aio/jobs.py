"""Managed jobs for asyncio, as `argosy.aio.jobs`: see `argosy.jobs`."""

from __future__ import annotations

from argosy.client import managed
from argosy.client.awaiting import awaiting
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

cancel = awaiting(managed.cancel_managed)
launch = awaiting(managed.launch_job)
pool_apply = awaiting(managed.pool_apply)
pool_down = awaiting(managed.pool_down)
pool_status = awaiting(managed.pool_status)
queue = awaiting(managed.queue_of_managed)
queue_v2 = awaiting(managed.queue_v2_of_managed)
tail_logs = awaiting(managed.tail_logs_of_managed)
tasks = awaiting(managed.tasks_of_managed)
