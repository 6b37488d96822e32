"""Runs seeds of the simulation: `python -m argosy.testing.replay SEED` prints the event log of one and what
broke; `python -m argosy.testing.replay FIRST LAST` runs many and prints those that fail, and
`python -m argosy.testing.replay SEED,SEED,...` those that it names. With `--services` users have services.
`python -m argosy.testing.replay --stdin` is asked such words line by line, and answers each with one line of
JSON: the exit status and what would have been printed.
"""

from __future__ import annotations

import contextlib
import gc
import io
import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence

from argosy.testing.harness import Simulation, SimulationFailed


def main(argv: list[str]) -> int:
    named = [int(word) for words in argv if "," in words for word in words.split(",")]
    seeds = named or [int(word) for word in argv if word.lstrip("-").isdigit()]
    if not seeds and argv != ["--stdin"]:
        sys.stderr.write(f"{__doc__}\n")
        return 2
    if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets of text belongs to the seed
        os.environ["PYTHONHASHSEED"] = "0"
        os.execv(sys.executable, [sys.executable, "-m", "argosy.testing.replay", *argv])
    gc.set_threshold(50_000, 20, 50)  # worlds make many objects that live shortly, and few circles
    if not seeds:
        return _asked()
    make: Callable[[int], Simulation] = Simulation
    if "--services" in argv:
        from argosy.testing.sim_services import ServiceSimulation

        make = ServiceSimulation
    if len(seeds) == 1:
        return _one(seeds[0], make)
    return _many(named or range(seeds[0], seeds[1] + 1), make)


def _asked() -> int:
    for line in sys.stdin:
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            try:
                status = main(line.split())
            except Exception:  # noqa: BLE001  whoever asked is to know, and may ask for another seed
                status = 1
                traceback.print_exc(file=said)
        sys.stdout.write(json.dumps([status, said.getvalue()]) + "\n")
        sys.stdout.flush()
    return 0


def _one(seed: int, make: Callable[[int], Simulation]) -> int:
    try:
        outcome, failed = make(seed).run(), ""
    except SimulationFailed as failure:
        outcome, failed = failure.outcome, str(failure)
    sys.stdout.write("\n".join(outcome.log) + "\n")
    sys.stdout.write(
        f"{outcome.faults}\n{outcome.virtual_s:.0f} virtual seconds, {outcome.commits} commits\n"
    )
    sys.stdout.write(failed + "\n" if failed else f"seed {seed}: all laws hold\n")
    return 1 if failed else 0


def _many(seeds: Sequence[int], make: Callable[[int], Simulation]) -> int:
    failures: list[int] = []
    virtual_s, commits, crashes, began_s = 0.0, 0, 0, time.monotonic()
    for seed in seeds:
        try:
            outcome = make(seed).run()
        except SimulationFailed as failure:
            outcome = failure.outcome
            failures.append(seed)
            sys.stdout.write(f"{failure}\n\n")
        virtual_s, commits, crashes = (
            virtual_s + outcome.virtual_s,
            commits + outcome.commits,
            crashes + outcome.crashes,
        )
    sys.stdout.write(
        f"{len(seeds)} seeds, {virtual_s / 3600:.0f} virtual hours, {commits} commits, {crashes} crashes "
        "of servers, "
        f"{time.monotonic() - began_s:.1f} s; {len(failures)} seeds "
        f"fail{': ' + str(failures) if failures else ''}\n"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
