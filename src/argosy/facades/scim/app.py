"""SCIM 2.0 (RFC 7644) as an ASGI application, for who was let in already. Below `root`: Users, Groups,
ServiceProviderConfig, ResourceTypes, Schemas."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping, Sequence
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec

from argosy.facades.scim import resources
from argosy.facades.scim.filters import BadFilter, parse_filter
from argosy.facades.scim.patching import BadPatch, patched
from argosy.facades.scim.ports import Account, Group, Provisioning, Refused, Taken
from argosy.facades.scim.resources import BadResource

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_BODY_BYTES: Final = 4 << 20
_KINDS: Final = ("Users", "Groups")
_SEARCHED: Final = {("Users",): ("Users",), ("Groups",): ("Groups",), (): _KINDS}


class Problem(Exception):
    """A refusal in SCIM's words."""

    def __init__(self, status: int, text: str, kind: str = "") -> None:
        super().__init__(text)
        self.status, self.kind = status, kind


class Answer(msgspec.Struct, frozen=True):
    status: int
    body: Any = None  # JSON; None: there is none
    location: str = ""


class Request(msgspec.Struct, frozen=True, kw_only=True):
    method: str
    parts: tuple[str, ...]  # of the path below the root
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: Mapping[str, Any]
    base: str  # address of the root

    def names(self, name: str) -> list[str]:
        return [each.strip() for each in self.query.get(name, "").split(",") if each.strip()]

    def number(self, name: str, otherwise: int) -> int:
        text = self.query.get(name, "")
        if not text:
            return otherwise
        try:
            return int(text)
        except ValueError:
            raise Problem(400, f"`{name}` is a number", "invalidValue") from None


