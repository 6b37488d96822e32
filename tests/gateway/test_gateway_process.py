"""The real process: workers that share its sockets, tables over the control socket, a kill, a start
without a server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import uvloop
from gateway_house import Replica, service, table

from argosy.gateway.run import Settings, bind
from argosy.model.routes import GatewayCounters, Holding, KeyRoute, Listening, RouteTable, Wants
from argosy.model.service_keys import Prices
from argosy.server.gateway_process import read_listening

pytestmark = pytest.mark.process
_SHA = hashlib.sha256(b"sk-one").hexdigest()


class Process:
    """One gateway with its control socket."""

    def __init__(self, folder: Path, workers: int, name: str = "control") -> None:
        self.control = folder / f"{name}.sock"
        self.command = [
            sys.executable, "-m", "argosy.gateway", "--control", str(self.control), "--listen", "127.0.0.1:0",
            "--workers", str(workers), "--access-log", str(folder / "access.log"), "--stop-s", "20",
        ]  # fmt: skip
        self.port = 0
        self.replica: Replica

    async def start(self) -> None:
        self.process = await asyncio.create_subprocess_exec(*self.command, stdout=asyncio.subprocess.PIPE)
        assert self.process.stdout is not None
        async with asyncio.timeout(90):
            line = await self.process.stdout.readline()
        self.port = int(line.rsplit(b":", 1)[1])

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self.control))
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        async with asyncio.timeout(90):
            answer = await reader.read()
        writer.close()
        return answer.split(b"\r\n\r\n", 1)[1]

    async def take(self, told: RouteTable) -> bytes:
        return await self.ask("PUT", "/table", msgspec.json.encode(told))

    async def counters(self) -> GatewayCounters:
        return msgspec.json.decode(await self.ask("GET", "/counters"), type=GatewayCounters)

    async def get(self, path: str, line: str = "X: 1") -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{line}\r\n\r\n".encode())
        async with asyncio.timeout(90):
            answer = await reader.read()
        writer.close()
        return answer


def test_what_has_no_key_answers_only_where_nobody_else_comes(tmp_path: Path) -> None:
    """The same table, also when it was kept: open on the loopback, closed where an edge brings others."""

    async def main() -> None:
        async with _running(tmp_path, 1) as (process, replica):
            await process.take(table(service(replica.address, public=False)))
            assert (await process.get("/s/web/x")).startswith(b"HTTP/1.1 200 ")
            told = read_listening(tmp_path)
            assert told == Listening(urls=(f"http://127.0.0.1:{process.port}",), is_local=True)
            process.process.terminate()
            await process.process.wait()
            process.command += ["--socket", str(tmp_path / "edge.sock"), "--listen", "127.0.0.1:0"]
            process.process = await asyncio.create_subprocess_exec(
                *process.command, stdout=asyncio.subprocess.PIPE
            )
            assert process.process.stdout is not None
            async with asyncio.timeout(90):
                line = await process.process.stdout.readline()
            process.port = int(line.split(b",")[0].rsplit(b":", 1)[1])
            answer = await process.get("/s/web/x")
            assert answer.startswith(b"HTTP/1.1 401 ") and b"is not public and has no keys yet" in answer
            assert not read_listening(tmp_path).is_local

    uvloop.run(main())


@pytest.mark.parametrize(
    ("more", "is_local"),
    [
        ({"listen": ("127.0.0.1:1", "[::1]:1")}, True),
        ({"listen": ("127.0.0.1:1", "0.0.0.0:1")}, False),
        ({"listen": ("127.0.0.1:1",), "tls": ("0.0.0.0:2",)}, False),
        ({"listen": ("127.0.0.1:1",), "edge": ("127.0.0.1:2",)}, False),
        ({"listen": ("127.0.0.1:1",), "sockets": ("/run/edge.sock",)}, False),
        ({"listen": (":1",)}, False),
    ],
)
def test_who_reaches_a_gateway(more: dict[str, tuple[str, ...]], is_local: bool) -> None:
    assert Settings(control="/run/c.sock", **more).is_local is is_local


@contextlib.asynccontextmanager
async def _running(folder: Path, workers: int) -> AsyncIterator[tuple[Process, Replica]]:
    process, replica = Process(folder, workers), await Replica().start()
    await process.start()
    try:
        yield process, replica
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.process.terminate()
        await asyncio.wait_for(process.process.wait(), 30)
        await replica.kill()


def test_two_workers_are_one_gateway_also_when_one_dies(tmp_path: Path) -> None:
    async def main() -> None:
        async with _running(tmp_path, 2) as (gateway, replica):
            assert gateway.control.stat().st_mode & 0o777 == 0o600
            key = KeyRoute(id="k", sha256=_SHA, requests_per_minute=10)
            route = service(replica.address, keys=(key,), holding=Holding())
            assert await gateway.take(table(route, generation=5)) == b'{"generation":5}'
            assert b"older than 5" in await gateway.take(table(route, generation=4))
            assert b"belongs to the network" in await gateway.take(
                table(service("169.254.169.254:1"), generation=6)
            )
            bearer = "Authorization: Bearer sk-one"
            answers = await asyncio.gather(*(gateway.get("/s/web/", bearer) for _ in range(40)))
            passed = sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers)
            assert passed == 10, "the limit is one for both workers"
            told = await gateway.counters()
            assert told.services[0].replicas[0].requests == 10 and told.services[0].keys[0].refused == 30
            assert b'argosy_gateway_service_requests_total{service="svc-web"} 40' in await gateway.ask(
                "GET", "/metrics"
            )
            await gateway.take(table(service(replica.address), generation=7))
            place = f"/proc/{gateway.process.pid}/task/{gateway.process.pid}/children"
            first, _ = Path(place).read_text().split()
            os.kill(int(first), signal.SIGKILL)
            for _ in range(8):
                assert (await gateway.get("/s/web/")).endswith(b"ok")
            async with asyncio.timeout(90):
                while (told := await gateway.counters()).generation != 7:
                    await asyncio.sleep(0.05)
            assert told.services[0].requests == 48, "nothing is lost, nothing counted twice"

    uvloop.run(main())


def test_held_requests_are_pushed_and_the_table_outlives_the_process(tmp_path: Path) -> None:
    async def main() -> None:
        async with _running(tmp_path, 1) as (gateway, replica):
            await gateway.take(table(service(holding=Holding()), generation=1))
            first = msgspec.json.decode(await gateway.ask("GET", "/wants?after=0"), type=Wants)
            asking = asyncio.create_task(gateway.ask("GET", f"/wants?after={first.sequence}"))
            held = asyncio.create_task(gateway.get("/s/web/"))
            wants = msgspec.json.decode(await asking, type=Wants)
            assert [(each.service, each.held) for each in wants.wanted] == [("svc-web", 1)]
            await gateway.take(table(service(replica.address, holding=Holding()), generation=2))
            assert (await held).endswith(b"ok")
            many = tuple(service(f"10.0.0.1:{port}", name=f"n{port}") for port in range(1, 1001))
            big = table(service(replica.address, holding=Holding()), *many, generation=2)
            assert len(msgspec.json.encode(big)) > 128_000  # more than one read
            assert await gateway.take(big) == b'{"generation":2}'
            gateway.process.send_signal(signal.SIGKILL)
            await gateway.process.wait()
            await gateway.start()  # no server is there to tell it
            assert (await gateway.get("/s/web/")).endswith(b"ok")
            assert (await gateway.counters()).generation == 2

    uvloop.run(main())


def test_a_kill_loses_one_second_at_most_and_counts_nothing_twice(tmp_path: Path) -> None:
    """Under load: ten requests a tick, until the process is killed at a moment that nobody chose."""

    async def main() -> None:
        async with _running(tmp_path, 1) as (gateway, replica):
            key = KeyRoute(id="k", sha256=_SHA, budget_micro_usd=1_000_000)
            prices = Prices(requests=3_000_000)
            await gateway.take(table(service(replica.address, keys=(key,), prices=prices)))
            loop = asyncio.get_running_loop()
            answered: list[float] = []

            async def ask() -> None:
                answer = await gateway.get("/s/web/", "Authorization: Bearer sk-one")
                if answer.endswith(b"ok"):
                    answered.append(loop.time())

            began_s = loop.time()
            while loop.time() < began_s + 2.3:
                await asyncio.gather(*(ask() for _ in range(10)))
                await asyncio.sleep(0.05)
            killed_s = loop.time()
            gateway.process.send_signal(signal.SIGKILL)
            await gateway.process.wait()
            await gateway.start()
            [told] = (await gateway.counters()).services
            # A second, and what passed between the answer and the writing of it.
            kept = sum(at_s < killed_s - 1.5 for at_s in answered)
            assert 0 < kept <= told.requests <= len(answered)
            assert told.keys[0].requests == told.requests
            assert told.keys[0].spent_micro_usd == 3 * told.requests, "what is left of the budget, too"

    uvloop.run(main())


def test_a_second_gateway_at_one_control_socket_is_refused(tmp_path: Path) -> None:
    """The first one would go on with a table that nobody changes any more."""

    async def main() -> None:
        async with _running(tmp_path, 1) as (process, replica):
            await process.take(table(service(replica.address)))
            second = await asyncio.create_subprocess_exec(*process.command, stderr=asyncio.subprocess.PIPE)
            _, said = await second.communicate()
            assert second.returncode == 1
            assert said.decode() == (
                f"error: the gateway cannot start: another gateway is up and steered at {process.control}; "
                "end it first, or run this one beside it: --name NAME\n"
            )
            assert (await process.get("/s/web/x")).startswith(b"HTTP/1.1 200 ")
            assert (await process.counters()).generation, "it is still steered"

    uvloop.run(main())


@pytest.mark.parametrize(
    ("listen", "why"),
    [
        ("127.0.0.1:99999", "write HOST:PORT, with a port from 0 to 65535"),
        ("127.0.0.1", "write HOST:PORT, with a port from 0 to 65535"),
        ("192.0.2.1:80", "Cannot assign requested address"),
    ],
)
def test_where_nobody_can_listen_is_told(listen: str, why: str) -> None:
    with pytest.raises(ValueError) as caught:
        bind(listen)
    assert str(caught.value) == f"cannot listen at {listen}: {why}"


def test_sigterm_lets_answers_end(tmp_path: Path) -> None:
    async def main() -> None:
        async with _running(tmp_path, 1) as (gateway, replica):
            await gateway.take(table(service(replica.address), generation=1))
            reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
            writer.write(b"GET /s/web/stream HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"data: 1\n\n")
            gateway.process.terminate()
            async with asyncio.timeout(90):
                while True:
                    try:
                        (await asyncio.open_connection("127.0.0.1", gateway.port))[1].close()
                    except ConnectionRefusedError:
                        break
                    await asyncio.sleep(0.01)
            replica.go_on.set()
            assert b"data: 3" in await reader.readuntil(b"0\r\n\r\n")
            writer.close()
            assert await asyncio.wait_for(gateway.process.wait(), 20) == 0
            assert b'"path":"/stream"' not in (tmp_path / "access.log").read_bytes()
            assert b'"path":"/s/web/stream"' in (tmp_path / "access.log").read_bytes()

    uvloop.run(main())
