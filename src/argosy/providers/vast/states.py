"""What Vast.ai tells of instances, read. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_container import PORT, labels_in
from argosy.infra.machines import Machine, MachineState, mark_in

_BROKEN: Final = ("oci runtime create failed", "error response from daemon", "unable to find image")


class _Port(msgspec.Struct, frozen=True):
    port: str = msgspec.field(name="HostPort", default="")


class Instance(msgspec.Struct, frozen=True):
    id: int
    label: str | None = None
    actual_status: str | None = None
    intended_status: str | None = None
    cur_state: str | None = None
    next_state: str | None = None
    status_msg: str | None = None
    public_ipaddr: str | None = None
    ports: dict[str, list[_Port] | None] | None = None
    extra_env: list[list[str]] | None = None
    is_bid: bool | None = False
    start_date: float | None = None


class Page(msgspec.Struct, frozen=True):
    instances: list[Instance]
    next_token: str | None = None


def machine_of(told: Instance) -> Machine | None:
    """None: it is not ours."""
    env = {pair[0]: pair[1] for pair in told.extra_env or () if len(pair) == 2}
    mark = mark_in(labels_in(env))
    if mark is None:
        return None
    message = (told.status_msg or "").strip()
    door = next(iter((told.ports or {}).get(f"{PORT}/tcp") or ()), None)
    state, error = _state(told, ready=door is not None), None
    if state is MachineState.STARTING and any(each in message.lower() for each in _BROKEN):
        state, error = (
            MachineState.FAILED,
            border.RequestRefused("image_id", f"Vast.ai says: {message[:300]}"),
        )
    return Machine(
        id=str(told.id),
        mark=mark,
        state=state,
        region=env.get("ARGOSY_REGION", ""),
        spot=bool(told.is_bid),
        host=(told.public_ipaddr or "").strip() if door is not None else "",
        port=int(door.port) if door is not None and door.port.isdigit() else PORT,
        created=f"{told.start_date or 0:020.3f}",
        said=message[:200] if state in (MachineState.ENDED, MachineState.FAILED) else "",
        error=error,
        stays=state in (MachineState.ENDED, MachineState.FAILED),
    )


def _state(told: Instance, *, ready: bool) -> MachineState:
    if told.intended_status == "stopped":
        rests = told.cur_state == "stopped" and told.next_state in (None, "stopped")
        return MachineState.STOPPED if rests else MachineState.STOPPING
    if told.actual_status == "running" and ready:
        return MachineState.RUNNING
    # Its first program is sshd: when that ends, nothing is left to reach.
    return MachineState.ENDED if told.actual_status == "exited" else MachineState.STARTING
