"""Kueue's own scheduler performance tests, played against our pool in real time. Prints a table, and JSON
with every figure.

    python benchmarks/kueue.py [--cases baseline,large-scale,tas] [--runs N] [--json FILE]

The generators are Kueue's (ARGOSY_TRACES, folder `kueue/`): how many workloads of which size each queue
creates, how far apart, how long each runs and with what priority. They are created at those times of the wall
clock, `Pool.cycle` decides, and what it admits runs for its time of the wall clock. As Kueue writes every
step to an API server, every step is committed to the product's store here (SQLite, a file, WAL): the workload
when it is created, the workload and an attempt with its placements when it is admitted, both when it ends;
nothing counts as admitted before its commit has returned. Nothing is shortened and no time is skipped.

    Kueue                           here
    cohort                          a queue; its limit is the quota of its queues together, so cohorts lend
    each other nothing cluster queue, nominalQuota     a queue below it, `deserved` borrowingLimit
    `limit` = nominalQuota + borrowingLimit reclaimWithinCohort: Any, withinClusterQueue: LowerPriority
    running jobs are preemptible, nothing is protected by its age (`min_runtime_s: 0`) priority
    `priority` in one priority class no nodes (baseline, large-scale)    machines of 96 CPUs, three times as
    many as the quotas need: what is short is quota, never room, but
                                    every workload is placed here, and there none is
    topology block / rack / node    machines with `domains` (block, rack)
    required, preferred rack        `required: rack`, `preferred: rack`
    balanced rack, slices           `preferred: rack`, `spread: node`: ranks on nodes of their own. Slices of
    more than one pod have no
                                    counterpart; this is stricter

`use_percent` (JSON) is what ran of the quotas over the whole wall time; Kueue's "usage" counts otherwise and
is not compared.

Violations are counted by books of this file alone, from the decisions: a queue, a cohort or a machine over
its amount, a gang that is not whole, a required rack that is left, a workload that runs twice or never ends.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import heapq
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import Any

import msgspec
import yaml
from machine import write
from report import Figure, render_table

from argosy.model.kinds.job import JobSpec, JobStatus, job_state
from argosy.model.offer import Placement
from argosy.model.phases import AttemptPhase, Outcome, WorkloadPhase
from argosy.model.rows import Attempt, Workload
from argosy.model.tenancy import Queue, SharePolicy, Tenancy
from argosy.model.units import parse_size
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.pool import Pool
from argosy.store import Store
from argosy.testing.builders import a_task
from argosy.testing.virtual_time import FixedClock, SimIds

CASES = ("baseline", "large-scale", "tas")
#: Means of Kueue's CI, from the comments of its range files (`kueue/*-rangespec.yaml`): wall s, and seconds
#: to admission by class.
PEER_WALL_S = {"baseline": 351.1, "large-scale": 1179.4, "tas": 401.5}
PEER_WAIT_S = {
    "baseline": {"large": 16.5, "medium": 76.8, "small": 215.5},
    "large-scale": {"large": 105.6, "medium": 256.4, "small": 700.4},
    "tas": {
        "large-balanced-rack": 37.9, "large-preferred-rack": 39.6, "large-required-rack": 39.6,
        "medium-balanced-rack": 106.3, "medium-preferred-rack": 106.3, "medium-required-rack": 107.1,
        "small-balanced-rack": 237.8, "small-preferred-rack": 246.1, "small-required-rack": 246.8,
    },
}  # fmt: skip
NODE_MILLI = 96_000
TARGET_S = {"baseline": 90, "large-scale": 90, "tas": 110}


def generator(case: str) -> dict[str, Any]:
    folder = Path(os.environ.get("ARGOSY_TRACES", Path(__file__).parents[1] / "../shared/traces"))
    file = folder / "kueue" / f"{case}-generator.yaml"
    if not file.is_file():
        sys.exit(f"kueue: NOT MEASURED: there is no {file}; set ARGOSY_TRACES to a folder that has kueue/")
    loaded: dict[str, Any] = yaml.safe_load(file.read_text())
    return loaded


@dataclass(frozen=True)
class Planned:
    """One workload that the generator creates."""

    at_ms: int
    queue: str
    kind: str  # its class
    runtime_ms: int
    ask: Ask

    @property
    def cpus_milli(self) -> int:
        return self.ask.needs[0].cpus_milli * self.ask.num_nodes


def cpus_milli(text: object) -> int:
    written = str(text)
    return int(written[:-1]) if written.endswith("m") else int(written) * 1000


@dataclass
class Case:
    """A generator, in our words."""

    name: str
    tenancy: Tenancy
    machines: list[Machine]
    planned: list[Planned]

    @property
    def bound_s(self) -> float:
        """What quota alone allows: no schedule is faster."""
        deserved = {each.path: each.deserved["cpus"] for each in self.tenancy.queues if "/" not in each.path}
        work: dict[str, int] = defaultdict(int)
        for each in self.planned:
            work[each.queue.partition("/")[0]] += each.cpus_milli * each.runtime_ms
        return max(work[path] / amount for path, amount in deserved.items()) / 1000


def read(name: str) -> Case:
    data = generator(name)
    queues: list[Queue] = []
    planned: list[Planned] = []
    for cohorts in data["cohorts"]:
        for cohort in range(cohorts["count"]):
            top = f"{cohorts['className']}-{cohort}"
            total = 0
            for sets in cohorts["queuesSets"]:
                nominal = cpus_milli(sets["nominalQuota"])
                limit = nominal + cpus_milli(sets["borrowingLimit"])
                for number in range(sets["count"]):
                    path = f"{top}/{sets['className']}-{number}"
                    queues.append(Queue(path=path, deserved={"cpus": nominal}, limit={"cpus": limit}))
                    total += nominal
                    planned += creations(path, sets["workloadsSets"])
            queues.append(Queue(path=top, deserved={"cpus": total}, limit={"cpus": total}))
    planned.sort(key=lambda each: (each.at_ms, each.queue))
    planned = [
        Planned(
            each.at_ms, each.queue, each.kind, each.runtime_ms,
            msgspec.structs.replace(each.ask, id=f"job-{number:06}", number=number),
        )
        for number, each in enumerate(planned)
    ]  # fmt: skip
    policy = SharePolicy(min_runtime_s=0, preemption=True)
    all_cpus = sum(queue.deserved["cpus"] for queue in queues if "/" not in queue.path)
    count = -(-3 * all_cpus // NODE_MILLI)
    machines = [Machine(id=f"node-{n:03}", index=n, cpus_milli=NODE_MILLI) for n in range(count)]
    if "topology" in data:
        machines = list(nodes(data["topology"]["levels"]))
    return Case(name, Tenancy(queues=tuple(queues), policy=policy), machines, planned)


def creations(path: str, sets: list[dict[str, Any]]) -> Iterator[Planned]:
    for each in sets:
        for turn in range(each["count"]):
            for workload in each["workloads"]:
                wish = workload.get("tasConstraint", "")
                yield Planned(
                    at_ms=turn * each["creationIntervalMs"],
                    queue=path,
                    kind=workload["className"],
                    runtime_ms=workload["runtimeMs"],
                    ask=Ask(
                        id="",
                        needs=(Need(cpus_milli=cpus_milli(workload["request"])),),
                        num_nodes=workload.get("podCount", 1),
                        required="rack" if wish == "required" else "",
                        preferred="rack" if wish in ("preferred", "balanced") else "",
                        spread="node" if wish == "balanced" else "",
                        queue=path,
                        priority=workload["priority"],
                        preemptible=True,
                    ),
                )


def nodes(levels: list[dict[str, Any]]) -> Iterator[Machine]:
    block, rack, node = levels
    capacity = node["capacity"]
    index = 0
    for b in range(block["count"]):
        for r in range(rack["count"]):
            for n in range(node["count"]):
                yield Machine(
                    id=f"node-{b}-{r}-{n}",
                    index=index,
                    cpus_milli=cpus_milli(capacity["cpu"]),
                    memory_bytes=parse_size(capacity["memory"].removesuffix("i") + "b"),
                    domains=(f"block-{b}", f"rack-{b}-{r}"),
                )
                index += 1


@dataclass
class Checker:
    """Books beside those of the pool."""

    case: Case
    used: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    on_node: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    running: dict[str, tuple[Planned, tuple[Placement, ...]]] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.limits = {queue.path: queue.limit["cpus"] for queue in self.case.tenancy.queues}
        self.nodes = {machine.id: machine for machine in self.case.machines}

    def start(self, each: Planned, placements: tuple[Placement, ...]) -> None:
        ask = each.ask
        if ask.id in self.running:
            self.violations.append(f"{ask.id} runs twice")
        self.running[ask.id] = (each, placements)
        if sorted(p.rank for p in placements) != list(range(ask.num_nodes)):
            self.violations.append(f"{ask.id}: the gang is not whole")
        if any(p.cpus_milli != ask.needs[0].cpus_milli for p in placements):
            self.violations.append(f"{ask.id}: a rank got another amount than it asked for")
        for path in (each.queue, each.queue.partition("/")[0]):
            self.used[path] += each.cpus_milli
            if self.used[path] > self.limits[path]:
                self.violations.append(f"{path} uses {self.used[path]} of {self.limits[path]} milli-CPU")
        for placement in placements:
            self.on_node[placement.node_id] += placement.cpus_milli
            if self.on_node[placement.node_id] > self.nodes[placement.node_id].cpus_milli:
                self.violations.append(f"{placement.node_id} is over-committed")
        if ask.required == "rack" and len({self.nodes[p.node_id].domains[1] for p in placements}) > 1:
            self.violations.append(f"{ask.id} leaves its rack")

    def end(self, job_id: str) -> None:
        each, placements = self.running.pop(job_id)
        for path in (each.queue, each.queue.partition("/")[0]):
            self.used[path] -= each.cpus_milli
        for placement in placements:
            self.on_node[placement.node_id] -= placement.cpus_milli


@dataclass
class Found:
    """What one run measured."""

    wall_s: float = 0
    waits_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    use_percent: float = 0
    violations: list[str] = field(default_factory=list)
    admitted: int = 0
    evicted: int = 0
    cycles: int = 0
    cycles_ms: list[float] = field(default_factory=list)
    commits_s: float = 0
    cpu_s: float = 0  # of this process, all its threads
    rows: int = 0
    mixed_racks_percent: float = 0  # of those that would prefer one rack


class Play:
    def __init__(self, case: Case, store: Store) -> None:
        self.case = case
        self.store = store
        self.pool = Pool(case.tenancy, machines=case.machines)
        self.checker = Checker(case)
        self.found = Found()
        self.by_id = {each.ask.id: each for each in case.planned}
        self.rows: dict[str, Workload] = {}
        self.attempts: dict[str, Attempt] = {}
        self.ends: list[tuple[float, str, str]] = []  # (when, job, attempt)
        self.used_milli_s = 0.0
        self.preferred = self.mixed = 0
        self.spec = JobSpec(task=a_task(run="python train.py"), managed=True)

    def now_ms(self) -> float:
        return (time.perf_counter() - self.begun) * 1000

    async def commit(self, rows: list[Workload | Attempt]) -> None:
        if not rows:
            return
        begun = time.perf_counter()
        for row in await self.store.commit(rows):
            if isinstance(row, Workload):
                if row.is_live:
                    self.rows[row.id] = row
                else:
                    del self.rows[row.id]
            elif row.is_live:
                self.attempts[row.workload_id] = row
            else:
                del self.attempts[row.workload_id]
        self.found.commits_s += time.perf_counter() - begun
        self.found.rows += len(rows)

    async def run(self) -> Found:
        planned = self.case.planned
        created = ended = 0
        self.begun = time.perf_counter()
        cpu_s = time.process_time()
        while ended < len(planned):
            now_ms = self.now_ms()
            rows: list[Workload | Attempt] = []
            new: list[Planned] = []
            while created < len(planned) and planned[created].at_ms <= now_ms:
                each = planned[created]
                created += 1
                new.append(each)
                rows.append(
                    Workload(
                        id=each.ask.id, kind="job", name=each.kind, spec=self.spec, status=JobStatus(),
                        number=each.ask.number, queue=each.queue, created_ms=each.at_ms,
                    )
                )  # fmt: skip
            over: list[str] = []
            while self.ends and self.ends[0][0] <= now_ms:
                _, job_id, attempt_id = heapq.heappop(self.ends)
                attempt = self.attempts.get(job_id)
                if attempt is None or attempt.id != attempt_id:
                    continue  # it was evicted before
                over.append(job_id)
                rows += self.finished(job_id, attempt, now_ms)
            await self.commit(rows)
            for each in new:
                self.pool.submit(msgspec.structs.replace(each.ask, submitted_ms=each.at_ms))
            for job_id in over:
                self.pool.ended(job_id)
                self.checker.end(job_id)
            ended += len(over)
            if new or over:
                await self.decide()
            else:
                next_ms = min(
                    planned[created].at_ms if created < len(planned) else float("inf"),
                    self.ends[0][0] if self.ends else float("inf"),
                )
                if next_ms == float("inf"):
                    self.found.violations.append(f"{len(planned) - ended} workloads wait and nothing runs")
                    break
                await asyncio.sleep(max(0.0, next_ms - self.now_ms()) / 1000)
        self.found.wall_s = time.perf_counter() - self.begun
        self.found.cpu_s = time.process_time() - cpu_s
        deserved = sum(queue.deserved["cpus"] for queue in self.case.tenancy.queues if "/" not in queue.path)
        self.found.use_percent = 100 * self.used_milli_s / (deserved * self.found.wall_s)
        self.found.violations += self.checker.violations
        if self.checker.running or self.attempts or self.rows or self.pool.quotas.used(""):
            self.found.violations.append("something is left")
        self.found.mixed_racks_percent = 100 * self.mixed / self.preferred if self.preferred else 0
        return self.found

    def finished(self, job_id: str, attempt: Attempt, now_ms: float) -> list[Workload | Attempt]:
        replace = msgspec.structs.replace
        self.used_milli_s += self.by_id[job_id].cpus_milli * self.by_id[job_id].runtime_ms / 1000
        return [
            replace(
                self.rows[job_id],
                phase=WorkloadPhase.FINISHED,
                outcome=Outcome.SUCCEEDED,
                ended_ms=int(now_ms),
            ),
            replace(attempt, phase=AttemptPhase.ENDED, outcome=Outcome.SUCCEEDED, ended_ms=int(now_ms)),
        ]

    async def decide(self) -> None:
        """Cycles until nobody is evicted any more: victims of the benchmark leave at once."""
        replace = msgspec.structs.replace
        while True:
            begun = time.perf_counter()
            now_ms = self.now_ms()
            decision = self.pool.cycle(int(now_ms))
            self.found.cycles += 1
            self.found.cycles_ms.append((time.perf_counter() - begun) * 1000)
            rows: list[Workload | Attempt] = []
            for start in decision.starts:
                each = self.by_id[start.ask_id]
                self.checker.start(each, start.placements)
                row = self.rows[start.ask_id]
                attempts = job_state(row).attempts + 1
                attempt_id = f"{row.id.replace('job', 'att')}-{attempts}"
                rows.append(
                    replace(
                        row, phase=WorkloadPhase.STARTING, started_ms=row.started_ms or int(now_ms)
                    ).with_status(attempts=attempts, attempt_id=attempt_id)
                )  # fmt: skip
                rows.append(
                    Attempt(
                        id=attempt_id,
                        workload_id=row.id,
                        number=attempts,
                        placements=start.placements,
                        why=start.why,
                        placed_ms=int(now_ms),
                    )
                )
                if each.ask.preferred:
                    self.preferred += 1
                    self.mixed += (
                        len({self.checker.nodes[p.node_id].domains[1] for p in start.placements}) > 1
                    )
            for evict in decision.evictions:
                attempt = self.attempts[evict.job_id]
                rows.append(replace(self.rows[evict.job_id], phase=WorkloadPhase.QUEUED))
                rows.append(
                    replace(
                        attempt, phase=AttemptPhase.ENDED, outcome=Outcome.PREEMPTED, ended_ms=int(now_ms),
                        room_for=evict.for_id,
                    )
                )  # fmt: skip
            await self.commit(rows)
            admitted_ms = self.now_ms()
            for start in decision.starts:
                each = self.by_id[start.ask_id]
                attempt = self.attempts[start.ask_id]
                heapq.heappush(self.ends, (admitted_ms + each.runtime_ms, start.ask_id, attempt.id))
                if attempt.number == 1:
                    self.found.waits_s[each.kind].append((admitted_ms - each.at_ms) / 1000)
                    self.found.admitted += 1
            for evict in decision.evictions:
                each = self.by_id[evict.job_id]
                self.checker.end(evict.job_id)
                self.pool.ended(evict.job_id)
                self.pool.submit(msgspec.structs.replace(each.ask, submitted_ms=each.at_ms))
                self.found.evicted += 1
            if not decision.evictions:
                return


async def measure(case: Case) -> Found:
    with tempfile.TemporaryDirectory() as folder:
        store = await Store.open(f"sqlite://{folder}/argosy.db", ids=SimIds(), clock=FixedClock())
        try:
            gc.collect()
            return await Play(case, store).run()
        finally:
            await store.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default=",".join(CASES))
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    figures: list[Figure] = []
    raw: dict[str, list[dict[str, object]]] = {}
    for name in args.cases.split(","):
        case = read(name)
        runs = []
        for _ in range(args.runs):
            runs.append(asyncio.run(measure(case)))
            raw.setdefault(name, []).append(summary(case, runs[-1]))
            print(name, json.dumps(raw[name][-1]), file=sys.stderr)
        figures += rows_of(case, runs)
    print(render_table(figures))
    write(args.json, cases=raw)
    if any(found for runs in raw.values() for run in runs if (found := run["violations"])):
        sys.exit("kueue: there were violations")


def summary(case: Case, found: Found) -> dict[str, object]:
    cycles = sorted(found.cycles_ms)
    return {
        "wall_s": round(found.wall_s, 2),
        "bound_s": round(case.bound_s, 2),
        "admitted_per_s": round(found.admitted / found.wall_s, 1),
        "workloads": len(case.planned),
        "wait_s": {kind: round(mean(waits), 3) for kind, waits in sorted(found.waits_s.items())},
        "use_percent": round(found.use_percent, 1),
        "evicted": found.evicted,
        "cycles": found.cycles,
        "cycle_p50_ms": round(cycles[len(cycles) // 2], 3),
        "cycle_p99_ms": round(cycles[len(cycles) * 99 // 100], 3),
        "in_cycles_s": round(sum(cycles) / 1000, 2),
        "in_commits_s": round(found.commits_s, 2),
        "rows_committed": found.rows,
        "cpu_s": round(found.cpu_s, 1),
        "prefers_and_mixes_racks_percent": round(found.mixed_racks_percent, 2),
        "violations": len(found.violations),
        "first_violations": found.violations[:3],
    }


def rows_of(case: Case, runs: list[Found]) -> list[Figure]:
    name, count = case.name, len(case.planned)
    queues = sum("/" in queue.path for queue in case.tenancy.queues)
    figures = [
        Figure(
            f"{name}-wall",
            f"{name}: {count:,} workloads of {queues:,} queues",
            "s",
            TARGET_S[name],
            peers=f"Kueue {PEER_WALL_S[name]:,.0f} s",
            samples=[run.wall_s for run in runs],
            note=f"quota alone: {case.bound_s:.0f} s",
        ),
        Figure(
            f"{name}-rate",
            f"{name}: admitted a second",
            "",
            count / TARGET_S[name],
            at_most=False,
            peers=f"Kueue {count / PEER_WALL_S[name]:.1f}",
            samples=[run.admitted / run.wall_s for run in runs],
        ),
        *(
            Figure(
                f"{name}-wait-{kind}",
                f"{name}: mean time to admission, {kind}",
                "s",
                peer,
                peers=f"Kueue {peer:,.1f} s",
                samples=[mean(run.waits_s[kind]) for run in runs],
            )
            for kind, peer in PEER_WAIT_S[name].items()
        ),
        Figure(
            f"{name}-violations",
            f"{name}: violations",
            "",
            0,
            samples=[float(len(run.violations)) for run in runs],
            note=f"{median(run.evicted for run in runs):.0f} evicted",
        ),
    ]
    return figures


if __name__ == "__main__":
    main()
