"""One API server over HTTP and WebSocket: calls, listings, watches, and a stream to a command in a pod.

aiohttp is loaded by the first call, in a thread, because it takes a third of a second.
"""

from __future__ import annotations

import asyncio
import importlib
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel
from argosy.model.ids import Clock
from argosy.providers.kubernetes.identity import Identity
from argosy.providers.kubernetes.kubeconfig import Context
from argosy.providers.kubernetes.objects import Listing
from argosy.providers.kubernetes.stream import ExecStream
from argosy.providers.kubernetes.words import refusal

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
Query = Sequence[tuple[str, str]]
_CALL_S: Final = 30.0
_AT_ONCE: Final = 32
_PAGE: Final = 500
_SILENCE_S: Final = 330.0  # a watch is asked to end itself before: networks drop idle connections unheard
WATCH_S: Final = 300
_LINE_BYTES: Final = 8 << 20
_PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")


class Gone(border.Transient):
    """A watch cannot go on from where it was (410): list again."""


class Api:
    """The API server of one context."""

    def __init__(self, context: Context, environ: Mapping[str, str], clock: Clock) -> None:
        self.context = context
        self._environ, self._clock = environ, clock
        self._identity = Identity(context, environ, clock)
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tls: ssl.SSLContext | None = None
        self._turns = asyncio.Semaphore(_AT_ONCE)

    async def call(
        self,
        method: str,
        path: str,
        *,
        into: type[T],
        query: Query = (),
        json: object = None,
        fine: Sequence[int] = (),
        patch: str = "",
    ) -> T | None:
        """The answer; None when its status is one of `fine`. Raises a border error. GET and DELETE are
        repeated once after a lost connection."""
        body = None if json is None else msgspec.json.encode(json)
        kind = {"content-type": patch or "application/json"} if body is not None else {}
        again, tries = False, 2 if method in ("GET", "DELETE") else 1
        async with self._turns:
            while True:
                headers = kind | await self._identity.headers(again=again)
                try:
                    status, told, data = await self._once(method, path, query, body, headers)
                except border.Unreachable:
                    tries -= 1
                    if not tries:
                        raise
                    continue
                if status == 401 and not again:
                    again = True
                    continue
                if status in fine:
                    return None
                if status >= 300:
                    raise self._refusal(status, told, data)
                try:
                    return msgspec.json.decode(data, type=into)
                except msgspec.DecodeError:
                    raise self._refusal(status, told, data) from None

    async def find(self, path: str, *, into: type[T]) -> T | None:
        """None: there is no such object, or its kind is not known there."""
        return await self.call("GET", path, into=into, fine=(404,))

    async def items(self, path: str, *, into: type[T], query: Query = ()) -> tuple[list[T], str]:
        """All pages of a listing, and the version after which a watch goes on."""
        found: list[T] = []
        more, version = "", ""
        while True:
            asked = [*query, ("limit", str(_PAGE)), *([("continue", more)] if more else [])]
            page = await self.call("GET", path, into=Listing, query=asked)
            assert page is not None
            try:
                found += msgspec.json.decode(page.items, type=list[into] | None) or ()  # type: ignore[valid-type]
            except msgspec.DecodeError as error:
                text = f"{self.context.name} tells something unexpected of {path}: {error}"
                raise border.Transient(text, 30) from None
            version = page.metadata.resource_version or version
            more = page.metadata.continue_
            if not more:
                return found, version

    async def watch(self, path: str, *, query: Query, version: str) -> AsyncIterator[bytes]:
        """Lines of a watch until the server ends it. Raises `Gone` and other border errors."""
        asked = [*query, ("watch", "true"), ("allowWatchBookmarks", "true"), ("resourceVersion", version)]
        asked.append(("timeoutSeconds", str(WATCH_S)))
        session, aio = await self._opened()
        limits = aio.ClientTimeout(total=None, sock_connect=_CALL_S, sock_read=_SILENCE_S)
        headers = await self._identity.headers()
        try:
            async with session.get(
                self.context.server + path, params=asked, headers=headers, timeout=limits, **self._options()
            ) as answer:
                if answer.status == 410:
                    raise Gone("the watch is too old", 0)
                if answer.status >= 300:
                    raise self._refusal(answer.status, _lower(answer.headers), await answer.read())
                async for line in _lines(answer.content):
                    yield line
        except (aio.ClientError, OSError, TimeoutError) as error:
            raise self._lost(error) from None

    async def exec(self, namespace: str, pod: str, container: str, command: Sequence[str]) -> Channel:
        """A stream to a command in a pod, over a WebSocket. Raises `Unreachable`."""
        session, aio = await self._opened()
        query = [("container", container), ("stdin", "true"), ("stdout", "true"), ("stderr", "true")]
        query += [("command", word) for word in command]
        for again in (False, True):
            headers = await self._identity.headers(again=again)
            try:
                socket = await session.ws_connect(
                    f"{self.context.server}/api/v1/namespaces/{namespace}/pods/{pod}/exec",
                    params=query,
                    headers=headers,
                    protocols=_PROTOCOLS,
                    heartbeat=20.0,
                    max_msg_size=0,
                    compress=0,
                    **self._options(),
                )
            except aio.WSServerHandshakeError as error:
                if error.status == 401 and not again:
                    continue
                raise border.Unreachable(self._no_stream(pod, error.status, error.message)) from None
            except (aio.ClientError, OSError, TimeoutError) as error:
                raise border.Unreachable(f"no stream to the pod {pod}: {_why(error)}") from None
            return ExecStream(socket, closes_input=socket.protocol == _PROTOCOLS[0])
        raise AssertionError("both tries end above")

    def _no_stream(self, pod: str, status: int, words: str) -> str:
        if status == 403:
            return (
                f"{self.context.name} does not allow to get and create pods/exec: `argosy kubernetes "
                "manifest` prints the role that is needed"
            )
        return f"no stream to the pod {pod} of {self.context.name}: status {status} {words}".rstrip()

    async def close(self) -> None:
        if self._session is not None and self._loop is asyncio.get_running_loop():
            await self._session.close()
        self._session = None

    # -- one request -----------------------------------------------------------------------------------------

    async def _once(
        self, method: str, path: str, query: Query, body: bytes | None, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        session, aio = await self._opened()
        try:
            async with session.request(
                method,
                self.context.server + path,
                params=list(query),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=aio.ClientTimeout(total=_CALL_S),
                **self._options(),
            ) as answer:
                return answer.status, _lower(answer.headers), await answer.read()
        except (aio.ClientError, OSError, TimeoutError) as error:
            raise self._lost(error) from None

    async def _opened(self) -> tuple[aiohttp.ClientSession, Any]:
        """The session of this loop and the module."""
        try:
            aio = await asyncio.to_thread(importlib.import_module, "aiohttp")
        except ImportError:
            raise border.CredentialsRejected(
                "aiohttp is not installed: `pip install argosy[kubernetes]`"
            ) from None
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            connector = aio.TCPConnector(limit=0, keepalive_timeout=60)
            self._session = aio.ClientSession(connector=connector, headers={"accept": "application/json"})
            self._loop = loop
        assert self._session is not None
        return self._session, aio

    def _options(self) -> dict[str, Any]:
        """TLS and proxy of this context, as aiohttp takes them."""
        options: dict[str, Any] = {}
        if self.context.server.startswith("https:"):
            self._tls = self._identity.tls(self._tls)
            options["ssl"] = self._tls
            if self.context.tls_name:
                options["server_hostname"] = self.context.tls_name
        scheme, _, place = self.context.server.partition("://")
        own = {
            name.lower(): value for name, value in self._environ.items() if name.lower().endswith("_proxy")
        }
        proxies = {name.removesuffix("_proxy"): value for name, value in own.items()}
        host = place.partition("/")[0]
        if self.context.proxy:
            options["proxy"] = self.context.proxy
        elif proxies.get(scheme) and not urllib.request.proxy_bypass_environment(host, proxies):  # type: ignore[attr-defined]
            options["proxy"] = proxies[scheme]
        return options

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> border.BorderError:
        now_s = self._clock.now_ms() / 1000
        return refusal(status, headers, body, context=self.context.name, now_s=now_s)

    def _lost(self, error: Exception) -> border.BorderError:
        name, server = self.context.name, self.context.server
        if isinstance(error, ssl.SSLError) or isinstance(
            getattr(error, "certificate_error", None), ssl.SSLError
        ):
            said = str(getattr(error, "certificate_error", error))
            fix = "the kubeconfig holds another cluster's `certificate-authority-data`: write it anew"
            if "not yet valid" in said or "expired" in said:
                fix = "is this machine's clock right (`timedatectl`)? Else the cluster has to renew it"
            return border.CredentialsRejected(f"the certificate of {server} is not trusted ({said}): {fix}")
        if isinstance(error, TimeoutError):
            return border.Unreachable(f"{name} at {server} does not answer", 5)
        return border.Unreachable(f"{name} at {server} cannot be reached: {_why(error)}", 5)


async def _lines(content: aiohttp.StreamReader) -> AsyncIterator[bytes]:
    rest = b""
    async for data in content.iter_any():
        *lines, rest = (rest + data).split(b"\n")
        for line in filter(None, lines):
            yield line
        if len(rest) > _LINE_BYTES:
            raise border.Transient("a watch tells an object of more than 8 MiB", 30)


def _lower(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def _why(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
