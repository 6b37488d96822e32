"""Sessions: one job at a time is the body, its files outlive it; a session that nobody uses is put to rest.
Pure.

A session that was put to rest has no job and no node; `start` makes the next job, which finds the same files.
An app that ends by itself puts its session to rest, too: what people did in it stays.
"""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.controllers.policies import finish
from argosy.controllers.session.idle import Limit, ends_then, has_gpus, is_written, last_use, limits_of
from argosy.controllers.view import Action, NewId, Put, Rows, View, WakeAt, event
from argosy.model.facts import RankFact
from argosy.model.kinds.job import JOB, JobSpec, JobStatus, Sitting, job_state
from argosy.model.kinds.session import session_spec, session_state
from argosy.model.phases import AttemptPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Node, Workload
from argosy.model.task import FileMount, Task
from argosy.model.units import render_duration

#: Where the files that the home of a session begins with are put: on its node, outside of that home.
_SEED: Final = ".argosy-begins-with"
_SEED_FOLDER: Final = "~/workdir/" + _SEED
_WRITE_EVERY_MS: Final = 30_000  # so often its use is written down, for other servers and the next one
_RESTING: Final = (Reason.IDLE, Reason.STOPPED_BY_USER, Reason.MAX_DURATION)


def decide(view: View, session: Workload, new_id: NewId) -> list[Action]:
    """What to do about one live session."""
    body = body_of(view.rows, session)
    if session.desired is Desired.END:
        if body is not None:
            return _end_body(session, body)
        return finish(view, session, Outcome.CANCELLED, session.reason or Reason.CANCELLED_BY_USER, "")
    if session.desired is Desired.STOP or session.phase is WorkloadPhase.STOPPING:
        return _rest(view, session, body)  # also when it was meanwhile asked to run again: it rests first
    if session.phase in (WorkloadPhase.QUEUED, WorkloadPhase.STOPPED):
        return _make_body(view, session, new_id)
    if body is None:
        return _body_ended(view, session)
    if session.phase is WorkloadPhase.RUNNING:
        return _run(view, session, body)
    return _come_up(view, session, body)


def body_of(rows: Rows, session: Workload) -> Workload | None:
    """Its live job."""
    return next(iter(rows.children_of(session.id)), None)


def fact_of(view: View, body: Workload) -> RankFact | None:
    """What the node last said of its app."""
    attempt = view.rows.attempt_of(body.id)
    return view.observed.rank(f"{attempt.id}.0") if attempt is not None else None


def node_of(rows: Rows, body: Workload) -> Node | None:
    """The node that its app runs on; None while there is none."""
    attempt = rows.attempt_of(body.id)
    if attempt is None or attempt.phase is AttemptPhase.ENDING or not attempt.placements:
        return None
    node = rows.nodes.get(attempt.placements[0].node_id)
    return node if node is not None and node.phase is NodePhase.READY else None


def _make_body(view: View, session: Workload, new_id: NewId) -> list[Action]:
    spec, state = session_spec(session), session_state(session)
    number = state.starts + 1
    job = Workload(
        id=new_id(JOB.prefix),
        kind=JOB.name,
        name=session.name,
        spec=JobSpec(
            task=_task_of(session),
            managed=True,
            confirmed=spec.confirmed,
            sitting=Sitting(
                session=session.id,
                app=spec.app,
                isolation=spec.isolation,
                network=spec.network,
                image=spec.image,
                seed=_SEED_FOLDER if spec.begins_with and not session.started_ms else "",
            ),
        ),
        status=JobStatus(checkpoint=state.checkpoint, ran_on=state.ran_on),
        user=session.user,
        project=session.project,
        queue=session.queue,
        number=number,
        parent_id=session.id,
        created_ms=view.now_ms,
    )
    changed = msgspec.structs.replace(session, phase=WorkloadPhase.STARTING, reason=None, detail="")
    return [Put(changed.with_status(starts=number, up_ms=0, warned_ms=0, snoozed_ms=0, snoozes=0)), Put(job)]


def _task_of(session: Workload) -> Task:
    """What its job runs. Until it was up for the first time the files that it begins with come along."""
    spec = session_spec(session)
    if not spec.begins_with or session.started_ms:
        return spec.task
    seed = FileMount(target=_SEED, source="snapshot", tree=spec.begins_with)
    return msgspec.structs.replace(spec.task, file_mounts=(*spec.task.file_mounts, seed))


def _come_up(view: View, session: Workload, body: Workload) -> list[Action]:
    """Starting, or coming back after its node was lost."""
    fact = fact_of(view, body)
    if body.phase is WorkloadPhase.RUNNING and fact is not None and fact.ready_ms:
        if session.phase is WorkloadPhase.RECOVERING:
            return [Put(msgspec.structs.replace(session, phase=WorkloadPhase.STARTING))]
        up = msgspec.structs.replace(
            session, phase=WorkloadPhase.RUNNING, started_ms=session.started_ms or fact.ready_ms, detail=""
        )
        up = up.with_status(up_ms=view.now_ms, active_ms=view.now_ms, active_by="start", warned_ms=0)
        return [Put(up), event(view, session.id, "running", f"{session_spec(session).app.name} can be used")]
    return []


