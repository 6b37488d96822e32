"""Scale from zero: how soon a gateway says that requests wait, and whether all that wait are answered.

    python benchmarks/scale_from_zero.py [--json FILE] [--rounds 30]

A gateway process has a service without a replica. Wake: from the first byte of a request until whoever
listens at its control socket knows that one waits. Then 200 requests wait for a replica that comes after
three seconds and takes 8 at once; one more is refused with a time to come again.
"""

from __future__ import annotations

import argparse
import asyncio
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import msgspec
from machine import write

from argosy.model.routes import Holding, ReplicaRoute, RevisionRoute, RouteTable, ServiceRoute, Wants

HELD = 200
START_S = 3.0
MOST = 8
PORT = 29417


class Gateway:
    """The process, and its control socket."""

    def __init__(self, folder: Path) -> None:
        self.control = folder / "control.sock"
        command = [sys.executable, "-m", "argosy.gateway", "--control", str(self.control)]
        self.process = subprocess.Popen([*command, "--listen", f"127.0.0.1:{PORT}"])
        self.generation = 0

    async def ask(self, method: str, path: str, body: bytes = b"") -> bytes:
        reader, writer = await asyncio.open_unix_connection(str(self.control))
        head = (
            f"{method} {path} HTTP/1.1\r\nHost: g\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        writer.write(head.encode() + body)
        answer = await reader.read()
        writer.close()
        return answer.partition(b"\r\n\r\n")[2]

    async def take(self, *replicas: ReplicaRoute) -> None:
        self.generation += 1
        revision = RevisionRoute(id="1", replicas=replicas)
        held = Holding(max_held=HELD)
        service = ServiceRoute(
            id="svc-zero", name="zero", revisions=(revision,), holding=held, prefix="/s/zero", public=True
        )
        table = RouteTable(generation=self.generation, services=(service,))
        await self.ask("PUT", "/table", msgspec.json.encode(table))


async def get() -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    writer.write(b"GET /s/zero/ HTTP/1.1\r\nHost: g\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return answer


async def wake_ms(gateway: Gateway) -> float:
    """One request that is given up again."""
    known = msgspec.json.decode(await gateway.ask("GET", "/wants?after=0"), type=Wants)
    waiting = asyncio.create_task(gateway.ask("GET", f"/wants?after={known.sequence}"))
    await asyncio.sleep(0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", PORT)
    began = time.perf_counter()
    writer.write(b"GET /s/zero/ HTTP/1.1\r\nHost: g\r\n\r\n")
    wants = msgspec.json.decode(await waiting, type=Wants)
    spent = 1000 * (time.perf_counter() - began)
    assert wants.wanted and wants.wanted[0].held == 1, wants
    writer.close()
    await asyncio.sleep(0.1)
    del reader
    return spent


class Replica:
    """Takes 50 ms for a request, and knows how many it had at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await reader.readuntil(b"\r\n\r\n"):
                self.now += 1
                self.most = max(self.most, self.now)
                await asyncio.sleep(0.05)
                self.now -= 1
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
        except asyncio.CancelledError:
            return  # the measurement is over


async def held(gateway: Gateway) -> dict[str, float]:
    replica = Replica()
    server = await asyncio.start_server(replica.serve, "127.0.0.1", 0)
    asking = [asyncio.create_task(get()) for _ in range(HELD)]
    await asyncio.sleep(START_S / 2)
    refused = await get()
    await asyncio.sleep(START_S / 2)
    address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    await gateway.take(ReplicaRoute(id="r1", address=address, max_concurrency=MOST))
    answers = await asyncio.gather(*asking)
    server.close()
    again = refused.lower().partition(b"retry-after: ")[2].partition(b"\r\n")[0]
    return {
        "held": HELD,
        "answered": sum(answer.endswith(b"ok") for answer in answers),
        "refused_status": int(refused.split(b" ")[1]),
        "retry_after_s": float(again or 0),
        "most_at_once": replica.most,
    }


async def measure(rounds: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        gateway = Gateway(Path(name))
        try:
            while not gateway.control.exists():
                await asyncio.sleep(0.05)
            await gateway.take()
            samples = sorted([await wake_ms(gateway) for _ in range(rounds)])
            return {"wake_ms": median(samples), "wake_max_ms": samples[-1], **await held(gateway)}
        finally:
            gateway.process.send_signal(signal.SIGTERM)
            gateway.process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=30)
    given = parser.parse_args()
    figures = asyncio.run(measure(given.rounds))
    for key, value in figures.items():
        print(f"{key:18} {value:10.2f}")
    write(given.json, figures=figures)


if __name__ == "__main__":
    main()
