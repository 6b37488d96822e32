"""Requests and replies about who shares what: queues, pools, and why something waits. Amounts as in
`model.tenancy`."""

# ruff: noqa: RUF012 - structs of msgspec copy their defaults

from __future__ import annotations

from argosy.api.types import EventView, Reply, Request
from argosy.model.facts import Device
from argosy.model.tenancy import Amounts, Tenancy


class QueueView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One queue of the tree, with what runs in it and below it."""

    path: str
    named: bool = True  # False: nobody wrote it down; it is there because somebody uses it
    used: Amounts = {}
    guaranteed: Amounts = {}
    deserved: Amounts = {}
    limit: Amounts = {}
    lend_limit: Amounts = {}
    borrows: Amounts = {}  # of what is used: beyond what it deserves
    lends: Amounts = {}  # of what it deserves: at most so much is used by others now
    running: int = 0  # jobs
    waiting: int = 0
    weight_milli: int = 1000
    share_milli: int = 0  # of what its parent can lend, per weight of 1
    max_pending: int | None = None
    refuse_over_limit: bool = False


class TenancyReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    tenancy: Tenancy
    queues: tuple[QueueView, ...] = ()  # parents before their children
    text: str = ""  # the tenancy as YAML


class TenancyRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """All of it anew. `rev`: only if nobody has written since that one; None: in any case."""

    tenancy: Tenancy
    rev: int | None = None
    check: bool = False  # only say what is wrong in it: nothing is set, and the reply shows what is set now


class QueueRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """One queue: what is given changes, the rest stays. An amount of None is taken away."""

    path: str
    guaranteed: dict[str, int | None] = {}
    deserved: dict[str, int | None] = {}
    limit: dict[str, int | None] = {}
    lend_limit: dict[str, int | None] = {}
    weight_milli: int | None = None
    max_pending: int | None = None  # -1: no bound
    refuse_over_limit: bool | None = None
    remove: bool = False


class QueueExplanation(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """A queue in words: what it has, borrows and lends, who could take it back, what a request would meet."""

    queue: QueueView
    lines: tuple[str, ...]


class HolderView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """Who holds a part of a machine."""

    id: str
    kind: str = "job"  # job | cluster
    number: int = 0
    name: str = ""
    user: str = ""
    project: str = ""
    queue: str = ""
    started_ms: int = 0
    ends_at_ms: int | None = None  # when it probably ends
    preemptible: bool = False
    leaving: bool = False


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
    cpus_milli: int = 0
    cpus_used_milli: int = 0
    memory_bytes: int = 0
    memory_used_bytes: int = 0
    devices: tuple[DeviceView, ...] = ()
    holders: tuple[int, ...] = ()  # positions in the pool's `holders`
    groups: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    taints: tuple[str, ...] = ()


class WaitingView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    kind: str = "job"
    number: int = 0
    name: str = ""
    user: str = ""
    project: str = ""
    queue: str = ""
    position: int = 0
    num_nodes: int = 1
    gpu_milli: int = 0  # per node, as the next two
    cpus_milli: int = 0
    memory_bytes: int = 0
    models: tuple[str, ...] = ()
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
    code: str = ""  # why it waits: of `scheduler.ask.Waiting`
    position: int = 0
    starts_at_ms: int | None = None
    user: str = ""
    project: str = ""
    queue: QueueView | None = None
    attempts: tuple[AttemptView, ...] = ()
    events: tuple[EventView, ...] = ()
