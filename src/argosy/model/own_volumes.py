"""Volumes of a provider's own types, as SkyPilot's task files name them: `type: …` under `volumes`. Pure.

Such a volume binds its task to that place; its driver reads it in `config.<place>.volumes`.
"""

from __future__ import annotations

from typing import Any

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.places import ALIASES, REGION_IS_REST, VOLUME_TYPES
from argosy.model.resources import Infra, Resources
from argosy.model.task import Task, VolumeMount


class VolumeConfig(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`config` of a volume, as far as a driver acts on it."""

    host_path: str = ""
    storage_class_name: str = ""
    access_mode: str = ""


class OwnVolume(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a driver mounts at `path`."""

    type: str
    path: str
    name: str = ""  # "": it is made for the task, and goes with it
    size_bytes: int = 0  # of one that is made; 0: it is there
    sub_path: str = ""
    config: VolumeConfig = VolumeConfig()


class VolumeExtra(msgspec.Struct, frozen=True, kw_only=True):
    """What of `VolumeMount.extra` is read."""

    infra: str = ""
    config: VolumeConfig = VolumeConfig()


def type_of(volume: VolumeMount) -> str:
    """Of which kind it is; "": a folder of the server, or of the node."""
    if volume.type or not extra_of(volume).config.host_path:
        return volume.type
    return next((each for each in VOLUME_TYPES if each.endswith("hostpath")), "")


def extra_of(volume: VolumeMount) -> VolumeExtra:
    try:
        return msgspec.json.decode(volume.extra or "{}", type=VolumeExtra)
    except msgspec.ValidationError as error:
        raise _wrong(f"`{volume.target}`: {error}", "write what SkyPilot's `volumes` have") from None


def infra_of(text: str) -> Infra:
    """`PLACE[/REGION[/ZONE]]`, as it is written at a volume.

    >>> infra_of("k8s/team/lab")
    Infra(provider='kubernetes', region='team/lab', zone=None)
    """
    named, _, rest = text.partition("/")
    place = ALIASES.get(named, named)
    region, _, zone = (rest, "", "") if place in REGION_IS_REST else rest.partition("/")
    return Infra(provider=place or None, region=region or None, zone=zone or None)


def with_own_volumes(task: Task) -> Task:
    """With what its place mounts in its configuration, and on no other place. Raises "spec-invalid"."""
    own = [(each, type_of(each)) for each in task.volumes if each.type or each.extra]
    own = [(each, kind) for each, kind in own if kind]
    if not own:
        return task
    places = sorted({_place_of(each, kind) for each, kind in own})
    if len(places) > 1:
        raise _wrong(
            f"the task has volumes of {' and of '.join(places)}, and runs in one place",
            "keep those of one place",
        )
    (place,) = places
    volumes = [_checked(each, kind) for each, kind in own]
    region = next((infra_of(extra_of(each).infra).region for each, _ in own if extra_of(each).infra), None)
    candidates = tuple(_bound(each, place, region, own[0][0].target, volumes) for each in task.resources)
    return msgspec.structs.replace(task, resources=candidates, config=_with(task.config, place, volumes))


def _place_of(volume: VolumeMount, kind: str) -> str:
    place = VOLUME_TYPES.get(kind)
    if place is None:
        known = ", ".join(sorted(VOLUME_TYPES))
        raise _wrong(
            f"`{volume.target}`: `type: {kind}` is no kind of volume that can be mounted",
            f"one of {known}; without `type` it is a folder of the server (argosy folder create)",
        )
    infra = extra_of(volume).infra.partition("/")[0]
    if infra and ALIASES.get(infra, infra) != place:
        raise _wrong(f"`{volume.target}`: `{kind}` is a volume of {place}, not of {infra}", "correct `infra`")
    return place


def _checked(volume: VolumeMount, kind: str) -> OwnVolume:
    if not volume.target.startswith("/"):
        raise _wrong(f"`{volume.target}`: a volume of {kind} is at a whole path", "write it with a `/` first")
    config = extra_of(volume).config
    if not (volume.name or volume.size_bytes or config.host_path):
        raise _wrong(f"`{volume.target}`: which volume is meant?", "write `name`, or `size` for a new one")
    return OwnVolume(
        type=kind,
        path=volume.target,
        name=volume.name,
        size_bytes=volume.size_bytes,
        sub_path=volume.sub_path,
        config=config,
    )


def _bound(
    wish: Resources, place: str, region: str | None, target: str, volumes: list[OwnVolume]
) -> Resources:
    if wish.infra.provider not in (None, place):
        raise _wrong(
            f"`{target}` is a volume of {place}, and the task is to run on {wish.infra.provider}",
            f"leave `infra` away, or write `infra: {place}`",
        )
    infra = Infra(provider=place, region=wish.infra.region or region, zone=wish.infra.zone)
    return msgspec.structs.replace(wish, infra=infra, config=_with(wish.config, place, volumes))


def _with(config: str, place: str, volumes: list[OwnVolume]) -> str:
    sections: dict[str, Any] = msgspec.json.decode(config) if config else {}
    sections[place] = {**(sections.get(place) or {}), "volumes": msgspec.to_builtins(volumes)}
    return msgspec.json.encode(sections, order="deterministic").decode()


def _wrong(what: str, hint: str) -> ArgosyError:
    return ArgosyError("spec-invalid", what, hint=hint)
