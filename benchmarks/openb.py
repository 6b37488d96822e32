"""Placement on the openb trace: how much of 6,212 GPUs is in use when too much is asked for. Prints a table,
and JSON with every run.

    python benchmarks/openb.py [--lists default,cpu050] [--seeds 42-51] [--json FILE]

The protocol is that of Weng et al., "Beware of Fragmentation" (USENIX ATC 2023), so that each run stands
beside the published one: the pods of a list are shuffled, drawn again at random until they ask for 130 % of
the GPUs, and submitted one by one; none ends, and one that does not fit is dropped. The same code places them
that places jobs in a pool: `Inventory.find` and `Inventory.take`, with one setting for all lists. What is
typical is told beforehand (the shapes of the list with their counts), as it is there. Traces come from
ARGOSY_TRACES.
"""

from __future__ import annotations

import argparse
import csv
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from statistics import mean, stdev
from typing import TypedDict

from machine import describe, write

from argosy.model.facts import Device
from argosy.scheduler.ask import Ask, Machine, Need
from argosy.scheduler.inventory import Inventory

LISTS = (
    "default",
    "cpu050",
    "cpu100",
    "gpushare40",
    "gpushare80",
    "gpuspec10",
    "gpuspec20",
    "multigpu20",
    "multigpu40",
)
SEEDS = range(42, 52)
DEMAND_PERCENT = 130


class Result(TypedDict):
    list: str
    published_at_130: float
    published_at_100: float
    runs: list[dict[str, float]]


def traces() -> Path:
    """The folder of the traces; says loudly when it is absent."""
    found = Path(os.environ.get("ARGOSY_TRACES", Path(__file__).parents[1] / "../shared/traces"))
    if not (found / "openb").is_dir():
        sys.exit(
            f"openb: NOT MEASURED: there are no traces in {found}; set ARGOSY_TRACES to a folder that has "
            "openb/"
        )
    return found / "openb"


def machines(folder: Path, copies: int = 1, limit: int | None = None) -> list[Machine]:
    with (folder / "openb_node_list_gpu_node.csv").open() as file:
        rows = list(csv.DictReader(file))
    rows = (rows * copies)[:limit]
    return [
        Machine(
            id=f"{row['sn']}-{number // 1213}",
            index=number,
            cpus_milli=int(row["cpu_milli"]),
            memory_bytes=int(row["memory_mib"]) << 20,
            devices=tuple(
                Device(index=index, model=row["model"], memory_bytes=1 << 34)
                for index in range(int(row["gpu"]))
            ),
        )
        for number, row in enumerate(rows)
    ]


def needs(folder: Path, name: str) -> list[Need]:
    """What each pod of a list asks for."""
    with (folder / f"openb_pod_list_{name}.csv").open() as file:
        return [
            Need(
                cpus_milli=int(row["cpu_milli"]),
                memory_bytes=int(row["memory_mib"]) << 20,
                gpu_milli=int(row["num_gpu"]) * (int(row["gpu_milli"]) if int(row["num_gpu"]) == 1 else 1000),
                models=tuple(sorted(filter(None, (row.get("gpu_spec") or "").split("|")))),
            )
            for row in csv.DictReader(file)
        ]


def stream(pods: list[Need], gpus_milli: int, seed: int) -> list[Need]:
    """All pods in a random order, then random ones again, until they ask for more than `DEMAND_PERCENT`."""
    dice = random.Random(seed)
    order = list(pods)
    dice.shuffle(order)
    wanted = gpus_milli * DEMAND_PERCENT // 100
    asked = sum(pod.gpu_milli for pod in order)
    while asked < wanted:
        order.append(dice.choice(pods))
        asked += order[-1].gpu_milli
    return order


def run(nodes: list[Machine], pods: list[Need], seed: int) -> dict[str, float]:
    """Allocation in percent, by what was asked for; unallocated GPUs; and how long it took."""
    inventory = Inventory(nodes)
    inventory.weigh(list(Counter(pods).items()))
    total = inventory.capacity()["gpus"]
    placed = asked = dropped = 0
    at: dict[int, float] = {}
    order = stream(pods, total, seed)
    begun = time.perf_counter()
    for number, need in enumerate(order):
        asked += need.gpu_milli
        found = inventory.find(Ask(id="", needs=(need,)))
        if found is None:
            dropped += 1
        else:
            inventory.take(f"pod-{number}", need, found)
            placed += need.gpu_milli
        for percent in (95, 100, 130):
            if percent not in at and asked * 100 >= total * percent:
                at[percent] = placed * 100 / total
    at.setdefault(130, placed * 100 / total)
    took = time.perf_counter() - begun
    assert inventory.free()["gpus"] == total - placed
    return {
        "seed": seed,
        "at_95": at[95],
        "at_100": at[100],
        "at_130": at[130],
        "unallocated_at_100": total / 1000 * (1 - at[100] / 100),
        "dropped": dropped,
        "decisions": len(order),
        "us_per_decision": took * 1e6 / len(order),
    }


def published(folder: Path, name: str, column: str = "130", policy: str = "FGD") -> list[float]:
    """The allocation of each run of the paper, in percent."""
    with (folder / "fgd_expected" / "analysis_allo_discrete.csv").open() as file:
        return [
            float(row[column])
            for row in csv.DictReader(file)
            if row["workload"] == f"openb_pod_list_{name}" and policy in row["sc_policy"]
        ]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--lists", default=",".join(LISTS))
    parser.add_argument("--seeds", default=f"{SEEDS[0]}-{SEEDS[-1]}")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    folder = traces()
    machine = describe()
    nodes = machines(folder)
    first, _, last = args.seeds.partition("-")
    seeds = range(int(first), int(last or first) + 1)
    print(
        "| list | at 130 % | std | FGD | difference | at 100 % | FGD | unallocated at 100 % | us per "
        "decision |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    results: list[Result] = []
    for name in args.lists.split(","):
        pods = needs(folder, name)
        runs = [run(nodes, pods, seed) for seed in seeds]
        at = [each["at_130"] for each in runs]
        peer, peer_100 = mean(published(folder, name)), mean(published(folder, name, "100"))
        results.append({"list": name, "published_at_130": peer, "published_at_100": peer_100, "runs": runs})
        print(
            f"| {name} | **{mean(at):.2f}** | {stdev(at) if len(at) > 1 else 0:.2f} | {peer:.2f} | "
            f"{mean(at) - peer:+.2f} "
            f"| {mean(e['at_100'] for e in runs):.2f} | {peer_100:.2f} | "
            f"{mean(e['unallocated_at_100'] for e in runs):.1f} "
            f"| {min(e['us_per_decision'] for e in runs):.0f} |",
            flush=True,
        )
    ours = mean(run["at_130"] for each in results for run in each["runs"])
    theirs = mean(each["published_at_130"] for each in results)
    print(f"| all | **{ours:.2f}** | | {theirs:.2f} | {ours - theirs:+.2f} | | | | |")
    write(args.json, machine=machine, lists=results)


if __name__ == "__main__":
    main()
