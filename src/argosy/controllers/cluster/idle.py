"""What keeps a cluster from being idle, and when it stops. Pure: decisions and views ask the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from argosy.controllers.view import terminals_of
from argosy.model.kinds.cluster import cluster_spec, cluster_state
from argosy.model.rows import Node, Workload
from argosy.model.units import many

_RECENT_MS: Final = 60_000  # work on a GPU so long ago still counts as present use when people look


class Seen(Protocol):
    """The observations that idleness depends on."""

    def busy(self, subject: str) -> bool: ...

    def gpu_used_ms(self, node_id: str) -> int: ...


def open_uses(cluster: Workload, jobs: Sequence[Workload], seen: Seen) -> list[str]:
    """Jobs and connections that count by the cluster's own policy, in words; [] when none is there."""
    wait_for = cluster_spec(cluster).autostop.wait_for
    found = []
    if jobs and wait_for in ("jobs_and_ssh", "jobs"):
        found.append(many(len(jobs), "job"))
    if wait_for in ("jobs_and_ssh", "gpu") and seen.busy(terminals_of(cluster.id)):
        found.append("an open terminal or connection")
    return found


def idle_since_ms(cluster: Workload, nodes: Sequence[Node], seen: Seen) -> int:
    """Since when nothing that counts has happened; 0 while a job or a connection is open. A GPU that worked
    lately counts from then on: programs need not be jobs, and may work in bursts."""
    active_ms = cluster_state(cluster).active_ms
    if not active_ms:
        return 0
    return max(active_ms, _gpu_used_ms(cluster, nodes, seen))


def _gpu_used_ms(cluster: Workload, nodes: Sequence[Node], seen: Seen) -> int:
    if cluster_spec(cluster).autostop.wait_for not in ("jobs_and_ssh", "gpu"):
        return 0
    return max((seen.gpu_used_ms(node.id) for node in nodes), default=0)


def in_use(
    cluster: Workload, jobs: Sequence[Workload], nodes: Sequence[Node], seen: Seen, now_ms: int
) -> str:
    """Why the cluster is not idle now, in words; "" when it is."""
    found = open_uses(cluster, jobs, seen)
    used_ms = _gpu_used_ms(cluster, nodes, seen)
    if used_ms and now_ms - used_ms < _RECENT_MS:
        found.append("GPUs at work")
    return ", ".join(found)


def stops_at_ms(cluster: Workload, nodes: Sequence[Node], seen: Seen) -> int:
    """When it stops or goes if nothing happens; 0: not known, or never."""
    policy, status = cluster_spec(cluster).autostop, cluster_state(cluster)
    since_ms = idle_since_ms(cluster, nodes, seen)
    due = []
    if policy.idle_s is not None and since_ms:
        due.append(since_ms + policy.idle_s * 1000)
    if policy.max_s is not None and status.up_ms:
        due.append(status.up_ms + policy.max_s * 1000)
    return min(due, default=0)
