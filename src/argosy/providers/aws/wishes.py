"""What a claim asks of AWS beyond a type of machine: network, disk, image, who its programs are. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_images import asked_image
from argosy.infra.machine_settings import settings_in
from argosy.model.rows import Claim
from argosy.model.units import GIB

DISK_GB: Final = 100  # of the root volume when nothing is said
_NO_PROFILE: Final = frozenset(("", "LOCAL_CREDENTIALS", "NO_UPLOAD"))


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`config.aws` of a task."""

    vpc_name: str = ""
    subnet_names: tuple[str, ...] | str = ()
    security_group_name: str = ""
    remote_identity: str = ""  # name or ARN of an instance profile
    key_name: str = ""  # a key pair of the account that opens the machines, too
    ssh_user: str = ""  # of an image of one's own
    capacity_reservation: str = ""  # `cr-...`: of capacity that is paid for already, or a capacity block
    kms_key: str = ""  # with which the disk is encrypted
    encrypted: bool = False  # the disk, with the account's own key when none is named


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """The root volume."""

    gb: int
    tier: str
    encrypted: bool
    kms_key: str


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """All that one order says."""

    kind: str  # type of machine
    arch: str
    accelerator: str
    cpus: int  # vCPUs of one machine
    count: int
    spot: bool
    region: str
    zone: str  # "": any
    vpc: str
    subnets: tuple[str, ...]
    groups: tuple[str, ...]
    profile: str
    key_name: str
    ssh_user: str
    reservation: str
    image_id: str
    disk: Disk
    ports: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    best_network: bool


def wishes_of(claim: Claim) -> Wishes:
    """Raises `RequestRefused` for settings that cannot be meant."""
    choice, asked = claim.choice, claim.choice.resources
    offer, settings = choice.offer, settings_of(asked.config)
    net = asked.networking
    subnets = settings.subnet_names
    groups = (settings.security_group_name,) if settings.security_group_name else ()
    for key, _ in asked.labels:
        if key.lower().startswith("aws:"):
            text = f"the label `{key}` begins with `aws:`, which AWS keeps for itself"
            raise border.RequestRefused("labels", text)
    return Wishes(
        kind=offer.shape.instance_type,
        arch=offer.shape.arch,
        accelerator=offer.shape.accelerator or "",
        cpus=offer.shape.cpus_milli // 1000,
        count=claim.count,
        spot=offer.capacity.value == "spot",
        region=offer.region,
        zone=offer.zone,
        vpc=net.vpc_name or settings.vpc_name,
        subnets=net.subnet_names or ((subnets,) if isinstance(subnets, str) else subnets),
        groups=net.security_groups or groups,
        profile=_profile(settings.remote_identity),
        key_name=settings.key_name,
        ssh_user=settings.ssh_user,
        reservation=settings.capacity_reservation,
        image_id=asked_image(claim),
        disk=Disk(
            gb=-(-asked.disk_size_bytes // GIB) or DISK_GB,
            tier=asked.disk_tier or "medium",
            encrypted=settings.encrypted or bool(settings.kms_key),
            kms_key=settings.kms_key,
        ),
        ports=asked.ports,
        labels=asked.labels,
        best_network=asked.network_tier == "best",
    )


def settings_of(config: str) -> Settings:
    """The part for AWS of a task's `config`.

    >>> settings_of('{"aws": {"vpc_name": "lab"}}').vpc_name
    'lab'
    """
    return settings_in(config, "aws", Settings)


def _profile(identity: str) -> str:
    if identity == "SERVICE_ACCOUNT":
        raise border.RequestRefused(
            "config.aws.remote_identity",
            "Argosy makes no instance profile of its own: name the one that programs shall have in "
            "`config.aws.remote_identity` (`aws iam list-instance-profiles` lists them)",
        )
    return "" if identity in _NO_PROFILE else identity
