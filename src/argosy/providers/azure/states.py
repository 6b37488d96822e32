"""What Azure lists, and which machines that are. Pure.

A listing of machines has their tags and not their states, or their states and not their tags: it takes both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machines import Machine, MachineState, mark_in
from argosy.providers.azure.arm import group_of

_POWER: Final = {
    "running": MachineState.RUNNING,
    "starting": MachineState.STARTING,
    "deallocating": MachineState.STOPPING,
    "deallocated": MachineState.STOPPED,
    "stopping": MachineState.ENDED,  # shut down from inside, and still paid for
    "stopped": MachineState.ENDED,
}


class Status(msgspec.Struct, frozen=True):
    code: str = ""  # ProvisioningState/failed/AllocationFailed, PowerState/running, or ""
    message: str = ""


class InstanceView(msgspec.Struct, frozen=True):
    statuses: list[Status] = []


class Ref(msgspec.Struct, frozen=True):
    id: str = ""


class Hardware(msgspec.Struct, frozen=True, rename="camel"):
    vm_size: str = ""


class OsDisk(msgspec.Struct, frozen=True, rename="camel"):
    managed_disk: Ref = Ref()


class Storage(msgspec.Struct, frozen=True, rename="camel"):
    os_disk: OsDisk = OsDisk()


class Cards(msgspec.Struct, frozen=True, rename="camel"):
    network_interfaces: list[Ref] = []


class Inside(msgspec.Struct, frozen=True, rename="camel"):
    provisioning_state: str = ""
    hardware_profile: Hardware = Hardware()
    network_profile: Cards = Cards()
    storage_profile: Storage = Storage()
    priority: str = "Regular"
    time_created: str = ""
    instance_view: InstanceView = InstanceView()


class Vm(msgspec.Struct, frozen=True):
    id: str
    name: str
    location: str = ""
    tags: dict[str, str] = {}
    zones: list[str] = []
    properties: Inside = Inside()


class CardAddress(msgspec.Struct, frozen=True, rename="camel"):
    private_ip_address: str = msgspec.field(name="privateIPAddress", default="")
    public_ip_address: Ref = msgspec.field(name="publicIPAddress", default=Ref())


class IpConfiguration(msgspec.Struct, frozen=True):
    properties: CardAddress = CardAddress()


class CardInside(msgspec.Struct, frozen=True, rename="camel"):
    ip_configurations: list[IpConfiguration] = []


class Card(msgspec.Struct, frozen=True):
    id: str
    properties: CardInside = CardInside()


class AddressInside(msgspec.Struct, frozen=True):
    ip_address: str = msgspec.field(name="ipAddress", default="")


class Address(msgspec.Struct, frozen=True):
    id: str
    properties: AddressInside = AddressInside()


class Ips(msgspec.Struct, frozen=True):
    """Where a machine is reached."""

    public: str
    private: str


Explain = Callable[[str, str, str], border.BorderError]  # code, message, what was asked for


def ips_of(cards: Iterable[Card], addresses: Iterable[Address]) -> dict[str, Ips]:
    """By the id of the network card, in lower case. Without those that have no address yet."""
    public = {each.id.lower(): each.properties.ip_address for each in addresses}
    found = {}
    for card in cards:
        for each in card.properties.ip_configurations[:1]:
            outer = each.properties.public_ip_address.id.lower()
            ips = Ips(public.get(outer, ""), each.properties.private_ip_address)
            if ips.public or (ips.private and not outer):
                found[card.id.lower()] = ips
    return found


def card_of(vm: Vm) -> str:
    """The id of its network card, in lower case."""
    cards = vm.properties.network_profile.network_interfaces
    return cards[0].id.lower() if cards else ""


def is_running(view: InstanceView) -> bool:
    return any(each.code == "PowerState/running" for each in view.statuses)


def machine_id(group: str, name: str) -> str:
    """The id of a machine in notes and addresses. `group`: the name of its resource group.

    >>> machine_id("argosy-eastus", "clm-0-1"), parts_of("argosy-eastus.clm-0-1")
    ('argosy-eastus.clm-0-1', ('argosy-eastus', 'clm-0-1'))
    """
    return f"{group}.{name}"


def parts_of(id: str) -> tuple[str, str]:
    """Resource group and name."""
    group, _, name = id.rpartition(".")
    return group, name


def machine_of(vm: Vm, view: InstanceView, ips: Mapping[str, Ips], explain: Explain) -> Machine | None:
    """None: it is not ours."""
    mark = mark_in(vm.tags)
    if mark is None:
        return None
    spot = vm.properties.priority.lower() in ("spot", "low")
    state, status = _state(vm, view, spot=spot)
    error = None
    if state is MachineState.FAILED:
        error = explain(
            status.code.rpartition("/")[2], status.message, f"{vm.properties.hardware_profile.vm_size}"
        )
    known = ips.get(card_of(vm))
    running = state is MachineState.RUNNING and known is not None
    deleting = vm.properties.provisioning_state.lower() == "deleting"
    return Machine(
        id=machine_id(group_of(vm.id).lower(), vm.name),
        mark=mark,
        state=state,
        region=vm.location.lower(),
        zone=f"{vm.location.lower()}-{vm.zones[0]}" if vm.zones else "",
        kind=vm.properties.hardware_profile.vm_size,
        user=mark.user or "azureuser",
        spot=spot,
        host=(known.public or known.private) if running and known else "",
        ip=known.private if running and known else "",
        created=vm.properties.time_created,
        said=status.message,
        error=error,
        stays=not deleting,
    )


def _state(vm: Vm, view: InstanceView, *, spot: bool) -> tuple[MachineState, Status]:
    codes = {each.code.lower().partition("/")[0]: each for each in view.statuses if each.code}
    power = codes.get("powerstate", Status()).code.lower().partition("/")[2]
    provisioning = vm.properties.provisioning_state.lower()
    said = codes.get("provisioningstate", Status())
    if provisioning == "deleting":
        return MachineState.ENDED, Status()
    has_disk = bool(vm.properties.storage_profile.os_disk.managed_disk.id)
    if provisioning == "failed" and power not in ("running", "starting") and not has_disk:
        return MachineState.FAILED, said  # it was never made; one at rest that could not start has its disk
    if power in _POWER:
        state = _POWER[power]
        if spot and state in (MachineState.STOPPING, MachineState.STOPPED):
            return MachineState.PREEMPTED, Status(message="it was evicted")
        if state is MachineState.ENDED:
            return state, Status(message="it was shut down from inside")
        return state, Status()
    return (MachineState.FAILED, said) if provisioning == "failed" else (MachineState.STARTING, Status())
