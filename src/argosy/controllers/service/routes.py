"""The route of a service, as its row says it. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from argosy.controllers.service.spread import area_of
from argosy.model.kinds.service import (
    AccessKey,
    Replica,
    ReplicaState,
    RolloutPhase,
    ServiceStatus,
    revision_of,
    service_spec,
    service_state,
    wanted_revision,
)
from argosy.model.routes import (
    WHOLE,
    EndpointRoute,
    HashBy,
    Holding,
    KeyRoute,
    Member,
    Policy,
    PolicyName,
    ReplicaRoute,
    RevisionRoute,
    ServiceRoute,
    Shadow,
)
from argosy.model.rows import Workload
from argosy.model.serving import Serving

_PARTS: Final = 1000  # of the weights in rows
#: As task files call them.
POLICIES: Final[dict[str, PolicyName]] = {
    "round_robin": "round-robin",
    "least_load": "least-outstanding",
    "instance_aware_least_load": "least-outstanding",
    "power_of_two": "power-of-two",
    "consistent_hash": "consistent-hash",
    "prefix_aware": "prefix-aware",
    "least_work": "least-work",
    "least_tokens": "least-tokens",
}
_LEAVING: Final = (ReplicaState.SUSPECT, ReplicaState.DRAINING)


def prefix_of(row: Workload) -> str:
    """The path under which a service answers.

    In the project `default` that is `/s/NAME`, elsewhere `/s/PROJECT/NAME`."""
    return place_of(row.project, row.name)


def place_of(project: str, name: str) -> str:
    """The path of a name in a project."""
    return f"/s/{name}" if project == "default" else f"/s/{project}/{name}"


def _serving(row: Workload) -> Serving:
    """What the revision says that serves, or is to."""
    return (revision_of(row, service_state(row).serves) or wanted_revision(row)).serving


def routes_of(rows: Iterable[Workload]) -> tuple[ServiceRoute, ...]:
    """Routes of all services. A host that two of them claim is the older one's: a table with both would be
    refused as a whole."""
    taken: set[str] = set()
    found = []
    for row in sorted(rows, key=lambda row: (row.created_ms, row.id)):
        route = route_of(row)
        free = tuple(host for host in route.hosts if host not in taken)
        taken.update(free)
        found.append(route if free == route.hosts else msgspec.structs.replace(route, hosts=free))
    return tuple(found)


def endpoints_of(rows: Iterable[Workload], services: Iterable[ServiceRoute]) -> tuple[EndpointRoute, ...]:
    """Endpoints that several services share. One whose place a service has is left out."""
    taken = {each.prefix for each in services}
    members: dict[tuple[str, str], list[Workload]] = {}
    for row in sorted(rows, key=lambda row: (row.created_ms, row.id)):
        serving = _serving(row)
        if serving.endpoint:
            members.setdefault((row.project, serving.endpoint), []).append(row)
    found = []
    for (project, name), mine in sorted(members.items()):
        prefix = place_of(project, name)
        if prefix not in taken:
            hosts = tuple(dict.fromkeys(host for row in mine for host in _serving(row).hosts))
            shares = tuple(
                Member(service=row.id, weight=_serving(row).share_milli * WHOLE // _PARTS) for row in mine
            )
            found.append(EndpointRoute(name=name, hosts=hosts, prefix=prefix, members=shares))
    return tuple(found)


def route_of(row: Workload) -> ServiceRoute:
    """Replicas that are ready, and those that leave; every revision with its share."""
    spec, state = service_spec(row), service_state(row)
    serving = _serving(row)
    weights = dict(state.weights)
    numbers = sorted({each.revision for each in state.replicas} | set(weights))
    revisions = tuple(
        RevisionRoute(
            id=str(number),
            weight=weights.get(number, 0) * WHOLE // _PARTS,
            replicas=tuple(_routes(state, number)),
        )
        for number in numbers
    )
    return ServiceRoute(
        id=row.id,
        name=row.name,
        project=row.project,
        hosts=() if serving.endpoint else serving.hosts,
        protocol="grpc" if serving.grpc else "http",
        models=serving.models,
        prefix=prefix_of(row),
        revisions=revisions,
        policy=Policy(name=POLICIES.get(serving.balance, "least-outstanding")),
        sticky_by=_sticky(row, state),
        shadow=_shadow(row, state),
        holding=Holding(start_s=_start_s(state)),
        public=spec.public and not spec.keys,
        keys=tuple(_key_route(key) for key in spec.keys),
        answer_timeout_s=max(600, serving.stream_ms // 1000),
    )


def _key_route(key: AccessKey) -> KeyRoute:
    return KeyRoute(
        id=key.name,
        sha256=key.sha256,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        max_concurrency=key.max_concurrency,
        expires_at_ms=key.expires_ms,
    )


def _routes(state: ServiceStatus, number: int) -> list[ReplicaRoute]:
    found = []
    for each in state.replicas:
        if each.revision == number and each.address and _is_routed(each):
            found.append(
                ReplicaRoute(
                    id=each.job_id,
                    address=each.address,
                    state="draining" if each.state in _LEAVING else "ready",
                    region=area_of(each.place, "region") if each.place else "",
                )
            )
    return found


def _is_routed(replica: Replica) -> bool:
    return replica.state is ReplicaState.READY or (replica.state in _LEAVING and replica.left > 0)


def _sticky(row: Workload, state: ServiceStatus) -> HashBy | None:
    """Users stay with their revision in an experiment."""
    rollout = state.rollout
    new = revision_of(row, rollout.new) if rollout is not None and not rollout.is_over else None
    return HashBy(attribute="address") if new is not None and new.strategy.name == "ab" else None


def _shadow(row: Workload, state: ServiceStatus) -> Shadow | None:
    rollout = state.rollout
    if rollout is None or rollout.phase is not RolloutPhase.PAUSED:
        return None
    new = revision_of(row, rollout.new)
    if new is None or new.strategy.name != "shadow":
        return None
    return Shadow(revision=str(rollout.new))


def _start_s(state: ServiceStatus) -> int:
    """How long its replicas took from their order to their first answer; a minute where none has yet."""
    return state.start_s or 60
