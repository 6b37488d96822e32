"""The opening end of a tunnel, behind a firewall: one outgoing connection, which is made anew when it ends.

The token is sent only after the certificate of the other side was verified, or is the one that was pinned.
Every stream goes to the one target that was named here.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final, cast

import msgspec

from argosy.gateway.addresses import Address, connect_to
from argosy.gateway.tunnel_greeting import HEAD_MAX, Asked, NotGreeted, Serves, check_answer, render_request
from argosy.gateway.tunnel_mux import TICK_S, Mux, Stream

#: After a gateway's restart all its tunnels come back within this time, spread evenly.
SPREAD_S: Final = 10.0
LONGEST_S: Final = 30.0
_CONNECT_S: Final = 15.0


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one tunnel. `pin` is the SHA-256 of the certificate in hexadecimal; `authority` a file in PEM."""

    name: str
    gateway: Address
    target: Address
    token_file: str
    serves: Serves = "private"
    pin: str = ""
    authority: str = ""
    spread_s: float = SPREAD_S


def wait_s(tries: int, dice: float, spread_s: float = SPREAD_S) -> float:
    """How long to wait before the next try. `tries` have failed since the tunnel was lost; `dice` is evenly
    between 0 and 1.

    >>> [wait_s(tries, 0.5) for tries in range(4)]
    [5.0, 10.0, 15.0, 15.0]
    """
    return min(LONGEST_S, spread_s * (1 << min(tries, 10))) * dice


class _Caller(asyncio.Protocol):
    """Says what is asked, and reads the answer. `greeted` gets the bytes after its head."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._buffer = b""
        self._head: bytes | None = None
        self.greeted: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        settings = self._settings
        try:
            _check_pin(transport.get_extra_info("ssl_object"), settings)
            token = Path(settings.token_file).read_text("utf-8").strip()
        except (NotGreeted, OSError, UnicodeDecodeError) as error:
            self._fail(error)
            return
        asked = Asked(name=settings.name, token=token, serves=settings.serves)
        self.transport.write(render_request(asked, str(settings.gateway)))

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if self.greeted.done() or (not end and len(self._buffer) <= HEAD_MAX):
            return
        if not head.startswith(b"HTTP/1.1 101") and b"\n" not in rest and len(rest) < HEAD_MAX:
            return  # the line that says why is still on its way
        try:
            check_answer(head + end, rest)
        except NotGreeted as error:
            self._fail(error)
        else:
            self.transport.pause_reading()
            self.greeted.set_result(rest)

    def connection_lost(self, error: Exception | None) -> None:
        self._fail(error or ConnectionResetError("the connection was closed before the tunnel began"))

    def _fail(self, error: Exception) -> None:
        if not self.greeted.done():
            self.greeted.set_exception(error)
        self.transport.abort()


def _check_pin(tls: ssl.SSLObject, settings: Settings) -> None:
    if settings.pin:
        shown = hashlib.sha256(tls.getpeercert(binary_form=True) or b"").hexdigest()
        if not hmac.compare_digest(shown, settings.pin.lower()):
            raise NotGreeted(
                495, f"the certificate of {settings.gateway} is not the pinned one: its SHA-256 is {shown}"
            )


def _context(settings: Settings) -> ssl.SSLContext:
    """Raises OSError for a file of an authority that cannot be read."""
    context = ssl.create_default_context(cafile=settings.authority or None)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    if settings.pin:  # compared after the handshake, before anything is sent
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


class Opener:
    """Holds one tunnel open. `said` gets "up" or "down", and why; `dice` gives numbers between 0 and 1."""

    def __init__(
        self, settings: Settings, said: Callable[[str, str], None], dice: Callable[[], float]
    ) -> None:
        """Raises OSError for a file of an authority that cannot be read."""
        self._settings = settings
        self._said = said
        self._dice = dice
        self._loop = asyncio.get_running_loop()
        self._ssl = _context(settings)
        self._dialling: set[asyncio.Task[None]] = set()

    async def run(self) -> None:
        """For ever. Raises NotGreeted when the first try is refused, or the other side's certificate is not
        good: then somebody has to look. Later these are waited out."""
        tries, first = 0, True
        while True:
            try:
                ended = await self._connect()
            except ssl.SSLCertVerificationError as error:
                why = f"the certificate of {self._settings.gateway} is not good: {error.verify_message}"
                if first:
                    raise NotGreeted(495, why) from None
            except NotGreeted as error:
                if first:
                    raise
                why = str(error)
            except (OSError, TimeoutError) as error:
                why = str(error) or "no answer in time"
            else:
                tries, first = 0, False
                self._said("up", "")
                why = await ended
            self._said("down", why)
            await asyncio.sleep(wait_s(tries, self._dice(), self._settings.spread_s))
            tries += 1

    async def _connect(self) -> asyncio.Future[str]:
        """One try. What it returns is done when the tunnel has ended, with why."""
        gateway = self._settings.gateway
        async with asyncio.timeout(_CONNECT_S):
            transport, caller = await self._loop.create_connection(
                lambda: _Caller(self._settings), gateway.host, gateway.port, ssl=self._ssl,
                server_hostname=gateway.host,
            )  # fmt: skip
            try:
                rest = await caller.greeted
            except BaseException:
                transport.abort()
                raise
        ended: asyncio.Future[str] = self._loop.create_future()
        mux = Mux(self._loop, lambda _, why: _tell(ended, why), self._accept)
        ticking = self._loop.create_task(_tick(mux))
        ended.add_done_callback(lambda _: ticking.cancel())
        transport.set_protocol(mux)
        mux.connection_made(transport)
        if rest:
            mux.data_received(rest)
        transport.resume_reading()
        return ended

    def _accept(self, stream: Stream) -> None:
        task = self._loop.create_task(self._dial(stream))
        self._dialling.add(task)
        task.add_done_callback(self._dialling.discard)

    async def _dial(self, stream: Stream) -> None:
        try:
            await connect_to(self._settings.target, lambda: stream)
        except OSError:
            stream.refuse()


def _tell(ended: asyncio.Future[str], why: str) -> None:
    if not ended.done():
        ended.set_result(why)


async def _tick(mux: Mux) -> None:
    while True:
        await asyncio.sleep(TICK_S)
        mux.tick()
