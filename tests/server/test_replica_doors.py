"""Probes of replicas over real sockets, and what each answer means."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Coroutine
from pathlib import Path

import pytest

from argosy.agent.listening import ports_of
from argosy.infra.replica_port import Answer
from argosy.model.facts import NodeFacts
from argosy.model.serving import Probe
from argosy.server.replica_doors import ReplicaDoors
from argosy.testing.builders import a_node
from argosy.testing.idle_server import TerminalAgents
from argosy.testing.ports import free_port


class Echo:
    """One direction of a forwarded port: what is written comes back in capitals."""

    def __init__(self) -> None:
        self.data: asyncio.Queue[bytes] = asyncio.Queue()

    async def read(self) -> bytes:
        return await self.data.get()

    async def write(self, data: bytes) -> None:
        await self.data.put(data.upper())

    async def end(self) -> None:
        await self.data.put(b"")

    async def close(self) -> int | None:
        return None


HEALTH = Probe(path="/health")


def asked(reply: bytes, probe: Probe = HEALTH) -> tuple[Answer, bytes]:
    """What a probe makes of this reply, and what it had sent."""

    async def story() -> tuple[Answer, bytes]:
        seen = b""

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal seen
            seen = await reader.readuntil(b"\r\n\r\n")
            writer.write(reply)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        answer = await ReplicaDoors(TerminalAgents(), Path("/nowhere")).ask(
            f"127.0.0.1:{port}", probe, {"KEY": "s3cret"}
        )
        server.close()
        return answer, seen

    return asyncio.run(story())


@pytest.mark.parametrize(
    ("reply", "good", "why"),
    [
        (b"HTTP/1.1 200 OK\r\n\r\n", True, ""),
        (b"HTTP/1.0 204 No Content\r\n\r\n", True, ""),
        (b"HTTP/1.1 503 Busy\r\n\r\n", False, "/health answers 503"),
        (b"HTTP/1.1 302 Found\r\n\r\n", False, "/health answers 302"),
        (b"SSH-2.0-OpenSSH\r\n", False, "what answers speaks no HTTP"),
        (b"", False, "the connection was closed without an answer"),
    ],
)
def test_what_an_answer_means(reply: bytes, good: bool, why: str) -> None:
    answer, seen = asked(reply)
    assert (answer.good, answer.why) == (good, why) and seen.startswith(b"GET /health HTTP/1.1\r\n")


def test_a_probe_with_a_body_and_a_secret_header() -> None:
    probe = Probe(path="/v1", body='{"a":1}', headers={"Authorization": "Bearer $KEY", "X": "a\r\nY: b"})
    answer, seen = asked(b"HTTP/1.1 200 OK\r\n\r\n", probe)
    assert answer.good and seen.startswith(b"POST /v1 HTTP/1.1\r\n") and b"Bearer s3cret" in seen
    assert b"Y: b" not in seen and "s3cret" not in repr(probe)


def test_a_port_on_which_nobody_listens() -> None:
    port = free_port()
    doors = ReplicaDoors(TerminalAgents(), Path("/nowhere"))
    answer = asyncio.run(doors.ask(f"127.0.0.1:{port}", Probe(), {}))
    assert answer.refused and answer.why == f"nothing listens on port {port}"


def test_a_silent_replica() -> None:
    async def story() -> Answer:
        server = await asyncio.start_server(lambda reader, writer: asyncio.sleep(1), "127.0.0.1", 0)
        address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        answer = await ReplicaDoors(TerminalAgents(), Path("/x")).ask(address, Probe(timeout_ms=20), {})
        server.close()
        return answer

    assert asyncio.run(story()).why == "no answer to / within 0.02 s"


def test_a_replica_elsewhere_is_reached_through_its_agent(tmp_path: Path) -> None:
    class Agent:
        async def forward(self, port: int) -> Echo:
            assert port == 8000
            return Echo()

    class Agents(TerminalAgents):
        async def get(self, node: object) -> Agent:  # type: ignore[override]
            return Agent()

    async def story() -> None:
        doors = ReplicaDoors(Agents(), tmp_path / "relays")
        node = a_node(ip="10.0.0.7", facts=NodeFacts(boot_id="another"))
        address = await doors.open(node, 8000)
        assert address == await doors.open(node, 8000) and address.endswith(".sock")
        assert oct(os.stat(address).st_mode & 0o777) == "0o600"
        reader, writer = await asyncio.open_unix_connection(address)
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"HELLO"
        writer.close()
        doors.close(node.id, 8000)
        assert not Path(address).exists()
        await doors.close_all()

    run(story())


def run(work: Coroutine[object, object, None]) -> None:
    asyncio.run(work)


def test_the_ports_of_a_process_are_known() -> None:
    program = (
        "import socket, sys; s = socket.create_server(('127.0.0.1', 0)); "
        "print(s.getsockname()[1], flush=True); sys.stdin.read()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    port = int(child.stdout.readline())
    assert ports_of([child.pid]) == [port]
    child.communicate()
    assert ports_of([child.pid]) == []
