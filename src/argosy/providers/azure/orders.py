"""The words of an order: one virtual machine with its network card, public address and disk. Pure."""

from __future__ import annotations

import base64
from typing import Any, Final

import msgspec

from argosy.infra.machine_vendor import MachineOrder
from argosy.providers.azure.network import Place
from argosy.providers.azure.wishes import Wishes

_NETWORK_VERSION: Final = "2022-11-01"  # of what a machine makes with itself


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
            "networkInterfaceConfigurations": [_card(name, place)],
        },
    }
    if wishes.spot:
        inside |= {
            "priority": "Spot",
            "evictionPolicy": "Deallocate",  # it stays to be seen, until its claim is released
            "billingProfile": {"maxPrice": -1},
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
        body["zones"] = [order.zone.rpartition("-")[2]]
    if beside.identity:
        body["identity"] = {"type": "UserAssigned", "userAssignedIdentities": {beside.identity: {}}}
    return body


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


def _card(name: str, place: Place) -> dict[str, Any]:
    address: dict[str, Any] = {"primary": True, "subnet": {"id": place.subnet}}
    if place.public:
        address["publicIPAddressConfiguration"] = {
            "name": f"{name}-ip",
            "sku": {"name": "Standard", "tier": "Regional"},
            "properties": {"deleteOption": "Delete", "publicIPAllocationMethod": "Static"},
        }
    inside = {
        "primary": True,
        "deleteOption": "Delete",
        "networkSecurityGroup": {"id": place.security},
        "ipConfigurations": [{"name": "main", "properties": address}],
    }
    return {"name": f"{name}-nic", "properties": inside}
