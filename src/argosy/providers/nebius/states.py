"""What Nebius tells of machines, read. Pure."""

from __future__ import annotations

from typing import Any, Final

from argosy.infra.machines import Machine, MachineState, mark_in
from argosy.providers.nebius.orders import USER

_STATES: Final = {
    "RUNNING": MachineState.RUNNING,
    "STOPPING": MachineState.STOPPING,
    "STOPPED": MachineState.STOPPED,
    "DELETING": MachineState.ENDED,
    "ERROR": MachineState.FAILED,
}


def machine_of(told: Any, region: str) -> Machine | None:
    """None: it is not ours. A machine that was just ordered is STOPPED at first, with `reconciling`."""
    mark = mark_in(told.metadata.labels)
    if mark is None:
        return None
    name = told.status.state.name
    state = _STATES.get(name, MachineState.STARTING)
    if state is MachineState.STOPPED and told.status.reconciling and not told.spec.stopped:
        state = MachineState.STARTING
    cards = told.status.network_interfaces
    public = _bare(cards[0].public_ip_address.address) if cards else ""
    private = _bare(cards[0].ip_address.address) if cards else ""
    return Machine(
        id=told.metadata.id,
        mark=mark,
        state=state,
        region=region,
        kind=f"{told.spec.resources.platform}_{told.spec.resources.preset}",
        user=USER,
        spot=told.spec.check_presence("preemptible"),
        host=public or private,
        ip=private or public,
        created=str(told.metadata.created_at),
        stays=name == "ERROR",
        said="Nebius lists it as failed" if name == "ERROR" else "",
    )


def _bare(address: str) -> str:
    """Addresses are told as networks: `10.0.0.5/32`."""
    return address.partition("/")[0]


def why_closed(told: Any, region: str) -> str:
    """Why a type cannot be had in a region, from what Nebius says of its free capacity; "": it can, or nobody
    knows."""
    if told.data_state.name != "DATA_STATE_FRESH":
        return ""
    if told.availability_level.name.endswith("LIMIT_REACHED"):
        return f"the account's quota in {region} is used up ({told.limit})"
    if told.available == 0 and not told.availability_level.name.endswith(("UNKNOWN", "UNSPECIFIED")):
        return f"Nebius has none in {region} now"
    return ""
