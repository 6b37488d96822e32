"""The tenancy for the handlers: read and written, with requests assigned to their queue, and views of pools
and reasons."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from argosy.api.events import EventView
from argosy.api.pool import ExplainReply, PoolList
from argosy.api.quota import QueueExplanation, QueueRequest, QueueView, TenancyReply, TenancyRequest
from argosy.identity.deciding import may
from argosy.model.access import Caller, Target
from argosy.model.errors import ArgosyError, suggest
from argosy.model.ids import Clock
from argosy.model.kinds import KINDS, gang_of, kind_of
from argosy.model.kinds.service import SERVICE
from argosy.model.kinds.session import SESSION
from argosy.model.phases import ClaimPhase, Desired
from argosy.model.resources import Resources
from argosy.model.rows import WORKLOADS_BEGUN, Attempt, Event, Node, Workload
from argosy.model.scheduling import PRIORITY_CLASSES
from argosy.model.task import Task
from argosy.model.tenancy import TENANCY_ID, Amounts, Queue, Tenancy
from argosy.model.units import many
from argosy.scheduler.ask import Need
from argosy.scheduler.picture import Pending, PoolPicture, is_of_cluster
from argosy.scheduler.quota import Over, amounts_of, check_tenancy, leaf_of
from argosy.scheduler.requests import DEFAULT_CPUS_MILLI
from argosy.scheduler.tenancy_check import render_named
from argosy.server.group_views import explain_group
from argosy.server.guarding import scopes, sees
from argosy.server.pool_views import (
    is_waiting,
    may_wait,
    places_of,
    title_of,
    veiled,
    view_attempt,
    view_pool,
    what_refused,
    why_it_ended,
    why_it_is_there,
    why_it_waits,
)
from argosy.server.ports import Controllers, Picture
from argosy.server.queue_words import explain_queue, is_below, view_queues
from argosy.server.service_words import service_lines
from argosy.server.session_words import session_lines
from argosy.server.views import job_status
from argosy.store.errors import Conflict
from argosy.store.snapshot import Snapshot
from argosy.store.store import Store

_TRIES: Final = 6
_EVENTS_SHOWN: Final = 100
_FIELDS: Final = ("guaranteed", "deserved", "limit", "lend_limit")


class Seated(NamedTuple):
    """Tasks with the leaf that each counts in, and what the user should know."""

    tasks: tuple[Task, ...]
    queues: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    #: What the commit that makes them expects: two requests at once must not pass a limit together.
    expect: Mapping[str, int] = MappingProxyType({})


class Tenants:
    """Reads the tenancy with the snapshot; writes it checked, with its revision."""

    def __init__(self, store: Store, controllers: Controllers, clock: Clock) -> None:
        self._store, self._controllers, self._clock = store, controllers, clock

    # -- the tree -----------------------------------------------------------------------------------

    async def show(self) -> TenancyReply:
        return self._shown(await self._store.snapshot())

    def _shown(self, rows: Snapshot) -> TenancyReply:
        from argosy.spec.tenancy import render_tenancy

        tenancy = rows.tenancy
        return TenancyReply(tenancy=tenancy, queues=self._queues(rows), text=render_tenancy(tenancy))

    def _queues(self, rows: Snapshot) -> tuple[QueueView, ...]:
        waiting: dict[str, int] = {}
        for row in rows.workloads.values():
            if is_waiting(row) and row.queue:
                waiting[row.queue] = waiting.get(row.queue, 0) + 1
        return view_queues(rows.tenancy, self._controllers.picture.usage, waiting)

    async def set(self, request: TenancyRequest) -> TenancyReply:
        """Raises `spec-invalid` for a tree that breaks a rule, `conflict` when somebody was faster."""
        if request.check:
            check_tenancy(request.tenancy)
            return await self.show()
        for _ in range(_TRIES):
            old = (await self._store.snapshot()).tenancy
            if request.rev is not None and request.rev != old.rev:
                raise ArgosyError(
                    "conflict",
                    f"somebody changed the queues meanwhile (revision {old.rev}, yours is {request.rev})",
                    hint="`argosy quota export` shows them as they are now; apply your change to that",
                )
            new = msgspec.structs.replace(request.tenancy, id=TENANCY_ID, rev=old.rev)
            if await self._wrote(old, new, "the queues were set anew"):
                return await self.show()
        raise _busy()

    async def set_queue(self, request: QueueRequest) -> TenancyReply:
        """Raises `spec-invalid`, `not-found` for the removal of what is not there."""
        from argosy.spec.fields_scheduling import parse_queue_path

        try:
            path = parse_queue_path(request.path)
        except ValueError as error:
            what, _, hint = str(error).partition("; ")
            raise ArgosyError("spec-invalid", what, hint=hint) from None
        for _ in range(_TRIES):
            rows = await self._store.snapshot()
            old = rows.tenancy
            known = {queue.path: queue for queue in old.queues}
            if request.remove:
                self._check_removal(path, known, rows)
                del known[path]
                text = f"queue `{path}` was removed"
            else:
                known[path] = _changed(known.get(path) or Queue(path=path), request)
                text = f"queue `{path}` was changed"
            queues = tuple(known[each] for each in sorted(known))
            if await self._wrote(old, msgspec.structs.replace(old, queues=queues), text):
                return await self.show()
        raise _busy()

    def _check_removal(self, path: str, known: Mapping[str, Queue], rows: Snapshot) -> None:
        if path not in known:
            from argosy.server.queue_words import no_queue

            raise no_queue(path, known)
        below = [each for each in known if each != path and is_below(each, path)]
        if below:
            raise ArgosyError(
                "conflict",
                f"queue `{path}` has {many(len(below), 'queue')} below it: {', '.join(below[:3])}",
                hint="remove those first",
            )

    async def _wrote(self, old: Tenancy, new: Tenancy, text: str) -> bool:
        if new == old:
            return True
        check_tenancy(new)
        event = Event(at_ms=self._clock.now_ms(), subject=TENANCY_ID, code="tenancy-changed", text=text)
        try:
            await self._store.commit([new], events=[event])
        except Conflict:
            return False
        self._controllers.wake(TENANCY_ID)
        if _rules_of_sessions(new) != _rules_of_sessions(old):
            for row in (await self._store.snapshot()).named(SESSION.name):
                self._controllers.wake(row.id)
        return True

    async def explain_queue(self, path: str, request: str, num_nodes: int) -> QueueExplanation:
        """Raises `not-found`, `usage` for a request that cannot be read."""
        rows = await self._store.snapshot()
        path = path.strip().strip("/")
        views = self._queues(rows)
        wanted = amounts_of_request(request, max(1, num_nodes)) if request else None
        lines = explain_queue(
            rows.tenancy, views, path, capacity=capacity_of(self._controllers.picture.pools), request=wanted
        )
        return QueueExplanation(queue=next(view for view in views if view.path == path), lines=lines)

    # -- seats --------------------------------------------------------------------------------------

    def prepared(self, rows: Snapshot, task: Task, caller: Caller) -> Task:
        """The task with its presets put in. Raises `not-found` for an unknown one, `forbidden` for the class
        `system`."""
        if not any(wish.preset or wish.priority_class for wish in task.resources):
            return task
        presets = {preset.name: preset.resources for preset in rows.tenancy.presets}
        for wish in task.resources:
            if wish.preset and wish.preset not in presets:
                raise _no_preset(wish.preset, presets)
            if wish.priority_class == PRIORITY_CLASSES[0] and not may(caller, "queues.write", Target()):
                raise ArgosyError(
                    "forbidden",
                    f"`priority_class: {PRIORITY_CLASSES[0]}` is for administrators",
                    hint=f"the most urgent of yours is `{PRIORITY_CLASSES[1]}`",
                )
        resources = tuple(
            merged(presets[wish.preset], wish) if wish.preset else wish for wish in task.resources
        )
        return msgspec.structs.replace(task, resources=resources)

    def seat(
        self, rows: Snapshot, tasks: Sequence[Task], *, project: str, user: str, cluster_id: str | None = None
    ) -> Seated:
        """The leaf of each task. `cluster_id`: they are jobs of this cluster, whose nodes are shared by
        themselves. Raises `not-found` for an unknown queue, `over-quota` for what a queue does not take."""
        leaves: dict[str, str] = {}
        queues: list[str] = []
        for task in tasks:
            wanted = task.scheduling.queue
            if wanted not in leaves:
                leaves[wanted] = leaf_of(rows.tenancy, project, user, wanted)
            queues.append(leaves[wanted])
        warnings: dict[str, None] = {}
        counted = False
        if rows.tenancy.queues:
            counted = _check_pending(rows, queues)
            amounts = [amounts_of_wish(task.resources, task.num_nodes) for task in tasks]
            for queue in sorted(rows.tenancy.queues, key=lambda each: -len(each.path)):  # the lowest first
                below = [
                    each for each, leaf in zip(amounts, queues, strict=True) if is_below(leaf, queue.path)
                ]
                if below and queue.limit and queue.refuse_over_limit:
                    _refuse_over_limit(queue, below, _accepted(rows, queue, cluster_id))
                    counted = True
                elif below:
                    warnings |= dict.fromkeys(_beyond_limit(queue, below))
        expect = {WORKLOADS_BEGUN: rows.begun} if counted else {}
        return Seated(tuple(tasks), tuple(queues), tuple(warnings), expect)

    # -- pools --------------------------------------------------------------------------------------

    def pools(self, caller: Caller) -> PoolList:
        """What is allocated to whom; of what the caller may not see, only how much."""
        views = [view_pool(each) for each in self._controllers.picture.pools]
        seen = {name: scopes(caller, f"{name}.read") for name in {each.resource for each in KINDS.values()}}
        if not all(each.is_everything for each in seen.values()):
            views = [veiled(view, seen.__getitem__) for view in views]
        return PoolList(pools=tuple(views))

    async def pending(self, rows: Snapshot, workloads: Iterable[Workload]) -> Mapping[str, Pending]:
        """Why those of `workloads` that wait do so, by id. What was submitted a moment ago is given a moment
        to be considered."""
        waiting = [each for each in workloads if may_wait(each)]
        picture = await self._picture_for(rows, waiting)
        now_ms = self._clock.now_ms()
        told = ((each.id, picture.pending(rows, each, now_ms)) for each in waiting)
        return {id: pending for id, pending in told if pending is not None}

    async def _picture_for(self, rows: Snapshot, waiting: Sequence[Workload]) -> Picture:
        picture = self._controllers.picture
        if picture.seq < rows.seq and not all(picture.knows(rows, each) for each in waiting):
            return await self._controllers.pictured(rows.seq)
        return picture

    # -- why ----------------------------------------------------------------------------------------

    async def explain(self, workload_id: str, caller: Caller) -> ExplainReply:
        """Raises `not-found`."""
        rows = await self._store.snapshot()
        workload = await self._store.load(workload_id)
        if not isinstance(workload, Workload) or not sees(caller, workload):
            raise ArgosyError(
                "not-found", f"there is no job or cluster `{workload_id}`", hint="`argosy queue` lists jobs"
            )
        row = await self._store.load(workload.host_id) if workload.host_id else None
        cluster = row if isinstance(row, Workload) else None
        attempts = await self._store.load_attempts(workload.id)
        nodes = await self._nodes(rows, attempts)
        where = [places_of(attempt.placements, nodes) for attempt in attempts]
        now_ms = self._clock.now_ms()
        code, position, starts_at_ms = "", 0, None
        if not workload.is_live:
            lines = why_it_ended(workload, cluster.name if cluster is not None else "")
        elif is_waiting(workload):
            picture = await self._picture_for(rows, [workload])
            waiting = picture.explain(rows, workload, now_ms)
            told = picture.pending(rows, workload, now_ms)
            position = told.position if told is not None else 0
            pool, among = picture.line_of(workload)
            lines = why_it_waits(
                workload,
                waiting,
                otherwise=workload.detail,
                position=position,
                among=among,
                pool=f"`{pool}`",
                now_ms=now_ms,
            )
            if waiting is not None:
                code, starts_at_ms = waiting.code, waiting.starts_at_ms
        elif not kind_of(workload).runs:
            lines = self._parent_lines(rows, workload)
        else:
            last = attempts[-1] if attempts else None
            lines = why_it_is_there(workload, last, where[-1] if where else (), now_ms=now_ms)
        events = await self._store.load_events(subject=workload.id, after=None, limit=_EVENTS_SHOWN)
        return ExplainReply(
            id=workload.id,
            title=title_of(workload, cluster),
            status=job_status(workload) if kind_of(workload).numbered else workload.phase.value,
            lines=(*lines, *what_refused(workload, now_ms)),
            tried=workload.status.tried,
            code=code,
            position=position,
            starts_at_ms=starts_at_ms,
            user=workload.user,
            project=workload.project,
            queue=next((view for view in self._queues(rows) if view.path == workload.queue), None),
            attempts=tuple(
                view_attempt(attempt, there) for attempt, there in zip(attempts, where, strict=True)
            ),
            events=tuple(
                EventView(seq=one.seq, at_ms=one.at_ms, subject=one.subject, code=one.code, text=one.text)
                for one in events
            ),
        )

    def _service_lines(self, rows: Snapshot, service: Workload) -> tuple[str, ...]:
        now_ms = self._clock.now_ms()
        waits: dict[str, str] = {}
        for job in rows.children_of(service.id):
            told = self._controllers.picture.pending(rows, job, now_ms) if is_waiting(job) else None
            if told is not None:
                waits[job.id] = told.text
        return service_lines(service, self._controllers.observed.served(service.id), waits, now_ms)

    def _parent_lines(self, rows: Snapshot, cluster: Workload) -> list[str]:
        if kind_of(cluster) is SERVICE:
            return list(self._service_lines(rows, cluster))
        if kind_of(cluster) is SESSION:
            return session_lines(cluster, rows, self._controllers.observed, self._clock.now_ms())
        if kind_of(cluster).gathers:
            return explain_group(rows, cluster)
        lines = []
        for claim in rows.claims_of(cluster.id):
            offer = claim.choice.offer
            place = "/".join(part for part in (offer.provider, offer.region, offer.zone) if part)
            machines = ", ".join(sorted({each.node_id for each in claim.placements}))
            if claim.phase is ClaimPhase.RELEASING and claim.reason is not None:
                continue  # what refused is told below
            is_there = claim.phase is not ClaimPhase.REQUESTED
            nodes = f"{many(claim.count, 'node')} of {place}"
            lines.append(f"it has {nodes}" if is_there else f"ordered: {nodes}")
            if machines and machines != place:
                lines.append(f"on {machines}")
            if claim.detail:
                lines.append(claim.detail)
        if cluster.detail:
            lines.append(cluster.detail)
        return lines or [f"it is {cluster.phase.value}"]

    async def _nodes(self, rows: Snapshot, attempts: Sequence[Attempt]) -> dict[str, Node | None]:
        found: dict[str, Node | None] = {}
        for node_id in {place.node_id for attempt in attempts for place in attempt.placements}:
            row = rows.nodes.get(node_id) or await self._store.load(node_id)
            found[node_id] = row if isinstance(row, Node) else None
        return found


# -- pure -------------------------------------------------------------------------------------------


def _rules_of_sessions(tenancy: Tenancy) -> list[object]:
    return [tenancy.sessions, *((each.path, each.sessions) for each in tenancy.queues if each.sessions)]


def _busy() -> ArgosyError:
    return ArgosyError("store-busy", "others keep changing the queues")


def _changed(queue: Queue, request: QueueRequest) -> Queue:
    changes: dict[str, object] = {}
    for field in _FIELDS:
        given: dict[str, int | None] = getattr(request, field)
        if given:
            amounts: dict[str, int | None] = {**getattr(queue, field), **given}
            changes[field] = {name: amount for name, amount in amounts.items() if amount is not None}
    if request.weight_milli is not None:
        changes["weight_milli"] = request.weight_milli
    if request.max_pending is not None:
        changes["max_pending"] = request.max_pending if request.max_pending >= 0 else None
    if request.refuse_over_limit is not None:
        changes["refuse_over_limit"] = request.refuse_over_limit
    return msgspec.structs.replace(queue, **changes)


def _no_preset(name: str, presets: Mapping[str, Resources]) -> ArgosyError:
    listed = ", ".join(f"`{each}`" for each in sorted(presets))
    hint = suggest(name, presets, otherwise=f"known are: {listed}" if presets else "there are none yet")
    return ArgosyError("not-found", f"there is no preset `{name}`", hint=hint)


def merged(preset: Resources, own: Resources) -> Resources:
    """The preset, with what the task says itself in its place.

    >>> from argosy.model.resources import Accelerator
    >>> merged(Resources(accelerator=Accelerator(model="A100", milli=250)), Resources(preset="small", priority=5)).priority
    5
    """  # noqa: E501
    default = Resources()
    given = {
        name: getattr(own, name)
        for name in Resources.__struct_fields__
        if name != "preset" and getattr(own, name) != getattr(default, name)
    }
    return msgspec.structs.replace(preset, preset="", **given)


def amounts_of_wish(candidates: Sequence[Resources], num_nodes: int) -> Amounts:
    """What a task or a cluster counts in its queue, by its first candidate."""
    wish = candidates[0]
    cpus = wish.cpus.amount if wish.cpus else DEFAULT_CPUS_MILLI
    memory = wish.memory.amount if wish.memory else wish.memory_per_cpu_bytes * cpus // 1000
    gpu = wish.accelerator
    need = Need(
        cpus_milli=cpus,
        memory_bytes=memory,
        gpu_milli=gpu.milli if gpu is not None else 0,
        models=(gpu.model,) if gpu is not None and gpu.model else (),
    )
    return amounts_of(need, num_nodes)


def _amounts_of(row: Workload) -> Amounts:
    gang = gang_of(row)
    return amounts_of_wish(gang.resources, gang.num_nodes)


def amounts_of_request(text: str, num_nodes: int) -> Amounts:
    """`A100:8` as `accelerators` has it, amounts as quotas have them, or both. Raises ArgosyError `usage`.

    >>> amounts_of_request("A100:8,cpus=16", 2)
    {'cpus': 32000, 'gpus': 16000, 'gpus/A100': 16000, 'jobs': 1}
    """
    from argosy.spec.accelerators import parse_accelerator
    from argosy.spec.tenancy import parse_amounts

    parts = [part.strip() for part in text.split(",")]
    named = ",".join(part for part in parts if "=" in part)
    given = parse_amounts(named, flag="request") if named else {}
    amounts = {
        name: amount * (1 if name == "jobs" else num_nodes) for name, amount in given.items() if amount
    }
    for part in parts:
        if "=" in part:
            continue
        try:
            wish = parse_accelerator(part)
        except ValueError as error:
            what, _, hint = str(error).partition("; ")
            raise ArgosyError(
                "usage", what, where="request", hint=hint or "write for example `A100:8` or `gpus=8,cpus=16`"
            ) from None
        need = Need(gpu_milli=wish.milli, models=(wish.model,) if wish.model else ())
        for name, amount in amounts_of(need, num_nodes).items():
            amounts[name] = amounts.get(name, 0) + amount
    models = sum(amount for name, amount in amounts.items() if name.startswith("gpus/"))
    if models > amounts.get("gpus", 0):
        amounts["gpus"] = models
    amounts["jobs"] = max(1, given.get("jobs") or 1)
    return dict(sorted(amounts.items()))


def capacity_of(pictures: Iterable[PoolPicture]) -> Amounts:
    """What all owned machines have, by the names of `model.tenancy`."""
    machines = {
        machine.id: machine
        for picture in pictures
        if not is_of_cluster(picture)
        for machine in picture.machines
    }
    amounts: Amounts = {}

    def add(name: str, amount: int) -> None:
        if amount:
            amounts[name] = amounts.get(name, 0) + amount

    for machine in machines.values():
        add("cpus", machine.cpus_milli)
        add("memory", machine.memory_bytes)
        for device in machine.devices:
            add("gpus", 1000)
            add(f"gpus/{device.model}", 1000)
    return amounts


def _beyond_limit(queue: Queue, tasks: Sequence[Amounts]) -> Iterator[str]:
    """Warnings of tasks that pass a limit all by themselves."""
    for amounts in tasks:
        for name, most in sorted(queue.limit.items()):
            if amounts.get(name, 0) > most:
                over = Over(path=queue.path, name=name, used=0, asked=amounts[name], limit=most)
                yield f"{over.render()}, even when nothing else runs in it; it waits until the limit is raised"  # noqa: E501


def _accepted(rows: Snapshot, queue: Queue, cluster_id: str | None) -> list[tuple[Workload, Amounts]]:
    """What a queue has taken and is not being ended, running or not, with what it counts."""
    return [
        (row, _amounts_of(row))
        for row in rows.workloads.values()
        if row.is_live
        and row.desired is not Desired.END
        and row.host_id == cluster_id
        and is_below(row.queue, queue.path)
    ]


def _check_pending(rows: Snapshot, leaves: Sequence[str]) -> bool:
    """Whether a queue counts what waits. Raises `over-quota` where that is too much."""
    counted = False
    for queue in rows.tenancy.queues:
        most = queue.max_pending
        new = sum(is_below(leaf, queue.path) for leaf in leaves) if most is not None else 0
        if most is None or not new:
            continue
        counted = True
        there = sum(is_waiting(row) and is_below(row.queue, queue.path) for row in rows.workloads.values())
        if there + new > most:
            raise ArgosyError(
                "over-quota",
                f"queue `{queue.path}` may have {most} waiting: {there} wait + {new} > {most}, over by "
                f"{there + new - most}",
                hint=f"submit again when some have started: `argosy quota get {queue.path}`",
            )
    return counted


def _refuse_over_limit(
    queue: Queue, tasks: Sequence[Amounts], accepted: Sequence[tuple[Workload, Amounts]]
) -> None:
    """Raises `over-quota` when the tasks and all that the queue has accepted, running or not, pass a limit
    together."""
    raise_it = f"have the limit raised: `argosy quota set {queue.path} --limit ...`"
    for name, most in sorted(queue.limit.items()):
        asked = sum(amounts.get(name, 0) for amounts in tasks)
        used = sum(amounts.get(name, 0) for _, amounts in accepted)
        if not asked or used + asked <= most:
            continue
        told = Over(path=queue.path, name=name, used=used, asked=asked, limit=most).render()
        waiting = sum(amounts.get(name, 0) for row, amounts in accepted if is_waiting(row))
        if asked > most:
            raise ArgosyError("over-quota", told, hint=f"ask for less, or {raise_it}")
        if waiting:
            told += f"; {render_named(name, waiting)} of the {render_named(name, used)} wait"
        raise ArgosyError(
            "over-quota",
            told,
            hint=f"submit again when something has ended (`argosy queue --tree`), or {raise_it}",
        )
