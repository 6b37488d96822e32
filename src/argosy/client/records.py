"""Clusters and jobs as Python programs get them: views that also answer to SkyPilot's names."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple

from argosy.api.clusters import ClusterView
from argosy.api.jobs import JobView
from argosy.api.services import ReplicaView, ServiceView
from argosy.model.offer import Capacity, Offer


class ClusterStatus(StrEnum):
    """SkyPilot's three: what a cluster's status comes to."""

    INIT = "INIT"
    UP = "UP"
    STOPPED = "STOPPED"


class JobStatus(StrEnum):
    """Of a job: equal to the text that Argosy uses. SkyPilot's names for it, also for managed jobs.

    The last ones are there for programs that compare with them; what failed is FAILED, and its `detail` says
    why.

    >>> JobStatus.PENDING == "queued", JobStatus.FAILED.is_terminal(), JobStatus.STARTING.name
    (True, True, 'SETTING_UP')
    """

    PENDING = "queued"
    SETTING_UP = "starting"
    STARTING = "starting"
    RUNNING = "running"
    RECOVERING = "recovering"
    CANCELLING = "stopping"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    PREEMPTED = "preempted"
    SUPERSEDED = "superseded"
    FAILED_SETUP = "failed-setup"
    FAILED_DRIVER = "failed-driver"
    FAILED_PRECHECKS = "failed-prechecks"
    FAILED_NO_RESOURCE = "failed-no-resource"
    FAILED_CONTROLLER = "failed-controller"

    def is_terminal(self) -> bool:
        return self not in _LIVE


class ServiceStatus(StrEnum):
    """SkyPilot's names for the status of a service."""

    CONTROLLER_INIT = "CONTROLLER_INIT"
    REPLICA_INIT = "REPLICA_INIT"
    READY = "READY"
    NO_REPLICA = "NO_REPLICA"
    FAILED = "FAILED"
    SHUTTING_DOWN = "SHUTTING_DOWN"


class ReplicaStatus(StrEnum):
    """SkyPilot's names for the status of a replica."""

    PENDING = "PENDING"
    PROVISIONING = "PROVISIONING"
    STARTING = "STARTING"
    READY = "READY"
    NOT_READY = "NOT_READY"
    FAILED = "FAILED"
    SHUTTING_DOWN = "SHUTTING_DOWN"


class LaunchedResources(NamedTuple):
    """Where something runs, in SkyPilot's words; None: not known here."""

    cloud: str | None = None
    region: str | None = None
    zone: str | None = None
    instance_type: str | None = None
    accelerators: dict[str, int] | None = None
    use_spot: bool | None = None


_LIVE: Final = frozenset(list(JobStatus)[:5])
_OF_SERVICE: Final = {
    "starting": ServiceStatus.REPLICA_INIT,
    "ready": ServiceStatus.READY,
    "updating": ServiceStatus.READY,
    "no-replica": ServiceStatus.NO_REPLICA,
    "failing": ServiceStatus.FAILED,
    "stopping": ServiceStatus.SHUTTING_DOWN,
}
_OF_REPLICA: Final = {
    "starting": ReplicaStatus.STARTING,
    "warming": ReplicaStatus.STARTING,
    "ready": ReplicaStatus.READY,
    "suspect": ReplicaStatus.NOT_READY,
    "draining": ReplicaStatus.SHUTTING_DOWN,
}
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

    if not TYPE_CHECKING:  # type checkers know the fields alone

        def __getattr__(self, name: str) -> Any:
            """As `record.job_id` in place of `record["job_id"]`; only for names that no field has."""
            try:
                return type(self)._sky[name](self)
            except KeyError:
                raise AttributeError(f"{type(self).__name__} has no `{name}`") from None

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
        "cluster_name": lambda it: it.name,
        "head_ip": lambda it: it.nodes[0].ip if it.nodes else None,
        "launched_nodes": lambda it: it.num_nodes,
        "launched_resources": lambda it: _placed(it.infra),
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


class ServiceRecord(ServiceView, _Record, frozen=True, kw_only=True, omit_defaults=True):
    """A service.

    >>> record = ServiceRecord(id="svc-1", name="chat", status="ready", ready=1, wanted=1)
    >>> record["status"], record.status, record["replica_info"]
    (<ServiceStatus.READY: 'READY'>, 'ready', [])
    """

    _sky: ClassVar[dict[str, Callable[[Any], object]]] = {
        "status": lambda it: _OF_SERVICE.get(it.status, ServiceStatus.REPLICA_INIT),
        "version": lambda it: it.revision,
        "active_versions": lambda it: [each.number for each in it.revisions],
        "uptime": lambda it: it.created_ms // 1000,
        "replica_info": lambda it: [_replica(each) for each in it.replicas],
    }


def _replica(view: ReplicaView) -> dict[str, object]:
    return {
        "replica_id": view.number,
        "name": view.job,
        "status": _OF_REPLICA.get(view.state, ReplicaStatus.PROVISIONING),
        "version": view.revision,
        "endpoint": f"http://{view.address}" if view.address else None,
        "launched_at": view.since_ms // 1000,
        "resources_str": view.resources,
    }


def _placed(infra: str) -> LaunchedResources:
    """
    >>> _placed("aws/us-east-1").region
    'us-east-1'
    """
    parts = [part or None for part in infra.split("/")]
    cloud, region, zone = (*parts, None, None, None)[:3]
    return LaunchedResources(cloud, region, zone)


def launched_on(offer: Offer) -> LaunchedResources:
    """What an offer is, in SkyPilot's words."""
    shape = offer.shape
    count = {shape.accelerator: shape.accelerators_milli // 1000} if shape.accelerator else None
    return LaunchedResources(
        offer.provider,
        offer.region or None,
        offer.zone or None,
        shape.instance_type or None,
        count,
        offer.capacity == Capacity.SPOT,
    )


def as_service(view: ServiceView) -> ServiceRecord:
    return ServiceRecord(**{name: getattr(view, name) for name in view.__struct_fields__})


def as_cluster(view: ClusterView) -> ClusterRecord:
    return ClusterRecord(**{name: getattr(view, name) for name in view.__struct_fields__})


def as_job(view: JobView) -> JobRecord:
    return JobRecord(**{name: getattr(view, name) for name in view.__struct_fields__})
