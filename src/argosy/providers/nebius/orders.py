"""What is ordered of Nebius: the vendor's own messages, from a claim."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_settings import settings_in
from argosy.infra.machine_vendor import MachineOrder
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.model.units import GIB

USER: Final = "ubuntu"
DISK_GIB: Final = 100
_FAMILY_GPU, _FAMILY_CPU = "ubuntu24.04-cuda13.0", "ubuntu24.04-driverless"
_TIERS: Final = {"low": "NETWORK_HDD", "high": "NETWORK_SSD_IO_M3", "ultra": "NETWORK_SSD_IO_M3"}
_STEP_GIB: Final = 93  # disks of this type come in multiples of it
_USERS: Final = """\
users:
- name: {user}
  sudo: ALL=(ALL) NOPASSWD:ALL
  shell: /bin/bash
  ssh_authorized_keys:
  - {opens}
"""


class Region(msgspec.Struct, frozen=True):
    project_id: str = ""
    fabric: str = ""  # of InfiniBand


class Settings(msgspec.Struct, frozen=True):
    """`config.nebius` of a task."""

    region_configs: dict[str, Region] = {}
    use_internal_ips: bool = False  # machines have no public address: this server is in their network


def settings_of(claim: Claim) -> Settings:
    """Raises `RequestRefused`."""
    return settings_in(claim.choice.resources.config, "nebius", Settings)


def kind_of(claim: Claim) -> tuple[str, str]:
    """Platform and preset: `gpu-h100-sxm_8gpu-128vcpu-1600gb`. Raises `RequestRefused`."""
    kind = claim.choice.offer.shape.instance_type
    platform, _, preset = kind.partition("_")
    if not preset:
        raise border.RequestRefused(
            "instance_type", f"`{kind}` is no type of machine of Nebius: they are called PLATFORM_PRESET"
        )
    return platform, preset


def may_cluster(claim: Claim) -> bool:
    """Whether the machines of a claim may have InfiniBand between them: whole hosts have, of which each has
    eight GPUs."""
    return claim.count > 1 and claim.choice.offer.shape.accelerators_milli >= 8000


def instance_of(order: MachineOrder, index: int, *, project: str, subnet: str, cluster: str) -> Any:
    """The request for one machine."""
    from nebius.api.nebius.common.v1 import ResourceMetadata
    from nebius.api.nebius.compute.v1 import (
        CreateInstanceRequest,
        FollowsSpotPriceSpec,
        InstanceGpuClusterSpec,
        InstanceRecoveryPolicy,
        InstanceSpec,
        IPAddress,
        NetworkInterfaceSpec,
        PreemptibleSpec,
        PublicIPAddress,
        ResourcesSpec,
        SecurityGroup,
    )

    claim, wish = order.claim, order.claim.choice.resources
    platform, preset = kind_of(claim)
    name, labels = order.name(index), dict(wish.labels) | order.labels(index)
    public = not settings_of(claim).use_internal_ips
    card = NetworkInterfaceSpec(
        name="eth0",
        subnet_id=subnet,
        ip_address=IPAddress(),
        public_ip_address=PublicIPAddress() if public else None,
        security_groups=[SecurityGroup(id=each) for each in wish.networking.security_groups],
    )
    spec = InstanceSpec(
        resources=ResourcesSpec(platform=platform, preset=preset),
        boot_disk=_disk(claim, name, labels),
        cloud_init_user_data=order.user_data + _USERS.format(user=USER, opens=order.opens),
        network_interfaces=[card],
        hostname=name,
        # What fails shall be seen as failed: who ordered it decides what comes next.
        recovery_policy=InstanceRecoveryPolicy.FAIL,
    )
    if claim.choice.offer.capacity is Capacity.SPOT:
        spec.preemptible = PreemptibleSpec(on_preemption=PreemptibleSpec.PreemptionPolicy.STOP)
        spec.follows_spot_price = FollowsSpotPriceSpec()
    if cluster:
        spec.gpu_cluster = InstanceGpuClusterSpec(id=cluster)
    metadata = ResourceMetadata(parent_id=project, name=name, labels=labels)
    return CreateInstanceRequest(metadata=metadata, spec=spec)


def _disk(claim: Claim, name: str, labels: dict[str, str]) -> Any:
    """The disk that a machine boots from, which goes with it."""
    from nebius.api.nebius.compute.v1 import AttachedDiskSpec, DiskSpec, ManagedDisk, SourceImageFamily

    wish = claim.choice.resources
    tier = _TIERS.get("ultra" if wish.disk_tier == "best" else wish.disk_tier or "", "NETWORK_SSD")
    gib = -(-wish.disk_size_bytes // GIB) or DISK_GIB
    if tier == "NETWORK_SSD_IO_M3":
        gib = -(-gib // _STEP_GIB) * _STEP_GIB
    spec = DiskSpec(size_gibibytes=gib, type=DiskSpec.DiskType[tier])
    image = wish.image_id or (_FAMILY_GPU if claim.choice.offer.shape.accelerator else _FAMILY_CPU)
    if image.startswith("computeimage-"):
        spec.source_image_id = image
    else:
        spec.source_image_family = SourceImageFamily(image_family=image)
    return AttachedDiskSpec(
        attach_mode=AttachedDiskSpec.AttachMode.READ_WRITE,
        managed_disk=ManagedDisk(name=name, labels=labels, spec=spec),
    )
