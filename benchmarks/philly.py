"""Queueing on the Philly trace: the product's pool scheduler in virtual time. Prints a table, and JSON with
every figure.

    python benchmarks/philly.py [--json FILE] [--policies fifo-sum,easy-sum,easy,argosy] [--jobs N] [--gpus N]

15,264 arrivals of 15 virtual clusters in 125 days (Microsoft Philly, from Gavel's repository) on 512 GPUs.
Every event goes through `scheduler.Pool`.

    fifo-sum easy-sum    the study's model, one heap of 512 GPUs without places: strict order of arrival; EASY
    backfill with exact run times fifo easy            the same on 64 nodes of 8 GPUs: ranks have places, a
    job of 8 needs a whole node argosy               64 nodes; jobs go on from checkpoints: attained service,
    preemption, EASY backfill with estimates from the history
                         (of jobs that have ended by then: nothing knows a run time in advance); all else as
                         it is by default
    moving               the same, and running jobs may be moved aside

Each preemption or move costs 5 minutes of work. The wait of a job is its completion time less its run time on
free machines, so what preemption costs counts as waiting.
"""

from __future__ import annotations

import argparse
import csv
import heapq
import json
import os
import sys
import time
from pathlib import Path
from statistics import mean, median

import msgspec
from machine import write
from report import Figure, render_table

from argosy.model.facts import Device
from argosy.model.tenancy import SharePolicy, Tenancy
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.estimate import History, estimate_s, kinds_of, left_s, remember
from argosy.scheduler.pool import Pool

HOUR_MS = 3_600_000
LOST_MS = 300_000
GPUS_PER_NODE = 8
TRACES = Path(os.environ.get("ARGOSY_TRACES", Path(__file__).resolve().parents[2] / "shared" / "traces"))

STRICT = SharePolicy(preemption=False, backfill="none", aging_s=10**9)
EASY = SharePolicy(preemption=False, backfill="easy", aging_s=10**9)
POLICIES = {
    "fifo-sum": STRICT,
    "easy-sum": EASY,
    "fifo": STRICT,
    "easy": EASY,
    "argosy": SharePolicy(attained_service=True),
    "moving": SharePolicy(attained_service=True, consolidation=True),
}
#: Mean completion time and mean wait of jobs with 8 GPUs or more, in hours, as the study measured them
#: (without places).
STUDY = {"fifo-sum": (102.3, 50.3), "easy-sum": (88.5, 44.3)}
COMPLETION_H = 57.0  # what the product is to reach, with places
WAIT_8_H = 44.3


class Job(msgspec.Struct):
    id: str
    user: str
    kind: str
    gpus: int
    arrival_ms: int
    length_ms: int
    left_ms: int = 0
    started_ms: int = -1
    ended_ms: int = -1
    attained: int = 0
    preempted: int = 0
    runs: int = 0  # which start a planned end belongs to


def load(count: int | None) -> list[Job]:
    path = TRACES / "philly" / "philly_vc_jobs_seed0.csv"
    if not path.is_file():
        sys.exit(f"SKIPPED: no trace at {path}; ARGOSY_TRACES names the folder of the traces")
    with path.open() as lines:
        rows = list(csv.DictReader(lines))
    jobs = []
    for number, row in enumerate(rows):
        length_ms = max(1000, round(float(row["v100_duration_s"]) * 1000))
        jobs.append(
            Job(
                id=f"job-{number:05d}", user=row["vc"], kind=row["job_type"], gpus=int(row["gpus"]),
                arrival_ms=round(float(row["arrival_s"]) * 1000), length_ms=length_ms, left_ms=length_ms,
            )
        )  # fmt: skip
    jobs.sort(key=lambda job: (job.arrival_ms, job.id))
    return jobs[:count]


