"""Endpoints of pools: allocations, pending workloads, and why they are pending."""

from __future__ import annotations

from argosy.api.endpoint import Reply, endpoint
from argosy.api.events import EventView
from argosy.api.quota import QueueView
from argosy.model.facts import Device
from argosy.model.offer import Tried
from argosy.model.pooled import HolderView, PendingWorkload


class ShareView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """A part of a device. `holder`: position in the pool's `holders`."""

    holder: int
    milli: int
    mechanism: str = ""  # mps, mig; "": takes turns, or all of it
    memory_bytes: int = 0


class DeviceView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    device: Device
    shares: tuple[ShareView, ...] = ()


class MachineView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    open: bool = True  # takes new work
    closed: str = ""  # then why, as the end of a sentence: `does not answer`
    cpus_milli: int = 0
    cpus_used_milli: int = 0
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    devices: tuple[DeviceView, ...] = ()
    holders: tuple[int, ...] = ()  # positions in the pool's `holders`
    groups: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()


class WaitingView(PendingWorkload, frozen=True, kw_only=True, omit_defaults=True):
    """Something that waits, and why."""

    code: str = ""
    text: str = ""
    starts_at_ms: int | None = None


class GangView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """So many nodes have so many whole devices free: the largest gang of that size that fits."""

    model: str
    gpus: int
    num_nodes: int


class PoolView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    queue: str = ""  # that the pool belongs to
    machines: tuple[MachineView, ...] = ()
    holders: tuple[HolderView, ...] = ()
    waiting: tuple[WaitingView, ...] = ()
    gangs: tuple[GangView, ...] = ()
    warnings: tuple[str, ...] = ()  # what is wrong with its machines


class PoolList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    pools: tuple[PoolView, ...]


class AttemptView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    number: int
    status: str  # the phase; when ended, the outcome
    why: str = ""  # why it was started when and where it was
    where: tuple[str, ...] = ()  # names of its nodes, with devices
    detail: str = ""  # how it ended
    placed_ms: int = 0
    running_ms: int = 0
    ended_ms: int = 0


class ExplainReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """Why a job or cluster waits, or is where it is; and what happened to it before."""

    id: str
    title: str  # `job 3 of `dev``
    status: str
    lines: tuple[str, ...] = ()  # in words
    tried: tuple[Tried, ...] = ()  # places that gave no machines, with what they said and when
    code: str = ""  # why it waits: of `scheduler.ask.Waiting`
    position: int = 0
    starts_at_ms: int | None = None
    user: str = ""
    project: str = ""
    queue: QueueView | None = None
    attempts: tuple[AttemptView, ...] = ()
    events: tuple[EventView, ...] = ()


class PoolCalls:
    @endpoint("GET", "/pools", permission="pools.read")
    def pools(self) -> PoolList:
        """Machines of pools, their allocations, and pending workloads."""

    @endpoint("GET", "/workloads/{workload}/explain", permission="jobs.read")
    def explain(self, workload: str) -> ExplainReply:
        """Why a job or cluster waits, or is where it is, and its history. By id. Errors: "not-found"."""
