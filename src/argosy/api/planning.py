"""Plans: where tasks would run, at what price, and why not elsewhere. They change nothing."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.api.endpoint import Reply, Request, endpoint
from argosy.model.offer import Plan
from argosy.model.priced import CompareView, PriceView, Refused
from argosy.model.task import Task


class PlanRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """`prices`: also what clouds would take, those too that are not in use on this server."""

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
    user: str = ""  # over the socket: who would launch it, whose dot folders come along


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
    folders: tuple[str, ...] = ()  # what nodes get for each folder: a link, or a copy and its size
    id: str = ""  # by which `launch` names this plan; "": nothing of it can be launched
    revision: int = 0  # of the offers that it was made from
    max_hourly_micro_usd: int | None = (
        None  # the most that launching it costs, all nodes, also after refusals
    )


class PipelineRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Several tasks. `edges`: pairs of positions, the second starts after the first; None: each after the one
    before."""

    tasks: tuple[Task, ...]
    edges: tuple[tuple[int, int], ...] | None = None
    objective: str = "cost"  # cost | time
    user: str = ""  # over the socket: who would launch it, whose dot folders come along


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
    folders: tuple[str, ...] = ()  # what nodes of each stage get for its folders, as in a plan of one task


class PlanningCalls:
    @endpoint("POST", "/plan", PlanRequest, permission="offers.read")
    def plan(
        self,
        task: Task,
        *,
        prices: bool = False,
        limit: int = 20,
        distinct: bool = False,
        objective: str = "",
        managed: bool = True,
        compare: bool = False,
        html: bool = False,
        user: str = "",
    ) -> PlanReply:
        """Where a task would run, at what price, and why not elsewhere.

        `id` of the answer names the plan to `launch`, which then orders what it says or nothing.
        `prices`: also what all known clouds would take; `limit`, `objective` (cost, time, carbon; "": that of
        the task), `compare` and `html` belong to it. `managed`: as a managed job, which may meet a deadline
        with spot machines; else as a cluster.
        """

    @endpoint("POST", "/plan/pipeline", PipelineRequest, permission="offers.read")
    def plan_pipeline(
        self,
        tasks: Sequence[Task],
        *,
        edges: Sequence[tuple[int, int]] | None = None,
        objective: str = "cost",
        user: str = "",
    ) -> PipelineReply:
        """Where all tasks of a pipeline would run together, with what moving data between them costs.

        `edges`: pairs of positions in `tasks`; None: each after the one before. `objective`: cost or time.
        """
