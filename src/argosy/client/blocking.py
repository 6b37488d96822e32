"""Flows as ordinary functions: `argosy.launch` and the like."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import wraps
from typing import Final, ParamSpec, TypeVar

from argosy.api.location import Location, locate
from argosy.client.client import Client
from argosy.client.flow import Flow
from argosy.client.telling import in_python
from argosy.model.errors import ArgosyError

P = ParamSpec("P")
T = TypeVar("T")
_clients: Final[dict[Location, Client]] = {}


def current_client() -> Client:
    """The client of the server that the environment names now; kept, so that connections are reused."""
    location = locate(os.environ)
    client = _clients.get(location)
    if client is None:
        client = _clients.setdefault(location, Client(location))
    return client


def blocking(flow: Callable[P, Flow[T]]) -> Callable[P, T]:
    """The function that carries the flow out and returns its result."""

    @wraps(flow)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return current_client().run(flow(*args, **kwargs))
        except ArgosyError as error:
            raise in_python(error) from error.__cause__

    return call
