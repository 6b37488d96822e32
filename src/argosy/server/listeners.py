"""Where the server listens: the unix socket always, TCP when asked. Binding fails before anything has
started."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import stat
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from argosy.model.errors import ArgosyError

if TYPE_CHECKING:
    from argosy.infra.agent_client import StreamChannel

BACKLOG = 1024
_QUIET_S, _PROBE_S, _PROBES = 30, 10, 3  # a peer that is gone is noticed after a minute


def bind_tcp(listen: str) -> socket.socket:
    """Bound, not yet listening. `listen` is HOST:PORT (port 0: any). Raises `usage`, `port-taken`."""
    host, colon, port_text = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not colon or not port_text.isdigit() or int(port_text) > 65535:
        raise ArgosyError(
            "usage", f"`{listen}` is no HOST:PORT", hint="write for example `--listen 127.0.0.1:7421`"
        )
    try:
        found = socket.getaddrinfo(
            host or None, int(port_text), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
    except OSError as error:
        raise ArgosyError("usage", f"there is no host `{host}`: {error.strerror or error}") from None
    family, kind, protocol, _, address = found[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # so have those that it accepts
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _QUIET_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _PROBE_S)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _PROBES)
        sock.bind(address)
        # A port is taken by who listens on it, so the proof is to listen; accepting begins later.
        sock.listen(BACKLOG)
    except OSError as error:
        sock.close()
        if error.errno == errno.EADDRINUSE:
            raise ArgosyError("port-taken", f"port {port_text} of `{host or '*'}` is in use") from None
        raise ArgosyError("usage", f"cannot listen on `{listen}`: {error.strerror}") from None
    sock.setblocking(False)
    return sock


def bind_socket(path: Path) -> socket.socket:
    """The unix socket, 0600 in a folder that is ours alone. Call it when requests can be answered: connecting
    works from now on. A socket of a server that is gone is replaced; the caller holds the lock of the state
    folder."""
    folder = path.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ArgosyError(
            "forbidden",
            f"`{folder}` belongs to somebody else",
            hint="delete it, or set ARGOSY_HOME to a shorter path",
        )
    if found.st_mode & 0o077:
        folder.chmod(0o700)
    path.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(old)
    sock.listen(BACKLOG)
    sock.setblocking(False)
    return sock


async def connected(make: Callable[[], asyncio.Protocol]) -> StreamChannel:
    """A connection within this process to a protocol, as over a socket."""
    from argosy.infra.agent_client import StreamChannel

    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    theirs.setblocking(False)
    await asyncio.get_running_loop().create_connection(make, sock=theirs)
    return StreamChannel(*await asyncio.open_connection(sock=ours))


class LocalSocket:
    """The unix socket of this server, and the file by which clients find it."""

    def __init__(self, path: Path) -> None:
        """Bind it: see `bind_socket`."""
        self._path = path
        self.sock = bind_socket(path)
        self._file = self._present()

    def is_replaced(self) -> bool:
        """Whether another server's socket stands in the place of ours."""
        return self._present() not in (None, self._file)

    def is_missing(self) -> bool:
        """Whether somebody removed the file: nobody can connect any more."""
        return self._present() is None

    def renew(self) -> None:
        """Bind a new socket in the place of the one whose file was removed."""
        self.sock = bind_socket(self._path)
        self._file = self._present()

    def unlink(self) -> None:
        """Remove the file, if it is ours."""
        if not self.is_replaced():
            self._path.unlink(missing_ok=True)

    def _present(self) -> tuple[int, int] | None:
        try:
            found = self._path.lstat()
        except OSError:
            return None
        return found.st_dev, found.st_ino


def server_url(addresses: Iterable[str], public: str) -> str:
    """Where others reach the server: as it was told, else its first port; "": it has none.

    >>> server_url(("/run/a.sock", "http://127.0.0.1:7421"), ""), server_url((), "https://argosy.example/")
    ('http://127.0.0.1:7421', 'https://argosy.example')
    """
    found = public.rstrip("/") or next((each for each in addresses if "://" in each), "")
    scheme, _, place = found.partition("://")
    host, _, port = place.rpartition(":")
    return f"{scheme}://{socket.gethostname()}:{port}" if host in ("0.0.0.0", "[::]") else found  # noqa: S104


def render_address(sock: socket.socket, is_encrypted: bool = False) -> str:
    """As people write it."""
    name = sock.getsockname()
    if isinstance(name, str):
        return name
    host = f"[{name[0]}]" if ":" in name[0] else name[0]
    return f"http{'s' if is_encrypted else ''}://{host}:{name[1]}"
