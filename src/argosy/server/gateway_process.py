"""The gateway of this machine: a process of its own, started with the first service, steered over its control
socket. It goes on serving while the server is away; a server that comes back finds it by the socket."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Final

import msgspec

from argosy.infra.border import Transient
from argosy.model.routes import GatewayCounters, Listening, RouteTable, Wants
from argosy.server.gateway_control import ControlSocket

_log = logging.getLogger(__name__)

_START_S: Final = 15.0
_LOOK_S: Final = 0.02
#: Above those of replicas and below those that kernels give to connections: one that is given away while the
#: gateway is started again would move every endpoint.
_PORTS: Final = range(32_000, 32_768)


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where the gateway listens, as it is kept in the state folder: endpoints stay what they were."""

    listen: str
    pid: int = 0


class GatewayProcess:
    """Implements `infra.gateway_port.GatewayPort`."""

    def __init__(self, folder: Path, listen: str = "") -> None:
        """`folder`: its sockets, log and notes. `listen`: HOST:PORT; "": a port of the loopback that was free
        when it was first started."""
        self._folder, self._listen = folder, listen
        self._process: subprocess.Popen[bytes] | None = None
        self._place = read_place(folder)
        self._socket = ControlSocket(folder / "control.sock")
        self._starting = asyncio.Lock()  # two that start one at once would leave one that nobody ends

    @property
    def control(self) -> Path:
        return self._socket.path

    async def take(self, table: RouteTable) -> int:
        await self.ensure()
        return await self._socket.take(table)

    async def counters(self) -> GatewayCounters:
        await self.ensure()
        return await self._socket.counters()

    async def wants(self, after: int) -> Wants:
        return await self._socket.wants(after)

    async def rest(self) -> None:
        """SIGTERM: what is under way is answered, then it ends."""
        pid = await self._socket.pid()
        if not pid and await self._is_up():  # a kernel that does not tell
            pid = self._process.pid if self._process is not None else self._place.pid
        if pid and _is_gateway(pid):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGTERM)
        self._process = None

    # -- the process --------------------------------------------------------------------------------

    async def ensure(self) -> None:
        """It runs, once, however many ask at the same time. Raises Transient."""
        async with self._starting:
            if not await self._is_up():
                await self._start()

    async def _start(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        listen = self._listen or self._place.listen
        if not listen or not _is_free(listen):
            if self._listen:
                raise Transient(f"the port of `{self._listen}` is taken")
            listen = _free_place(zlib.crc32(bytes(self._folder.absolute())))
        self._process = self._spawn(listen)
        self._keep_place(Place(listen=listen, pid=self._process.pid))
        await self._started(listen)

    def _spawn(self, listen: str) -> subprocess.Popen[bytes]:
        """In a session of its own: it outlives the server."""
        log = os.open(self._folder / "gateway.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            return subprocess.Popen(
                [
                    *(sys.executable, "-m", "argosy.gateway"),
                    *("--control", str(self.control), "--listen", listen),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        finally:
            os.close(log)

    async def _started(self, listen: str) -> None:
        assert self._process is not None
        try:
            async with asyncio.timeout(_START_S):
                while not await self._is_up():
                    if self._process.poll() is not None:
                        raise Transient(
                            f"it ended at once (code {self._process.returncode}): {self._last_line()}"
                        )
                    await asyncio.sleep(_LOOK_S)
        except TimeoutError:
            raise Transient(f"it did not start within {_START_S:g} s") from None
        _log.info("the gateway listens on %s (process %d)", listen, self._process.pid)

    def _last_line(self) -> str:
        try:
            lines = (self._folder / "gateway.log").read_text(errors="replace").splitlines()
        except OSError:
            return ""
        return lines[-1] if lines else ""

    async def _is_up(self) -> bool:
        if self._process is not None and self._process.poll() is not None:
            self._process = None
            return False
        return await self._socket.is_up()

    def _keep_place(self, place: Place) -> None:
        self._place = place
        path = self._folder / "place.json"
        path.with_suffix(".new").write_bytes(msgspec.json.encode(place))
        path.with_suffix(".new").replace(path)


def read_place(folder: Path) -> Place:
    """Where the gateway of this folder listens, or listened last."""
    try:
        return msgspec.json.decode((folder / "place.json").read_bytes(), type=Place)
    except (OSError, msgspec.MsgspecError):
        return Place(listen="")


def read_listening(folder: Path) -> Listening:
    """Where the gateways of this folder take requests, whoever started them, the server's own first; nowhere
    when none ever ran."""
    names = sorted((path.stem for path in folder.glob("*.listening")), key=lambda name: name != "control")
    told = [read_one(folder, name) for name in names]
    urls = tuple(url for each in told for url in each.urls)
    return Listening(urls=urls, is_local=all(each.is_local for each in told))


def read_one(folder: Path, name: str) -> Listening:
    """Where one of them takes requests."""
    try:
        return msgspec.json.decode((folder / f"{name}.listening").read_bytes(), type=Listening)
    except (OSError, msgspec.MsgspecError):
        return Listening()


def _free_place(first: int) -> str:
    """Of the loopback. Servers of one machine begin to look at different ones. Raises Transient."""
    for step in range(len(_PORTS)):
        listen = f"127.0.0.1:{_PORTS[(first + step) % len(_PORTS)]}"
        if _is_free(listen):
            return listen
    raise Transient(f"all ports from {_PORTS.start} to {_PORTS.stop - 1} are taken")


def _is_free(listen: str) -> bool:
    host, _, port = listen.rpartition(":")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, int(port)))
        except OSError:
            return False
    return True


def _is_gateway(pid: int) -> bool:
    """Numbers of processes are given away again."""
    try:
        return b"argosy.gateway" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False
