"""What RunPod tells of pods, read. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.infra.machine_container import PORT, labels_in
from argosy.infra.machines import Machine, MachineState, mark_in

_STATES: Final = {
    "RUNNING": MachineState.RUNNING,
    "ERROR": MachineState.FAILED,
    "TERMINATED": MachineState.ENDED,
}


class _Port(msgspec.Struct, frozen=True):
    private: int = 0
    public: int | None = None
    ip: str | None = None


class _Runtime(msgspec.Struct, frozen=True):
    ports: list[_Port] = []


class _Member(msgspec.Struct, frozen=True):
    """Of a cluster."""

    id: str
    rank: int | None = None
    ip: str = ""


class Pod(msgspec.Struct, frozen=True):
    id: str
    name: str
    status: str
    env: dict[str, str] = {}
    runtime: _Runtime | None = None
    cluster: _Member | None = None
    created: str = msgspec.field(name="createdAt", default="")


class Pods(msgspec.Struct, frozen=True):
    pods: list[Pod]


def machine_of(pod: Pod, index: int | None) -> Machine | None:
    """None: it is not ours. `index`: its place in its cluster; RunPod tells ranks late, so it is the order of
    their ids."""
    mark = mark_in(labels_in(pod.env))
    if mark is None:
        return None
    spot = "ARGOSY_SPOT" in pod.env
    state, said = _STATES.get(pod.status, MachineState.STARTING), ""
    if pod.status == "EXITED":
        # The disk of a container does not outlive it: it has ended, and still costs.
        state = MachineState.PREEMPTED if spot else MachineState.ENDED
        said = "" if spot else "its container ended: does the image have sshd, or a package manager?"
    ports = pod.runtime.ports if pod.runtime is not None else []
    door = next((each for each in ports if each.private == PORT and each.public and each.ip), None)
    if state is MachineState.RUNNING and pod.runtime is None:
        state = MachineState.STARTING
    return Machine(
        id=pod.id,
        mark=mark if index is None else msgspec.structs.replace(mark, index=index),
        state=state,
        region=pod.env.get("ARGOSY_REGION", ""),
        spot=spot,
        host=(door.ip or "") if door is not None else "",
        port=(door.public or PORT) if door is not None else PORT,
        ip=pod.cluster.ip if pod.cluster is not None else "",
        created=pod.created,
        said=said,
        stays=pod.status in ("EXITED", "ERROR"),
    )
