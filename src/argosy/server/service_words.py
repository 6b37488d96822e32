"""Why a service has as many replicas as it has, why one is not ready, and why a rollout stands where it does.
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from argosy.model.kinds.service import (
    Replica,
    ReplicaState,
    Rollout,
    RolloutPhase,
    revision_of,
    service_spec,
    service_state,
    wanted_revision,
)
from argosy.model.rows import Workload
from argosy.model.served import ServedFact
from argosy.model.units import many, render_duration

_FAILURES_SHOWN: Final = 3
_P = RolloutPhase
_STANDS: Final[Mapping[ReplicaState, str]] = {
    ReplicaState.STARTING: "its machine or its program is not there yet",
    ReplicaState.WARMING: "its program has not answered the probe yet",
    ReplicaState.SUSPECT: "it does not answer",
    ReplicaState.DRAINING: "its requests are answered first",
}


def service_lines(
    row: Workload, served: ServedFact | None, waits: Mapping[str, str], now_ms: int
) -> tuple[str, ...]:
    """One sentence each. `waits`: by id of a replica's job, why it waits for machines."""
    state = service_state(row)
    lines = [_number_line(row, now_ms)]
    if served is not None and served.held:
        lines.append(f"{many(served.held, 'request')} wait at the gateway until a replica is ready.")
    lines += [f"{each[:1].upper()}{each[1:]}." for each in (served.troubles if served is not None else ())]
    if state.rollout is not None and (not state.rollout.is_over or state.rollout.why):
        lines.append(_rollout_line(row, state.rollout, now_ms))
    lines += [
        _replica_line(each, waits.get(each.job_id, ""), now_ms)
        for each in state.replicas
        if each.state is not ReplicaState.READY
    ]
    lines += [
        f"Replica {each.number} of revision {each.revision} ended {_ago(each.at_ms, now_ms)}: {each.detail}."
        for each in state.failed[-_FAILURES_SHOWN:]
    ]
    return tuple(lines)


def _ago(at_ms: int, now_ms: int) -> str:
    return f"{render_duration(max(0, now_ms - at_ms) // 1000)} ago"


def _number_line(row: Workload, now_ms: int) -> str:
    spec, state = service_spec(row), service_state(row)
    ready = sum(each.state is ReplicaState.READY for each in state.replicas)
    text = f"{many(ready, 'replica')} of it {'is' if ready == 1 else 'are'} ready"
    replicas = (revision_of(row, state.serves) or wanted_revision(row)).serving.replicas
    if spec.fixed is not None:
        return f"{text}; `argosy serve scale` asked for {spec.fixed}."
    if replicas.is_fixed:
        return f"{text}; its file asks for {replicas.least + replicas.spare}."
    bounds = f"between {replicas.least} and {replicas.most}"
    if state.target < 0:
        return f"{text}; its file asks for as many as the load needs, {bounds}, and no load was seen yet."
    since = _ago(state.scaled_ms, now_ms)
    return f"{text}; {state.target} are wanted ({bounds}), as of {since}: {state.scaled_why}."


def _replica_line(replica: Replica, waits: str, now_ms: int) -> str:
    since = render_duration(max(0, now_ms - replica.since_ms) // 1000)
    why = (replica.why or waits or _STANDS[replica.state]).rstrip(".")
    who = f"Replica {replica.number} of revision {replica.revision}"
    return f"{who} is {replica.state.value} for {since}: {why}."


def _rollout_line(row: Workload, rollout: Rollout, now_ms: int) -> str:
    new, state = revision_of(row, rollout.new), service_state(row)
    name = new.strategy.name if new is not None else "rolling"
    if rollout.phase in (_P.ROLLED_BACK, _P.ROLLING_BACK):
        was = "was" if rollout.phase is _P.ROLLED_BACK else "is being"
        return f"Revision {rollout.new} {was} rolled back ({name}): {rollout.why or 'somebody asked for it'}."
    mine = [each for each in state.replicas if each.revision == rollout.new]
    ready = sum(each.state is ReplicaState.READY for each in mine)
    share = dict(state.weights).get(rollout.new, 0)
    text = (
        f"Revision {rollout.new} is {rollout.phase.value} ({name}): {ready} of {many(len(mine), 'replica')} "
        f"ready, {share / 10:g} % of the requests"
    )
    if rollout.why:
        return f"{text}; {rollout.why}."
    if rollout.phase is _P.PROGRESSING:
        return f"{text}; it waits until its replicas are ready."
    since = render_duration(max(0, now_ms - rollout.since_ms) // 1000)
    return f"{text}; it is watched for {since}."
