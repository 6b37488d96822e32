"""The words of an order: one virtual machine with its network card, public address and disk. Pure."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from argosy.infra.machine_vendor import MachineOrder
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.providers.azure.network import Place
from argosy.providers.azure.wishes import Wishes, has_infiniband

_NETWORK_VERSION: Final = "2022-11-01"  # of what a machine makes with itself


SETS: Final = "/providers/Microsoft.Compute/availabilitySets"
PLACEMENTS: Final = "/providers/Microsoft.Compute/proximityPlacementGroups"


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of what an order refers to; "": of nothing."""

    identity: str = ""
    key: str = ""  # disk encryption set
    reservation: str = ""
    together: str = ""  # availability set
    near: str = ""  # proximity placement group


def machine(order: MachineOrder, index: int, wishes: Wishes, place: Place, beside: Beside) -> dict[str, Any]:
    """Whatever it has goes with it: card, address and disk have no life of their own.

    The same claim and node give the same words.
    """
    name = order.name(index)
    inside: dict[str, Any] = {
        "hardwareProfile": {"vmSize": wishes.kind},
        "storageProfile": {"imageReference": dict(wishes.image), "osDisk": _disk(name, wishes, beside.key)},
        "osProfile": {
            "computerName": name,
            "adminUsername": wishes.user,
            "customData": base64.b64encode(order.user_data.encode()).decode(),
            "linuxConfiguration": {
                "disablePasswordAuthentication": True,
                "ssh": {
                    "publicKeys": [
                        {"path": f"/home/{wishes.user}/.ssh/authorized_keys", "keyData": order.opens}
                    ]
                },
            },
        },
        "networkProfile": {
            "networkApiVersion": _NETWORK_VERSION,
            "networkInterfaceConfigurations": [_card(name, place, fast=wishes.fast_network)],
        },
    }
    if wishes.spot:
        inside |= {
            "priority": "Spot",
            "evictionPolicy": "Deallocate",  # it stays to be seen, until its claim is released
            "billingProfile": {"maxPrice": wishes.max_price},
        }
    if wishes.disk.encrypted:
        inside["securityProfile"] = {"encryptionAtHost": True}
    if beside.reservation:
        inside["capacityReservation"] = {"capacityReservationGroup": {"id": beside.reservation}}
    if beside.together:
        inside["availabilitySet"] = {"id": beside.together}
    elif beside.near:
        inside["proximityPlacementGroup"] = {"id": beside.near}
    body: dict[str, Any] = {
        "location": wishes.region,
        "tags": dict(wishes.labels) | order.labels(index, wishes.user),
        "properties": inside,
    }
    if order.zone:
        body["zones"] = [zone_of(order.zone)]
    if beside.identity:
        body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {beside.identity: {}}}
    return body


def zone_of(zone: str) -> str:
    """As the API names it; "": any.

    >>> zone_of("eastus-2"), zone_of("2")
    ('2', '2')
    """
    return zone.rpartition("-")[2]


def zone_wanted(claim: Claim) -> str:
    """The catalog knows no zones of Azure: a task names one, `azure/eastus/2`; "": any."""
    asked = claim.choice.offer.zone or claim.choice.resources.infra.zone or ""
    return "" if asked == "*" else asked


def joins(claim: Claim) -> str:
    """What the machines of a gang with InfiniBand are put into; "": nothing.

    Only machines of one availability set share a partition of it; spot machines, and those of a zone, can be
    in none: they are placed near each other.
    """
    offer = claim.choice.offer
    if claim.count < 2 or not has_infiniband(offer.shape.instance_type):
        return ""
    return PLACEMENTS if offer.capacity is Capacity.SPOT or zone_wanted(claim) else SETS


def availability_set(region: str) -> dict[str, Any]:
    domains = {"platformFaultDomainCount": 1, "platformUpdateDomainCount": 1}
    return {"location": region, "sku": {"name": "Aligned"}, "properties": domains}


def placement(region: str, zone: str) -> dict[str, Any]:
    body: dict[str, Any] = {"location": region, "properties": {"proximityPlacementGroupType": "Standard"}}
    return body | ({"zones": [zone]} if zone else {})


def _disk(name: str, wishes: Wishes, key: str) -> dict[str, Any]:
    managed: dict[str, Any] = {"storageAccountType": wishes.disk.sku}
    if key:
        managed["diskEncryptionSet"] = {"id": key}
    return {
        "name": f"{name}-os",
        "createOption": "FromImage",
        "deleteOption": "Delete",
        "caching": "ReadWrite",
        "diskSizeGB": wishes.disk.gb,
        "managedDisk": managed,
    }


def _card(name: str, place: Place, *, fast: bool) -> dict[str, Any]:
    address: dict[str, Any] = {"primary": True, "subnet": {"id": place.subnet}}
    if place.public:
        address["publicIPAddressConfiguration"] = {
            "name": f"{name}-ip",
            "sku": {"name": "Standard", "tier": "Regional"},
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    inside: dict[str, Any] = {
        "primary": True,
        "deleteOption": "Delete",
        "networkSecurityGroup": {"id": place.security},
        "ipConfigurations": [{"name": "main", "properties": address}],
    }
    if fast:
        inside["enableAcceleratedNetworking"] = True
    return {"name": f"{name}-nic", "properties": inside}
