"""The words of an order: what `RunInstances` is told. Pure.

All machines of a claim come from one call with MinCount = MaxCount: all or none, in one zone. Marks are part
of the call, so nothing is ever made without them.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.machines import CLAIM, NODES, TAG, USER
from argosy.model.rows import Claim
from argosy.providers.aws.images import Image
from argosy.providers.aws.network import Place, Subnet
from argosy.providers.aws.wishes import Disk, Wishes

_NAME: Final = "Name"  # the tag that the console shows
_MARKED: Final = ("instance", "volume", "network-interface")
_IOPS_MAX, _IOPS_PER_GB = 64_000, 500


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """What a type of machine can do, as `DescribeInstanceTypes` tells."""

    efa_cards: int = 0  # network cards that speak EFA
    clusters: bool = False  # placement groups that keep machines close
    arches: tuple[str, ...] = ()


class Reservation(msgspec.Struct, frozen=True, kw_only=True):
    """Capacity that is paid for already."""

    id: str
    zone: str
    is_block: bool


def kind_of(answer: dict[str, Any]) -> Kind:
    """From an item of `DescribeInstanceTypes`."""
    network = answer.get("NetworkInfo", {})
    cards = network.get("EfaInfo", {}).get("MaximumEfaInterfaces", 1) if network.get("EfaSupported") else 0
    strategies = answer.get("PlacementGroupInfo", {}).get("SupportedStrategies", ())
    arches = answer.get("ProcessorInfo", {}).get("SupportedArchitectures", ())
    return Kind(efa_cards=cards, clusters="cluster" in strategies, arches=tuple(arches))


def token_of(claim_id: str, zone: str) -> str:
    """The same order has the same token; one for each zone, since a token belongs to one request."""
    return f"{claim_id}-{zone}"[:64]


def group_of(claim_id: str) -> str:
    """Name of the placement group of a gang."""
    return f"argosy-{claim_id}"


def marks_of(claim: Claim, wishes: Wishes, user: str) -> list[dict[str, str]]:
    """Tags of everything that is made for a claim. The index of a node is its place in the launch."""
    own = {_NAME: claim.id, CLAIM: claim.id, TAG: claim.tag, NODES: str(claim.count), USER: user}
    return [{"Key": key, "Value": value} for key, value in (dict(wishes.labels) | own).items()]


def order_of(
    claim: Claim,
    wishes: Wishes,
    *,
    subnet: Subnet,
    place: Place,
    image: Image,
    user_data: str,
    kind: Kind,
    reservation: Reservation | None,
) -> dict[str, Any]:
    """The fields of `RunInstances`."""
    marks = marks_of(claim, wishes, image.user)
    marked = (*_MARKED, "spot-instances-request") if wishes.spot else _MARKED
    order: dict[str, Any] = {
        "ImageId": image.id,
        "InstanceType": wishes.kind,
        "MinCount": wishes.count,
        "MaxCount": wishes.count,
        "ClientToken": token_of(claim.id, subnet.zone),
        "UserData": user_data,
        "BlockDeviceMappings": [{"DeviceName": image.device, "Ebs": disk_of(wishes.disk, image.gb)}],
        "InstanceInitiatedShutdownBehavior": "terminate",
        "MetadataOptions": {
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": 2,
            "HttpEndpoint": "enabled",
        },
        "TagSpecifications": [{"ResourceType": each, "Tags": marks} for each in marked],
    }
    efa = efa_cards(wishes, kind, subnet)
    if efa:
        order["NetworkInterfaces"] = [_interface(card, subnet, place, alone=efa == 1) for card in range(efa)]
    else:
        order["SubnetId"], order["SecurityGroupIds"] = subnet.id, list(place.groups)
    if wishes.count > 1 and kind.clusters:
        order["Placement"] = {"GroupName": group_of(claim.id)}
    if wishes.key_name:
        order["KeyName"] = wishes.key_name
    if wishes.profile:
        field = "Arn" if wishes.profile.startswith("arn:") else "Name"
        order["IamInstanceProfile"] = {field: wishes.profile}
    if wishes.spot:
        options = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
        order["InstanceMarketOptions"] = {"MarketType": "spot", "SpotOptions": options}
    if reservation is not None:
        target = {"CapacityReservationId": reservation.id}
        order["CapacityReservationSpecification"] = {"CapacityReservationTarget": target}
        if reservation.is_block:
            order["InstanceMarketOptions"] = {"MarketType": "capacity-block"}
    return order


def efa_cards(wishes: Wishes, kind: Kind, subnet: Subnet) -> int:
    """On how many network cards EFA is used; 0: none. A gang uses what it can have without being asked.

    Raises `RequestRefused` where `network_tier: best` cannot be given.
    """
    if not kind.efa_cards or not (wishes.best_network or wishes.count > 1):
        return 0
    if kind.efa_cards == 1 or not subnet.public:
        return kind.efa_cards
    if wishes.best_network:
        raise border.RequestRefused(
            "network_tier",
            f"{wishes.kind} has {kind.efa_cards} network cards, and AWS gives no public address to a machine "
            "that uses several: name a private subnet that this server reaches (`networking: "
            "{subnet_name: NAME}`), or leave `network_tier` out and use one card",
        )
    return 1


def _interface(card: int, subnet: Subnet, place: Place, *, alone: bool) -> dict[str, Any]:
    interface: dict[str, Any] = {
        "DeviceIndex": 0 if card == 0 else 1,
        "NetworkCardIndex": card,
        "InterfaceType": "efa" if card == 0 else "efa-only",
        "SubnetId": subnet.id,
        "Groups": list(place.groups),
        "DeleteOnTermination": True,
    }
    if alone and subnet.public:
        interface["AssociatePublicIpAddress"] = True
    return interface


def disk_of(disk: Disk, needs_gb: int) -> dict[str, Any]:
    """The root volume, which goes with its machine.

    >>> disk_of(Disk(gb=20, tier="high", encrypted=False, kms_key=""), 8)["Iops"]
    7000
    """
    gb = max(disk.gb, needs_gb)
    ebs: dict[str, Any] = {"VolumeSize": gb, "DeleteOnTermination": True, "VolumeType": "gp3"}
    if disk.tier == "low":
        ebs["VolumeType"] = "standard"
    elif disk.tier == "high":
        ebs["Iops"] = min(7000, _IOPS_PER_GB * gb)
        ebs["Throughput"] = min(500, ebs["Iops"] // 4)
    elif disk.tier in ("ultra", "best"):
        ebs["VolumeType"] = "io2"
        ebs["Iops"] = min(_IOPS_MAX, _IOPS_PER_GB * gb)
    if disk.encrypted:
        ebs["Encrypted"] = True
        if disk.kms_key:
            ebs["KmsKeyId"] = disk.kms_key
    return ebs
