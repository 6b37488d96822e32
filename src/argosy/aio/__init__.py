"""`argosy` for asyncio: the same names and arguments, each a coroutine.

    from argosy import aio

    job_id, handle = await aio.launch(Task(run="echo hi"), cluster_name="dev")
    await aio.tail_logs("dev", job_id)

Each event loop has its own client; `AsyncClient` has every endpoint.
"""

from __future__ import annotations

from argosy.aio import jobs, serve
from argosy.client import facade
from argosy.client.awaiting import awaiting, current_client

__all__ = [
    "api_info",
    "api_start",
    "api_stop",
    "autostop",
    "cancel",
    "check",
    "cost_report",
    "current_client",
    "down",
    "download_logs",
    "endpoints",
    "estimate",
    "events",
    "exec",
    "explain",
    "job_status",
    "jobs",
    "launch",
    "list_accelerators",
    "optimize",
    "pools",
    "queue",
    "serve",
    "start",
    "status",
    "stop",
    "tail_logs",
]

api_info = awaiting(facade.api_info)
api_start = awaiting(facade.api_start)
api_stop = awaiting(facade.api_stop)
autostop = awaiting(facade.autostop)
cancel = awaiting(facade.cancel)
check = awaiting(facade.check)
cost_report = awaiting(facade.cost_report)
down = awaiting(facade.down)
download_logs = awaiting(facade.download_logs)
endpoints = awaiting(facade.endpoints)
estimate = awaiting(facade.estimate)
events = awaiting(facade.events)
exec = awaiting(facade.exec)
explain = awaiting(facade.explain)
job_status = awaiting(facade.job_status)
launch = awaiting(facade.launch)
list_accelerators = awaiting(facade.list_accelerators)
optimize = awaiting(facade.optimize)
pools = awaiting(facade.pools)
queue = awaiting(facade.queue)
start = awaiting(facade.start)
status = awaiting(facade.status)
stop = awaiting(facade.stop)
tail_logs = awaiting(facade.tail_logs)
