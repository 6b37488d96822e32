"""How soon a lost machine is noticed and a managed job goes on elsewhere, with real agents on this machine.

    python benchmarks/recovery.py [--runs 5] [--name recovery]

Three losses: the machine is taken away and its provider says so; it falls silent (all of its processes are
stopped, its connections stay open); it is told that it will be taken away.
The server's controllers, its store and its files are the real ones, in this process; each run starts from a
running job. Writes every sample to results/<date>-<name>.json.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import machine
import msgspec
import report

from argosy.controllers.shell import Shell
from argosy.infra.agent_client import AgentClient
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import Notice
from argosy.model.kinds.job import JOB, JobSpec, JobStatus, job_state
from argosy.model.phases import Desired, NodePhase, WorkloadPhase
from argosy.model.rows import Node, Workload
from argosy.model.task import Task
from argosy.providers import load_providers
from argosy.server.agents import Agents
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store import Store

HERE = Path(__file__).resolve().parent
PATIENCE_S = 120.0


class Site:
    """A server and a managed job that runs on a machine of its own."""

    def __init__(self, root: Path) -> None:
        self.clock, self.ids = SystemClock(), SystemIds()
        self.providers = load_providers(None, root / "providers", self.clock, self.ids, os.environ)
        self.provider: Any = self.providers.get("local")  # Any: the driver's own test calls
        self.agents, self.logs = Agents(self.providers, AgentClient), LogStore(root / "logs")
        self.root = root
        self.count = 0

    async def __aenter__(self) -> Site:
        self.store = await Store.open(
            f"sqlite:///{self.root / 'argosy.db'}", ids=self.ids, clock=self.clock, keys=self.root / "keys"
        )
        self.shell = Shell(
            store=self.store,
            providers=self.providers,
            agents=self.agents,
            logs=self.logs,
            files=BlobStore(self.root),
            clock=self.clock,
            ids=self.ids,
        )
        self._running = asyncio.create_task(self.shell.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._running.cancel()
        await asyncio.wait([self._running])
        await self.agents.close()
        await self.logs.close()
        await self.store.close()

    async def begin(self) -> tuple[str, Node]:
        """A job that runs; its id and its machine."""
        self.count += 1
        job_id = f"job-bench{self.count:03d}"
        job = Workload(
            id=job_id,
            kind=JOB.name,
            name="bench",
            number=self.count,
            spec=JobSpec(task=Task(run="sleep 600"), managed=True),
            status=JobStatus(),
            created_ms=self.clock.now_ms(),
        )
        await self.store.commit([job])
        self.shell.wake(job_id)
        await self.until(lambda: self.attempts(job_id, 1))
        return job_id, await self.node(job_id)

    async def node(self, job_id: str) -> Node:
        rows = await self.store.snapshot()
        attempt = rows.attempt_of(job_id)
        assert attempt is not None
        return rows.nodes[attempt.placements[0].node_id]

    async def attempts(self, job_id: str, at_least: int) -> bool:
        """Whether the job runs, for the so manieth time."""
        row = (await self.store.snapshot()).workloads[job_id]
        return row.phase is WorkloadPhase.RUNNING and job_state(row).attempts >= at_least

    async def placed(self, job_id: str) -> bool:
        row = (await self.store.snapshot()).workloads[job_id]
        return job_state(row).attempts >= 2

    async def unreachable(self, node_id: str) -> bool:
        node = (await self.store.snapshot()).nodes.get(node_id)
        return node is None or node.phase is not NodePhase.READY

    async def until(self, reached: Callable[[], Awaitable[bool]]) -> float:
        """Seconds until it is so."""
        began_s = time.perf_counter()
        async with asyncio.timeout(PATIENCE_S):
            while not await reached():
                await asyncio.sleep(0.005)
        return time.perf_counter() - began_s

    async def end(self, job_id: str) -> None:
        while True:
            row = (await self.store.snapshot()).workloads.get(job_id)
            if row is None:
                return
            if row.desired is not Desired.END:
                await self.store.commit([msgspec.structs.replace(row, desired=Desired.END)])
                self.shell.wake(job_id)
            await asyncio.sleep(0.05)

    def pids(self, node: Node) -> list[int]:
        """All processes of a machine: its agent, and what has its files or its mark."""
        home = str(self.provider._home(node.claim_id, node.index))
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != os.getpid():
                try:
                    text = (
                        Path(f"/proc/{name}/cmdline").read_bytes()
                        + Path(f"/proc/{name}/environ").read_bytes()
                    )
                except OSError:
                    continue
                if home.encode() in text:
                    found.append(int(name))
        return found


async def taken_away(site: Site) -> dict[str, float]:
    job_id, node = await site.begin()
    taking = asyncio.create_task(site.provider.simulate_preemption(node.claim_id))
    noticed_s = await site.until(lambda: site.unreachable(node.id))
    placed_s = noticed_s + await site.until(lambda: site.placed(job_id))
    runs_s = placed_s + await site.until(lambda: site.attempts(job_id, 2))
    await taking
    await site.end(job_id)
    return {"taken-noticed": noticed_s, "taken-placed": placed_s, "taken-runs": runs_s}


async def silent(site: Site) -> dict[str, float]:
    job_id, node = await site.begin()
    await asyncio.sleep(2 + site.count % 5 * 0.4)  # at another point between two heartbeats
    stopped = site.pids(node)
    for pid in stopped:
        os.kill(pid, signal.SIGSTOP)
    noticed_s = await site.until(lambda: site.unreachable(node.id))
    for pid in stopped:
        os.kill(pid, signal.SIGCONT)
    await site.end(job_id)
    return {"silent-noticed": noticed_s}


async def noticed(site: Site) -> dict[str, float]:
    job_id, node = await site.begin()
    link = site.shell.observed.link(node.id)
    assert link is not None
    told = Notice(code="terminate", at_ms=site.clock.now_ms() + 120_000)
    facts = msgspec.structs.replace(link.facts, notice=told)
    site.shell.observed.set_node(node.id, facts, site.clock.now_ms())  # as its agent would have told it
    site.shell.wake(node.id)
    placed_s = await site.until(lambda: site.placed(job_id))
    runs_s = placed_s + await site.until(lambda: site.attempts(job_id, 2))
    await site.end(job_id)
    return {"notice-placed": placed_s, "notice-runs": runs_s}


FIGURES = {
    "silent-noticed": ("a machine falls silent → it counts as unreachable", 6.0),
    "taken-noticed": ("a machine is taken away → noticed", 1.0),
    "taken-placed": ("a machine is taken away → next attempt placed", 2.0),
    "taken-runs": ("a machine is taken away → next attempt runs", 3.0),
    "notice-placed": ("a notice → next attempt placed", 1.0),
    "notice-runs": ("a notice → next attempt runs", 2.0),
}


async def measure(runs: int) -> list[report.Figure]:
    figures = {
        key: report.Figure(key=key, what=what, unit="s", target=target)
        for key, (what, target) in FIGURES.items()
    }
    with tempfile.TemporaryDirectory(
        dir="/tmp", prefix="argosy-bench-", ignore_cleanup_errors=True
    ) as folder:
        async with Site(Path(folder)) as site:
            await asyncio.sleep(1.0)
            for _ in range(runs):
                for loss in (taken_away, silent, noticed):
                    for key, seconds in (await loss(site)).items():
                        figures[key].samples.append(round(seconds, 3))
                        print(f"{key:16} {seconds:8.3f} s", flush=True)
    return list(figures.values())


def main(argv: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--name", default="recovery")
    options = parser.parse_args(argv)
    about = machine.describe()
    figures = asyncio.run(measure(options.runs))
    path = report.save(HERE / "results", options.name, about, figures)
    print(report.render_table(figures))
    print(path.name)
    return 0 if all(figure.reached for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
