"""What a claim asks of Azure beyond a size of machine: network, disk, image, who its programs are. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_images import asked_image
from argosy.infra.machine_settings import settings_in
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.model.units import GIB

DISK_GB: Final = 128  # of the OS disk when nothing is said; disks are paid by steps, and this is one
USER: Final = "azureuser"
_TIERS: Final = {
    "": "StandardSSD_LRS",
    "low": "Standard_LRS",
    "medium": "StandardSSD_LRS",
    "high": "Premium_LRS",
    "best": "Premium_LRS",
}
_NO_IDENTITY: Final = frozenset(("", "LOCAL_CREDENTIALS", "NO_UPLOAD"))
_INFINIBAND: Final = re.compile(r"_(N[CD]\d+[a-z]*r[a-z]*_|H[BCX]\d+[a-z-]*\d*r)")
_FAST: Final = re.compile(r"_N[CD]\w*_v[45]$")  # all of these can have it
#: Early series without premium disks start only from images for the first generation of Hyper-V.
_FIRST_GENERATION: Final = re.compile(r"_(A\d+m?_v2|D\d+i?(_v[23])?|E\d+i?(_v3)?|[FG]\d+|H\d+m?r?)$")
_NO_DRIVER: Final = re.compile(r"_NV\d")
_UBUNTU: Final = {
    "x86_64": "Canonical:ubuntu-24_04-lts:server:latest",
    "generation 1": "Canonical:ubuntu-24_04-lts:server-gen1:latest",
    "arm64": "Canonical:ubuntu-24_04-lts:server-arm64:latest",
}
_HPC: Final = "microsoft-dsvm:ubuntu-hpc:2204:latest"
_HPC_AMD: Final = "microsoft-dsvm:ubuntu-hpc:2204-rocm:latest"
_HPC_ARM: Final = "microsoft-dsvm:ubuntu-hpc:2404-gb200:latest"
_AMD: Final = ("MI", "Radeon")


class Settings(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`config.azure` of a task."""

    resource_group_vm: str = ""  # that machines are made in, instead of Argosy's own
    storage_account: str = ""  # of stores; machines do not need it
    remote_identity: str = ""  # name or id of a user-assigned managed identity
    ssh_user: str = ""  # the name of the user that is made on machines
    capacity_reservation: str = ""  # name or id of a capacity reservation group
    kms_key: str = ""  # name or id of a disk encryption set
    encrypted: bool = False  # disks and caches are encrypted on the host, too


class Disk(msgspec.Struct, frozen=True, kw_only=True):
    """The OS disk."""

    gb: int
    sku: str
    key: str  # disk encryption set
    encrypted: bool


class Wishes(msgspec.Struct, frozen=True, kw_only=True):
    """All that one order says."""

    kind: str  # size of machine
    count: int
    spot: bool
    region: str
    group: str  # resource group; "": Argosy's own of the region
    vnet: str
    subnets: tuple[str, ...]
    security: str  # network security group of one's own
    identity: str
    user: str
    reservation: str
    image: Mapping[str, str]  # as the API takes it
    disk: Disk
    ports: tuple[str, ...]
    labels: tuple[tuple[str, str], ...]
    max_price: float  # dollars an hour up to which a spot machine stays; -1: the price on demand
    fast_network: bool  # the card goes past the host's switch


