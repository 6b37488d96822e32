"""Named volumes: applied, listed, deleted."""

from __future__ import annotations

import msgspec

from argosy.api.volumes import NamedVolumeList, NamedVolumeRequest, NamedVolumeView
from argosy.model.access import Target
from argosy.model.named_volumes import NamedVolume
from argosy.server.exchange import Exchange
from argosy.server.guarding import made_by, project_of, require, require_new
from argosy.server.named_volumes import NamedVolumes
from argosy.server.services import Services


class VolumeFeature:
    def __init__(self, services: Services) -> None:
        self._volumes = NamedVolumes(services.store, services.clock, services.ids, services.providers)

    async def named_volumes(self, exchange: Exchange) -> NamedVolumeList:
        found = await self._volumes.all(exchange.caller, exchange.text("project"))
        return NamedVolumeList(volumes=tuple(map(_view, found)))

    async def apply_volume(self, exchange: Exchange) -> NamedVolumeView:
        request, caller = await exchange.decode(NamedVolumeRequest), exchange.caller
        project = project_of(caller, request.project)
        require_new(caller, project)
        wanted = NamedVolume(
            id="",
            created_ms=0,
            name=request.name,
            project=project,
            owner=made_by(caller, request.user),
            type=request.type,
            infra=request.infra,
            size_bytes=max(0, request.size_bytes),
            config=request.config,
        )
        return _view(await self._volumes.apply(wanted))

    async def delete_volume(self, exchange: Exchange) -> NamedVolumeView:
        project = project_of(exchange.caller, exchange.text("project"))
        found = await self._volumes.find(exchange.path["volume"], project)
        require(exchange.caller, Target(found.project, found.owner))
        await self._volumes.remove(found)
        return _view(found)


def _view(row: NamedVolume) -> NamedVolumeView:
    return msgspec.convert(row, NamedVolumeView, from_attributes=True)
