"""Instances as machines of claims."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from argosy.infra import border
from argosy.infra.machines import Machine, MachineState, mark_by_name
from argosy.providers.gcp.wire import Instance, last, region_of
from argosy.providers.gcp.wishes import INSIDE, USER_NAME

#: What a listing tells of each instance: all that is read here.
FIELDS: Final = (
    "nextPageToken,items/*/warning/code,items/*/instances(name,status,zone,machineType,statusMessage,creationTimestamp,labels,"
    "networkInterfaces(networkIP,accessConfigs/natIP),scheduling/provisioningModel)"
)
_STATES: Final = {
    "PENDING": MachineState.STARTING,
    "PROVISIONING": MachineState.STARTING,
    "STAGING": MachineState.STARTING,
    "RUNNING": MachineState.RUNNING,
    "REPAIRING": MachineState.RUNNING,
    "PENDING_STOP": MachineState.STOPPING,
    "STOPPING": MachineState.STOPPING,
    "SUSPENDING": MachineState.STOPPING,
    "SUSPENDED": MachineState.STOPPED,
    "STOPPED": MachineState.STOPPED,
    "TERMINATED": MachineState.STOPPED,  # it is there, with its disks
    "DEPROVISIONING": MachineState.ENDED,
}


def machine_of(told: Instance, ending: Collection[str]) -> Machine | None:
    """None: it is not ours. `ending`: names of instances that we delete, which say STOPPING until they are
    gone."""
    mark = mark_by_name(told.labels, told.name)
    if mark is None:
        return None
    state = _STATES.get(told.status, MachineState.STARTING)
    if told.name in ending and state in (MachineState.STOPPING, MachineState.STOPPED):
        state = MachineState.ENDED
    zone, spot = last(told.zone), told.scheduling.provisioning_model == "SPOT"
    cards = told.network_interfaces
    inside = cards[0].network_ip if cards else ""
    public = next((each.nat_ip for card in cards[:1] for each in card.access_configs if each.nat_ip), "")
    return Machine(
        id=told.name,
        mark=mark,
        state=state,
        region=region_of(zone),
        zone=zone,
        kind=last(told.machine_type),
        user=mark.user or USER_NAME,
        spot=spot,
        host=inside if INSIDE in told.labels or not public else public,
        ip=inside,
        created=told.creation_timestamp,
        said=told.status_message,
    )


class Bridge:
    """What zones held when they answered last: one that is silent for a while still holds it."""

    def __init__(self) -> None:
        self._last: dict[str, list[Machine]] = {}

    def missing(self, found: Sequence[Machine], silent: Collection[str]) -> list[Machine]:
        """What lived when it was listed last, and is not listed now. Asked before `over`."""
        there = {each.id for each in found}
        return [
            each
            for zone, held in self._last.items()
            if zone not in silent
            for each in held
            if each.is_live and each.id not in there
        ]

    def forget(self, zone: str) -> None:
        """Something was ordered there: what it held before is not all."""
        self._last.pop(zone, None)

    def over(
        self, found: Sequence[Machine], silent: Collection[str], every: Collection[str]
    ) -> list[Machine]:
        """What was listed, and what silent zones held. Raises `Transient` for one that never answered.

        Args:
            every: all zones that the listing speaks of.
        """
        for zone in every:
            if zone not in silent:
                self._last[zone] = [each for each in found if each.zone == zone]
        unknown = sorted(zone for zone in silent if zone not in self._last)
        if unknown:
            raise border.Transient(f"Google Cloud cannot list {', '.join(unknown)} at present", 10)
        held = [each for zone in sorted(silent) for each in self._last[zone]]
        return [each for each in found if each.zone not in silent] + held
