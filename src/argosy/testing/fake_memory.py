"""What the fake server has in memory: clusters, jobs and their logs, files, budgets, queues."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from argosy.api.clusters import ClusterView
from argosy.api.costs import BudgetView, CostGroup, CostReply, CostView
from argosy.api.endpoint import Done
from argosy.api.events import EventView
from argosy.api.files import TreeReply
from argosy.api.jobs import CancelRequest, JobList, JobView
from argosy.api.launching import JobRef, LaunchReply, LaunchRequest
from argosy.api.planning import PlanReply
from argosy.api.plans import no_offer
from argosy.api.pool import ExplainReply
from argosy.model.errors import ArgosyError
from argosy.model.offer import Capacity, Choice, Offer, Plan, Rejection, Shape, waits_for
from argosy.model.resources import Autostop, Infra
from argosy.model.task import Task
from argosy.model.tenancy import Tenancy
from argosy.model.tree import Tree, TreeChange, changed
from argosy.model.units import GIB
from argosy.testing import shared_answers
from argosy.testing.shared_answers import STARTED_MS


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


class FakeMemory:
    """Rows that can be scripted, and what follows from them."""

    def __init__(self) -> None:
        self.clusters: dict[str, ClusterView] = {}
        self.jobs: dict[str, JobView] = {}
        self.tasks: dict[str, Task] = {}
        self.logs: dict[str, FakeLog] = {}
        self.next_log: FakeLog | None = None
        self.events: list[EventView] = []
        self.chunks: dict[str, bytes] = {}
        self.trees: dict[str, Tree] = {}
        self.budgets: dict[str, BudgetView] = {}
        self.tenancy = Tenancy()
        self.plan_of: Callable[[Task], PlanReply] = default_plan
        self.lock = threading.RLock()

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
        with self.lock:
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

    def planned(self, task: Task) -> Plan:
        plan = self.plan_of(task).plan
        if not plan.choices and not waits_for(plan):
            raise no_offer(task, plan)
        return plan

    def _launch(self, request: LaunchRequest) -> LaunchReply:
        plan = self.planned(request.task)
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
            job=ref_of(job) if job else None,
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

    def _change_tree(self, body: bytes) -> TreeReply:
        change = msgspec.json.decode(body, type=TreeChange)
        if change.since not in self.trees:
            raise ArgosyError("not-found", "the tree that has changed is not on the server")
        return self._put_tree(msgspec.json.encode(changed(self.trees[change.since], change)))


OFFER: Final = Offer(
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


def default_plan(task: Task) -> PlanReply:
    """Everything fits on this machine, but nothing on `aws`."""
    rejected = (Rejection(provider="aws", code="credentials", text="no credentials"),)
    if any(one.infra == Infra(provider="aws") for one in task.resources):
        return PlanReply(plan=Plan(num_nodes=task.num_nodes, rejected=rejected))
    wish = task.resources[0]
    choice = Choice(
        offer=OFFER,
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


def ref_of(job: JobView) -> JobRef:
    return JobRef(id=job.id, number=job.number, name=job.name)
