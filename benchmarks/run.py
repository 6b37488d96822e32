#!/usr/bin/env python3
"""Measures the table "speed and size" on the real thing and keeps every sample. See benchmarks/README.md."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import machine  # noqa: E402
import report  # noqa: E402
from report import Figure  # noqa: E402

from argosy.client.client import Client  # noqa: E402
from argosy.model.offer import Offer  # noqa: E402
from argosy.model.task import Task  # noqa: E402

ARGOSY = str(Path(sys.executable).parent / "argosy")
MB = 1_000_000
#: Prints the mark without holding it: so that an echo of the command is not taken for its output.
SAY_MARK = ["sh", "-c", "echo MA''RK"]


class World:
    """A state folder of its own, and everything that is done to it."""

    def __init__(self) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="argosy-bench-", dir="/tmp"))
        self.env = {
            name: value for name, value in os.environ.items() if not name.startswith(("ARGOSY_", "SKYPILOT_"))
        } | {"ARGOSY_HOME": str(self.home / "state"), "PATH": f"{Path(ARGOSY).parent}:{os.environ['PATH']}"}
        self.names = 0

    def run(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [ARGOSY, *words],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and done.returncode != 0:
            raise RuntimeError(
                f"argosy {' '.join(words)} ended with "
                f"{done.returncode}:\n{done.stdout[-500:]}{done.stderr[-1500:]}"
            )
        return done

    def wall_and_cpu_s(self, *words: str) -> tuple[float, float]:
        """One whole command: how long, and its own processor time."""
        started = time.perf_counter()
        child = subprocess.Popen(
            [ARGOSY, *words],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        _, status, usage = os.wait4(child.pid, 0)
        took = time.perf_counter() - started
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode != 0:
            raise RuntimeError(
                f"argosy {' '.join(words)}: {child.stderr.read().decode()[-1000:] if child.stderr else ''}"
            )
        return took, usage.ru_utime + usage.ru_stime

    def first_line_s(self, *words: str) -> float:
        """From starting the command until the job's own output appears on its standard output."""
        started = time.perf_counter()
        child = subprocess.Popen(
            [ARGOSY, *words],
            env=self.env,
            cwd=self.home,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert child.stdout is not None
        seen = b""
        took = None
        while data := os.read(child.stdout.fileno(), 1 << 16):
            seen += data
            if took is None and b"MARK" in seen:
                took = time.perf_counter() - started
        child.wait()
        if took is None or child.returncode != 0:
            raise RuntimeError(
                f"argosy {' '.join(words)} ended with "
                f"{child.returncode}:\n{seen.decode(errors='replace')[-1500:]}"
            )
        return took

    def name(self) -> str:
        self.names += 1
        return f"bench{self.names}"

    def client(self) -> Client:
        return Client(env=self.env)

    def server_pid(self) -> int:
        with self.client() as client:
            return client.health().pid

    def stop_server(self) -> None:
        """Until its process is gone: a figure must not include the end of the one before."""
        running = [
            pid
            for pid, line in machine.processes_with(str(self.home)).items()
            if "argosy.server" in line or "server_normal" in line
        ]
        self.run("server", "stop", check=False)
        deadline = time.monotonic() + 20
        while any(machine.resident_bytes(pid) for pid in running) and time.monotonic() < deadline:
            time.sleep(0.02)

    @contextmanager
    def cluster(self) -> Iterator[str]:
        name = self.name()
        self.run("launch", "--yes", "--cluster", name, "--", "true")
        try:
            yield name
        finally:
            self.run("down", "--yes", name, check=False)

    def close(self) -> None:
        self.run("down", "--all", "--yes", check=False)
        self.stop_server()
        for pid in machine.processes_with(str(self.home)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        shutil.rmtree(self.home, ignore_errors=True)


# --- rows ------------------------------------------------------------------------------------------

ROWS: dict[str, Callable[[World, int], list[Figure]]] = {}


def row(key: str) -> Callable[[Callable[[World, int], list[Figure]]], Callable[[World, int], list[Figure]]]:
    def keep(measure: Callable[[World, int], list[Figure]]) -> Callable[[World, int], list[Figure]]:
        ROWS[key] = measure
        return measure

    return keep


@row("help")
def measure_help(world: World, runs: int) -> list[Figure]:
    figure = Figure(
        "help", "`argosy --help`", "s", 0.10, peers="SkyPilot 1.6 s; dstack 1.1–1.4 s; Backend.AI 3.3–5.8 s"
    )
    world.run("--help")
    figure.samples = [world.wall_and_cpu_s("--help")[0] for _ in range(3 * runs)]
    return [figure]


@row("server")
def measure_server(world: World, runs: int) -> list[Figure]:
    start = Figure(
        "server-start", "server: start, until it answers", "s", 1.0, peers="SkyPilot 5.8 s; dstack 8.5 s"
    )
    idle = Figure("server-idle", "server: idle memory", "MB", 120, peers="SkyPilot 1,300 MB; dstack 457 MB")
    world.run("server", "start")
    for _ in range(runs):
        world.stop_server()
        started = time.perf_counter()
        world.run("server", "start")
        with world.client() as client:
            client.health()
            start.samples.append(time.perf_counter() - started)
        time.sleep(2)
        idle.samples.append(machine.resident_bytes(world.server_pid()) / MB)
    return [start, idle]


@row("status")
def measure_status(world: World, runs: int) -> list[Figure]:
    wall = Figure(
        "status-wall",
        "`argosy status`, warm server, one cluster: wall",
        "s",
        0.20,
        peers="SkyPilot 2.7 s; dstack 1.0–2.7 s",
    )
    cpu = Figure(
        "status-cpu",
        "`argosy status`: the command's processor time",
        "s",
        0.20,
        peers="SkyPilot 2.0 s (and 1.5 s in its server)",
    )
    with world.cluster():
        world.run("status")
        for _ in range(3 * runs):
            took, used = world.wall_and_cpu_s("status")
            wall.samples.append(took)
            cpu.samples.append(used)
    return [wall, cpu]


@row("launch")
def measure_launch(world: World, runs: int) -> list[Figure]:
    warm = Figure(
        "launch-warm",
        "`launch` on a new local cluster, warm server: to the first line",
        "s",
        0.5,
        peers="SkyPilot (Slurm) 27.6 s",
    )
    cold = Figure("launch-cold", "the same with no server running", "s", 1.5)
    for figure, is_cold in ((warm, False), (cold, True)):
        for _ in range(runs):
            name = world.name()
            if is_cold:
                world.stop_server()
            figure.samples.append(world.first_line_s("launch", "--yes", "--cluster", name, "--", *SAY_MARK))
            world.run("down", "--yes", name)
    return [warm, cold]


@row("exec")
def measure_exec(world: World, runs: int) -> list[Figure]:
    figure = Figure("exec", "`exec` to the first line", "s", 0.3, peers="SkyPilot 7.2 s")
    with world.cluster() as name:
        figure.samples = [world.first_line_s("exec", name, "--", *SAY_MARK) for _ in range(2 * runs)]
    return [figure]


@row("agent")
def measure_agent(world: World, runs: int) -> list[Figure]:
    size = Figure("agent-size", "agent: zipapp", "KB", 300)
    memory = Figure(
        "agent-memory", "agent: resident memory, after a job", "MB", 25, peers="SkyPilot's skylet 179 MB"
    )
    with world.cluster():
        for path in world.home.rglob("*.pyz"):
            size.samples = [path.stat().st_size / 1000]
        agents = {
            pid: line for pid, line in machine.processes_with(str(world.home)).items() if ".pyz" in line
        }
        # Wrappers of ranks run the same file; the agent is the one that has no agent above it.
        leaders = [pid for pid in agents if parent_of(pid) not in agents]
        memory.samples = [machine.resident_bytes(pid) / MB for pid in leaders]
    if not size.samples:
        size.note = "no zipapp in the state folder"
    return [size, memory]


def parent_of(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@row("hang")
def measure_plan_while_a_provider_hangs(world: World, runs: int) -> list[Figure]:
    """Requests to a server of its own, with a second provider that has answered once and never again."""
    from argosy.api.location import Location
    from argosy.infra.provider import Capabilities, Manifest, Want
    from argosy.testing.builders import an_offer
    from argosy.testing.idle_server import IdleServer, StaticProvider, a_pool

    class Second(StaticProvider):
        hangs = False

        async def quote(self, want: Want) -> Sequence[Offer]:
            if self.hangs:
                await asyncio.Event().wait()
            return await super().quote(want)

    figure = Figure("plan-hang", "`plan` while a provider hangs: what it takes more", "s", 0.05)
    second = Second(
        Manifest(name="second", title="x", capabilities=Capabilities()), [an_offer(provider="second")]
    )
    with IdleServer(a_pool(), second) as idle:
        client = Client(Location(socket=idle.socket))

        def plan_s() -> float:
            started = time.perf_counter()
            client.plan(Task(run="true"))
            return time.perf_counter() - started

        plan_s()
        usual_s = statistics.median(plan_s() for _ in range(5 * runs))
        second.hangs = True
        figure.samples = [max(0.0, plan_s() - usual_s) for _ in range(5 * runs)]
        client.close()
    return [figure]


@row("bulk")
def measure_bulk(world: World, runs: int) -> list[Figure]:
    jobs = 1000
    submit = Figure(
        "bulk-submit",
        "1,000 trivial jobs in bulk: submission",
        "jobs/s",
        500,
        at_most=False,
        peers="dstack 6–15 runs/s",
    )
    finish = Figure(
        "bulk-finish",
        "1,000 trivial jobs: to all finished",
        "jobs/s",
        60,
        at_most=False,
        peers="dstack 200 runs in 40 s",
    )
    memory = Figure(
        "server-after-1000",
        "server: memory after 1,000 jobs",
        "MB",
        200,
        peers="SkyPilot 4,100 MB after 12 requests",
    )
    world.stop_server()
    with world.cluster() as name, world.client() as client:
        pid = world.server_pid()
        for turn in range(max(3, runs // 2)):
            tasks = [Task(name=f"t{i}", run="true") for i in range(jobs)]
            started = time.perf_counter()
            refs = client.exec(name, tasks)
            submit.samples.append(jobs / (time.perf_counter() - started))
            assert len(refs.jobs) == jobs
            while client.queue(name, live=True, limit=1).jobs:
                time.sleep(0.1)
            finish.samples.append(jobs / (time.perf_counter() - started))
            if turn == 0:
                memory.samples = [machine.resident_bytes(pid) / MB]
            done = client.queue(name, limit=jobs).jobs
            bad = [job for job in done if job.outcome != "succeeded"]
            if bad:
                raise RuntimeError(f"{len(bad)} of {jobs} jobs did not succeed; the first: {bad[0]}")
    return [submit, finish, memory]


@row("requests")
def measure_requests(world: World, runs: int) -> list[Figure]:
    figure = Figure(
        "status-requests",
        "`status` requests on a warm server, 4 connections",
        "requests/s",
        1000,
        at_most=False,
        peers="SkyPilot 3–4/s",
    )
    with world.cluster() as name, world.client() as client:
        socket = str(client.location.socket)
        answers: list[tuple[float, float, float]] = []
        assert [cluster.name for cluster in client.status().clusters] == [name], (
            "the answer that is counted says something"
        )
        for _ in range(runs):
            done = subprocess.run(
                [sys.executable, str(HERE / "load_client.py"), socket, "/v1/status", "4", "2"],
                capture_output=True,
                text=True,
                check=True,
            )
            told = json.loads(done.stdout)
            if told["errors"]:
                raise RuntimeError(f"{told['errors']} requests failed")
            answers.append((told["requests"] / told["seconds"], told["p50_ms"], told["p99_ms"]))
        figure.samples = [rate for rate, _, _ in answers]
        _, p50_ms, p99_ms = sorted(answers)[len(answers) // 2]  # of the sample that is the median
        figure.note = f"p50 {p50_ms} ms, p99 {p99_ms} ms"
    return [figure]


@row("logs")
def measure_logs(world: World, runs: int) -> list[Figure]:
    size = 300 * MB
    figure = Figure("log-throughput", "log throughput end to end, 300 MB", "MB/s", 50, at_most=False)
    memory = Figure("server-log-growth", "server: memory gained by 300 MB of logs", "MB", 50)
    line = "0123456789 " * 9
    task = Task(name="flood", run=f"yes '{line}' | head -c {size}")
    with world.cluster() as name, world.client() as client:
        pid = world.server_pid()
        before = machine.resident_bytes(pid)
        for _ in range(max(3, runs // 2)):
            started = time.perf_counter()
            (job,) = client.exec(name, [task]).jobs
            got = sum(len(piece.data) for piece in client.logs(job.id))
            figure.samples.append(size / MB / (time.perf_counter() - started))
            memory.samples.append(max(0, machine.resident_bytes(pid) - before) / MB)
            if got != size:
                raise RuntimeError(f"the log has {got} bytes, not {size}")
    return [figure, memory]


# --- all of it -------------------------------------------------------------------------------------


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help=f"some of: {','.join(ROWS)}")
    parser.add_argument(
        "--runs", type=int, default=5, help="how often each row is measured (some more often)"
    )
    parser.add_argument("--name", default="local", help="part of the result file's name")
    parser.add_argument(
        "--keep", action="store_true", help="write results/ and docs/benchmarks.md also for --only"
    )
    parser.add_argument("--results", type=Path, default=HERE / "results")
    args = parser.parse_args()
    chosen = [key for key in args.only.split(",") if key] or list(ROWS)
    unknown = [key for key in chosen if key not in ROWS]
    if unknown:
        parser.error(f"unknown rows: {', '.join(unknown)}; there are {', '.join(ROWS)}")
    about = machine.describe()
    figures: list[Figure] = []
    failed = []
    world = World()
    try:
        for key in chosen:
            print(f"measuring {key} ...", file=sys.stderr, flush=True)
            try:
                got = ROWS[key](world, args.runs)
            except Exception as error:  # the other rows are still worth having
                failed.append(key)
                print(f"  failed: {error}", file=sys.stderr, flush=True)
                continue
            for figure in got:
                shown = "–" if figure.value is None else report.render_amount(figure.value, figure.unit)
                print(f"  {figure.what}: {shown}", file=sys.stderr, flush=True)
            figures += got
    finally:
        world.close()
    print(report.render_table(figures))
    if not args.only or args.keep:
        args.results.mkdir(parents=True, exist_ok=True)
        path = report.save(args.results, args.name, about, figures)
        if args.results == HERE / "results":
            (HERE.parent / "docs" / "benchmarks.md").write_text(report.render_page(path))
        print(f"kept in {path.name}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
