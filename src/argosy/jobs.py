"""Managed jobs, as `argosy.jobs`: each owns its nodes and recovers when it loses them.

import argosy as sky

job_id, _ = sky.jobs.launch(sky.Task(run="python train.py"), name="train")
sky.jobs.tail_logs(job_id=job_id)
"""

from __future__ import annotations

from argosy.client import facade
from argosy.client.blocking import blocking

__all__ = ["cancel", "launch", "queue", "tail_logs", "tasks"]

cancel = blocking(facade.cancel_managed)
launch = blocking(facade.launch_job)
queue = blocking(facade.queue_of_managed)
tail_logs = blocking(facade.tail_logs_of_managed)
tasks = blocking(facade.tasks_of_managed)
