"""Flows as coroutines of asyncio: `argosy.aio.launch` and the like."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

from argosy.api.location import Location, locate
from argosy.client.async_client import AsyncClient
from argosy.client.flow import Flow
from argosy.client.telling import in_python
from argosy.model.errors import ArgosyError

P = ParamSpec("P")
T = TypeVar("T")
_clients: Final[WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Location, AsyncClient]]] = (
    WeakKeyDictionary()
)


def current_client() -> AsyncClient:
    """The client of the running loop, for the server that the environment names now."""
    clients = _clients.setdefault(asyncio.get_running_loop(), {})
    location = locate(os.environ)
    if location not in clients:
        clients[location] = AsyncClient(location)
    return clients[location]


def awaiting(flow: Callable[P, Flow[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """The coroutine function that carries the flow out on the running loop."""

    @wraps(flow)
    async def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await current_client().run(flow(*args, **kwargs))
        except ArgosyError as error:
            raise in_python(error) from error.__cause__

    return call
