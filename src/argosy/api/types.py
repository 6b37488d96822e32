"""Requests and responses. Requests are strict, responses lenient: fields are only ever added."""

from __future__ import annotations

import msgspec

from argosy.model.facts import Device
from argosy.model.offer import Offer, Plan
from argosy.model.resources import Autostop
from argosy.model.task import Task


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What clients send."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the server answers."""


class Health(Reply, frozen=True, kw_only=True, omit_defaults=True):
    version: str
    api: int  # raised when old clients can no longer talk to the server
    pid: int
    started_ms: int
    state_dir: str = ""  # only told over the local socket
    store: str = ""


class PlanRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    task: Task


class PlanReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    plan: Plan
    warnings: tuple[str, ...] = ()


class LaunchRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Make or reuse cluster `cluster` and run `task` on it. Without `run` only the cluster is made."""

    task: Task
    cluster: str | None = None  # None: the server gives a name
    user: str = ""
    autostop: Autostop | None = None
    down: bool = False  # the cluster goes when its jobs are done
    setup: bool = True
    key: str = ""  # idempotency: the same key gives the same answer


class ExecRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Queue jobs on an existing cluster: one commit for all of them."""

    cluster: str
    tasks: tuple[Task, ...]
    user: str = ""
    key: str = ""


class JobsLaunchRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Queue managed jobs: each owns its nodes and recovers."""

    tasks: tuple[Task, ...]
    user: str = ""
    key: str = ""


class JobRef(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    number: int
    name: str = ""


class LaunchReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    cluster: str
    cluster_id: str
    created: bool
    job: JobRef | None
    plan: Plan | None = None  # of a new cluster
    warnings: tuple[str, ...] = ()


class JobsReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    jobs: tuple[JobRef, ...]
    warnings: tuple[str, ...] = ()


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


class ClusterView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    status: str  # queued starting running recovering stopping stopped finished; `degraded` when a node is unreachable
    infra: str  # provider[/region[/zone]]
    resources: str  # as people write it
    num_nodes: int
    user: str = ""
    created_ms: int = 0
    detail: str = ""  # reason and what to do
    autostop: Autostop = Autostop()
    down_when_done: bool = False
    price_micro_usd: int = 0  # per hour, all nodes
    cost_micro_usd: int = 0  # so far
    nodes: tuple[NodeView, ...] = ()
    jobs_running: int = 0
    jobs_queued: int = 0


class JobView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    number: int
    name: str
    cluster: str | None  # None: managed
    managed: bool
    status: str  # the phase; when finished, the outcome
    phase: str
    outcome: str | None = None
    reason: str | None = None
    detail: str = ""  # why it waits or how it ended, and what to do
    user: str = ""
    created_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    resources: str = ""
    num_nodes: int = 1
    exit_codes: tuple[int | None, ...] = ()
    recoveries: int = 0
    errors: int = 0
    attempt: str | None = None  # the present or last one
    task_id: str = ""


class StatusReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    clusters: tuple[ClusterView, ...]
    jobs: tuple[JobView, ...] = ()  # live managed jobs


class JobList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    jobs: tuple[JobView, ...]
    next: str | None = None  # cursor of the next page


class CancelRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Which jobs of `cluster` (None: managed jobs) to cancel: numbers or ids, or all."""

    cluster: str | None = None
    jobs: tuple[str, ...] = ()
    all: bool = False


class AutostopRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    autostop: Autostop


class EventView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    seq: int
    at_ms: int
    subject: str
    code: str
    text: str


class EventList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    events: tuple[EventView, ...]


class CostView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    kind: str
    infra: str
    resources: str
    num_nodes: int
    held_s: int
    price_micro_usd: int
    cost_micro_usd: int
    status: str


class CostReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    costs: tuple[CostView, ...]
    total_micro_usd: int


class DiagnosticView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    provider: str
    ok: bool
    what: str
    hint: str = ""


class CheckReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    findings: tuple[DiagnosticView, ...]


class OfferList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    offers: tuple[Offer, ...]


class ChunksRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Which of these chunk digests does the server not have?"""

    digests: tuple[str, ...]


class ChunksReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    missing: tuple[str, ...]


class TreeReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    digest: str


class ServerStatus(Reply, frozen=True, kw_only=True, omit_defaults=True):
    health: Health
    memory_bytes: int
    listening: tuple[str, ...]
    clusters: int
    jobs_live: int
    log_file: str = ""


class Done(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """The wish is recorded; `status` shows it being carried out."""

    names: tuple[str, ...] = ()


class LogFrame(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """Header line of a frame in a log stream: JSON, then `\\n`, then `size` bytes.

    A stream is `application/x-argosy-log`: frames until the one with `end`. `cursor` resumes after this frame.
    """

    rank: int = 0
    size: int = 0
    attempt: int = 1
    cursor: str = ""
    note: str = ""  # something to tell the reader, e.g. why the job waits
    end: bool = False
    status: str = ""  # with `end`: the job's status
    exit_code: int | None = None  # with `end`: the first failing rank's, else 0
    detail: str = ""
