"""Where nodes dial in: an HTTP upgrade at the door over TCP, which then belongs to `infra.dialled`."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from argosy.agent import wire
from argosy.infra.dialled import Dialled, problem_of
from argosy.infra.system import new_token
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids

_log: Final = logging.getLogger(__name__)
UPGRADE: Final = wire.DIAL_UPGRADE.encode()
_LIMIT_BYTES: Final = 256 << 10
_REFUSED: Final = b"HTTP/1.1 401 Unauthorized\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Public(msgspec.Struct, frozen=True, kw_only=True):
    """How a server is reached from other machines, and how it proves that it is the one."""

    url: str = ""  # what nodes are told: https://HOST:PORT
    ca: str = ""  # a file of certificates that nodes are to trust beside their own

    def registry(self, state_dir: Path, clock: Clock, ids: Ids) -> Dialled:
        """Where nodes dial in. Raises ArgosyError `usage` for a file that cannot be read."""
        file = self.ca
        try:
            ca = Path(file).read_text() if file else ""
            secret = load_secret(state_dir / "dial.key")
        except (OSError, ValueError) as error:
            raise ArgosyError("usage", f"cannot read {file or state_dir}: {error}") from None
        return Dialled(secret, clock, ids, public_url=self.url, ca=ca)


def parse_public(environ: Mapping[str, str]) -> Public:
    """From ARGOSY_PUBLIC_URL and ARGOSY_PUBLIC_CA. Raises ArgosyError `usage`."""
    url = environ.get("ARGOSY_PUBLIC_URL", "").rstrip("/")
    if url and (problem := problem_of(url)):
        fact, _, fix = problem.partition(": ")
        raise ArgosyError("usage", fact, hint=fix)
    return Public(url=url, ca=environ.get("ARGOSY_PUBLIC_CA", ""))


def load_secret(path: Path) -> bytes:
    """The server's secret for keys of nodes, made when there is none. Raises OSError."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with open(handle, "wb") as file:
            file.write(new_token().encode())
    except FileExistsError:
        pass
    return path.read_bytes()


class DialDoor:
    """Takes connections of nodes over from the HTTP door."""

    def __init__(
        self, dialled: Dialled, elsewhere: Callable[[str, str], Awaitable[str | None]] | None = None
    ) -> None:
        """`elsewhere`: the key of a node to which another server gave its token."""
        self._dialled, self._elsewhere = dialled, elsewhere
        self._tasks: set[asyncio.Task[None]] = set()

    def take(self, path: str, headers: Sequence[tuple[bytes, bytes]], transport: asyncio.Transport) -> None:
        """`transport` asked to upgrade; from now on it is ours, or refused."""
        given = {name.lower(): value.decode("latin-1") for name, value in headers}
        node = given.get(b"x-argosy-node", "")
        secret = given.get(b"authorization", "").partition(" ")[2].strip()
        if path != wire.DIAL_PATH or not node:
            self._refuse(node, transport)
        elif (key := self._dialled.admit(node, secret)) is not None:
            self._let_in(node, secret, key, transport)
        elif self._elsewhere is None:
            self._refuse(node, transport)
        else:
            transport.pause_reading()
            self._keep(self._ask(self._elsewhere(node, secret), node, secret, transport))

    async def _ask(
        self, asked: Awaitable[str | None], node: str, secret: str, transport: asyncio.Transport
    ) -> None:
        key = await asked
        if transport.is_closing():
            return
        transport.resume_reading()
        if key is None:
            self._refuse(node, transport)
        else:
            self._let_in(node, secret, key, transport)

    def _refuse(self, node: str, transport: asyncio.Transport) -> None:
        _log.info("a node that calls itself %r is not let in", node[:80])
        transport.write(_REFUSED)
        transport.close()

    def _let_in(self, node: str, secret: str, key: str, transport: asyncio.Transport) -> None:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader(limit=_LIMIT_BYTES, loop=loop)
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        protocol.connection_made(transport)
        transport.set_protocol(protocol)
        writer = asyncio.StreamWriter(transport, protocol, reader, loop)
        answer = f"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: {wire.DIAL_UPGRADE}\r\n"
        if secret != key:
            answer += f"X-Argosy-Key: {key}\r\n"
        writer.write(answer.encode() + b"\r\n")
        self._keep(self._dialled.attach(node, reader, writer))

    def _keep(self, work: Coroutine[object, object, None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
