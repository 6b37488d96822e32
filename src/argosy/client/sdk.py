"""What `argosy` exports: SkyPilot's names, blocking. Imported when the first of them is used."""

from __future__ import annotations

from collections.abc import Iterator
from functools import wraps
from typing import Literal, overload

from argosy.client import facade
from argosy.client.blocking import blocking
from argosy.client.bucket_mounts import Storage, StorageMode, StoreType
from argosy.client.client import Client
from argosy.client.clouds import (
    AWS,
    DO,
    GCP,
    IBM,
    OCI,
    SCP,
    SSH,
    Azure,
    Cloud,
    Cudo,
    Fluidstack,
    Hyperbolic,
    Hyperstack,
    Kubernetes,
    Lambda,
    Local,
    Mithril,
    Nebius,
    Paperspace,
    PrimeIntellect,
    Ray,
    RunPod,
    Seeweb,
    Shadeform,
    Slurm,
    Vast,
    Verda,
    Vsphere,
    Yotta,
)
from argosy.client.dags import Dag, DagExecution
from argosy.client.facade import (
    Handle,
    Launched,
    OptimizeTarget,
    api_cancel,
    api_login,
    api_status,
    get,
    stream_and_get,
    validate,
)
from argosy.client.log_lines import log_lines
from argosy.client.printing import Out
from argosy.client.records import ClusterRecord, ClusterStatus, JobRecord, JobStatus
from argosy.client.serving import SkyServiceSpec
from argosy.client.tasks import Resources, Task
from argosy.model.errors import ArgosyError

__all__ = [
    "AWS",
    "DO",
    "GCP",
    "IBM",
    "OCI",
    "SCP",
    "SSH",
    "ArgosyError",
    "Azure",
    "Client",
    "Cloud",
    "ClusterRecord",
    "ClusterStatus",
    "Cudo",
    "Dag",
    "DagExecution",
    "Fluidstack",
    "Handle",
    "Hyperbolic",
    "Hyperstack",
    "JobRecord",
    "JobStatus",
    "Kubernetes",
    "Lambda",
    "Launched",
    "Local",
    "Mithril",
    "Nebius",
    "OptimizeTarget",
    "Paperspace",
    "PrimeIntellect",
    "Ray",
    "Resources",
    "RunPod",
    "Seeweb",
    "Shadeform",
    "SkyServiceSpec",
    "Slurm",
    "Storage",
    "StorageMode",
    "StoreType",
    "Task",
    "Vast",
    "Verda",
    "Vsphere",
    "Yotta",
    "api_cancel",
    "api_info",
    "api_login",
    "api_start",
    "api_status",
    "api_stop",
    "autostop",
    "cancel",
    "check",
    "cost_report",
    "down",
    "download_logs",
    "endpoints",
    "estimate",
    "events",
    "exec",
    "explain",
    "get",
    "job_status",
    "launch",
    "list_accelerators",
    "optimize",
    "pools",
    "queue",
    "start",
    "status",
    "stop",
    "stream_and_get",
    "tail_logs",
    "validate",
]

api_info = blocking(facade.api_info)
api_start = blocking(facade.api_start)
api_stop = blocking(facade.api_stop)
autostop = blocking(facade.autostop)
cancel = blocking(facade.cancel)
check = blocking(facade.check)
cost_report = blocking(facade.cost_report)
down = blocking(facade.down)
download_logs = blocking(facade.download_logs)
endpoints = blocking(facade.endpoints)
estimate = blocking(facade.estimate)
events = blocking(facade.events)
exec = blocking(facade.exec)
explain = blocking(facade.explain)
job_status = blocking(facade.job_status)
launch = blocking(facade.launch)
list_accelerators = blocking(facade.list_accelerators)
optimize = blocking(facade.optimize)
pools = blocking(facade.pools)
queue = blocking(facade.queue)
start = blocking(facade.start)
status = blocking(facade.status)
stop = blocking(facade.stop)
_tail_logs = blocking(facade.tail_logs)


@overload
def tail_logs(
    cluster_name: str,
    job_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    output_stream: Out | None = None,
    *,
    preload_content: Literal[True] = True,
) -> int: ...
@overload
def tail_logs(
    cluster_name: str,
    job_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    *,
    preload_content: Literal[False],
) -> Iterator[str]: ...
@wraps(facade.tail_logs)
def tail_logs(
    cluster_name: str,
    job_id: int | None = None,
    follow: bool = True,
    tail: int = 0,
    output_stream: Out | None = None,
    *,
    preload_content: bool = True,
) -> int | Iterator[str]:
    """As the flow; `preload_content=False`: its lines, to iterate over."""
    if preload_content:
        return _tail_logs(cluster_name, job_id, follow, tail, output_stream)
    return log_lines(lambda out: _tail_logs(cluster_name, job_id, follow, tail, out))
