"""One gateway from its start to its end: sockets, the table of before, workers, control."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import msgspec

from argosy.gateway.connection import Door
from argosy.gateway.control import Control, Routed
from argosy.gateway.edge import Edge, Edged
from argosy.gateway.edge_config import EdgeSettings
from argosy.gateway.run import (
    Alone,
    DataPlane,
    Settings,
    bind,
    bind_unix,
    load_certificates,
    place_of,
    request_ids,
    stop_event,
)
from argosy.gateway.splice import clients
from argosy.gateway.workers import Workers
from argosy.model.routes import Listening, RouteTable


async def serve(settings: Settings, ready: Callable[[list[str]], None] | None = None) -> None:
    """Until SIGTERM: then nothing new is accepted, and answers that have begun go on for `stop_s`. The
    last table is kept beside the control socket: a gateway that starts while the server is away serves
    by it. Raises OSError."""
    loop = asyncio.get_running_loop()
    stopping = stop_event()
    outer = [bind(listen) for listen in settings.listen]
    tls = [bind(listen) for listen in settings.tls]
    if tls:
        load_certificates(settings)  # what is wrong is said now
    edge = _edge_of(settings)
    if edge is not None:
        settings = msgspec.structs.replace(settings, sockets=(*settings.sockets, edge.inner))
    inner = [bind_unix(Path(path)) for path in (*settings.sockets, settings.outside)]
    kept = KeptTable(Path(settings.control).with_suffix(".table"))
    before = kept.load()
    routed: Routed
    if settings.workers > 1:
        for sock in (*outer, *inner, *tls):
            sock.listen(4096)
        workers = Workers(settings, (outer, inner, tls), before)
        routed, close = workers, workers.close
    else:
        plane = DataPlane(settings)
        routed, close = Alone(plane.router), plane.close
        if before is not None:
            routed.take(before, lambda _: None)
    if edge is not None:
        await edge.take(before or RouteTable(generation=0))
        routed = Edged(routed, edge)
    control = Control(routed, loop.time, kept.keep)
    if settings.workers > 1:
        workers.on_want = control.on_want
        await workers.start()
    else:
        plane.router.on_want = control.on_want
        await plane.listen(outer, inner, tls)
    door = Door(control, loop, request_ids(), trusted=True)
    places = _tell_places(settings, [place_of(sock) for sock in outer], [place_of(sock) for sock in tls])
    server = await loop.create_unix_server(clients(door), sock=bind_unix(Path(settings.control)))
    sweeping = loop.create_task(_sweep(control))
    if ready is not None:
        ready([*places, *settings.sockets, *settings.edge, *settings.edge_tls])
    await stopping.wait()
    for path in (*settings.sockets, settings.outside):
        Path(path).unlink(missing_ok=True)
    if edge is not None:
        await edge.close()
    await close()
    server.close()
    sweeping.cancel()
    Path(settings.control).unlink(missing_ok=True)


def _tell_places(settings: Settings, plain: list[str], secure: list[str]) -> list[str]:
    """Say beside the control socket where requests are taken; those places. Raises OSError."""
    urls = [f"http://{each}" for each in (*plain, *settings.edge)]
    urls += [f"https://{each}" for each in (*secure, *settings.edge_tls)]
    told = Listening(urls=tuple(urls), is_local=settings.is_local)
    _replace(Path(settings.control).with_suffix(".listening"), told)
    return [*plain, *secure]


def _edge_of(settings: Settings) -> Edge | None:
    """HAProxy, where one is asked for. Raises ValueError when there is none."""
    if not (settings.edge or settings.edge_tls):
        return None
    if settings.edge_tls:
        load_certificates(settings)
    folder = Path(settings.control).with_suffix(".edge")
    told = EdgeSettings(
        folder=str(folder),
        inner=str(Path(settings.control).with_suffix(".inner")),
        listen=settings.edge,
        tls=settings.edge_tls,
    )
    return Edge(told, settings.certificates)


async def _sweep(control: Control) -> None:
    while True:
        await asyncio.sleep(1.0)
        control.sweep()


class KeptTable:
    """The last table, in a file that only its owner reads. It holds no secret: keys are hashes."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> RouteTable | None:
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=RouteTable)
        except (OSError, msgspec.DecodeError):
            return None

    def keep(self, table: RouteTable) -> None:
        """Replace the file. A disk that is full costs nothing but the memory of the next start."""
        with contextlib.suppress(OSError):
            _replace(self._path, table)


def _replace(path: Path, value: msgspec.Struct) -> None:
    """Write a file that only its owner reads, whole or not at all. Raises OSError."""
    beside = path.with_suffix(".new")
    fd = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with open(fd, "wb") as file:
        file.write(msgspec.json.encode(value))
    beside.replace(path)
