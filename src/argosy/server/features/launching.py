"""Launches: requests to rows.

Nothing here touches the world. A request is checked, planned, and committed as desired state and intent; then
the controllers are woken, and they act.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec

from argosy.api.launching import ExecRequest, JobRef, JobsLaunchRequest, JobsReply, LaunchReply, LaunchRequest
from argosy.model.access import Caller
from argosy.model.kinds.cluster import CLUSTER, ClusterSpec, ClusterStatus, cluster_spec
from argosy.model.kinds.job import JOB, JobSpec, JobStatus
from argosy.model.notify import sealed, sealed_id
from argosy.model.offer import Confirmed, Plan, waits_for
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.resources import Autostop, Recovery
from argosy.model.rows import Row, Workload
from argosy.model.task import Task
from argosy.model.units import many
from argosy.planning.deadline import NOT_WEIGHED
from argosy.server.exchange import Exchange
from argosy.server.guarding import key_of, made_by, project_of, require_new, require_over
from argosy.server.intake import check_fixed, closed_ports, render_warnings
from argosy.server.kept_plans import Made, subject_of
from argosy.server.refusals import missing, not_covered
from argosy.server.services import Services
from argosy.server.tenancy import Seated
from argosy.server.writing import MANAGED, Batch, choice_of
from argosy.store.snapshot import Snapshot


class LaunchingFeature:
    """Every method raises ArgosyError and is safe to repeat with the same `key`."""

    def __init__(self, services: Services) -> None:
        self._accounts, self._tenants, self._intake = services.accounts, services.tenants, services.intake
        self._planner, self._store, self._controllers = services.planner, services.store, services.controllers
        self._clock, self._ids, self._writer = services.clock, services.ids, services.writer
        self._admission = services.admission

    async def launch(self, exchange: Exchange) -> bytes:
        """The project's own cluster of that name is reused; one of the same name elsewhere is another."""
        from argosy.spec.names import check_name

        request, caller = await exchange.decode(LaunchRequest), exchange.caller
        project, _, name = (request.cluster or "").rpartition("/")
        project = project_of(caller, project or request.project)
        owner = made_by(caller, request.user)
        task = await self._intake.task(request.task, caller, with_files=True, project=project, owner=owner)
        check_fixed(task)
        if request.cluster is not None:
            request = msgspec.structs.replace(request, cluster=check_name("cluster", name))
        request = msgspec.structs.replace(
            request, project=project, user=made_by(caller, request.user), key=key_of(caller, request.key)
        )
        return await self._writer.once(request.key, lambda: self._launch(request, task, caller))

    async def _launch(self, request: LaunchRequest, task: Task, caller: Caller) -> bytes:
        require_new(caller, request.project)
        existing = (
            await self._writer.live_cluster(f"{request.project}/{request.cluster}", caller)
            if request.cluster is not None
            else None
        )
        if existing is not None:
            require_over(caller, existing)
            return await self._launch_on(existing, request, task)
        rows = await self._store.snapshot()
        seated = self._tenants.seat(rows, (task,), project=request.project, user=request.user)
        made, confirmed = await self._planner.for_launch(
            task, managed=False, named=request.plan, limit_micro_usd=request.max_hourly_micro_usd
        )
        await self._accounts.check(made.plan, request.project)
        return await self._launch_new(request, task, made, confirmed, seated)

    async def _launch_new(
        self, request: LaunchRequest, task: Task, made: Made, confirmed: Confirmed | None, seated: Seated
    ) -> bytes:
        """Controllers order its machines; owned ones are given by their pool, in its order."""
        now_ms = self._clock.now_ms()
        name = request.cluster or await self._fresh_name()
        autostop = request.autostop or task.resources[0].autostop or Autostop()
        plan, why = made.plan, made.why
        waits = waits_for(plan)
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
                confirmed=confirmed,
                config=task.config,
            ),
            status=ClusterStatus(active_ms=now_ms),
            user=request.user,
            project=request.project,
            queue=seated.queues[0],
            detail=waits,
            created_ms=now_ms,
        )
        self._admission.check_room(cluster, task)
        batch = self._jobs(_first_seated(seated), request, cluster, request.setup)
        warnings = render_warnings(task) + _no_recovery(task) + seated.warnings
        warnings += (f"the cluster {waits}",) if waits else ()
        warnings += (why,) if why == NOT_WEIGHED else ()
        warnings += closed_ports(name, plan, self._planner.abilities)
        place = f" on {plan.choices[0].offer.provider}" if plan.choices else ""
        reason = f": {why}" if why else ""
        events = [
            self._writer.event(cluster.id, "launched", f"cluster `{name}` was asked for{place}{reason}")
        ]

        def make(jobs: Sequence[Workload]) -> tuple[Sequence[Row], LaunchReply]:
            reply = LaunchReply(
                cluster=name,
                cluster_id=cluster.id,
                created=True,
                job=_ref(jobs[0]) if jobs else None,
                plan=plan,
                warnings=warnings,
                deadline=why,
            )
            return [cluster, *jobs], reply

        return await self._writer.commit(batch, make, request.key, events=events)

    async def _launch_on(self, cluster: Workload, request: LaunchRequest, task: Task) -> bytes:
        rows = await self._store.snapshot()
        task = _fitting(rows, cluster, task)
        seated = self._tenants.seat(
            rows, _first_job(task), project=cluster.project, user=request.user, cluster_id=cluster.id
        )
        changes: dict[str, object] = {}
        if cluster.desired is Desired.STOP or cluster.phase is WorkloadPhase.STOPPED:
            held = choice_of(rows, cluster)
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
        batch = self._jobs(seated, request, cluster, request.setup)
        changed = msgspec.structs.replace(cluster, **changes) if changes else None
        warnings = render_warnings(task) + _no_recovery(task) + seated.warnings

        def make(jobs: Sequence[Workload]) -> tuple[Sequence[Row], LaunchReply]:
            reply = LaunchReply(
                cluster=cluster.name,
                cluster_id=cluster.id,
                created=False,
                job=_ref(jobs[0]) if jobs else None,
                warnings=warnings,
            )
            return [*([changed] if changed is not None else []), *jobs], reply

        wake = () if changed is not None else (cluster.id,)
        return await self._writer.commit(batch, make, request.key, wake=wake)

    async def _fresh_name(self) -> str:
        snapshot = await self._store.snapshot()
        while True:
            name = f"argosy-{self._ids.new('x')[-4:]}"
            if snapshot.cluster_named(name) is None:
                return name

    async def exec(self, exchange: Exchange) -> bytes:
        """Jobs count in the project that the request names, else in the cluster's."""
        from argosy.spec.names import check_name

        request, caller = await exchange.decode(ExecRequest), exchange.caller
        owner = made_by(caller, request.user)
        tasks = await self._intake.tasks(request.tasks, caller, project=request.project, owner=owner)
        check_fixed(*tasks)
        named = request.project and check_name("project", request.project)

        async def act() -> bytes:
            where = msgspec.structs.replace(caller, project=named or caller.project)
            cluster = await self._writer.cluster(request.cluster, where, "clusters.enter")
            snapshot = await self._store.snapshot()
            fitting = tuple(_fitting(snapshot, cluster, task) for task in tasks)
            project = named or cluster.project
            require_new(caller, project)
            user = made_by(caller, request.user)
            seated = self._tenants.seat(snapshot, fitting, project=project, user=user, cluster_id=cluster.id)
            self._admission.check_jobs(seated, project, cluster)
            asked = msgspec.structs.replace(request, project=project, user=user)
            batch = self._jobs(seated, asked, cluster, run_setup=False)
            warnings = render_warnings(*tasks) + _no_recovery(*tasks) + seated.warnings

            def make(jobs: Sequence[Workload]) -> tuple[Sequence[Row], JobsReply]:
                return jobs, JobsReply(jobs=tuple(map(_ref, jobs)), warnings=warnings)

            return await self._writer.commit(batch, make, key, wake=[cluster.id])

        key = key_of(caller, request.key)
        return await self._writer.once(key, act)

    async def jobs_launch(self, exchange: Exchange) -> bytes:
        request, caller = await exchange.decode(JobsLaunchRequest), exchange.caller
        owner = made_by(caller, request.user)
        tasks = await self._intake.tasks(request.tasks, caller, project=request.project, owner=owner)
        project = project_of(caller, request.project)
        require_new(caller, project)
        asked = msgspec.structs.replace(request, project=project, user=made_by(caller, request.user))
        key = key_of(caller, request.key)

        async def act() -> bytes:
            rows = await self._store.snapshot()
            seated = self._tenants.seat(rows, tasks, project=project, user=asked.user)
            plans = await self._admission.planned(
                tasks, project, named=request.plan, limit_micro_usd=request.max_hourly_micro_usd
            )
            self._admission.check_jobs(seated, project, None)
            known = tuple(  # what the plan weighed is what the controllers decide with
                msgspec.structs.replace(task, estimated_s=plans[subject_of(asked_for)][0].duration_s)
                for asked_for, task in zip(tasks, seated.tasks, strict=True)
            )
            confirmed = tuple(plans[subject_of(asked_for)][1] for asked_for in tasks)
            batch = self._jobs(seated._replace(tasks=known), asked, None, run_setup=True, confirmed=confirmed)
            one = next(iter(plans.values()))[0] if len(plans) == 1 else None
            unweighed = {made.why for made, _ in plans.values()} & {NOT_WEIGHED}
            warnings = render_warnings(*tasks) + seated.warnings + tuple(unweighed)

            def make(jobs: Sequence[Workload]) -> tuple[Sequence[Row], JobsReply]:
                reply = JobsReply(
                    jobs=tuple(map(_ref, jobs)),
                    warnings=warnings,
                    plan=one.plan if one is not None else None,
                    deadline=one.why if one is not None else "",
                )
                return jobs, reply

            return await self._writer.commit(batch, make, key)

        return await self._writer.once(key, act)

    def _jobs(
        self,
        seated: Seated,
        request: LaunchRequest | ExecRequest | JobsLaunchRequest,
        cluster: Workload | None,
        run_setup: bool,
        confirmed: Sequence[Confirmed | None] = (),
    ) -> Batch:
        """Rows for tasks with their queues, and the values of their secrets, which the rows do not have."""
        now_ms, host_id = self._clock.now_ms(), cluster.id if cluster is not None else None
        drafts: list[Workload] = []
        secrets: dict[str, Mapping[str, str]] = {}
        keeps = confirmed or [None] * len(seated.tasks)
        for task, queue, keep in zip(seated.tasks, seated.queues, keeps, strict=True):
            job_id = self._ids.new(JOB.prefix)
            wishes, addresses = sealed("0", task.notify)
            if addresses:
                secrets[sealed_id(job_id)] = addresses
            if task.notify:
                task = msgspec.structs.replace(task, notify=wishes)
            if task.secrets:
                secrets[job_id] = task.secrets
                task = msgspec.structs.replace(task, secrets=dict.fromkeys(task.secrets, ""))
            drafts.append(
                Workload(
                    id=job_id,
                    kind=JOB.name,
                    name=task.name or "",
                    spec=JobSpec(task=task, managed=cluster is None, run_setup=run_setup, confirmed=keep),
                    status=JobStatus(),
                    user=request.user,
                    project=request.project,
                    queue=queue,
                    host_id=host_id,
                    created_ms=now_ms,
                )
            )

        def rows(first: int) -> list[Workload]:
            return [
                msgspec.structs.replace(draft, number=number, name=draft.name or f"job-{number}")
                for number, draft in enumerate(drafts, first)
            ]

        return Batch(host_id or MANAGED, len(drafts), rows, secrets, seated.expect)


def _no_recovery(*tasks: Task) -> tuple[str, ...]:
    """What a task that runs on a cluster is told when it asks to be recovered."""
    if any(wish.recovery not in (None, Recovery()) for task in tasks for wish in task.resources):
        return ("`job_recovery` is ignored here: it acts on managed jobs only (`argosy jobs launch`)",)
    return ()


def _fitting(snapshot: Snapshot, cluster: Workload, task: Task) -> Task:
    """`task` with a candidate first that the cluster's nodes cover. Raises `conflict` that says what it
    has."""
    total = cluster_spec(cluster).num_nodes
    if task.num_nodes > total:
        raise not_covered(cluster, many(task.num_nodes, "node"), f"has {total}")
    has = choice_of(snapshot, cluster)
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
    raise not_covered(cluster, task.resources[0].render(), f"does not have it: {why}")


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
    return Seated(tasks, seated.queues[: len(tasks)], expect=seated.expect)


def _ref(job: Workload) -> JobRef:
    return JobRef(id=job.id, number=job.number, name=job.name)
