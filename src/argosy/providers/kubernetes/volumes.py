"""Volumes of a task (`type: k8s-pvc` or `k8s-hostpath`): what stands in its pods, and claims that are made
when they are not there yet, for a task or to stay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import msgspec

from argosy.infra import border
from argosy.model.own_volumes import OwnVolume
from argosy.providers.kubernetes.api import Api

_HOSTPATH: Final = "k8s-hostpath"
_OURS: Final = ("app.kubernetes.io/managed-by", "argosy")
_MODES: Final = ("ReadWriteOnce", "ReadOnlyMany", "ReadWriteMany", "ReadWriteOncePod")


def mount_volumes(spec: dict[str, Any], volumes: Sequence[OwnVolume], pods: int) -> None:
    """In a pod's `spec`, of which there are `pods`. Raises RequestRefused."""
    for number, volume in enumerate(volumes):
        name = f"argosy-volume-{number}"
        spec["volumes"].append({"name": name, **_source(volume, pods)})
        mount = {"name": name, "mountPath": volume.path}
        if volume.sub_path:
            mount["subPath"] = volume.sub_path
        spec["containers"][0]["volumeMounts"].append(mount)


def claims_of(volumes: Sequence[OwnVolume], pods: int) -> Iterator[dict[str, Any]]:
    """Claims with a name and a size: one that is there already is used as it is."""
    for volume in volumes:
        if volume.type != _HOSTPATH and volume.name and volume.size_bytes:
            yield {
                "apiVersion": "v1",
                "kind": "PersistentVolumeClaim",
                "metadata": {"name": volume.name, "labels": dict([_OURS])},
                "spec": _claim(volume, pods),
            }


class _Labels(msgspec.Struct, frozen=True):
    labels: dict[str, str] = {}


class _Found(msgspec.Struct, frozen=True):
    metadata: _Labels = _Labels()


async def make_volume(api: Api, namespace: str, volume: OwnVolume) -> bool:
    """Whether the claim, which is there now, is one that was made here. Raises a border error."""
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims"
    for claim in claims_of((volume,), 1):
        await api.call("POST", path, into=msgspec.Raw, json=claim, fine=(409,))
    if volume.type == _HOSTPATH:
        _source(volume, 1)
        return False
    found = await api.find(f"{path}/{volume.name}", into=_Found)
    if found is None:
        raise border.RequestRefused(
            "volumes", f"there is no claim `{volume.name}` in {namespace} of {api.context.name}"
        )
    return _OURS in found.metadata.labels.items()


async def remove_volume(api: Api, namespace: str, volume: OwnVolume) -> None:
    """Pods that have it keep it until they end. Raises a border error."""
    path = f"/api/v1/namespaces/{namespace}/persistentvolumeclaims/{volume.name}"
    found = None if volume.type == _HOSTPATH else await api.find(path, into=_Found)
    if found is not None and _OURS in found.metadata.labels.items():
        await api.call("DELETE", path, into=msgspec.Raw, fine=(404,))


def _source(volume: OwnVolume, pods: int) -> dict[str, Any]:
    if volume.type == _HOSTPATH:
        if not volume.config.host_path.startswith("/"):
            raise border.RequestRefused(
                "volumes", f"`{volume.path}`: {_HOSTPATH} needs `config: {{host_path: /PATH}}`"
            )
        return {"hostPath": {"path": volume.config.host_path, "type": "DirectoryOrCreate"}}
    if volume.name:
        return {"persistentVolumeClaim": {"claimName": volume.name}}
    if pods > 1:
        raise border.RequestRefused(
            "volumes",
            f"`{volume.path}`: a claim without a name is one pod's, and these are {pods}; give it a `name`",
        )
    return {"ephemeral": {"volumeClaimTemplate": {"spec": _claim(volume, pods)}}}


def _claim(volume: OwnVolume, pods: int) -> dict[str, Any]:
    mode = volume.config.access_mode or (_MODES[2] if pods > 1 else _MODES[0])
    if mode not in _MODES:
        raise border.RequestRefused(
            "volumes", f"`{volume.path}`: `access_mode: {mode}` is none of {', '.join(_MODES)}"
        )
    spec: dict[str, Any] = {
        "accessModes": [mode],
        "resources": {"requests": {"storage": str(volume.size_bytes)}},
    }
    if volume.config.storage_class_name:
        spec["storageClassName"] = volume.config.storage_class_name
    return spec
