"""The pool scheduler at size: 10,000 nodes, about 51,000 GPUs, 100,000 jobs that wait. Prints a table, and
JSON with every sample.

    python benchmarks/pool_scale.py [--runs N] [--json FILE] [--rows alone,cycles,submits]

Nodes and jobs have the shapes of the openb trace (ARGOSY_TRACES): its nodes eight times over, its default
list drawn at random until 100,000 wait, which asks for 145 % of the GPUs. Each row runs in a process of its
own. *Cold* is one `Pool.cycle` over everything, from empty books to the last decision. *Incremental*: 100
jobs have ended and 100 have been submitted since the last cycle, and the pool decides again; at last
everything that runs on 100 nodes ends at once. *Submit to decision*: one job is submitted to 1,000 nodes with
free capacity. *Alone* is the inventory without the pool: the same jobs in the order of their number.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from statistics import median

import openb
from machine import describe, head

from argosy.scheduler.ask import Ask, Machine
from argosy.scheduler.inventory import Inventory

NODES, JOBS, SEED = 10_000, 100_000, 42
CYCLES = 300
ENDS = 100  # jobs that end, and that come, between two cycles
EMPTIED = 10

Samples = dict[str, list[float]]


def asks(count: int, queues: int = 1000) -> list[Ask]:
    dice = random.Random(SEED)
    pods = openb.needs(openb.traces(), "default")
    return [
        Ask(
            id=f"job-{n:06}",
            needs=(dice.choice(pods),),
            number=n,
            submitted_ms=n,
            queue=f"acme/p{n % 20}/u{n % queues}",
        )
        for n in range(count)
    ]


def nodes(count: int) -> list[Machine]:
    return openb.machines(openb.traces(), copies=-(-count // 1213), limit=count)


def memory_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def busy_machines(inventory: Inventory, dice: random.Random) -> list[str]:
    return dice.sample(list(inventory.machines()), 100)


def alone() -> Samples:
    """The inventory by itself; a class that did not fit is not tried again."""
    waiting = asks(JOBS)
    begun = time.perf_counter()
    inventory = Inventory(nodes(NODES))
    made = time.perf_counter()
    used = time.process_time()
    inventory.weigh(list(Counter(ask.needs[0] for ask in waiting).items()))
    blocked: dict[object, int] = {}
    placed, skipped, slowest = 0, 0, 0.0
    for ask in waiting:
        if ask.needs in blocked:
            skipped += 1
            continue
        start = time.perf_counter()
        found = inventory.find(ask)
        if found is None:
            blocked[ask.needs] = inventory.version
        else:
            inventory.take(ask.id, ask.needs[0], found)
            placed += 1
        slowest = max(slowest, time.perf_counter() - start)
    ended = time.perf_counter()
    free, has = inventory.free()["gpus"], inventory.capacity()["gpus"]
    return {
        "books of 10,000 nodes, s": [made - begun],
        "inventory alone, cold, s": [ended - made],
        "inventory alone, cold, processor s": [time.process_time() - used],
        "slowest decision, ms": [slowest * 1000],
        "placed": [placed],
        "skipped by class": [skipped],
        "GPUs allocated, %": [100 * (1 - free / has)],
        "memory, MB": [memory_mb()],
    }


def cycles() -> Samples:
    """A pool: cold, then incremental: `ENDS` jobs have ended and as many have come since the last cycle; at
    last 100 nodes are emptied at once."""
    from argosy.scheduler.pool import Pool

    dice = random.Random(SEED)
    waiting = asks(JOBS + CYCLES * ENDS)
    later = iter(waiting[JOBS:])
    del waiting[JOBS:]
    pool = Pool(machines=nodes(NODES))
    begun = time.perf_counter()
    for ask in waiting:
        pool.submit(ask)
    submitted, used = time.perf_counter(), time.process_time()
    decision = pool.cycle(1)
    cold, cold_cpu = time.perf_counter() - submitted, time.process_time() - used
    has, free = pool.inventory.capacity()["gpus"], pool.inventory.free()["gpus"]
    on: dict[str, set[str]] = {}

    running: set[str] = set()

    def enter(starts: object) -> None:
        for start in starts:  # type: ignore[attr-defined]
            running.add(start.ask_id)
            for placement in start.placements:
                on.setdefault(placement.node_id, set()).add(start.ask_id)

    enter(decision.starts)
    first = len(decision.starts)
    samples, started, emptied = [], [], []
    gc.collect()
    gc.freeze()  # what lives is set aside, as the server does every few minutes
    for now_ms in range(2, 2 + CYCLES + EMPTIED):
        if now_ms < 2 + CYCLES:
            gone = dice.sample(sorted(running), ENDS)
        else:
            gone = sorted(
                {job for node in busy_machines(pool.inventory, dice) for job in on.pop(node, ())} & running
            )
        running -= set(gone)
        start = time.perf_counter()
        for job in gone:
            pool.ended(job)
        for ask in islice(later, ENDS):
            pool.submit(ask)
        decision = pool.cycle(now_ms)
        (samples if now_ms < 2 + CYCLES else emptied).append((time.perf_counter() - start) * 1000)
        started.append(float(len(decision.starts)))
        enter(decision.starts)
    samples.sort()
    return {
        "submit 100,000, s": [submitted - begun],
        "cold pass, s": [cold],
        "cold pass, processor s": [cold_cpu],
        "started": [first],
        "GPUs allocated, %": [100 * (1 - free / has)],
        "incremental, ms": samples,
        "incremental, 100 nodes emptied at once, ms": emptied,
        "incremental p99, ms": [samples[len(samples) * 99 // 100 - 1]],
        "started in each": started,
        "memory, MB": [memory_mb()],
    }


def submits() -> Samples:
    """1,000 nodes, half full: one more job, again and again."""
    from argosy.scheduler.pool import Pool

    pool = Pool(machines=nodes(1000))
    waiting = asks(3000)
    for ask in waiting[:2000]:
        pool.submit(ask)
    pool.cycle(1)
    samples = []
    for number, ask in enumerate(waiting[2000:]):
        start = time.perf_counter()
        pool.submit(ask)
        decision = pool.cycle(2 + number)
        samples.append((time.perf_counter() - start) * 1000)
        assert len(decision.starts) == 1
    samples.sort()
    return {
        "submit to decision, ms": samples,
        "submit to decision p99, ms": [samples[len(samples) * 99 // 100]],
    }


ROWS = {"alone": alone, "cycles": cycles, "submits": submits}
TARGETS = {
    "cold pass, s": 12.0,
    "inventory alone, cold, s": 12.0,
    "incremental p99, ms": 150.0,
    "submit to decision, ms": 20.0,
    "submit to decision p99, ms": 20.0,
    "memory, MB": 400.0,
}


def in_process(row: str) -> Samples:
    """A row in a new process, for its memory."""
    done = subprocess.run([sys.executable, __file__, "--row", row], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{row}: {done.stderr.strip()}")
    found: Samples = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rows", default=",".join(ROWS))
    parser.add_argument("--row", choices=list(ROWS), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.row:
        print(json.dumps(ROWS[args.row]()))
        return
    openb.traces()
    machine = describe()
    print(f"{machine['cpu']}, {machine['cores']} cores, load {os.getloadavg()[0]:.2f} when it began\n")
    print("| what | best of runs | median | target | reached |\n|---|---|---|---|---|")
    about = head(machine)
    rows = []
    for name in args.rows.split(","):
        runs = [in_process(name) for _ in range(args.runs)]
        for what in runs[0]:
            mids = [median(run[what]) for run in runs]
            target = TARGETS.get(what)
            reached = "" if target is None else "yes" if min(mids) <= target else "**no**"
            print(
                f"| {name}: {what} | **{min(mids):,.4g}** | {median(mids):,.4g} | {target or ''} | "
                f"{reached} |",
                flush=True,
            )
            rows.append(
                {
                    "row": name,
                    "what": what,
                    "target": target,
                    "runs": [[round(each, 4) for each in run[what]] for run in runs],
                }
            )
    if args.json:
        lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)  # hundreds of samples to a line
        args.json.write_text(json.dumps(about, indent=1)[:-2] + f',\n "rows": [\n{lines}\n ]\n}}\n')


if __name__ == "__main__":
    main()
