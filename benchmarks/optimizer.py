"""Optimizer: whole pipelines, deadlines, failover order. Prints a table, and JSON with every sample.

    python benchmarks/optimizer.py [--runs N] [--json FILE]

Figures are warm and in-process. Pipelines include ranking: the candidates of every stage come from all
shipped prices in all regions, every stage's own. HiGHS (the extra `optimizer`) solves what is no tree.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median

from machine import clocked, timed

from argosy.catalog import Catalog
from argosy.model.offer import Capacity, Choice
from argosy.model.resources import Accelerator, Resources
from argosy.model.units import GIB, Bound
from argosy.planning.availability import Memory, order_for_failover, refusal_of, remember
from argosy.planning.dag import Link, PipelinePlan, Stage, Tariff, candidates_of, plan_pipeline
from argosy.planning.market import cheapest_in_regions, rank
from argosy.planning.objective import Objective
from argosy.planning.outlook import DeadlineAsk, plan_deadline

PEER = "9,600 ms"  # SkyPilot 0.14.1, chain of 4 tasks, 48k AWS rows
HOUR = 3600
NEEDS = (
    (Resources(cpus=Bound(8000)), Resources(cpus=Bound(16000), memory=Bound(64 * GIB))),
    (
        Resources(accelerator=Accelerator(model="L4", milli=1000)),
        Resources(accelerator=Accelerator(model="A10G", milli=1000)),
    ),
    (
        Resources(accelerator=Accelerator(model="A100", milli=8000)),
        Resources(accelerator=Accelerator(model="H100", milli=8000)),
    ),
    (
        Resources(accelerator=Accelerator(model="T4", milli=1000)),
        Resources(accelerator=Accelerator(model="L4", milli=1000)),
    ),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    catalog = Catalog.load()
    offers = len(catalog.market)
    known: dict[tuple[str, str], Tariff] = {}

    def tariffs(provider: str, region: str) -> Tariff:
        if (provider, region) not in known:
            here = f"{provider}/{region}"
            known[provider, region] = Tariff(
                between_micro_usd=catalog.egress_micro_usd_per_gb(here, f"{provider}/elsewhere"),
                outside_micro_usd=catalog.egress_micro_usd_per_gb(here, "internet"),
            )
        return known[provider, region]

    rows: list[dict[str, object]] = []

    def row(what: str, samples: Sequence[float], target: float | None, peer: str = "") -> None:
        rows.append({"what": what, "unit": "ms", "target": target, "peer": peer, "samples": list(samples)})

    def stages(count: int, dice: random.Random) -> list[Stage]:
        found = []
        for n in range(count):
            choices = cheapest_in_regions(NEEDS[n % len(NEEDS)], 1, catalog.market)
            seconds = dice.randint(1, 8) * HOUR
            found.append(Stage(name=f"s{n}", candidates=candidates_of(choices, speeds(seconds))))
        return found

    def chain(objective: Objective) -> PipelinePlan:
        links = [Link(src=f"s{n}", dst=f"s{n + 1}", size_bytes=200 * GIB) for n in range(3)]
        return plan_pipeline(stages(4, random.Random(1)), links, tariffs=tariffs, objective=objective)

    def dag(
        seed: int, *, ranked: list[Stage] | None = None, objective: Objective = Objective.COST
    ) -> PipelinePlan:
        dice = random.Random(seed)
        nodes = stages(20, dice) if ranked is None else ranked
        links = [
            Link(src=f"s{i}", dst=f"s{j}", size_bytes=dice.randint(1, 500) * GIB)
            for i in range(20) for j in range(i + 1, min(20, i + 6)) if dice.random() < 0.35
        ]  # fmt: skip
        return plan_pipeline(nodes, links, tariffs=tariffs, objective=objective)

    row(
        f"chain of 4 tasks, each any_of 2, over {offers:,} offers, with ranking",
        timed(lambda: chain(Objective.COST), args.runs),
        30,
        PEER,
    )
    row("the same for time", timed(lambda: chain(Objective.TIME), args.runs), None)
    methods: dict[str, int] = {}
    samples = []
    for seed in range(max(5, args.runs)):
        started = time.perf_counter()
        plan = dag(seed)
        samples.append((time.perf_counter() - started) * 1000)
        methods[plan.method] = methods.get(plan.method, 0) + 1
    solved = ", ".join(f"{count} by {name}" for name, count in sorted(methods.items()))
    row(f"random DAGs of 20 tasks, each any_of 2, with ranking ({solved})", samples, 300)
    fixed = stages(20, random.Random(0))
    row(
        "the same, ranking done before",
        [clocked(lambda seed=seed: dag(seed, ranked=fixed)) for seed in range(max(5, args.runs))],
        None,
    )  # type: ignore[misc]

    choices = list(rank(NEEDS[2], 1, catalog.market).plan.choices)
    ask = DeadlineAsk(deadline_s=36 * HOUR, estimated_s=24 * HOUR)

    def hazard(choice: Choice) -> float:
        return 0.05

    row(
        f"deadline over {len(choices)} choices",
        timed(lambda: plan_deadline(choices, ask, hazard=hazard), args.runs),
        None,
    )
    memory = Memory()
    for choice in choices[::3]:
        memory = remember(memory, refusal_of(choice, 0))
    spot = sum(choice.offer.capacity is Capacity.SPOT for choice in choices)
    row(
        f"failover order of {len(choices)} choices ({spot} spot) after {len(memory.refusals)} refusals",
        timed(lambda: order_for_failover(choices, memory, 1000), args.runs),
        None,
    )

    print("| what | median | most | target | reached | SkyPilot 0.14.1 |\n|---|---|---|---|---|---|")
    for each in rows:
        values, target = each["samples"], each["target"]
        assert isinstance(values, list)
        figure = median(values)
        reached = "" if target is None else "yes" if figure <= float(str(target)) else "**no**"
        aim = "" if target is None else f"≤ {target} ms"
        print(
            f"| {each['what']} | {figure:.3g} ms | {max(values):.3g} | {aim} | {reached} | {each['peer']} |"
        )
    text = json.dumps({"offers": offers, "rows": rows}, indent=1)
    if args.json:
        args.json.write_text(text + "\n")
    else:
        print(text)


def speeds(seconds: int) -> Callable[[Choice], int]:
    factor = {"H100": 0.4, "A100": 1.0, "L4": 1.2, "A10G": 1.0, "T4": 2.0}
    return lambda choice: round(seconds * factor.get(choice.accelerator or "", 1.0))


if __name__ == "__main__":
    main()
