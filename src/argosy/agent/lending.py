"""Where a mounting tool on this machine reaches a folder of the server: a port of the loopback, whose
connections go to streams that the server holds ready.

Nothing else listens: the server opens the streams, over the connection that it has to this node. The token
that the tool says is made here, is in the memory of that process and of ours, and ends with the mount.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import socket
import threading

from argosy.agent.joining import join
from argosy.agent.orders import Refused

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

_BACKLOG = 64
_LOOK_S = 0.05
_PATIENCE_S = 30.0  # so long a stream waits for its mount to be made
_URL = "URL"
_KEY = "BEARER_TOKEN"


class Lent:
    """What one mount is lent: a port, and who may use it."""

    def __init__(self, port: int, token: str) -> None:
        self.token = token
        self.socket = socket.socket()
        try:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self.socket.bind(("127.0.0.1", port))
            self.socket.listen(_BACKLOG)
            self.socket.setblocking(False)
        except OSError:
            self.socket.close()
            raise
        self.port = int(self.socket.getsockname()[1])
        self._turn: asyncio.Lock | None = None

    async def connection(self) -> socket.socket:
        """The next that comes; streams have turns. Raises OSError when it was taken back."""
        if self._turn is None:
            self._turn = asyncio.Lock()
        async with self._turn:
            made, _ = await asyncio.get_running_loop().sock_accept(self.socket)
            return made


class Lending:
    """What all mounts of this agent are lent, by the paths of the mounts."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lent: dict[str, Lent] = {}

    def offer(self, path: str, prefix: str, earlier: dict[str, str] | None = None) -> dict[str, str]:
        """What the tool is told in its environment; `prefix`: before the names of its settings. `earlier`:
        what a tool that goes on was told by an agent before us. Raises OSError when somebody else has its
        port."""
        with self._lock:
            before = self._lent.pop(path, None)
            if before is not None:
                before.socket.close()
            if earlier is None:
                lent = Lent(0, secrets.token_urlsafe(32))
            else:
                lent = Lent(int(earlier[prefix + _URL].rpartition(":")[2]), earlier[prefix + _KEY])
            self._lent[path] = lent
        return {
            prefix + "TYPE": "webdav",
            prefix + "VENDOR": "other",
            prefix + _URL: "http://127.0.0.1:%d" % lent.port,
            prefix + _KEY: lent.token,
        }

    def of(self, path: str) -> Lent | None:
        return self._lent.get(path)

    def forget(self, path: str) -> None:
        with self._lock:
            lent = self._lent.pop(path, None)
        if lent is not None:
            lent.socket.close()


async def serve(
    find: Callable[[], Lent | None],
    streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    upgraded: bytes,
) -> None:
    """One stream of the server: it says a line {"token"}, waits for a connection of the tool, and carries it.
    `find` blocks. Raises Refused when nothing is mounted there."""
    loop = asyncio.get_running_loop()
    reader, writer = streams
    lent = await loop.run_in_executor(None, find)
    due_s = loop.time() + _PATIENCE_S
    while lent is None:
        if loop.time() > due_s or reader.at_eof():
            raise Refused("lent", "nothing of the server is mounted there")
        await asyncio.sleep(_LOOK_S)
        lent = await loop.run_in_executor(None, find)
    writer.write(upgraded + json.dumps({"token": lent.token}).encode() + b"\n")
    accepting = asyncio.ensure_future(lent.connection())
    leaving = asyncio.ensure_future(reader.read(1))  # the server says nothing before it was asked
    try:
        await asyncio.wait({accepting, leaving}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        leaving.cancel()
        if not accepting.done():
            accepting.cancel()
        await asyncio.wait({accepting, leaving})
    if accepting.cancelled() or accepting.exception() is not None:
        return
    made = accepting.result()
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    await join(streams, await asyncio.open_connection(sock=made))
