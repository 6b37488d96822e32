"""Clusters and jobs as Python programs get them: views that also answer to SkyPilot's names."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, ClassVar, Final

from argosy.api.clusters import ClusterView
from argosy.api.jobs import JobView


class ClusterStatus(StrEnum):
    """SkyPilot's three: what a cluster's status comes to."""

    INIT = "INIT"
    UP = "UP"
    STOPPED = "STOPPED"


class JobStatus(StrEnum):
    """Of a job: equal to the text that Argosy uses. SkyPilot's names for it.

    >>> JobStatus.PENDING == "queued", JobStatus.FAILED.is_terminal()
    (True, True)
    """

    PENDING = "queued"
    SETTING_UP = "starting"
    RUNNING = "running"
    RECOVERING = "recovering"
    CANCELLING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    PREEMPTED = "preempted"
    SUPERSEDED = "superseded"

    def is_terminal(self) -> bool:
        return self not in _LIVE


_LIVE: Final = frozenset(list(JobStatus)[:5])
_OF_CLUSTER: Final = {
    "running": ClusterStatus.UP,
    "degraded": ClusterStatus.UP,
    "stopped": ClusterStatus.STOPPED,
}


def job_state(status: str) -> JobStatus:
    """
    >>> job_state("running")
    <JobStatus.RUNNING: 'running'>
    """
    return JobStatus(status)


class _Record:
    """`record["name"]` reads a field by its name, or by SkyPilot's."""

    _sky: ClassVar[dict[str, Callable[[Any], object]]] = {}

    def __getitem__(self, key: str) -> Any:  # Any: whatever the field holds
        if key in self._sky:
            return self._sky[key](self)
        if key in self.__struct_fields__:  # type: ignore[attr-defined]
            return getattr(self, key)
        raise KeyError(key)

    def get(self, key: str, default: Any = None) -> Any:
        """As of a dict."""
        try:
            return self[key]
        except KeyError:
            return default


class ClusterRecord(ClusterView, _Record, frozen=True, kw_only=True, omit_defaults=True):
    """A cluster.

    >>> record = ClusterRecord(id="clu-1", name="dev", status="running", infra="local", resources="2 CPUs",
    ...     num_nodes=1, created_ms=5000)
    >>> record["status"], record.status, record["launched_at"], record["num_nodes"]
    (<ClusterStatus.UP: 'UP'>, 'running', 5, 1)
    """

    _sky: ClassVar[dict[str, Callable[[Any], object]]] = {
        "status": lambda it: _OF_CLUSTER.get(it.status, ClusterStatus.INIT),
        "handle": lambda it: it,
        "cluster_hash": lambda it: it.id,
        "launched_at": lambda it: it.created_ms // 1000,
        "resources_str": lambda it: it.resources,
        "user_name": lambda it: it.user,
        "workspace": lambda it: it.project,
        "autostop": lambda it: -1 if it.autostop.idle_s is None else it.autostop.idle_s // 60,
        "to_down": lambda it: it.autostop.down,
    }


class JobRecord(JobView, _Record, frozen=True, kw_only=True, omit_defaults=True):
    """A job."""

    _sky: ClassVar[dict[str, Callable[[Any], object]]] = {
        "status": lambda it: job_state(it.status),
        "job_id": lambda it: it.number,
        "job_name": lambda it: it.name,
        "username": lambda it: it.user,
        "submitted_at": lambda it: it.created_ms / 1000,
        "start_at": lambda it: it.started_ms / 1000 or None,
        "end_at": lambda it: it.ended_ms / 1000 or None,
        "recovery_count": lambda it: it.recoveries,
        "failure_reason": lambda it: it.detail or None,
    }


def as_cluster(view: ClusterView) -> ClusterRecord:
    return ClusterRecord(**{name: getattr(view, name) for name in view.__struct_fields__})


def as_job(view: JobView) -> JobRecord:
    return JobRecord(**{name: getattr(view, name) for name in view.__struct_fields__})
