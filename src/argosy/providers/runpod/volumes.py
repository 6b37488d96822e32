"""Network volumes that stand by themselves. Their names are not unique, and carry no mark: whoever makes one
remembers that, and only the first of a name is meant."""

from __future__ import annotations

from typing import Final

from argosy.infra import border
from argosy.infra.http_json import HttpJson
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Setting
from argosy.model.own_volumes import OwnVolume
from argosy.model.resources import Infra
from argosy.model.units import GIB
from argosy.providers.runpod.orders import Volume
from argosy.providers.runpod.provider import RunPod

_MIN_GB, _MAX_GB = 10, 4096
_PATH: Final = "/v2/network-volumes"


class RunPodDriver(MachineDriver):
    """The driver of pods, which also keeps volumes."""

    def __init__(self, vendor: RunPod, setting: Setting, *, settle_s: float = 3.0) -> None:
        super().__init__(vendor, setting, settle_s=settle_s)
        self._http: HttpJson = vendor.http
        self._volumes = vendor.volumes

    async def make_volume(self, infra: Infra, volume: OwnVolume) -> bool:
        found = await self._named(volume.name, infra.zone)
        if found is not None:
            return False
        if not volume.size_bytes:
            raise border.RequestRefused("volumes", f"RunPod has no network volume `{volume.name}` of yours")
        if not infra.zone:
            raise border.RequestRefused(
                "infra", "a network volume is in one data center: write `infra: runpod/COUNTRY/DATA-CENTER`"
            )
        size = -(-volume.size_bytes // GIB)
        if not _MIN_GB <= size <= _MAX_GB:
            raise border.RequestRefused(
                "size", f"a network volume has {_MIN_GB} to {_MAX_GB:,} GB, and this is to have {size:,}"
            )
        wanted = {"name": volume.name, "size": size, "dataCenter": infra.zone}
        await self._http.call("POST", _PATH, into=Volume, json=wanted)
        return True

    async def remove_volume(self, infra: Infra, volume: OwnVolume) -> None:
        found = await self._named(volume.name, infra.zone)
        if found is not None:
            await self._http.drop(f"{_PATH}/{found.id}")

    async def _named(self, name: str, center: str | None) -> Volume | None:
        return next(
            (
                each
                for each in await self._volumes()
                if each.name == name and center in (None, each.data_center)
            ),
            None,
        )