def machines(gpus: int, *, places: bool) -> list[Machine]:
    if not places:  # GPUs are then a number like CPUs
        return [Machine(id="heap", cpus_milli=gpus * 1000)]
    return [
        Machine(
            id=f"node-{index:03d}", index=index, cpus_milli=64_000, memory_bytes=512 << 30,
            devices=tuple(Device(index=i, model="V100", memory_bytes=16 << 30) for i in range(GPUS_PER_NODE)),
        )
        for index in range(gpus // GPUS_PER_NODE)
    ]  # fmt: skip


def need_of(gpus: int, *, places: bool) -> tuple[Need, int]:
    """The gang: nodes as full as they can be, all ranks alike."""
    if not places:
        return Need(cpus_milli=gpus * 1000), 1
    nodes = max(1, -(-gpus // GPUS_PER_NODE))
    while gpus % nodes:
        nodes += 1
    return Need(gpu_milli=gpus // nodes * 1000), nodes


class Run:
    """One policy over the whole trace."""

    def __init__(self, name: str, jobs: list[Job], gpus: int) -> None:
        self.exact = name.startswith("easy")
        self.places = not name.endswith("-sum")
        self.policy = POLICIES[name]
        self.jobs = {job.id: msgspec.structs.replace(job) for job in jobs}
        self.pool = Pool(Tenancy(policy=self.policy), machines=machines(gpus, places=self.places))
        self.history = History()
        self.events: list[tuple[int, int, str, int]] = []  # time, kind (0 end, 1 arrival, 2 look), job, run
        self.cycles: list[float] = []
        self.moves = 0

    def ask(self, job: Job) -> Ask:
        need, nodes = need_of(job.gpus, places=self.places)
        if self.exact:
            estimate: int | None = -(-job.left_ms // 1000)
        elif self.policy.preemption:
            guess = estimate_s(self.history, self.kinds(job), urgency=3)
            assert guess is not None
            estimate = left_s(guess, (job.length_ms - job.left_ms) // 1000)
        else:
            estimate = None
        return Ask(
            id=job.id,
            needs=(need,),
            num_nodes=nodes,
            queue="philly",
            submitted_ms=job.arrival_ms,
            preemptible=self.policy.preemption,
            checkpoint=self.policy.preemption,
            estimate_s=estimate,
            attained=job.attained,
            evictions=job.preempted,
        )

    def kinds(self, job: Job) -> tuple[str, ...]:
        return kinds_of(user=job.user, name=job.kind, gpu_milli=job.gpus * 1000)

    def play(self) -> None:
        events = self.events
        events += [(job.arrival_ms, 1, job.id, 0) for job in self.jobs.values()]
        heapq.heapify(events)
        look_ms: int | None = None
        while events:
            now = events[0][0]
            while events and events[0][0] == now:
                _, kind, job_id, run = heapq.heappop(events)
                if kind == 0:
                    self.end(self.jobs[job_id], run, now)
                elif kind == 1:
                    self.pool.submit(self.ask(self.jobs[job_id]))
                elif look_ms == now:
                    look_ms = None
            wake = self.look(now)
            if wake is not None and (look_ms is None or wake < look_ms):
                look_ms = wake
                heapq.heappush(events, (wake, 2, "", 0))

    def end(self, job: Job, run: int, now: int) -> None:
        if job.runs != run or job.started_ms < 0:
            return  # it was preempted before
        job.ended_ms = now
        job.started_ms = -1
        self.pool.ended(job.id)
        self.history = remember(self.history, self.kinds(job), -(-job.length_ms // 1000))

    def look(self, now: int) -> int | None:
        """Cycles until nothing changes: who must go is gone at once."""
        while True:
            begin = time.perf_counter()
            decision = self.pool.cycle(now)
            self.cycles.append(time.perf_counter() - begin)
            for evict in decision.evictions:
                job = self.jobs[evict.job_id]
                ran = now - job.started_ms
                job.left_ms = min(job.length_ms + LOST_MS, job.left_ms - ran + LOST_MS)
                job.attained += ran * job.gpus * 1000
                job.started_ms = -1
                job.preempted += 1
                self.moves += 1
                self.pool.ended(job.id)
                self.pool.submit(self.ask(job))
            for start in decision.starts:
                job = self.jobs[start.ask_id]
                job.started_ms = now
                job.runs += 1
                heapq.heappush(self.events, (now + job.left_ms, 0, job.id, job.runs))
            if not decision.evictions:
                return decision.wake_ms

    def figures(self) -> dict[str, float]:
        done = list(self.jobs.values())
        assert all(job.ended_ms >= 0 for job in done), "every job ends"
        completion = [(job.ended_ms - job.arrival_ms) / HOUR_MS for job in done]
        waits = [(job.ended_ms - job.arrival_ms - job.length_ms) / HOUR_MS for job in done]
        large = [wait for wait, job in zip(waits, done, strict=True) if job.gpus >= 8]
        ordered = sorted(waits)
        cycles = sorted(self.cycles)
        return {
            "mean_completion_h": mean(completion),
            "median_completion_h": median(completion),
            "mean_wait_h": mean(waits),
            "p95_wait_h": ordered[int(len(ordered) * 0.95)],
            "max_wait_h": ordered[-1],
            "mean_wait_8_h": mean(large) if large else 0.0,
            "preemptions": self.moves,
            "cycles": len(cycles),
            "cycle_p50_ms": cycles[len(cycles) // 2] * 1000,
            "cycle_p99_ms": cycles[int(len(cycles) * 0.99)] * 1000,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--policies", default="fifo-sum,easy-sum,fifo,easy,argosy")
    parser.add_argument("--jobs", type=int)
    parser.add_argument("--gpus", type=int, default=512)
    args = parser.parse_args()

    jobs = load(args.jobs)
    found: dict[str, dict[str, float]] = {}
    for name in args.policies.split(","):
        begin = time.perf_counter()
        run = Run(name, jobs, args.gpus)
        run.play()
        found[name] = {**run.figures(), "wall_s": time.perf_counter() - begin}
        print(name, json.dumps({key: round(value, 3) for key, value in found[name].items()}), file=sys.stderr)

    rows = []
    for name, figures in found.items():
        for key, what, place, ours in (
            ("mean_completion_h", "mean completion time", 0, COMPLETION_H),
            ("mean_wait_8_h", "mean wait of jobs with 8 GPUs or more", 1, WAIT_8_H),
        ):
            study = STUDY.get(name)
            target = ours if study is None else study[place] * 1.05
            peers = "" if study is None else f"{study[place]} h in the study"
            note = (
                ""
                if study is not None or name in ("argosy", "moving")
                else "no target is its own: for comparison"
            )
            rows.append(
                Figure(
                    f"{name}-{key}",
                    f"{name}: {what}",
                    "h",
                    target,
                    peers=peers,
                    samples=[figures[key]],
                    note=note,
                )
            )
    print(render_table(rows))
    write(args.json, jobs=len(jobs), gpus=args.gpus, policies=found)


if __name__ == "__main__":
    main()
