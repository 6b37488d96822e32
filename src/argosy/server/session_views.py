"""Sessions as people see them. Pure: rows, facts and the time in, API types out."""

from __future__ import annotations

from argosy.api.sessions import IdleView, SessionView
from argosy.controllers.session.decide import body_of, node_of
from argosy.controllers.session.idle import SNOOZES_MAX, ends_then, has_gpus, last_use, limits_of
from argosy.model.kinds.session import session_spec, session_state
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.reasons import Reason, explained
from argosy.model.rows import Workload
from argosy.scheduler.picture import Pending
from argosy.server.ports import ObservedFacts
from argosy.server.views import render_place
from argosy.store.snapshot import Snapshot


def view_session(
    session: Workload,
    rows: Snapshot,
    observed: ObservedFacts,
    *,
    job: str = "",
    pending: Pending | None = None,
) -> SessionView:
    """`job`: the last job of one that has none now. `pending`: why its job waits."""
    spec, state = session_spec(session), session_state(session)
    body = body_of(rows, session) if session.is_live else None
    claims = rows.claims_of(body.id) if body is not None else ()
    return SessionView(
        id=session.id,
        name=session.name,
        app=spec.app.name,
        title=spec.app.title,
        status=_status(session, body),
        detail=_detail(session, body, pending),
        user=session.user,
        project=session.project,
        isolation=spec.isolation,
        network=spec.network,
        image=spec.image,
        resources=spec.task.resources[0].render(),
        infra=render_place(claims[0].choice) if claims else "",
        is_proxied=spec.app.is_proxied,
        created_ms=session.created_ms,
        started_ms=session.started_ms,
        up_ms=state.up_ms,
        ended_ms=session.ended_ms,
        job=body.id if body is not None else job,
        idle=spec.idle,
        use=_use(session, body, rows, observed),
        shares=state.shares,
    )


def _use(session: Workload, body: Workload | None, rows: Snapshot, observed: ObservedFacts) -> IdleView:
    state = session_state(session)
    if body is None or not state.up_ms:
        return IdleView()
    attempt, node = rows.attempt_of(body.id), node_of(rows, body)
    fact = observed.rank(f"{attempt.id}.0") if attempt is not None else None
    use = last_use(session, fact, observed, node.id if node is not None else "")
    limits = limits_of(session, use, rows.tenancy, has_gpu=has_gpus(session))
    return IdleView(
        used_ms=use.at_ms,
        used_by=use.by,
        gpu_used_ms=use.gpu_ms if has_gpus(session) else 0,
        rests_at_ms=limits[0].at_ms if limits else 0,
        why=limits[0].why if limits else "",
        ends=bool(limits) and ends_then(session, rows.tenancy),
        warned_ms=state.warned_ms,
        snoozes_left=max(0, SNOOZES_MAX - state.snoozes) if limits else 0,
    )


def _status(session: Workload, body: Workload | None) -> str:
    if not session.is_live:
        return session.outcome.value if session.outcome is not None else session.phase.value
    if session.desired is Desired.END:
        return "ending"
    if session.desired is Desired.STOP and session.phase is not WorkloadPhase.STOPPED:
        return "stopping"
    if session.phase is WorkloadPhase.STOPPED:
        return "resting"
    if body is not None and body.phase is WorkloadPhase.QUEUED:
        return "queued"
    return session.phase.value


def _detail(session: Workload, body: Workload | None, pending: Pending | None) -> str:
    if pending is not None and body is not None:
        return pending.text
    if session.phase is WorkloadPhase.STOPPED and session.reason is not None:
        text = session.detail or _RESTS.get(session.reason, "it rests")
        return f"{text}; `argosy session start {session.name}` brings it back"
    if not session.is_live and session.reason not in (None, Reason.CANCELLED_BY_USER):
        return explained(session.detail or str(session.reason), f"`argosy session logs {session.name}`")
    if body is not None and body.detail and session.phase is not WorkloadPhase.RUNNING:
        return body.detail
    return session.detail


_RESTS = {Reason.STOPPED_BY_USER: "put to rest by hand", Reason.IDLE: "nobody used it"}
