"""Names of infrastructure, as `argosy.clouds`: the classes, and a registry of them by name.

import argosy as sky

cloud = sky.clouds.CLOUD_REGISTRY.from_str("gcp")
"""

from __future__ import annotations

from argosy.client import clouds as _clouds
from argosy.client.clouds import *  # noqa: F403
from argosy.client.clouds import Cloud
from argosy.model.errors import ArgosyError, suggest


class CloudRegistry(dict[str, Cloud]):
    """Clouds by their names in `infra:`.

    >>> CLOUD_REGISTRY.from_str("AWS"), CLOUD_REGISTRY.from_str(None)
    (AWS(), None)
    """

    def from_str(self, name: str | None) -> Cloud | None:
        """Errors: "usage" for a name that no cloud has."""
        if name is None:
            return None
        if name.lower() not in self:
            raise ArgosyError(
                "usage",
                f"there is no cloud `{name}`",
                hint=suggest(name, self, otherwise=f"known are {', '.join(sorted(self))}"),
            )
        return self[name.lower()]


CLOUD_REGISTRY = CloudRegistry(
    {
        kind.NAME: kind()
        for kind in vars(_clouds).values()
        if isinstance(kind, type) and issubclass(kind, Cloud) and kind.NAME
    }
)
