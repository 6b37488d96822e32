"""The composition of a gateway's processes: listeners, router, control socket. The only file that reads
the clock."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from argosy.gateway.access_log import AccessLog
from argosy.gateway.connection import Door
from argosy.gateway.routing import Router
from argosy.gateway.shared import Board
from argosy.gateway.splice import clients
from argosy.model.addresses import is_loopback
from argosy.model.routes import GatewayCounters, RouteTable, Wanted

if TYPE_CHECKING:
    from argosy.gateway.tls import Certificates

#: Beside the control socket: certificates of domains, `NAME.pem`, and proofs for an authority.
CERTIFICATES: Final = "certificates"
PROOFS: Final = "proofs"
_BACKLOG: Final = 4096
_HANDSHAKE_S: Final = 10.0
_RENEW_S: Final = 30.0
_LOOK_S: Final = 0.05  # how often a worker sees what the others have in flight


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one gateway; paths are absolute."""

    control: str
    listen: tuple[str, ...] = ()  # HOST:PORT
    sockets: tuple[str, ...] = ()  # for our own edge, which tells the client's address
    workers: int = 1
    access_log: str = ""
    region: str = ""  # `provider/region`: the nearest replicas come first
    tls: tuple[str, ...] = ()  # HOST:PORT where TLS is spoken
    certificates: tuple[tuple[str, str], ...] = ()  # files of certificates and their keys
    edge: tuple[str, ...] = ()  # HOST:PORT where HAProxy listens
    edge_tls: tuple[str, ...] = ()  # HOST:PORT where HAProxy ends TLS and HTTP/2
    stop_s: float = 600.0  # answers may go on so long after SIGTERM

    @property
    def is_local(self) -> bool:
        """Whether only programs on this machine reach it: an edge, ours or another, stands for others."""
        hosts = [listen.rpartition(":")[0] for listen in (*self.listen, *self.tls)]
        return not (self.sockets or self.edge or self.edge_tls) and all(map(is_loopback, hosts))

    @property
    def own_paths(self) -> tuple[str, ...]:
        """Sockets that no replica may have."""
        return (self.control, self.outside, self.for_peers, *self.sockets)

    @property
    def outside(self) -> str:
        """The socket for what comes from other machines, through a tunnel for one: there nothing is local."""
        return str(Path(self.control).with_suffix(".outside")) if self.control else ""

    @property
    def for_peers(self) -> str:
        """The socket where other gateways pass on what is this one's."""
        return str(Path(self.control).with_suffix(".peer")) if self.control else ""


def now_ms() -> int:
    """Milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def request_ids() -> Callable[[], bytes]:
    """What makes ids of requests: eight digits of this process, and a count."""
    prefix = secrets.token_hex(4).encode()
    count = 0

    def new() -> bytes:
        nonlocal count
        count += 1
        return b"%b-%x" % (prefix, count)

    return new


def bind(listen: str) -> socket.socket:
    """A socket at HOST:PORT. Another process of this gateway that still ends may hold the port too.
    Raises ValueError with a sentence."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, int(port)))
    except (OSError, ValueError, OverflowError) as error:
        sock.close()
        why = error.strerror if isinstance(error, OSError) else "write HOST:PORT, with a port from 0 to 65535"
        raise ValueError(f"cannot listen at {listen}: {why}") from None
    return sock


