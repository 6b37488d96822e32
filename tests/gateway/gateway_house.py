"""A gateway in the test's own process, a replica that does as its path says, a client that speaks bytes."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import uvloop

from argosy.gateway.connection import Door
from argosy.gateway.exchange import Decider
from argosy.gateway.routing import Router
from argosy.gateway.splice import clients
from argosy.model.routes import ReplicaRoute, RevisionRoute, RouteTable, ServiceRoute

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Replica:
    """Answers as the path says, and notes the heads and the ends of connections that it sees."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.connections = 0
        self.closed = asyncio.Event()
        self.go_on = asyncio.Event()
        self.scripts: dict[bytes, bytes] = {}
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.address = ""

    async def start(self, port: int = 0) -> Replica:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def kill(self) -> None:
        """As a process that is killed: nobody listens, and all connections are reset."""
        assert self._server is not None
        self._server.close()
        for writer in list(self._writers):
            writer.transport.abort()
        await asyncio.sleep(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        try:
            while await self._one(reader, writer):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._writers.discard(writer)
            self.closed.set()
            writer.close()

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        self.heads.append(head)
        path = head.split(b" ")[1]
        lower = head.lower()
        body = b""
        if b"content-length:" in lower:
            body = await reader.readexactly(int(lower.split(b"content-length:")[1].split(b"\r\n")[0]))
        elif b"transfer-encoding: chunked" in lower:
            while (line := await reader.readline()) != b"0\r\n":
                body += await reader.readexactly(int(line, 16))
                await reader.readexactly(2)
            await reader.readline()
        self.bodies.append(body)
        name = path.split(b"?")[0].rsplit(b"/", 1)[-1]
        return await self._answer(name, body, reader, writer)

    async def _answer(
        self, name: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if name in self.scripts:
            writer.write(self.scripts[name])
            return b"-close" not in name
        if name == b"echo":
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))
        elif name == b"stream":
            writer.write(
                b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            )
            for number in itertools.count():
                piece = b"data: %d\n\n" % number
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                if number == 1:
                    await self.go_on.wait()
                if number == 3:
                    writer.write(b"0\r\n\r\n")
                    return True
        elif name == b"die":
            return False
        elif name == b"hang":
            await reader.read()
            return False
        elif name == b"socket":
            writer.write(b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
            while data := await reader.read(65536):
                writer.write(data)
            return False
        else:
            writer.write(OK)
        return True


class Gate:
    """The gateway's port, and what is sent to it."""

    def __init__(self, decider: Decider, *, trusted: bool = False) -> None:
        self.decider = decider
        loop = asyncio.get_running_loop()
        count = itertools.count(1)
        self.door = Door(decider, loop, lambda: b"id-%d" % next(count), trusted=trusted)
        self.port = 0

    async def start(self) -> Gate:
        loop = asyncio.get_running_loop()
        self.server = await loop.create_server(clients(self.door), "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self.port)

    async def say(self, data: bytes) -> bytes:
        """Everything that comes back until the connection ends."""
        reader, writer = await self.connect()
        writer.write(data)
        try:
            async with asyncio.timeout(90):
                return await reader.read()
        except ConnectionResetError:
            return b"reset"
        finally:
            writer.close()

    async def get(self, path: str, *lines: bytes, method: bytes = b"GET", body: bytes = b"") -> bytes:
        """One request on its own connection; the whole answer."""
        head = b"%b %b HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" % (method, path.encode())
        if body:
            head += b"Content-Length: %d\r\n" % len(body)
        return await self.say(head + b"".join(line + b"\r\n" for line in lines) + b"\r\n" + body)


class Clock:
    """Time that the test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def ms(self) -> int:
        return int(self.now * 1000)


def table(*services: ServiceRoute, generation: int = 1, region: str = "") -> RouteTable:
    return RouteTable(generation=generation, services=services, region=region)


def service(*addresses: str, name: str = "web", **fields: Any) -> ServiceRoute:
    """A public service `/s/NAME` with one revision and a replica at each address."""
    replicas = tuple(ReplicaRoute(id=f"r{number}", address=each) for number, each in enumerate(addresses))
    fields.setdefault("revisions", (RevisionRoute(id="v1", replicas=replicas),))
    fields.setdefault("public", True)
    return ServiceRoute(id=f"svc-{name}", name=name, prefix=f"/s/{name}", **fields)


class House:
    """What a test has: replicas, and a gateway that routes to them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.router = Router(asyncio.get_running_loop(), self.clock.ms, now_s=self.clock)
        self.replicas: list[Replica] = []
        self.gate: Gate

    async def add(self, count: int = 1) -> list[str]:
        for _ in range(count):
            self.replicas.append(await Replica().start())
        return [replica.address for replica in self.replicas[-count:]]

    @property
    def replica(self) -> Replica:
        return self.replicas[0]


@contextlib.asynccontextmanager
async def _house(count: int, fields: dict[str, Any]) -> AsyncIterator[House]:
    house = House()
    addresses = await house.add(count) if count else []
    house.gate = await Gate(house.router).start()
    house.gate.door.now_s = house.clock
    house.gate.door.waits = house.router.waits
    house.router.take_table(table(service(*addresses, **fields)))
    try:
        yield house
    finally:
        house.gate.server.close()
        for client in list(house.gate.door.clients):
            client.transport.abort()
        for replica in house.replicas:
            await replica.kill()


def run_house(test: Callable[[House], Awaitable[None]], replicas: int = 1, **fields: Any) -> None:
    """Run a test in a loop, with so many replicas and these fields of the service."""

    async def main() -> None:
        async with _house(replicas, fields) as house, asyncio.timeout(90):
            await test(house)

    uvloop.run(main())
