"""The embedded store beside other people's S3 servers, with the same clients. A table, and JSON with --json.

    python benchmarks/store_servers.py [--runs 3] [--small 2000] [--rclone PATH] [--moto PATH] [--s3rver PATH]
                                       [--undisturbed] [--json FILE]

Each server gets 2,000 objects of 100 KB up and down by obstore (16 threads), which is the quickest client
that all of them understand; beside them stands `bare_store.py`, the least that a server of objects does. The
order of the servers turns with every run; what a server has not is left out and said. Wall time stands beside
processor time of the server, which says more on a busy machine; memory is what the server's process has after
the load. On a machine with other work `--undisturbed` gives all of them
real-time priority (root).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from machine import before_others, cpu_s, describe, resident_bytes, write
from stores import SMALL_BYTES, Server

from argosy.testing.ports import free_port

KEY, SECRET = "benchmark-key-of-nobody", "benchmark-secret-of-nobody-at-all"
THREADS = 16
BARE = "bare aiohttp, no signatures"


class Running(NamedTuple):
    """A server that answers: its processes, and how it is spoken to."""

    pids: tuple[int, ...]
    address: str
    key: str
    secret: str


class Sample(NamedTuple):
    server: str
    way: str
    wall_s: float
    server_cpu_s: float


@contextmanager
def argosy(root: Path) -> Iterator[Running]:
    server = Server(root)
    try:
        yield Running(
            (server.pid,),
            server.address,
            server.env["AWS_ACCESS_KEY_ID"],
            server.env["AWS_SECRET_ACCESS_KEY"],
        )
    finally:
        server.run("server", "stop")


@contextmanager
def program(*words: str, port: int, env: dict[str, str] | None = None) -> Iterator[Running]:
    """A server that is one program of somebody else's."""
    started = subprocess.Popen(
        words, env=os.environ | (env or {}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        start_new_session=True,
    )  # fmt: skip
    try:
        while True:
            with socket.socket() as trying:
                if trying.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if started.poll() is not None:
                raise SystemExit(f"{words[0]} has ended with {started.returncode}")
            time.sleep(0.05)
        yield Running((started.pid,), f"http://127.0.0.1:{port}", KEY, SECRET)
    finally:
        os.killpg(started.pid, signal.SIGKILL)
        started.wait()


@contextmanager
def server_of(name: str, options: argparse.Namespace) -> Iterator[Running]:
    root, port = Path(tempfile.mkdtemp(prefix="argosy-bench-", dir="/tmp")), free_port()
    (root / "data" / "bench").mkdir(parents=True)
    try:
        if name == "argosy":
            with argosy(root) as running:
                yield running
        elif name == "rclone serve s3":
            words = (options.rclone, "serve", "s3", f"--addr=127.0.0.1:{port}", f"--auth-key={KEY},{SECRET}")
            env = {"AWS_CA_BUNDLE": "", "RCLONE_CONFIG": str(root / "none")}
            with program(*words, str(root / "data"), port=port, env=env) as running:
                yield running
        elif name == "s3rver":
            words = (options.s3rver, "-d", str(root / "data"), "-a", "127.0.0.1", "-p", str(port), "-s")
            with program(*words, "--configure-bucket", "bench", port=port) as running:
                yield running._replace(key="S3RVER", secret="S3RVER")
        elif name == BARE:
            words = (sys.executable, str(Path(__file__).with_name("bare_store.py")), str(port))
            with program(*words, str(root / "data" / "bench"), port=port) as running:
                yield running
        else:
            with program(options.moto, "-H", "127.0.0.1", "-p", str(port), port=port) as running:
                yield running
    finally:
        shutil.rmtree(root, ignore_errors=True)


CLIENT = (
    "import sys; sys.path.insert(0, sys.argv[1]); import store_servers; store_servers.load(*sys.argv[2:])"
)


def load(way: str, address: str, count: str) -> None:
    """In a process of its own: `count` objects up, or down."""
    import obstore
    from obstore.store import S3Store

    store = S3Store(
        "bench", endpoint=address, region="us-east-1", virtual_hosted_style_request=False,
        access_key_id=os.environ["BENCH_KEY"], secret_access_key=os.environ["BENCH_SECRET"],
        client_options={"allow_http": True, "timeout": timedelta(seconds=60)},
    )  # fmt: skip
    data = os.urandom(SMALL_BYTES)

    def up(number: int) -> None:
        obstore.put(store, f"o/{number:05}", number.to_bytes(8, "big") + data[8:], use_multipart=False)

    def down(number: int) -> None:
        found = obstore.get(store, f"o/{number:05}").bytes()
        assert len(found) == SMALL_BYTES and int.from_bytes(bytes(found)[:8], "big") == number

    began = time.perf_counter()
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(up if way == "up" else down, range(int(count))))
    print(time.perf_counter() - began, flush=True)
    os._exit(0)


def measure(name: str, options: argparse.Namespace) -> tuple[list[Sample], int]:
    samples = []
    with server_of(name, options) as running:
        env = os.environ | {"BENCH_KEY": running.key, "BENCH_SECRET": running.secret}
        if name == "moto":
            subprocess.run(
                ["curl", "-sf", "-X", "PUT", f"{running.address}/bench"],
                check=True,
                stdout=subprocess.DEVNULL,
            )
        for way in ("up", "down"):
            before = sum(map(cpu_s, running.pids))
            words = [sys.executable, "-c", CLIENT, str(Path(__file__).parent), way, running.address]
            done = subprocess.run(
                [*words, str(options.small)], env=env, check=True, capture_output=True, text=True
            )
            used = sum(map(cpu_s, running.pids)) - before
            samples.append(Sample(name, way, float(done.stdout), used))
        return samples, sum(map(resident_bytes, running.pids))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--small", type=int, default=2000)
    parser.add_argument("--rclone", default="rclone", help="1.65 or newer")
    parser.add_argument("--moto", default="moto_server")
    parser.add_argument("--s3rver", default="s3rver")
    parser.add_argument("--undisturbed", action="store_true")
    parser.add_argument("--json", default="")
    options = parser.parse_args()
    about = describe()
    if options.undisturbed:
        before_others()
    programs = {"rclone serve s3": options.rclone, "moto": options.moto, "s3rver": options.s3rver}
    absent = [name for name, path in programs.items() if shutil.which(path) is None]
    names = ["argosy", BARE, *(name for name in programs if name not in absent)]
    samples: list[Sample] = []
    memory: dict[str, list[int]] = {name: [] for name in names}
    for run in range(options.runs):
        for name in names[run % len(names) :] + names[: run % len(names)]:
            found, resident = measure(name, options)
            samples += found
            memory[name].append(resident)
    print("| server | up | down | memory after it |\n|---|---|---|---|")
    for name in names:
        cells = []
        for way in ("up", "down"):
            own = [each for each in samples if (each.server, each.way) == (name, way)]
            cells.append(f"{median(s.wall_s for s in own):.2f} ({median(s.server_cpu_s for s in own):.2f})")
        print(f"| {name} | {' | '.join(cells)} | {int(median(memory[name])) >> 20} MiB |")
    for name in absent:
        print(f"{name} was not measured: there is no {programs[name]}", file=sys.stderr)
    told: dict[str, Any] = {"undisturbed": options.undisturbed, "absent": absent, "memory_bytes": memory}
    write(options.json, machine=about, **told, samples=[sample._asdict() for sample in samples])


if __name__ == "__main__":
    main()
