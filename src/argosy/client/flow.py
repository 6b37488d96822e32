"""Flows: what takes several calls, written once for both clients.

A flow is a coroutine that awaits steps and nothing else: a `Call`, the log of a job, or another flow. It does
no I/O by itself. `Client.run` carries the steps out one after another and returns the result;
`AsyncClient.run` is a coroutine that does the same on its event loop.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Generator
from functools import cached_property, wraps
from types import MethodType
from typing import Any, Concatenate, Generic, ParamSpec, TypeVar, overload

from argosy.api.endpoint import AwaitingCalls, BlockingCalls, Call
from argosy.client.frames import LogPiece

P = ParamSpec("P")
T = TypeVar("T")

Flow = Coroutine[Any, Any, T]  # Any: steps out, their answers in; each step has its own type


class ReadLog:
    """A step: give `take` every piece of a job's log, as `Client.logs` gives them."""

    def __init__(
        self, job_id: str, take: Callable[[LogPiece], None], *, follow: bool, tail: int | None = None
    ) -> None:
        self.job_id, self.take, self.follow, self.tail = job_id, take, follow, tail

    def __await__(self) -> Generator[ReadLog, None, None]:
        yield self


class Aside(Generic[T]):
    """A step: a flow whose own work takes long, such as reading files. An event loop does it in a thread."""

    def __init__(self, flow: Flow[T]) -> None:
        self.flow = flow

    def __await__(self) -> Generator[Aside[T], T, T]:
        return (yield self)


class Own(Generic[T]):
    """A step: a method of the client that is a flow."""

    def __init__(self, start: Callable[[Any], Flow[T]]) -> None:
        self.start = start

    def __await__(self) -> Generator[Own[T], T, T]:
        return (yield self)


Step = Call[Any] | ReadLog | Aside[Any] | Own[Any]


class FlowMethod(Generic[P, T]):
    """A method of both clients that is a flow: `self` is the client's settings, not something to call."""

    def __init__(self, declared: Callable[Concatenate[Any, P], Flow[T]]) -> None:
        self._declared = declared

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Own[T]:
        """The step, for other flows."""
        return Own(lambda client: self._declared(client, *args, **kwargs))

    @overload
    def __get__(self, client: BlockingCalls, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AwaitingCalls, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: object, owner: type) -> FlowMethod[P, T]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        return self if client is None else MethodType(self._method, client)

    @cached_property
    def _method(self) -> Callable[..., Any]:
        @wraps(self._declared)
        def method(client: Any, /, *args: P.args, **kwargs: P.kwargs) -> Any:
            return client.run(self._declared(client, *args, **kwargs))

        return method
