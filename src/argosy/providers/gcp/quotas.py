"""What the project may have: quotas of accelerators, which are 0 in a new project."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from argosy.infra.machine_vendor import closed_offer
from argosy.model.ids import Clock
from argosy.model.offer import Capacity, Offer
from argosy.providers.gcp import MANIFEST
from argosy.providers.gcp.account import PAGE, Account
from argosy.providers.gcp.wire import Project, Region, Regions

FRESH_S: Final = 300.0
_ALL: Final = "GPUS_ALL_REGIONS"
_SPOT: Final = "PREEMPTIBLE_"
_G2: Final = tuple(f"g2-standard-{cpus}" for cpus in (4, 8, 12, 16, 24, 32, 48, 96))
_G4: Final = tuple(f"g4-standard-{cpus}" for cpus in (48, 96, 192, 384))
#: Types whose accelerators count in a quota that Compute Engine tells.
TYPES: Final[Mapping[str, tuple[str, ...]]] = {
    "NVIDIA_L4_GPUS": _G2,
    "NVIDIA_A100_GPUS": (*(f"a2-highgpu-{count}g" for count in (1, 2, 4, 8)), "a2-megagpu-16g"),
    "NVIDIA_A100_80GB_GPUS": tuple(f"a2-ultragpu-{count}g" for count in (1, 2, 4, 8)),
    "NVIDIA_H100_GPUS": tuple(f"a3-highgpu-{count}g" for count in (1, 2, 4, 8)),
    "NVIDIA_H100_MEGA_GPUS": ("a3-megagpu-8g",),
    "NVIDIA_H200_GPUS": ("a3-ultragpu-8g",),
    "NVIDIA_B200_GPUS": ("a4-highgpu-8g",),
}
_WITH_GPU: Final = (*(kind for kinds in TYPES.values() for kind in kinds), *_G4)


class Quotas:
    def __init__(self, account: Account, clock: Clock) -> None:
        self._account, self._clock = account, clock
        self._asked_s = -FRESH_S
        self._closed: tuple[Offer, ...] = ()

    async def project(self) -> Project:
        return await self._account.get("", Project)

    async def summary(self) -> str:
        """For `check`: in words."""
        project, regions = await self.project(), await self._regions()
        gpus = _limits(project).get(_ALL)
        may = "" if gpus is None else f"; the quota {_ALL} is {gpus:g}"
        if gpus == 0:
            may += ", so nothing with an accelerator can be had"
        return f"{len(regions)} regions can be used{may}"

    async def closed(self) -> Sequence[Offer]:
        """Offers that close what the project may have none of."""
        if self._clock.monotonic_s() - self._asked_s >= FRESH_S:
            now_ms = self._clock.now_ms()
            project = await self.project()
            if _limits(project).get(_ALL) == 0:
                text = f"the quota {_ALL} of the project is 0"
                closed = [
                    closed_offer(MANIFEST.name, kind, text, now_ms, capacity=each)
                    for kind in _WITH_GPU
                    for each in _BOTH
                ]
            else:
                closed = list(_by_region(await self._regions(), now_ms))
            self._closed, self._asked_s = tuple(closed), self._clock.monotonic_s()
        return self._closed

    async def _regions(self) -> list[Region]:
        pages = self._account.http.pages(
            await self._account.path("regions"),
            into=Regions,
            query=[("maxResults", PAGE)],
            following=lambda page: [("pageToken", page.next_page_token)] if page.next_page_token else None,
        )
        return [region async for page in pages for region in page.items]


_BOTH: Final = (Capacity.ON_DEMAND, Capacity.SPOT)


def _limits(project: Project) -> dict[str, float]:
    return {each.metric: each.limit for each in project.quotas}


def _by_region(regions: Sequence[Region], now_ms: int) -> Iterator[Offer]:
    """A spot machine counts in a quota of its own where the project has one, else in the usual one."""
    for region in regions:
        limits = {each.metric: each.limit for each in region.quotas}
        for metric, kinds in TYPES.items():
            if limits.get(metric) != 0:
                continue
            text = f"the quota {metric} of the project is 0 in {region.name}"
            shut = _BOTH[:1] if limits.get(_SPOT + metric) else _BOTH
            for kind in kinds:
                for each in shut:
                    yield closed_offer(MANIFEST.name, kind, text, now_ms, region=region.name, capacity=each)
