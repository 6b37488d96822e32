"""A server with a long past: 100,000 finished jobs and a million events. A table, and JSON with --json FILE.

    python benchmarks/history.py [--jobs N] [--events N] [--json FILE]

The database is made by the store itself. Then a real server starts on it; what is measured is the CPU time of
its process (the machine may be busy with other things) and its memory, first for the start, then for each
request, of which the median of many counts. `status` keeps its answer for a second: it is asked once in each.
"""

from __future__ import annotations

import argparse
import asyncio
import http.client
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import machine
import msgspec

from argosy.model.ids import make_id
from argosy.model.phases import AttemptPhase, Outcome, WorkloadPhase
from argosy.model.rows import Event
from argosy.store import Store
from argosy.testing.builders import a_cluster, a_job, a_task, an_attempt
from argosy.testing.virtual_time import FixedClock, SimIds

AT_ONCE = 2000
LIVE = 20
TIMES = 15
TICK_S = 1 / os.sysconf("SC_CLK_TCK")
READS = {
    "status": "/status",
    "queue, first page": "/jobs",
    "queue, 100 newest": "/jobs?limit=100",
    "queue, live only": "/jobs?live=true",
    "queue of a cluster": "/jobs?cluster=dev",
    "events, first page": "/events",
    "events of a job": "/events?subject={job}",
    "one job": "/jobs/{job}",
}


async def fill(path: Path, jobs: int, events: int, now_ms: int) -> str:
    """Jobs that ended over the last 60 days, with an attempt each, and events. Returns the id of one."""
    store = await Store.open(f"sqlite://{path}", ids=SimIds(), clock=FixedClock(now_ms))
    task = a_task(run="python train.py --epochs 10", envs={f"K{n}": "v" * 20 for n in range(4)})
    (cluster,) = await store.commit([a_cluster(name="dev")])
    step_ms = 60 * 86_400_000 // jobs
    chosen = ""
    for page in (range(a, min(a + AT_ONCE, jobs + 1)) for a in range(1, jobs + 1, AT_ONCE)):
        rows, ends, told = [], [], []
        for number in page:
            at_ms = now_ms - (jobs - number) * step_ms - 3_600_000
            job_id = make_id("job", at_ms, number)
            host = cluster.id if number % 2 else None
            job = a_job(id=job_id, number=number, host_id=host, task=task, created_ms=at_ms)
            attempt = an_attempt(id=make_id("att", at_ms, number), workload_id=job_id, placed_ms=at_ms)
            over = {"outcome": Outcome.SUCCEEDED, "ended_ms": at_ms + 60_000}
            rows += [job, attempt]
            ends += [
                msgspec.structs.replace(job, rev=1, phase=WorkloadPhase.FINISHED, **over),
                msgspec.structs.replace(attempt, rev=1, phase=AttemptPhase.ENDED, **over),
            ]
            told += [
                Event(at_ms=at_ms + n, subject=job_id, code="told", text=f"step {n} of a job")
                for n in range(events // jobs)
            ]
            chosen = job_id
        await store.commit(rows)
        await store.commit(ends, events=told)
    await store.commit([a_job(number=jobs + n, host_id=cluster.id, task=task) for n in range(1, LIVE + 1)])
    await store.close()
    return chosen


class Process:
    """The real server on the folder."""

    def __init__(self, home: Path) -> None:
        self.socket = home / "run" / "server.sock"
        env = {name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")}
        self.popen = subprocess.Popen(
            [sys.executable, "-m", "argosy.server", "run", "--state-dir", str(home)], env=env
        )

    def ask(self, path: str) -> bytes:
        connection = http.client.HTTPConnection("argosy", timeout=60)
        connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        connection.sock.connect(str(self.socket))
        connection.request("GET", "/v1" + path)
        reply = connection.getresponse()
        body = reply.read()
        connection.close()
        assert reply.status == 200, (path, reply.status, body[:300])
        return body

    def wait(self) -> None:
        while True:
            try:
                self.ask("/health")
                return
            except OSError:
                assert self.popen.poll() is None, "the server ended"
                time.sleep(0.02)

    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.popen.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) * TICK_S

    def cpu_ms(self) -> float:
        """Of all threads that live, to the nanosecond: for what is shorter than a tick of the clock."""
        tasks = Path(f"/proc/{self.popen.pid}/task").iterdir()
        return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks) / 1e6

    def memory_mb(self) -> float:
        for line in Path(f"/proc/{self.popen.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
        raise AssertionError("no memory is told")

    def settle(self) -> float:
        """CPU seconds once nothing is going on any more."""
        last = -1.0
        while (now := self.cpu_s()) != last:
            last = now
            time.sleep(0.5)
        return now

    def stop(self) -> None:
        self.popen.send_signal(signal.SIGTERM)
        self.popen.wait(30)


def asked_ms(server: Process, path: str) -> Iterator[float]:
    """CPU time of each request; every one in a second of its own, so that none finds a kept answer."""
    server.ask(path)
    for _ in range(TIMES):
        time.sleep(1.0 - time.time() % 1.0)
        before = server.cpu_ms()
        server.ask(path)
        yield server.cpu_ms() - before


def measure(home: Path, job: str) -> dict[str, float]:
    found: dict[str, float] = {}
    server = Process(home)
    server.wait()
    server.ask("/status")
    found["start to the first status, CPU s"] = server.cpu_s()
    found["start until all is quiet, CPU s"] = server.settle()
    found["memory after the start, MB"] = server.memory_mb()
    server.settle()
    for name, path in READS.items():
        found[f"{name}, CPU ms"] = statistics.median(asked_ms(server, path.format(job=job)))
    found["memory after all, MB"] = server.memory_mb()
    server.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    about = machine.describe()
    with tempfile.TemporaryDirectory(prefix="ah", dir="/tmp") as folder:
        home = Path(folder)
        now_ms = time.time_ns() // 1_000_000
        began = time.process_time()
        job = asyncio.run(fill(home / "argosy.db", options.jobs, options.events, now_ms))
        found = {"filling, CPU s": time.process_time() - began}
        found["database, MB"] = (home / "argosy.db").stat().st_size / 1e6
        found |= measure(home, job)
    for name, value in found.items():
        print(f"{name:<40} {value:10.2f}")
    figures = {name: round(value, 2) for name, value in found.items()}
    machine.write(options.json, machine=about, jobs=options.jobs, events=options.events, figures=figures)


if __name__ == "__main__":
    main()
