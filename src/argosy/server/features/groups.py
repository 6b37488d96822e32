"""Groups of managed jobs: launched as one row, shown with all their tasks."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from argosy.api.endpoint import Done
from argosy.api.groups import GroupReply, GroupRequest, RetryRequest
from argosy.api.jobs import JobView
from argosy.api.launching import JobRef, JobsReply
from argosy.controllers.group.decide import waits_for
from argosy.controllers.group.standing import Standing, Standings, standings_of
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.group import MEMBERS_MAX, Layout, When, find_circle
from argosy.model.kinds import kind_of
from argosy.model.kinds.group import GROUP, GroupSpec, GroupStatus, group_spec, group_state
from argosy.model.kinds.job import job_state
from argosy.model.kinds.workers import workers_spec
from argosy.model.notify import Notify, sealed, sealed_id
from argosy.model.offer import Confirmed
from argosy.model.phases import Desired, Outcome
from argosy.model.rows import Attempt, Row, Workload
from argosy.model.task import Task
from argosy.model.units import many
from argosy.planning.deadline import NOT_WEIGHED
from argosy.server.exchange import Exchange
from argosy.server.group_views import index_of, view_group, view_tasks
from argosy.server.guarding import key_of, made_by, project_of, require_new, require_over, sees
from argosy.server.intake import render_warnings
from argosy.server.job_pools import find_pool
from argosy.server.kept_plans import Made, subject_of
from argosy.server.services import Services
from argosy.server.views import view_job
from argosy.server.writing import MANAGED, Batch
from argosy.store.snapshot import Snapshot

_WAIT_MAX_S: Final = 30
_IN_WORDS: Final = {
    Standing.WAITING: "waiting for its turn",
    Standing.LIVE: "not over",
    Standing.SKIPPED: "skipped",
}
_WHAT_TO_DO: Final = {
    Standing.WAITING: "it starts by itself",
    Standing.LIVE: "`argosy jobs cancel` ends it",
    Standing.SKIPPED: "retry the task that it waits for",
}


class GroupFeature:
    """Every method raises ArgosyError; a launch is safe to repeat with the same `key`."""

    def __init__(self, services: Services) -> None:
        self._services, self._store, self._writer = services, services.store, services.writer

    async def launch_group(self, exchange: Exchange) -> bytes:
        from argosy.spec.names import check_name

        request, caller = await exchange.decode(GroupRequest), exchange.caller
        _check_layout(request.layout, len(request.tasks))
        if request.name:
            check_name("task", request.name)
        owner = made_by(caller, request.user)
        tasks = await self._services.intake.tasks(request.tasks, caller, project=request.project, owner=owner)
        self._services.intake.check_notify(request.notify, "notify")
        secrets = _secrets_of(tasks)
        project = project_of(caller, request.project)
        require_new(caller, project)
        asked = msgspec.structs.replace(
            request, project=project, user=made_by(caller, request.user), key=key_of(caller, request.key)
        )

        async def act() -> bytes:
            return await self._launch(asked, tasks, secrets, caller)

        return await self._writer.once(asked.key, act)

    async def _launch(
        self, request: GroupRequest, tasks: tuple[Task, ...], secrets: dict[str, str], caller: Caller
    ) -> bytes:
        services = self._services
        rows = await self._store.snapshot()
        seated = services.tenants.seat(rows, tasks, project=request.project, user=request.user)
        pool = _pool(rows, request, caller)
        plans: dict[object, tuple[Made, Confirmed | None]] = {}
        if pool is not None:
            tasks = tuple(_on_worker(task, pool) for task in tasks)
            seated = seated._replace(tasks=tasks)
        else:
            plans = await services.admission.planned(
                tasks, request.project, named=request.plan, limit_micro_usd=request.max_hourly_micro_usd
            )
            services.admission.check_jobs(seated, request.project, None)
        whole, addresses = sealed("whole", request.notify)
        parts = [sealed(str(at), task.notify) for at, task in enumerate(tasks)]
        addresses |= {name: each for _, some in parts for name, each in some.items()}
        programs = _programs(tasks, seated.tasks, [wishes for wishes, _ in parts], plans)
        awaits, expect = await self._awaited(request, caller)
        draft = Workload(
            id=services.ids.new(GROUP.prefix),
            kind=GROUP.name,
            name=request.name or tasks[0].name or "",
            spec=GroupSpec(
                tasks=programs,
                layout=request.layout,
                queues=seated.queues,
                confirmed=tuple(plans[subject_of(task)][1] for task in tasks) if plans else (),
                pool_id=pool.id if pool is not None else None,
                notify=whole,
                awaits=awaits,
                when=request.when,
            ),
            status=GroupStatus(),
            user=request.user,
            project=request.project,
            queue=seated.queues[0],
            created_ms=services.clock.now_ms(),
        )
        one = next(iter(plans.values()))[0] if len(plans) == 1 else None
        unweighed = {made.why for made, _ in plans.values()} & {NOT_WEIGHED}
        warnings = render_warnings(*tasks) + seated.warnings + tuple(unweighed)

        def rows_from(first: int) -> list[Workload]:
            return [msgspec.structs.replace(draft, number=first, name=draft.name or f"job-{first}")]

        def make(groups: Sequence[Workload]) -> tuple[Sequence[Row], JobsReply]:
            reply = JobsReply(
                jobs=tuple(JobRef(id=row.id, number=row.number, name=row.name) for row in groups),
                warnings=warnings,
                plan=one.plan if one is not None else None,
                deadline=one.why if one is not None else "",
            )
            return groups, reply

        kept = {id: some for id, some in ((draft.id, secrets), (sealed_id(draft.id), addresses)) if some}
        batch = Batch(MANAGED, 1, rows_from, kept, {**expect, **seated.expect})
        return await self._writer.commit(batch, make, request.key)

    async def _awaited(self, request: GroupRequest, caller: Caller) -> tuple[tuple[str, ...], dict[str, int]]:
        """Ids of the jobs to wait for, and their revisions: what has ended by now is judged at once. Raises
        `not-found`, `conflict` for those that did not end as they were to."""
        awaits: list[str] = []
        expect: dict[str, int] = {}
        for name in request.after:
            row = await self._named(name, caller)
            if row.is_live:
                awaits.append(row.id)
                expect[row.id] = row.rev
            elif not _is_as_wanted(row, request.when):
                outcome = row.outcome.value if row.outcome is not None else "ended"
                raise ArgosyError(
                    "conflict",
                    f"job {row.number} {outcome} already, and this is to run when it {request.when.value}",
                    hint="`--when always` runs it whatever became of the jobs before",
                )
        return tuple(dict.fromkeys(awaits)), expect

    async def _named(self, name: str, caller: Caller) -> Workload:
        """A managed job or group by number or id. Raises `not-found`."""
        found: object = (
            await self._store.find_job(None, int(name))
            if name.isascii() and name.isdigit()
            else await self._store.load(name)
        )
        is_managed = isinstance(found, Workload) and kind_of(found).numbered and found.host_id is None
        if isinstance(found, Workload) and is_managed and sees(caller, found):
            return found
        raise ArgosyError(
            "not-found", f"there is no managed job `{name}`", hint="`argosy jobs queue` lists them"
        )

    async def group(self, exchange: Exchange) -> GroupReply:
        """Raises `not-found`, `wrong-state` for a single job."""
        caller = exchange.caller
        row = await self._named(exchange.path["group"], caller)
        if not kind_of(row).gathers:
            raise ArgosyError(
                "wrong-state",
                f"job {row.number} is one job, no group",
                hint=f"`argosy jobs logs {row.number}`",
            )
        rows, version = await self._newer(row, exchange.text("seen"), exchange.number("wait_s") or 0)
        row = rows.workloads.get(row.id) or await self._named(row.id, caller)
        jobs = await self._store.load_children(row.id)
        standings = standings_of(
            group_spec(row).layout,
            jobs,
            closed=not row.is_live,
            again=group_spec(row).pool_id is not None,
            retried=group_state(row).retried,
        )
        view = view_group(row, standings, waits=waits_for(rows, row))
        if exchange.flag("brief"):
            return GroupReply(group=view, version=version)
        tasks = view_tasks(row, standings, await self._views(rows, standings))
        return GroupReply(group=view, tasks=tasks, version=version)

    async def retry(self, exchange: Exchange) -> Done:
        """Raises `not-found`, `wrong-state`."""
        request = await exchange.decode(RetryRequest)

        async def act() -> Done:
            group, index = await self._ended_task(request.task, exchange.caller)
            retried = tuple(sorted({*group_state(group).retried, index}))
            told = self._writer.event(group.id, "retry", f"task {index} runs once more")
            await self._store.commit([group.with_status(retried=retried)], events=[told])
            self._services.controllers.wake(group.id)
            return Done(names=(f"{group.number}/{index}",))

        return await self._writer.retried(act)

    async def _ended_task(self, name: str, caller: Caller) -> tuple[Workload, int]:
        """A live group and the position of a task of it that has ended."""
        number, _, which = name.partition("/")
        found = await self._named(number, caller)
        require_over(caller, found)
        group = (await self._store.snapshot()).workloads.get(found.id)
        if not kind_of(found).gathers or not which:
            raise ArgosyError(
                "wrong-state", f"`{name}` is no task of a group", hint=f"name one, such as `{number}/0`"
            )
        index = index_of(found, which)
        if group is None or group.desired is Desired.END or group_state(group).ending_ms:
            raise ArgosyError(
                "wrong-state",
                f"job {number} {'is being ended' if group is not None else 'has ended'}",
                hint="launch it again: `argosy jobs launch`",
            )
        state = group_state(group)
        jobs = await self._store.load_children(group.id)
        again = group_spec(group).pool_id is not None
        standing = standings_of(group_spec(group).layout, jobs, again=again, retried=state.retried).found[
            index
        ]
        if standing in (Standing.WAITING, Standing.LIVE, Standing.SKIPPED):
            raise ArgosyError(
                "wrong-state", f"task {name} is {_IN_WORDS[standing]}", hint=_WHAT_TO_DO[standing]
            )
        return group, index

    async def _newer(self, group: Workload, seen: str, wait_s: int) -> tuple[Snapshot, str]:
        """Rows in which the group is another than `seen`, or those of `wait_s` later; and their version."""
        news = asyncio.Event()
        commits = self._services.streams.commits
        commits.join(news)
        try:
            async with asyncio.timeout(min(max(wait_s, 0), _WAIT_MAX_S)):
                while True:
                    news.clear()
                    rows = await self._store.snapshot()
                    version = _version(rows, group)
                    if version != seen or self._services.streams.stopping.is_set():
                        return rows, version
                    await news.wait()
        except TimeoutError:
            rows = await self._store.snapshot()
            return rows, _version(rows, group)
        finally:
            commits.leave(news)

    async def _views(self, rows: Snapshot, standings: Standings) -> dict[int, JobView]:
        newest = standings.jobs
        ended = {job.id: job_state(job).attempt_id for job in newest.values() if not job.is_live}
        attempts = await self._store.load_by_id(Attempt, [each for each in ended.values() if each])
        live = [job for job in newest.values() if job.is_live]
        pending = await self._services.tenants.pending(rows, live)
        return {
            index: view_job(
                job,
                cluster=None,
                attempt=rows.attempt_of(job.id) if job.is_live else attempts.get(ended[job.id] or ""),
                pending=pending.get(job.id),
            )
            for index, job in newest.items()
        }


def _version(rows: Snapshot, group: Workload) -> str:
    row = rows.workloads.get(group.id)
    if row is None:
        return "ended"
    live = rows.children_of(group.id)
    return f"{row.rev}.{len(rows.ends_for(group.id))}.{len(live)}.{sum(job.rev for job in live)}"


def _programs(
    asked: Sequence[Task],
    tasks: Sequence[Task],
    wishes: Sequence[tuple[Notify, ...]],
    plans: Mapping[object, tuple[Made, Confirmed | None]],
) -> tuple[Task, ...]:
    """The tasks as rows have them: with what their plans weighed, without secrets and addresses."""
    return tuple(
        msgspec.structs.replace(
            task,
            notify=told,
            estimated_s=plans[subject_of(one)][0].duration_s if plans else task.estimated_s,
            secrets=dict.fromkeys(task.secrets, ""),
        )
        for one, task, told in zip(asked, tasks, wishes, strict=True)
    )


def _pool(rows: Snapshot, request: GroupRequest, caller: Caller) -> Workload | None:
    """The pool whose workers run the jobs; None when none is named. Raises `not-found`."""
    if not request.pool:
        return None
    pool = find_pool(rows, request.pool, request.project, caller)
    require_over(caller, pool)
    return pool


def _on_worker(task: Task, pool: Workload) -> Task:
    """The task on a worker of the pool: it has the whole of it. Raises `conflict` when that is too small."""
    worker = workers_spec(pool).task
    if task.num_nodes > worker.num_nodes:
        raise ArgosyError(
            "conflict",
            f"the task needs {many(task.num_nodes, 'node')}; a worker of `{pool.name}` "
            f"has {worker.num_nodes}",
            hint="ask for fewer nodes, or launch it without `--pool`",
        )
    recovery = task.resources[0].recovery
    shared = tuple(msgspec.structs.replace(wish, recovery=recovery) for wish in worker.resources)
    return msgspec.structs.replace(task, resources=shared)


def _is_as_wanted(row: Workload, when: When) -> bool:
    if when is When.SUCCEEDED:
        return row.outcome is Outcome.SUCCEEDED
    return when is When.ALWAYS or row.outcome not in (Outcome.SUCCEEDED, Outcome.CANCELLED)


def _check_layout(layout: Layout, programs: int) -> None:
    """What a client of ours never sends. Raises `spec-invalid`, `too-large`."""
    wrong = ""
    if layout.size > MEMBERS_MAX:
        raise ArgosyError("too-large", f"a group has at most {MEMBERS_MAX:,} tasks, this has {layout.size:,}")
    if layout.size < 1:
        wrong = "a group has at least one task"
    elif layout.members and len(layout.members) != layout.size:
        wrong = f"the group has {layout.size} tasks and describes {len(layout.members)}"
    elif layout.parallel < 0 or any(delay < 0 for delay in layout.delays_s):
        wrong = "a number is below 0"
    elif not all(0 <= each < layout.size for each in layout.primary):
        wrong = "`primary` names a task that is not there"
    else:
        for at, member in enumerate(layout.members):
            if not 0 <= member.task < programs:
                wrong = f"task {at} runs program {member.task}, and there are {programs}"
            elif any(not 0 <= each < layout.size or each == at for each in member.after):
                wrong = f"task {at} waits for one that is not there"
    if wrong:
        raise ArgosyError("spec-invalid", wrong, where="layout")
    circle = find_circle(tuple(member.after for member in layout.members))
    if circle:
        way = " -> ".join(layout.members[each].name or str(each) for each in (*circle, circle[0]))
        raise ArgosyError("spec-invalid", f"tasks wait for each other: {way}", where="layout")


def _secrets_of(tasks: Sequence[Task]) -> dict[str, str]:
    """Values of all tasks together: they are kept once. Raises `spec-invalid` for two of one name."""
    found: dict[str, str] = {}
    for task in tasks:
        for name, value in task.secrets.items():
            if found.setdefault(name, value) != value:
                raise ArgosyError(
                    "spec-invalid",
                    f"two tasks give the secret `{name}` different values",
                    hint="give the two secrets different names",
                )
    return found
