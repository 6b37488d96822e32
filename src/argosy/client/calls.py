"""What to send for each endpoint and how to read the answer: no I/O here.

A `Call[T]` is one request whose answer is a `T`. `Client` and `AsyncClient` carry them out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

import msgspec

from argosy.api import sharing as s
from argosy.api import types as t
from argosy.api.endpoints import API_VERSION, BODY_LIMIT_BYTES, BY_NAME, PREFIX, Endpoint
from argosy.model.errors import ArgosyError, Problem
from argosy.model.resources import Autostop
from argosy.model.task import Task
from argosy.model.tree import Tree
from argosy.model.units import render_bytes

T = TypeVar("T")
Query = dict[str, str | int | bool | None]

_CODE_OF_STATUS: Final = {
    401: "unauthorized",
    403: "forbidden",
    404: "version-mismatch",  # our own 404s carry a Problem: this server does not know the path
    405: "version-mismatch",
    413: "too-large",
    426: "version-mismatch",
    502: "server-unreachable",
    503: "server-unreachable",
    504: "server-unreachable",
}


class Call(NamedTuple, Generic[T]):
    """One request. `body` is sent piece by piece, so that a pack of chunks is never copied into one."""

    endpoint: Endpoint
    target: str  # path and query
    reply: type[T]
    body: tuple[bytes, ...] = ()
    media_type: str = "application/json"

    def decode(self, status: int, body: bytes) -> T:
        """The answer. Raises the server's error as ArgosyError."""
        if status >= 400:
            raise error_of(status, body)
        try:
            return msgspec.json.decode(body, type=self.reply)
        except msgspec.DecodeError as error:
            raise ArgosyError(
                "version-mismatch",
                f"the server's answer to `{self.endpoint.name}` is not understood ({error})",
            ) from None


def error_of(status: int, body: bytes) -> ArgosyError:
    """The error that a reply with `status` >= 400 tells."""
    try:
        problem = msgspec.json.decode(body, type=Problem)
    except msgspec.DecodeError:
        text = body[:200].decode("utf-8", "replace").strip().partition("\n")[0]
        what = f"the server answered with HTTP status {status}" + (f": {text}" if text else "")
        return ArgosyError(_CODE_OF_STATUS.get(status, "internal"), what)
    return ArgosyError.from_problem(problem)


def _call(
    name: str, reply: type[T], *, query: Query | None = None, body: object = None, **path: str
) -> Call[T]:
    endpoint = BY_NAME[name]
    return Call(endpoint, target_of(endpoint, query, **path), reply, _encode(name, body))


def _encode(name: str, body: object) -> tuple[bytes, ...]:
    if body is None:
        return ()
    data = msgspec.json.encode(body)
    if len(data) > BODY_LIMIT_BYTES:
        limit = render_bytes(BODY_LIMIT_BYTES)
        raise ArgosyError(
            "too-large", f"the request `{name}` is {render_bytes(len(data))}; at most {limit} can be sent"
        )
    return (data,)


def target_of(endpoint: Endpoint, query: Query | None = None, **path: str) -> str:
    """Path and query of a request.

    >>> target_of(BY_NAME["logs"], {"follow": True, "tail": None}, job="job-1")
    '/v1/jobs/job-1/logs?follow=true'
    """
    for name, value in path.items():
        if not value:
            raise ArgosyError("usage", f"the name of the {name} is empty")
    target = PREFIX + endpoint.path.format(**{name: quote(value, safe="") for name, value in path.items()})
    pairs = [
        (name, ("true" if value else "false") if isinstance(value, bool) else str(value))
        for name, value in (query or {}).items()
        if value is not None and value is not False
    ]
    return f"{target}?{urlencode(pairs)}" if pairs else target