class Scim:
    """`root`: the path below which it is mounted."""

    def __init__(self, people: Provisioning, root: str) -> None:
        self._people, self._root = people, root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        try:
            request = await self._request(scope, receive)
            answer = await self._answer(request)
        except Problem as problem:
            body = resources.problem(problem.status, str(problem), problem.kind)
            answer = Answer(problem.status, body)
        headers = [(b"content-type", b"application/scim+json")]
        if answer.location:
            headers.append((b"location", answer.location.encode()))
        if isinstance(answer.body, dict) and "version" in answer.body.get("meta", ()):
            headers.append((b"etag", answer.body["meta"]["version"].encode()))
        data = b"" if answer.body is None else msgspec.json.encode(answer.body)
        headers.append((b"content-length", str(len(data)).encode()))
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        await send({"type": "http.response.body", "body": data if scope["method"] != "HEAD" else b""})

    async def _request(self, scope: Scope, receive: Receive) -> Request:
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        text = b""
        while True:
            message = await receive()
            text += message.get("body", b"")
            if len(text) > _BODY_BYTES:
                raise Problem(413, "the request is too large")
            if not message.get("more_body") or message["type"] == "http.disconnect":
                break
        body: Any = {}
        if text:
            try:
                body = msgspec.json.decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError):
                raise Problem(400, "the body is no JSON", "invalidSyntax") from None
        if not isinstance(body, dict):
            raise Problem(400, "the body is an object", "invalidSyntax")
        path = str(scope["path"]).removeprefix(self._root).strip("/")
        return Request(
            method="GET" if scope["method"] == "HEAD" else scope["method"],
            parts=tuple(path.split("/")) if path else (),
            query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
            headers=headers,
            body=body,
            base=f"{scope.get('scheme', 'https')}://{headers.get('host', 'argosy')}{self._root}",
        )

    async def _answer(self, request: Request) -> Answer:
        match request.parts:
            case ("ServiceProviderConfig",):
                return self._told(request, resources.service_provider(request.base))
            case ("ResourceTypes" | "Schemas" as what, *rest):
                made = resources.schemas if what == "Schemas" else resources.resource_types
                return self._described(request, made(request.base), rest)
            case ("Me", *_):
                raise Problem(501, "a program asks here, and is nobody")
            case (*kinds, ".search") if request.method == "POST" and tuple(kinds) in _SEARCHED:
                return await self._list(_searching(request), *_SEARCHED[tuple(kinds)])
            case (kind,) if kind in _KINDS:
                if request.method == "GET":
                    return await self._list(request, kind)
                if request.method == "POST":
                    return await self._make(request, kind)
                raise Problem(405, f"{request.method} is not for {kind}")
            case (kind, id) if kind in _KINDS:
                return await self._one(request, kind, id)
        raise Problem(404, "there is nothing here")

    def _told(self, request: Request, body: Any) -> Answer:
        if request.method != "GET":
            raise Problem(405, "this can only be read")
        if "filter" in request.query:
            raise Problem(403, "this cannot be filtered")
        return Answer(200, body)

    def _described(self, request: Request, all_of: list[dict[str, Any]], rest: Sequence[str]) -> Answer:
        if not rest:
            return self._told(request, resources.listed(all_of, 1, len(all_of)))
        found = next((each for each in all_of if each["id"] == rest[0] and len(rest) == 1), None)
        if found is None:
            raise Problem(404, f"there is no `{rest[0][:100]}`")
        return self._told(request, found)

    # -- accounts and groups ---------------------------------------------------------------------------

    async def _all(self, request: Request, kind: str) -> list[dict[str, Any]]:
        if kind == "Users":
            return [resources.render_account(each, request.base) for each in await self._people.accounts()]
        return [resources.render_group(each, request.base) for each in await self._people.groups()]

    async def _list(self, request: Request, *kinds: str) -> Answer:
        found = [each for kind in kinds for each in await self._all(request, kind)]
        if text := request.query.get("filter", ""):
            try:
                test = parse_filter(text)
            except BadFilter as error:
                raise Problem(400, str(error), "invalidFilter") from None
            found = [each for each in found if test(each)]
        page = resources.listed(
            found, request.number("startIndex", 1), request.number("count", resources.PAGE)
        )
        page["Resources"] = [self._chosen(request, each) for each in page["Resources"]]
        return Answer(200, page)

    async def _make(self, request: Request, kind: str) -> Answer:
        made = await self._put(request, kind, "", request.body)
        return Answer(201, self._chosen(request, made), made["meta"]["location"])

    async def _one(self, request: Request, kind: str, id: str) -> Answer:
        found = await self._find(request, kind, id)
        if found is None:
            raise Problem(404, f"there is no `{id[:100]}` in {kind}")
        version = found["meta"]["version"]
        if request.method == "GET":
            if request.headers.get("if-none-match") == version:
                return Answer(304)
            return Answer(200, self._chosen(request, found))
        if request.headers.get("if-match", version) not in (version, "*"):
            raise Problem(412, "it has changed since it was read")
        if request.method == "DELETE":
            await self._remove(kind, id)
            return Answer(204)
        if request.method == "PUT":
            changed = request.body
        elif request.method == "PATCH":
            try:
                changed = patched(found, request.body, resources.FIXED)
            except BadPatch as bad:
                raise Problem(400, str(bad), bad.kind) from None
        else:
            raise Problem(405, f"{request.method} is not for {kind}")
        return Answer(200, self._chosen(request, await self._put(request, kind, id, changed)))

    def _chosen(self, request: Request, shown: dict[str, Any]) -> dict[str, Any]:
        return resources.chosen(shown, request.names("attributes"), request.names("excludedAttributes"))

    async def _find(self, request: Request, kind: str, id: str) -> dict[str, Any] | None:
        if kind == "Users":
            account = await self._people.account(id)
            return None if account is None else resources.render_account(account, request.base)
        group = await self._people.group(id)
        return None if group is None else resources.render_group(group, request.base)

    async def _put(self, request: Request, kind: str, id: str, body: Mapping[str, Any]) -> dict[str, Any]:
        made: Account | Group | None
        try:
            if kind == "Users":
                made = await self._people.put_account(resources.parse_account(body, id))
            else:
                made = await self._people.put_group(resources.parse_group(body, id))
        except BadResource as error:
            raise Problem(400, str(error), "invalidValue") from None
        except Taken as error:
            raise Problem(409, str(error), "uniqueness") from None
        except Refused as error:
            raise Problem(403, str(error)) from None
        if made is None:
            raise Problem(404, f"there is no `{id[:100]}` in {kind}")
        if isinstance(made, Account):
            return resources.render_account(made, request.base)
        return resources.render_group(made, request.base)

    async def _remove(self, kind: str, id: str) -> None:
        try:
            await (self._people.remove_account(id) if kind == "Users" else self._people.remove_group(id))
        except Refused as error:
            raise Problem(403, str(error)) from None


def _searching(request: Request) -> Request:
    """A search whose query is its body, so that nothing of it stands in logs of addresses."""
    query: dict[str, str] = {}
    for name in ("filter", "startIndex", "count", "attributes", "excludedAttributes"):
        value = request.body.get(name)
        if value is not None:
            query[name] = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    return msgspec.structs.replace(request, query=query)
