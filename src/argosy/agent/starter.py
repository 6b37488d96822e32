"""The starter: a process of a host that has the agent loaded, stays for a while, and does orders by fork.

A session of ssh with a Python of its own costs a tenth of a second of processor time for each order; a fork
costs some milliseconds. `start` leaves a starter behind when its plan asks for one. It listens on a socket
that its owner alone may open, and speaks the agent's HTTP/1.1:

    POST /order    {"errand": order, "plan": AgentPlan or null} -> what a session would have answered
    POST /through  {"socket": of an agent beside its own}       -> 101, then that agent's connection

Each order is done by a process of its own, so nothing that it does holds up anybody else; one that starts a
node answers and then goes on as its agent. With nothing to do the starter ends by itself. Nodes do not need
it: their agents live on, and are reached without it.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import signal
import socket
import sys
import zlib

from argosy.agent import cgroups, node, start, wire
from argosy.agent.addresses import socket_address
from argosy.agent.connect import dial, pump
from argosy.agent.serve import UPGRADED, BadRequest, Request, read_head, reply

_LINGERS_S = 120.0  # without an order or an open connection
_ORDER_BYTES = 1 << 20


def begin(folder: str, name: str, pyz: str) -> str:
    """Make sure that a starter called `name` listens in `folder`; its socket. Raises OSError."""
    host = zlib.crc32(os.uname().nodename.encode())  # hosts may share a folder
    path = "%s/starter-%s-%x.s" % (folder, name, host)
    lock = os.open(path[:-1] + "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            dial(path).close()
        except OSError:
            listener = _listen(path)
            if os.fork() == 0:
                _become(listener, path, pyz)
            listener.close()
            os.wait()
        return path
    finally:
        os.close(lock)


def _listen(path: str) -> socket.socket:
    if os.path.lexists(path):
        os.unlink(path)  # of one that was killed
    address, folder = socket_address(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    old = os.umask(0o177)
    try:
        listener.bind(address)
    finally:
        os.umask(old)
        if folder is not None:
            os.close(folder)
    listener.listen(128)
    listener.setblocking(False)
    return listener


def _become(listener: socket.socket, path: str, pyz: str) -> None:
    """Never returns."""
    try:
        os.setsid()
        if os.fork():
            os._exit(0)
        nothing = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        start.close_others(listener.fileno())
        os.chdir("/")
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        asyncio.run(_Starter(path, pyz).serve(listener))
    finally:
        os._exit(0)


class _Starter:
    def __init__(self, path: str, pyz: str) -> None:
        self._path, self._pyz = path, pyz
        self._open = 0
        self._used_s = 0.0

    async def serve(self, listener: socket.socket) -> None:
        import gc

        sys.modules["errand"].load()  # once, for all that are forked from here
        cgroups.here()
        node.user_name()
        gc.collect()
        gc.freeze()  # forks share what they do not touch
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, _reap)
        self._used_s = loop.time()
        server = await asyncio.start_unix_server(self._connection, sock=listener, limit=wire.HEAD_LIMIT_BYTES)
        while self._open or loop.time() - self._used_s < _LINGERS_S:  # noqa: ASYNC110  # nobody waits for it
            await asyncio.sleep(_LINGERS_S / 4)  # nobody waits for this
        try:
            os.unlink(self._path)
        except OSError:
            pass  # somebody was quicker
        server.close()

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open += 1
        try:
            while True:
                request = await read_head(reader)
                if request is None or request.length > _ORDER_BYTES:
                    return
                body = await reader.readexactly(request.length)
                if not await self._answer(request, body, reader, writer):
                    return
        except (OSError, ValueError, EOFError, BadRequest):
            pass  # who asked is gone, or does not speak this
        finally:
            self._open -= 1
            self._used_s = asyncio.get_running_loop().time()
            writer.close()

    async def _answer(
        self, request: Request, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """True when another request may follow."""
        if request.path == "/order":
            await reply(writer, 200, await self._order(json.loads(body)))
            return True
        if request.path != "/through":
            await reply(writer, 404, {"error": "refused", "field": "path", "text": "there is no such path"})
            return True
        path = str(json.loads(body).get("socket", ""))
        if os.path.dirname(path) != os.path.dirname(self._path):
            text = "%s is not beside the starter's own" % path
            await reply(writer, 404, {"error": "refused", "field": "socket", "text": text})
            return True
        try:
            near = await asyncio.open_unix_connection(sock=dial(path), limit=wire.HEAD_LIMIT_BYTES)
        except OSError as error:
            text = "no agent answers at %s: %s" % (path, error.strerror or error)
            await reply(writer, 404, {"error": "transient", "field": "", "text": text})
            return True
        writer.write(UPGRADED)
        await asyncio.gather(pump(reader, near[1]), pump(near[0], writer))
        near[1].close()
        return False

    async def _order(self, order: dict[str, object]) -> dict[str, object]:
        """What a process of its own answers that does the order."""
        low, high = os.pipe()
        if os.fork() == 0:
            try:
                _child(high)
                _obey(order, self._pyz)
            finally:
                os._exit(0)
        os.close(high)
        source = asyncio.StreamReader()
        loop = asyncio.get_running_loop()
        transport, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(source), os.fdopen(low, "rb", 0)
        )
        try:
            said = await source.read()
        finally:
            transport.close()
        try:
            return dict(json.loads(said))
        except ValueError:
            return {"error": "failed", "path": "", "text": "the process that did it has ended early"}


def _reap() -> None:
    """Let processes go that have ended: of orders, and agents."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _child(said: int) -> None:
    """A new process keeps nothing of the starter's but the pipe `said`, as its output."""
    signal.set_wakeup_fd(-1)  # its number will belong to something else
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.dup2(said, 1)
    start.close_others()


def _tell(answer: dict[str, object]) -> None:
    """To the starter, which then hears the end."""
    text = json.dumps(answer).encode()
    while text:
        text = text[os.write(1, text) :]
    os.dup2(0, 1)


def _obey(order: dict[str, object], pyz: str) -> None:
    """Do the errand, then start the node of the plan where there is one: this process becomes its agent."""
    said: dict[str, object] = sys.modules["errand"].obey(order["errand"])
    plan = order.get("plan")
    if not isinstance(plan, dict):
        _tell(said)
    elif "root" not in said:
        _tell({"refused": said})
    else:
        environ = said.get("environ")
        plan["environ"] = dict(plan.get("environ") or {}, **(environ if isinstance(environ, dict) else {}))
        start.become(dict(plan, root=said["root"]), pyz, _tell)
