"""Launch and exec on a real Slurm of this machine, beside the floor `srun echo`. Prints a table; --json
keeps samples.

    python benchmarks/launch_slurm.py [--runs 15] [--nodes 4] [--json FILE]

Needs root and the packages slurmctld, slurmd, slurm-client and munge. A batch job of Slurm starts on a tick
of its controller, once a second: the first line of a launch holds half a second of that on average, `srun`
none. A launch begins at any moment between two ticks (seeded): right after a job has ended, as it would be
here without that, is right after a tick, and the worst of all. Processor time is that of the command, of the
server with the commands of Slurm that it runs, and of the agent on the node; Slurm's daemons are not counted.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from machine import cpu_s, describe, environ, write
from report import Figure, render_table

from argosy.testing.slurm_cluster import SlurmCluster, what_is_missing

ARGOSY = Path(sys.executable).parent / "argosy"


class Bench:
    """A server of its own beside a Slurm of its own."""

    def __init__(self, nodes: int) -> None:
        self.slurm = SlurmCluster(nodes=nodes)
        self._folder = tempfile.TemporaryDirectory(
            prefix="argosy-bench-", dir="/tmp", ignore_cleanup_errors=True
        )
        self.env = {
            **{name: value for name, value in environ().items() if not name.startswith("ARGOSY_")},
            **self.slurm.environ,
            "ARGOSY_HOME": f"{self._folder.name}/state",
            "ARGOSY_INFRA": "slurm",
            "PATH": f"{ARGOSY.parent}:{self.slurm.environ['PATH']}",
            "NO_COLOR": "1",
        }
        self.argosy("server", "start")
        self.server = int(json.loads(self.argosy("server", "status", "--json"))["health"]["pid"])
        self.argosy("gpus", "--infra", "slurm")

    def argosy(self, *words: str) -> str:
        done = subprocess.run(
            [ARGOSY, *words], env=self.env, capture_output=True, text=True, timeout=120, check=False
        )
        return done.stdout

    def first_line(self, words: Sequence[str]) -> tuple[float, float]:
        """Seconds until the marker comes out of a command, and processor seconds until it has ended."""
        own_s, server_s, agents = children_s(), cpu_s(self.server, with_ended=True), self._agents()
        began = time.perf_counter()
        with subprocess.Popen(words, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
            assert child.stdout is not None
            seen = b""
            while b"first-line" not in seen:
                data = os.read(child.stdout.fileno(), 4096)
                if not data:
                    raise RuntimeError(seen.decode(errors="replace") + self.slurm.log())
                seen += data
            line_s = time.perf_counter() - began
            while os.read(child.stdout.fileno(), 4096):
                pass
        after = self._agents()
        agents_s = sum(after.values()) - sum(agents.get(pid, 0.0) for pid in after)
        return line_s, children_s() - own_s + cpu_s(self.server, with_ended=True) - server_s + agents_s

    def _agents(self) -> dict[int, float]:
        """Processor time of processes that jobs run."""
        found = {}
        for pid in self.slurm.processes():
            try:
                if b"SLURM_JOB_ID=" in Path(f"/proc/{pid}/environ").read_bytes():
                    found[pid] = cpu_s(pid, with_ended=True)
            except OSError:
                pass
        return found

    def close(self) -> None:
        self.argosy("down", "--all", "--yes")
        self.argosy("server", "stop")
        self.slurm.stop()
        self._folder.cleanup()


def children_s() -> float:
    """Processor time of this process's children that have ended."""
    spent = os.times()
    return spent.children_user + spent.children_system


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--nodes", type=int, default=4)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if missing := what_is_missing():
        raise SystemExit(missing)
    peers = "SkyPilot: 27.6 s, 36 CPU-s"
    floor = Figure("floor", "floor: `srun echo`, first line", "s", 0.24, peers="")
    launch = Figure("launch", "launch: first line", "s", 1.5, peers=peers)
    launch_cpu = Figure("launch-cpu", "launch: processor time", "CPU-s", 1.5, peers=peers)
    run = Figure("exec", "exec: first line", "s", 0.5, peers="SkyPilot: 7.2 s, 13.2 CPU-s")
    run_cpu = Figure("exec-cpu", "exec: processor time", "CPU-s", 1.5, peers="SkyPilot: 13.2 CPU-s")
    figures = [floor, launch, launch_cpu, run, run_cpu]
    machine = describe()
    moments = random.Random(options.seed)
    bench = Bench(options.nodes)
    try:
        for number in range(options.runs + 1):
            words = ["srun", "-n1", "--mem=10", "echo", "first-line"]
            floor_s, _ = bench.first_line(words)
            name = f"b{number}"
            time.sleep(moments.random())
            place = ("--infra", "slurm/lab/low", "--cpus", "1", "--memory", "0.1")
            line_s, cpu_s = bench.first_line(
                [str(ARGOSY), "launch", "-y", "-c", name, *place, "--", "echo first-line"]
            )
            exec_s, exec_cpu_s = bench.first_line([str(ARGOSY), "exec", name, "--", "echo first-line"])
            bench.argosy("down", "-y", name)
            bench.slurm.until(lambda: not bench.slurm.jobs(), "the job has ended")
            if number:  # the first copies the agent to the cluster
                pairs = zip(figures, (floor_s, line_s, cpu_s, exec_s, exec_cpu_s), strict=True)
                for figure, value in pairs:
                    figure.samples.append(round(value, 3))
    finally:
        bench.close()
    print(render_table(figures))
    print(f"\nload when it began: {machine['load_1m']}; median launch / floor: "
          f"{median(launch.samples) / median(floor.samples):.1f}")  # fmt: skip
    rows = [{"key": each.key, "unit": each.unit, "samples": each.samples} for each in figures]
    write(options.json, machine=machine, figures=rows)


if __name__ == "__main__":
    main()
