"""Features that are loaded with their first request, which most servers never get."""

from __future__ import annotations

import importlib
from collections.abc import Awaitable, Callable
from typing import Any

from argosy.api.rows import ROWS
from argosy.server.exchange import Exchange
from argosy.server.services import Services


def later(module: str, name: str, calls: str) -> type:
    """A feature with a handler for every endpoint of the class `calls` of `api`, all of which are methods of
    the class `name` of a module of `features`."""

    def begin(self: Any, services: Services) -> None:  # Any: the class that is made here
        self.services, self.real = services, None

    def handler(endpoint: str) -> Callable[[Any, Exchange], Awaitable[Any]]:
        async def handle(self: Any, exchange: Exchange) -> Any:
            if self.real is None:
                loaded = importlib.import_module(f"argosy.server.features.{module}")
                self.real = getattr(loaded, name)(self.services)
            return await getattr(self.real, endpoint)(exchange)

        return handle

    handlers = {endpoint: handler(endpoint) for _, owner, endpoint, *_ in ROWS if owner == calls}
    return type(name, (), {"__init__": begin, **handlers})
