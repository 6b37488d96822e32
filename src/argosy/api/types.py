"""Requests and responses. Requests are strict, responses lenient: fields are only ever added."""

from __future__ import annotations

import msgspec

from argosy.model.facts import Device
from argosy.model.offer import Offer, Plan
from argosy.model.priced import GpuView as GpuView
from argosy.model.priced import PriceView as PriceView
from argosy.model.priced import Refused as Refused
from argosy.model.priced import RegionView as RegionView
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
    """`prices`: also what clouds would take, those too that Argosy cannot launch on yet."""

    task: Task
    prices: bool = False
    limit: int = 20  # candidates in the answer
    distinct: bool = False  # one for each machine and capacity of a provider, at its best place
    objective: str = ""  # cost | time | carbon; "": that of the task
    managed: bool = (
        True  # as a managed job, which recovers: a deadline may be met with spot. False: as a cluster
    )
    compare: bool = False  # also the best of owned, spot and on-demand, side by side
    html: bool = False  # also as a page with a chart


class OfferView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One candidate of a plan. None: not known."""

    provider: str
    region: str = ""
    zone: str = ""
    capacity: str
    instance_type: str = ""
    accelerator: str = ""
    accelerators_milli: int = 0
    cpus_milli: int = 0
    memory_bytes: int = 0
    price: PriceView  # per node
    hourly_micro_usd: int = 0  # all nodes
    runtime_s: int | None = None  # of the whole task
    basis: str = ""  # of the runtime: measured | scaled | estimate
    total_micro_usd: int | None = None  # of the whole task
    carbon_g: float | None = None  # of the whole task; per hour when its runtime is not known
    interrupted_pct_low: int | None = None  # of spot machines, in a month
    interrupted_pct_high: int | None = None
    source: str = ""
    rule: str = ""  # by which the price was computed; "": it was read
    launchable: bool = False
    places: int = 1  # `distinct`: at how many places it is among the best
    refused: tuple[Refused, ...] = ()  # capacity that was not there when it was asked for, newest first


class CompareView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """The best of one capacity. None: not known, as no runtime was given."""

    kind: str  # owned, reserved, spot, on-demand, queued
    place: str
    instance_type: str
    num_nodes: int
    price_micro_usd: int  # per hour, of all nodes
    estimated: bool = False
    total_micro_usd: int | None = None  # expected, with what losses cost
    finish_s: int | None = None
    losses: float | None = None  # expected number
    in_time: float | None = None  # chance of meeting the deadline
    against_on_demand: float | None = None  # 0.6: costs 60 % less than on-demand
    note: str = ""


class PlanReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """`plan` has what can be launched. The rest is there when `prices` were asked for."""

    plan: Plan
    warnings: tuple[str, ...] = ()
    offers: tuple[OfferView, ...] = ()  # best first, also those that cannot be launched yet
    fitting: int = 0  # how many offers fit
    text: str = ""  # why the first one is first, or why nothing fits
    deadline: str = ""  # what was chosen to meet the deadline, and why
    compared: tuple[CompareView, ...] = ()  # the best of each capacity, cheapest first
    page: str = ""  # the same as HTML
    notes: tuple[str, ...] = ()  # prices that are old, files of the user that were left out


class PipelineRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Several tasks. `edges`: pairs of positions, the second starts after the first; None: each after the one
    before."""

    tasks: tuple[Task, ...]
    edges: tuple[tuple[int, int], ...] | None = None
    objective: str = "cost"  # cost | time


class MoveView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """Data that travels between stages, or from or to storage (`src` or `dst` is its URL then)."""

    src: str
    dst: str
    src_place: str = ""  # provider[/region]
    dst_place: str = ""
    size_bytes: int = 0
    cost_micro_usd: int = 0


class StageView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """Where one task of a pipeline runs. `offer.basis` is `assumed` when nothing says how long it runs: one
    hour then."""

    name: str
    offer: OfferView
    num_nodes: int = 1
    cost_micro_usd: int = 0  # of the whole stage, without traffic
    input_micro_usd: int = 0  # traffic of what it reads from storage
    egress_micro_usd: int = 0  # traffic of what it hands on or writes to storage


class PipelineReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """The best places of all stages together."""

    stages: tuple[StageView, ...]
    moves: tuple[MoveView, ...] = ()
    cost_micro_usd: int = 0  # with traffic
    egress_micro_usd: int = 0  # all traffic
    makespan_s: int = 0
    alone_micro_usd: int = 0  # with every stage at its own cheapest place, with traffic
    method: str = ""  # tree | bound | highs | cutset
    reasons: tuple[str, ...] = ()  # why a stage is where it is
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


class LaunchRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Make or reuse cluster `cluster` and run `task` on it. Without `run` only the cluster is made."""

    task: Task
    cluster: str | None = None  # None: the server gives a name
    user: str = ""
    autostop: Autostop | None = None
    down: bool = False  # the cluster goes when its jobs are done
    setup: bool = True
    project: str = ""  # "": that of the client's header, else `default`
    key: str = ""  # idempotency: the same key gives the same answer


class ExecRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Queue jobs on an existing cluster: one commit for all of them."""

    cluster: str
    tasks: tuple[Task, ...]
    user: str = ""
    project: str = ""  # "": the cluster's
    key: str = ""


class JobsLaunchRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Queue managed jobs: each owns its nodes and recovers."""

    tasks: tuple[Task, ...]
    user: str = ""
    project: str = ""
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
    project: str = ""
    queue: str = ""  # path of the leaf that it counts in
    position: int = 0  # while it waits: 1 is the next
    starts_at_ms: int | None = None  # while it waits: when it probably starts
    evictions: int = 0  # times that it made room for others
    preemptible: bool = False


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
    user: str = ""
    project: str = ""
    on_demand_micro_usd: int | None = None  # what it would have cost on demand; None: not known
    elsewhere_micro_usd: int | None = None  # what it would have cost on the cloud that was asked about


class CostGroup(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """Costs of one user, project, task, place or day (UTC). Savings count only what is known."""

    key: str
    held_s: int
    cost_micro_usd: int
    saved_on_demand_micro_usd: int | None = None
    saved_elsewhere_micro_usd: int | None = None


class CostReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    costs: tuple[CostView, ...]
    total_micro_usd: int
    groups: tuple[CostGroup, ...] = ()
    saved_on_demand_micro_usd: int | None = None
    saved_elsewhere_micro_usd: int | None = None


class ModelView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One accelerator; prices are the lowest per device."""

    accelerator: str
    device_memory_bytes: int
    vendor: str = ""
    architecture: str = ""
    interconnect: str = ""
    counts_milli: tuple[int, ...] = ()  # per machine
    providers: tuple[str, ...] = ()
    on_demand: PriceView | None = None
    spot: PriceView | None = None


class GpuList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    offers: tuple[Offer, ...] = ()  # of the infrastructure in use
    models: tuple[ModelView, ...] = ()  # when no model was named
    gpus: tuple[GpuView, ...] = ()
    notes: tuple[str, ...] = ()


class RegionList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    regions: tuple[RegionView, ...]


class CatalogAge(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """How much is known of a provider's prices, and how old it is."""

    provider: str
    offers: int
    source: str  # shipped | refreshed | private
    newest: str = ""  # YYYY-MM-DD
    oldest: str = ""
    days: int | None = None  # None: no figure has a date
    undated: int = 0
    stale: bool = False
    launchable: bool = False
    refreshable: bool = False
    needs: tuple[str, ...] = ()  # environment variables that the server lacks to refresh it


class CatalogReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    built: str  # date of the newest shipped figure
    folder: str  # of the user
    providers: tuple[CatalogAge, ...]
    warnings: tuple[str, ...] = ()  # what was left out of the user's folder, and why


class RefreshRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Ask a provider's own price service. `force` takes also strangely few prices; `cancel` calls off the one
    under way."""

    provider: str
    force: bool = False
    cancel: bool = False


class RefreshReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """How a refresh is. Counts of prices are there when it is done."""

    provider: str
    before: int = 0
    after: int = 0
    skipped: int = 0  # entries that could not be used
    state: str = "done"  # running | done | failed | cancelled
    progress: str = ""  # while it runs: how far it is
    step: int = 0  # grows with every change


class BudgetRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """The budget of a project for every month (UTC). `monthly_micro_usd` 0: it has none any more."""

    project: str
    monthly_micro_usd: int
    alert_pct: int = 80  # an event when so much is spent
    hard_stop: bool = False  # nothing more is launched when it is spent


class BudgetView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    project: str
    monthly_micro_usd: int
    alert_pct: int
    hard_stop: bool
    month: str  # YYYY-MM
    spent_micro_usd: int


class BudgetList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    budgets: tuple[BudgetView, ...]


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

    A stream is `application/x-argosy-log`: frames until the one with `end`. `cursor` resumes after this
    frame.
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
