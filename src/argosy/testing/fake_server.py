"""A server that speaks the API and runs nothing: what clients are tested against. Standard library only.

It keeps clusters, jobs, chunks and trees in memory. `echo TEXT` prints TEXT, `exit N` ends with status N;
anything else prints `ran: …`. Logs can be scripted, connections cut, endpoints made to fail or to wait.

    with FakeServer(Path("/tmp/x/server.sock")) as server:
        client = Client(Location(socket=server.socket))

`python -m argosy.testing.fake_server run --state-dir DIR` serves like the real one (for tests of starting
it).
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self, TypeVar
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from argosy import __version__
from argosy.api.clusters import AutostopRequest, ClusterView, StatusReply
from argosy.api.costs import BudgetList, BudgetRequest, BudgetView, CostGroup, CostReply, CostView
from argosy.api.endpoint import API_VERSION, PREFIX, AnyEndpoint, Done, Request
from argosy.api.endpoints import ENDPOINTS
from argosy.api.events import EventList, EventView
from argosy.api.files import ChunksReply, ChunksRequest, TreeReply
from argosy.api.jobs import CancelRequest, JobList, JobView, LogFrame
from argosy.api.launching import ExecRequest, JobRef, JobsLaunchRequest, JobsReply, LaunchReply, LaunchRequest
from argosy.api.location import socket_path
from argosy.api.planning import PipelineRequest, PlanReply, PlanRequest
from argosy.api.plans import no_offer
from argosy.api.pool import ExplainReply, PoolList, PoolView
from argosy.api.prices import CatalogReply, CheckReply, DiagnosticView, OfferList, RefreshRequest
from argosy.api.quota import QueueRequest, TenancyRequest
from argosy.api.server import Health, PruneReply, PruneRequest, ServerStatus
from argosy.model.errors import ArgosyError
from argosy.model.offer import Capacity, Choice, Offer, Plan, Rejection, Shape, waits_for
from argosy.model.resources import Autostop, Infra
from argosy.model.task import Task
from argosy.model.tenancy import Tenancy
from argosy.model.tree import Tree
from argosy.testing import priced_answers, shared_answers
from argosy.testing.fake_http import Listener, Peer, Terminal

T = TypeVar("T")
STARTED_MS: Final = 1_700_000_000_000
GIB: Final = 1 << 30


class Seen(NamedTuple):
    """A request that arrived."""

    endpoint: str
    target: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes


class Line(NamedTuple):
    """One frame of a scripted log."""

    data: bytes
    rank: int = 0
    note: str = ""


class FakeLog:
    """A job's log. `release` lets a follower see its end; before, the job counts as running."""

    def __init__(
        self,
        lines: list[Line] | None = None,
        *,
        status: str = "succeeded",
        exit_code: int | None = 0,
        detail: str = "",
        held: bool = False,
    ) -> None:
        self.lines = lines or []
        self.status = status
        self.exit_code = exit_code
        self.detail = detail
        self.released = threading.Event()
        if not held:
            self.released.set()

    def release(self) -> None:
        self.released.set()


