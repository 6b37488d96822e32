"""A server that speaks the API and runs nothing: what clients are tested against. Standard library only.

It keeps clusters, jobs, chunks and trees in memory. `echo TEXT` prints TEXT, `exit N` ends with status N;
anything else prints `ran: …`. Logs can be scripted, connections cut, endpoints made to fail or to wait.

    with FakeServer(Path("/tmp/x/server.sock")) as server:
        client = Client(Location(socket=server.socket))

`python -m argosy.testing.fake_server run --state-dir DIR` serves like the real one (for tests of starting
it).
"""

from __future__ import annotations

import base64
import hashlib
import os
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from argosy import __version__
from argosy.api import types as t
from argosy.api.endpoint import API_VERSION, PREFIX, AnyEndpoint
from argosy.api.endpoints import ENDPOINTS
from argosy.api.location import socket_path
from argosy.api.plans import no_offer
from argosy.api.sharing import ExplainReply, PoolList, PoolView, QueueRequest, TenancyRequest
from argosy.model.errors import ArgosyError
from argosy.model.offer import Capacity, Choice, Offer, Plan, Rejection, Shape, waits_for
from argosy.model.resources import Autostop, Infra
from argosy.model.task import Task
from argosy.model.tenancy import Tenancy
from argosy.model.tree import Tree
from argosy.testing import priced_answers, shared_answers

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


class _Reply(NamedTuple):
    status: int
    body: bytes


