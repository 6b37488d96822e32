"""What `explain` says of a session: when it was used and by what, what its GPUs do, and by which rule it is
put to rest. Pure."""

from __future__ import annotations

from argosy.controllers.session.decide import body_of, node_of
from argosy.controllers.session.idle import Use, ends_then, has_gpus, last_use, limits_of
from argosy.model.kinds.session import session_state
from argosy.model.rows import Workload
from argosy.model.units import render_duration
from argosy.server.ports import ObservedFacts
from argosy.store.snapshot import Snapshot


def session_lines(session: Workload, rows: Snapshot, observed: ObservedFacts, now_ms: int) -> list[str]:
    state = session_state(session)
    body = body_of(rows, session)
    if body is None or not state.up_ms:
        return [session.detail or f"it is {session.phase.value}"]
    attempt, node = rows.attempt_of(body.id), node_of(rows, body)
    fact = observed.rank(f"{attempt.id}.0") if attempt is not None else None
    use = last_use(session, fact, observed, node.id if node is not None else "")
    lines = [
        f"it has been up for {_since(state.up_ms, now_ms)}",
        f"used {_since(use.at_ms, now_ms)} ago, last by {use.by}",
    ]
    if has_gpus(session):
        lines.append(_gpu_line(body, rows, observed, use, now_ms))
    limits = limits_of(session, use, rows.tenancy, has_gpu=has_gpus(session))
    then = "ends" if ends_then(session, rows.tenancy) else "is put to rest"
    for limit in limits:
        left_s = max(0, limit.at_ms - now_ms) // 1000
        lines.append(f"it {then} in {render_duration(left_s)} unless that changes: {limit.why}")
    if state.snoozed_ms > now_ms:
        lines.append(f"somebody asked for more time: not before {_until(state.snoozed_ms, now_ms)} from now")
    return lines if limits else [*lines, "no rule puts it to rest"]


def _gpu_line(body: Workload, rows: Snapshot, observed: ObservedFacts, use: Use, now_ms: int) -> str:
    attempt = rows.attempt_of(body.id)
    place = attempt.placements[0] if attempt is not None and attempt.placements else None
    facts = observed.node(place.node_id) if place is not None else None
    mine = {share.index for share in place.devices} if place is not None else set()
    loads = [
        f"{device.utilisation_percent} %"
        for device in (facts.devices if facts is not None else ())
        if device.index in mine and device.utilisation_percent >= 0
    ]
    since = f"its GPUs worked for it {_since(use.gpu_ms, now_ms)} ago"
    return f"{since}; they are now at {', '.join(loads)}" if loads else since


def _since(at_ms: int, now_ms: int) -> str:
    return render_duration(max(0, now_ms - at_ms) // 1000)


def _until(at_ms: int, now_ms: int) -> str:
    return render_duration(max(0, at_ms - now_ms) // 1000)
