"""Calls to web APIs that speak JSON: one client for each account, errors of the border only.

aiohttp is imported by the first call. A call that may be repeated (`safe`: everything but POST and PATCH,
unless its caller says so) is repeated when the connection fails or the API is busy; others are made once, and
what became of them is then not known: `Transient`.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, TypeVar
from urllib.parse import urlencode

import msgspec

from argosy.infra import border
from argosy.infra.http_words import Said, Words, error_of, said_of
from argosy.model.ids import Clock

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")
Query = Sequence[tuple[str, str | int]]
_WAIT_MAX_S: Final = 5.0  # a call waits at most so long until it is repeated; else its caller decides
_SAFE: Final = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it will be sent, for who signs it."""

    method: str
    url: str  # with its query
    body: bytes
    again: bool = False  # the last signature was not accepted: take a fresh token


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    status: int
    headers: Mapping[str, str]  # names in lower case
    body: bytes


class Form(msgspec.Struct, frozen=True):
    """A body in the way of a web form, as OAuth's token services take it."""

    fields: Mapping[str, str]


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """Whose API it is. `sign_in`: what makes credentials; `words`: what its refusals mean, asked before the
    common table."""

    title: str
    sign_in: str = "sign in again"
    words: Words | None = None


#: The headers that prove who asks. Raises `CredentialsRejected`.
Sign = Callable[[Ask], Awaitable[Mapping[str, str]]]


class Rate:
    """One call in `every_s` seconds (0: as many as come), of which `burst` may come at once."""

    def __init__(self, every_s: float, burst: int, clock: Clock) -> None:
        self._every_s, self._burst, self._clock = every_s, burst, clock
        self._left, self._at_s = float(burst), clock.monotonic_s()

    async def turn(self) -> None:
        """Waits for its turn, in the order of asking."""
        if not self._every_s:
            return
        now_s = self._clock.monotonic_s()
        self._left = min(float(self._burst), self._left + (now_s - self._at_s) / self._every_s)
        self._at_s = now_s
        self._left -= 1
        if self._left < 0:
            await asyncio.sleep(-self._left * self._every_s)


class How(msgspec.Struct, frozen=True, kw_only=True):
    """How a call is made. `safe`: it may be repeated (None: as its method says); `fine`: statuses that are
    answers, too; `rate`: a limit of its own."""

    safe: bool | None = None
    fine: tuple[int, ...] = ()
    rate: Rate | None = None
    headers: Mapping[str, str] = {}
    timeout_s: float = 30.0


_USUAL: Final = How()


