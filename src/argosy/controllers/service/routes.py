"""The route of a service, as its row says it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from argosy.controllers.service.spread import area_of
from argosy.controllers.view import Rows
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
    Attribute,
    EndpointRoute,
    HashBy,
    Holding,
    KeyRoute,
    Member,
    Policy,
    PolicyName,
    ReplicaRoute,
    RevisionRoute,
    ServiceCounters,
    ServiceRoute,
    Shadow,
)
from argosy.model.rows import Workload
from argosy.model.service_keys import KeyUse, ModelKey
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
#: Keys of all language models, by project.
ModelKeys = Mapping[str, tuple[AccessKey, ...]]
NO_KEYS: Final[ModelKeys] = {}
#: Ids of such keys begin so; names of other keys never do.
MODELS: Final = "models/"
_ATTRIBUTES: Final[dict[str, Attribute]] = {"header": "header", "cookie": "cookie", "key": "key"}
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


def model_keys(rows: Rows, services: Iterable[Workload]) -> ModelKeys:
    """Keys of all language models of the projects of these services."""
    found = {}
    for project in {row.project for row in services}:
        entries = rows.entries_of(f"model-keys:{project}")
        if keys := tuple(each.key for each in entries if isinstance(each, ModelKey)):
            found[project] = keys
    return found


def routes_of(rows: Iterable[Workload], model_keys: ModelKeys = NO_KEYS) -> tuple[ServiceRoute, ...]:
    """Routes of all services. A host that two of them claim is the older one's: a table with both would be
    refused as a whole."""
    taken: set[str] = set()
    found = []
    rows = sorted(rows, key=lambda row: (row.created_ms, row.id))
    ids = {(row.project, row.name): row.id for row in rows}
    for row in rows:
        route = route_of(row, model_keys.get(row.project, ()))
        free = tuple(host for host in route.hosts if host not in taken)
        taken.update(free)
        readers = ids.get((row.project, route.prefill), "") if route.prefill else ""
        if free != route.hosts or readers != route.prefill:
            route = msgspec.structs.replace(route, hosts=free, prefill=readers)
        found.append(route)
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


def route_of(row: Workload, model_keys: tuple[AccessKey, ...] = ()) -> ServiceRoute:
    """Replicas that are ready, and those that leave; every revision with its share. `model_keys`: of its
    project's language models; what is public asks nobody for one."""
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
        policy=Policy(
            name=POLICIES.get(serving.balance, "least-outstanding"), hash_by=hash_by(serving.affinity)
        ),
        prefill=serving.prefill,
        bootstrap_port=serving.bootstrap_port,
        sticky_by=_sticky(row, state),
        shadow=_shadow(row, state),
        holding=Holding(start_s=_start_s(state)),
        public=spec.public and not spec.keys,
        keys=(
            *(_key_route(key) for key in spec.keys),
            *(_model_key_route(row, key) for key in model_keys if guards_models(row)),
        ),
        prices=spec.prices,
        answer_timeout_s=max(600, serving.stream_ms // 1000),
    )


def guards_models(row: Workload) -> bool:
    """Keys of all language models of the project let in here."""
    spec = service_spec(row)
    return bool(_serving(row).models) and not (spec.public and not spec.keys)


def _model_key_route(row: Workload, key: AccessKey) -> KeyRoute:
    route = _key_route(key)
    return msgspec.structs.replace(route, id=MODELS + key.name, scope=f"project/{row.project}")


def key_uses(counted: ServiceCounters) -> dict[str, KeyUse]:
    """What was used with each key of a service, by the key's id."""
    return {
        each.id: KeyUse(
            requests=each.requests,
            refused=each.refused,
            input_tokens=each.input_tokens,
            output_tokens=each.output_tokens,
            spent_micro_usd=each.spent_micro_usd,
            last_use_ms=each.last_use_ms,
        )
        for each in counted.keys
        if each.requests or each.refused or each.spent_micro_usd
    }


def _key_route(key: AccessKey) -> KeyRoute:
    return KeyRoute(
        id=key.name,
        sha256=key.sha256,
        requests_per_minute=key.requests_per_minute,
        tokens_per_minute=key.tokens_per_minute,
        max_concurrency=key.max_concurrency,
        budget_micro_usd=key.budget_micro_usd,
        period=key.period,
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
    if new is None or new.strategy.name != "ab":
        return None
    return hash_by(new.serving.affinity)


def hash_by(affinity: str) -> HashBy:
    """By what users are told apart, as a task file says it; by their address where it does not.

    >>> hash_by("header:x-user"), hash_by("key").attribute, hash_by("").attribute
    (HashBy(attribute='header', name='x-user'), 'key', 'address')
    """
    what, _, name = affinity.partition(":")
    return HashBy(attribute=_ATTRIBUTES.get(what, "address"), name=name)


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
