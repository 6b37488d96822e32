"""Quotas of shared pools: queues in a tree, groups of nodes, presets.

One value, stored as one row: a change is checked against the whole tree (`scheduler.quota.check_tenancy`)
and written with its revision, so an illegal tree is never stored. Amounts are integers by the name of what is
counted:

    cpus          milli-CPU
    memory        bytes
    gpus          milli-GPU, all models together
    gpus/A100     milli-GPU of one model
    jobs          running jobs
"""

from __future__ import annotations

import msgspec

from argosy.model.resources import Resources

Amounts = dict[str, int]

TENANCY_ID = "tenancy"  # there is one


class Resting(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When sessions that nobody uses are put to rest: those of a queue and below it, or all. What a session
    says itself comes first, then the nearest queue on its way up, then what is said for all. Of times None
    says nothing, and 0 is never."""

    idle_s: int | None = None  # nothing happened for so long
    gpu_idle_s: int | None = None  # its GPUs did nothing for so long, though somebody types
    max_s: int | None = None  # since it started, whatever happens
    then: str = ""  # rest | end
    firm: bool = False  # sessions, and queues below, may be given less time, but not more


class Queue(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One node of the tree organisation → project → user. A path that no queue names (a new user) is a leaf
    with weight 1."""

    path: str  # `acme/vision/ann`
    guaranteed: Amounts = {}  # never lent
    deserved: Amounts = {}  # lent while unused, taken back when wanted; at least `guaranteed`
    limit: Amounts = {}  # never more; what is not named has none
    lend_limit: Amounts = {}  # of `deserved` at most so much is lent; what is not named is lent whole
    weight_milli: int = 1000  # its part of what is free beyond everybody's `deserved`
    max_pending: int | None = None  # jobs that may wait
    # what would pass `limit`, with all that runs and waits, is refused when it comes; else it waits
    refuse_over_limit: bool = False
    sessions: Resting | None = None


class QueueUsage(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One queue as people see it: what it may have, what it uses."""

    path: str
    guaranteed: Amounts = {}
    deserved: Amounts = {}
    limit: Amounts = {}
    used: Amounts = {}  # by what runs in it and below it
    fair: Amounts = {}  # what it would get now by right of what it uses and waits for
    running: int = 0  # jobs
    weight_milli: int = 1000
    # what it borrows, in thousandths of what its parent has to lend, per weight of 1; 0: it borrows nothing
    share_milli: int = 0


class Group(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A set of nodes for a purpose. A node that no group names belongs to everybody."""

    name: str  # training, inference, interactive
    nodes: tuple[str, ...] = ()  # patterns of node ids, hostnames or cluster names: `gpu-*`
    kinds: tuple[str, ...] = ()  # kinds of workloads that may use it: job, cluster, session, service; (): all
    queues: tuple[str, ...] = ()  # these and what is below them may use it; (): all


class Preset(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Resources by name, for people who want `small` rather than numbers."""

    name: str
    resources: Resources


class SharePolicy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the pool scheduler behaves."""

    preemption: bool = True  # running preemptible jobs may be ended for more urgent ones and for lenders
    consolidation: bool = False  # running preemptible jobs may be moved to make room
    backfill: str = "easy"  # easy | conservative | none (strict order)
    attained_service: bool = (
        False  # order by service attained (2D-LAS) among checkpointable jobs of one queue
    )
    min_runtime_s: int = 600  # nothing younger is ended
    aging_s: int = 43_200  # after so long in the queue a job rises by one priority class at most
    half_life_s: int = 7 * 86_400  # of usage, as it counts in the order


class Tenancy(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """All of it. The default: one open tree, no quotas, everybody has weight 1."""

    id: str = TENANCY_ID
    queues: tuple[Queue, ...] = ()
    groups: tuple[Group, ...] = ()
    presets: tuple[Preset, ...] = ()
    policy: SharePolicy = SharePolicy()
    sessions: Resting | None = None
    rev: int = 0

    @property
    def is_live(self) -> bool:
        return True
