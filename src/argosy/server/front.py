"""The door: every request is matched with the endpoint table, let in or not, and every error leaves as a
`Problem`.

This is a plain ASGI application rather than a framework's: see docs/decisions (what a framework would add
here is routing over a table that exists already, and a quarter of a second to every start).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Final, NamedTuple
from urllib.parse import unquote

import msgspec

from argosy import __version__
from argosy.api.endpoint import API_VERSION, PREFIX, AnyEndpoint, Reply
from argosy.api.endpoints import ENDPOINTS
from argosy.identity.deciding import Denied, may, visible
from argosy.infra.border import BorderError, Transient
from argosy.model.access import NOBODY, OPEN, OWNER, PERMISSIONS, SIGNED_IN, Caller, Target
from argosy.model.errors import ArgosyError
from argosy.model.ids import Ids
from argosy.server.exchange import Disconnected, Exchange, Receive, Scope, Send, encode, send_problem
from argosy.server.guarding import forbidden
from argosy.server.tokens import Tokens

_log: Final = logging.getLogger(__name__)

#: Answers with a reply, with JSON that is encoded already, or (None) has answered by itself.
Handler = Callable[[Exchange], Awaitable[Reply | bytes | None]]


PROJECT_HEADER: Final = b"x-argosy-project"
#: What methods of a mounted application ask for; all others write.
_MOUNTED: Final = {"GET": "buckets.read", "HEAD": "buckets.read"}

#: Another ASGI application below a path, for whoever was let in.
Mounted = Callable[[Scope, Receive, Send], Awaitable[None]]


class Route(NamedTuple):
    endpoint: AnyEndpoint
    parts: tuple[str, ...]  # of the path; `{x}` takes anything
    handler: Handler


def bind(features: Iterable[object], endpoints: Sequence[AnyEndpoint] = ENDPOINTS) -> tuple[Route, ...]:
    """Every endpoint with its handler, exact paths first: the public method of its name of one feature.

    Raises ValueError for an endpoint without a handler or a permission, for a handler without an endpoint,
    and for two.
    """
    handlers: dict[str, Handler] = {}
    for feature in features:
        for name in vars(type(feature)):
            if name.startswith("_"):
                continue
            if name in handlers:
                raise ValueError(f"two features answer `{name}`")
            handlers[name] = getattr(feature, name)
    names = {endpoint.name for endpoint in endpoints}
    if names != handlers.keys():
        raise ValueError(
            f"unbound: {sorted(names - handlers.keys())}, unknown: {sorted(handlers.keys() - names)}"
        )
    for endpoint in endpoints:
        if endpoint.permission not in (*PERMISSIONS, OPEN, SIGNED_IN):
            raise ValueError(f"`{endpoint.name}` names no permission: `{endpoint.permission}`")
    routes = [
        Route(endpoint, tuple((PREFIX + endpoint.path).strip("/").split("/")), handlers[endpoint.name])
        for endpoint in endpoints
    ]
    return tuple(sorted(routes, key=lambda route: sum(part.startswith("{") for part in route.parts)))


class Front:
    """The ASGI application. `over_socket` and `over_tcp` are the same doors with different guards."""

    def __init__(
        self,
        routes: tuple[Route, ...],
        *,
        tokens: Tokens,
        ids: Ids,
        mounts: Mapping[str, Mounted] | None = None,
    ) -> None:
        self._tokens, self._mounts = tokens, dict(mounts or {})
        self._ids = ids
        self._by_shape: dict[tuple[str, int], list[Route]] = {}
        self._exact: dict[tuple[str, str], Route] = {}
        for route in routes:
            method = route.endpoint.method
            self._by_shape.setdefault((method, len(route.parts)), []).append(route)
            if not any(part.startswith("{") for part in route.parts):
                self._exact[method, "/" + "/".join(route.parts)] = route

    async def over_socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send, is_local=True)

    async def over_tcp(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._serve(scope, receive, send, is_local=False)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, *, is_local: bool) -> None:
        if scope["type"] not in ("http", "websocket"):
            return
        if scope["type"] == "websocket":
            send = _before_upgrade(scope, send)
        exchange: Exchange | None = None
        try:
            mounted = self._mounts.get("/" + scope["path"][1:].partition("/")[0])
            if mounted is not None and scope["type"] == "http":
                if not is_local:
                    await self._let_in(scope, None, _MOUNTED.get(scope["method"], "buckets.write"))
                scope["argosy.local"] = is_local
                await mounted(scope, receive, send)
                return
            _check_api(scope)
            route, path = self._match("WS" if scope["type"] == "websocket" else scope["method"], scope)
            caller = OWNER if is_local else await self._let_in(scope, route)
            if route is None:
                raise ArgosyError(
                    "version-mismatch",
                    f"this server (Argosy {__version__}, API {API_VERSION}) has no "
                    f"{scope.get('method', 'WebSocket')} {scope['path']}",
                    hint="use a client of the server's version",
                )
            caller = _bound(caller, scope, route.endpoint)
            exchange = Exchange(scope, receive, send, route.endpoint, path, is_local=is_local, caller=caller)
            exchange.check_query()
            answer = await route.handler(exchange)
            if answer is not None:
                await exchange.reply(answer if isinstance(answer, bytes) else encode(answer))
        except Disconnected:
            return
        except ArgosyError as error:
            await self._fail(exchange, scope, send, error)
        except BorderError as error:
            code = "transient" if isinstance(error, Transient) else "conflict"
            await self._fail(exchange, scope, send, ArgosyError(code, str(error)))
        except OSError as error:
            if exchange is not None and exchange.answered:
                return  # the client's connection
            await self._fail(exchange, scope, send, self._unexpected(scope, error))
        except Exception as error:  # noqa: BLE001  the outermost handler: the client gets an answer, we go on
            await self._fail(exchange, scope, send, self._unexpected(scope, error))

    def _match(self, method: str, scope: Scope) -> tuple[Route | None, dict[str, str]]:
        path: str = scope["path"]
        exact = self._exact.get((method, path))
        if exact is not None:
            return exact, {}
        # The raw path: a name may hold an encoded slash.
        raw = scope.get("raw_path") or path.encode()
        parts = [unquote(part) for part in raw.decode("latin-1").partition("?")[0].strip("/").split("/")]
        for route in self._by_shape.get((method, len(parts)), ()):
            found: dict[str, str] = {}
            for mine, given in zip(route.parts, parts, strict=True):
                if mine.startswith("{"):
                    found[mine[1:-1]] = given
                elif mine != given:
                    break
            else:
                return route, found
        return None, {}

    async def _let_in(self, scope: Scope, route: Route | None, permission: str = "") -> Caller:
        """Who asks. Raises `unauthorized`, and `forbidden` for who has the permission nowhere. What does not
        exist is told only to who may ask."""
        permission = route.endpoint.permission if route is not None else permission
        given = next((value for name, value in scope["headers"] if name == b"authorization"), None)
        if given is None:
            if permission == OPEN:
                return NOBODY
            raise ArgosyError("unauthorized", "this server asks for a token")
        kind, _, secret = given.decode("latin-1").partition(" ")
        caller = await self._tokens.caller_of(secret.strip()) if kind.lower() == "bearer" else None
        if caller is None:
            raise ArgosyError("unauthorized", "the token is not one that this server knows")
        if permission and permission not in (OPEN, SIGNED_IN) and not visible(caller, permission):
            decided = may(caller, permission, Target())
            raise forbidden(decided.reason if isinstance(decided, Denied) else "")
        return caller

    async def _fail(self, exchange: Exchange | None, scope: Scope, send: Send, error: ArgosyError) -> None:
        if exchange is not None and exchange.answered:
            _log.warning("%s broke off: %s", exchange.endpoint.name, error.what)
            raise _Broken(
                error.what
            ) from None  # uvicorn cuts the connection: a cut stream is not a complete one
        status = 404 if exchange is None and error.code == "version-mismatch" and _knows_api(scope) else None
        await send_problem(send, error, status)

    def _unexpected(self, scope: Scope, error: Exception) -> ArgosyError:
        name = self._ids.new("err")
        _log.error("%s: %s %s failed", name, scope.get("method", "WS"), scope["path"], exc_info=error)
        return ArgosyError("internal", f"something unexpected happened; the server's log has it as `{name}`")


def _bound(caller: Caller, scope: Scope, endpoint: AnyEndpoint) -> Caller:
    """The caller with what this request says. Raises `usage` for a project that cannot be one."""
    project = ""
    for name, value in scope["headers"]:
        if name == PROJECT_HEADER and value:
            from argosy.spec.names import check_name

            project = check_name("project", value.decode("latin-1"))
    asks = endpoint.permission if endpoint.permission in PERMISSIONS else ""
    return msgspec.structs.replace(caller, project=project, asks=asks)


class _Broken(Exception):
    """The answer broke off after it had begun."""


def _check_api(scope: Scope) -> None:
    """A client may say which API it speaks. Raises `version-mismatch` when it is not ours."""
    if not _knows_api(scope):
        raise ArgosyError("version-mismatch", f"this server (Argosy {__version__}) speaks API {API_VERSION}")


def _knows_api(scope: Scope) -> bool:
    for name, value in scope["headers"]:
        if name == b"x-argosy-api":
            return bool(value == str(API_VERSION).encode())
    return True


def _before_upgrade(scope: Scope, send: Send) -> Send:
    """Errors before a WebSocket is accepted are ordinary answers, where the server can send them."""
    can_answer = "websocket.http.response" in (scope.get("extensions") or {})

    async def send_either(message: dict[str, object]) -> None:
        kind = str(message["type"])
        if kind.startswith("http.response."):
            if can_answer:
                await send({**message, "type": "websocket." + kind})
            elif kind == "http.response.start":
                await send({"type": "websocket.close", "code": 1011})
            return
        await send(message)

    return send_either  # type: ignore[return-value]  # a message is a dict
