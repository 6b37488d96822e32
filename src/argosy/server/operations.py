"""Requests to rows: the one place where what a user asks for becomes what the store holds.

Nothing here touches the world. A request is checked, planned, and committed as desired state and intent; then
the controllers are woken, and they act.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeVar

import msgspec

from argosy.api import types as t
from argosy.api.plans import no_offer
from argosy.controllers.policies import new_claim
from argosy.infra.provider import Providers
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.kinds.cluster import CLUSTER, ClusterSpec, ClusterStatus, cluster_spec
from argosy.model.kinds.job import JOB, JobSpec, JobStatus
from argosy.model.offer import Capacity, Choice, Plan, waits_for
from argosy.model.phases import ClaimPhase, Desired, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.resources import Autostop
from argosy.model.rows import Event, Row, Workload
from argosy.model.task import Task
from argosy.planning.deadline import NOT_WEIGHED
from argosy.server.accounts import Accounts
from argosy.server.exchange import Caller, encode
from argosy.server.intake import Intake, render_warnings
from argosy.server.naming import DEFAULT, cluster_called
from argosy.server.planner import Planner
from argosy.server.ports import Controllers
from argosy.server.refusals import missing, no_cluster, not_covered
from argosy.server.tenancy import Seated, Tenants
from argosy.store.errors import Conflict, KeyUsed
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

T = TypeVar("T")
_TRIES: Final = 24  # somebody else may write between our reading and our writing
_QUOTE_LIMIT_S: Final = 30.0
_TASKS_MAX: Final = 20_000
_PIPELINED_WITH: Final = frozenset(("inputs", "outputs"))  # plans of several tasks use them
_NOBODY: Final = Caller()
MANAGED: Final = "managed"  # scope of the numbers of managed jobs


class Operations:
    """What clients ask for. Every method raises ArgosyError and is safe to repeat with the same `key`."""

    def __init__(
        self,
        *,
        store: Store,
        providers: Providers,
        controllers: Controllers,
        clock: Clock,
        ids: Ids,
        accounts: Accounts,
        tenants: Tenants,
        intake: Intake,
        planner: Planner,
    ) -> None:
        self._accounts, self._tenants, self._intake, self._planner = accounts, tenants, intake, planner
        self._store, self._providers, self._controllers = store, providers, controllers
        self._clock, self._ids = clock, ids
        # Two launches at once must not both plan for the last free device.
        self._planning = asyncio.Lock()
        # Who was in somebody's way once writes alone from then on, and newcomers stand behind.
        self._alone = asyncio.Lock()

    # -- launch -------------------------------------------------------------------------------------

    async def launch(self, request: t.LaunchRequest, caller: Caller = _NOBODY) -> bytes:
        """The project's own cluster of that name is reused; one of the same name elsewhere is another."""
        from argosy.spec.names import check_name

        task = await self._intake.task(request.task, caller, with_files=True)
        project, _, name = (request.cluster or "").rpartition("/")
        project = check_name("project", project or request.project or caller.project or DEFAULT)
        if request.cluster is not None:
            request = msgspec.structs.replace(request, cluster=check_name("cluster", name))
        request = msgspec.structs.replace(request, project=project)
        return await self._once(request.key, lambda: self._launch(request, task))

    async def _launch(self, request: t.LaunchRequest, task: Task) -> bytes:
        existing = (
            await self._live_cluster(f"{request.project}/{request.cluster}")
            if request.cluster is not None
            else None
        )
        if existing is not None:
            return await self._launch_on(existing, request, task)
        rows = await self._store.snapshot()
        seated = self._tenants.seat(rows, (task,), project=request.project, user=request.user)
        wishes, offers, failed = await self._planner.asked(task, managed=False)
        async with self._planning:
            made = await self._planner.planned(wishes, task.num_nodes, task.ordered, offers, failed)
            waits = waits_for(made)
            if not made.choices and not waits:
                raise no_offer(task, await self._planner.explained(task, made, offers))
            made, why = await self._planner.ordered(task, made)
            await self._accounts.check(made, request.project)
            return await self._launch_new(request, task, made, waits, why, seated)

    async def _launch_new(
        self, request: t.LaunchRequest, task: Task, made: Plan, waits: str, why: str, seated: Seated
    ) -> bytes:
        now_ms = self._clock.now_ms()
        name = request.cluster or await self._fresh_name()
        autostop = request.autostop or task.resources[0].autostop or Autostop()
        # Owned machines are given by their pool, in its order: at once, where there is room.
        claimed = bool(made.choices) and made.choices[0].offer.capacity is not Capacity.OWNED
        cluster = Workload(
            id=self._ids.new(CLUSTER.prefix),
            kind=CLUSTER.name,
            name=name,
            spec=ClusterSpec(
                num_nodes=task.num_nodes,
                resources=task.resources,
                ordered=task.ordered,
                scheduling=task.scheduling,
                autostop=autostop,
                down_when_done=request.down,
            ),
            status=ClusterStatus(active_ms=now_ms),
            user=request.user,
            project=request.project,
            queue=seated.queues[0],
            phase=WorkloadPhase.STARTING if claimed else WorkloadPhase.QUEUED,
            detail="" if made.choices else waits,
            created_ms=now_ms,
        )
        self._check_room(cluster, task)
        puts: list[Row] = [cluster]
        if claimed:
            puts.append(new_claim(self._ids.new("clm"), cluster.id, made.choices, task.num_nodes, now_ms))
        jobs, secrets = await self._jobs(_first_seated(seated), request, cluster, request.setup)
        warnings = render_warnings(task) + seated.warnings
        warnings += (f"the cluster {waits}",) if not made.choices else ()
        warnings += (why,) if why == NOT_WEIGHED else ()
        reply = t.LaunchReply(
            cluster=name,
            cluster_id=cluster.id,
            created=True,
            job=_ref(jobs[0]) if jobs else None,
            plan=made,
            warnings=warnings,
        )
        place = f" on {made.choices[0].offer.provider}" if made.choices else ""
        reason = f": {why}" if why else ""
        events = [self._event(cluster.id, "launched", f"cluster `{name}` was asked for{place}{reason}")]
        return await self._commit([*puts, *jobs], reply, request.key, secrets=secrets, events=events)

    async def _launch_on(self, cluster: Workload, request: t.LaunchRequest, task: Task) -> bytes:
        rows = await self._store.snapshot()
        task = _fitting(rows, cluster, task)
        seated = self._tenants.seat(
            rows, _first_job(task), project=cluster.project, user=request.user, cluster_id=cluster.id
        )
        changes: dict[str, object] = {}
        if cluster.desired is Desired.STOP or cluster.phase is WorkloadPhase.STOPPED:
            held = _choice_of(rows, cluster)
            if held is not None:
                await self._accounts.check(Plan(num_nodes=1, choices=(held,)), cluster.project)
            changes |= {"desired": Desired.RUN, "reason": None, "detail": ""}
        spec = cluster_spec(cluster)
        if request.autostop is not None:
            spec = msgspec.structs.replace(spec, autostop=request.autostop)
        if request.down:
            spec = msgspec.structs.replace(spec, down_when_done=True)
        if spec is not cluster.spec:
            changes["spec"] = spec
        jobs, secrets = await self._jobs(seated, request, cluster, request.setup)
        reply = t.LaunchReply(
            cluster=cluster.name,
            cluster_id=cluster.id,
            created=False,
            job=_ref(jobs[0]) if jobs else None,
            warnings=render_warnings(task) + seated.warnings,
        )
        puts: list[Row] = [*jobs]
        if changes:
            puts.insert(0, msgspec.structs.replace(cluster, **changes))
        return await self._commit(puts, reply, request.key, secrets=secrets, wake=[cluster.id])

    async def _fresh_name(self) -> str:
        snapshot = await self._store.snapshot()
        while True:
            name = f"argosy-{self._ids.new('x')[-4:]}"
            if snapshot.cluster_named(name) is None:
                return name

    # -- jobs ---------------------------------------------------------------------------------------

    async def exec(self, request: t.ExecRequest, caller: Caller = _NOBODY) -> bytes:
        """Jobs count in the project that the request names, else in the cluster's."""
        from argosy.spec.names import check_name

        tasks = await self._intake.tasks(request.tasks, caller)
        named = request.project and check_name("project", request.project)

        async def act() -> bytes:
            cluster = await self._cluster(request.cluster, named or caller.project)
            snapshot = await self._store.snapshot()
            fitting = tuple(_fitting(snapshot, cluster, task) for task in tasks)
            project = named or cluster.project
            seated = self._tenants.seat(
                snapshot, fitting, project=project, user=request.user, cluster_id=cluster.id
            )
            self._check_jobs(seated, project, cluster)
            asked = msgspec.structs.replace(request, project=project)
            jobs, secrets = await self._jobs(seated, asked, cluster, run_setup=False)
            reply = t.JobsReply(
                jobs=tuple(map(_ref, jobs)), warnings=render_warnings(*tasks) + seated.warnings
            )
            return await self._commit(jobs, reply, request.key, secrets=secrets, wake=[cluster.id])

        return await self._once(request.key, act)

    async def jobs_launch(self, request: t.JobsLaunchRequest, caller: Caller = _NOBODY) -> bytes:
        from argosy.spec.names import check_name

        tasks = await self._intake.tasks(request.tasks, caller)
        project = check_name("project", request.project or caller.project or DEFAULT)
        asked = msgspec.structs.replace(request, project=project)

        async def act() -> bytes:
            rows = await self._store.snapshot()
            seated = self._tenants.seat(rows, tasks, project=project, user=request.user)
            weighed: set[str] = set()
            durations: dict[object, int | None] = {}
            for task in {_planned_as(task): task for task in tasks}.values():
                wishes, offers, failed = await self._planner.asked(task, managed=True)
                made = await self._planner.planned(wishes, task.num_nodes, task.ordered, offers, failed)
                unsure = failed or waits_for(made)
                if not made.choices and not unsure:
                    raise no_offer(task, await self._planner.explained(task, made, offers))
                made, why = await self._planner.ordered(task, made)
                weighed.add(why)
                durations[_planned_as(task)] = await self._planner.duration(task, made)
                await self._accounts.check(made, project)
            self._check_jobs(seated, project, None)
            known = tuple(  # what the plan weighed is what the controllers decide with
                msgspec.structs.replace(task, estimated_s=durations[_planned_as(asked_for)])
                for asked_for, task in zip(tasks, seated.tasks, strict=True)
            )
            seated = seated._replace(tasks=known)
            jobs, secrets = await self._jobs(seated, asked, None, run_setup=True)
            warnings = render_warnings(*tasks) + seated.warnings + tuple(sorted(weighed & {NOT_WEIGHED}))
            reply = t.JobsReply(jobs=tuple(map(_ref, jobs)), warnings=warnings)
            return await self._commit(jobs, reply, request.key, secrets=secrets)

        return await self._once(request.key, act)

    def _check_jobs(self, seated: Seated, project: str, cluster: Workload | None) -> None:
        """Raises `no-offer` for a task that no state of the machines could ever hold."""
        now_ms = self._clock.now_ms()
        for task, queue in {
            (_planned_as(task), queue): (task, queue)
            for task, queue in zip(seated.tasks, seated.queues, strict=True)
        }.values():
            job = Workload(
                id="new",
                kind=JOB.name,
                name=task.name or "",
                spec=JobSpec(task=task, managed=cluster is None),
                status=JobStatus(),
                project=project,
                queue=queue,
                host_id=cluster.id if cluster is not None else None,
                created_ms=now_ms,
            )
            self._check_room(job, task)

    def _check_room(self, workload: Workload, task: Task) -> None:
        never = self._controllers.picture.never(workload)
        if never:
            name = f"task `{task.name}`" if task.name else "the task"
            raise ArgosyError(
                "no-offer",
                f"{name} can never start: {never.removeprefix('It can never start: ')}",
                hint="ask for less; `argosy pool top` shows the machines, `argosy launch --dryrun` what "
                "else exists",
            )

    async def _jobs(
        self,
        seated: Seated,
        request: t.LaunchRequest | t.ExecRequest | t.JobsLaunchRequest,
        cluster: Workload | None,
        run_setup: bool,
    ) -> tuple[list[Workload], dict[str, Mapping[str, str]]]:
        """Rows for tasks with their queues, and the values of their secrets, which the rows do not have."""
        if not seated.tasks:
            return [], {}
        scope, count = cluster.id if cluster is not None else MANAGED, len(seated.tasks)
        first = await self._store.take_numbers(scope, count)
        now_ms = self._clock.now_ms()
        jobs: list[Workload] = []
        secrets: dict[str, Mapping[str, str]] = {}
        for number, (task, queue) in enumerate(zip(seated.tasks, seated.queues, strict=True), first):
            job_id = self._ids.new(JOB.prefix)
            if task.secrets:
                secrets[job_id] = task.secrets
                task = msgspec.structs.replace(task, secrets=dict.fromkeys(task.secrets, ""))
            jobs.append(
                Workload(
                    id=job_id,
                    kind=JOB.name,
                    name=task.name or f"job-{number}",
                    spec=JobSpec(task=task, managed=cluster is None, run_setup=run_setup),
                    status=JobStatus(),
                    user=request.user,
                    project=request.project,
                    queue=queue,
                    number=number,
                    host_id=cluster.id if cluster is not None else None,
                    created_ms=now_ms,
                )
            )
        return jobs, secrets

    async def cancel(self, request: t.CancelRequest, project: str = "") -> t.Done:
        if not request.jobs and not request.all:
            raise ArgosyError("usage", "no job is named", hint="name jobs, or say `--all`")

        async def act() -> t.Done:
            cluster = await self._cluster(request.cluster, project) if request.cluster is not None else None
            snapshot = await self._store.snapshot()
            mine = snapshot.jobs_of(cluster.id) if cluster is not None else snapshot.managed_jobs()
            chosen = (
                list(mine)
                if request.all
                else [
                    job
                    for name in request.jobs
                    if (job := await self._named_job(name, cluster, mine)) is not None
                ]
            )
            ending = [
                msgspec.structs.replace(job, desired=Desired.END, reason=Reason.CANCELLED_BY_USER)
                for job in {job.id: job for job in chosen}.values()
                if job.desired is not Desired.END
            ]
            await self._store.commit(ending)
            self._controllers.wake(*(job.id for job in ending), *((cluster.id,) if cluster else ()))
            return t.Done(names=tuple(str(job.number) for job in chosen))

        return await self._retried(act)

    async def _named_job(
        self, name: str, cluster: Workload | None, live: Sequence[Workload]
    ) -> Workload | None:
        """A live job by number or id; None when it has finished (there is nothing to cancel). Raises
        `not-found`."""
        for job in live:
            if name in (job.id, str(job.number)):
                return job
        where = f"on cluster `{cluster.name}`" if cluster is not None else "among managed jobs"
        known = await self._find_job(name, cluster.id if cluster is not None else None)
        if known is None:
            raise ArgosyError(
                "not-found",
                f"there is no job `{name}` {where}",
                hint=f"`argosy queue {cluster.name}` lists them"
                if cluster
                else "`argosy jobs queue` lists them",
            )
        return None

    async def _find_job(self, name: str, cluster_id: str | None) -> Workload | None:
        if name.isascii() and name.isdigit():
            return await self._store.find_job(cluster_id, int(name))
        row = await self._store.load(name) if name.startswith(f"{JOB.prefix}-") else None
        return row if isinstance(row, Workload) and row.host_id == cluster_id else None

    # -- clusters -----------------------------------------------------------------------------------

    async def stop(self, name: str, project: str = "") -> t.Done:
        async def act() -> t.Done:
            cluster = await self._cluster(name, project)
            for claim in (await self._store.snapshot()).claims_of(cluster.id):
                provider = claim.choice.offer.provider
                if not self._providers.get(provider).manifest.capabilities.stop:
                    raise ArgosyError(
                        "unsupported",
                        f"nodes of `{provider}` cannot rest",
                        hint=f"`argosy down {name}` ends the cluster",
                    )
            return await self._wish(cluster, desired=Desired.STOP, reason=Reason.STOPPED_BY_USER, detail="")

        return await self._retried(act)

    async def start(self, name: str, project: str = "") -> t.Done:
        async def act() -> t.Done:
            cluster = await self._cluster(name, project)
            held = _choice_of(await self._store.snapshot(), cluster)
            if held is not None and cluster.desired is Desired.STOP:
                await self._accounts.check(Plan(num_nodes=1, choices=(held,)), cluster.project)
            return await self._wish(cluster, desired=Desired.RUN, reason=None, detail="")

        return await self._retried(act)

    async def down(self, name: str, project: str = "") -> t.Done:
        async def act() -> t.Done:
            snapshot = await self._store.snapshot()
            cluster = cluster_called(snapshot, name, project)
            if cluster is None:
                raise no_cluster(name, snapshot)
            return await self._wish(cluster, desired=Desired.END, reason=None, detail="")

        return await self._retried(act)

    async def autostop(self, name: str, policy: Autostop, project: str = "") -> t.Done:
        async def act() -> t.Done:
            cluster = await self._cluster(name, project)
            spec = msgspec.structs.replace(cluster_spec(cluster), autostop=policy)
            return await self._wish(cluster, spec=spec)

        return await self._retried(act)

    async def _wish(self, cluster: Workload, **changes: object) -> t.Done:
        wished = msgspec.structs.replace(cluster, **changes)
        if wished != cluster:
            await self._store.commit([wished])
        self._controllers.wake(cluster.id)
        return t.Done(names=(cluster.name,))

    # -- finding and checking -----------------------------------------------------------------------

    async def _live_cluster(self, name: str, project: str = "") -> Workload | None:
        """Raises `wrong-state` when it is being ended, `conflict` when several clusters are called so."""
        cluster = cluster_called(await self._store.snapshot(), name, project)
        if cluster is not None and cluster.desired is Desired.END:
            raise ArgosyError(
                "wrong-state",
                f"cluster `{name}` is being taken down",
                hint="wait until `argosy status` does not list it, or choose another name",
            )
        return cluster

    async def _cluster(self, name: str, project: str) -> Workload:
        cluster = await self._live_cluster(name, project)
        if cluster is None:
            raise no_cluster(name, await self._store.snapshot())
        return cluster

    # -- writing ------------------------------------------------------------------------------------

    async def _once(self, key: str, act: Callable[[], Awaitable[bytes]]) -> bytes:
        """`act`, or what it answered when the same key came before."""
        if key:
            known = await self._store.load_key(key)
            if known is not None:
                return known
        try:
            return await self._retried(act)
        except KeyUsed as used:
            return used.reply

    async def _retried(self, act: Callable[[], Awaitable[T]]) -> T:
        """A conflict means: somebody else wrote, read again, this time while no other request writes.
        (Controllers and other servers may.)"""
        if not self._alone.locked():
            try:
                return await act()
            except Conflict:
                pass
        async with self._alone:
            for _ in range(_TRIES - 1):
                try:
                    return await act()
                except Conflict:
                    continue
            return await act()

    async def _commit(
        self,
        puts: Sequence[Row],
        reply: t.Reply,
        key: str,
        *,
        secrets: Mapping[str, Mapping[str, str]],
        events: Sequence[Event] = (),
        wake: Sequence[str] = (),
    ) -> bytes:
        """Jobs on an existing cluster expect it to be as it was: it must not end under them."""
        body = encode(reply)
        expect: dict[str, int] = {}
        written = {row.id for row in puts}
        for cluster_id in wake:
            cluster = (await self._store.snapshot()).workloads.get(cluster_id)
            if cluster_id in written:
                continue
            if cluster is None or cluster.desired is Desired.END:
                raise Conflict([cluster_id])
            expect[cluster_id] = cluster.rev
        await self._store.commit(
            puts, expect=expect, events=events, secrets=secrets, key=(key, body) if key else None
        )
        # Jobs of a cluster are placed by the cluster: a thousand of them are one wake-up.
        jobs = () if wake else (row.id for row in puts)
        self._controllers.wake(*wake, *jobs)
        return body

    def _event(self, subject: str, code: str, text: str) -> Event:
        return Event(at_ms=self._clock.now_ms(), subject=subject, code=code, text=text)


