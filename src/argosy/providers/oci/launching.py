"""Bodies of launches at OCI, and what a task says of its network and images. Pure."""

from __future__ import annotations

import base64
import re
from typing import Final

import msgspec

from argosy.infra.machine_settings import settings_in
from argosy.infra.machine_vendor import MachineOrder
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.model.units import GIB

#: Sizes of flexible shapes as the catalog names them: `VM.Standard.E4.Flex$_2_16` has 2 vCPUs and 16 GB.
_FLEXIBLE: Final = re.compile(r"(.+\.Flex)\$_(\d+)_(\d+)")
_DISK_GB: Final = 100
_DISK_SPEED: Final = {"low": 0, "medium": 10, "high": 20, "ultra": 40, "best": 60}  # units per GB
#: Images for Ubuntu refuse all ports but 22 between machines.
_OPEN: Final = (
    "runcmd:\n- [sh, -c, 'iptables -I INPUT -s 10.0.0.0/8 -j ACCEPT; iptables -I FORWARD -j ACCEPT; true']\n"
)


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`config.oci` of a task; `region_configs` has the same by region, and `default`."""

    compartment_ocid: str = ""
    vcn_ocid: str = ""
    vcn_subnet: str = ""
    image_tag_general: str = ""
    image_tag_gpu: str = ""
    oci_config_profile: str = ""
    region_configs: dict[str, Settings] = {}


def shape_of(kind: str) -> tuple[str, dict[str, int]]:
    """The shape of a type of machine, and its size where that is chosen.

    >>> shape_of("VM.Standard.E4.Flex$_4_32"), shape_of("BM.GPU4.8")
    (('VM.Standard.E4.Flex', {'ocpus': 2, 'memoryInGBs': 32}), ('BM.GPU4.8', {}))
    """
    found = _FLEXIBLE.fullmatch(kind)
    if found is None:
        return kind, {}
    arm = ".A1." in found[1] or ".A2." in found[1]  # there an OCPU is one vCPU
    cpus = int(found[2])
    return found[1], {"ocpus": cpus if arm else max(1, cpus // 2), "memoryInGBs": int(found[3])}


def launch_of(
    order: MachineOrder, index: int, *, compartment: str, subnet: str, image: str, user: str
) -> dict[str, object]:
    """The fields of `LaunchInstanceDetails`."""
    wish = order.claim.choice.resources
    shape, config = shape_of(order.kind)
    tags = dict(wish.labels) | order.labels(index, user)
    asked: dict[str, object] = {
        "compartmentId": compartment,
        "availabilityDomain": order.zone,
        "shape": shape,
        "displayName": order.name(index),
        "freeformTags": tags,
        "metadata": {
            "ssh_authorized_keys": order.opens,
            "user_data": base64.b64encode((order.user_data + _OPEN).encode()).decode(),
        },
        "sourceDetails": {
            "sourceType": "image",
            "imageId": image,
            "bootVolumeSizeInGBs": max(50, -(-wish.disk_size_bytes // GIB) or _DISK_GB),
            "bootVolumeVpusPerGB": _DISK_SPEED[wish.disk_tier or "medium"],
        },
        "createVnicDetails": {"subnetId": subnet, "assignPublicIp": True, "hostnameLabel": f"n{index}"},
    }
    if config:
        asked["shapeConfig"] = config
    if order.claim.choice.offer.capacity is Capacity.SPOT:
        asked["preemptibleInstanceConfig"] = {
            "preemptionAction": {"type": "TERMINATE", "preserveBootVolume": False}
        }
    return asked


def settings_of(claim: Claim) -> Settings:
    """The part for OCI of a task's `config`, for the claim's region. Raises `RequestRefused`."""
    told = settings_in(claim.config or claim.choice.resources.config, "oci", Settings)
    for name in ("default", claim.choice.offer.region):
        if name in told.region_configs:
            chosen = msgspec.structs.asdict(told.region_configs[name])
            told = msgspec.structs.replace(told, **{key: value for key, value in chosen.items() if value})
    return told
