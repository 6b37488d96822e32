"""Managed jobs for asyncio, as `argosy.aio.jobs`: see `argosy.jobs`."""

from __future__ import annotations

from argosy.client import facade
from argosy.client.awaiting import awaiting

__all__ = ["cancel", "launch", "queue", "tail_logs", "tasks"]

cancel = awaiting(facade.cancel_managed)
launch = awaiting(facade.launch_job)
queue = awaiting(facade.queue_of_managed)
tail_logs = awaiting(facade.tail_logs_of_managed)
tasks = awaiting(facade.tasks_of_managed)
