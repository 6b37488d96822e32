"""A large checkpoint: how long the program waits, and how soon it is safe elsewhere.

    python benchmarks/checkpoints.py [--runs 3] [--gb 2] [--s5cmd PATH] [--undisturbed] [--json FILE]

The pause is that of `argosy.checkpoint.Checkpoints.save`, beside a plain write of the same bytes to the same
disk, by turns. The copy is what the server does with a job's folder: a real agent tells what is in it, and
what is missing goes to the server's store of chunks; beside it the same bytes go by a plain client (s5cmd,
else `argosy storage cp`) to the embedded store of a server, on the same disk. On a machine with other work
`--undisturbed` gives all of them real-time priority (root).
"""

from __future__ import annotations

import argparse
import asyncio
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from machine import before_others, describe, write
from stores import ARGOSY, Server

from argosy.checkpoint import Checkpoints
from argosy.controllers.checkpoints import fetch_tree
from argosy.infra.agent_client import AgentClient, unix_channel
from argosy.infra.boot import agent_zipapp
from argosy.model.tree import Tree
from argosy.storage.blobs import BlobStore

Samples = Iterator[tuple[str, float]]


def pauses(data: bytes, folder: Path) -> Samples:
    """Seconds of one plain write, and of `save`. What is saved stays."""
    plain = folder / "plain"
    os.sync()
    began = time.perf_counter()
    with plain.open("wb") as file:
        file.write(data)
    yield "plain write, s", time.perf_counter() - began
    plain.unlink()
    os.sync()
    checkpoints = Checkpoints(folder / "node" / "home" / "kept", keep_last=1, format="pickle")
    began = time.perf_counter()
    checkpoints.save(1, {"weights": data})
    yield "pause of a save, s", time.perf_counter() - began
    checkpoints.wait()
    yield "until it is on the disk, s", time.perf_counter() - began


def copies(folder: Path) -> Samples:
    """Seconds until what lies in the node's folder is in a server's store."""
    agent, blobs = agent_zipapp(folder), BlobStore(folder / "blobs")
    line = [
        sys.executable,
        str(agent),
        "serve",
        "--root",
        str(folder / "node"),
        "--socket",
        str(folder / "s"),
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE) as serving:
        assert serving.stdout is not None
        serving.stdout.readline()

        async def copy() -> float:
            client = AgentClient(lambda: unix_channel(folder / "s"))
            try:
                await client.node()
                began = time.perf_counter()
                kept = await client.kept("kept", 0.0)
                tree = Tree(entries=tuple(sorted(kept.entries, key=lambda entry: entry.path)))
                await fetch_tree(tree, dict.fromkeys(tree.chunk_digests(), client), blobs)
                await blobs.put_tree(msgspec.json.encode(tree))
                return time.perf_counter() - began
            finally:
                await client.close()

        try:
            yield "copy to the server's store, s", asyncio.run(copy())
        finally:
            serving.terminate()
    shutil.rmtree(folder / "blobs")


def plain_client(server: Server, file: Path, s5cmd: str) -> Samples:
    """Seconds of the same bytes to an S3 store, by a client that knows nothing of checkpoints."""
    there = shutil.which(s5cmd)
    line = [there, "cp", str(file), "s3://bench/copy"] if there else [ARGOSY, "storage", "cp", str(file)]
    began = time.perf_counter()
    subprocess.run(
        line if there else [*line, "argosy://bench/copy"], env=server.env, check=True, capture_output=True
    )
    yield f"plain client ({'s5cmd' if there else 'argosy storage cp'}), s", time.perf_counter() - began
    began = time.perf_counter()
    server.run("storage", "cp", str(file), "argosy://bench/other")
    yield "argosy storage cp, s", time.perf_counter() - began
    server.run("storage", "rm", "-r", "argosy://bench/copy")
    server.run("storage", "rm", "-r", "argosy://bench/other")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--gb", type=float, default=2)
    parser.add_argument("--s5cmd", default="s5cmd")
    parser.add_argument("--undisturbed", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = describe()
    if options.undisturbed:
        before_others()
    samples: dict[str, list[float]] = {}
    data = os.urandom(1 << 20) * int(options.gb * 1024)
    root = Path(tempfile.mkdtemp(prefix="argosy-bench-", dir="/var/tmp"))
    server = Server(root)
    try:
        for run in range(options.runs):
            folder = root / str(run)
            (folder / "node" / "home").mkdir(parents=True)
            for found in (pauses(data, folder), copies(folder)):
                for name, value in found:
                    samples.setdefault(name, []).append(round(value, 3))
            saved = next((folder / "node" / "home" / "kept").rglob("state.pkl"))
            for name, value in plain_client(server, saved, options.s5cmd):
                samples.setdefault(name, []).append(round(value, 3))
            shutil.rmtree(folder)
    finally:
        server.run("server", "stop")
        shutil.rmtree(root, ignore_errors=True)
    for name, values in samples.items():
        print(f"{name:36}{statistics.median(values):9.3f}   of {len(values)}: {min(values)} to {max(values)}")
    undisturbed, gb = options.undisturbed, options.gb
    write(options.json, machine=about, undisturbed=undisturbed, gb=gb, samples=samples)


if __name__ == "__main__":
    main()
