"""The accepting end of tunnels, on a machine that others can reach.

Each name of the file of tokens is a unix socket in a folder, which a route table may name as a replica. What
connects there becomes a stream of the newest tunnel of that name; without a tunnel it is refused at once. The
accepting end opens streams, never the other one, and says no place: so neither side can be led to another
machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, cast

from argosy.gateway.run import bind, bind_unix
from argosy.gateway.tunnel_greeting import HEAD_MAX, Allowed, Asked, NotGreeted, parse_request, render_answer
from argosy.gateway.tunnel_mux import TICK_S, Mux
from argosy.model.routes import Holding, ReplicaRoute, RevisionRoute, RouteTable, ServiceRoute

_BACKLOG: Final = 4096
_GREETING_S: Final = 10.0
#: Requests wait so long for a tunnel that reconnects.
HOLD_S: Final = 40


class _Refusing(asyncio.Protocol):
    """For a local connection when there is no tunnel."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        cast(asyncio.Transport, transport).abort()


class _Greeter(asyncio.Protocol):
    """Reads the head of a tunnel, and hands the connection to its `Mux`."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        loop = asyncio.get_running_loop()
        self._deadline = loop.call_later(_GREETING_S, self._transport.abort)

    def connection_lost(self, error: Exception | None) -> None:
        self._deadline.cancel()

    def data_received(self, data: bytes) -> None:
        if self._transport.is_closing():
            return
        self._buffer += data
        head, end, rest = self._buffer.partition(b"\r\n\r\n")
        if not end and len(self._buffer) <= HEAD_MAX:
            return
        try:
            asked = parse_request(head + end, self._gate.allowed)
        except NotGreeted as refused:
            self._transport.write(render_answer(refused))
            self._transport.close()
            return
        self._deadline.cancel()
        self._transport.write(render_answer())
        mux = self._gate.add(asked)
        self._transport.set_protocol(mux)
        mux.connection_made(self._transport)
        if rest:
            mux.data_received(rest)


class Gate:
    """All tunnels that are there, by name. `changed` is called when one comes or goes, with words for it."""

    def __init__(
        self, allowed: Mapping[str, Allowed], folder: Path, changed: Callable[[str, str, str], None]
    ) -> None:
        """`changed` gets the name, "up" or "down", and why."""
        self.allowed = allowed
        self._folder = folder
        self._changed = changed
        self._loop = asyncio.get_running_loop()
        self._tunnels: dict[str, list[tuple[Mux, Asked]]] = {}
        self._servers: list[asyncio.Server] = []

    def place(self, name: str) -> Path:
        """The socket of a name."""
        return self._folder / f"{name.replace('/', '.')}.sock"

    async def listen(self, context: ssl.SSLContext, listen: str, published: Mapping[str, str]) -> str:
        """Accept tunnels at HOST:PORT, and local connections at the sockets of all names and at
        `published` (name to HOST:PORT). Where tunnels are accepted. Raises OSError, ValueError."""
        for name in self.allowed:
            carries = functools.partial(self.local, name)
            sock = bind_unix(self.place(name))
            self._servers.append(await self._loop.create_unix_server(carries, sock=sock, backlog=_BACKLOG))
        for name, place in published.items():
            carries = functools.partial(self.local, name)
            self._servers.append(await self._loop.create_server(carries, sock=bind(place), backlog=_BACKLOG))
        outer = await self._loop.create_server(
            lambda: _Greeter(self), sock=bind(listen), backlog=_BACKLOG, ssl=context,
            ssl_handshake_timeout=_GREETING_S,
        )  # fmt: skip
        self._servers.append(outer)
        host, port = outer.sockets[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def local(self, name: str) -> asyncio.Protocol:
        """What carries a local connection."""
        for mux, _ in reversed(self._tunnels.get(name, ())):
            with contextlib.suppress(ConnectionError):
                return mux.open()
        return _Refusing()

    def add(self, asked: Asked) -> Mux:
        """A tunnel has been greeted."""
        mux = Mux(self._loop, lambda mux, why: self._drop(asked.name, mux, why))
        self._tunnels.setdefault(asked.name, []).append((mux, asked))
        self._loop.call_soon(self._changed, asked.name, "up", "")
        return mux

    def _drop(self, name: str, mux: Mux, why: str) -> None:
        self._tunnels[name] = [each for each in self._tunnels[name] if each[0] is not mux]
        self._changed(name, "down", why)

    async def keep(self) -> None:
        """Look after the tunnels, for ever."""
        while True:
            await asyncio.sleep(TICK_S)
            for mux, _ in [each for all_of in self._tunnels.values() for each in all_of]:
                mux.tick()

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for mux, _ in [each for all_of in self._tunnels.values() for each in all_of]:
            mux.close("the accepting side stops")
        for name in self.allowed:
            self.place(name).unlink(missing_ok=True)

    def table(self, generation: int) -> RouteTable:
        """Routes for a gateway beside this: `/s/NAME` and the hosts of each name go to its socket. What
        serves only programs of this machine has no route. Requests wait while a tunnel reconnects."""
        return RouteTable(generation=generation, services=tuple(self._routes()))

    def _routes(self) -> list[ServiceRoute]:
        found = []
        for name, allowed in self.allowed.items():
            there = self._tunnels.get(name, [])
            if there and there[-1][1].serves == "private":
                continue
            replicas = (ReplicaRoute(id=name, address=str(self.place(name))),) if there else ()
            found.append(
                ServiceRoute(
                    id=name, name=name, prefix=f"/s/{name}", hosts=allowed.hosts, public=True,
                    keep_prefix=not there or there[-1][1].serves == "gateway", pass_authorization=True,
                    revisions=(RevisionRoute(id="tunnel", replicas=replicas),),
                    holding=Holding(timeout_s=HOLD_S, start_s=HOLD_S),
                )
            )  # fmt: skip
        return found
