"""The composition of a gateway's process: listeners, router, control socket. The only file that reads
the clock."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from argosy.gateway.connection import Door
from argosy.gateway.control import Control
from argosy.gateway.routing import Router
from argosy.gateway.splice import clients

_BACKLOG: Final = 4096
_STOP_S: Final = 600.0  # streams may go on so long after SIGTERM


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Of one gateway."""

    control: Path
    listen: tuple[str, ...] = ()  # HOST:PORT
    sockets: tuple[Path, ...] = ()
    stop_s: float = _STOP_S


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
    """A listening socket at HOST:PORT. Raises OSError."""
    host, _, port = listen.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, int(port)))
    return sock


def bind_unix(path: Path) -> socket.socket:
    """A listening unix socket that only its owner may open. Raises OSError."""
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        sock.bind(str(path))
    finally:
        os.umask(before)
    return sock


async def serve(settings: Settings, ready: Callable[[list[str]], None] | None = None) -> None:
    """Until SIGTERM: then nothing new is accepted, and answers that have begun go on for `stop_s`."""
    loop = asyncio.get_running_loop()
    stopping = asyncio.Event()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stopping.set)
    router, ids = Router(loop.time, now_ms), request_ids()
    door = Door(router, loop, ids)
    inner = Door(router, loop, ids, trusted=True)
    steering = Door(Control(router), loop, ids, trusted=True)
    servers, places = [], []
    for listen in settings.listen:
        sock = bind(listen)
        servers.append(await loop.create_server(clients(door), sock=sock, backlog=_BACKLOG))
        places.append(":".join(map(str, sock.getsockname()[:2])))
    for path in settings.sockets:
        servers.append(await loop.create_unix_server(clients(inner), sock=bind_unix(path), backlog=_BACKLOG))
        places.append(str(path))
    control = await loop.create_unix_server(clients(steering), sock=bind_unix(settings.control))
    doors = (door, inner, steering)
    sweeping = loop.create_task(_sweep(router, doors))
    if ready is not None:
        ready(places)
    await stopping.wait()
    for server in servers:
        server.close()
    for each in (door, inner):
        each.close()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(settings.stop_s):
            await asyncio.gather(door.emptied(), inner.emptied())
    control.close()
    sweeping.cancel()
    for path in (settings.control, *settings.sockets):
        path.unlink(missing_ok=True)


async def _sweep(router: Router, doors: tuple[Door, ...]) -> None:
    while True:
        await asyncio.sleep(1.0)
        for door in doors:
            door.sweep()
        router.sweep()
