"""The table of endpoints. The server binds a handler to every row (an unbound row fails a test); the client
calls through it; `openapi.json` is generated from it."""

from __future__ import annotations

from typing import Final, NamedTuple

from argosy.api import sharing as s
from argosy.api import types as t

API_VERSION: Final = 1
PREFIX: Final = "/v1"
LOG_MEDIA_TYPE: Final = "application/x-argosy-log"
BODY_LIMIT_BYTES: Final = 64 << 20  # JSON bodies; chunk uploads are streamed, see `put_chunks`
CHUNK_PACK_LIMIT_BYTES: Final = 64 << 20


class Endpoint(NamedTuple):
    """`request` is the JSON body, `reply` the JSON answer; None: none, or the stream that `about`
    describes."""

    name: str
    method: str
    path: str  # below PREFIX; {x} are path parameters
    request: type[t.Request] | None
    reply: type[t.Reply] | None
    about: str
    query: tuple[tuple[str, type, str], ...] = ()  # (name, type, about)
    scope: str = "use"  # open | use | admin


ENDPOINTS: Final[tuple[Endpoint, ...]] = (
    Endpoint(
        "health", "GET", "/health", None, t.Health, "Is the server there, and which version?", scope="open"
    ),
    Endpoint(
        "plan", "POST", "/plan", t.PlanRequest, t.PlanReply, "Where a task would run and why not elsewhere."
    ),
    Endpoint(
        "plan_pipeline",
        "POST",
        "/plan/pipeline",
        t.PipelineRequest,
        t.PipelineReply,
        "Where all tasks of a pipeline would run together, with what moving data between them costs.",
    ),
    Endpoint(
        "launch",
        "POST",
        "/launch",
        t.LaunchRequest,
        t.LaunchReply,
        "Make or reuse a cluster; run a task on it.",
    ),
    Endpoint("exec", "POST", "/exec", t.ExecRequest, t.JobsReply, "Queue jobs on a cluster."),
    Endpoint("jobs_launch", "POST", "/jobs", t.JobsLaunchRequest, t.JobsReply, "Queue managed jobs."),
    Endpoint(
        "status",
        "GET",
        "/status",
        None,
        t.StatusReply,
        "Clusters and live managed jobs.",
        query=(("refresh", bool, "ask the infrastructure first"), ("all", bool, "also finished clusters")),
    ),
    Endpoint("cluster", "GET", "/clusters/{cluster}", None, t.ClusterView, "One cluster."),
    Endpoint("stop", "POST", "/clusters/{cluster}/stop", None, t.Done, "Rest, keeping disks."),
    Endpoint(
        "start",
        "POST",
        "/clusters/{cluster}/start",
        None,
        t.Done,
        "Come back from rest, or replace dead nodes.",
    ),
    Endpoint("down", "DELETE", "/clusters/{cluster}", None, t.Done, "End the cluster and its jobs."),
    Endpoint(
        "autostop", "POST", "/clusters/{cluster}/autostop", t.AutostopRequest, t.Done, "Set the idle policy."
    ),
    Endpoint(
        "queue",
        "GET",
        "/jobs",
        None,
        t.JobList,
        "Jobs of a cluster, or managed jobs when none is named.",
        query=(
            ("cluster", str, "name of the cluster"),
            ("live", bool, "only unfinished ones"),
            ("limit", int, "at most so many, newest first (default 1000)"),
            ("after", str, "cursor: `next` of the last page"),
        ),
    ),
    Endpoint("job", "GET", "/jobs/{job}", None, t.JobView, "One job, by id."),
    Endpoint("cancel", "POST", "/jobs/cancel", t.CancelRequest, t.Done, "Cancel jobs."),
    Endpoint(
        "logs",
        "GET",
        "/jobs/{job}/logs",
        None,
        None,
        "A stream of LogFrame headers and bytes.",
        query=(
            ("follow", bool, "go on until the job ends"),
            ("tail", int, "only the last N lines"),
            ("rank", int, "only this rank"),
            ("cursor", str, "go on after this frame"),
            ("attempt", int, "of an earlier attempt"),
            ("format", str, "`text`: plain text with rank prefixes"),
        ),
    ),
    Endpoint(
        "events",
        "GET",
        "/events",
        None,
        t.EventList,
        "What happened.",
        query=(
            ("subject", str, "only of this id or name"),
            ("after", int, "only later ones"),
            ("limit", int, "at most"),
        ),
    ),
    Endpoint(
        "costs",
        "GET",
        "/costs",
        None,
        t.CostReply,
        "What claims cost.",
        query=(
            ("days", int, "of the last days"),
            ("by", str, "also in groups: user, project, task, infra or day"),
            ("against", str, "the cloud to compare with"),
        ),
    ),
    Endpoint("check", "GET", "/check", None, t.CheckReply, "Which infrastructure works, and what to do."),
    Endpoint(
        "offers",
        "GET",
        "/offers",
        None,
        t.OfferList,
        "What can be had.",
        query=(("gpu", str, "only this model"),),
    ),
    Endpoint(
        "gpus",
        "GET",
        "/gpus",
        None,
        t.GpuList,
        "Accelerators that can be had or are priced. Without a model and without `all`: one entry for each "
        "model.",
        query=(
            ("gpu", str, "only this model: `A100`, or `A100:8`"),
            ("infra", str, "only there: PROVIDER[/REGION[/ZONE]]"),
            ("spot", bool, "only what can be had as spot, by that price"),
            ("cheapest", bool, "one machine for each model, count and provider"),
            ("all", bool, "every machine"),
        ),
    ),
    Endpoint(
        "regions",
        "GET",
        "/regions",
        None,
        t.RegionList,
        "Regions of providers, and what they have.",
        query=(
            ("provider", str, "only of this one"),
            ("area", str, "eu, eea, a country (`kr`) or a continent"),
        ),
    ),
    Endpoint("catalog", "GET", "/catalog", None, t.CatalogReply, "How old the known prices are."),
    Endpoint(
        "catalog_refresh",
        "POST",
        "/catalog/refresh",
        t.RefreshRequest,
        t.RefreshReply,
        "Start to get a provider's present prices from its own service, which takes seconds to minutes; or "
        "call it off.",
        scope="admin",
    ),
    Endpoint(
        "catalog_refreshing",
        "GET",
        "/catalog/refresh",
        None,
        t.RefreshReply,
        "How a refresh is: answered when it has changed, or after a while. What it failed with is the error.",
        query=(("provider", str, "whose prices"), ("after", int, "the last `step` that is known")),
    ),
    Endpoint("budgets", "GET", "/budgets", None, t.BudgetList, "Budgets of projects and what is spent."),
    Endpoint(
        "set_budget",
        "PUT",
        "/budgets",
        t.BudgetRequest,
        t.BudgetList,
        "Set the budget of a project.",
        scope="admin",
    ),
    Endpoint(
        "tenancy",
        "GET",
        "/tenancy",
        None,
        s.TenancyReply,
        "Who shares what: queues with their usage, groups, presets, policy.",
    ),
    Endpoint(
        "set_tenancy",
        "PUT",
        "/tenancy",
        s.TenancyRequest,
        s.TenancyReply,
        "Set all of it anew. What breaks a rule of the tree is refused.",
        scope="admin",
    ),
    Endpoint(
        "set_queue",
        "PUT",
        "/queues",
        s.QueueRequest,
        s.TenancyReply,
        "Change, make or remove one queue.",
        scope="admin",
    ),
    Endpoint(
        "explain_queue",
        "GET",
        "/queues/explain",
        None,
        s.QueueExplanation,
        "A queue in words.",
        query=(
            ("queue", str, "its path"),
            ("request", str, "also what this would meet: `A100:8`, `gpus=8,cpus=16`"),
            ("nodes", int, "of so many nodes"),
        ),
    ),
    Endpoint(
        "pools", "GET", "/pools", None, s.PoolList, "Machines, who holds which part of them, who waits."
    ),
    Endpoint(
        "explain",
        "GET",
        "/workloads/{workload}/explain",
        None,
        s.ExplainReply,
        "Why a job or cluster waits, or is where it is, and its history. By id.",
    ),
    Endpoint(
        "missing_chunks", "POST", "/chunks/missing", t.ChunksRequest, t.ChunksReply, "Which chunks to upload."
    ),
    Endpoint(
        "put_chunks",
        "PUT",
        "/chunks",
        None,
        t.Done,
        "Upload a pack of chunks: per chunk one line `<hex sha256> <size>\\n`, then its bytes.",
    ),
    Endpoint(
        "put_tree", "POST", "/trees", None, t.TreeReply, "Store a tree (body: model.tree.Tree as JSON)."
    ),
    Endpoint("server_status", "GET", "/server", None, t.ServerStatus, "How the server is.", scope="admin"),
    Endpoint(
        "server_stop", "POST", "/server/stop", None, t.Done, "Stop the server; ranks go on.", scope="admin"
    ),
    Endpoint(
        "shell",
        "WS",
        "/clusters/{cluster}/shell",
        None,
        None,
        "WebSocket: binary frames are terminal bytes; text frames are JSON {rows, columns} from the client "
        "and "
        "{exit_code} from the server.",
        query=(
            ("node", int, "rank of the node"),
            ("command", str, "instead of a login shell"),
            ("rows", int, "of the terminal"),
            ("columns", int, "of the terminal"),
        ),
    ),
)

BY_NAME: Final[dict[str, Endpoint]] = {endpoint.name: endpoint for endpoint in ENDPOINTS}
