"""Automatic rollback: how often healthy revisions are rolled back, and how soon bad ones are.

    python benchmarks/rollback.py [--json FILE] [--hours 2000]

Requests of two revisions fail by chance; the new one gets a share of them. `controllers.service.verdict` is
asked every 10 s, as rollouts do; a roll-back ends the run. Simulated, with fixed seeds.
"""

from __future__ import annotations

import argparse
import math
import random
import time
from pathlib import Path
from statistics import median

from machine import write
from msgspec.structs import replace

from argosy.controllers.service.verdict import Outcome, Tally, verdict

LOOK_S = 10
#: (failures of the old one, of the new one, requests per second, share of the new one)
HEALTHY = ((0.01, 0.01, 5, 0.1), (0.01, 0.01, 50, 0.1), (0.002, 0.002, 50, 0.1), (0.05, 0.05, 50, 0.5))
BAD = (
    (0.01, 0.02, 50, 0.1), (0.01, 0.03, 5, 0.1), (0.01, 0.03, 50, 0.1), (0.01, 0.05, 50, 0.1),
    (0.01, 0.2, 50, 0.1), (0.002, 0.01, 50, 0.1),
)  # fmt: skip


def failures(dice: random.Random, requests: int, rate: float) -> int:
    """How many of so many requests fail, by the gaps between failures."""
    count, at = 0, 0
    while True:
        at += int(math.log(1.0 - dice.random()) / math.log1p(-rate)) + 1
        if at > requests:
            return count
        count += 1


def hour(dice: random.Random, old_rate: float, new_rate: float, per_s: int, share: float) -> float:
    """Minutes until it is rolled back; inf: it was not within an hour."""
    old = new = Tally(ready=1)
    for look in range(3600 // LOOK_S):
        mine = round(per_s * LOOK_S * share)
        theirs = per_s * LOOK_S - mine
        new = replace(new, requests=new.requests + mine, errors=new.errors + failures(dice, mine, new_rate))
        old = replace(
            old, requests=old.requests + theirs, errors=old.errors + failures(dice, theirs, old_rate)
        )
        if verdict(old, new, share).outcome is Outcome.BAD:
            return (look + 1) * LOOK_S / 60
    return math.inf


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument(
        "--hours", type=int, default=2000, help="of each healthy case; a tenth of each bad one"
    )
    given = parser.parse_args()
    began, rows = time.process_time(), []
    for case in (*HEALTHY, *BAD):
        rows.append(run(case, given.hours if case in HEALTHY else max(1, given.hours // 10)))
        write(given.json, rows=rows)  # what is there stays there when the rest is not waited for
    print(f"{time.process_time() - began:.0f} s of CPU time")


def run(case: tuple[float, float, int, float], hours: int) -> dict[str, float]:
    old_rate, new_rate, per_s, share = case
    dice = random.Random(repr(case))
    minutes = [hour(dice, *case) for _ in range(hours)]
    found = [each for each in minutes if each < math.inf]
    soon = median(minutes)
    print(
        f"{old_rate:.3f} -> {new_rate:.3f}, {per_s}/s, share {share:.0%}: "
        f"rolled back in {len(found)} of {hours} "
        f"hours ({100 * len(found) / hours:.2f} %), median {soon:.1f} min",
        flush=True,
    )
    return {
        "old": old_rate, "new": new_rate, "per_s": per_s, "share": share, "hours": hours,
        "rolled_back": len(found), "median_min": soon if soon < math.inf else -1.0,
    }  # fmt: skip


if __name__ == "__main__":
    main()
