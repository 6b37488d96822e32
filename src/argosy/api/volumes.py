"""Volumes of places that have a name here: applied, listed, deleted. Tasks name them under `volumes`."""

from __future__ import annotations

from typing import Annotated

from argosy.api.endpoint import Reply, Request, endpoint
from argosy.model.own_volumes import VolumeConfig


class NamedVolumeView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    project: str
    owner: str = ""
    type: str
    infra: str
    size_bytes: int = 0  # 0: it was there before
    config: VolumeConfig = VolumeConfig()
    created_ms: int = 0
    made_ms: int = 0  # when its place was seen to have it; 0: not yet
    is_ours: bool = False  # its bytes go when it is deleted


class NamedVolumeList(Reply, frozen=True, kw_only=True):
    volumes: tuple[NamedVolumeView, ...]


class NamedVolumeRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    name: str
    type: str
    infra: str = ""  # PLACE[/REGION[/ZONE]]
    size_bytes: int = 0  # 0: it is there already
    config: VolumeConfig = VolumeConfig()
    project: str = ""
    user: str = ""  # over the socket: who applies it


class VolumeCalls:
    @endpoint("GET", "/named-volumes", permission="folders.read")
    def named_volumes(self, *, project: Annotated[str, "only of this project"] = "") -> NamedVolumeList:
        """Volumes of places that tasks may name."""

    @endpoint("PUT", "/named-volumes", NamedVolumeRequest, permission="folders.write")
    def apply_volume(
        self,
        name: str,
        type: str,
        infra: str = "",
        size_bytes: int = 0,
        config: VolumeConfig = VolumeConfig(),  # noqa: B008  frozen
        project: str = "",
        user: str = "",
    ) -> NamedVolumeView:
        """Give a volume of a place a name, and make it there when it has a size and is missing. Repeated, it
        goes on where it failed. Errors: "usage", "conflict", "store-busy"."""

    @endpoint("DELETE", "/named-volumes/{volume}", permission="folders.write")
    def delete_volume(
        self, volume: str, *, project: Annotated[str, "of this project"] = ""
    ) -> NamedVolumeView:
        """Forget a volume, and remove it from its place with its bytes if it was made there because it was
        applied. Errors: "not-found", "conflict" (it is in use), "store-busy"."""
