"""Copies to and from an object store: Argosy beside s5cmd and rclone, in one run against one server.

    python benchmarks/stores.py [--runs 3] [--small 2000] [--large-mb 200] [--s5cmd PATH] [--rclone PATH]
                                [--undisturbed] [--json FILE]

The server is Argosy's own with its address for S3. Argosy copies twice: to `argosy://`, and to a scheme whose
credentials the server has, by addresses that it signs. Each figure is wall time of the whole command; beside
it stands processor time, of the command and of the server, which says more on a busy machine. The order of
the programs turns with every run. On a machine with other work `--undisturbed` gives all of them real-time
priority (root). Memory: what the server's process has with its address for S3 and a bucket above what it has
without (medians of five starts), and after the load above what it had before.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from machine import before_others, cpu_s, describe, environ, resident_bytes, write

from argosy.testing.ports import free_port

ARGOSY = str(Path(sys.executable).parent / "argosy")
SMALL_BYTES = 100_000


class Tool(NamedTuple):
    """A program: how it copies a folder up and down. `{n}` is the number of the run."""

    name: str
    up: Callable[[Path, str], list[str]]
    down: Callable[[str, Path], list[str]]


class Sample(NamedTuple):
    tool: str
    load: str  # small | large
    way: str  # up | down
    wall_s: float
    cpu_s: float
    server_cpu_s: float


def _tools(s5cmd: str, rclone: str) -> list[Tool]:
    tools = [
        Tool(
            "argosy",
            lambda folder, to: [ARGOSY, "storage", "cp", "-r", str(folder), f"argosy://bench/{to}"],
            lambda at, folder: [ARGOSY, "storage", "cp", "-r", f"argosy://bench/{at}", str(folder)],
        ),
        Tool(
            "argosy, signed",
            lambda folder, to: [ARGOSY, "storage", "cp", "-r", str(folder), f"bench://bench/{to}"],
            lambda at, folder: [ARGOSY, "storage", "cp", "-r", f"bench://bench/{at}", str(folder)],
        ),
    ]
    if shutil.which(s5cmd):
        tools.append(
            Tool(
                "s5cmd",
                lambda folder, to: [s5cmd, "cp", f"{folder}/", f"s3://bench/{to}/"],
                lambda at, folder: [s5cmd, "cp", f"s3://bench/{at}/*", f"{folder}/"],
            )
        )
    if shutil.which(rclone):
        flags = ["--transfers", "16", "--s3-no-check-bucket"]
        tools.append(
            Tool(
                "rclone",
                lambda folder, to: [rclone, "copy", *flags, str(folder), f"bench:bench/{to}"],
                lambda at, folder: [rclone, "copy", *flags, f"bench:bench/{at}", str(folder)],
            )
        )
    return tools


def _environ() -> dict[str, str]:
    """Without what would lead our programs elsewhere."""
    return {name: value for name, value in environ().items() if not name.startswith(("ARGOSY_", "AWS_"))}


class Server:
    """Argosy's own with an address for S3, in a folder of its own."""

    def __init__(self, root: Path) -> None:
        port = free_port()
        self.address = f"http://127.0.0.1:{port}"
        self.env = _environ() | {"ARGOSY_HOME": str(root / "state")}
        self.run("server", "start", "--s3", f"127.0.0.1:{port}")
        status = json.loads(self.run("server", "status", "--json"))
        self.pid = int(status["health"]["pid"])
        self.idle_bytes = resident_bytes(self.pid)
        key = json.loads(self.run("storage", "key", "bench", "--json"))
        self.run("storage", "create", "bench")
        (root / "state" / "buckets.yaml").write_text(
            f"bench: {{endpoint: '{self.address}', credentials_file: '{root}/keys'}}\n"
        )
        (root / "keys").write_text(
            f"[bench]\naws_access_key_id = {key['id']}\naws_secret_access_key = {key['secret']}\n"
        )
        self.env |= {
            "AWS_ACCESS_KEY_ID": key["id"],
            "AWS_SECRET_ACCESS_KEY": key["secret"],
            "AWS_REGION": "us-east-1",
            "S3_ENDPOINT_URL": self.address,
            "RCLONE_CONFIG_BENCH_TYPE": "s3",
            "RCLONE_CONFIG_BENCH_PROVIDER": "Other",
            "RCLONE_CONFIG_BENCH_ENV_AUTH": "true",
            "RCLONE_CONFIG_BENCH_ENDPOINT": self.address,
            "RCLONE_CONFIG_BENCH_REGION": "us-east-1",
        }

    def run(self, *words: str) -> str:
        return subprocess.run(
            [ARGOSY, *words], env=self.env, check=True, capture_output=True, text=True
        ).stdout

    def measure(self, tool: str, load: str, way: str, command: list[str]) -> Sample:
        before, own = cpu_s(self.pid), resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        done = subprocess.run(command, env=self.env, capture_output=True, text=True)
        wall_s = time.perf_counter() - began
        if done.returncode:
            raise SystemExit(f"{' '.join(command)}: {done.stderr[-500:]}")
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used = after.ru_utime + after.ru_stime - own.ru_utime - own.ru_stime
        return Sample(tool, load, way, wall_s, used, cpu_s(self.pid) - before)


