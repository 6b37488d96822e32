"""The SDK: `Client` and `AsyncClient` for every endpoint, and the façade that SkyPilot programs know.

>>> import argosy as sky
>>> task = sky.Task(run="python train.py", workdir=".", envs={"EPOCHS": "10"})
>>> task = task.set_resources(sky.Resources(accelerators="A100:1", cpus="4+"))
>>> task.build().envs
{'EPOCHS': '10'}

Names are resolved on first use, so importing costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from argosy.client import aio as aio
    from argosy.client import jobs as jobs
    from argosy.client.async_client import AsyncClient as AsyncClient
    from argosy.client.client import Client as Client
    from argosy.client.clouds import AWS as AWS
    from argosy.client.clouds import DO as DO
    from argosy.client.clouds import GCP as GCP
    from argosy.client.clouds import IBM as IBM
    from argosy.client.clouds import OCI as OCI
    from argosy.client.clouds import SCP as SCP
    from argosy.client.clouds import SSH as SSH
    from argosy.client.clouds import Azure as Azure
    from argosy.client.clouds import Cloud as Cloud
    from argosy.client.clouds import Cudo as Cudo
    from argosy.client.clouds import Fluidstack as Fluidstack
    from argosy.client.clouds import Hyperbolic as Hyperbolic
    from argosy.client.clouds import Hyperstack as Hyperstack
    from argosy.client.clouds import Kubernetes as Kubernetes
    from argosy.client.clouds import Lambda as Lambda
    from argosy.client.clouds import Local as Local
    from argosy.client.clouds import Mithril as Mithril
    from argosy.client.clouds import Nebius as Nebius
    from argosy.client.clouds import Paperspace as Paperspace
    from argosy.client.clouds import PrimeIntellect as PrimeIntellect
    from argosy.client.clouds import Ray as Ray
    from argosy.client.clouds import RunPod as RunPod
    from argosy.client.clouds import Seeweb as Seeweb
    from argosy.client.clouds import Shadeform as Shadeform
    from argosy.client.clouds import Slurm as Slurm
    from argosy.client.clouds import Vast as Vast
    from argosy.client.clouds import Verda as Verda
    from argosy.client.clouds import Vsphere as Vsphere
    from argosy.client.clouds import Yotta as Yotta
    from argosy.client.facade import Launched as Launched
    from argosy.client.facade import OptimizeTarget as OptimizeTarget
    from argosy.client.facade import api_info as api_info
    from argosy.client.facade import autostop as autostop
    from argosy.client.facade import cancel as cancel
    from argosy.client.facade import check as check
    from argosy.client.facade import cost_report as cost_report
    from argosy.client.facade import down as down
    from argosy.client.facade import download_logs as download_logs
    from argosy.client.facade import estimate as estimate
    from argosy.client.facade import events as events
    from argosy.client.facade import exec as exec
    from argosy.client.facade import explain as explain
    from argosy.client.facade import get as get
    from argosy.client.facade import job_status as job_status
    from argosy.client.facade import launch as launch
    from argosy.client.facade import list_accelerators as list_accelerators
    from argosy.client.facade import optimize as optimize
    from argosy.client.facade import pools as pools
    from argosy.client.facade import queue as queue
    from argosy.client.facade import start as start
    from argosy.client.facade import status as status
    from argosy.client.facade import stop as stop
    from argosy.client.facade import stream_and_get as stream_and_get
    from argosy.client.facade import tail_logs as tail_logs
    from argosy.client.facade import validate as validate
    from argosy.client.tasks import Dag as Dag
    from argosy.client.tasks import Resources as Resources
    from argosy.client.tasks import Task as Task
    from argosy.model.errors import ArgosyError as ArgosyError

_CLOUDS: Final = (
    "AWS",
    "Azure",
    "Cloud",
    "Cudo",
    "DO",
    "Fluidstack",
    "GCP",
    "Hyperbolic",
    "Hyperstack",
    "IBM",
    "Kubernetes",
    "Lambda",
    "Local",
    "Mithril",
    "Nebius",
    "OCI",
    "Paperspace",
    "PrimeIntellect",
    "Ray",
    "RunPod",
    "SCP",
    "SSH",
    "Seeweb",
    "Shadeform",
    "Slurm",
    "Vast",
    "Verda",
    "Vsphere",
    "Yotta",
)
_FACADE: Final = (
    "Launched",
    "OptimizeTarget",
    "api_info",
    "autostop",
    "cancel",
    "check",
    "cost_report",
    "down",
    "download_logs",
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
)
_HOMES: Final[dict[str, str]] = {
    "ArgosyError": "argosy.model.errors",
    "AsyncClient": "argosy.client.async_client",
    "Client": "argosy.client.client",
    "Dag": "argosy.client.tasks",
    "Resources": "argosy.client.tasks",
    "Task": "argosy.client.tasks",
    **dict.fromkeys(_CLOUDS, "argosy.client.clouds"),
    **dict.fromkeys(_FACADE, "argosy.client.facade"),
}
_MODULES: Final = ("aio", "jobs")

__all__ = sorted([*_HOMES, *_MODULES])


def __getattr__(name: str) -> Any:  # Any: whatever has that name
    if name in _MODULES:
        return importlib.import_module(f"argosy.client.{name}")
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module 'argosy.client' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
