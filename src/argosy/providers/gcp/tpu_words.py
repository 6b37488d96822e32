"""What Cloud TPU answers, as far as it is read, and TPUs as machines of claims. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machines import Machine, MachineState, mark_in, of_name
from argosy.providers.gcp.wire import last, region_of
from argosy.providers.gcp.wishes import INSIDE

#: The newest runtime of each version, by what types begin with.
_RUNTIMES: Final = {"v6e": "v2-alpha-tpuv6e", "v5p": "v2-alpha-tpuv5", "v5litepod": "v2-alpha-tpuv5-lite"}
_BASE: Final = "tpu-ubuntu2204-base"  # of older ones
_BY_CHIPS: Final = ("v5litepod", "v6e")  # others are counted by cores, of which a chip has two
_STATES: Final = {
    "READY": MachineState.RUNNING,
    "STOPPING": MachineState.STOPPING,
    "STOPPED": MachineState.STOPPED,
    "PREEMPTED": MachineState.PREEMPTED,
    "DELETING": MachineState.ENDED,
    "TERMINATED": MachineState.ENDED,
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


class _Failed(msgspec.Struct, frozen=True):
    error: Failure = Failure()


class _State(msgspec.Struct, frozen=True, rename="camel"):
    state: str = ""
    failed_data: _Failed = _Failed()


class Queued(msgspec.Struct, frozen=True, rename="camel"):
    name: str  # projects/P/locations/Z/queuedResources/CLAIM
    tpu: _Tpu = _Tpu()
    state: _State = _State()

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


class Slice(msgspec.Struct, frozen=True):
    """`tpu-v5p-8`: what Google calls it, and over how many hosts it is spread."""

    type: str
    hosts: int


def slice_of(kind: str) -> Slice:
    """
    >>> slice_of("tpu-v5p-8"), slice_of("tpu-v6e-16").hosts
    (Slice(type='v5p-8', hosts=1), 4)
    """
    name = kind.removeprefix("tpu-")
    found = re.fullmatch(r"(v\d\w*)-(\d+)", name)
    if found is None:
        return Slice(name, 1)
    size = int(found[2])
    by_chips = found[1] in _BY_CHIPS
    one_host = 8
    return Slice(name, 1 if size <= one_host else size // (4 if by_chips else 8))


def runtime_of(kind: str) -> str:
    return _RUNTIMES.get(slice_of(kind).type.partition("-")[0], _BASE)


def is_tpu(kind: str) -> bool:
    return kind.startswith("tpu-")


def zone_of(node: TpuNode) -> str:
    return node.name.split("/locations/")[1].split("/")[0]


def machine_of(node: TpuNode) -> Machine | None:
    """None: it is not ours."""
    mark, named = mark_in(node.labels), of_name(last(node.name))
    if mark is None or named is None or named[0] != mark.claim_id:
        return None
    zone = zone_of(node)
    spot = node.scheduling_config.spot or node.scheduling_config.preemptible
    state = _STATES.get(node.state, MachineState.STARTING)
    if state is MachineState.ENDED and node.state == "TERMINATED" and spot:
        state = MachineState.PREEMPTED
    ends = node.network_endpoints
    inside = ends[0].ip_address if ends else ""
    public = ends[0].access_config.external_ip if ends else ""
    return Machine(
        id=last(node.name),
        claim_id=mark.claim_id,
        index=named[1],
        count=mark.count,
        tag=mark.tag,
        state=state,
        region=region_of(zone),
        zone=zone,
        kind=f"tpu-{node.accelerator_type}",
        user=mark.user or "ubuntu",
        spot=spot,
        host=inside if INSIDE in node.labels or not public else public,
        ip=inside,
        created=node.create_time,
        said=node.health_description,
        own_key=True,
        stays=node.state in ("PREEMPTED", "TERMINATED"),
    )


def waiting(queued: Queued) -> Sequence[Machine]:
    """Nodes of a queued resource that are not made yet, or never will be."""
    failed = queued.state.state in ("FAILED", "SUSPENDED")
    said = queued.state.failed_data.error.message
    machines = []
    for spec in queued.tpu.node_spec:
        mark, named = mark_in(spec.node.labels), of_name(spec.node_id)
        if mark is None or named is None or named[0] != queued.id:
            continue
        text = said or f"Google Cloud has given up the order {queued.id} ({queued.state.state})"
        machines.append(
            Machine(
                id=spec.node_id,
                claim_id=mark.claim_id,
                index=named[1],
                count=mark.count,
                tag=mark.tag,
                state=MachineState.FAILED if failed else MachineState.STARTING,
                region=region_of(queued.zone),
                zone=queued.zone,
                kind=f"tpu-{spec.node.accelerator_type}",
                said=text if failed else "",
                error=border.OutOfCapacity(queued.zone, text) if failed else None,
                stays=failed,
            )
        )
    return machines
