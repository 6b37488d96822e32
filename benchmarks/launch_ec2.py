"""Launch and recovery on AWS: the fake EC2, whose instances are real hosts that boot in 0.3 s.

    python benchmarks/launch_ec2.py [--runs 5] [--name NAME]

The installed command line, a server of its own, real sshd and agents in namespaces (root). *First line*: from
Enter to the first line that the program prints, less the boot (until the host's sshd listens, measured each
time). *Notice*: from the word of the metadata service to the order of the next machine. *Silent loss*: from a
host's power cut to the event that says so. Wall times mean little on a busy machine: its load is kept with
them, and the processor time of the whole launch (command and server), which load does not change.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from machine import cpu_s, describe, environ
from report import Figure, render_table, save

from argosy.testing.fake_ec2 import FakeEc2
from argosy.testing.fake_ec2_hosts import Ec2Hosts

ARGOSY = Path(sys.executable).parent / "argosy"
BOOT_S = 0.3
PATIENCE_S = 60.0
RESULTS = Path(__file__).parent / "results"
LAUNCH = (
    "resources: {infra: aws/us-east-1, instance_type: m6i.large, use_spot: false}\nrun: echo first line\n"
)
SPOT = "resources: {infra: aws/us-east-1, instance_type: m6i.large, use_spot: true}\nrun: sleep 600\n"


class Bench:
    """One server, one cloud."""

    def __init__(self, cloud: FakeEc2, hosts: Ec2Hosts, folder: Path) -> None:
        self.cloud, self.hosts, self.folder = cloud, hosts, folder
        self.env = environ() | cloud.environ()
        self.env |= {"ARGOSY_HOME": str(folder / "state"), "ARGOSY_INFRA": "local,aws", "NO_COLOR": "1"}

    def run(self, *words: str) -> str:
        done = subprocess.run(
            [str(ARGOSY), *words], env=self.env, capture_output=True, text=True, check=False, timeout=120
        )
        if done.returncode:
            raise SystemExit(f"argosy {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def file(self, name: str, text: str) -> str:
        path = self.folder / name
        path.write_text(text)
        return str(path)

    def server_cpu_s(self) -> float:
        return cpu_s(int(json.loads(self.run("server", "status", "--json"))["health"]["pid"]))

    def events(self) -> list[dict[str, Any]]:
        return list(json.loads(self.run("events", "-n", "30", "--json"))["events"])

    def launch(self, number: int) -> tuple[float, float]:
        """(seconds to the first line less the boot, CPU seconds of command and server)."""
        task = self.file("launch.yaml", LAUNCH)
        server_s = self.server_cpu_s()
        began_s = time.monotonic()
        child = subprocess.Popen(
            [str(ARGOSY), "launch", "-c", f"c{number}", "--yes", task],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert child.stdout is not None
        while "first line" not in (line := child.stdout.readline()):
            if not line:
                raise SystemExit("the launch printed no line of its program")
        took_s = time.monotonic() - began_s
        child.stdout.read()
        _, _, usage = os.wait4(child.pid, 0)
        child.returncode = 0
        spent_s = usage.ru_utime + usage.ru_stime + self.server_cpu_s() - server_s
        self.run("down", f"c{number}", "--yes")
        self.wait("the machine is gone", lambda: not self.live(), 0.1)
        return took_s - self.hosts.boot_s, spent_s

    def recovery(self, number: int) -> tuple[float, float]:
        """(notice to the order of the next machine, silent loss to its event), in seconds."""
        task = self.file("spot.yaml", SPOT)
        self.run("jobs", "launch", "-n", f"r{number}", "--yes", "--detach-run", task)
        first = self.running(number, set())
        known = self.live()
        began_s = time.monotonic()
        self.cloud.interrupt(first, 30.0)
        found: list[str] = []
        self.wait("another machine", lambda: found.extend(self.live() - known) or bool(found), 0.005)
        ordered_s = time.monotonic() - began_s
        second = self.running(number, {first})
        before = {each["seq"] for each in self.events()}
        began_s, cut_ms = time.monotonic(), time.time() * 1000
        self.hosts.cut(second)

        def lost() -> list[float]:
            return [
                each["at_ms"]
                for each in self.events()
                if each["seq"] not in before and each["code"] in ("node-unreachable", "node-lost", "lost")
            ]

        at_ms = self.wait("the loss is told", lost, 0.1)[0]
        self.run("jobs", "cancel", str(number + 1), "--yes")
        self.wait("the machines are gone", lambda: not self.live(), 0.1)
        return ordered_s, (at_ms - cut_ms) / 1000

    def live(self) -> set[str]:
        return {each.id for each in self.cloud.instances()}

    def running(self, number: int, but: set[str]) -> str:
        """The machine on which the job runs."""

        def seen() -> str:
            told = json.loads(self.run("jobs", "queue", "--json"))
            jobs = told["jobs"] if isinstance(told, dict) else told
            is_there = any(each["name"] == f"r{number}" and each["status"] == "running" for each in jobs)
            machines = self.live() - but
            return next(iter(machines)) if is_there and machines else ""

        return str(self.wait("the job runs", seen, 0.2))

    def wait(self, what: str, seen: Callable[[], Any], step_s: float) -> Any:
        ends_s = time.monotonic() + PATIENCE_S
        while time.monotonic() < ends_s:
            if value := seen():
                return value
            time.sleep(step_s)
        raise SystemExit(f"waited in vain: {what}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--name", default="launch-ec2")
    asked = parser.parse_args()
    figures = {
        "launch": Figure(
            "launch", "launch on EC2: first line, less the boot", "s", 1.5, peers="SkyPilot on Slurm: 27.6 s"
        ),
        "cpu": Figure("cpu", "the same: processor time of command and server", "s", 1.5, peers="36 s"),
        "notice": Figure(
            "notice", "notice of a spot loss: next machine ordered", "s", 1.0, peers="15–60 s of polling"
        ),
        "silent": Figure("silent", "silent loss: detected", "s", 6.0, peers="15–60 s of polling"),
    }
    with (
        tempfile.TemporaryDirectory(prefix="argosy-bench-", dir="/tmp") as folder,
        Ec2Hosts() as hosts,
        FakeEc2(machines=hosts, boot_s=BOOT_S) as cloud,
    ):
        hosts.join(cloud, "us-east-1")
        bench = Bench(cloud, hosts, Path(folder))
        try:
            bench.run("check", "aws")  # the server is up, and boto3 imported
            for number in range(asked.runs + 1):
                line_s, spent_s = bench.launch(number)
                if number:  # the first makes the security group and asks for images and quotas
                    figures["launch"].samples.append(line_s)
                    figures["cpu"].samples.append(spent_s)
            for number in range(asked.runs):
                notice_s, silent_s = bench.recovery(number)
                figures["notice"].samples.append(notice_s)
                figures["silent"].samples.append(silent_s)
        finally:
            subprocess.run(
                [str(ARGOSY), "down", "--all", "--yes"], env=bench.env, check=False, capture_output=True
            )
            subprocess.run([str(ARGOSY), "server", "stop"], env=bench.env, check=False, capture_output=True)
    listed = list(figures.values())
    print(render_table(listed))
    print(save(RESULTS, asked.name, describe(), listed))


if __name__ == "__main__":
    main()
