"""The API: every feature's endpoints, as one class that clients inherit and as one table.

The server binds a handler to every row (an unbound row fails a test); `openapi.json` and the reference page
are generated from it. A row knows its name, method, path and permission; the module that declares it, with
its types, is imported when one of its calls is made or answered.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

from argosy.api.endpoint import AnyEndpoint, Endpoint
from argosy.api.rows import ROWS, STREAMS


class LaterEndpoint(Endpoint[..., Any]):
    """An endpoint whose module is imported with the first question that its row does not answer."""

    def __init__(self, feature: str, owner: str, name: str, method: str, path: str, permission: str) -> None:
        self.feature, self.owner, self.name = feature, owner, name  # its module, and the class there
        self.method, self.path, self.permission = method, path, permission

    def __getattr__(self, wanted: str) -> Any:
        if wanted.startswith("__") or "_declared" in self.__dict__:
            raise AttributeError(wanted)
        owner = getattr(importlib.import_module(f"argosy.api.{self.feature}"), self.owner)
        self.__dict__.update(vars(vars(owner)[self.name]))
        return getattr(self, wanted)


ENDPOINTS: Final[tuple[AnyEndpoint, ...]] = tuple(LaterEndpoint(*row) for row in ROWS)

if TYPE_CHECKING:
    from argosy.api.every import Calls as Calls
else:
    Calls = type(
        "Calls",
        (),
        {
            "__doc__": "Every endpoint but the streams, as methods of clients.",
            "__module__": __name__,
            **{each.name: each for each in ENDPOINTS if each.owner not in STREAMS},
        },
    )