class FakeServer:
    """Serves on a unix socket, or on a TCP port of the loopback when no socket is given.

    Fields to script it: `failures[endpoint]` are raised one after another; `waits[endpoint]` holds requests
    back until the event is set; `cut_logs_after` closes each log connection after so many frames; `next_log`
    is the log of the next job; `raw_failures[endpoint]` are (HTTP status, body) replies.
    """

    def __init__(self, socket: Path | None = None, *, token: str = "", api: int = API_VERSION) -> None:
        self.socket = socket
        self.port = 0
        self.token = token
        self.api = api
        self.version = __version__
        self.clusters: dict[str, t.ClusterView] = {}
        self.jobs: dict[str, t.JobView] = {}
        self.tasks: dict[str, Task] = {}
        self.logs: dict[str, FakeLog] = {}
        self.next_log: FakeLog | None = None
        self.events: list[t.EventView] = []
        self.chunks: dict[str, bytes] = {}
        self.trees: dict[str, Tree] = {}
        self.requests: list[Seen] = []
        self.failures: dict[str, list[ArgosyError]] = {}
        self.raw_failures: dict[str, list[tuple[int, bytes]]] = {}
        self.waits: dict[str, threading.Event] = {}
        self.cut_logs_after: int | None = None
        self.cut_inside_frame = False
        self.body_limit_bytes = 64 << 20
        self.budgets: dict[str, t.BudgetView] = {}
        self.tenancy = Tenancy()
        self.pools: tuple[PoolView, ...] = (shared_answers.POOL,)
        self.notes: tuple[str, ...] = ()  # of the catalog
        self.priced: Callable[[t.PlanReply, t.PlanRequest], t.PlanReply] = priced_answers.with_prices
        self.plan_of: Callable[[Task], t.PlanReply] = default_plan
        self.stopped = threading.Event()
        self._keys: dict[str, bytes] = {}
        self._lock = threading.RLock()
        self._listener: _Listener | None = None
        self._open: set[_Peer] = set()

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
        self._listener = _Listener(self)
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
            peers, self._open = self._open, set()
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
        if endpoint.request is not None and issubclass(endpoint.request, t.Request):
            try:
                request = msgspec.json.decode(body, type=endpoint.request)
            except msgspec.ValidationError as error:
                raise ArgosyError("spec-invalid", str(error)) from None
            return self._answer_request(request, path)
        if "cluster" in path:
            return self._answer_cluster(name, path["cluster"])
        match name:
            case "health":
                return t.Health(
                    version=self.version,
                    api=self.api,
                    pid=os.getpid(),
                    started_ms=STARTED_MS,
                    state_dir="/fake",
                )
            case "status":
                live = tuple(job for job in self.jobs.values() if job.managed and not job.outcome)
                return t.StatusReply(clusters=tuple(self.clusters.values()), jobs=live)
            case "queue":
                return self._queue(query)
            case "job":
                return self._job(path["job"])
            case "events":
                chosen = [event for event in self.events if event.seq > int(query.get("after", "0"))]
                if "subject" in query:
                    chosen = [event for event in chosen if event.subject == query["subject"]]
                limit = int(query.get("limit", "1000"))
                return t.EventList(events=tuple(chosen[:limit] if "after" in query else chosen[-limit:]))
            case "costs":
                return self._costs(query)
            case "check":
                return t.CheckReply(
                    findings=(
                        t.DiagnosticView(provider="local", ok=True, what="this machine: 2 CPUs, 4 GB"),
                        t.DiagnosticView(
                            provider="aws", ok=False, what="no credentials", hint="run `aws configure`"
                        ),
                    )
                )
            case "offers":
                return t.OfferList(offers=(_OFFER,) if query.get("gpu", "A100") == "A100" else ())
            case "gpus":
                return priced_answers.gpus(query, _OFFER)
            case "regions":
                if query.get("provider", "aws") != "aws":
                    raise ArgosyError("no-offer", f"there is no infrastructure `{query['provider']}`")
                return priced_answers.REGIONS
            case "catalog":
                return t.CatalogReply(
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
                return t.BudgetList(budgets=tuple(self.budgets.values()))
            case "put_chunks":
                return self._put_chunks(body)
            case "put_tree":
                return self._put_tree(body)
            case "server_status":
                return t.ServerStatus(
                    health=t.Health(
                        version=self.version, api=self.api, pid=os.getpid(), started_ms=STARTED_MS
                    ),
                    memory_bytes=64 << 20,
                    listening=(str(self.socket),),
                    clusters=len(self.clusters),
                    jobs_live=0,
                    log_file="/fake/server.log",
                )
            case "server_stop":
                threading.Timer(0.05, self.stop).start()
                return t.Done()
        raise ArgosyError("internal", f"the fake has no `{name}`")

    def _answer_request(self, request: t.Request, path: dict[str, str]) -> object:
        key = getattr(request, "key", "")
        if key and key in self._keys:
            return msgspec.Raw(self._keys[key])
        reply: object
        match request:
            case t.PlanRequest():
                made = self.plan_of(request.task)
                return self.priced(made, request) if request.prices else made
            case t.PipelineRequest():
                return priced_answers.pipeline(request)
            case t.RefreshRequest():
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
            case t.BudgetRequest():
                self.budgets.pop(request.project, None)
                if request.monthly_micro_usd:
                    self.budgets[request.project] = t.BudgetView(
                        project=request.project,
                        monthly_micro_usd=request.monthly_micro_usd,
                        alert_pct=request.alert_pct,
                        hard_stop=request.hard_stop,
                        month="2023-11",
                        spent_micro_usd=12_500_000,
                    )
                return t.BudgetList(budgets=tuple(self.budgets.values()))
            case t.LaunchRequest():
                reply = self._launch(request)
            case t.ExecRequest():
                cluster = self._cluster(request.cluster)
                jobs = tuple(self.add_job(task, cluster.name) for task in request.tasks)
                reply = t.JobsReply(jobs=tuple(map(_ref, jobs)))
            case t.JobsLaunchRequest():
                jobs = tuple(self.add_job(task, None) for task in request.tasks)
                reply = t.JobsReply(jobs=tuple(map(_ref, jobs)))
            case t.CancelRequest():
                return self._cancel(request)
            case t.AutostopRequest():
                cluster = self._cluster(path["cluster"])
                self.clusters[cluster.name] = msgspec.structs.replace(cluster, autostop=request.autostop)
                return t.Done(names=(cluster.name,))
            case t.ChunksRequest():
                return t.ChunksReply(
                    missing=tuple(
                        one for one in request.digests if one not in self.chunks and one not in self.trees
                    )
                )
            case _:
                raise ArgosyError("internal", "the fake does not know this request")
        if key:
            self._keys[key] = msgspec.json.encode(reply)
        return reply

    def _launch(self, request: t.LaunchRequest) -> t.LaunchReply:
        plan = self.plan_of(request.task).plan
        if not plan.choices and not waits_for(plan):
            raise no_offer(request.task, plan)
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
        return t.LaunchReply(
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
        return t.Done(names=(name,))

    def add_cluster(self, name: str, **fields: object) -> t.ClusterView:
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
            t.ClusterView,
        )
        return cluster

    def add_job(self, task: Task, cluster: str | None) -> t.JobView:
        with self._lock:
            number = 1 + sum(1 for job in self.jobs.values() if job.cluster == cluster)
            log, self.next_log = self.next_log or default_log(task), None
            live = not log.released.is_set()
            job = t.JobView(
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

    def _cluster(self, name: str) -> t.ClusterView:
        if name not in self.clusters:
            raise ArgosyError("not-found", f"there is no cluster `{name}`")
        return self.clusters[name]

    def _job(self, job_id: str) -> t.JobView:
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

    def _queue(self, query: dict[str, str]) -> t.JobList:
        cluster = query.get("cluster")
        if cluster is not None:
            self._cluster(cluster)
        jobs = [job for job in self.jobs.values() if job.cluster == cluster][::-1]
        if query.get("live") == "true":
            jobs = [job for job in jobs if job.outcome is None]
        start = int(query.get("after", "0"))
        limit = int(query.get("limit", "1000"))
        rest = start + limit < len(jobs)
        return t.JobList(jobs=tuple(jobs[start : start + limit]), next=str(start + limit) if rest else None)

    def _cancel(self, request: t.CancelRequest) -> t.Done:
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
        return t.Done(names=tuple(str(job.number) for job in chosen))

    def _costs(self, query: dict[str, str]) -> t.CostReply:
        costs = tuple(
            t.CostView(
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
            return t.CostReply(costs=costs, total_micro_usd=total)
        group = t.CostGroup(
            key="ada",
            held_s=3600 * len(costs),
            cost_micro_usd=total,
            saved_on_demand_micro_usd=3_000_000,
            saved_elsewhere_micro_usd=-200_000 if "against" in query else None,
        )
        return t.CostReply(
            costs=costs,
            total_micro_usd=total,
            groups=(group,),
            saved_on_demand_micro_usd=3_000_000,
            saved_elsewhere_micro_usd=group.saved_elsewhere_micro_usd,
        )

    def _put_chunks(self, body: bytes) -> t.Done:
        at = 0
        while at < len(body):
            end = body.index(b"\n", at)
            digest, size = body[at:end].decode().split(" ")
            data = body[end + 1 : end + 1 + int(size)]
            if hashlib.sha256(data).hexdigest() != digest:
                raise ArgosyError("usage", f"chunk {digest[:12]} does not have the digest that it claims")
            self.chunks[digest] = data
            at = end + 1 + int(size)
        return t.Done()

    def _put_tree(self, body: bytes) -> t.TreeReply:
        tree = msgspec.json.decode(body, type=Tree)
        if missing := tree.chunk_digests() - self.chunks.keys():
            raise ArgosyError("conflict", f"{len(missing)} chunks of the tree are missing")
        digest = tree.digest()
        self.trees[digest] = tree
        return t.TreeReply(digest=digest)

    # One request ---------------------------------------------------------------------------------------------  # noqa: E501

    def handle(self, peer: _Peer, method: str, target: str, headers: dict[str, str], body: bytes) -> bool:
        """Answer one request. Whether the connection may go on."""
        parts = urlsplit(target)
        found = _route(method, parts.path, "websocket" in headers.get("upgrade", "").lower())
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
                _Terminal(peer, self).serve(headers, query)
                return False
            with self._lock:
                reply = self.answer(endpoint, path, query, body)
        except ArgosyError as error:
            return peer.problem(error)
        return peer.reply(200, msgspec.json.encode(reply))

    def _stream_log(self, peer: _Peer, job: t.JobView, query: dict[str, str]) -> bool:
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
                frame = t.LogFrame(rank=line.rank, size=len(line.data), cursor=str(at), note=line.note)
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
        end = t.LogFrame(
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


def default_plan(task: Task) -> t.PlanReply:
    """Everything fits on this machine, but nothing on `aws`."""
    rejected = (Rejection(provider="aws", code="credentials", text="no credentials"),)
    if any(one.infra == Infra(provider="aws") for one in task.resources):
        return t.PlanReply(plan=Plan(num_nodes=task.num_nodes, rejected=rejected))
    wish = task.resources[0]
    choice = Choice(
        offer=_OFFER,
        resources=wish,
        cpus_milli=wish.cpus.amount if wish.cpus else 0,
        memory_bytes=wish.memory.amount if wish.memory else 0,
        accelerator=wish.accelerator.model if wish.accelerator else None,
        accelerators_milli=wish.accelerator.milli if wish.accelerator else 0,
    )
    return t.PlanReply(plan=Plan(num_nodes=task.num_nodes, choices=(choice,), rejected=rejected))


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


def _ref(job: t.JobView) -> t.JobRef:
    return t.JobRef(id=job.id, number=job.number, name=job.name)


def _route(method: str, path: str, upgrade: bool) -> tuple[AnyEndpoint, dict[str, str]] | None:
    if not path.startswith(PREFIX + "/"):
        return None
    given = path[len(PREFIX) :].split("/")
    for endpoint in ENDPOINTS:
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


class _Listener(threading.Thread):
    def __init__(self, server: FakeServer) -> None:
        super().__init__(daemon=True)
        self._server = server
        if server.socket is not None:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self._socket.bind(str(server.socket))
        else:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._socket.bind(("127.0.0.1", server.port))
            server.port = self._socket.getsockname()[1]
        self._socket.listen(64)

    def run(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            _Peer(connection, self._server).start()

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        except OSError:
            pass
        self._socket.close()
        if self is not threading.current_thread():
            self.join(5)


class _Peer(threading.Thread):
    """One connection."""

    def __init__(self, connection: socket.socket, server: FakeServer) -> None:
        super().__init__(daemon=True)
        self._socket = connection
        self._server = server
        self.input = connection.makefile("rb", buffering=256 << 10)

    def run(self) -> None:
        self._server._open.add(self)
        try:
            while self._one():
                pass
        except (OSError, ValueError, struct.error):
            pass  # the other side went
        finally:
            self._server._open.discard(self)
            self.close()

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._socket.close()

    def _one(self) -> bool:
        first = self.input.readline()
        if not first:
            return False
        method, target, _ = first.decode("latin-1").split(" ")
        headers: dict[str, str] = {}
        while line := self.input.readline().strip():
            name, _, value = line.decode("latin-1").partition(":")
            headers[name.lower()] = value.strip()
        size = int(headers.get("content-length", "0"))
        if size > self._server.body_limit_bytes:
            self.problem(ArgosyError("too-large", "the request is larger than the server takes"))
            time.sleep(0.05)
            return False
        return self._server.handle(self, method, target, headers, self.input.read(size))

    def send(self, data: bytes) -> None:
        self._socket.sendall(data)

    def reply(self, status: int, body: bytes) -> bool:
        self.send(
            f"HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode()  # noqa: E501
            + body
        )
        return True

    def problem(self, error: ArgosyError) -> bool:
        return self.reply(error.http_status, msgspec.json.encode(error.problem()))

    def start_chunks(self) -> None:
        self.send(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/x-argosy-log\r\ntransfer-encoding: chunked\r\n\r\n"
        )

    def chunk(self, data: bytes) -> None:
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")


class _Terminal:
    """A WebSocket that echoes; `exit N` followed by Enter ends it with N. Only what our client sends."""

    def __init__(self, peer: _Peer, server: FakeServer) -> None:
        self._peer = peer
        self._server = server

    def serve(self, headers: dict[str, str], query: dict[str, str]) -> None:
        magic = headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(magic.encode()).digest()).decode()
        self._peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n"
            f"sec-websocket-accept: {accept}\r\n\r\n".encode()
        )
        command = query.get("command", "")
        if command:
            self._frame(2, f"ran: {command} {query['rows']}x{query['columns']}\r\n".encode())
            self._end(int(command.rpartition("exit ")[2]) if "exit " in command else 0)
            return
        typed = b""
        while True:
            kind, data = self._read()
            if kind == 8:
                return
            if kind == 9:
                self._frame(10, data)
                continue
            if kind == 1:
                self._frame(2, b"resized to " + data + b"\r\n")
                continue
            typed += data
            self._frame(2, data)
            if b"exit " in typed and typed.rstrip(b"\r\n") != typed:
                self._end(int(typed.rpartition(b"exit ")[2].strip()))
                return

    def _end(self, status: int) -> None:
        self._frame(1, msgspec.json.encode({"exit_code": status}))
        self._frame(8, struct.pack(">H", 1000))
        try:
            while (
                self._read()[0] != 8
            ):  # what is left unread at the close would take our own last words with it
                pass
        except (OSError, struct.error):
            pass

    def _frame(self, kind: int, data: bytes) -> None:
        size = bytes([len(data)]) if len(data) < 126 else b"\x7e" + struct.pack(">H", len(data))
        self._peer.send(bytes([0x80 | kind]) + size + data)

    def _read(self) -> tuple[int, bytes]:
        kind, size = struct.unpack(">BB", self._peer.input.read(2))
        size &= 0x7F
        if size == 126:
            (size,) = struct.unpack(">H", self._peer.input.read(2))
        mask = self._peer.input.read(4)
        data = self._peer.input.read(size)
        return kind & 0x0F, bytes(byte ^ mask[at % 4] for at, byte in enumerate(data))


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
