"""S3's calls as an ASGI application over a store of objects.

Every request is signed, unless the door says that whoever comes is the owner (a unix socket). Buckets are
named in the path, or before the host's name.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, MutableMapping
from contextlib import closing
from typing import Any, Final
from urllib.parse import parse_qsl, unquote

from argosy.facades.s3 import answers
from argosy.facades.s3.calls import Call, Calls, Response
from argosy.facades.s3.ports import Doorkeeper, Holder, Objects
from argosy.facades.s3.signatures import Request, Signed, verify
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.objects import ObjectProblem

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
_FILES: Final = "http.response.zerocopysend"  # an extension of ASGI
_WRITES: Final = frozenset(("PUT", "POST", "DELETE"))


class Gone(Exception):
    """The client left."""


class S3:
    """`keeper` None: whoever comes is the owner. `domain`: hosts `BUCKET.domain` name a bucket."""

    def __init__(
        self, objects: Objects, clock: Clock, *, keeper: Doorkeeper | None, domain: str = "", root: str = ""
    ) -> None:
        self._calls, self._clock, self._keeper = Calls(objects), clock, keeper
        self._domain, self._root = domain.lower().lstrip("."), root

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        path = str(scope["path"])
        began = False
        try:
            call = await self._call(scope, receive)
            response = await self._calls.answer(call)
            if call.may_have_body and response.status >= 400:
                response.headers["connection"] = "close"
            began = True
            await self._send(send, response, call.method)
        except Gone:
            return
        except ObjectProblem as problem:
            if began:
                raise  # what was begun cannot be taken back: the connection breaks off
            status, body = answers.error(problem, path)
            await self._send(send, Response(status, body), scope["method"])
        except ArgosyError as error:
            if began:
                raise
            status, body = answers.refusal(error, path)
            await self._send(send, Response(status, body), scope["method"])

    async def _call(self, scope: Scope, receive: Receive) -> Call:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        raw = (scope.get("raw_path") or scope["path"].encode()).decode("latin-1").partition("?")[0]
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        request = Request(method=scope["method"], path=raw, query=query, headers=headers)
        signed, holder = await self._let_in(request)
        bucket, key = self._place(raw.removeprefix(self._root), headers.get("host", ""))
        if bucket and holder.bucket not in ("", bucket):
            raise ObjectProblem("AccessDenied", f"the key is for the bucket `{holder.bucket}` alone")
        writes = request.method in _WRITES
        if holder.reads_only and writes:
            raise ObjectProblem("AccessDenied", "the key may only read")
        if holder.prefix:
            _check_prefix(holder, request.method, key, dict(query))
        return Call(
            method=request.method,
            bucket=bucket,
            key=key,
            query=dict(query),
            headers=headers,
            signed=signed,
            holder=holder,
            received=_received(receive),
            takes_files=_FILES in scope.get("extensions", {}),
        )

    async def _let_in(self, request: Request) -> tuple[Signed | None, Holder]:
        if self._keeper is None:
            return None, Holder(secret="")
        key_id = _key_id(request)
        holder = await self._keeper.holder_of(key_id, _token(request)) if key_id else None
        now_s = self._clock.now_ms() / 1000
        signed = verify(request, lambda id: holder.secret if holder is not None else None, now_s)
        assert holder is not None
        if holder.expires_s and now_s >= holder.expires_s:
            raise ObjectProblem("ExpiredToken", "the temporary key has ended")
        return signed, holder

    def _place(self, raw: str, host: str) -> tuple[str, str]:
        """Bucket and key of a request. In a path, a bucket's name may hold encoded slashes."""
        named = self._bucket_of(host)
        if named:
            return named, unquote(raw).removeprefix("/")
        bucket, _, key = raw.removeprefix("/").partition("/")
        return unquote(bucket), unquote(key)

    def _bucket_of(self, host: str) -> str:
        name = host.rpartition(":")[0] or host if not host.endswith("]") else host
        name = name.lower()
        for domain in (self._domain, "localhost"):
            if domain and name.endswith(f".{domain}"):
                return name[: -len(domain) - 1]
        return ""

    async def _send(self, send: Send, response: Response, method: str) -> None:
        body = response.body
        headers = dict(response.headers)
        if isinstance(body, bytes):
            if body and "content-type" not in headers:
                headers["content-type"] = "application/xml"
            headers.setdefault("content-length", str(len(body)))
        head = [
            (name.encode("latin-1"), value.encode("latin-1", "replace")) for name, value in headers.items()
        ]
        await send({"type": "http.response.start", "status": response.status, "headers": head})
        if method == "HEAD" or isinstance(body, bytes):
            data = b"" if method == "HEAD" else body
            await send({"type": "http.response.body", "body": data, "more_body": False})
            return
        if isinstance(body, Generator):
            with closing(body):
                for fd, offset, count in body:
                    part = {"file": fd, "offset": offset, "count": count, "more_body": True}
                    await send({"type": _FILES, **part})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        held: bytes | None = None
        async for piece in body:  # one behind: the last piece is told to be the last
            if held is not None:
                await send({"type": "http.response.body", "body": held, "more_body": True})
            held = piece
        await send({"type": "http.response.body", "body": held or b"", "more_body": False})


def _key_id(request: Request) -> str:
    credential = dict(request.query).get("X-Amz-Credential", "")
    if not credential:
        _, _, credential = request.headers.get("authorization", "").partition("Credential=")
    return credential.partition("/")[0]


def _token(request: Request) -> str:
    given = request.headers.get("x-amz-security-token", "")
    return given or dict(request.query).get("X-Amz-Security-Token", "")


def _check_prefix(holder: Holder, method: str, key: str, query: Mapping[str, str]) -> None:
    """Raises ObjectProblem for what is not below the prefix; keys in bodies are looked at where they are
    read."""
    if key:
        allowed = key.startswith(holder.prefix)
    elif method == "GET" and not query.keys() & {"uploads", "location"}:
        allowed = query.get("prefix", "").startswith(holder.prefix)
    else:
        allowed = method == "HEAD" or "location" in query or (method == "POST" and "delete" in query)
    if not allowed:
        raise ObjectProblem("AccessDenied", f"the key is for what lies below `{holder.prefix}` alone")


async def _received(receive: Receive) -> AsyncIterator[bytes]:
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Gone
        if body := message.get("body", b""):
            yield body
        if not message.get("more_body", False):
            return
