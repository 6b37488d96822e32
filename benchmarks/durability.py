"""What `synchronous = FULL` costs against NORMAL in bulk submission, launch and exec. A table, and JSON with
--json FILE.

    python benchmarks/durability.py [--runs N] [--json FILE]

Each run measures both, one after the other, each with a server and a state folder of its own.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

import machine
from run import SAY_MARK, World

from argosy.model.task import Task

JOBS = 1000
MODES = {"FULL": "", "NORMAL": f"{sys.executable} {Path(__file__).with_name('server_normal.py')}"}


def measure(command: str) -> dict[str, float]:
    """One server: its figures."""
    world = World()
    if command:
        world.env["ARGOSY_SERVER_COMMAND"] = command
    try:
        with world.cluster() as name, world.client() as client:
            found = {
                "launch to the first line, s": world.first_line_s(
                    "launch", "--yes", "--cluster", world.name(), "--", *SAY_MARK
                ),
                "exec to the first line, s": world.first_line_s("exec", name, "--", *SAY_MARK),
            }
            tasks = [Task(name=f"t{i}", run="true") for i in range(JOBS)]
            began = time.perf_counter()
            client.exec(name, tasks)
            found["bulk submission, jobs/s"] = JOBS / (time.perf_counter() - began)
        return found
    finally:
        world.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    samples: dict[str, dict[str, list[float]]] = {mode: {} for mode in MODES}
    about = machine.describe()
    for _ in range(options.runs):
        for mode, command in MODES.items():
            for name, value in measure(command).items():
                samples[mode].setdefault(name, []).append(round(value, 3))
                print(f"{mode:8}{name:32}{value:12,.3f}", file=sys.stderr, flush=True)
    print(f"{'':32}", *(f"{mode:>12}" for mode in MODES))
    for name in samples["FULL"]:
        print(f"{name:32}", *(f"{statistics.median(samples[mode][name]):12,.3f}" for mode in MODES))
    machine.write(options.json, machine=about, samples=samples)


if __name__ == "__main__":
    main()
