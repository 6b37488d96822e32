"""This server among those of its database: opened with the server, closed with it. Alone it costs nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from argosy import __version__
from argosy.api.location import socket_path
from argosy.infra.agent_port import Channel
from argosy.infra.provider import Providers
from argosy.infra.system import random_bytes
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.rows import Node
from argosy.server.keeping import Keeping
from argosy.server.listeners import bind_tcp
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store import Store
from argosy.store.schema import HEAD, Stored
from argosy.store.servers import Peer

if TYPE_CHECKING:
    from argosy.server.peers.answering import Answering
    from argosy.server.peers.machines import Machines
    from argosy.server.peers.membership import Membership
    from argosy.server.peers.peers import Peers
    from argosy.server.ports import Controllers, Seat

_log: Final = logging.getLogger(__name__)
_ID_FILE: Final = "server.id"
_BOOT: Final = Path("/proc/sys/kernel/random/boot_id")


class Here(msgspec.Struct, frozen=True, kw_only=True):
    """What this server has, and others may ask for."""

    reach: Callable[[Node], Awaitable[Channel]]  # not through other servers
    providers: Providers  # of this machine
    logs: LogStore
    blobs: BlobStore
    admit: Callable[[str, str], str | None]  # a node with the token that this server gave out
    door: Callable[[str, str], Awaitable[Channel]]  # a connection to one of its doors, for an address


class House:
    """`address`: HOST:PORT on a private network where the other servers reach this one; "": a unix socket,
    for servers on the same machine."""

    def __init__(self, store: Store, state_dir: Path, address: str, clock: Clock, ids: Ids) -> None:
        self._store, self._state_dir, self._clock = store, state_dir, clock
        self._ids, self._address = ids, address
        self._membership: Membership | None = None
        self._tls: tuple[ssl.SSLContext, ssl.SSLContext] | None = None
        self._machines: Machines | None = None
        self.peers: Peers | None = None
        self.keeping = Keeping()
        self._socket: socket.socket | None = None

    @property
    def term(self) -> Callable[[], int] | None:
        """As `controllers.seat.Seat` has it."""
        return self._membership.term if self._membership is not None else None

    # -- before the rest ----------------------------------------------------------------------------

    async def open(self) -> None:
        """Learn which servers there are. Raises ArgosyError for an address that cannot be listened on."""
        if self._store.servers.is_alone:
            return
        from argosy.server.peers.calls import Calls
        from argosy.server.peers.files import SharedKeeping
        from argosy.server.peers.machines import Machines
        from argosy.server.peers.membership import Membership
        from argosy.server.peers.peers import Peers

        boot = _read(_BOOT)
        host = socket.gethostname()
        tls = await self._find_tls()
        if tls is not None:
            self._socket, where = await asyncio.to_thread(self._bind)
        else:
            where = ""
        me = Peer(
            id=self._own_id(),
            name=host if self._address else f"{host}:{self._state_dir}",
            address=where,
            boot=boot,
            version=__version__,
            schema=HEAD,
        )
        self._membership = Membership(self._store.servers, me, self._clock)
        calls = Calls(self._membership, tls[1] if tls is not None else None)
        self._tls, self.peers = tls, Peers(self._membership, calls, self._clock)
        self._machines = Machines(self._store.servers, self._membership, calls)
        self._store.wrote = self._tell
        await self._membership.beat()
        self.keeping = files = SharedKeeping(self._store.servers, self._membership, calls, self._state_dir)
        await files.open()

    async def _find_tls(self) -> tuple[ssl.SSLContext, ssl.SSLContext] | None:
        """None, with a line in the log, where the database's secrets cannot be opened."""
        from argosy.server.peers.certificates import contexts

        try:
            secret = await self._store.servers.secret("peers", random_bytes(32).hex())
        except ArgosyError as error:
            _log.error("other servers cannot be reached: %s (%s)", error.what, error.hint)
            return None
        return await asyncio.to_thread(contexts, secret, self._clock.now_ms() / 1000)

    def _own_id(self) -> str:
        """The same as long as the state folder is there: work is on its machine."""
        path = self._state_dir / _ID_FILE
        found = _read(path)
        if not found:
            found = self._ids.new("srv")
            path.write_text(found + "\n")
        return found

    def _bind(self) -> tuple[socket.socket, str]:
        if self._address:
            bound = bind_tcp(self._address)
            host, port = bound.getsockname()[:2]
            named = self._address.rpartition(":")[0]
            return bound, f"{named or host}:{port}"
        path = socket_path(self._state_dir).with_name("peers.sock")
        if socket_path(self._state_dir).name != "server.sock":  # a stand-in for a long path
            path = socket_path(self._state_dir).with_suffix(".peers")
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        bound.bind(str(path))
        path.chmod(0o600)
        bound.listen(128)
        bound.setblocking(False)
        return bound, str(path)

    async def shared(self, path: Path, make: Callable[[], str]) -> None:
        """Let a file with a secret be the same at all servers: what the database has, else what is here."""
        if self._store.servers.is_alone:
            return
        name = str(path.relative_to(self._state_dir))
        own = _read(path)
        with contextlib.suppress(ArgosyError):  # without the key that seals, each has its own
            value = await self._store.servers.secret(name, own or make())
            if own and own != value:
                _log.warning(
                    "%s is not the one of the other servers: what they keep with it is not shared", path
                )
            elif not own:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                with open(handle, "w") as file:
                    file.write(value)

    async def share_keys(self, names: Iterable[str]) -> None:
        """Any server opens the machines that another has ordered."""
        for name in names:
            path = self._state_dir / "providers" / name / "keys" / "secret"
            await self.shared(path, lambda: random_bytes(32).hex())

    def share(self, providers: Providers) -> Providers:
        """What is on the machine of one server can be had by all."""

        if self._machines is None:
            return providers
        from argosy.server.peers.machines import SharedProviders

        return SharedProviders(providers, self._machines)

    # -- nodes --------------------------------------------------------------------------------------

    async def reach(self, node: Node, own: Callable[[Node], Awaitable[Channel]]) -> Channel:
        """A stream to a node's agent: by own means, or another server's."""
        return await own(node) if self.peers is None else await self.peers.reach(node, own)

    async def admit(self, node: str, token: str) -> str | None:
        """The key of a node to which another server gave its token."""
        return None if self.peers is None else await self.peers.admit(node, token)

    # -- while the server runs ----------------------------------------------------------------------

    @contextlib.asynccontextmanager
    async def joined(self, here: Here, controllers: Controllers, seat: Seat) -> AsyncIterator[None]:
        """Answer to other servers, and be one of those that may decide."""
        membership, peers = self._membership, self.peers
        if membership is None or peers is None:
            yield
            return
        from argosy.server.peers.answering import Answering
        from argosy.server.peers.peers import Attendance

        attendance = Attendance(self._store, controllers, seat, peers, self._clock)
        answering = Answering(here, attendance.hear)
        server = None
        if self._tls is not None and self._socket is not None:
            server = await _serve(self._socket, answering, self._tls[0])
        membership.began.append(seat.begin_to_decide)
        keeping = [asyncio.ensure_future(membership.keep()), asyncio.ensure_future(attendance.keep())]
        try:
            yield
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.wait(keeping)
            await membership.leave()
            if server is not None:
                server.close()
            answering.close()
            await peers.close()

    def _tell(self, rows: Iterable[Stored]) -> None:
        if self.peers is not None:
            self.peers.tell_rows(row.id for row in rows)


async def _serve(bound: socket.socket, answering: Answering, tls: ssl.SSLContext) -> asyncio.Server:
    if bound.family == socket.AF_UNIX:
        return await asyncio.start_unix_server(answering.serve, sock=bound, ssl=tls)
    return await asyncio.start_server(answering.serve, sock=bound, ssl=tls)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
