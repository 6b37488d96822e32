"""What Cloud TPU answers, as far as it is read, and hosts of TPUs as machines of claims. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machines import Machine, MachineState, mark_by_name, name_of
from argosy.model.slices import hosts_of
from argosy.providers.gcp.wire import last, region_of
from argosy.providers.gcp.wishes import INSIDE

#: The newest runtime of each version, by what types begin with.
_RUNTIMES: Final = {"v6e": "v2-alpha-tpuv6e", "v5p": "v2-alpha-tpuv5", "v5litepod": "v2-alpha-tpuv5-lite"}
_BASE: Final = "tpu-ubuntu2204-base"  # of older ones
_STATES: Final = {
    "READY": MachineState.RUNNING,
    "STOPPING": MachineState.STOPPING,
    "STOPPED": MachineState.STOPPED,
    "PREEMPTED": MachineState.PREEMPTED,
    "DELETING": MachineState.ENDED,
    "TERMINATED": MachineState.ENDED,
}


#: Of queued resources. A spot one is suspended when it is taken back, others when they are given up.
_QUEUE_STATES: Final = {
    "FAILED": MachineState.FAILED,
    "SUSPENDING": MachineState.ENDED,
    "SUSPENDED": MachineState.ENDED,
}


class Failure(msgspec.Struct, frozen=True):
    """`google.rpc.Status`."""

    code: int = 0
    message: str = ""


class TpuOperation(msgspec.Struct, frozen=True):
    name: str
    done: bool = False
    error: Failure | None = None


class _Access(msgspec.Struct, frozen=True, rename="camel"):
    external_ip: str = ""


class _Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    ip_address: str = ""
    access_config: _Access = _Access()


class _Scheduling(msgspec.Struct, frozen=True):
    spot: bool = False
    preemptible: bool = False


class TpuNode(msgspec.Struct, frozen=True, rename="camel"):
    name: str  # projects/P/locations/Z/nodes/NAME
    state: str = "CREATING"
    accelerator_type: str = ""
    labels: dict[str, str] = {}
    network_endpoints: list[_Endpoint] = []
    scheduling_config: _Scheduling = _Scheduling()
    create_time: str = ""
    health_description: str = ""


class Nodes(msgspec.Struct, frozen=True, rename="camel"):
    nodes: list[TpuNode] = []
    next_page_token: str = ""
    unreachable: list[str] = []  # zones that did not answer


class _Spec(msgspec.Struct, frozen=True, rename="camel"):
    node_id: str
    node: _Ordered


class _Ordered(msgspec.Struct, frozen=True, rename="camel"):
    accelerator_type: str = ""
    labels: dict[str, str] = {}


class _Tpu(msgspec.Struct, frozen=True, rename="camel"):
    node_spec: list[_Spec] = []


class _Spot(msgspec.Struct, frozen=True):
    """It has no fields: that it is there says it."""


class _Failed(msgspec.Struct, frozen=True):
    error: Failure = Failure()


class _State(msgspec.Struct, frozen=True, rename="camel"):
    state: str = ""
    failed_data: _Failed = _Failed()


class Queued(msgspec.Struct, frozen=True, rename="camel"):
    name: str  # projects/P/locations/Z/queuedResources/CLAIM
    tpu: _Tpu = _Tpu()
    state: _State = _State()
    spot: _Spot | None = None

    @property
    def id(self) -> str:
        return last(self.name)

    @property
    def zone(self) -> str:
        return self.name.split("/locations/")[1].split("/")[0]


class QueuedList(msgspec.Struct, frozen=True, rename="camel"):
    queued_resources: list[Queued] = []
    next_page_token: str = ""


class _Location(msgspec.Struct, frozen=True, rename="camel"):
    location_id: str


class Locations(msgspec.Struct, frozen=True):
    locations: list[_Location] = []


def first_of(index: int, kind: str) -> int:
    """The first node of the slice that a node is of: the slice is named after it."""
    return index // hosts_of(kind) * hosts_of(kind)


def runtime_of(kind: str) -> str:
    return _RUNTIMES.get(kind.removeprefix("tpu-").partition("-")[0], _BASE)


def is_tpu(kind: str) -> bool:
    return kind.startswith("tpu-")


def zone_of(node: TpuNode) -> str:
    return node.name.split("/locations/")[1].split("/")[0]


def machines_of(node: TpuNode) -> list[Machine]:
    """Its hosts, each of which is a machine of the claim; none: it is not ours."""
    mark = mark_by_name(node.labels, last(node.name))
    if mark is None:
        return []
    zone, kind = zone_of(node), f"tpu-{node.accelerator_type}"
    spot = node.scheduling_config.spot or node.scheduling_config.preemptible
    state = _STATES.get(node.state, MachineState.STARTING)
    if state is MachineState.ENDED and node.state == "TERMINATED" and spot:
        state = MachineState.PREEMPTED
    machines = []
    for worker in range(hosts_of(kind)):
        ends = node.network_endpoints[worker : worker + 1]
        inside = ends[0].ip_address if ends else ""
        public = ends[0].access_config.external_ip if ends else ""
        unknown = state is MachineState.RUNNING and not inside
        machines.append(
            Machine(
                id=name_of(mark.claim_id, mark.index + worker),
                mark=msgspec.structs.replace(mark, index=mark.index + worker),
                state=MachineState.STARTING if unknown and worker else state,
                region=region_of(zone),
                zone=zone,
                kind=kind,
                user=mark.user or "ubuntu",
                spot=spot,
                host=inside if INSIDE in node.labels or not public else public,
                ip=inside,
                created=node.create_time,
                said=node.health_description,
                own_key=True,
                stays=node.state in ("PREEMPTED", "TERMINATED"),
            )
        )
    return machines


def waiting(queued: Queued) -> Sequence[Machine]:
    """Hosts of a queued resource that are not made yet, or never will be, or were taken back."""
    state = _QUEUE_STATES.get(queued.state.state, MachineState.STARTING)
    if state is MachineState.ENDED:
        state = MachineState.PREEMPTED if queued.spot is not None else MachineState.FAILED
    failed = state is MachineState.FAILED
    said = queued.state.failed_data.error.message
    machines = []
    for spec in queued.tpu.node_spec:
        mark = mark_by_name(spec.node.labels, spec.node_id)
        if mark is None or mark.claim_id != queued.id:
            continue
        text = said or f"Google Cloud has given up the order {queued.id} ({queued.state.state})"
        kind = f"tpu-{spec.node.accelerator_type}"
        machines += [
            Machine(
                id=name_of(mark.claim_id, index),
                mark=msgspec.structs.replace(mark, index=index),
                state=state,
                region=region_of(queued.zone),
                zone=queued.zone,
                kind=kind,
                spot=queued.spot is not None,
                said=text if failed else said,
                error=border.OutOfCapacity(queued.zone, text) if failed else None,
                stays=state is not MachineState.STARTING,
            )
            for index in range(mark.index, mark.index + hosts_of(kind))
        ]
    return machines
