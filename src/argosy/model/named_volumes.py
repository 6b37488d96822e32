"""Named volumes of providers: a task writes just the name under `volumes`. Pure.

A volume and a folder of one project never have one name, so that what a task means is clear.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from argosy.model.entry import Entry
from argosy.model.errors import ArgosyError
from argosy.model.folders import called, check_folder_name
from argosy.model.own_volumes import VolumeConfig
from argosy.model.places import ALIASES, VOLUME_TYPES
from argosy.model.task import Task, VolumeMount


class NamedVolume(Entry, frozen=True, kw_only=True, omit_defaults=True, tag="named-volume"):
    """What `argosy volumes apply` was told of a volume that a place has itself."""

    name: str
    project: str
    owner: str = ""  # name of a user; "": it was applied over the socket by nobody
    type: str
    infra: str = ""  # PLACE[/REGION[/ZONE]]; "": wherever that type of volume is
    size_bytes: int = 0  # 0: it was there before
    config: VolumeConfig = VolumeConfig()
    made_ms: int = 0  # when its place was seen to have it; 0: never
    is_ours: bool = False  # its place made it because it was applied: it goes when it is deleted

    @property
    def unique(self) -> str:
        return called(self.project, "", self.name) if self.is_live else ""


def checked(volume: NamedVolume) -> NamedVolume:
    """With the name of its place. Raises "usage"."""
    check_folder_name(volume.name)
    place = VOLUME_TYPES.get(volume.type)
    if volume.name.startswith(".") or place is None:
        raise ArgosyError(
            "usage",
            f"`{volume.name}`: a dot first is for folders"
            if place
            else f"`type: {volume.type}` is no kind of volume",
            hint="another name" if place else f"one of {', '.join(sorted(VOLUME_TYPES))}",
        )
    named, slash, rest = volume.infra.partition("/")
    if named and ALIASES.get(named, named) != place:
        raise ArgosyError(
            "usage", f"`{volume.type}` is a volume of {place}, not of {named}", hint="correct `infra`"
        )
    return msgspec.structs.replace(volume, infra=f"{place}{slash}{rest}")


def merged(before: NamedVolume, wanted: NamedVolume) -> NamedVolume:
    """The row after it was applied again. Raises "conflict" for what cannot change."""
    for field in ("type", "infra"):
        was, now = getattr(before, field), getattr(wanted, field)
        if was != now:
            raise ArgosyError(
                "conflict",
                f"the volume `{before.name}` is there, with `{field}: {was}`, and that cannot become {now}",
                hint="choose another name, or delete it first: argosy volumes delete",
            )
    return msgspec.structs.replace(
        before, size_bytes=wanted.size_bytes or before.size_bytes, config=wanted.config
    )


def with_named(task: Task, known: Mapping[str, NamedVolume]) -> Task:
    """With what its names mean, where they name volumes. Raises "spec-invalid"."""
    if not any(each.folder in known and not each.type for each in task.volumes):
        return task
    return msgspec.structs.replace(task, volumes=tuple(_meant(each, known) for each in task.volumes))


def _meant(mount: VolumeMount, known: Mapping[str, NamedVolume]) -> VolumeMount:
    volume = known.get(mount.folder)
    if volume is None or mount.type:
        return mount
    if mount.read_only:
        raise ArgosyError(
            "spec-invalid",
            f"`{mount.target}`: `{volume.name}` is a volume of {volume.infra.partition('/')[0]}, which is "
            "mounted to write",
            hint=f"write `{volume.name}` without `:ro`",
        )
    extra = {"type": volume.type, "infra": volume.infra}
    return VolumeMount(
        target=mount.target,
        folder="",
        name=volume.name,
        type=volume.type,
        sub_path=mount.sub_path,
        size_bytes=volume.size_bytes if volume.is_ours or not volume.made_ms else 0,
        extra=msgspec.json.encode({**extra, "config": volume.config}).decode(),
    )
