"""Clusters: how they are, and whether they run, rest or end."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Done, Reply, Request, endpoint
from argosy.api.jobs import JobView
from argosy.model.facts import Device
from argosy.model.resources import Autostop


class NodeView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    index: int
    phase: str
    ip: str
    hostname: str = ""
    cpus_milli: int = 0
    memory_bytes: int = 0
    devices: tuple[Device, ...] = ()
    load_milli: int = 0
    memory_used_bytes: int = 0
    detail: str = ""
    user: str = ""  # as whom programs run there


class ClusterView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    # queued starting running recovering stopping stopped finished; `degraded` when a node is unreachable
    status: str
    infra: str  # provider[/region[/zone]]
    resources: str  # as people write it
    num_nodes: int
    user: str = ""
    project: str = ""
    queue: str = ""  # path of the leaf that it counts in
    position: int = 0  # while it is queued: 1 is the next
    starts_at_ms: int | None = None  # while it is queued: when it probably starts
    created_ms: int = 0
    detail: str = ""  # reason and what to do
    autostop: Autostop = Autostop()
    down_when_done: bool = False
    price_micro_usd: int = 0  # per hour, all nodes
    cost_micro_usd: int = 0  # so far
    nodes: tuple[NodeView, ...] = ()
    jobs_running: int = 0
    jobs_queued: int = 0
    in_use: str = ""  # why a cluster with an idle time is not idle now
    stops_at_ms: int = 0  # when it stops or goes if nothing happens; 0: never, or not while it is in use


class StatusReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    clusters: tuple[ClusterView, ...]
    jobs: tuple[JobView, ...] = ()  # live managed jobs
    as_of_ms: int = 0  # not 0: the database does not answer, and this is what was known then


class AutostopRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    autostop: Autostop


class ClusterCalls:
    @endpoint("GET", "/status", permission="clusters.read")
    def status(
        self,
        *,
        refresh: Annotated[bool, "ask the infrastructure first"] = False,
        all: Annotated[bool, "also finished clusters"] = False,
    ) -> StatusReply:
        """Clusters and live managed jobs."""

    @endpoint("GET", "/clusters/{cluster}", permission="clusters.read")
    def cluster(self, cluster: str) -> ClusterView:
        """One cluster. Errors: "not-found"."""

    @endpoint("POST", "/clusters/{cluster}/stop", permission="clusters.write")
    def stop(self, cluster: str) -> Done:
        """Stop a cluster, keeping its disks."""

    @endpoint("POST", "/clusters/{cluster}/start", permission="clusters.write")
    def start(self, cluster: str) -> Done:
        """Start a stopped cluster again, or replace dead nodes."""

    @endpoint("DELETE", "/clusters/{cluster}", permission="clusters.write")
    def down(self, cluster: str) -> Done:
        """End the cluster and its jobs."""

    @endpoint("POST", "/clusters/{cluster}/autostop", AutostopRequest, permission="clusters.write")
    def autostop(self, cluster: str, autostop: Autostop) -> Done:
        """Set when an idle cluster stops or ends."""
