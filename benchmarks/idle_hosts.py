"""What a thousand idle hosts cost a server: processor time and memory while nothing happens.

    python benchmarks/idle_hosts.py [--hosts 1000] [--seconds 60] [--json FILE]

The server is the real one, with its store, controllers and door. Each host keeps one TLS connection to it,
with a key of its own, and the server watches the host's agent in it: heartbeats every 5 s, facts every 10 s.
The other ends are in a second process: a thousand connections, each made and served by the agent's own code.
The figures are the server process's alone, from /proc, after everything has come to rest. Beside it: the same
server with no host at all.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import os
import random
import resource
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
from machine import cpu_s, describe, resident_bytes, write

import argosy
import argosy.providers
from argosy.agent import dial, wire
from argosy.agent.mux import Mux
from argosy.agent.serve import Agent
from argosy.infra.dialled import Dialled
from argosy.infra.provider import Capabilities, Manifest
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimFact, ClaimState, NodeSighting
from argosy.model.phases import ClaimPhase, NodePhase, WorkloadPhase
from argosy.server.dialling import Public
from argosy.server.encryption import Encryption
from argosy.server.listeners import bind_tcp
from argosy.server.own_tls import TlsWish
from argosy.server.run import Network, Settings, serve
from argosy.store import Store, lock_state_dir
from argosy.testing.builders import a_choice, a_claim, a_cluster, a_node, an_offer
from argosy.testing.idle_server import StaticProvider, StaticProviders

NODES_OF_A_CLAIM = 8
SETTLE_S = 30.0
TARGETS = {"cpu": 5.0, "memory": 300.0}
_NAME = "bench"


class Elsewhere(StaticProvider):
    """All claims are held, and every host is there."""

    def __init__(self, claims: dict[str, int]) -> None:
        super().__init__(Manifest(name=_NAME, title="hosts", capabilities=Capabilities(multi_node=True)), [])
        self._claims = claims

    async def observe(self, claim_ids: Any) -> Any:
        return [
            ClaimFact(
                claim_id=claim_id,
                state=ClaimState.HELD,
                nodes=tuple(NodeSighting(index=i, address=f"{claim_id}-{i}") for i in range(count)),
            )
            for claim_id, count in self._claims.items()
            if not claim_ids or claim_id in claim_ids
        ]


class Patient(StaticProviders):
    """Controllers begin when every host is connected: what is measured is rest, not a thousand searches."""

    def __init__(self, provider: StaticProvider, dialled: Dialled, hosts: int) -> None:
        super().__init__(provider)
        self._dialled, self._hosts = dialled, hosts

    def all(self) -> Any:
        while threading.current_thread() is not threading.main_thread() and self._dialled.nodes < self._hosts:
            time.sleep(0.1)
        return super().all()


# ---- the server's process


def write_rows(hosts: int) -> tuple[list[Any], dict[str, int]]:
    """Clusters of eight idle hosts each, as rows; their claims."""
    rows: list[Any] = []
    claims: dict[str, int] = {}
    offer = an_offer(provider=_NAME)
    for first in range(0, hosts, NODES_OF_A_CLAIM):
        count = min(NODES_OF_A_CLAIM, hosts - first)
        cluster = a_cluster(name=f"c{first}", num_nodes=count, phase=WorkloadPhase.RUNNING)
        claim = a_claim(
            workload_id=cluster.id, count=count, phase=ClaimPhase.HELD, choice=a_choice(offer=offer)
        )
        rows += [cluster, claim]
        rows += [
            a_node(
                claim_id=claim.id, workload_id=cluster.id, provider=_NAME, index=index,
                address=f"{claim.id}-{index}", phase=NodePhase.READY,
            )
            for index in range(count)
        ]  # fmt: skip
        claims[claim.id] = count
    return rows, claims


async def run_server(folder: Path, hosts: int) -> None:
    """Prints the orders by which hosts dial in, as one line of JSON, and serves."""
    rows, claims = write_rows(hosts)
    store = await Store.open(
        f"sqlite:///{folder / 'argosy.db'}", ids=SystemIds(), clock=SystemClock(), keys=folder / "secrets.key"
    )
    await store.commit(puts=rows)
    await store.close()
    registry: list[Dialled] = []

    def providers(*given: Any) -> StaticProviders:
        registry.append(given[-1])
        orders = [given[-1].order(f"{id}-{index}") for id, count in claims.items() for index in range(count)]
        print(msgspec.json.encode(orders).decode(), flush=True)
        return Patient(Elsewhere(claims), given[-1], hosts)

    argosy.providers.load_providers = providers  # type: ignore[assignment]
    tcp = bind_tcp("127.0.0.1:0")
    tls = certificate(folder)
    url = f"https://127.0.0.1:{tcp.getsockname()[1]}"
    settings = Settings(state_dir=folder, public=Public(url=url, ca=tls.trusted), log_level="warning")

    async def tell() -> None:
        while True:
            await asyncio.sleep(1.0)
            (folder / "connected").write_text(str(registry[0].nodes if registry else 0))

    telling = asyncio.ensure_future(tell())
    with lock_state_dir(folder) as lock:
        await serve(settings, Network(tcp, Encryption(tls, SystemClock(), tcp)), lock)
    telling.cancel()


def certificate(folder: Path) -> TlsWish:
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    files = TlsWish(mode="files", folder=folder, certificate=cert, key=key)
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    command += ["-keyout", files.key, "-out", files.certificate, "-days", "2", "-subj", "/CN=argosy"]
    subprocess.run([*command, "-addext", "subjectAltName=IP:127.0.0.1"], check=True, capture_output=True)
    return files


# ---- the hosts' process


async def run_hosts(folder: Path) -> None:
    orders = json.loads((folder / "orders").read_text())
    # All trust the same certificates: read once, or most of the time goes into that.
    ssl.create_default_context = functools.cache(ssl.create_default_context)  # type: ignore[assignment]
    agent = Agent(str(folder / "root"), "host", [], asyncio.get_running_loop())
    gate = asyncio.Semaphore(20)  # handshakes at once: all of this runs on one machine
    await asyncio.gather(*(one_host(order, agent, gate) for order in orders))


async def one_host(order: dict[str, str], agent: Agent, gate: asyncio.Semaphore) -> None:
    """As `dial.follow`, which keeps a file for each host: here the key stays in memory."""
    while True:
        try:
            async with gate:
                reader, writer = await dial._connect(order)
                order["key"] = await dial._hello(order, reader, writer) or order.get("key", "")
                mux = Mux(reader, writer, agent.connection)
                running = asyncio.ensure_future(mux.run())
        except (OSError, EOFError):
            await asyncio.sleep(1.0 + random.random())
            continue
        await keep(mux, running)


async def keep(mux: Mux, running: asyncio.Future[None]) -> None:

    async def ping() -> None:  # not all in the same moment
        await asyncio.sleep(wire.DIAL_PING_S * random.random())
        await dial._ping(mux)

    pinging = asyncio.ensure_future(ping())
    await running
    pinging.cancel()


# ---- the measurement


def measure(hosts: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="idle-") as name:
        folder = Path(name)
        (folder / "root").mkdir()
        me = [sys.executable, __file__, "--folder", name, "--hosts", str(hosts)]
        with subprocess.Popen([*me, "--part", "server"], stdout=subprocess.PIPE, text=True) as server:
            others: subprocess.Popen[bytes] | None = None
            try:
                assert server.stdout is not None
                (folder / "orders").write_text(server.stdout.readline())
                began_s = time.monotonic()
                if hosts:
                    others = subprocess.Popen([*me, "--part", "hosts"])
                while hosts and _connected(folder) < hosts:
                    time.sleep(0.2)
                    assert server.poll() is None and time.monotonic() - began_s < 300
                connected_s = time.monotonic() - began_s
                connected_cpu_s = cpu_s(server.pid)
                time.sleep(SETTLE_S)
                at_s, used_s = time.monotonic(), cpu_s(server.pid)
                time.sleep(seconds)
                assert _connected(folder) == hosts, "some were lost on the way"
                cpu_percent = 100 * (cpu_s(server.pid) - used_s) / (time.monotonic() - at_s)
                return {
                    "hosts": hosts,
                    "cpu_percent": round(cpu_percent, 2),
                    "memory_mb": round(resident_bytes(server.pid) / 1e6, 1),
                    "all_connected_s": round(connected_s, 1),
                    "cpu_s_until_connected": round(connected_cpu_s, 1),
                }
            finally:
                if others is not None:
                    others.kill()
                    others.wait()
                server.terminate()


def _connected(folder: Path) -> int:
    try:
        return int((folder / "connected").read_text() or 0)
    except (OSError, ValueError):
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hosts", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("server", "hosts"))
    parser.add_argument("--folder", type=Path)
    args = parser.parse_args()
    if args.part:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if args.part == "server":
        import uvloop

        uvloop.run(run_server(args.folder, args.hosts))
        return
    if args.part == "hosts":
        asyncio.run(run_hosts(args.folder))
        return
    machine = describe()
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_1m']} when it began\n")
    found = [measure(count, args.seconds) for count in sorted({0, args.hosts})]
    print("| idle hosts | server, % of a core | server, MB | connected after, s | CPU until then, s |")
    print("|---|---|---|---|---|")
    for row in found:
        print(f"| {' | '.join(f'{value:g}' for value in row.values())} |")
    print(f"\ntarget for 1,000: {TARGETS['cpu']:g} % and {TARGETS['memory']:g} MB")
    write(args.json, machine=machine, load_at_end=round(os.getloadavg()[0], 1), rows=found)


if __name__ == "__main__":
    main()