def place_of(sock: socket.socket) -> str:
    """HOST:PORT of a listener."""
    host, port = sock.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def bind_unix(path: Path) -> socket.socket:
    """A unix socket that only its owner may open. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    return sock


def stop_event() -> asyncio.Event:
    """Set by SIGTERM and SIGINT."""
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(name, stopping.set)
    return stopping


class Sockets(NamedTuple):
    """Where requests come in: everybody's, our edge's and tunnels', TLS, other gateways'."""

    outer: list[socket.socket]
    inner: list[socket.socket]
    tls: list[socket.socket]
    peers: list[socket.socket]


class DataPlane:
    """One router behind its listeners."""

    def __init__(self, settings: Settings, board: Board | None = None) -> None:
        loop = asyncio.get_running_loop()
        log = AccessLog(Path(settings.access_log)) if settings.access_log else None
        proofs = Path(settings.control).parent / PROOFS if settings.control else None
        self.router = Router(loop, now_ms, board=board, log=log, own_paths=settings.own_paths, proofs=proofs)
        ids = request_ids()
        self.outer = Door(self.router, loop, ids, is_local=settings.is_local)
        self.inner = Door(self.router, loop, ids, trusted=True)
        self.peers = Door(self.router, loop, ids, trusted=True, peers=True)
        self.secure = Door(self.router, loop, ids, secure=True, is_local=settings.is_local)
        for door in (self.outer, self.inner, self.peers, self.secure):
            door.waits = self.router.waits
        self._loop = loop
        self._settings = settings
        self._servers: list[asyncio.Server] = []
        self._tasks = [loop.create_task(self._sweep())]
        if settings.workers > 1:
            self._tasks.append(loop.create_task(self._look_elsewhere()))

    async def listen(self, sockets: Sockets) -> None:
        """Take requests from these sockets. Raises ValueError for certificates that cannot be used."""
        if sockets.tls:
            certificates = load_certificates(self._settings)
            self.secure.serves = certificates.covers
            self._tasks.append(self._loop.create_task(renew_certificates(certificates)))
            for sock in sockets.tls:
                server = await self._loop.create_server(
                    clients(self.secure), sock=sock, backlog=_BACKLOG, ssl=certificates.context,
                    ssl_handshake_timeout=_HANDSHAKE_S,
                )  # fmt: skip
                self._servers.append(server)
        for sock in sockets.outer:
            server = await self._loop.create_server(clients(self.outer), sock=sock, backlog=_BACKLOG)
            self._servers.append(server)
        for door, inner in ((self.inner, sockets.inner), (self.peers, sockets.peers)):
            for sock in inner:
                server = await self._loop.create_unix_server(clients(door), sock=sock, backlog=_BACKLOG)
                self._servers.append(server)

    def places(self) -> list[str]:
        """HOST:PORT of every listener on a network."""
        socks = [sock for server in self._servers for sock in server.sockets]
        return [place_of(sock) for sock in socks if sock.family != socket.AF_UNIX]

    async def close(self) -> None:
        """Accept nothing new; answers that have begun go on for `stop_s`."""
        for server in self._servers:
            server.close()
        doors = (self.outer, self.inner, self.peers, self.secure)
        for door in doors:
            door.close()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._settings.stop_s):
                await asyncio.gather(*(door.emptied() for door in doors))
        for task in self._tasks:
            task.cancel()
        self.router.sweep()

    async def _sweep(self) -> None:
        while True:
            await asyncio.sleep(1.0)
            for door in (self.outer, self.inner, self.peers, self.secure):
                door.sweep()
            self.router.sweep()

    async def _look_elsewhere(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            self.router.look_elsewhere()


def load_certificates(settings: Settings) -> Certificates:
    """Those that were named, and those of services' domains; one that is made here where there is none, for
    whoever takes it into its trust. Raises ValueError with a sentence."""
    from argosy.gateway.own_certificate import ensure_certificate
    from argosy.gateway.tls import Certificates, Files

    files = [Files(certificate=certificate, key=key) for certificate, key in settings.certificates]
    now = datetime.datetime.now(datetime.UTC)
    if not settings.control and not files:
        raise ValueError("TLS needs a certificate: say --certificate FILE KEYFILE")
    if not files:
        names = [listen.rpartition(":")[0] for listen in (*settings.tls, *settings.edge_tls)]
        made = ensure_certificate(Path(settings.control).parent / "own", names, now.timestamp())
        files = [Files(certificate=str(made[0]), key=str(made[1]))]
    folder = Path(settings.control).parent / CERTIFICATES if settings.control else None
    return Certificates(files, now, folder)


async def renew_certificates(certificates: Certificates) -> None:
    """Take over new certificates when their files change; connections go on."""
    while True:
        await asyncio.sleep(_RENEW_S)
        for wrong in certificates.renew(datetime.datetime.now(datetime.UTC)):
            print(f"warning: {wrong}; the certificate before stays in use", file=sys.stderr)  # noqa: T201


class Alone:
    """A gateway of one process, as its control socket sees it."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self.board = router.board

    @property
    def generation(self) -> int:
        return self._router.generation

    def take(self, table: RouteTable, done: Callable[[str], None]) -> None:
        try:
            self._router.take_table(table)
        except ValueError as error:
            done(str(error))
        else:
            done("")

    def tell_all(self, done: Callable[[GatewayCounters], None]) -> None:
        done(self._router.tell())

    def wanted(self) -> tuple[Wanted, ...]:
        return self._router.wanted()
