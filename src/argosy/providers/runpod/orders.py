"""What is ordered of RunPod, from a claim. Pure."""

from __future__ import annotations

import re
import shlex
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.machine_container import ARGS, PORT, container_env, image_of, open_ports
from argosy.infra.machine_settings import settings_in
from argosy.infra.machine_vendor import MachineOrder
from argosy.model.offer import Capacity
from argosy.model.own_volumes import OwnVolume
from argosy.model.rows import Claim

IMAGE: Final = "runpod/pytorch:1.0.2-cu1281-torch280-ubuntu2404"
DISK_GB: Final = 100
ANYWHERE: Final = ("", "any")  # a region that is none
_KIND: Final = re.compile(r"(\d+)x_(.+)_(SECURE|COMMUNITY)")


class Settings(msgspec.Struct, frozen=True):
    """`config.runpod` of a task."""

    allowed_cuda_versions: list[str] = []
    network_volume: str = ""  # id or name
    network_volume_path: str = "/runpod-volume"
    volumes: tuple[OwnVolume, ...] = ()  # as a task's `volumes` name one
    bid_per_gpu: float = 0.0  # dollars per hour; 0: the price of the offer
    registry: str = ""  # id of a credential of RunPod, for private images


class Kind(msgspec.Struct, frozen=True):
    """`8x_H100-SXM_SECURE`."""

    count: int
    gpu: str
    cloud: str


class Volume(msgspec.Struct, frozen=True):
    id: str
    name: str
    data_center: str = msgspec.field(name="dataCenter")


class Place(msgspec.Struct, frozen=True):
    """Where an order goes: the GPU's id, and data centers that may have it (none: any)."""

    gpu: str
    centers: tuple[str, ...]
    volume: Volume | None = None


def settings_of(claim: Claim) -> Settings:
    """Raises `RequestRefused`."""
    settings = settings_in(claim.choice.resources.config, "runpod", Settings)
    if not settings.volumes:
        return settings
    if len(settings.volumes) > 1 or settings.network_volume:
        raise border.RequestRefused(
            "volumes", "a pod of RunPod has one network volume; keep one in `volumes`"
        )
    (volume,) = settings.volumes
    if not volume.name or volume.sub_path:
        raise border.RequestRefused(
            "volumes", f"`{volume.path}`: write the `name` of a network volume of RunPod, without `sub_path`"
        )
    return msgspec.structs.replace(settings, network_volume=volume.name, network_volume_path=volume.path)


def kind_of(instance_type: str) -> Kind:
    """Raises `RequestRefused`.

    >>> kind_of("8x_H100-SXM_SECURE")
    Kind(count=8, gpu='H100-SXM', cloud='SECURE')
    """
    found = _KIND.fullmatch(instance_type)
    if found is None:
        raise border.RequestRefused(
            "instance_type",
            f"`{instance_type}` is no type of RunPod: they are called like `1x_H100-SXM_SECURE`",
        )
    return Kind(int(found[1]), found[2], found[3])


def names_of(name: str, memory_gb: int) -> set[str]:
    """How the catalog may call a GPU that RunPod calls `name`.

    >>> sorted(names_of("A100 PCIe", 80))
    ['A100', 'A100-80GB', 'A100-80GB-PCIe', 'A100-PCIe', 'A100PCIe']
    """
    words = name.split()
    with_memory = [words[0], f"{memory_gb}GB", *words[1:]]
    found = {"".join(words), "-".join(words), "-".join(with_memory)}
    if words[-1] == "PCIe":
        found |= {"-".join(words[:-1]), "-".join(with_memory[:-1])}
    if words[0] == "RTX" and len(words) > 2:
        found.add("-".join(("".join(words[:2]), *words[2:])))
    return found


def pod_of(order: MachineOrder, index: int, place: Place) -> dict[str, Any]:
    """The body of `POST /v2/pods`."""
    kind, settings = kind_of(order.kind), settings_of(order.claim)
    gpu: dict[str, Any] = {"id": place.gpu, "count": kind.count}
    if settings.allowed_cuda_versions:
        gpu["allowedCudaVersions"] = settings.allowed_cuda_versions
    body = _container(order, index, place) | {"name": order.name(index), "gpu": gpu, "cloud": kind.cloud}
    if settings.registry:
        body["registry"] = settings.registry
    return body


def cluster_of(order: MachineOrder, place: Place) -> dict[str, Any]:
    """The body of `POST /v2/clusters`: all pods of a gang."""
    kind = kind_of(order.kind)
    compute = {"gpuTypeId": place.gpu, "gpuCountPerPod": kind.count, "podCount": order.claim.count}
    return _container(order, 0, place) | {"name": order.claim.id, "type": "TRAINING", "compute": compute}


def _container(order: MachineOrder, index: int, place: Place) -> dict[str, Any]:
    settings = settings_of(order.claim)
    body: dict[str, Any] = {
        "image": image_of(order.claim.choice.resources.image_id, IMAGE),
        "args": shlex.join(ARGS),
        "disk": disk_gb(order.claim),
        "env": environment(order, index),
        "ports": _ports(order.claim),
    }
    if place.centers:
        body["dataCenterIds"] = list(place.centers)
    if place.volume is not None:
        mount = {"volumeId": place.volume.id, "path": settings.network_volume_path}
        body["mounts"] = {"network": [mount]}
    return body


def bid_of(order: MachineOrder, index: int, place: Place) -> dict[str, Any]:
    """The variables of GraphQL's `podRentInterruptable`."""
    kind, settings, offer = kind_of(order.kind), settings_of(order.claim), order.claim.choice.offer
    bid = settings.bid_per_gpu or offer.price_micro_usd / 1e6 / kind.count
    told: dict[str, Any] = {
        "name": order.name(index),
        "imageName": image_of(order.claim.choice.resources.image_id, IMAGE),
        "dockerArgs": shlex.join(ARGS),
        "gpuTypeId": place.gpu,
        "gpuCount": kind.count,
        "cloudType": kind.cloud,
        "bidPerGpu": round(bid, 4),
        "containerDiskInGb": disk_gb(order.claim),
        "volumeInGb": 0,
        "ports": ",".join(_ports(order.claim)),
        "env": [{"key": key, "value": value} for key, value in environment(order, index).items()],
    }
    if settings.allowed_cuda_versions:
        told["allowedCudaVersions"] = settings.allowed_cuda_versions
    if place.centers:
        told["dataCenterId"] = place.centers[0]
    if place.volume is not None:
        told |= {"networkVolumeId": place.volume.id, "volumeMountPath": settings.network_volume_path}
    if settings.registry:
        told["containerRegistryAuthId"] = settings.registry
    return told


def environment(order: MachineOrder, index: int) -> dict[str, str]:
    """What a pod is told, and what its listing tells of it."""
    env = container_env(order, index) | {"ARGOSY_REGION": order.region}
    if order.claim.choice.offer.capacity is Capacity.SPOT:
        env["ARGOSY_SPOT"] = "1"
    return env


def _ports(claim: Claim) -> list[str]:
    """Each gets a public address and a port of RunPod's, which the program finds in RUNPOD_PUBLIC_IP and
    RUNPOD_TCP_PORT_8080."""
    return [f"{port}/tcp" for port in (PORT, *open_ports(claim.choice.resources))]


def disk_gb(claim: Claim) -> int:
    return -(-claim.choice.resources.disk_size_bytes // 10**9) or DISK_GB
