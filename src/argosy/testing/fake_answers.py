"""What the fake server answers: what its memory says, and else the smallest value of the reply's type."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from argosy.api.clusters import AutostopRequest, StatusReply
from argosy.api.costs import BudgetList, BudgetRequest, BudgetView
from argosy.api.endpoint import AnyEndpoint, Done, Request
from argosy.api.events import EventList
from argosy.api.files import ChunksReply, ChunksRequest
from argosy.api.hosts import (
    CloseHostsRequest,
    DismissRequest,
    EnlistRequest,
    ExamineReply,
    ExamineRequest,
    HostList,
)
from argosy.api.jobs import CancelRequest
from argosy.api.launching import ExecRequest, JobsLaunchRequest, JobsReply, LaunchRequest
from argosy.api.planning import PipelineRequest, PlanReply, PlanRequest
from argosy.api.pool import PoolList, PoolView
from argosy.api.prices import CatalogReply, CheckReply, DiagnosticView, OfferList, RefreshRequest
from argosy.api.quota import QueueRequest, TenancyRequest
from argosy.api.server import PruneReply, PruneRequest
from argosy.api.storage import BucketRequest, SignReply, SignRequest, StoreKeyRequest, TransferRequest
from argosy.model.enlisting import HostOrder, HostReport
from argosy.model.errors import ArgosyError
from argosy.testing import host_answers, priced_answers, session_answers, shared_answers
from argosy.testing.bucket_answers import FakeBuckets
from argosy.testing.checkpoint_answers import FakeCheckpoints
from argosy.testing.fake_memory import OFFER, FakeMemory, ref_of
from argosy.testing.folder_answers import FakeFolders

T = TypeVar("T")


class FakeAnswers(FakeMemory):
    """The replies of endpoints that are one value."""

    def __init__(self) -> None:
        super().__init__()
        self.pools: tuple[PoolView, ...] = (shared_answers.POOL,)
        self.examined: Callable[[HostOrder], HostReport] = host_answers.works
        self.notes: tuple[str, ...] = ()  # of the catalog
        self.of_sessions = dict(session_answers.ANSWERS)
        self.buckets = FakeBuckets()
        self.checkpoints = FakeCheckpoints()
        self.folders = FakeFolders()
        self.priced: Callable[[PlanReply, PlanRequest], PlanReply] = priced_answers.with_prices
        self._keys: dict[str, bytes] = {}

    def answer(
        self, endpoint: AnyEndpoint, path: dict[str, str], query: dict[str, str], body: bytes
    ) -> object:
        """The reply of one endpoint. Raises ArgosyError."""
        if (name := endpoint.name) in self.of_sessions:
            return self.of_sessions[name]
        if endpoint.request is not None and issubclass(endpoint.request, Request):
            try:
                request = msgspec.json.decode(body, type=endpoint.request)
            except msgspec.ValidationError as error:
                raise ArgosyError("spec-invalid", str(error)) from None
            return self._answer_request(request, path) or example_of(endpoint.answer)
        if "cluster" in path:
            return self._answer_cluster(name, path["cluster"])
        match name:
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
            case "tenancy":
                return shared_answers.tenancy(self.tenancy)
            case "explain_queue":
                return shared_answers.explain_queue(query)
            case "pools":
                return PoolList(pools=self.pools)
            case "buckets" | "remove_bucket" | "transfers" | "transfer" | "store_keys":
                return self.buckets.told(name, path)
            case "cancel_transfer" | "remove_store_key":
                return Done()
            case "hosts":
                return HostList(hosts=host_answers.HOSTS)
            case "explain":
                return self._explain(path["workload"])
            case "budgets":
                return BudgetList(budgets=tuple(self.budgets.values()))
            case "put_chunks":
                return self._put_chunks(body)
            case "put_tree":
                return self._put_tree(body)
            case "change_tree":
                return self._change_tree(body)
        return (
            self.checkpoints.answer(name, path)
            or self.folders.answer(name, path, query)
            or self._answer_of_prices(name, query)
            or example_of(endpoint.answer)
        )

    def _answer_of_prices(self, endpoint: str, query: dict[str, str]) -> object:
        match endpoint:
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
                return OfferList(offers=(OFFER,) if query.get("gpu", "A100") == "A100" else ())
            case "gpus":
                return priced_answers.gpus(query, OFFER)
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
        return None

    def _answer_request(self, request: Request, path: dict[str, str]) -> object:
        key = getattr(request, "key", "")
        if key and key in self._keys:
            return msgspec.Raw(self._keys[key])
        reply: object
        match request:
            case ExamineRequest():
                return ExamineReply(report=self.examined(request.host))
            case BucketRequest():
                self.buckets.make(request.name)
                return Done()
            case TransferRequest():
                return self.buckets.transfer(request.source, request.target)
            case SignRequest():
                return SignReply(urls=("",) * len(request.keys))
            case StoreKeyRequest():
                return self.buckets.key(request.name)
            case EnlistRequest():
                return Done(names=tuple(f"{each.pool}/{each.host}" for each in request.hosts))
            case CloseHostsRequest() | DismissRequest():
                return Done(names=tuple(f"lab/{name}" for name in request.hosts))
            case PlanRequest():
                made = self.plan_of(request.task)
                return self.priced(made, request) if request.prices else made
            case PipelineRequest():
                return priced_answers.pipeline(request)
            case RefreshRequest():
                return priced_answers.refreshing(request.provider, 0)
            case LaunchRequest():
                reply = self._launch(request)
            case ExecRequest():
                cluster = self._cluster(request.cluster)
                jobs = tuple(self.add_job(task, cluster.name) for task in request.tasks)
                reply = JobsReply(jobs=tuple(map(ref_of, jobs)))
            case JobsLaunchRequest():
                plan = self.planned(request.tasks[0])
                jobs = tuple(self.add_job(task, None) for task in request.tasks)
                reply = JobsReply(plan=plan, jobs=tuple(map(ref_of, jobs)))
            case CancelRequest():
                return self._cancel(request)
            case AutostopRequest():
                cluster = self._cluster(path["cluster"])
                self.clusters[cluster.name] = msgspec.structs.replace(cluster, autostop=request.autostop)
                return Done(names=(cluster.name,))
            case ChunksRequest():
                return ChunksReply(
                    missing=tuple(one for one in request.digests if one not in self.chunks),
                    trees=tuple(one for one in request.trees if one in self.trees),
                )
            case _:
                return self._answer_setting(request, path)
        if key:
            self._keys[key] = msgspec.json.encode(reply)
        return reply

    def _answer_setting(self, request: Request, path: dict[str, str]) -> object:
        match request:
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
        return self.folders.change(request, path)


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