def check_version(health: t.Health, mine: str) -> None:
    """Raises "version-mismatch" when this client and that server cannot talk."""
    if health.api != API_VERSION:
        older = "older" if health.api < API_VERSION else "newer"
        raise ArgosyError(
            "version-mismatch",
            f"the server is {older} (Argosy {health.version}, API {health.api}) than this client "
            f"(Argosy {mine}, API {API_VERSION})",
            hint="restart the server with this version: `argosy server stop`, then repeat"
            if health.api < API_VERSION
            else "install the server's version of Argosy here: `pip install --upgrade argosy`",
        )


# One function per endpoint ------------------------------------------------------------------------------------  # noqa: E501


def health() -> Call[t.Health]:
    return _call("health", t.Health)


def plan(
    task: Task,
    *,
    prices: bool = False,
    limit: int = 20,
    distinct: bool = False,
    objective: str = "",
    managed: bool = True,
    compare: bool = False,
    html: bool = False,
) -> Call[t.PlanReply]:
    request = t.PlanRequest(
        task=task,
        prices=prices,
        limit=limit,
        distinct=distinct,
        objective=objective,
        managed=managed,
        compare=compare,
        html=html,
    )
    return _call("plan", t.PlanReply, body=request)


def plan_pipeline(
    tasks: Sequence[Task], *, edges: Sequence[tuple[int, int]] | None = None, objective: str = "cost"
) -> Call[t.PipelineReply]:
    request = t.PipelineRequest(
        tasks=tuple(tasks), edges=None if edges is None else tuple(edges), objective=objective
    )
    return _call("plan_pipeline", t.PipelineReply, body=request)


def launch(request: t.LaunchRequest) -> Call[t.LaunchReply]:
    return _call("launch", t.LaunchReply, body=request)


def exec_(request: t.ExecRequest) -> Call[t.JobsReply]:
    return _call("exec", t.JobsReply, body=request)


def jobs_launch(request: t.JobsLaunchRequest) -> Call[t.JobsReply]:
    return _call("jobs_launch", t.JobsReply, body=request)


def status(*, refresh: bool = False, all: bool = False) -> Call[t.StatusReply]:
    return _call("status", t.StatusReply, query={"refresh": refresh, "all": all})


def cluster(name: str) -> Call[t.ClusterView]:
    return _call("cluster", t.ClusterView, cluster=name)


def stop(name: str) -> Call[t.Done]:
    return _call("stop", t.Done, cluster=name)


def start(name: str) -> Call[t.Done]:
    return _call("start", t.Done, cluster=name)


def down(name: str) -> Call[t.Done]:
    return _call("down", t.Done, cluster=name)


def autostop(name: str, policy: Autostop) -> Call[t.Done]:
    return _call("autostop", t.Done, body=t.AutostopRequest(autostop=policy), cluster=name)


def queue(
    name: str | None = None, *, live: bool = False, limit: int | None = None, after: str | None = None
) -> Call[t.JobList]:
    return _call("queue", t.JobList, query={"cluster": name, "live": live, "limit": limit, "after": after})


def job(job_id: str) -> Call[t.JobView]:
    return _call("job", t.JobView, job=job_id)


def cancel(name: str | None, jobs: Sequence[str] = (), *, all: bool = False) -> Call[t.Done]:
    return _call("cancel", t.Done, body=t.CancelRequest(cluster=name, jobs=tuple(jobs), all=all))


def logs(
    job_id: str,
    *,
    follow: bool = True,
    tail: int | None = None,
    rank: int | None = None,
    cursor: str | None = None,
    attempt: int | None = None,
) -> Call[bytes]:
    query: Query = {"follow": follow, "rank": rank, "cursor": cursor, "attempt": attempt}
    if cursor is None:
        query["tail"] = tail
    return _call("logs", bytes, query=query, job=job_id)


def events(
    subject: str | None = None, *, after: int | None = None, limit: int | None = None
) -> Call[t.EventList]:
    return _call("events", t.EventList, query={"subject": subject, "after": after, "limit": limit})


def costs(days: int | None = None, *, by: str | None = None, against: str | None = None) -> Call[t.CostReply]:
    return _call("costs", t.CostReply, query={"days": days, "by": by, "against": against})


