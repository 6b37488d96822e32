"""Sync of many small files to a far node. A table, and JSON with --json FILE.

    python benchmarks/data.py [--runs N] [--files 20000] [--one-way-ms 10] [--undisturbed] [--json FILE]

It goes through one SSH connection to a host in a network namespace, whose every packet is late: `rsync -a`
and our copy (objects of a folder, sent through the server's connection) use the same connection, by turns. On
a machine with other work `--undisturbed` gives both, and the host, real-time priority. Needs root, sshd and
rsync.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import machine

from argosy.infra.agent_client import AgentClient, StreamChannel
from argosy.infra.agent_port import DataFile, FetchOrder
from argosy.infra.boot import agent_zipapp
from argosy.testing.hosts import HostLab, why_no_hosts

FILE_BYTES = 10_000


class Folder:
    """Files as `infra.agent_port.DataSource`: a store without addresses."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files = list(self._below(str(root), ""))
        self.paths = [each.path for each in self.files]

    def _below(self, folder: str, name: str) -> Iterator[DataFile]:
        handle = os.open(folder, os.O_RDONLY)  # names below a handle are found sooner than paths
        try:
            with os.scandir(handle) as entries:
                for each in entries:
                    if each.is_dir(follow_symlinks=False):
                        yield from self._below(f"{folder}/{each.name}", f"{name}{each.name}/")
                    else:
                        info = each.stat(follow_symlinks=False)
                        etag = f"{info.st_mtime_ns:x}-{info.st_size:x}-{info.st_ino:x}-{info.st_ctime_ns:x}"
                        yield DataFile(name + each.name, info.st_size, etag)
        finally:
            os.close(handle)

    def order(self, target: str) -> FetchOrder:
        return FetchOrder(target=target, files=tuple(self.files))

    def address(self, index: int) -> str:
        return ""

    def read(self, index: int, first: int) -> Iterator[bytes]:
        handle = os.open(f"{self.root}/{self.paths[index]}", os.O_RDONLY)
        try:
            yield os.pread(handle, self.files[index].size, first)
        finally:
            os.close(handle)

    def told(self, files: int, done_bytes: int, total_files: int, total_bytes: int) -> None:
        """Nobody looks."""


def syncs(count: int, one_way_ms: float, turn: int, changes: int = 5) -> Iterator[tuple[str, float]]:
    """Seconds of the first sync, of one where nothing changed, and of ones after one change. Which of the
    two programs goes first depends on `turn`."""
    with HostLab(1, disk_bytes=4 << 30) as lab, tempfile.TemporaryDirectory() as temporary:
        host, root = lab.hosts[0], Path(temporary) / "files"
        for number in range(count):
            place = root / f"{number % 200:03d}"
            place.mkdir(parents=True, exist_ok=True)
            (place / f"{number}").write_bytes(os.urandom(FILE_BYTES))
        shared = f"-o ControlMaster=auto -o ControlPersist=60 -o ControlPath={temporary}/c"
        line = f"ssh -F {lab.config_file} {shared}"
        subprocess.run([*line.split(), host.name, "true"], check=True)
        pyz = agent_zipapp(Path(temporary))
        subprocess.run(
            [*line.split(), host.name, "cat > agent.pyz; mkdir -p node"], input=pyz.read_bytes(), check=True
        )
        serving = subprocess.Popen(
            [*line.split(), host.name, "python3 agent.pyz serve --root $PWD/node --socket $PWD/node/s"],
            stdout=subprocess.PIPE,
        )
        assert serving.stdout is not None
        serving.stdout.readline()
        host.slow(one_way_ms)

        for _ in range(2):  # the connection has found its speed before anybody is measured
            filling = f"head -c 200000000 /dev/urandom | {line} {host.name} 'cat > /dev/null'"
            subprocess.run(["sh", "-c", filling], check=True)

        def rsync() -> float:
            began = time.perf_counter()
            subprocess.run(
                ["rsync", "-a", "--delete", "-e", line, f"{root}/", f"{host.name}:theirs/"], check=True
            )
            return time.perf_counter() - began

        async def connect() -> StreamChannel:
            process = await asyncio.create_subprocess_exec(
                *line.split(), host.name, "python3 agent.pyz connect --socket $PWD/node/s",
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=2 << 20,
            )  # fmt: skip
            assert process.stdout is not None and process.stdin is not None
            await process.stdout.readline()  # it greets
            return StreamChannel(process.stdout, process.stdin)

        def ours() -> float:
            async def act() -> float:
                ready = await connect()  # as the server has it before there is anything to send

                async def at_hand() -> StreamChannel:
                    return ready

                client = AgentClient(at_hand)
                began = time.perf_counter()
                async with client.expecting("~/ours"):
                    source = await asyncio.to_thread(Folder, root)
                    await client.fetch(source.order("~/ours"), source)
                took = time.perf_counter() - began
                await client.close()
                return took

            return asyncio.run(act())

        for name, change in (("first", False), ("again", False), *(("after one change", True),) * changes):
            if change:
                (root / "000" / "0").write_bytes(os.urandom(FILE_BYTES))
            for who, act in (("rsync", rsync), ("ours", ours))[:: 1 if turn % 2 else -1]:
                yield f"{who}, {name}, s", act()
        same = host.run("diff -r ~ann/theirs ~ann/node/home/ours | head -3")
        assert same.strip() == "", same
        serving.terminate()
        subprocess.run([*line.split(), "-O", "exit", host.name], check=False, capture_output=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--one-way-ms", type=float, default=10)
    parser.add_argument("--undisturbed", action="store_true", help="all of it before other work (root)")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = machine.describe()
    if options.undisturbed:
        machine.before_others()
    samples: dict[str, list[float]] = {}
    why = why_no_hosts()
    for turn in range(0 if why else options.runs):
        for name, value in syncs(options.files, options.one_way_ms, turn):
            samples.setdefault(name, []).append(round(value, 3))
    for name, values in samples.items():
        print(
            f"{name:32}{statistics.median(values):12.3f}   of {len(values)}: {min(values)} to {max(values)}"
        )
    if why:
        print(f"no sync was measured: {why}", file=sys.stderr)
    machine.write(options.json, machine=about, undisturbed=options.undisturbed, samples=samples)


if __name__ == "__main__":
    main()
