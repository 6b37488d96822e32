"""What runs inside a session: it starts the app, and opens ports, terminals and ssh for the agent outside.

`python agent.pyz inside FOLDER`: the folder holds `order.json` (an AppOrder, without secrets) and gets
`in.sock`, on which the agent asks: one line of JSON (`infra.agent_port.Enter`), one line back (`{}` or
`{"error": text}`), then the bytes of what was opened. It ends with the app, and with the app's exit code.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import sys

from argosy.agent import processes
from argosy.agent.joining import join
from argosy.agent.orders import Refused
from argosy.agent.terminal import loopback
from argosy.agent.terminals import Terminals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Tuple

    Streams = Tuple[asyncio.StreamReader, asyncio.StreamWriter]

_LINE_LIMIT_BYTES = 64 << 10
_ENDING_S = 5.0  # between SIGTERM and SIGKILL of an app, when nobody outside does it


class Inside:
    """One session. Lives on one event loop."""

    def __init__(self, folder: str, order: dict[str, object]) -> None:
        self._folder, self._order = folder, order
        self._loop = asyncio.get_running_loop()
        self.env = dict(os.environ)
        self.home = str(order["home"])
        self.port = int(str(order.get("port") or 0))
        self._shell = str(order.get("shell") or "/bin/sh")
        self._set_environment()
        self.terminals = Terminals(self._loop, self._shell, self.home, self.env)
        self.ended: asyncio.Future[int] = self._loop.create_future()
        self._pid = 0
        self._reaper = processes.Reaper(self._loop)
        self.terminals.reaper = self._reaper

    def _set_environment(self) -> None:
        env, order = self.env, self._order
        given = order.get("env")
        env["HOME"] = self.home
        for name in ("ARGOSY_CHECKPOINT_DIR", "SKYPILOT_CHECKPOINT_DIR"):
            env[name] = self.home
        if order.get("alone"):  # nobody else's files are in sight: what it fetches is kept with its own
            env["XDG_CACHE_HOME"] = self.home + "/.cache"
            env["TMPDIR"] = "/tmp"
            env["USER"] = env["LOGNAME"] = str(order.get("user") or "work")
        env.setdefault("TERM", "xterm-256color")
        env.pop("PYTHONUNBUFFERED", None)
        env["ARGOSY_APP_DIR"] = self.home + "/.argosy/" + str(order.get("name") or "app")
        os.makedirs(env["ARGOSY_APP_DIR"], mode=0o700, exist_ok=True)
        if order.get("listens") == "socket":
            env["ARGOSY_APP_SOCKET"] = self._folder + "/app.sock"
        elif order.get("listens") == "port":
            self.port = self.port or _free_port()
            env["ARGOSY_APP_PORT"] = str(self.port)
        if isinstance(given, dict):
            for key, value in given.items():
                env[str(key)] = _expanded(str(value), env)

    # ---- the app

    def start_app(self) -> None:
        """Raises OSError."""
        command = str(self._order.get("command") or "")
        if not command:
            return
        remove(self._folder + "/app.sock")
        argv = [self._shell, "-c", 'cd "$HOME"\n' + command]
        self._pid = processes.spawn_child(argv, self.env)
        self._reaper.watch_child(self._pid, self._app_ended)

    def _app_ended(self, status: int) -> None:
        if not self.ended.done():
            self.ended.set_result(status if status >= 0 else 128 - status)

    def stop(self) -> None:
        """Told from outside to end: the app has its time, which whoever told us measures."""
        if self._pid:
            processes.send_group_signal(self._pid, signal.SIGTERM)
            self._loop.call_later(_ENDING_S, processes.send_group_signal, self._pid, signal.SIGKILL)
        elif not self.ended.done():
            self.ended.set_result(0)
        self.terminals.hang_up()

    # ---- who comes in

    async def serve(self) -> asyncio.AbstractServer:
        """Raises OSError."""
        path = self._folder + "/in.sock"
        remove(path)
        old = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(self._enter, path, limit=_LINE_LIMIT_BYTES)
        finally:
            os.umask(old)

    async def serve_outlet(self) -> asyncio.AbstractServer | None:
        """The way out, where there is one: a port of our own loopback, which programs find by the usual
        variables. Raises OSError."""
        if not self._order.get("has_outlet"):
            return None
        from argosy.agent import outlet

        path = self._folder + "/" + outlet.NAME

        async def out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                await join((reader, writer), await asyncio.open_unix_connection(path))
            except OSError:
                pass  # its agent is away: who asked tries again
            finally:
                writer.close()

        server = await asyncio.start_server(out, "127.0.0.1", outlet.PORT)
        for name in ("http_proxy", "https_proxy", "all_proxy"):
            self.env[name] = self.env[name.upper()] = "http://127.0.0.1:%d" % outlet.PORT
        self.env["no_proxy"] = self.env["NO_PROXY"] = "localhost,127.0.0.1,::1"
        return server

    async def wait_for_network(self) -> None:
        """Until the agent has given us one that leads out, where that was asked for. Raises OSError."""
        from argosy.agent import nat

        place = self._folder + "/" + nat.READY
        while self._order.get("nat") and not os.path.exists(place):  # noqa: ASYNC110  made by the agent
            await asyncio.sleep(0.01)
        if self._order.get("nat"):
            with open(place, encoding="utf-8") as file:
                why = file.read()
            if why:
                raise OSError(0, "there is no way out of here: " + why)

    async def _enter(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            asked = json.loads(line) if line else {}
            if not isinstance(asked, dict):
                raise ValueError("not an object")
            await self._open(str(asked.get("what")), asked, (reader, writer))
        except (OSError, ValueError, KeyError, TypeError) as error:
            text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            said: dict[str, object] = {"error": text or type(error).__name__}
            if not isinstance(error, OSError):
                said["refused"] = True  # asking again changes nothing
            writer.write(json.dumps(said).encode() + b"\n")
        finally:
            try:
                await writer.drain()
            except OSError:
                pass
            writer.close()

    async def _open(self, what: str, asked: dict[str, object], streams: Streams) -> None:
        if what == "app":
            await self._join(await self._app_streams(), streams)
        elif what == "port":
            port = int(str(asked.get("port") or 0))
            if not 0 < port < 65536:
                raise ValueError("there is no port %d" % port)
            await self._join(await self._port_streams(port), streams)
        elif what == "shell":
            await self.terminals.serve(asked, streams)
        elif what == "sshd":
            await self._ssh(str(asked.get("key", "")), streams)
        elif what == "status":
            streams[1].write(json.dumps({"typed_ms": self.terminals.typed_ms}).encode() + b"\n")
        else:
            raise ValueError("a session opens app, port, shell and sshd, not %r" % what)

    async def _app_streams(self) -> Streams:
        if self._order.get("listens") == "socket":
            return await asyncio.open_unix_connection(self._folder + "/app.sock")
        return await self._port_streams(self.port)

    async def _port_streams(self, port: int) -> Streams:
        try:
            return await loopback(port)
        except OSError as error:
            raise OSError("nothing answers on port %d: %s" % (port, error.strerror)) from None

    async def _join(self, other: Streams, streams: Streams) -> None:
        streams[1].write(b"{}\n")
        await join(streams, other)

    async def _ssh(self, key: str, streams: Streams) -> None:
        from argosy.agent import sshd

        root = self.home + "/.argosy"
        own = {key: value for key, value in self.env.items() if os.environ.get(key) != value}
        endpoint = sshd.Endpoint(root, "this session", self.home, self._shell, env=own)
        try:
            await sshd.serve(endpoint, self._reaper, key, streams, b"{}\n")
        except Refused as error:
            raise ValueError(str(error)) from None


def _expanded(text: str, env: dict[str, str]) -> str:
    """With the values of `$NAME` and `${NAME}` put in; what is unknown stays."""
    return re.sub(r"\$(?:(\w+)|\{(\w+)\})", lambda found: env.get(found[1] or found[2], found[0]), text)


def remove(path: str) -> None:
    """A socket that somebody before us has left."""
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass


def _free_port() -> int:
    """Below those that kernels give to connections: nobody gets it before the app has bound it."""
    while True:
        port = 10_000 + int.from_bytes(os.urandom(2), "big") % 10_000
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


def run(folder: str) -> int:
    """Until the app ends; its exit code."""
    with open(folder + "/order.json", encoding="utf-8") as file:
        order = json.load(file)
    if order.get("told"):
        from argosy.agent import containers, orders

        os.environ.update(containers.read_environment())
        order["shell"] = orders.find_shell()  # of the image
    if order.get("isolation") == "sandbox-lite":
        from argosy.agent import landlock

        landlock.restrict(order["readable"], [*order["writable"], folder, str(order["home"])])
    return asyncio.run(_live(folder, order))


async def _live(folder: str, order: dict[str, object]) -> int:
    inside = Inside(folder, order)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, inside.stop)
    server = await inside.serve()
    try:
        outlet = await inside.serve_outlet()
        await inside.wait_for_network()
        inside.start_app()
    except OSError as error:
        sys.stderr.write("argosy: the app cannot be started: %s\n" % error.strerror)
        return 126
    try:
        return await inside.ended
    finally:
        server.close()
        if outlet is not None:
            outlet.close()
        inside.terminals.hang_up()
        remove(folder + "/in.sock")
