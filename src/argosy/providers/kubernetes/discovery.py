"""Which kinds of objects a cluster knows beyond the usual. Asked once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from argosy.infra import border
from argosy.providers.kubernetes.api import Api
from argosy.providers.kubernetes.devices import VERSIONS
from argosy.providers.kubernetes.objects import Group, Groups

PODGROUP: Final = "podgroup"  # of the scheduler itself
VOLCANO: Final = "volcano"
REQUESTS: Final = "provisioningrequests"
DEVICES: Final = "resourceclaimtemplates"  # claims on devices
#: API groups of what makes nodes for pods that find none.
_AUTOSCALERS: Final = ("karpenter.sh", "autoscaling.x-k8s.io", "eks.amazonaws.com")


class Discovery:
    """Paths of the APIs that are of use to us, by kind, and whether an autoscaler is there."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._paths: Mapping[str, str] | None = None
        self._grows = False

    async def paths(self) -> Mapping[str, str]:
        """Raises a border error."""
        if self._paths is None:
            found = await self._api.find("/apis", into=Groups) or Groups()
            versions = {each.name: [one.group_version for one in each.versions] for each in found.groups}
            paths = {}
            for version in reversed(versions.get("scheduling.k8s.io", [])):
                group = await self._api.find(f"/apis/{version}", into=Group) or Group()
                if any(each.name == "podgroups" for each in group.resources):
                    paths[PODGROUP] = f"/apis/{version}"
            if versions.get("scheduling.volcano.sh"):
                paths[VOLCANO] = f"/apis/{versions['scheduling.volcano.sh'][0]}"
            if versions.get("autoscaling.x-k8s.io"):
                paths[REQUESTS] = "/apis/autoscaling.x-k8s.io/v1"
            devices = versions.get("resource.k8s.io", [])
            spoken = next((each for each in VERSIONS if f"resource.k8s.io/{each}" in devices), "")
            if spoken:
                paths[DEVICES] = f"/apis/resource.k8s.io/{spoken}"
            self._grows = any(name in versions for name in _AUTOSCALERS)
            self._paths = paths
        return self._paths

    async def grows(self) -> bool:
        """Whether something makes nodes when pods find none, as far as its API tells."""
        try:
            await self.paths()
        except border.BorderError:
            return False
        return self._grows