def measure(root: Path, options: argparse.Namespace) -> tuple[list[Sample], dict[str, Any]]:
    loads = {"small": root / "small", "large": root / "large"}
    for folder in loads.values():
        folder.mkdir()
    data = os.urandom(SMALL_BYTES)
    for number in range(options.small):
        (loads["small"] / f"{number:05}.bin").write_bytes(number.to_bytes(8, "big") + data[8:])
    for number in range(2):
        (loads["large"] / f"{number}.bin").write_bytes(os.urandom(options.large_mb * 1_000_000))
    server = Server(root)
    samples: list[Sample] = []
    try:
        tools = _tools(options.s5cmd, options.rclone)
        for run in range(options.runs):
            for tool in tools[run % len(tools) :] + tools[: run % len(tools)]:
                for load, folder in loads.items():
                    at, back = f"{tool.name.replace(', ', '-')}-{load}-{run}", root / "back"
                    back.mkdir()
                    samples.append(server.measure(tool.name, load, "up", tool.up(folder, at)))
                    samples.append(server.measure(tool.name, load, "down", tool.down(at, back)))
                    have = sum(path.stat().st_size for path in back.rglob("*") if path.is_file())
                    wanted = sum(path.stat().st_size for path in folder.iterdir())
                    if have != wanted:
                        raise SystemExit(f"{tool.name}: {have} of {wanted} bytes came back")
                    shutil.rmtree(back)
                    server.run("storage", "rm", "-r", f"argosy://bench/{at}/")
        added = resident_bytes(server.pid) - server.idle_bytes
        return samples, {"idle_bytes": server.idle_bytes, "added_after_load_bytes": added}
    finally:
        server.run("server", "stop")


def idle_bytes(root: Path, *words: str) -> int:
    """Memory of a server that has just started and does nothing."""
    env = _environ() | {"ARGOSY_HOME": str(root / "idle")}

    def run(*words: str) -> str:
        return subprocess.run([ARGOSY, *words], env=env, check=True, capture_output=True, text=True).stdout

    run("server", "start", *words)
    try:
        if words:
            run("storage", "create", "bench")
        pid = int(json.loads(run("server", "status", "--json"))["health"]["pid"])
        time.sleep(2.0)  # what a start does in the background has ended
        return resident_bytes(pid)
    finally:
        run("server", "stop")
        shutil.rmtree(root / "idle")


def idle_memory(root: Path) -> dict[str, int]:
    without, beside = [], []
    for _ in range(5):
        without.append(idle_bytes(root))
        port = free_port()
        beside.append(idle_bytes(root, "--s3", f"127.0.0.1:{port}"))
    own, all_of_it = int(median(without)), int(median(beside))
    return {
        "idle_without_s3_bytes": own,
        "idle_with_s3_bytes": all_of_it,
        "added_idle_bytes": all_of_it - own,
    }


def render(samples: list[Sample]) -> str:
    """A table: wall seconds, and in brackets processor seconds of the program and of the server."""
    columns = [(load, way) for load in ("small", "large") for way in ("up", "down")]
    lines = ["| program | " + " | ".join(f"{load} {way}" for load, way in columns) + " |", "|---" * 5 + "|"]
    for tool in dict.fromkeys(sample.tool for sample in samples):
        cells = []
        for load, way in columns:
            own = [each for each in samples if (each.tool, each.load, each.way) == (tool, load, way)]
            used = f"{median(s.cpu_s for s in own):.2f} + {median(s.server_cpu_s for s in own):.2f}"
            cells.append(f"{median(s.wall_s for s in own):.2f} ({used})")
        lines.append(f"| {tool} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--large-mb", type=int, default=200)
    parser.add_argument("--s5cmd", default="s5cmd")
    parser.add_argument("--rclone", default="rclone")
    parser.add_argument("--undisturbed", action="store_true")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    about = describe()
    if options.undisturbed:
        before_others()
    root = Path(tempfile.mkdtemp(prefix="argosy-bench-", dir="/tmp"))
    try:
        samples, memory = measure(root, options)
        memory |= idle_memory(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    print(render(samples))
    print(
        f"memory: {memory['idle_bytes'] >> 20} MiB idle, "
        f"{memory['added_after_load_bytes'] >> 20} MiB more after the load; the address for S3 and a bucket "
        f"add {memory['added_idle_bytes'] / 2**20:.1f} MiB to an idle server"
    )
    told = [sample._asdict() for sample in samples]
    write(options.json, machine=about, undisturbed=options.undisturbed, memory=memory, samples=told)


if __name__ == "__main__":
    main()
