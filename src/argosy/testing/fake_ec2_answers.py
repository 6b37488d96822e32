"""What the fake EC2 answers where moto has no answer, or too kind a one: quotas, images by name, placement
groups, capacity reservations, and why an order is refused."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from argosy.testing.fake_ec2_cloud import Ec2Cloud

QUOTA: Final = 1920.0  # vCPUs, where nothing else is said


def answer(
    cloud: Ec2Cloud, service: str, region: str, action: str, params: Mapping[str, Any]
) -> tuple[int, bytes] | None:
    """(HTTP status, body); None: moto answers."""
    if service == "ssm":
        return _parameter(cloud, region, params)
    if service == "servicequotas":
        return _quota(cloud, params)
    match action:
        case "DescribeRegions":
            return 200, _regions(cloud)
        case "CreatePlacementGroup":
            return _make_group(cloud, region, params)
        case "DeletePlacementGroup":
            return _delete_group(cloud, region, params)
        case "DescribeCapacityReservations":
            return _reservations(cloud, region, params)
    return None


def wrong_order(cloud: Ec2Cloud, region: str, params: Mapping[str, str]) -> tuple[str, str] | None:
    """Code and text with which EC2 refuses an order that moto would take."""
    backend, kind = cloud.backend(region), params.get("InstanceType", "")
    zone, count = _zone_of(cloud, region, params), int(params["MinCount"])
    if kind not in _kinds():
        return "InvalidParameterValue", f"Invalid value '{kind}' for InstanceType."
    images = {image.id: image for image in backend.describe_images()}
    image = images.get(params.get("ImageId", ""))
    if image is None:
        return "InvalidAMIID.NotFound", f"The image id '[{params.get('ImageId')}]' does not exist"
    if image.architecture not in _arches(kind):
        return (
            "InvalidParameterValue",
            f"The architecture '{','.join(_arches(kind))}' of the specified instance type does not match the "
            f"architecture '{image.architecture}' of the specified AMI.",
        )
    key = params.get("KeyName")
    if key and all(each.key_name != key for each in backend.key_pairs.values()):
        return "InvalidKeyPair.NotFound", f"The key pair '{key}' does not exist"
    group = params.get("Placement.GroupName")
    if group and (region, group) not in cloud.groups:
        return "InvalidPlacementGroup.Unknown", f"The Placement Group '{group}' is unknown."
    spot = params.get("InstanceMarketOptions.MarketType") == "spot"
    return _over_quota(cloud, region, kind, count, spot=spot) or _no_room(cloud, kind, zone, count, params)


def _over_quota(cloud: Ec2Cloud, region: str, kind: str, count: int, *, spot: bool) -> tuple[str, str] | None:
    code = quota_code(kind, spot=spot)
    used = sum(
        _cpus(each.instance_type)
        for each in cloud.instances()
        if each.region_name == region
        and quota_code(each.instance_type, spot=each.lifecycle == "spot") == code
    )
    limit = cloud.quotas.get(code, QUOTA)
    if used + _cpus(kind) * count <= limit:
        return None
    if spot:
        return "MaxSpotInstanceCountExceeded", "Max spot instance count exceeded"
    text = f"You have requested more vCPU capacity than your current vCPU limit of {limit:g} allows"
    return "VcpuLimitExceeded", text


def _no_room(
    cloud: Ec2Cloud, kind: str, zone: str, count: int, params: Mapping[str, str]
) -> tuple[str, str] | None:
    target = params.get("CapacityReservationSpecification.CapacityReservationTarget.CapacityReservationId")
    if target:
        return None  # it is there by contract
    room = cloud.capacity.get((kind, zone), cloud.capacity.get((kind, "")))
    there = [each for each in cloud.instances() if each.instance_type == kind and _zone(each) == zone]
    if room is None or len(there) + count <= room:
        return None
    text = (
        f"We currently do not have sufficient {kind} capacity in the Availability Zone you requested "
        f"({zone}). Our system will be working on provisioning additional capacity."
    )
    return "InsufficientInstanceCapacity", text


def _zone_of(cloud: Ec2Cloud, region: str, params: Mapping[str, str]) -> str:
    subnet = params.get("SubnetId") or params.get("NetworkInterface.1.SubnetId")
    if subnet:
        for subnets in cloud.backend(region).subnets.values():
            if subnet in subnets:
                return str(subnets[subnet].availability_zone)
    return params.get("Placement.AvailabilityZone") or f"{region}a"


def _regions(cloud: Ec2Cloud) -> bytes:
    rows = "".join(
        f"<item><regionName>{name}</regionName><regionEndpoint>ec2.{name}.amazonaws.com</regionEndpoint>"
        f"<optInStatus>{'not-opted-in' if name in cloud.disabled else 'opt-in-not-required'}"
        "</optInStatus></item>"
        for name in dict.fromkeys((*cloud.regions, *sorted(cloud.disabled)))
    )
    return _xml("DescribeRegionsResponse", f"<regionInfo>{rows}</regionInfo>")


def _make_group(cloud: Ec2Cloud, region: str, params: Mapping[str, str]) -> tuple[int, bytes]:
    name = params["GroupName"]
    if (region, name) in cloud.groups:
        return 400, error("ec2", "InvalidPlacementGroup.Duplicate", f"The group '{name}' already exists.")
    cloud.groups[region, name] = params.get("Strategy", "cluster")
    return 200, _xml("CreatePlacementGroupResponse", "<return>true</return>")


def _delete_group(cloud: Ec2Cloud, region: str, params: Mapping[str, str]) -> tuple[int, bytes]:
    name = params["GroupName"]
    if (region, name) not in cloud.groups:
        return 400, error("ec2", "InvalidPlacementGroup.Unknown", f"The group '{name}' is unknown.")
    if any(
        each.placement.group_name == name and each._state.name != "terminated"
        for each in cloud.instances(live=False)
    ):
        return 400, error("ec2", "InvalidPlacementGroup.InUse", f"The group '{name}' is in use.")
    del cloud.groups[region, name]
    return 200, _xml("DeletePlacementGroupResponse", "<return>true</return>")


def _reservations(cloud: Ec2Cloud, region: str, params: Mapping[str, str]) -> tuple[int, bytes]:
    asked = params.get("CapacityReservationId.1")
    state = params.get("Filter.1.Value.1") if params.get("Filter.1.Name") == "state" else None
    found = [
        each
        for each in cloud.reservations
        if each.region == region and asked in (None, each.id) and state in (None, each.state)
    ]
    if asked and not found:
        text = f"The ID '{asked}' does not exist"
        return 400, error("ec2", "InvalidCapacityReservationId.NotFound", text)
    rows = ""
    for each in found:
        used = sum(one.instance_type == each.kind and _zone(one) == each.zone for one in cloud.instances())
        rows += (
            f"<item><capacityReservationId>{each.id}</capacityReservationId><instanceType>{each.kind}"
            f"</instanceType><availabilityZone>{each.zone}</availabilityZone><state>{each.state}</state>"
            f"<totalInstanceCount>{each.count}</totalInstanceCount><availableInstanceCount>"
            f"{each.count - used}</availableInstanceCount><reservationType>"
            f"{'capacity-block' if each.is_block else 'default'}</reservationType></item>"
        )
    body = f"<capacityReservationSet>{rows}</capacityReservationSet>"
    return 200, _xml("DescribeCapacityReservationsResponse", body)


def _parameter(cloud: Ec2Cloud, region: str, params: Mapping[str, Any]) -> tuple[int, bytes]:
    """Every name of an image that AWS publishes leads to one image of its architecture."""
    name = str(params.get("Name", ""))
    if not name.startswith("/aws/service/"):
        return 400, error("ssm", "ParameterNotFound", "")
    arch = "arm64" if "arm64" in name else "x86_64"
    if (region, arch) not in cloud.images:
        cloud.images[region, arch] = cloud.add_image(region, f"ubuntu-{arch}", arch)
    value = {"Name": name, "Type": "String", "Value": cloud.images[region, arch], "Version": 1}
    return 200, json.dumps({"Parameter": value}).encode()


def _quota(cloud: Ec2Cloud, params: Mapping[str, Any]) -> tuple[int, bytes]:
    code = str(params.get("QuotaCode", ""))
    value = {
        "QuotaCode": code,
        "QuotaName": code,
        "ServiceCode": "ec2",
        "Value": cloud.quotas.get(code, QUOTA),
    }
    return 200, json.dumps({"Quota": value}).encode()


def quota_code(kind: str, *, spot: bool) -> str:
    """Which limit of vCPUs a machine counts in: a table of the fake's own, so that a wrong one in the driver
    shows."""
    family = re.match(r"[a-z]+", kind)
    letters = family.group() if family else ""
    if letters in ("g", "gr", "vt"):
        return "L-3819A6DF" if spot else "L-DB2E81BA"
    if letters == "p":
        return ("L-C4BD4855" if kind.startswith("p5") else "L-7212CCBC") if spot else "L-417A185B"
    return "L-34B43A08" if spot else "L-1216C47A"


def error(service: str, code: str, text: str) -> bytes:
    """The body of an error, as the service writes it."""
    if service in ("ssm", "servicequotas"):
        return json.dumps({"__type": code, "message": text, "Message": text}).encode()
    said = f"<Code>{code}</Code><Message>{escape(text)}</Message>"
    if service == "sts":
        kind = 'xmlns="https://sts.amazonaws.com/doc/2011-06-15/"'
        return f"<ErrorResponse {kind}><Error><Type>Sender</Type>{said}</Error></ErrorResponse>".encode()
    return f"<Response><Errors><Error>{said}</Error></Errors></Response>".encode()


def _xml(name: str, inner: str) -> bytes:
    return f'<{name} xmlns="http://ec2.amazonaws.com/doc/2016-11-15/">{inner}</{name}>'.encode()


def _zone(instance: Any) -> str:
    return str(instance.placement.availability_zone)


def _kinds() -> Mapping[str, Any]:
    from moto.ec2.models.instance_types import INSTANCE_TYPES

    kinds: Mapping[str, Any] = INSTANCE_TYPES
    return kinds


def _cpus(kind: str) -> int:
    return int(_kinds()[kind]["VCpuInfo"]["DefaultVCpus"]) if kind in _kinds() else 0


def _arches(kind: str) -> list[str]:
    return list(_kinds()[kind]["ProcessorInfo"]["SupportedArchitectures"])