def check() -> Call[t.CheckReply]:
    return _call("check", t.CheckReply)


def offers(gpu: str | None = None) -> Call[t.OfferList]:
    return _call("offers", t.OfferList, query={"gpu": gpu})


def gpus(
    gpu: str | None = None,
    *,
    infra: str | None = None,
    spot: bool = False,
    cheapest: bool = False,
    all: bool = False,
) -> Call[t.GpuList]:
    query: Query = {"gpu": gpu, "infra": infra, "spot": spot, "cheapest": cheapest, "all": all}
    return _call("gpus", t.GpuList, query=query)


def regions(provider: str | None = None, *, area: str | None = None) -> Call[t.RegionList]:
    return _call("regions", t.RegionList, query={"provider": provider, "area": area})


def catalog() -> Call[t.CatalogReply]:
    return _call("catalog", t.CatalogReply)


def catalog_refresh(provider: str, *, force: bool = False, cancel: bool = False) -> Call[t.RefreshReply]:
    request = t.RefreshRequest(provider=provider, force=force, cancel=cancel)
    return _call("catalog_refresh", t.RefreshReply, body=request)


def catalog_refreshing(provider: str, after: int) -> Call[t.RefreshReply]:
    return _call("catalog_refreshing", t.RefreshReply, query={"provider": provider, "after": after})


def called_off(provider: str) -> ArgosyError:
    """The error of who waits for a refresh that somebody else did not want."""
    return ArgosyError(
        "conflict",
        f"the refresh of {provider} was called off; the old prices are kept",
        hint=f"`argosy catalog refresh {provider}` starts it again",
    )


def budgets() -> Call[t.BudgetList]:
    return _call("budgets", t.BudgetList)


def set_budget(request: t.BudgetRequest) -> Call[t.BudgetList]:
    return _call("set_budget", t.BudgetList, body=request)


def tenancy() -> Call[s.TenancyReply]:
    return _call("tenancy", s.TenancyReply)


def set_tenancy(request: s.TenancyRequest) -> Call[s.TenancyReply]:
    return _call("set_tenancy", s.TenancyReply, body=request)


def set_queue(request: s.QueueRequest) -> Call[s.TenancyReply]:
    return _call("set_queue", s.TenancyReply, body=request)


def explain_queue(
    queue: str, *, request: str | None = None, nodes: int | None = None
) -> Call[s.QueueExplanation]:
    query: Query = {"queue": queue, "request": request, "nodes": nodes}
    return _call("explain_queue", s.QueueExplanation, query=query)


def pools() -> Call[s.PoolList]:
    return _call("pools", s.PoolList)


def explain(workload_id: str) -> Call[s.ExplainReply]:
    return _call("explain", s.ExplainReply, workload=workload_id)


def missing_chunks(digests: Sequence[str]) -> Call[t.ChunksReply]:
    return _call("missing_chunks", t.ChunksReply, body=t.ChunksRequest(digests=tuple(digests)))


def put_chunks(chunks: Sequence[tuple[str, bytes]]) -> Call[t.Done]:
    parts: list[bytes] = []
    for digest, data in chunks:
        parts += (f"{digest} {len(data)}\n".encode(), data)
    endpoint = BY_NAME["put_chunks"]
    return Call(endpoint, target_of(endpoint), t.Done, tuple(parts), "application/octet-stream")


def put_tree(tree: Tree) -> Call[t.TreeReply]:
    return _call("put_tree", t.TreeReply, body=tree)


def server_status() -> Call[t.ServerStatus]:
    return _call("server_status", t.ServerStatus)


def server_stop() -> Call[t.Done]:
    return _call("server_stop", t.Done)


def shell_target(name: str, *, node: int, command: str, rows: int, columns: int) -> str:
    """Path and query of the WebSocket of a terminal."""
    query: Query = {"node": node, "command": command or None, "rows": rows, "columns": columns}
    return target_of(BY_NAME["shell"], query, cluster=name)


AnyCall = Call[Any]  # Any: the answer's type differs from call to call
