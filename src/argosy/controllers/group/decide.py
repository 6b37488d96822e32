"""Groups: which task starts when, when the rest is ended, and how the whole ends. Pure.

A task has no row before its turn: an array of a thousand that waits is one row. A task is made in the commit
that counts it, so it is made once, whoever decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.controllers.crew import workers_of
from argosy.controllers.group.members import make_member, waits_in_place
from argosy.controllers.group.standing import (
    Standing,
    Standings,
    is_due,
    never_due,
    standing_of,
    standings_of,
)
from argosy.controllers.policies import finish
from argosy.controllers.view import Action, NewId, Put, Rows, View, WakeAt, event
from argosy.model.kinds.group import GroupSpec, group_spec, group_state
from argosy.model.kinds.job import JOB
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Workload

AHEAD: Final = 100  # so many tasks wait for machines at once: more would wait no better
_NAMED: Final = 5  # tasks that failed, in a sentence


def decide(view: View, group: Workload, new_id: NewId) -> list[Action]:
    """What to do about one live group."""
    spec = group_spec(group)
    live = view.rows.children_of(group.id)
    ended = [row for row in view.rows.ends_for(group.id) if row.parent_id == group.id]
    standings = standings_of(
        spec.layout, [*ended, *live], again=spec.pool_id is not None, retried=group_state(group).retried
    )
    if group.desired is Desired.END:
        if live:
            return []  # they end with their parent
        return _finish(view, group, standings, Outcome.CANCELLED, group.reason, group.detail)
    if spec.pool_id is not None and spec.pool_id not in view.rows.workloads:
        if live:
            return []  # they end with their workers
        return _finish(view, group, standings, Outcome.FAILED, Reason.CLUSTER_GONE, "its worker pool is gone")
    if spec.awaits and not group_state(group).made:
        skipped, waits = awaited(view.rows, group)
        if skipped:
            return _finish(view, group, standings, Outcome.CANCELLED, Reason.NOT_DUE, skipped)
        if waits:
            return []
    if standings.is_over:
        return _over(view, group, standings)
    ending = _why_end(group, standings)
    if ending is not None:
        return _end_rest(view, group, live, standings, *ending)
    return _go_on(view, group, live, standings, new_id)


def waits_for(rows: Rows, group: Workload) -> str:
    """Which other jobs a group waits for, in words; "": for none."""
    if not group_spec(group).awaits or group_state(group).made or group.desired is Desired.END:
        return ""
    _, live = awaited(rows, group)
    return f"waits for {', '.join(f'job {row.number}' for row in live)}" if live else ""


def awaited(rows: Rows, group: Workload) -> tuple[str, list[Workload]]:
    """(why it can never run, the live jobs that it waits for)."""
    spec = group_spec(group)
    live = [rows.workloads[id] for id in spec.awaits if id in rows.workloads]
    ended = {row.id: row for row in rows.ends_for(group.id) if row.parent_id != group.id}
    before = [Standing.LIVE] * len(live)
    before += [
        standing_of(ended[id]) if id in ended else Standing.CANCELLED
        for id in spec.awaits
        if id not in rows.workloads
    ]
    if never_due(before, spec.when):
        told = ", ".join(f"job {row.number} {row.outcome.value}" for row in ended.values() if row.outcome)
        return f"it was to run after others that {spec.when.value}: {told or 'they did not'}", live
    return "", [] if is_due(before, spec.when) else live


def _why_end(group: Workload, standings: Standings) -> tuple[Reason, str] | None:
    """Why the tasks that are left are ended; None: they are not."""
    layout = group_spec(group).layout
    if layout.fail_fast and (failed := standings.those(Standing.FAILED)):
        return Reason.GROUP_ENDED, f"task {failed[0]} failed, and the first failure ends the others"
    if layout.primary and all(standings.found[each].is_over for each in layout.primary):
        return Reason.GROUP_ENDED, "the primary tasks have ended"
    return None


def _end_rest(
    view: View, group: Workload, live: Sequence[Workload], standings: Standings,
    reason: Reason, text: str,
) -> list[Action]:  # fmt: skip
    """End what is live, each after its delay; what was not made never will be."""
    if not live:
        return _over(view, group, standings)
    state, layout = group_state(group), group_spec(group).layout
    actions: list[Action] = []
    since_ms = state.ending_ms
    if not since_ms:
        since_ms = view.now_ms
        actions += [Put(group.with_status(ending_ms=since_ms)), event(view, group.id, "ending", text)]
    for job in live:
        if job.desired is Desired.END:
            continue
        due_ms = since_ms + layout.delay_s(job.number) * 1000
        if view.now_ms < due_ms:
            actions.append(WakeAt(group.id, due_ms))
        else:
            actions.append(Put(msgspec.structs.replace(job, desired=Desired.END, reason=reason, detail=text)))
    return actions


def _go_on(
    view: View, group: Workload, live: Sequence[Workload], standings: Standings,
    new_id: NewId,
) -> list[Action]:  # fmt: skip
    """Make the tasks whose turn it is, as far as there is room for them."""
    spec, state = group_spec(group), group_state(group)
    wanted = due(spec, standings, live)
    hosts: Sequence[str | None] = [None] * len(wanted)
    if spec.pool_id is not None:
        hosts = share_of(view.rows, group, spec.pool_id)
    made = [
        make_member(group, index, new_id(JOB.prefix), standings, host)
        for index, host in zip(wanted, hosts, strict=False)
    ]
    changed = group
    if made:
        left = tuple(each for each in state.retried if each not in {job.number for job in made})
        changed = changed.with_status(made=state.made + len(made), retried=left)
    if group.phase is WorkloadPhase.QUEUED and made:
        changed = msgspec.structs.replace(changed, phase=WorkloadPhase.STARTING, detail="")
    started = [job.started_ms for job in standings.jobs.values() if job.started_ms]
    if group.phase is WorkloadPhase.STARTING and started:
        changed = msgspec.structs.replace(changed, phase=WorkloadPhase.RUNNING, started_ms=min(started))
    wakes = [WakeAt(job.id, view.now_ms) for job in _to_start(view.rows, spec, live)]
    return [*([Put(changed), *map(Put, made)] if changed is not group else []), *wakes]


def _to_start(rows: Rows, spec: GroupSpec, live: Sequence[Workload]) -> list[Workload]:
    """Tasks of a job group that waited for each other's nodes: now all have some."""
    if not spec.layout.together or len(live) < spec.layout.size:
        return []
    if any(rows.attempt_of(job.id) is None for job in live):
        return []
    return [job for job in live if job.phase is WorkloadPhase.STARTING]