class HttpJson:
    """The API of a service at `base`. `rate`: a limit of all calls; `repeats`: of safe calls that fail."""

    def __init__(
        self,
        base: str,
        service: Service,
        *,
        clock: Clock,
        sign: Sign | None = None,
        rate: Rate | None = None,
        tls: ssl.SSLContext | None = None,
        repeats: int = 2,
    ) -> None:
        self.base = base.rstrip("/")
        self._service, self._title, self._clock, self._sign = service, service.title, clock, sign
        self._rate, self._tls, self._repeats = rate, tls, repeats
        self._session: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def call(
        self,
        method: str,
        path: str,
        *,
        into: type[T],
        query: Query = (),
        json: object = None,
        scope: str = "",
        how: How = _USUAL,
        under: str = "",
    ) -> T:
        """The answer, as a type; None for an empty one with `into=type(None)`. `scope`: what is asked for,
        for an error that says that there is none; `under`: see `read`. Raises a border error."""
        reply = await self.send(method, path, query=query, json=json, scope=scope, how=how)
        return self.read(reply, into, under)

    async def find(self, path: str, *, into: type[T], query: Query = (), under: str = "") -> T | None:
        """What is at `path`; None: nothing is (404)."""
        reply = await self.send("GET", path, query=query, how=How(fine=(404,)))
        return None if reply.status == 404 else self.read(reply, into, under)

    async def drop(self, path: str, *, query: Query = ()) -> None:
        """DELETE; what is not there is deleted."""
        await self.send("DELETE", path, query=query, how=How(fine=(404, 410)))

    async def pages(
        self, path: str, *, into: type[T], following: Callable[[T], Query | None], query: Query = ()
    ) -> AsyncIterator[T]:
        """All pages of a listing. `following`: what the query of the next page adds; None: there is none."""
        more: Query | None = ()
        while more is not None:
            page = await self.call("GET", path, into=into, query=[*query, *more])
            yield page
            more = following(page)

    async def send(
        self,
        method: str,
        path: str,
        *,
        query: Query = (),
        json: object = None,
        scope: str = "",
        how: How = _USUAL,
    ) -> Reply:
        """One call, as its reply: success, or a status that is `fine`. `path` may be a whole address, `json`
        a `Form`. Raises a border error for everything else."""
        safe = method in _SAFE if how.safe is None else how.safe
        url = path if path.startswith(("http://", "https://")) else self.base + path
        if query:
            url += ("&" if "?" in url else "?") + urlencode([(key, str(value)) for key, value in query])
        body, own = _body(json)
        own |= how.headers
        left, again = self._repeats if safe else 0, False
        while True:
            if gate := how.rate or self._rate:
                await gate.turn()
            ask = Ask(method=method, url=url, body=body, again=again)
            try:
                reply = await self._once(ask, own, how.timeout_s)
                if reply.status < 300 or reply.status in how.fine:
                    return reply
                if reply.status == 401 and self._sign is not None and not again:
                    again = True  # nothing was done: a fresh token may be what it needs
                    continue
                raise error_of(self._said(reply, scope), self._service.words)
            except border.Transient as error:
                wait_s = max(error.after_s, 0.1) if not isinstance(error, border.Unreachable) else 0.2
                if not left or wait_s > _WAIT_MAX_S:
                    raise
                left -= 1
                await asyncio.sleep(wait_s)

    async def texts(self, path: str) -> AsyncIterator[str]:
        """What a WebSocket says, text by text, until it is closed. Raises `Unreachable`."""
        ask = Ask(method="GET", url=self.base + path, body=b"")
        signed = await self._sign(ask) if self._sign is not None else {}
        session = self._opened()
        import aiohttp

        options: dict[str, Any] = {"ssl": self._tls} if self._tls is not None else {}
        try:
            async with session.ws_connect(
                ask.url, headers=signed, heartbeat=20.0, max_msg_size=0, compress=0, **options
            ) as socket:
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        yield message.data
                if socket.close_code not in (None, 1000):
                    raise border.Unreachable(f"{self._title} broke off ({socket.close_code})", 1)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise border.Unreachable(f"{self._title} cannot be reached: {_why(error)}", 5) from None

    async def pieces(self, path: str, *, query: Query = ()) -> AsyncIterator[bytes]:
        """What an answer says that may never end, as it comes. Raises a border error."""
        ask = Ask(method="GET", url=f"{self.base}{path}?{urlencode(query)}", body=b"")
        signed = await self._sign(ask) if self._sign is not None else {}
        session = self._opened()
        import aiohttp

        options: dict[str, Any] = {"ssl": self._tls} if self._tls is not None else {}
        waits = aiohttp.ClientTimeout(total=None, sock_connect=30.0)
        try:
            async with session.get(ask.url, headers=signed, timeout=waits, **options) as response:
                if response.status >= 300:
                    reply = Reply(
                        status=response.status,
                        headers={name.lower(): value for name, value in response.headers.items()},
                        body=await response.read(),
                    )
                    raise error_of(self._said(reply, ""), self._service.words)
                async for piece in response.content.iter_any():
                    yield piece
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise border.Unreachable(f"{self._title} cannot be reached: {_why(error)}", 5) from None

    def read(self, reply: Reply, into: type[T], under: str = "") -> T:
        """The body as a type, or the part of it that stands under a name (`data`, `data.credit`). Raises
        `Transient` for what is none: another service answers there."""
        body: bytes | msgspec.Raw = b"null" if into is type(None) else reply.body.strip() or b"null"
        for name in under.split(".") if under else ():
            body = self._convert(body, reply, dict[str, msgspec.Raw]).get(name, b"null")
        return self._convert(body, reply, into)

    def _convert(self, body: bytes | msgspec.Raw, reply: Reply, into: type[T]) -> T:
        try:
            return msgspec.json.decode(body, type=into)
        except msgspec.ValidationError as error:
            raise border.Transient(f"{self._title} answers something unexpected: {error}", 60) from None
        except msgspec.DecodeError:
            said = self._said(reply, "")
            if said.is_page:
                raise error_of(said) from None
            raise border.Transient(f"{self._title} answers something that is no JSON", 60) from None

    def _said(self, reply: Reply, scope: str) -> Said:
        return said_of(
            reply.status,
            reply.headers,
            reply.body,
            title=self._title,
            sign_in=self._service.sign_in,
            scope=scope,
            now_s=self._clock.now_ms() / 1000,
        )

    async def _once(self, ask: Ask, own: Mapping[str, str], timeout_s: float) -> Reply:
        signed = dict(own) | dict(await self._sign(ask) if self._sign is not None else {})
        session = self._opened()
        import aiohttp
        from yarl import URL

        options: dict[str, Any] = {"ssl": self._tls} if self._tls is not None else {}
        try:
            async with session.request(
                ask.method,
                URL(ask.url, encoded=True),
                data=ask.body or None,
                headers=signed,
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                **options,
            ) as response:
                body = await response.read()
                headers = {name.lower(): value for name, value in response.headers.items()}
                return Reply(status=response.status, headers=headers, body=body)
        except TimeoutError:
            raise border.Unreachable(f"{self._title} did not answer within {timeout_s:.0f} s", 5) from None
        except aiohttp.ClientConnectorCertificateError:
            raise border.RequestRefused(
                "tls",
                f"the certificate of {URL(ask.url).host} is not trusted: name the one that signs it in "
                "SSL_CERT_FILE, or look who answers there",
            ) from None
        except (aiohttp.ClientError, OSError) as error:
            raise border.Unreachable(f"{self._title} cannot be reached: {_why(error)}", 5) from None

    def _opened(self) -> aiohttp.ClientSession:
        """The session of this loop. Connections are kept for the calls that follow."""
        try:
            import aiohttp
        except ImportError:
            raise border.CredentialsRejected(
                "aiohttp is not installed: `pip install argosy[clouds]`"
            ) from None
        loop = asyncio.get_running_loop()
        if self._session is None or self._loop is not loop:
            self._session = aiohttp.ClientSession(
                headers={"user-agent": "argosy", "accept": "application/json"}, trust_env=True
            )
            self._loop = loop
        return self._session

    async def close(self) -> None:
        """Connections go. A later call opens new ones."""
        if self._session is not None and self._loop is asyncio.get_running_loop():
            await self._session.close()
        self._session = None


def _body(json: object) -> tuple[bytes, dict[str, str]]:
    """What is sent, and the header that tells its kind."""
    if isinstance(json, Form):
        return urlencode(json.fields).encode(), {"content-type": "application/x-www-form-urlencoded"}
    return (b"", {}) if json is None else (msgspec.json.encode(json), {"content-type": "application/json"})


def _why(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__
