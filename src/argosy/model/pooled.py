"""What is told of the workloads of a pool: one form for the scheduler's picture and the API."""

from __future__ import annotations

import msgspec


class PooledWorkload(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is told of each, whether it holds something or waits."""

    id: str  # of the workload
    kind: str = "job"  # job | cluster
    number: int = 0
    label: str = ""  # the number as commands take it: `7/3` for a job of a group
    name: str = ""
    user: str = ""
    project: str = ""
    queue: str = ""  # path of the leaf that it counts in


class HolderView(PooledWorkload, frozen=True, kw_only=True, omit_defaults=True):
    """Who holds a part of a machine."""

    started_ms: int = 0
    ends_at_ms: int | None = None  # when it probably ends
    preemptible: bool = False
    leaving: bool = False  # is being ended


class PendingWorkload(PooledWorkload, frozen=True, kw_only=True, omit_defaults=True):
    """What waits, and what it asks for."""

    position: int = 0  # 1: the next in the order of the pool
    num_nodes: int = 1
    gpu_milli: int = 0  # per node, as the next two
    cpus_milli: int = 0
    memory_bytes: int = 0
    models: tuple[str, ...] = ()  # any of these; (): any model
