"""What an endpoint is: declared once as a typed method, called by both clients, bound by the server.

    class JobCalls:
        @endpoint("GET", "/jobs", permission="jobs.read")
        def queue(self, cluster: Annotated[str | None, "name of the cluster"] = None) -> JobList:
            '''Jobs of a cluster, or managed jobs when none is named.'''

The signature is the declaration: parameters that stand in the path go there, the others into the request's
body (`request`, the third argument) or, without one, into the query; the docstring is the text. A client
that inherits the class has the method: `Client().queue("dev")` is a `JobList`, `AsyncClient().queue("dev")`
a coroutine of one, and `JobCalls.queue("dev")` the request itself, a `Call[JobList]`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Coroutine, Generator
from functools import cached_property, wraps
from types import MethodType
from typing import (
    Annotated,
    Any,
    Concatenate,
    Final,
    Generic,
    NamedTuple,
    ParamSpec,
    TypeVar,
    get_args,
    get_origin,
    get_type_hints,
    overload,
)
from urllib.parse import quote, urlencode

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.units import render_bytes

API_VERSION: Final = 1
PREFIX: Final = "/v1"
LOG_MEDIA_TYPE: Final = "application/x-argosy-log"
BODY_LIMIT_BYTES: Final = 64 << 20  # JSON bodies; chunk uploads are streamed, see `put_chunks`
CHUNK_PACK_LIMIT_BYTES: Final = 64 << 20
_JSON: Final = "application/json"
_BINARY: Final = "application/octet-stream"

P = ParamSpec("P")
T = TypeVar("T")
Pack = Callable[..., tuple[bytes, ...]]


class Request(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What clients send."""


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What the server answers."""


class Done(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """The wish is recorded; `status` shows it being carried out."""

    names: tuple[str, ...] = ()


class Param(NamedTuple):
    """A parameter of the query: its scalar type, and what it means."""

    name: str
    kind: type
    about: str


class BlockingCalls:
    """A client whose calls return answers. It has `send(call)`."""


class AwaitingCalls:
    """A client whose calls return coroutines. It has `async send(call)`."""


class Call(Generic[T]):
    """One request whose answer is a `T`. A flow awaits it; a client sends it.

    `parts` is sent piece by piece, so that a pack of chunks is never copied into one.
    """

    __slots__ = ("endpoint", "media_type", "parts", "request", "target")

    def __init__(
        self, endpoint: Endpoint[..., T], target: str, request: object = None, parts: tuple[bytes, ...] = ()
    ) -> None:
        self.endpoint, self.target, self.request, self.parts = endpoint, target, request, parts
        self.media_type = _BINARY if parts else _JSON

    def __await__(self) -> Generator[Call[T], T, T]:
        return (yield self)

    def encode(self, key: str) -> None:
        """Turn the request into bytes, once; `key` makes it safe to repeat where it has a key and none was
        given. Raises "too-large"."""
        if self.request is None or self.parts:
            return
        if getattr(self.request, "key", None) == "":
            self.request = msgspec.structs.replace(self.request, key=key)  # type: ignore[type-var]
        data = msgspec.json.encode(self.request)
        if len(data) > BODY_LIMIT_BYTES:
            raise ArgosyError(
                "too-large",
                f"the request `{self.endpoint.name}` is {render_bytes(len(data))}; "
                f"at most {render_bytes(BODY_LIMIT_BYTES)} can be sent",
            )
        self.parts = (data,)


class Endpoint(Generic[P, T]):
    """A row of the API. Called, it makes the request; as an attribute of a client, it is the method."""

    def __init__(
        self,
        declared: Callable[Concatenate[Any, P], T],
        method: str,
        path: str,
        request: type[msgspec.Struct] | None,
        *,
        permission: str,
        any_version: bool,
        pack: Pack | None,
    ) -> None:
        self.name = declared.__name__
        self.method, self.path = method, path  # path: below PREFIX; {x} are path parameters
        self.request = request  # of the JSON body
        self.permission = permission  # of `model.access`, or OPEN or SIGNED_IN; "" is refused by the server
        self.any_version = any_version  # also asked of a server of another version
        self.pack = pack  # makes a binary body of the arguments
        self._declared = declared
        code = declared.__code__
        self._names = code.co_varnames[1 : code.co_argcount]
        last = declared.__defaults__ or ()
        self._defaults = {
            **dict(zip(self._names[len(self._names) - len(last) :], last, strict=True)),
            **(declared.__kwdefaults__ or {}),
        }

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> Call[T]:
        """The request. Raises TypeError for arguments that do not fit, "usage" for an empty name."""
        self._declared(None, *args, **kwargs)  # does nothing but refuse them, in Python's own words
        given: dict[str, Any] = {**self._defaults, **dict(zip(self._names, args, strict=False)), **kwargs}
        target = PREFIX + self.path
        for name in self.path_names:
            value = given.pop(name)
            if not value:
                raise ArgosyError("usage", f"the name of the {name} is empty")
            target = target.replace(f"{{{name}}}", quote(str(value), safe=""))
        if self.pack is not None:
            return Call(self, target, parts=self.pack(**given))
        if self.request is None:
            return Call(self, target + _query(given))
        only = next(iter(given.values())) if len(given) == 1 else None
        return Call(self, target, only if isinstance(only, self.request) else self.request(**given))

    @overload
    def __get__(self, client: BlockingCalls, owner: type) -> Callable[P, T]: ...
    @overload
    def __get__(self, client: AwaitingCalls, owner: type) -> Callable[P, Coroutine[Any, Any, T]]: ...
    @overload
    def __get__(self, client: object, owner: type) -> Endpoint[P, T]: ...
    def __get__(self, client: Any, owner: type) -> Any:
        return self if client is None else MethodType(self._method, client)

    @cached_property
    def _method(self) -> Callable[..., Any]:
        @wraps(self._declared)
        def method(client: Any, /, *args: Any, **kwargs: Any) -> Any:
            return client.send(self(*args, **kwargs))

        return method

    # What follows from the declaration. Read by the server and by documents only: annotations cost time.

    @cached_property
    def _hints(self) -> dict[str, Any]:
        return get_type_hints(self._declared, include_extras=True)

    @cached_property
    def path_names(self) -> tuple[str, ...]:
        return tuple(re.findall(r"{(\w+)}", self.path))

    @cached_property
    def answer(self) -> type[T]:
        """The type of the answer: a struct, or bytes for a stream."""
        kind: type[T] = self._hints["return"]
        return kind

    @property
    def reply(self) -> type[msgspec.Struct] | None:
        """The JSON answer; None: a stream, which the text describes."""
        return self.answer if issubclass(self.answer, msgspec.Struct) else None

    @cached_property
    def about(self) -> str:
        """The first paragraph of the declaration."""
        return " ".join((self._declared.__doc__ or "").partition("\n\n")[0].split())

    @cached_property
    def query(self) -> tuple[Param, ...]:
        if self.request is not None or self.pack is not None:
            return ()
        names = [name for name in self._hints if name not in ("return", *self.path_names)]
        return tuple(_param(name, self._hints[name]) for name in names)


AnyEndpoint = Endpoint[..., Any]


def endpoint(
    method: str,
    path: str,
    request: type[msgspec.Struct] | None = None,
    *,
    permission: str = "",
    any_version: bool = False,
    pack: Pack | None = None,
) -> Callable[[Callable[Concatenate[Any, P], T]], Endpoint[P, T]]:
    """Declare an endpoint; see `Endpoint` for the arguments. `method` WS: a WebSocket. `permission`: what a
    caller needs, from `model.access`; there is no row without one."""
    return lambda declared: Endpoint(
        declared, method, path, request, permission=permission, any_version=any_version, pack=pack
    )


def endpoints_of(*features: type) -> tuple[AnyEndpoint, ...]:
    """The endpoints that classes declare, in their order."""
    return tuple(
        each for feature in features for each in vars(feature).values() if isinstance(each, Endpoint)
    )


def _param(name: str, hint: Any) -> Param:
    if get_origin(hint) is not Annotated:
        raise TypeError(f"the parameter `{name}` of a query says what it means: Annotated[…, 'text']")
    kind, about = get_args(hint)[:2]
    return Param(name, next((one for one in get_args(kind) if one is not type(None)), kind), about)


def _query(given: dict[str, Any]) -> str:
    pairs = [
        (name, ("true" if value else "false") if isinstance(value, bool) else str(value))
        for name, value in given.items()
        if value is not None and value is not False
    ]
    return f"?{urlencode(pairs)}" if pairs else ""