def share_of(rows: Rows, group: Workload, pool_id: str) -> list[str]:
    """The free workers of the pool that are this group's: groups take them in the order in which they were
    submitted."""
    free = [worker.cluster.id for worker in workers_of(rows, pool_id) if worker.is_free]
    waiting = sorted(rows.waiters_of(pool_id), key=lambda row: (row.created_ms, row.number, row.id))
    for other in waiting:
        if other.id == group.id or not free:
            break
        if other.desired is Desired.RUN:
            live = rows.children_of(other.id)
            ended = [row for row in rows.ends_for(other.id) if row.parent_id == other.id]
            spec = group_spec(other)
            retried = group_state(other).retried
            found = standings_of(spec.layout, [*ended, *live], again=True, retried=retried)
            free = free[len(due(spec, found, live)) :]
    return free


def due(spec: GroupSpec, standings: Standings, live: Sequence[Workload]) -> list[int]:
    """The tasks that are to be made now, by position."""
    layout = spec.layout
    waiting = sum(job.phase is WorkloadPhase.QUEUED for job in live)
    in_place = waits_in_place(spec)
    room = layout.size if layout.together or in_place else AHEAD - waiting
    if layout.parallel and not in_place:
        room = min(room, layout.parallel - len(live))
    found: list[int] = []
    for index in range(layout.size):
        if len(found) >= room:
            break
        if standings.found[index] is not Standing.WAITING:
            continue
        member = layout.member(index)
        if is_due([standings.found[each] for each in member.after], member.when):
            found.append(index)
    return found


def _over(view: View, group: Workload, standings: Standings) -> list[Action]:
    """All tasks that will run have run."""
    layout = group_spec(group).layout
    counted = layout.primary or range(layout.size)
    failed = [each for each in counted if standings.found[each] is Standing.FAILED]
    if failed:
        names = [_called(group, each) for each in failed[:_NAMED]]
        more = f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else ""
        first = standings.jobs[failed[0]].detail
        text = f"{len(failed)} of {layout.size} tasks failed: {', '.join(names)}{more}"
        if layout.size == 1:
            text = first or "its task failed"
        elif first:
            text += f" ({names[0]}: {first})"
        return _finish(view, group, standings, Outcome.FAILED, Reason.TASKS_FAILED, text)
    cancelled = [each for each in counted if standings.found[each] is Standing.CANCELLED]
    if cancelled:
        names = [_called(group, each) for each in cancelled[:_NAMED]]
        text = f"{len(cancelled)} of {layout.size} tasks were cancelled: {', '.join(names)}"
        return _finish(view, group, standings, Outcome.CANCELLED, Reason.CANCELLED_BY_USER, text)
    return _finish(view, group, standings, Outcome.SUCCEEDED, None, "")


def _called(group: Workload, index: int) -> str:
    """The position, and the name where it says more."""
    name = group_spec(group).layout.member(index).name
    return f"{index} `{name}`" if name else str(index)


def _finish(
    view: View, group: Workload, standings: Standings, outcome: Outcome, reason: Reason | None, detail: str
) -> list[Action]:
    counts = standings.counts
    closed = group.with_status(
        succeeded=counts.get(Standing.SUCCEEDED, 0),
        failed=counts.get(Standing.FAILED, 0),
        cancelled=counts.get(Standing.CANCELLED, 0),
        skipped=counts.get(Standing.SKIPPED, 0) + counts.get(Standing.WAITING, 0),
    )
    return finish(view, closed, outcome, reason, detail)
