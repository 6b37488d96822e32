"""The cost of one incremental cycle as a pool grows, in two mixes. Prints a table, and JSON.

    python benchmarks/pool_growth.py [--nodes 100,300,512,1000,3000] [--mixes whole,mixed] [--cycles 120]
                                     [--json FILE] [--profile]

Nodes have 8 GPUs. Ten jobs per node are submitted, which asks for more than twice what there is, to one queue
per ten nodes. Between two cycles ten seconds pass, one job in a hundred of those that run ends (ten at least)
and as many are submitted. CPU time of the process is measured, for telling the pool and for the cycle
together; the cold cycle and the first five are shown apart.

    whole    whole GPUs: 1, 2, 4 or 8, and gangs of 2 or 4 nodes of 8
    mixed    also halves and quarters of a GPU, MIG slices on a third of the nodes, gangs within a rack,
             ranks on nodes of their own, CPU jobs, two models
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import os
import pstats
import random
import time
from pathlib import Path

from machine import write

from argosy.model.facts import Device
from argosy.model.scheduling import Isolation
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.pool import Pool

NODES = (100, 300, 512, 1000, 3000)
MIXES = ("whole", "mixed")
TARGET_S = {"p50": 0.03, "p99": 0.15}
WARM = 5
GIB = 1 << 30


def machines(count: int, mix: str) -> list[Machine]:
    return [
        Machine(
            id=f"node-{n:05}",
            index=n,
            cpus_milli=128_000,
            memory_bytes=1024 * GIB,
            devices=tuple(
                Device(
                    index=i,
                    model="A100" if mix == "mixed" and n % 2 else "H100",
                    memory_bytes=80 * GIB,
                    numa=i // 4,
                )
                for i in range(8)
            ),
            sharing=("mps", "mig") if mix == "mixed" and n % 3 == 0 else ("mps",),
            domains=(f"block-{n // 160}", f"rack-{n // 16}") if mix == "mixed" else (),
        )
        for n in range(count)
    ]


WHOLE = ((1, 1, 40), (2, 1, 20), (4, 1, 15), (8, 1, 15), (8, 2, 6), (8, 4, 4))


def job(number: int, count: int, mix: str, dice: random.Random) -> Ask:
    gpus, ranks, _ = dice.choices(WHOLE, [each[2] for each in WHOLE])[0]
    milli, more, models = gpus * 1000, {}, ()
    isolation = Isolation.NONE
    if mix == "mixed":
        sort = dice.random()
        models = dice.choice(((), (), ("H100",), ("A100",)))
        if sort < 0.3:
            milli, ranks = dice.choice((250, 500)), 1
        elif sort < 0.4:
            milli, ranks, isolation = dice.choice((125, 250, 500)), 1, Isolation.HARDWARE
        elif sort < 0.45:
            milli, ranks, models = 0, 1, ()
        elif sort < 0.55 and ranks > 1:
            more = {"required": "rack"}
        elif sort < 0.6 and ranks > 1:
            more = {"preferred": "rack", "spread": "node"}
    length_s = int(600 * 2 ** (8 * dice.random()))
    return Ask(
        id=f"job-{number:06}",
        number=number,
        submitted_ms=number,
        needs=(
            Need(
                cpus_milli=4000 * max(1, gpus),
                memory_bytes=8 * GIB * max(1, gpus),
                gpu_milli=milli,
                models=models,
                isolation=isolation,
            ),
        ),
        num_nodes=ranks,
        queue=f"q{number % max(1, count // 10)}",
        estimate_s=length_s if dice.random() < 0.7 else None,
        **more,  # type: ignore[arg-type]
    )


def measure(count: int, mix: str, cycles: int, profile: bool = False) -> dict[str, object]:
    dice = random.Random(count)
    pool = Pool(machines=machines(count, mix))
    number = 10 * count
    for n in range(number):
        pool.submit(job(n, count, mix, dice))
    begun = time.process_time()
    decision = pool.cycle(number)
    cold = time.process_time() - begun
    running = [start.ask_id for start in decision.starts]
    gc.collect()
    gc.freeze()  # as the server does with what lives
    samples, started, reserved = [], 0, 0
    profiler = cProfile.Profile() if profile else None
    for turn in range(1, cycles + 1):
        changes = max(10, len(running) // 100)
        gone = set(dice.sample(running, changes))
        running = [each for each in running if each not in gone]
        new = [job(number + n, count, mix, dice) for n in range(changes)]
        number += changes
        if profiler is not None and turn > WARM:
            profiler.enable()
        begun = time.process_time()
        for job_id in sorted(gone):
            pool.ended(job_id)
        for ask in new:
            pool.submit(ask)
        decision = pool.cycle(number + turn * 10_000)
        samples.append(time.process_time() - begun)
        if profiler is not None:
            profiler.disable()
        running += (start.ask_id for start in decision.starts)
        started += len(decision.starts)
        reserved += len(decision.reservations)
    if profiler is not None:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(45)
    has, free = pool.inventory.capacity()["gpus"], pool.inventory.free()["gpus"]
    first, warm = samples[:WARM], sorted(samples[WARM:])
    return {
        "nodes": count,
        "mix": mix,
        "cold_s": round(cold, 3),
        "first_s": [round(each, 4) for each in first],
        "p50_s": round(warm[len(warm) // 2], 4),
        "p99_s": round(warm[len(warm) * 99 // 100], 4),
        "max_s": round(warm[-1], 4),
        "in_use_percent": round(100 * (1 - free / has), 2),
        "started": started,
        "reservations": round(reserved / cycles, 1),
        "cycles": cycles,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nodes", default=",".join(map(str, NODES)))
    parser.add_argument("--mixes", default=",".join(MIXES))
    parser.add_argument("--cycles", type=int, default=120)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--profile", action="store_true")
    args = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"load {load:.2f} when it began; CPU seconds of a cycle, target p50 0.03, p99 0.15\n")
    print("| nodes | mix | p50 | p99 | max | cold | GPUs in use | started | reservations |")
    print("|---|---|---|---|---|---|---|---|---|")
    rows = []
    for mix in args.mixes.split(","):
        for count in map(int, args.nodes.split(",")):
            row = measure(count, mix, args.cycles, args.profile)
            rows.append(row)
            print(
                f"| {count:,} | {mix} | **{row['p50_s']}** | {row['p99_s']} | {row['max_s']} | "
                f"{row['cold_s']} | {row['in_use_percent']} % | {row['started']} | {row['reservations']} |",
                flush=True,
            )
    write(args.json, load=load, rows=rows)


if __name__ == "__main__":
    main()