def _fitting(snapshot: Snapshot, cluster: Workload, task: Task) -> Task:
    """`task` with a candidate first that the cluster's nodes cover. Raises `conflict` that says what it
    has."""
    total = cluster_spec(cluster).num_nodes
    if task.num_nodes > total:
        raise not_covered(cluster, task, f"it has {total} node{'s' if total > 1 else ''}")
    has = _choice_of(snapshot, cluster)
    if has is None:
        return task  # nothing was ordered yet: the controllers say what never fits
    why = ""
    for candidate in task.resources:
        lacks = missing(candidate, has, total)
        if not lacks:
            if candidate is task.resources[0]:
                return task
            rest = tuple(each for each in task.resources if each is not candidate)
            return msgspec.structs.replace(task, resources=(candidate, *rest))
        why = why or lacks
    raise not_covered(cluster, task, why)


def _first_job(task: Task) -> tuple[Task, ...]:
    """The job that a launch starts, if it has anything to do. CPUs and memory of a launch are the size of the
    nodes, not what the job keeps others from: it takes the default share of them, and all the accelerators it
    asked for."""
    if not (task.run.strip() or task.setup.strip()):
        return ()
    shared = (
        msgspec.structs.replace(wish, cpus=None, memory=None, memory_per_cpu_bytes=0)
        for wish in task.resources
    )
    return (msgspec.structs.replace(task, resources=tuple(shared)),)


def _first_seated(seated: Seated) -> Seated:
    """The job that a launch starts counts in the queue of its cluster."""
    tasks = _first_job(seated.tasks[0])
    return Seated(tasks, seated.queues[: len(tasks)])


def _ref(job: Workload) -> t.JobRef:
    return t.JobRef(id=job.id, number=job.number, name=job.name)


def _planned_as(task: Task) -> tuple[object, ...]:
    """What of a task matters for where it goes: equal ones are planned once."""
    return (
        *(
            task.resources,
            task.num_nodes,
            task.ordered,
            task.objective,
            task.estimated_s,
            task.progress_milli,
        ),
        *(task.deadline_s, task.deadline_at_ms, task.scheduling, task.storage_mounts),
        task.name if task.deadline_s or task.deadline_at_ms or task.objective != Task().objective else None,
    )


def _choice_of(snapshot: Snapshot, cluster: Workload) -> Choice | None:
    for claim in snapshot.claims_of(cluster.id):
        if claim.phase is not ClaimPhase.RELEASING:
            return claim.choice
    return None
