"""A workdir of many small files on its way to a far node. A table, and JSON with --json FILE.

    python benchmarks/workdir.py [--runs N] [--files 20000] [--one-way-ms 10] [--undisturbed] [--json FILE]

From the call of the client until the files lie on the node: the client asks what has changed and tells a real
server of this machine (a process of its own), then what its controllers do brings it to the agent of a host
in a network namespace, whose every packet is late. `rsync -a --delete` beside it goes through the same SSH
connection, by turns. On a machine with other work `--undisturbed` gives all of it real-time priority. Needs
root, sshd and rsync.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path

import machine
from data import FILE_BYTES

from argosy.api.location import Location
from argosy.client.client import Client
from argosy.controllers.tree_placing import TreePlacing
from argosy.infra.agent_client import AgentClient, unix_channel
from argosy.infra.agent_port import AgentDirectory, AgentPort
from argosy.infra.boot import agent_zipapp
from argosy.model.rows import Node
from argosy.model.task import Task
from argosy.testing.builders import a_node
from argosy.testing.hosts import Host, HostLab, why_no_hosts
from argosy.testing.idle_server import IdleServer

NODE = a_node(id="node-1")


class Far(AgentDirectory):
    """The one agent, reached as servers do it: through a socket that the master of ssh forwards."""

    def __init__(self, socket: Path) -> None:
        self.client = AgentClient(lambda: unix_channel(socket))

    async def get(self, node: Node) -> AgentPort:
        return self.client

    def drop(self, node_id: str) -> None:
        pass


def serve(home: Path, near: Path, orders: Connection) -> None:
    """The server, in a process of its own: it places each tree whose digest it hears, until it hears none."""
    with IdleServer(state_dir=home) as server:
        far = Far(near)
        placing = server.call(lambda: TreePlacing(server.blobs, far))
        server.do(far.client.node())  # it has its connection before there is anything to send
        orders.send(server.socket)
        while digest := orders.recv():
            server.do(placing.place(far.client, NODE, "~/ours", digest))
            orders.send(digest)
        server.do(far.client.close())


class Bench:
    """One host, one server, and a folder that goes to both `ours` and `theirs`."""

    def __init__(self, stack: ExitStack, count: int, one_way_ms: float) -> None:
        temporary = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        lab = stack.enter_context(HostLab(1, disk_bytes=4 << 30))
        self.host: Host = lab.hosts[0]
        self.root, self.home = temporary / "files", temporary / "home"
        for number in range(count):
            place = self.root / f"{number % 200:03d}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}").write_bytes(os.urandom(FILE_BYTES))
        shared = f"-o ControlMaster=auto -o ControlPersist=60 -o ControlPath={temporary}/c"
        self.line = f"ssh -F {lab.config_file} {shared}"
        self._ssh("true")
        self._ssh("cat > agent.pyz; mkdir -p node", agent_zipapp(temporary).read_bytes())
        serving = stack.enter_context(
            subprocess.Popen(
                [
                    *self.line.split(),
                    self.host.name,
                    "python3 agent.pyz serve --root $PWD/node --socket $PWD/node/s",
                ],
                stdout=subprocess.PIPE,
            )
        )
        stack.callback(serving.terminate)
        assert serving.stdout is not None
        serving.stdout.readline()
        stack.callback(
            subprocess.run,
            [*self.line.split(), "-O", "exit", self.host.name],
            check=False,
            capture_output=True,
        )
        self.host.slow(one_way_ms)
        for _ in range(2):  # the connection has found its speed before anybody is measured
            filling = f"head -c 200000000 /dev/urandom | {self.line} {self.host.name} 'cat > /dev/null'"
            subprocess.run(["sh", "-c", filling], check=True)
        near, node = temporary / "agent", self._ssh("echo $PWD/node/s").decode().strip()
        subprocess.run(
            [*self.line.split(), "-O", "forward", "-L", f"{near}:{node}", self.host.name], check=True
        )
        spawning = multiprocessing.get_context("spawn")
        self.orders, theirs = spawning.Pipe()
        server = spawning.Process(target=serve, args=(temporary / "server", near, theirs), daemon=True)
        server.start()
        stack.callback(server.join)
        stack.callback(self.orders.send, "")
        self.socket: Path = self.orders.recv()

    def _ssh(self, command: str, data: bytes = b"") -> bytes:
        asking = [*self.line.split(), self.host.name, command]
        return subprocess.run(asking, input=data, stdout=subprocess.PIPE, check=True).stdout

    def change(self) -> None:
        (self.root / "000" / "0").write_bytes(os.urandom(FILE_BYTES))

    def rsync(self) -> float:
        began = time.perf_counter()
        copying = ["rsync", "-a", "--delete", "-e", self.line, f"{self.root}/", f"{self.host.name}:theirs/"]
        subprocess.run(copying, check=True)
        return time.perf_counter() - began

    def ours(self, client: Client) -> float:
        began = time.perf_counter()
        sent = client.send_files(Task(workdir=str(self.root), run="x"), cwd=self.root)
        self.orders.send(sent.task.workdir_tree)
        self.orders.recv()
        return time.perf_counter() - began


def syncs(bench: Bench, turn: int, changes: int = 5) -> Iterator[tuple[str, float]]:
    """Seconds of the first sync, of one where nothing changed, and of ones after one change. Which of the
    two programs goes first depends on `turn`."""
    with Client(Location(bench.socket, home=bench.home)) as client:
        for name in ("first", "again", *("after one change",) * changes):
            if name == "after one change":
                bench.change()
            ours, theirs = ("ours", lambda: bench.ours(client)), ("rsync", bench.rsync)
            for who, act in (ours, theirs)[:: 1 if turn % 2 else -1]:
                yield f"{who}, {name}, s", act()
    same = bench.host.run("diff -r ~ann/theirs ~ann/node/home/ours | head -3")
    assert same.strip() == "", same


def runs(options: argparse.Namespace) -> Iterator[tuple[str, float]]:
    for turn in range(options.runs):
        with ExitStack() as stack:
            yield from syncs(Bench(stack, options.files, options.one_way_ms), turn)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--one-way-ms", type=float, default=10)
    parser.add_argument("--undisturbed", action="store_true", help="all of it before other work (root)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    why = why_no_hosts()
    if why:
        sys.exit(f"nothing was measured: {why}")
    about = machine.describe()
    if options.undisturbed:
        machine.before_others(10)
    samples: dict[str, list[float]] = {}
    for name, value in runs(options):
        samples.setdefault(name, []).append(round(value, 3))
    for name, values in samples.items():
        print(
            f"{name:32}{statistics.median(values):12.3f}   of {len(values)}: {min(values)} to {max(values)}"
        )
    machine.write(options.json, machine=about, undisturbed=options.undisturbed, samples=samples)


if __name__ == "__main__":
    main()