def _run(view: View, session: Workload, body: Workload) -> list[Action]:
    fact, node = fact_of(view, body), node_of(view.rows, body)
    if body.phase is not WorkloadPhase.RUNNING:
        text = body.detail or "its node is gone"
        lost = msgspec.structs.replace(session, phase=WorkloadPhase.RECOVERING, detail=text)
        return [Put(lost.with_status(up_ms=0)), event(view, session.id, "recovering", text)]
    use = last_use(session, fact, view.observed, node.id if node is not None else "")
    limits = limits_of(session, use, view.rows.tenancy, has_gpu=has_gpus(session))
    over = next((limit for limit in limits if limit.at_ms <= view.now_ms), None)
    if over is not None:
        return _put_to_rest(view, session, over)
    state = session_state(session)
    if not is_written(state, use, _WRITE_EVERY_MS):
        session = session.with_status(active_ms=use.at_ms, active_by=use.by, gpu_active_ms=use.gpu_ms)
        actions = _warn(view, session, limits)
        told = any(isinstance(action, Put) for action in actions)
        return actions if told else [Put(session), *actions]
    return _warn(view, session, limits)


def _warn(view: View, session: Workload, limits: list[Limit]) -> list[Action]:
    """Tell people once that it will be put to rest, and take the word back when it is used again."""
    state = session_state(session)
    if not limits:
        return []
    first = limits[0]
    if view.now_ms < first.warn_ms:
        if state.warned_ms:
            return [Put(session.with_status(warned_ms=0, snoozes=0)), WakeAt(session.id, first.warn_ms)]
        return [WakeAt(session.id, first.warn_ms)]
    if state.warned_ms:
        return [WakeAt(session.id, first.at_ms)]
    left = render_duration(max(1, (first.at_ms - view.now_ms) // 1000))
    then = "ends" if ends_then(session, view.rows.tenancy) else "is put to rest"
    text = f"{then} in {left}: {first.why}"
    return [
        Put(session.with_status(warned_ms=view.now_ms)),
        event(view, session.id, "idle-warning", text),
        WakeAt(session.id, first.at_ms),
    ]


def _put_to_rest(view: View, session: Workload, limit: Limit) -> list[Action]:
    desired = Desired.END if ends_then(session, view.rows.tenancy) else Desired.STOP
    reason = Reason.MAX_DURATION if limit.why.startswith("it was up") else Reason.IDLE
    changed = msgspec.structs.replace(session, desired=desired, reason=reason, detail=limit.why)
    return [Put(changed), event(view, session.id, "idle", limit.why)]


def _rest(view: View, session: Workload, body: Workload | None) -> list[Action]:
    """Stop: the job ends with its grace, its files stay."""
    if session.phase is WorkloadPhase.STOPPED:
        return []
    actions: list[Action] = []
    if session.phase is not WorkloadPhase.STOPPING:
        stopping = msgspec.structs.replace(session, phase=WorkloadPhase.STOPPING)
        actions.append(Put(stopping.with_status(up_ms=0)))
    if body is not None:
        return [*actions, *_end_body(session, body)]
    if actions:
        return [*actions, WakeAt(session.id, view.now_ms)]
    resting = msgspec.structs.replace(session, phase=WorkloadPhase.STOPPED)
    return [Put(_with_kept(view, resting)), event(view, session.id, "resting", resting.detail)]


def _end_body(session: Workload, body: Workload) -> list[Action]:
    if body.desired is Desired.END:
        return []
    reason = session.reason or Reason.STOPPED_BY_USER
    return [Put(msgspec.structs.replace(body, desired=Desired.END, reason=reason))]


def _with_kept(view: View, session: Workload) -> Workload:
    """What its last job kept, and where that lies: the next one begins with it."""
    last = last_body(view.rows, session)
    if last is None:
        return session
    state = job_state(last)
    return session.with_status(checkpoint=state.checkpoint, ran_on=state.ran_on)


def last_body(rows: Rows, session: Workload) -> Workload | None:
    """The job that it had last, which has ended."""
    mine = [row for row in rows.ends_for(session.id) if row.parent_id == session.id]
    return max(mine, key=lambda row: row.number, default=None)


def _body_ended(view: View, session: Workload) -> list[Action]:
    """The app ended by itself: before it could be used for the first time the session has failed, later it
    rests."""
    last = last_body(view.rows, session)
    if last is None:
        return []
    text = last.detail or "its app has ended"
    if not session.started_ms and last.outcome is not Outcome.SUCCEEDED:
        return finish(view, session, Outcome.FAILED, last.reason or Reason.USER_CODE_FAILED, text)
    reason = last.reason if last.reason in _RESTING else Reason.STOPPED_BY_USER
    detail = text if last.outcome is not Outcome.SUCCEEDED else "its app has ended"
    changed = msgspec.structs.replace(
        session, desired=Desired.STOP, phase=WorkloadPhase.STOPPING, reason=reason, detail=detail
    )
    return [Put(changed.with_status(up_ms=0)), WakeAt(session.id, view.now_ms)]
