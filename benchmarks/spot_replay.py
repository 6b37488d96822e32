"""Deadlines on spot, replayed over public availability traces: what each policy costs, in % of on-demand.

    python benchmarks/spot_replay.py [--json FILE] [--windows N] [--half even|odd] [--fractions 0.6,0.8,0.9]
        [--only WORD] [--jobs N] [--page docs/spot-benchmarks.md]

A job of 24 hours must be done within 24 h / fraction. Spot costs a third of on-demand, every start of
machines takes 12 minutes in which nothing is done. Each series is cut at random starts (fixed seeds); a
series that is too short for one deadline is left out of it. Time goes in steps of two minutes; spot counts as
there in a step if it was there all the time.

    on-demand       from the start to the end: 100 % and one start
    greedy          spot whenever it is there, until only on-demand makes it; then on-demand to the end
    uniform         uniform progress as published (Wu et al., NSDI 2024), with hysteresis and safety net; it
                    is told at every step whether spot is there
    argosy          `planning.deadline.next_step`, the function that plans and controllers use: it only
                    knows what it asked for, and does not ask again before it makes sense
    best            the best in hindsight: a dynamic programme over the series

`--half` takes every second window: constants of the policy are chosen on the even ones, judged on the odd.

`--page` writes summary and tables into that page.

Series of one folder, date and machine are also replayed together ("zones"): a job may use any of them.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import resource
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from statistics import fmean

import msgspec
import numpy as np
from machine import write
from numpy.typing import NDArray

from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Resources
from argosy.model.scheduling import Scheduling
from argosy.model.task import Task
from argosy.planning.availability import Memory, Seen, note_spot
from argosy.planning.deadline import Terms, next_step
from argosy.planning.spot_policy import Step

TRACES = Path(os.environ.get("ARGOSY_TRACES", Path(__file__).resolve().parents[2] / "shared" / "traces"))
STEP_S = 120
WORK = 24 * 3600 // STEP_S
CHANGEOVER = 720 // STEP_S
SHARE = 1 / 3
STEADY_MICRO_USD = 3_000_000
NOTHING, STEADY, SPOT = -2, -1, 0  # what runs; 0, 1, ... are zones of spot
FRACTIONS = (0.6, 0.8, 0.9)
HALVES = ("even", "odd")
POLICIES = ("greedy", "uniform", "argosy", "best")

There = NDArray[np.bool_]  # by zone and step


class Run(msgspec.Struct):
    """One job of one window: what it has done and paid."""

    there: There
    limit: int  # steps until the deadline
    at: int = 0
    done: int = 0
    on: int = NOTHING
    starting: int = 0
    paid: float = 0.0
    changes: int = 0

    @property
    def left(self) -> int:
        return self.limit - self.at

    @property
    def work(self) -> int:
        return WORK - self.done

    def spot_now(self) -> int:
        """The first zone that has spot; NOTHING: none."""
        zones = np.flatnonzero(self.there[:, min(self.at, self.there.shape[1] - 1)])
        return int(zones[0]) if len(zones) else NOTHING

    def is_there(self, zone: int) -> bool:
        return bool(self.there[zone, min(self.at, self.there.shape[1] - 1)])

    def take(self, what: int) -> None:
        if what != self.on:
            self.on, self.starting, self.changes = what, CHANGEOVER, self.changes + 1

    def step(self) -> None:
        self.at += 1
        if self.on == NOTHING:
            return
        self.paid += 1.0 if self.on == STEADY else SHARE
        if self.starting:
            self.starting -= 1
        else:
            self.done += 1


Chooser = Callable[[Run], int]


def play(chooser: Chooser, there: There, limit: int) -> Run:
    run = Run(there, limit)
    while run.done < WORK and run.at < 2 * limit:
        if run.on >= SPOT and not run.is_there(run.on):
            run.on = NOTHING
        run.take(chooser(run))
        run.step()
    return run


def greedy() -> Chooser:
    forced = False

    def choose(run: Run) -> int:
        nonlocal forced
        forced = forced or (run.on < SPOT and run.left < run.work + 2 * CHANGEOVER + 1)
        if forced:
            return STEADY
        return run.on if run.on >= SPOT else run.spot_now()

    return choose


def uniform() -> Chooser:
    """On spot: stay. Idle: spot if it is there, on-demand if behind the line. On demand: stay until two
    changeovers ahead of it. Idle without slack: on-demand to the end."""
    forced = False

    def choose(run: Run) -> int:
        nonlocal forced
        if run.on >= SPOT and not forced:
            return run.on
        forced = forced or (run.on == NOTHING and run.left < run.work + 2 * CHANGEOVER + 1)
        if forced:
            return STEADY
        if run.on == STEADY:
            ahead = run.done >= (run.at + 2 * CHANGEOVER) * WORK / run.limit
            return run.spot_now() if ahead else STEADY
        spot = run.spot_now()
        if spot == NOTHING and run.done < run.at * WORK / run.limit:
            return STEADY
        return spot

    return choose


class Argosy:
    """What a managed job does, by the same function: it knows orders, grants, refusals and losses."""

    def __init__(self, zones: int, limit: int) -> None:
        self.spots = [_choice(Capacity.SPOT, zone) for zone in range(zones)]
        self.steady = _choice(Capacity.ON_DEMAND, -1)
        self.task = Task(
            deadline_s=limit * STEP_S, estimated_s=WORK * STEP_S, scheduling=Scheduling(checkpoint=True)
        )
        self.memory = Memory()
        self.before = NOTHING
        self.again_ms = 0

    def __call__(self, run: Run) -> int:
        now_ms = run.at * STEP_S * 1000
        if self.before >= SPOT and run.on == NOTHING:
            self._saw(self.before, Seen.LOST, now_ms)
        elif now_ms < self.again_ms:
            return run.on
        self.before = self._decide(run, now_ms)
        return self.before

    def _decide(self, run: Run, now_ms: int) -> int:
        while True:
            step = next_step(
                (*self.spots, self.steady),
                self.task,
                memory=self.memory,
                now_ms=now_ms,
                submitted_ms=0,
                done_fraction=run.done / WORK,
                held=self._held(run.on),
                terms=Terms(changeover_s=CHANGEOVER * STEP_S, unsaved_s=0, react_s=STEP_S),
            )
            assert step is not None
            self.again_ms = step.again_ms
            if not step.choices:
                return run.on
            if step.step is Step.STEADY:
                return STEADY
            zone = self.spots.index(step.choices[0])
            if run.is_there(zone):
                self._saw(zone, Seen.GRANTED, now_ms)
                return zone
            self._saw(zone, Seen.REFUSED, now_ms)

    def _held(self, on: int) -> Choice | None:
        return None if on == NOTHING else self.steady if on == STEADY else self.spots[on]

    def _saw(self, zone: int, what: Seen, now_ms: int) -> None:
        self.memory = note_spot(self.memory, self.spots[zone], what, now_ms)


def _choice(capacity: Capacity, zone: int) -> Choice:
    price = STEADY_MICRO_USD if zone < 0 else round(STEADY_MICRO_USD * SHARE) + zone
    offer = Offer(
        provider="cloud",
        region="r",
        zone=f"z{zone}",
        shape=Shape(instance_type="gpu"),
        capacity=capacity,
        price_micro_usd=price,
    )
    return Choice(offer=offer, resources=Resources(), cpus_milli=0, memory_bytes=0, price_micro_usd=price)


def best(there: There, limit: int) -> float:
    """Steps of on-demand that the cheapest way costs for who knows the future. Of several zones a change
    between two that both have spot costs nothing, so it is a bound."""
    spot_there = there.any(axis=0)
    never = 1e9
    idle = np.full(WORK + 1, never)
    spot = np.full((CHANGEOVER + 1, WORK + 1), never)
    steady = np.full((CHANGEOVER + 1, WORK + 1), never)
    for cost in (idle, spot.T, steady.T):
        cost[0] = 0
    for at in range(limit - 1, -1, -1):
        on = _worked(steady, 1.0)
        taken = _worked(spot, SHARE) if spot_there[at] else np.full_like(spot, never)
        taken[:, 0] = 0
        idle = np.minimum(idle, np.minimum(on[CHANGEOVER], taken[CHANGEOVER]))
        spot, steady = np.minimum(taken, idle), np.minimum(on, idle)
    return float(idle[WORK])


def _worked(cost: NDArray[np.float64], price: float) -> NDArray[np.float64]:
    """By steps of the changeover that are left, and of work: a step later."""
    found = np.empty_like(cost)
    found[1:] = price + cost[:-1]
    found[0, 1:] = price + cost[0, :-1]
    found[:, 0] = 0
    return found


# --- series ----------------------------------------------------------------------------------------


def load(folder: Path) -> dict[str, There]:
    """Every series, and those of one folder and machine together."""
    found: dict[str, There] = {}
    together: dict[str, list[There]] = {}
    for path in sorted(folder.rglob("*.json")):
        data = json.loads(path.read_text())
        gap_s = data["metadata"]["gap_seconds"]
        there = _resampled(np.array([count > 0 for count in data["data"]], dtype=np.bool_), gap_s)
        name = f"{path.parent.name} {path.stem}"
        found[f"{path.relative_to(folder).parts[0]} {name}"] = there
        machine = path.stem.split("_", 1)[1]
        together.setdefault(f"zones {path.parent.name} {machine}", []).append(there)
    for name, several in together.items():
        if len(several) > 1:
            steps = min(each.shape[1] for each in several)
            found[name] = np.concatenate([each[:, :steps] for each in several])
    return found


def _resampled(ticks: There, gap_s: int) -> There:
    """Steps of `STEP_S`: there if it was there in every tick that a step touches."""
    steps = len(ticks) * gap_s // STEP_S
    begin = np.arange(steps) * STEP_S
    there: There = np.ones(steps, np.bool_)
    for second in range(0, STEP_S, min(gap_s, STEP_S)):
        there &= np.take(ticks, (begin + second) // gap_s, mode="clip")
    there &= np.take(ticks, (begin + STEP_S - 1) // gap_s, mode="clip")
    return there.reshape(1, -1)


def windows(name: str, there: There, limit: int, count: int, half: str = "") -> Iterator[There]:
    """The same ones whatever is measured; of one `half` every second of them."""
    room = there.shape[1] - limit
    if room < 0:
        return
    dice = random.Random(f"{name} {limit}")
    starts = sorted(dice.sample(range(room + 1), min(count, room + 1)))
    for start in starts[HALVES.index(half) :: 2] if half else starts:
        yield there[:, start : start + limit]


# --- figures ---------------------------------------------------------------------------------------


class Row(msgspec.Struct):
    """One series and fraction: mean cost in % of on-demand without a start, by policy."""

    series: str
    fraction: float
    windows: int
    cost: dict[str, float]
    late: dict[str, int]
    changes: float

    @property
    def against_best(self) -> float:
        return self.cost["argosy"] / self.cost["best"]

    @property
    def worse(self) -> bool:
        return self.cost["argosy"] > self.cost["uniform"] + 1e-9


def measure(name: str, there: There, fraction: float, count: int, half: str) -> Row | None:
    limit = math.floor(WORK / fraction)
    cost: dict[str, list[float]] = {policy: [] for policy in POLICIES}
    late = dict.fromkeys(POLICIES[:3], 0)
    changes = []
    for window in windows(name, there, limit, count, half):
        choosers: dict[str, Chooser] = {
            "greedy": greedy(),
            "uniform": uniform(),
            "argosy": Argosy(len(there), limit),
        }
        for policy, chooser in choosers.items():
            run = play(chooser, window, limit)
            cost[policy].append(run.paid)
            late[policy] += run.at > limit
        changes.append(run.changes)
        cost["best"].append(best(window, limit))
    if not changes:
        return None
    mean = {policy: 100 * fmean(values) / WORK for policy, values in cost.items()}
    return Row(name, fraction, len(changes), mean, late, fmean(changes))


def render(rows: Sequence[Row]) -> str:
    lines = [
        "| series | job / deadline | greedy | uniform | Argosy | best in hindsight | Argosy / best |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        costs = [f"{row.cost[policy]:.1f}" for policy in POLICIES]
        costs[2] = f"**{costs[2]}**" + (" (above uniform)" if row.worse else "")
        cells = [row.series, f"{row.fraction:g}", *costs, f"{row.against_best:.2f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def summary(rows: Sequence[Row]) -> dict[str, float]:
    found: dict[str, float] = {}
    for policy in POLICIES[:3]:
        found[f"{policy} / best"] = fmean(row.cost[policy] / row.cost["best"] for row in rows)
        found[f"{policy} late"] = sum(row.late[policy] for row in rows)
    found["series above uniform"] = sum(row.worse for row in rows)
    found["rows"] = len(rows)
    return found


def render_summary(single: Sequence[Row], zones: Sequence[Row]) -> str:
    lines = [
        "| | greedy / best | uniform / best | Argosy / best | Argosy above uniform | late |",
        "|---|---|---|---|---|---|",
    ]
    for title, rows in (
        ("one zone", single),
        ("all zones of a machine", zones),
        ("together", [*single, *zones]),
    ):
        if not rows:
            continue
        told = summary(rows)
        jobs = sum(row.windows for row in rows)
        lines.append(
            f"| {title} | {told['greedy / best']:.3f} | {told['uniform / best']:.3f} "
            f"| **{told['argosy / best']:.3f}** | {told['series above uniform']:.0f} of {len(rows)} "
            f"| {told['argosy late']:.0f} of {jobs} |"
        )
    above = [row.cost["argosy"] - row.cost["uniform"] for row in [*single, *zones] if row.worse]
    if above:
        lines += [
            "",
            f"Uniform progress is cheaper in {len(above)} rows, by {max(above):.1f} points at most.",
        ]
    return "\n".join(lines)


def write_page(page: Path, rows: Sequence[Row]) -> None:
    """Between its marks: `<!-- NAME -->` and `<!-- end -->`."""
    single = [row for row in rows if not row.series.startswith("zones")]
    zones = [row for row in rows if row.series.startswith("zones")]
    text = page.read_text(encoding="utf-8")
    for name, table in (
        ("summary", render_summary(single, zones)),
        ("one zone", render(single)),
        ("zones", render(zones)),
    ):
        before, mark, rest = text.partition(f"<!-- {name} -->\n")
        text = before + mark + table + "\n" + rest[rest.index("<!-- end -->") :]
    page.write_text(text, encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--page", type=Path)
    parser.add_argument("--windows", type=int, default=24)
    parser.add_argument("--half", choices=HALVES, default="")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--fractions", default=",".join(f"{each:g}" for each in FRACTIONS))
    parser.add_argument("--only", default="")
    given = parser.parse_args()
    folder = TRACES / "spot"
    if not folder.is_dir():
        raise SystemExit(f"no traces: {folder} is not there; set ARGOSY_TRACES")
    asked = [
        (name, there, fraction, given.windows, given.half)
        for name, there in load(folder).items()
        for fraction in map(float, given.fractions.split(","))
        if given.only in name
    ]
    rows = []
    with ProcessPoolExecutor(given.jobs) as pool:
        for row in pool.map(measure, *zip(*asked, strict=True)):
            if row is not None:
                rows.append(row)
                print(render([row]).splitlines()[-1], flush=True)
    print("\n" + render(rows))
    for kind in ("single", "zones"):
        mine = [row for row in rows if row.series.startswith("zones") is (kind == "zones")]
        if mine:
            print(kind, {key: round(value, 3) for key, value in summary(mine).items()})
    print(f"{resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime:.0f} s of CPU time")
    if given.page:
        write_page(given.page, rows)
    write(given.json, summary=summary(rows), rows=msgspec.to_builtins(rows))


if __name__ == "__main__":
    main()
