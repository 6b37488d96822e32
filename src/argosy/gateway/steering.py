"""One gateway from its start to its end: sockets, the table of before, workers, control."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import NamedTuple

import msgspec

from argosy.gateway.connection import Door
from argosy.gateway.control import Control, Routed
from argosy.gateway.edge import Edge, Edged
from argosy.gateway.edge_config import EdgeSettings
from argosy.gateway.gossip import Gossip, told_by
from argosy.gateway.journal import Journal
from argosy.gateway.private_files import replace_file
from argosy.gateway.run import (
    Alone,
    DataPlane,
    Settings,
    Sockets,
    bind,
    bind_unix,
    load_certificates,
    place_of,
    request_ids,
    stop_event,
)
from argosy.gateway.shared import Board
from argosy.gateway.splice import clients
from argosy.gateway.workers import Workers
from argosy.model.routes import Listening, RouteTable


async def serve(settings: Settings, ready: Callable[[list[str]], None] | None = None) -> None:
    """Until SIGTERM: then nothing new is accepted, and answers that have begun go on for `stop_s`. The
    last table is kept beside the control socket: a gateway that starts while the server is away serves
    by it. Raises OSError, and ValueError where another one is steered at that socket."""
    loop = asyncio.get_running_loop()
    stopping = stop_event()
    await _check_alone(settings.control)
    outer = [bind(listen) for listen in settings.listen]
    tls = [bind(listen) for listen in settings.tls]
    if tls:
        load_certificates(settings)  # what is wrong is said now
    edge = _edge_of(settings)
    if edge is not None:
        settings = msgspec.structs.replace(settings, sockets=(*settings.sockets, edge.inner))
    inner = [bind_unix(Path(path)) for path in (*settings.sockets, settings.outside)]
    sockets = Sockets(outer, inner, tls, [bind_unix(Path(settings.for_peers))])
    kept = KeptTable(Path(settings.control).with_suffix(".table"))
    before = kept.load()
    steered = await _start(settings, sockets, before)
    routed = steered.routed
    if edge is not None:
        await edge.take(before or RouteTable(generation=0))
        routed = Edged(routed, edge)
    gossip = Gossip(steered.board, loop.time, steered.news)
    journal = Journal(routed, steered.board, Path(settings.control).with_suffix(".counters"), _boot())
    journal.load()

    def taken(table: RouteTable) -> None:
        kept.keep(table)
        gossip.take_table(table)

    if before is not None:
        gossip.take_table(before)
    control = Control(journal, loop.time, taken, lambda: told_by(steered.board), gossip.hear)
    steered.listen_for_wants(control.on_want)
    door = Door(control, loop, request_ids(), trusted=True)
    places = _tell_places(settings, [place_of(sock) for sock in outer], [place_of(sock) for sock in tls])
    server = await loop.create_unix_server(clients(door), sock=bind_unix(Path(settings.control)))
    tasks = [loop.create_task(_sweep(control, journal)), loop.create_task(gossip.run())]
    if ready is not None:
        ready([*places, *settings.sockets, *settings.edge, *settings.edge_tls])
    await stopping.wait()
    for path in (*settings.sockets, settings.outside, settings.for_peers):
        Path(path).unlink(missing_ok=True)
    if edge is not None:
        await edge.close()
    await steered.close()
    journal.keep()
    server.close()
    for task in tasks:
        task.cancel()
    Path(settings.control).with_suffix(".listening").unlink(missing_ok=True)
    Path(settings.control).unlink(missing_ok=True)


async def _check_alone(control: str) -> None:
    """A second gateway at one control socket would leave the first one with a table that nobody changes.
    Raises ValueError."""
    try:
        _, writer = await asyncio.open_unix_connection(control)
    except OSError:
        return
    writer.close()
    raise ValueError(
        f"another gateway is up and steered at {control}; end it first, or run this one beside it: "
        "--name NAME"
    )


class _Steered(NamedTuple):
    """What takes requests: one router here, or workers."""

    routed: Routed
    board: Board
    close: Callable[[], Awaitable[None]]
    news: Callable[[], None]  # the board has news of other gateways
    listen_for_wants: Callable[[Callable[[], None]], None]


async def _start(settings: Settings, sockets: Sockets, before: RouteTable | None) -> _Steered:
    if settings.workers > 1:
        for each in sockets:
            for sock in each:
                sock.listen(4096)
        workers = Workers(settings, sockets, before)
        await workers.start()
        return _Steered(workers, workers.board, workers.close, _nothing, workers.tell_wants)
    plane = DataPlane(settings)
    alone = Alone(plane.router)
    if before is not None:
        alone.take(before, lambda _: None)
    await plane.listen(sockets)
    return _Steered(alone, alone.board, plane.close, plane.router.look_elsewhere, plane.router.tell_wants)


def _nothing() -> None:
    """Workers look at the board by themselves."""


def _boot() -> str:
    """Which start of the machine this is."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def _tell_places(settings: Settings, plain: list[str], secure: list[str]) -> list[str]:
    """Say beside the control socket where requests are taken; those places. Raises OSError."""
    urls = [f"http://{shown_place(each)}" for each in (*plain, *settings.edge)]
    urls += [f"https://{shown_place(each)}" for each in (*secure, *settings.edge_tls)]
    told = Listening(urls=tuple(urls), region=settings.region, is_local=settings.is_local)
    replace_file(Path(settings.control).with_suffix(".listening"), msgspec.json.encode(told))
    return [*plain, *secure]


def shown_place(place: str) -> str:
    """HOST:PORT as others write it: for a listener on all interfaces the name of this machine.

    >>> shown_place("127.0.0.1:80"), shown_place("0.0.0.0:80") == f"{socket.gethostname()}:80"
    ('127.0.0.1:80', True)
    """
    host, _, port = place.rpartition(":")
    return f"{socket.gethostname()}:{port}" if host in ("", "0.0.0.0", "[::]") else place  # noqa: S104


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


async def _sweep(control: Control, journal: Journal) -> None:
    while True:
        await asyncio.sleep(1.0)
        control.sweep()
        journal.keep()


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
            replace_file(self._path, msgspec.json.encode(table))
