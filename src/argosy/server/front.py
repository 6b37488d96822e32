"""The front of the API: every request is matched with the endpoint table and authorised, and every error is
returned as a `Problem`.

This is a plain ASGI application rather than a framework's: see docs/decisions (what a framework would add
here is routing over a table that exists already, and a quarter of a second to every start).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NamedTuple
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
from argosy.server.keeping import Elsewhere, Keeping
from argosy.server.recording import Recorder

if TYPE_CHECKING:
    from argosy.server.door_rules import DoorRules
    from argosy.server.doorkeeper import Doorkeeper
    from argosy.server.visitors import Visitors

_log: Final = logging.getLogger(__name__)

#: Answers with a reply, with JSON that is encoded already, or (None) has answered by itself.
Handler = Callable[[Exchange], Awaitable[Reply | bytes | None]]


SIGN_IN_PATH: Final = "/login/sso"
PROJECT_HEADER: Final = b"x-argosy-project"
_NOT_KEPT: Final = (b"cache-control", b"no-store")
_PUT_OUT: Final = 4401  # how a WebSocket closes whose caller may not stay


class Mounted(NamedTuple):
    """Another ASGI application below a path, for whoever was let in; it finds them in the scope."""

    app: Callable[[Scope, Receive, Send], Awaitable[None]]
    reads: str  # what GET and HEAD ask for
    writes: str  # what all other methods ask for


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
    """The ASGI application. `over_socket` and `over_tcp` are the same doors with different guards.

    Over the socket nobody is asked, so what asks (`keeper`, `visitors`) is made with the first who comes by
    TCP."""

    def __init__(
        self,
        routes: tuple[Route, ...],
        *,
        keeper: Callable[[], Doorkeeper],
        recorder: Recorder,
        ids: Ids,
        mounts: Mapping[str, Mounted] | None = None,
    ) -> None:
        self._make_keeper, self._recorder, self._mounts = keeper, recorder, dict(mounts or {})
        self.rules: DoorRules | None = None  # names of the server, where more than its own address
        self.keeping = Keeping()
        self.has_provider = False  # people may sign in through an identity provider
        self.form_hosts = "'self'"  # where the start page may send forms: hosts of apps
        self.pages: Callable[[Scope, Send], Awaitable[None]] | None = None  # of browsers: to sign in
        self._ids, self.is_encrypted = ids, False  # whether browsers shall come by TLS only
        self._by_shape: dict[tuple[str, int], list[Route]] = {}
        self._exact: dict[tuple[str, str], Route] = {}
        for route in routes:
            method = route.endpoint.method
            self._by_shape.setdefault((method, len(route.parts)), []).append(route)
            if not any(part.startswith("{") for part in route.parts):
                self._exact[method, "/" + "/".join(route.parts)] = route

    @cached_property
    def keeper(self) -> Doorkeeper:
        made = self._make_keeper()
        if self.rules is not None:
            made.rules = self.rules
        return made

    @cached_property
    def _visitors(self) -> Visitors:
        from argosy.server.visitors import Visitors

        return Visitors(self.keeper)

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
            if not is_local:
                send = _guarded(send, is_encrypted=self.is_encrypted)
            if self.pages is not None and scope["path"].startswith(SIGN_IN_PATH) and not is_local:
                self.keeper.look(scope)
                await self.pages(scope, send)
                return
            if scope["path"] == "/" and scope["type"] == "http" and scope["method"] in ("GET", "HEAD"):
                if not is_local:
                    self.keeper.look(scope)
                await _start_page(self, send)
                return
            mounted = self._mounts.get("/" + scope["path"][1:].partition("/")[0])
            if mounted is not None and scope["type"] == "http":
                asks = mounted.reads if scope["method"] in ("GET", "HEAD") else mounted.writes
                scope["argosy.caller"] = OWNER if is_local else await self._let_in(scope, None, asks)
                scope["argosy.local"] = is_local
                await mounted.app(scope, receive, send)
                return
            _check_api(scope)
            route, path = self._match("WS" if scope["type"] == "websocket" else scope["method"], scope)
            caller = OWNER if is_local else await self._let_in(scope, route)
            if route is None and scope["type"] == "http" and self._match("WS", scope)[0] is not None:
                raise ArgosyError(
                    "usage",
                    f"{scope['path']} speaks WebSocket, and this request does not ask for that",
                    hint="a proxy on the way may take it out: it must pass the fields Upgrade and Connection",
                )
            if route is None:
                raise ArgosyError(
                    "version-mismatch",
                    f"this server (Argosy {__version__}, API {API_VERSION}) has no "
                    f"{scope.get('method', 'WebSocket')} {scope['path']}",
                    hint="use a client of the server's version",
                )
            caller = _bound(caller, scope, route.endpoint)
            if route.endpoint.method == "WS":
                send = self._recorder.opening(caller, route.endpoint, path, send)
            exchange = Exchange(scope, receive, send, route.endpoint, path, is_local=is_local, caller=caller)
            exchange.check_query()
            await self._answer(exchange, route, path)
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

    async def _answer(self, exchange: Exchange, route: Route, path: dict[str, str]) -> None:
        """The handler's answer, its record, and the end of it when its caller may not stay."""
        caller = exchange.caller
        if exchange.is_local or not caller.credential:
            await self._handle(exchange, route, path)
            return
        with self._visitors.visit(caller) as visit:
            try:
                await self._handle(exchange, route, path)
            except asyncio.CancelledError:
                if not visit.is_over or visit.task is None or visit.task.uncancel():
                    raise
                raise ArgosyError("unauthorized", "the credential has just ended") from None

    async def _handle(self, exchange: Exchange, route: Route, path: dict[str, str]) -> None:
        try:
            with self._recorder.acting(exchange.caller, route.endpoint) as acting:
                try:
                    answer = await route.handler(exchange)
                except Elsewhere:
                    if not await self.keeping.settled():
                        return await self._pass_on(exchange)
                    answer = await route.handler(exchange)
        except ArgosyError as error:
            if error.code == "forbidden":
                await self._recorder.denied(exchange.caller, route.endpoint, path)
            raise
        if acting is not None and route.endpoint.method != "WS":
            await self._recorder.done(acting, route.endpoint, path)
        if answer is not None:
            await exchange.reply(answer if isinstance(answer, bytes) else encode(answer))

    async def _pass_on(self, exchange: Exchange) -> None:
        """The server that keeps the files answers. It judges by itself who comes."""
        if (
            exchange.endpoint.method == "WS"
            or exchange.answered
            or (exchange.begun and exchange.taken is None)
        ):
            raise Elsewhere
        from argosy.server.passing import pass_on

        scope, exchange.answered = exchange.scope, True
        door, address = ("socket", "") if exchange.is_local else ("tcp", str(scope["argosy.address"]))
        try:
            channel = await self.keeping.reach(door, address)
        except ArgosyError:
            exchange.answered = False
            raise
        await pass_on(channel, scope, exchange.receive, exchange.send, exchange.taken)

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
        caller = await self.keeper.identify(scope)
        if caller is None:
            if permission == OPEN:
                return msgspec.structs.replace(NOBODY, address=scope["argosy.address"])
            raise ArgosyError("unauthorized", "this server asks for a token")
        if permission and permission not in (OPEN, SIGNED_IN) and not visible(caller, permission):
            decided = may(caller, permission, Target())
            if route is not None:
                await self._recorder.denied(caller, route.endpoint, {})
            raise forbidden(decided.reason if isinstance(decided, Denied) else "")
        return caller

    async def _fail(self, exchange: Exchange | None, scope: Scope, send: Send, error: ArgosyError) -> None:
        if exchange is not None and exchange.answered:
            _log.warning("%s broke off: %s", exchange.endpoint.name, error.what)
            if scope["type"] == "websocket" and error.code == "unauthorized":
                await send({"type": "websocket.close", "code": _PUT_OUT})
                return
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


async def _start_page(front: Front, send: Send) -> None:
    from argosy.server.start_page import page  # most servers are asked by programs

    body, fields = page(front.form_hosts, has_provider=front.has_provider)
    await send({"type": "http.response.start", "status": 200, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _guarded(send: Send, *, is_encrypted: bool) -> Send:
    """Every answer over TCP says what browsers may not do with it."""
    from argosy.server.door_rules import API_POLICY, HEADERS, LASTING_TLS

    always = [*HEADERS, *([LASTING_TLS] if is_encrypted else [])]

    async def guarded(message: dict[str, Any]) -> None:
        if message["type"].endswith("response.start"):
            there = {name for name, _ in message["headers"]}
            more = [pair for pair in (*always, API_POLICY, _NOT_KEPT) if pair[0] not in there]
            message = {**message, "headers": [*message["headers"], *more]}
        await send(message)

    return guarded  # type: ignore[return-value]  # a message is a dict


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