def wishes_of(claim: Claim) -> Wishes:
    """Raises `RequestRefused` for what cannot be meant."""
    choice, asked = claim.choice, claim.choice.resources
    offer, settings = choice.offer, settings_of(asked.config)
    net = asked.networking
    if len(net.security_groups) > 1:
        raise border.RequestRefused(
            "networking.security_groups",
            "a machine of Azure takes one network security group: name one, with the rules of all",
        )
    tier = asked.disk_tier or ""
    if tier not in _TIERS:
        raise border.RequestRefused(
            "disk_tier", f"Azure has no OS disk of the tier `{tier}`: low, medium, high and best are there"
        )
    return Wishes(
        kind=offer.shape.instance_type,
        count=claim.count,
        spot=offer.capacity is Capacity.SPOT,
        region=offer.region,
        group=settings.resource_group_vm,
        vnet=net.vpc_name,
        subnets=net.subnet_names,
        security=net.security_groups[0] if net.security_groups else "",
        identity=_identity(settings.remote_identity),
        user=settings.ssh_user or USER,
        reservation=settings.capacity_reservation,
        image=_image(asked_image(claim) or _usual(claim)),
        disk=Disk(
            gb=-(-asked.disk_size_bytes // GIB) or DISK_GB,
            sku=_TIERS[tier],
            key=settings.kms_key,
            encrypted=settings.encrypted,
        ),
        ports=tuple(_port(each) for each in asked.ports),
        labels=asked.labels,
        max_price=_max_price(claim),
        fast_network=asked.network_tier == "best" or bool(_FAST.search(offer.shape.instance_type)),
    )


def settings_of(config: str) -> Settings:
    """The part for Azure of a task's `config`.

    >>> settings_of('{"azure": {"resource_group_vm": "lab"}}').resource_group_vm
    'lab'
    """
    return settings_in(config, "azure", Settings)


def has_infiniband(kind: str) -> bool:
    """Whether machines of a size are joined by InfiniBand: the `r` in its name says so.

    >>> has_infiniband("Standard_ND96isr_H100_v5"), has_infiniband("Standard_HB120rs_v3")
    (True, True)
    >>> has_infiniband("Standard_NC40ads_H100_v5"), has_infiniband("Standard_ND96is_noIB_H100_v5")
    (False, False)
    """
    return bool(_INFINIBAND.search(kind))


def _max_price(claim: Claim) -> float:
    """What the task pays at most, of each machine; Azure takes five decimals."""
    most = claim.choice.resources.max_hourly_micro_usd
    return -1.0 if most is None else round(most / claim.count / 1e6, 5)


def _identity(name: str) -> str:
    if name == "SERVICE_ACCOUNT":
        raise border.RequestRefused(
            "config.azure.remote_identity",
            "Argosy makes no identity of its own: name the managed identity that programs shall have in "
            "`config.azure.remote_identity` (`az identity list` lists them)",
        )
    return "" if name in _NO_IDENTITY else name


def _usual(claim: Claim) -> str:
    shape = claim.choice.offer.shape
    if not shape.accelerator:
        arch = "generation 1" if _FIRST_GENERATION.search(shape.instance_type) else shape.arch
        return _UBUNTU.get(arch, _UBUNTU["x86_64"])
    if _NO_DRIVER.search(shape.instance_type):
        raise border.RequestRefused(
            "image_id",
            f"{shape.instance_type} needs a GRID driver, which no public image of Azure has: give an image "
            "that has it with `image_id`, or take a size whose name begins with NC or ND",
        )
    if shape.arch == "arm64":
        return _HPC_ARM
    return _HPC_AMD if shape.accelerator.startswith(_AMD) else _HPC


def _image(text: str) -> dict[str, str]:
    """An image as the API takes it, of a URN or an id.

    >>> _image("Canonical:ubuntu-24_04-lts:server:latest")["offer"]
    'ubuntu-24_04-lts'
    >>> _image("/communityGalleries/g/images/i/versions/latest")
    {'communityGalleryImageId': '/communityGalleries/g/images/i/versions/latest'}
    """
    parts = text.split(":")
    if len(parts) == 4 and all(parts):
        return dict(zip(("publisher", "offer", "sku", "version"), parts, strict=True))
    lower = text.lower()
    if lower.startswith("/communitygalleries/"):
        return {"communityGalleryImageId": text}
    if lower.startswith("/sharedgalleries/"):
        return {"sharedGalleryImageId": text}
    if lower.startswith("/subscriptions/"):
        return {"id": text}
    raise border.RequestRefused(
        "image_id",
        f"`{text}` is not an image of Azure: give a URN, PUBLISHER:OFFER:SKU:VERSION (`az vm image "
        "list`), or the id of an image or of a gallery's",
    )


def _port(text: str) -> str:
    """One port or a range, as a rule takes it."""
    first, _, last = text.partition("-")
    if not first.isdigit() or (last and not last.isdigit()):
        raise border.RequestRefused("ports", f"`{text}` is neither a port nor a range of ports")
    return f"{int(first)}-{int(last)}" if last else str(int(first))
