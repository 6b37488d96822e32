"""Groups as people see them: one line with counts, and every task. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from argosy.api.groups import TaskView
from argosy.api.jobs import JobView, TaskCounts
from argosy.controllers.group.decide import waits_for
from argosy.controllers.group.members import member_name
from argosy.controllers.group.standing import Standing, Standings, standings_of
from argosy.model.errors import ArgosyError
from argosy.model.kinds import kind_of
from argosy.model.kinds.group import group_spec, group_state
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Workload
from argosy.model.units import many
from argosy.scheduler.picture import Pending
from argosy.server.views import job_status, render_reason, view_job
from argosy.store.snapshot import Snapshot

_EXPLAINED: Final = 5  # tasks whose turn has not come, in an explanation


def standings_in(rows: Snapshot, group: Workload) -> Standings:
    """Where the tasks of a live group are."""
    jobs = [row for row in rows.ends_for(group.id) if row.parent_id == group.id]
    spec = group_spec(group)
    return standings_of(
        spec.layout,
        [*jobs, *rows.children_of(group.id)],
        again=spec.pool_id is not None,
        retried=group_state(group).retried,
    )


def view_managed(row: Workload, rows: Snapshot, *, pending: Pending | None = None) -> JobView:
    """A live managed job or group, as one line."""
    if kind_of(row).gathers:
        return view_group(row, standings_in(rows, row), waits=waits_for(rows, row))
    return view_job(row, cluster=None, attempt=rows.attempt_of(row.id), pending=pending)


def view_group(group: Workload, standings: Standings | None, *, waits: str = "") -> JobView:
    """`standings` None: of one that has ended, whose row says the numbers. `waits`: what it waits for."""
    spec = group_spec(group)
    task = spec.tasks[0]
    if group.reason is not None:
        detail = render_reason(group.reason, group.detail, number=group.number)
    else:
        detail = waits or group.detail
    jobs = list(standings.jobs.values()) if standings is not None else []
    return JobView(
        id=group.id,
        number=group.number,
        name=group.name,
        cluster=None,
        managed=True,
        status=job_status(group),
        phase=group.phase.value,
        outcome=group.outcome.value if group.outcome else None,
        reason=group.reason.value if group.reason else None,
        detail=detail,
        user=group.user,
        created_ms=group.created_ms,
        started_ms=group.started_ms,
        ended_ms=group.ended_ms,
        resources=task.resources[0].render(),
        num_nodes=task.num_nodes,
        recoveries=sum(view_job(job, cluster=None).recoveries for job in jobs),
        project=group.project,
        queue=group.queue,
        tasks=_counts(group, standings),
    )


def _counts(group: Workload, standings: Standings | None) -> TaskCounts:
    size, state = group_spec(group).layout.size, group_state(group)
    if standings is None:
        return TaskCounts(
            total=size,
            succeeded=state.succeeded,
            failed=state.failed,
            cancelled=state.cancelled,
            skipped=state.skipped,
        )
    live = [job for job in standings.jobs.values() if job.is_live]
    running = sum(job.phase is WorkloadPhase.RUNNING for job in live)
    count = standings.counts
    return TaskCounts(
        total=size,
        waiting=count.get(Standing.WAITING, 0) + len(live) - running,
        running=running,
        succeeded=count.get(Standing.SUCCEEDED, 0),
        failed=count.get(Standing.FAILED, 0),
        cancelled=count.get(Standing.CANCELLED, 0),
        skipped=count.get(Standing.SKIPPED, 0),
    )


def explain_group(rows: Snapshot, group: Workload) -> list[str]:
    """What a live group does and waits for, in sentences."""
    view = view_managed(group, rows)
    counts = view.tasks
    assert counts is not None
    if view.detail.startswith("waits for"):
        return [f"it {view.detail}"]
    layout = group_spec(group).layout
    lines = [
        f"it has {many(counts.total, 'task')}: {counts.running} running, {counts.waiting} waiting, "
        f"{counts.succeeded} succeeded, {counts.failed} failed, {counts.skipped} skipped"
    ]
    if layout.parallel:
        lines.append(f"at most {layout.parallel} run at once")
    standings = standings_in(rows, group)
    waiting = [each for each in range(layout.size) if standings.found[each] is Standing.WAITING]
    for each in waiting[:_EXPLAINED]:
        lines.append(f"task {each} `{member_name(group, each)}` {_why_not_made(group, standings, each)}")
    if group.desired is Desired.END:
        lines.append("it is being ended, as somebody asked")
    return lines


def index_of(group: Workload, which: str) -> int:
    """The position of a task by its number or its name. Raises `not-found`."""
    size = group_spec(group).layout.size
    if which.isascii() and which.isdigit() and int(which) < size:
        return int(which)
    for index in range(size):
        if group_spec(group).layout.member(index).name == which:
            return index
    raise ArgosyError(
        "not-found",
        f"job {group.number} has no task `{which}`",
        hint=f"its tasks are 0 to {size - 1}: `argosy jobs queue --tasks {group.number}` lists them",
    )


def view_tasks(group: Workload, standings: Standings, jobs: Mapping[int, JobView]) -> tuple[TaskView, ...]:
    """`jobs`: by position, those that were made."""
    layout = group_spec(group).layout
    views = []
    for index in range(layout.size):
        member, job, standing = layout.member(index), jobs.get(index), standings.found[index]
        views.append(
            TaskView(
                index=index,
                name=member_name(group, index),
                status=job.status if job is not None else standing.value,
                detail=job.detail if job is not None else _why_not_made(group, standings, index),
                after=member.after,
                when=member.when,
                values=member.values,
                job=job,
            )
        )
    return tuple(views)


def _why_not_made(group: Workload, standings: Standings, index: int) -> str:
    layout = group_spec(group).layout
    member = layout.member(index)
    skipped = standings.found[index] is Standing.SKIPPED
    before = [_told(group, standings, each) for each in member.after]
    if before and not skipped:
        return f"waits for {', '.join(before)}"
    if before and not group.is_live and group.reason is Reason.CANCELLED_BY_USER:
        return "it was cancelled before its turn"
    if before:
        return f"it was to run when those before {member.when.value}: {', '.join(before)}"
    if skipped:
        return "the group ended before its turn"
    if layout.parallel:
        return f"waits for its turn: at most {layout.parallel} run at once"
    return "waits for its turn"


def _told(group: Workload, standings: Standings, index: int) -> str:
    job = standings.jobs.get(index)
    status = job_status(job) if job is not None else standings.found[index].value
    return f"{group.number}/{index} `{member_name(group, index)}` ({status})"
