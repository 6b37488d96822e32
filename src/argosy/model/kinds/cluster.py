"""Clusters: nodes that stay until told otherwise, and on which jobs run."""

from __future__ import annotations

from typing import Final

from argosy.model.kinds.kind import Gang, Kind, spec_of, status_of
from argosy.model.offer import Confirmed
from argosy.model.resources import Autostop, Resources
from argosy.model.rows import KindSpec, KindStatus, Workload
from argosy.model.scheduling import Scheduling


class ClusterSpec(KindSpec, frozen=True, kw_only=True, omit_defaults=True, tag="cluster", tag_field="kind"):
    """Nodes that stay until told otherwise."""

    num_nodes: int
    resources: tuple[Resources, ...]
    ordered: bool = False
    scheduling: Scheduling = Scheduling()
    autostop: Autostop = Autostop()
    down_when_done: bool = False  # made by `launch --down`
    confirmed: Confirmed | None = None  # what its launch was told to keep to
    config: str = ""  # JSON text of the `config` of the task that it was made for


class ClusterStatus(
    KindStatus, frozen=True, kw_only=True, omit_defaults=True, tag="cluster", tag_field="kind"
):
    """How far a cluster is."""

    active_ms: int = 0  # since when it is idle; 0 while jobs are live
    up_ms: int = 0  # since when its nodes are ready, this time


#: The spec of a row that is a cluster.
cluster_spec: Final = spec_of(ClusterSpec)
#: The status of a row that is a cluster.
cluster_state: Final = status_of(ClusterStatus)


def _gangs(row: Workload) -> tuple[Gang, ...]:
    spec = cluster_spec(row)
    return (
        Gang(
            num_nodes=spec.num_nodes,
            resources=spec.resources,
            ordered=spec.ordered,
            scheduling=spec.scheduling,
            confirmed=spec.confirmed,
            config=spec.config,
        ),
    )


CLUSTER: Final = Kind(
    name="cluster",
    decided_by="argosy.controllers.cluster.decide",
    prefix="clu",
    spec=ClusterSpec,
    status=ClusterStatus,
    gangs=_gangs,
    title=lambda row: f"cluster `{row.name}`",
    resource="clusters",
    named=True,
    hosts=True,
    evictable=False,  # people keep things there
)
