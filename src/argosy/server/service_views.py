"""Services: lookup by name, and their views. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from argosy.api.service_keys import ServiceKeyView
from argosy.api.services import ReplicaView, RevisionView, RolloutView, ServiceView
from argosy.controllers.service.routes import place_of, prefix_of
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError, suggest
from argosy.model.kinds import kind_of
from argosy.model.kinds.service import (
    SERVICE,
    Replica,
    ReplicaState,
    ServiceStatus,
    revision_of,
    service_spec,
    service_state,
    wanted_revision,
)
from argosy.model.phases import Desired
from argosy.model.routes import Listening
from argosy.model.rows import Workload
from argosy.model.served import Rate, ServedFact
from argosy.server.guarding import project_of, require_over, sees
from argosy.server.service_keys import access_of, view_keys
from argosy.server.views import render_place
from argosy.store.snapshot import Snapshot

_FAILURES_SHOWN: Final = 3
_NOWHERE: Final = Listening()
_NO_RATE: Final = Rate()
_ON_THE_WAY: Final = (ReplicaState.STARTING, ReplicaState.WARMING)


def find_service(rows: Snapshot, name: str, caller: Caller) -> Workload:
    """A live service by name or id, of those that the caller may see and do this to. Raises `not-found`, with
    the nearest name, and `forbidden`."""
    found = rows.workloads.get(name)
    if found is None or kind_of(found) is not SERVICE:
        found = rows.find_named(SERVICE.name, name, project_of(caller))
    if found is not None and sees(caller, found):
        require_over(caller, found)
    else:
        shared = _sharing(rows, name, caller)
        if shared:
            raise ArgosyError(
                "not-found",
                f"`{name}` is the endpoint of several services",
                hint=f"name one of them: {', '.join(sorted(row.name for row in shared))}",
            )
        known = [row.name for row in rows.named(SERVICE.name) if sees(caller, row)]
        raise ArgosyError("not-found", f"there is no service `{name}`", hint=_nearest(name, known))
    return found


def members_of(rows: Snapshot, name: str, caller: Caller) -> tuple[str, ...]:
    """The name itself, or those of the services that share an endpoint of this name. Raises as
    `find_service`."""
    shared = _sharing(rows, name, caller)
    if shared and rows.find_named(SERVICE.name, name, project_of(caller)) is None:
        return tuple(row.id for row in shared)
    return (find_service(rows, name, caller).id,)


def _sharing(rows: Snapshot, name: str, caller: Caller) -> list[Workload]:
    """Services that share an endpoint of this name."""
    project = project_of(caller)
    return [
        row
        for row in rows.named(SERVICE.name)
        if row.project == project and wanted_revision(row).serving.endpoint == name and sees(caller, row)
    ]


def _nearest(name: str, known: list[str]) -> str:
    there = f"there are {', '.join(known)}" if known else "`argosy serve up FILE.yaml` makes one"
    return suggest(name, known, otherwise=there)


def view_service(
    row: Workload,
    rows: Snapshot,
    *,
    listening: Listening = _NOWHERE,
    served: ServedFact | None = None,
    waits: Mapping[str, str] | None = None,
    lines: Mapping[str, tuple[str, ...]] | None = None,
    server_url: str = "",
) -> ServiceView:
    """`waits`: by id of a job, why it waits for machines. `lines`: what it printed last."""
    state, waits, lines = service_state(row), waits or {}, lines or {}
    replicas = tuple(_view_replica(each, rows, served, waits, lines) for each in state.replicas)
    ready = sum(each.state is ReplicaState.READY for each in state.replicas)
    rate = served.rate if served is not None else Rate()
    serving = (revision_of(row, state.serves) or wanted_revision(row)).serving
    hourly = sum(each.hourly_micro_usd for each in replicas)
    return ServiceView(
        id=row.id,
        name=row.name,
        status=status_of(row),
        endpoint=f"{listening.urls[0]}{prefix_of(row)}" if listening.urls else "",
        server_endpoint=f"{server_url}{prefix_of(row)}" if server_url else "",
        revision=state.serves,
        ready=ready,
        wanted=_wanted(row),
        held=served.held if served is not None else 0,
        why=state.scaled_why,
        rollout=_view_rollout(row),
        revisions=_view_revisions(row, served, replicas),
        replicas=replicas,
        requests_milli_per_s=rate.requests_milli,
        errors=rate.errors,
        p50_ms=rate.p50_ms,
        p99_ms=rate.p99_ms,
        in_flight=sum(each.in_flight for each in replicas),
        tokens_milli_per_s=rate.tokens_milli,
        micro_usd_per_million_requests=per_million(hourly, rate.requests_milli),
        micro_usd_per_million_tokens=per_million(hourly, rate.tokens_milli),
        hourly_micro_usd=hourly,
        user=row.user,
        project=row.project,
        models=serving.models,
        shared=serving.endpoint,
        shared_endpoint=shared_at(row, serving.endpoint, listening),
        share_milli=serving.share_milli,
        access=access_of(
            row,
            is_local=listening.is_local,
            has_model_keys=bool(rows.entries_of(f"model-keys:{row.project}")),
        ),
        budgets=_budgets(row, served),
        created_ms=row.created_ms,
        detail=_detail(row, ready),
        last_lines=lines.get("", ()),
        failures=tuple(
            f"replica {each.number} of revision {each.revision}: {each.detail}"
            for each in state.failed[-_FAILURES_SHOWN:]
        ),
    )


def _budgets(row: Workload, served: ServedFact | None) -> tuple[ServiceKeyView, ...]:
    paying = [key for key in service_spec(row).keys if key.budget_micro_usd]
    return view_keys(paying, served.keys if served is not None else {})


def shared_at(row: Workload, name: str, listening: Listening) -> str:
    """Where several services answer together."""
    return f"{listening.urls[0]}{place_of(row.project, name)}" if name and listening.urls else ""


def per_million(hourly_micro_usd: int, milli_per_s: int) -> int:
    """Micro-USD for a million of what comes at this pace.

    >>> per_million(3_600_000, 500_000)  # $3.60 an hour, 500 a second
    2000000
    """
    return round(hourly_micro_usd * 1_000_000_000 / (milli_per_s * 3600)) if milli_per_s else 0


def status_of(row: Workload) -> str:
    """In one word: stopping, updating, ready, failing, starting or no-replica."""
    state = service_state(row)
    if row.desired is Desired.END:
        return "stopping"
    rollout = state.rollout
    if rollout is not None and rollout.old and not rollout.is_over:
        return "updating"
    if any(each.state is ReplicaState.READY for each in state.replicas):
        return "ready"
    if _is_failing(state):
        return "failing"
    return "starting" if any(each.state in _ON_THE_WAY for each in state.replicas) else "no-replica"


def _is_failing(state: ServiceStatus) -> bool:
    """Its newest replicas ended by themselves."""
    if not state.failed:
        return False
    newest = state.failed[-1]
    ready_ms = max((each.ready_ms for each in state.replicas), default=0)
    return newest.at_ms > ready_ms and not newest.was_proven


def _wanted(row: Workload) -> int:
    spec, state = service_spec(row), service_state(row)
    if spec.fixed is not None:
        return spec.fixed
    revision = revision_of(row, state.serves) or wanted_revision(row)
    replicas = revision.serving.replicas
    if replicas.is_fixed:
        return replicas.least + replicas.spare
    return max(replicas.least, min(replicas.most, 1 if state.target < 0 else state.target))


def _detail(row: Workload, ready: int) -> str:
    state = service_state(row)
    if not ready and state.failed and _is_failing(state):
        return f"the last replica ended: {state.failed[-1].detail}"
    rollout = state.rollout
    if rollout is not None and rollout.why:
        return rollout.why
    return row.detail


def _view_rollout(row: Workload) -> RolloutView | None:
    rollout = service_state(row).rollout
    if rollout is None or (rollout.is_over and not rollout.why):
        return None
    new = revision_of(row, rollout.new)
    strategy = new.strategy if new is not None else None
    return RolloutView(
        old=rollout.old,
        new=rollout.new,
        strategy=strategy.name if strategy is not None else "",
        phase=rollout.phase.value,
        step=rollout.step,
        steps=strategy.steps if strategy is not None else (),
        since_ms=rollout.since_ms,
        detail=rollout.why,
    )


def _view_revisions(
    row: Workload, served: ServedFact | None, replicas: tuple[ReplicaView, ...]
) -> tuple[RevisionView, ...]:
    state, found = service_state(row), []
    weights = dict(state.weights)
    numbers = {each.revision for each in state.replicas} | set(weights) | {state.serves}
    for number in sorted(numbers - {0}):
        revision = revision_of(row, number)
        mine = [each for each in state.replicas if each.revision == number]
        count = served.counts.get(number) if served is not None else None
        rate = served.revisions.get(number, _NO_RATE) if served is not None else _NO_RATE
        found.append(
            RevisionView(
                number=number,
                weight=weights.get(number, 0),
                ready=sum(each.state is ReplicaState.READY for each in mine),
                wanted=sum(each.state is not ReplicaState.DRAINING for each in mine),
                made_ms=revision.made_ms if revision is not None else 0,
                note=revision.note if revision is not None else "",
                requests=count.requests if count is not None else 0,
                errors=count.errors if count is not None else 0,
                requests_milli_per_s=rate.requests_milli,
                p50_ms=rate.p50_ms,
                p99_ms=rate.p99_ms,
                tokens_milli_per_s=rate.tokens_milli,
                hourly_micro_usd=sum(each.hourly_micro_usd for each in replicas if each.revision == number),
            )
        )
    return tuple(found)


def _view_replica(
    replica: Replica,
    rows: Snapshot,
    served: ServedFact | None,
    waits: Mapping[str, str],
    lines: Mapping[str, tuple[str, ...]],
) -> ReplicaView:
    job = rows.workloads.get(replica.job_id)
    claims = rows.claims_of(replica.job_id)
    choice = claims[-1].choice if claims else None
    detail = replica.why or waits.get(replica.job_id, "") or (job.detail if job is not None else "")
    rate = served.replicas.get(replica.job_id, _NO_RATE) if served is not None else _NO_RATE
    return ReplicaView(
        number=replica.number,
        job=replica.job_id,
        revision=replica.revision,
        state=replica.state.value,
        since_ms=replica.since_ms,
        place=render_place(choice) if choice is not None else "",
        resources=choice.resources.render() if choice is not None else "",
        address=replica.address,
        in_flight=served.in_flight.get(replica.job_id, 0) if served is not None else 0,
        hourly_micro_usd=sum(each.choice.price_micro_usd for each in claims),
        requests_milli_per_s=rate.requests_milli,
        errors=rate.errors,
        p50_ms=rate.p50_ms,
        p99_ms=rate.p99_ms,
        tokens_milli_per_s=rate.tokens_milli,
        detail=detail,
        last_lines=lines.get(replica.job_id, ()),
    )