class FakeServer:
    """Serves on a unix socket, or on a TCP port of the loopback when no socket is given.

    Fields to script it: `failures[endpoint]` are raised one after another; `waits[endpoint]` holds requests
    back until the event is set; `cut_logs_after` closes each log connection after so many frames; `next_log`
    is the log of the next job; `raw_failures[endpoint]` are (HTTP status, body) replies. An endpoint that
    nothing is known of is answered with the smallest value of its reply.
    """

    def __init__(
        self,
        socket: Path | None = None,
        *,
        token: str = "",
        api: int = API_VERSION,
        endpoints: Sequence[AnyEndpoint] = ENDPOINTS,
    ) -> None:
        self.endpoints = endpoints
        self.socket = socket
        self.port = 0
        self.token = token
        self.api = api
        self.version = __version__
        self.clusters: dict[str, ClusterView] = {}
        self.jobs: dict[str, JobView] = {}
        self.tasks: dict[str, Task] = {}
        self.logs: dict[str, FakeLog] = {}
        self.next_log: FakeLog | None = None
        self.events: list[EventView] = []
        self.chunks: dict[str, bytes] = {}
        self.trees: dict[str, Tree] = {}
        self.requests: list[Seen] = []
        self.failures: dict[str, list[ArgosyError]] = {}
        self.raw_failures: dict[str, list[tuple[int, bytes]]] = {}
        self.waits: dict[str, threading.Event] = {}
        self.cut_logs_after: int | None = None
        self.cut_inside_frame = False
        self.body_limit_bytes = 64 << 20
        self.budgets: dict[str, BudgetView] = {}
        self.tenancy = Tenancy()
        self.pools: tuple[PoolView, ...] = (shared_answers.POOL,)
        self.notes: tuple[str, ...] = ()  # of the catalog
        self.priced: Callable[[PlanReply, PlanRequest], PlanReply] = priced_answers.with_prices
        self.plan_of: Callable[[Task], PlanReply] = default_plan
        self.stopped = threading.Event()
        self._keys: dict[str, bytes] = {}
        self._lock = threading.RLock()
        self._listener: Listener | None = None
        self.opened: set[Peer] = set()

    # Life ----------------------------------------------------------------------------------------------------  # noqa: E501

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Listen. May be called again after `stop`: everything is still known, as after a restart."""
        self.stopped.clear()
        if self.socket is not None:
            self.socket.parent.mkdir(parents=True, exist_ok=True)
            self.socket.unlink(missing_ok=True)
        self._listener = Listener(self)
        self._listener.start()

    def stop(self) -> None:
        self.stopped.set()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
        if self.socket is not None:
            self.socket.unlink(missing_ok=True)
        self.cut()

    def cut(self) -> None:
        """Drop every open connection."""
        with self._lock:
            peers, self.opened = self.opened, set()
        for peer in peers:
            peer.close()

    def seen(self, endpoint: str) -> list[Seen]:
        return [request for request in self.requests if request.endpoint == endpoint]

    # Answers -------------------------------------------------------------------------------------------------  # noqa: E501

    def answer(
        self, endpoint: AnyEndpoint, path: dict[str, str], query: dict[str, str], body: bytes
    ) -> object:
        """The reply of one endpoint. Raises ArgosyError."""
        name = endpoint.name
        if endpoint.request is not None and issubclass(endpoint.request, Request):
            try:
                request = msgspec.json.decode(body, type=endpoint.request)
            except msgspec.ValidationError as error:
                raise ArgosyError("spec-invalid", str(error)) from None
            return self._answer_request(request, path) or example_of(endpoint.answer)
        if "cluster" in path:
            return self._answer_cluster(name, path["cluster"])
        match name:
            case "health":
                return Health(
                    version=self.version,
                    api=self.api,
                    pid=os.getpid(),
                    started_ms=STARTED_MS,
                    state_dir="/fake",
                )
            case "status":
                live = tuple(job for job in self.jobs.values() if job.managed and not job.outcome)
                return StatusReply(clusters=tuple(self.clusters.values()), jobs=live)
            case "queue":
                return self._queue(query)
            case "job":
                return self._job(path["job"])
            case "events":
                chosen = [event for event in self.events if event.seq > int(query.get("after", "0"))]
                if "subject" in query:
                    chosen = [event for event in chosen if event.subject == query["subject"]]
                limit = int(query.get("limit", "1000"))
                return EventList(events=tuple(chosen[:limit] if "after" in query else chosen[-limit:]))
            case "costs":
                return self._costs(query)
            case "check":
                return CheckReply(
                    findings=(
                        DiagnosticView(provider="local", ok=True, what="this machine: 2 CPUs, 4 GB"),
                        DiagnosticView(
                            provider="aws", ok=False, what="no credentials", hint="run `aws configure`"
                        ),
                    )
                )
            case "offers":
                return OfferList(offers=(_OFFER,) if query.get("gpu", "A100") == "A100" else ())
            case "gpus":
                return priced_answers.gpus(query, _OFFER)
            case "regions":
                if query.get("provider", "aws") != "aws":
                    raise ArgosyError("no-offer", f"there is no infrastructure `{query['provider']}`")
                return priced_answers.REGIONS
            case "catalog":
                return CatalogReply(
                    built="2026-07-20",
                    folder="/fake/catalog",
                    providers=priced_answers.AGES,
                    warnings=self.notes,
                )
            case "catalog_refreshing":
                return priced_answers.refreshing(query["provider"], int(query["after"]))
            case "tenancy":
                return shared_answers.tenancy(self.tenancy)
            case "explain_queue":
                return shared_answers.explain_queue(query)
            case "pools":
                return PoolList(pools=self.pools)
            case "explain":
                return self._explain(path["workload"])
            case "budgets":
                return BudgetList(budgets=tuple(self.budgets.values()))
            case "put_chunks":
                return self._put_chunks(body)
            case "put_tree":
                return self._put_tree(body)
            case "server_status":
                return ServerStatus(
                    health=Health(version=self.version, api=self.api, pid=os.getpid(), started_ms=STARTED_MS),
                    memory_bytes=64 << 20,
                    listening=(str(self.socket),),
                    clusters=len(self.clusters),
                    jobs_live=0,
                    log_file="/fake/server.log",
                )
            case "server_stop":
                threading.Timer(0.05, self.stop).start()
                return Done()
        return example_of(endpoint.answer)

    def _answer_request(self, request: Request, path: dict[str, str]) -> object:
        key = getattr(request, "key", "")
        if key and key in self._keys:
            return msgspec.Raw(self._keys[key])
        reply: object
        match request:
            case PlanRequest():
                made = self.plan_of(request.task)
                return self.priced(made, request) if request.prices else made
            case PipelineRequest():
                return priced_answers.pipeline(request)
            case RefreshRequest():
                return priced_answers.refreshing(request.provider, 0)
            case TenancyRequest() if request.check:
                return shared_answers.tenancy(self.tenancy)
            case TenancyRequest():
                if request.rev not in (None, self.tenancy.rev):
                    raise ArgosyError("conflict", "somebody changed the queues meanwhile")
                self.tenancy = msgspec.structs.replace(request.tenancy, rev=self.tenancy.rev + 1)
                return shared_answers.tenancy(self.tenancy)
            case QueueRequest():
                self.tenancy = shared_answers.with_queue(self.tenancy, request)
                return shared_answers.tenancy(self.tenancy)
            case PruneRequest():
                gone = {"workloads": 3, "events": 40, "logs": 2, "log_bytes": 5 << 20, "files": 1}
                return PruneReply(**gone, freed_bytes=1 << 20, before_ms=1, dry_run=request.dry_run)
            case BudgetRequest():
                self.budgets.pop(request.project, None)
                if request.monthly_micro_usd:
                    self.budgets[request.project] = BudgetView(
                        project=request.project,
                        monthly_micro_usd=request.monthly_micro_usd,
                        alert_pct=request.alert_pct,
                        hard_stop=request.hard_stop,
                        month="2023-11",
                        spent_micro_usd=12_500_000,
                    )
                return BudgetList(budgets=tuple(self.budgets.values()))
            case LaunchRequest():
                reply = self._launch(request)
            case ExecRequest():
                cluster = self._cluster(request.cluster)
                jobs = tuple(self.add_job(task, cluster.name) for task in request.tasks)
                reply = JobsReply(jobs=tuple(map(_ref, jobs)))
            case JobsLaunchRequest():
                plan = self._planned(request.tasks[0])
                jobs = tuple(self.add_job(task, None) for task in request.tasks)
                reply = JobsReply(jobs=tuple(map(_ref, jobs)), plan=plan)
            case CancelRequest():
                return self._cancel(request)
            case AutostopRequest():
                cluster = self._cluster(path["cluster"])
                self.clusters[cluster.name] = msgspec.structs.replace(cluster, autostop=request.autostop)
                return Done(names=(cluster.name,))
            case ChunksRequest():
                return ChunksReply(
                    missing=tuple(
                        one for one in request.digests if one not in self.chunks and one not in self.trees
                    )
                )
            case _:
                return None
        if key:
            self._keys[key] = msgspec.json.encode(reply)
        return reply

    def _planned(self, task: Task) -> Plan:
        plan = self.plan_of(task).plan
        if not plan.choices and not waits_for(plan):
            raise no_offer(task, plan)
        return plan

    def _launch(self, request: LaunchRequest) -> LaunchReply:
        plan = self._planned(request.task)
        name = request.cluster or f"argosy-{len(self.clusters) + 1}"
        created = name not in self.clusters
        if created:
            self.add_cluster(
                name,
                num_nodes=request.task.num_nodes,
                autostop=request.autostop or Autostop(),
                down_when_done=request.down,
            )
        job = self.add_job(request.task, name) if request.task.run else None
        return LaunchReply(
            cluster=name,
            cluster_id=self.clusters[name].id,
            created=created,
            job=_ref(job) if job else None,
            plan=plan if created else None,
        )

    def _answer_cluster(self, endpoint: str, name: str) -> object:
        cluster = self._cluster(name)
        match endpoint:
            case "cluster":
                return cluster
            case "stop":
                self.clusters[name] = msgspec.structs.replace(cluster, status="stopped")
            case "start":
                self.clusters[name] = msgspec.structs.replace(cluster, status="running")
            case "down":
                del self.clusters[name]
        return Done(names=(name,))

    def add_cluster(self, name: str, **fields: object) -> ClusterView:
        given: dict[str, object] = {
            "id": f"clu-{len(self.clusters) + 1:020d}",
            "status": "running",
            "infra": "local",
            "resources": "default",
            "num_nodes": 1,
            "user": "ada",
            "created_ms": STARTED_MS,
            **fields,
        }
        cluster = self.clusters[name] = msgspec.convert(
            {**given, "name": name, "autostop": msgspec.to_builtins(given.get("autostop", Autostop()))},
            ClusterView,
        )
        return cluster

    def add_job(self, task: Task, cluster: str | None) -> JobView:
        with self._lock:
            number = 1 + sum(1 for job in self.jobs.values() if job.cluster == cluster)
            log, self.next_log = self.next_log or default_log(task), None
            live = not log.released.is_set()
            job = JobView(
                id=f"job-{len(self.jobs) + 1:020d}",
                number=number,
                name=task.name or "",
                cluster=cluster,
                managed=cluster is None,
                status="running" if live else log.status,
                phase="running" if live else "finished",
                outcome=None if live else log.status,
                created_ms=STARTED_MS,
                started_ms=STARTED_MS + 1000,
                ended_ms=0 if live else STARTED_MS + 4000,
                detail="" if live else log.detail,
                num_nodes=task.num_nodes,
                resources=task.resources[0].render(),
                exit_codes=() if live else (log.exit_code,) * task.num_nodes,
            )
            self.jobs[job.id], self.tasks[job.id], self.logs[job.id] = job, task, log
            return job

    def _cluster(self, name: str) -> ClusterView:
        if name not in self.clusters:
            raise ArgosyError("not-found", f"there is no cluster `{name}`")
        return self.clusters[name]

    def _job(self, job_id: str) -> JobView:
        if job_id not in self.jobs:
            raise ArgosyError("not-found", f"there is no job `{job_id}`")
        return self.jobs[job_id]

    def _explain(self, id: str) -> ExplainReply:
        for cluster in self.clusters.values():
            if cluster.id == id:
                return shared_answers.explain(id, f"cluster `{cluster.name}`", cluster.status)
        job = self._job(id)
        where = f" of `{job.cluster}`" if job.cluster else ""
        return shared_answers.explain(id, f"job {job.number}{where}", job.status)

    def _queue(self, query: dict[str, str]) -> JobList:
        cluster = query.get("cluster")
        if cluster is not None:
            self._cluster(cluster)
        jobs = [job for job in self.jobs.values() if job.cluster == cluster][::-1]
        if query.get("live") == "true":
            jobs = [job for job in jobs if job.outcome is None]
        start = int(query.get("after", "0"))
        limit = int(query.get("limit", "1000"))
        rest = start + limit < len(jobs)
        return JobList(jobs=tuple(jobs[start : start + limit]), next=str(start + limit) if rest else None)

    def _cancel(self, request: CancelRequest) -> Done:
        jobs = [job for job in self.jobs.values() if job.cluster == request.cluster]
        chosen = [
            job
            for job in jobs
            if (request.all and job.outcome is None) or {str(job.number), job.id} & set(request.jobs)
        ]
        known = {str(job.number) for job in jobs} | {job.id for job in jobs}
        for wanted in request.jobs:
            if wanted not in known:
                raise ArgosyError("not-found", f"there is no job {wanted}")
        for job in chosen:
            if job.outcome is None:
                self.jobs[job.id] = msgspec.structs.replace(
                    job, status="cancelled", phase="finished", outcome="cancelled"
                )
        return Done(names=tuple(str(job.number) for job in chosen))

    def _costs(self, query: dict[str, str]) -> CostReply:
        costs = tuple(
            CostView(
                name=cluster.name,
                kind="cluster",
                infra=cluster.infra,
                resources=cluster.resources,
                num_nodes=cluster.num_nodes,
                held_s=3600,
                price_micro_usd=1_200_000,
                cost_micro_usd=1_200_000,
                status=cluster.status,
            )
            for cluster in self.clusters.values()
        )
        total = 1_200_000 * len(costs)
        if "by" not in query:
            return CostReply(costs=costs, total_micro_usd=total)
        group = CostGroup(
            key="ada",
            held_s=3600 * len(costs),
            cost_micro_usd=total,
            saved_on_demand_micro_usd=3_000_000,
            saved_elsewhere_micro_usd=-200_000 if "against" in query else None,
        )
        return CostReply(
            costs=costs,
            total_micro_usd=total,
            groups=(group,),
            saved_on_demand_micro_usd=3_000_000,
            saved_elsewhere_micro_usd=group.saved_elsewhere_micro_usd,
        )

    def _put_chunks(self, body: bytes) -> Done:
        at = 0
        while at < len(body):
            end = body.index(b"\n", at)
            digest, size = body[at:end].decode().split(" ")
            data = body[end + 1 : end + 1 + int(size)]
            if hashlib.sha256(data).hexdigest() != digest:
                raise ArgosyError("usage", f"chunk {digest[:12]} does not have the digest that it claims")
            self.chunks[digest] = data
            at = end + 1 + int(size)
        return Done()

    def _put_tree(self, body: bytes) -> TreeReply:
        tree = msgspec.json.decode(body, type=Tree)
        if missing := tree.chunk_digests() - self.chunks.keys():
            raise ArgosyError("conflict", f"{len(missing)} chunks of the tree are missing")
        digest = tree.digest()
        self.trees[digest] = tree
        return TreeReply(digest=digest)

    # One request ---------------------------------------------------------------------------------------------  # noqa: E501

    def handle(self, peer: Peer, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
        """Answer one request. Whether the connection may go on."""
        parts = urlsplit(target)
        found = _route(self.endpoints, method, parts.path, "websocket" in headers.get("upgrade", "").lower())
        query = dict(parse_qsl(parts.query))
        if found is None:
            return peer.reply(404, b'{"detail":"Not Found"}')
        endpoint, path = found
        with self._lock:
            self.requests.append(Seen(endpoint.name, target, query, headers, body))
        if self.token and endpoint.scope != "open" and headers.get("authorization") != f"Bearer {self.token}":
            return peer.problem(ArgosyError("unauthorized", "the token is missing or wrong"))
        wait = self.waits.get(endpoint.name)
        while wait is not None and not wait.wait(0.05):
            if self.stopped.is_set():
                return False
        if self.raw_failures.get(endpoint.name):
            return peer.reply(*self.raw_failures[endpoint.name].pop(0))
        if self.failures.get(endpoint.name):
            return peer.problem(self.failures[endpoint.name].pop(0))
        try:
            if endpoint.name == "logs":
                return self._stream_log(peer, self._job(path["job"]), query)
            if endpoint.name == "shell":
                self._cluster(path["cluster"])
                Terminal(peer, self).serve(headers, query)
                return False
            with self._lock:
                reply = self.answer(endpoint, path, query, body)
        except ArgosyError as error:
            return peer.problem(error)
        return peer.reply(200, msgspec.json.encode(reply))

    def _stream_log(self, peer: Peer, job: JobView, query: dict[str, str]) -> bool:
        log = self.logs[job.id]
        follow = query.get("follow") == "true"
        rank = int(query["rank"]) if "rank" in query else None
        at = int(query["cursor"]) if "cursor" in query else 0
        if "tail" in query and "cursor" not in query:
            at = max(0, len(log.lines) - int(query["tail"]))
        peer.start_chunks()
        sent = 0
        while True:
            while at < len(log.lines):
                line = log.lines[at]
                at += 1
                if rank is not None and line.rank != rank:
                    continue
                frame = LogFrame(rank=line.rank, size=len(line.data), cursor=str(at), note=line.note)
                payload = msgspec.json.encode(frame) + b"\n" + line.data
                if self.cut_logs_after is not None and sent >= self.cut_logs_after:
                    if self.cut_inside_frame:
                        peer.chunk(payload[: len(payload) - len(line.data) // 2 - 1])
                    return False
                peer.chunk(payload)
                sent += 1
            if not follow or log.released.wait(0.02):
                if at < len(log.lines):
                    continue
                break
            if self.stopped.is_set():
                return False
        ended = log.released.is_set()
        end = LogFrame(
            end=True,
            cursor=str(at),
            status=log.status if ended else "running",
            exit_code=log.exit_code if ended else None,
            detail=log.detail if ended else "",
        )
        peer.chunk(msgspec.json.encode(end) + b"\n")
        peer.chunk(b"")
        return True


_OFFER: Final = Offer(
    provider="local",
    shape=Shape(
        instance_type="this machine",
        cpus_milli=8000,
        memory_bytes=32 * GIB,
        accelerator="A100",
        accelerators_milli=2000,
        accelerator_memory_bytes=80 * GIB,
    ),
    capacity=Capacity.OWNED,
    price_micro_usd=0,
    nodes_max=4,
)


def example_of(kind: type[T]) -> T:
    """The smallest value of a type: what the fake answers where nothing else is known."""
    return msgspec.convert(_example(msgspec.inspect.type_info(kind)), kind)


def _example(info: msgspec.inspect.Type) -> object:
    match info:
        case msgspec.inspect.StructType(fields=fields, tag_field=tag_field, tag=tag):
            made = {} if tag_field is None else {tag_field: tag}
            return made | {each.encode_name: _example(each.type) for each in fields if each.required}
        case msgspec.inspect.UnionType(types=types):
            return None if info.includes_none else _example(types[0])
        case msgspec.inspect.EnumType(cls=cls):
            return next(iter(cls)).value
        case msgspec.inspect.StrType():
            return "x"
        case msgspec.inspect.BoolType():
            return False
        case msgspec.inspect.IntType() | msgspec.inspect.FloatType():
            return 0
        case msgspec.inspect.DictType():
            return {}
    return []


def default_plan(task: Task) -> PlanReply:
    """Everything fits on this machine, but nothing on `aws`."""
    rejected = (Rejection(provider="aws", code="credentials", text="no credentials"),)
    if any(one.infra == Infra(provider="aws") for one in task.resources):
        return PlanReply(plan=Plan(num_nodes=task.num_nodes, rejected=rejected))
    wish = task.resources[0]
    choice = Choice(
        offer=_OFFER,
        resources=wish,
        cpus_milli=wish.cpus.amount if wish.cpus else 0,
        memory_bytes=wish.memory.amount if wish.memory else 0,
        accelerator=wish.accelerator.model if wish.accelerator else None,
        accelerators_milli=wish.accelerator.milli if wish.accelerator else 0,
    )
    return PlanReply(plan=Plan(num_nodes=task.num_nodes, choices=(choice,), rejected=rejected))


def default_log(task: Task) -> FakeLog:
    """What `task.run` would print, for programs of `echo` and `exit`."""
    lines: list[Line] = []
    status = 0
    for line in task.run.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "exit":
            status = int(rest)
            break
        text = rest.strip("'\"") if word == "echo" else f"ran: {line.strip()}"
        lines += [Line(f"{text}\n".encode(), rank) for rank in range(task.num_nodes)]
    if status:
        return FakeLog(lines, status="failed", exit_code=status, detail=f"exit status {status}")
    return FakeLog(lines)


def _ref(job: JobView) -> JobRef:
    return JobRef(id=job.id, number=job.number, name=job.name)


def _route(
    endpoints: Sequence[AnyEndpoint], method: str, path: str, upgrade: bool
) -> tuple[AnyEndpoint, dict[str, str]] | None:
    if not path.startswith(PREFIX + "/"):
        return None
    given = path[len(PREFIX) :].split("/")
    for endpoint in endpoints:
        wanted = endpoint.path.split("/")
        if len(wanted) != len(given) or endpoint.method != ("WS" if upgrade else method):
            continue
        names: dict[str, str] = {}
        for pattern, part in zip(wanted, given, strict=True):
            if pattern.startswith("{"):
                names[pattern[1:-1]] = unquote(part)
            elif pattern != part:
                break
        else:
            return endpoint, names
    return None


def main(arguments: list[str]) -> int:
    """Serve `--state-dir` until stopped. FAKE_SERVER_FAILS: print its value and end with 3."""
    home = Path(arguments[arguments.index("--state-dir") + 1])
    if "FAKE_SERVER_FAILS" in os.environ:
        sys.stderr.write(f"starting in {home}\n{os.environ['FAKE_SERVER_FAILS']}\n")
        return 3
    time.sleep(float(os.environ.get("FAKE_SERVER_STARTS_AFTER_S", "0")))
    path = socket_path(home)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        lock = os.open(home / "lock", os.O_CREAT | os.O_EXCL)
    except FileExistsError:
        return 5  # server-running
    os.close(lock)
    server = FakeServer(path)
    server.start()
    (home / "pid").write_text(str(os.getpid()))
    server.stopped.wait(60)
    (home / "lock").unlink()
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
