"""Instances as EC2 lists them, as machines of claims. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.machines import Machine, MachineState, mark_in

_STATES: Final = {
    "pending": MachineState.STARTING,
    "running": MachineState.RUNNING,
    "stopping": MachineState.STOPPING,
    "stopped": MachineState.STOPPED,
    "shutting-down": MachineState.FAILED,  # of one that was held before: it has ended
    "terminated": MachineState.FAILED,
}
_PREEMPTED: Final = frozenset(("Server.SpotInstanceTermination", "Server.SpotInstanceShutdown"))
_ENDS: Final = {
    "Client.UserInitiatedShutdown": "somebody terminated it by AWS's API or console",
    "Client.InstanceInitiatedShutdown": "it was shut down from inside",
}


def machine_of(region: str, told: Mapping[str, Any], order: str, *, private: bool) -> Machine | None:
    """None: it is not ours. The index of a node is its place in its launch. `order`: the reservation that it
    came with; `private`: it is reached by its address inside the VPC."""
    mark = mark_in({tag["Key"]: tag["Value"] for tag in told.get("Tags", ())})
    if mark is None:
        return None
    reason = told.get("StateReason", {})
    code, zone = reason.get("Code", ""), told.get("Placement", {}).get("AvailabilityZone", "")
    state = _STATES.get(told.get("State", {}).get("Name", ""), MachineState.STARTING)
    said = error = None
    if state is MachineState.FAILED and code in _PREEMPTED:
        state = MachineState.PREEMPTED
    elif state is MachineState.FAILED:
        said = _ENDS.get(code) or reason.get("Message") or code
        error = launch_error(told["InstanceId"], zone or region, code, said)
    public, inside = told.get("PublicIpAddress", ""), told.get("PrivateIpAddress", "")
    return Machine(
        id=told["InstanceId"],
        mark=msgspec.structs.replace(mark, index=int(told.get("AmiLaunchIndex", 0))),
        state=state,
        region=region,
        zone=zone,
        kind=told.get("InstanceType", ""),
        user=mark.user or "ubuntu",
        spot=told.get("InstanceLifecycle", "") == "spot",
        host=inside if private or not public else public,
        ip=inside or public,
        created=f"{told.get('LaunchTime', '')} {order}",
        said=said or "",
        error=error,
    )


def launch_error(id: str, place: str, code: str, said: str) -> border.BorderError:
    """Why a machine ended while it was made."""
    text = f"{id} ended while it was made: {said or 'AWS does not say why'}"
    if code == "Client.VolumeLimitExceeded":
        fix = f"raise the quota of EBS storage in {place}, or ask for less"
        return border.QuotaExceeded("EBS volumes", "reached", f"{text}; {fix}")
    if code == "Client.InternalError" or "KMS" in code:
        fix = "the KMS key of the disk must be enabled, and your credentials may use it"
        return border.RequestRefused("config.aws.kms_key", f"{text}; {fix}")
    return border.OutOfCapacity(place, text)
