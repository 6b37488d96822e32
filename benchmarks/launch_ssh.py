"""Own GPU servers: how soon a gang on fresh hosts says its first line, and how many jobs end in a second.

    python benchmarks/launch_ssh.py [--hosts 16] [--managed 1000] [--jobs 1000] [--job-hosts 20] [--json FILE]

Hosts are namespaces of this machine with an sshd each (`argosy.testing.hosts`: needs root), so all of them
and the server share its processors: beside the time stands what it cost the processors, hosts and all
(`cpuacct`), and how many processes wanted one when it began. Machines of their own work side by side.

    launch      `argosy launch --num-nodes N` on hosts that the server has just seen, without an agent: until
                rank 0 has printed its first line
    again       the same on hosts that have the agent's zipapp, after `down`
    exec        `argosy exec` on the gang: the agents are there
    managed     managed jobs `true`, each with nodes of its own, submitted in one go: until all have succeeded
    exec jobs   jobs on the nodes of one cluster that has all the hosts
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from machine import environ

from argosy.client.async_client import AsyncClient
from argosy.client.client import Client
from argosy.client.tasks import Resources, Task
from argosy.testing.hosts import HostLab, why_no_hosts

ARGOSY = str(Path(sys.executable).with_name("argosy"))
GROUP = Path(f"/sys/fs/cgroup/cpuacct/argosy-bench-{os.getpid()}")


class Place:
    """A state folder with its server, whose pool `lab` is a lab of hosts."""

    def __init__(self, lab: HostLab) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="bench-"))
        self.state = self.home / "state"
        self.state.mkdir(mode=0o700)
        names = ", ".join(host.name for host in lab.hosts)
        (self.state / "pools.yaml").write_text(f"lab:\n  ssh_config: {lab.config_file}\n  hosts: [{names}]\n")
        self.env = {**environ(), "HOME": str(self.home), "ARGOSY_HOME": str(self.state), "NO_COLOR": "1"}

    def run(self, *words: str) -> str:
        done = subprocess.run([ARGOSY, *words], env=self.env, capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"argosy {' '.join(words)}: {done.stdout}{done.stderr}")
        return done.stdout

    def wait_for_hosts(self) -> None:
        while any(
            each["state"] != "open" for each in json.loads(self.run("pool", "hosts", "--json"))["hosts"]
        ):
            time.sleep(0.2)

    def end(self) -> None:
        self.run("server", "stop")
        shutil.rmtree(self.home)


def cpu_s() -> float:
    """Of everything that was started from here, so far."""
    return int((GROUP / "cpuacct.usage").read_text()) / 1e9 if GROUP.exists() else float("nan")


def measured(act: Callable[[], float]) -> dict[str, float]:
    load, cpu = os.getloadavg()[0], cpu_s()
    seconds = act()
    return {"seconds": round(seconds, 2), "cpu_s": round(cpu_s() - cpu, 2), "load": round(load, 1)}


def first_line(place: Place, *words: str) -> float:
    """Seconds until rank 0 has printed something."""
    began_s = time.monotonic()
    process = subprocess.Popen(
        [ARGOSY, *words], env=place.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    found_s = next((time.monotonic() - began_s for line in process.stdout if "rank=0" in line), None)
    _, said = process.communicate()
    if found_s is None:
        raise SystemExit(f"argosy {' '.join(words)}: {said}")
    return found_s


def launches(count: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    nodes = ("--infra", "ssh/lab", "--num-nodes", str(count), "--")
    with HostLab(count) as lab:
        place = Place(lab)
        try:
            place.wait_for_hosts()
            rows["launch"] = measured(
                lambda: first_line(place, "launch", "-y", "-c", "a", *nodes, "echo one")
            )
            again = [
                measured(lambda: first_line(place, "exec", "a", "--num-nodes", str(count), "--", "echo two"))
                for _ in range(5)
            ]
            rows["exec"] = sorted(again, key=lambda row: row["seconds"])[2]
            place.run("down", "-y", "a")
            time.sleep(2)
            rows["again"] = measured(
                lambda: first_line(place, "launch", "-y", "-c", "b", *nodes, "echo three")
            )
            place.run("down", "-y", "b")
        finally:
            place.end()
    return rows


async def submit(place: Place, count: int, cluster: str) -> None:
    """All jobs in a few requests, as `--num-jobs` sends them."""
    task = Task(run="true")
    task.set_resources(Resources(cpus="0.01", infra=None if cluster else "ssh/lab"))
    async with AsyncClient(env=place.env) as client:
        for first in range(0, count, 100):
            tasks = [task.build()] * min(100, count - first)
            if cluster:
                await client.exec(cluster, tasks)
            else:
                await client.jobs_launch(tasks)


class Ended(NamedTuple):
    seconds: float
    server_mib: float  # the most that the server has used
    failed: int


def all_of_them(place: Place, count: int, cluster: str) -> Ended:
    began_s, mib = time.monotonic(), 0.0
    asyncio.run(submit(place, count, cluster))
    with Client(env=place.env) as client:
        while client.queue(cluster or None, live=True, limit=1).jobs:
            mib = max(mib, client.server_status().memory_bytes / (1 << 20))
            time.sleep(0.5)
        seconds = time.monotonic() - began_s
        mib = max(mib, client.server_status().memory_bytes / (1 << 20))
        ended = client.queue(cluster or None, limit=1000).jobs
    return Ended(seconds, mib, sum(job.status != "succeeded" for job in ended))


def jobs(managed: int, bound: int, hosts: int) -> dict[str, Any]:
    rows: dict[str, Any] = {}
    with HostLab(hosts) as lab:
        place = Place(lab)
        nodes = ("--infra", "ssh/lab", "--num-nodes", str(hosts), "--", "true")
        try:
            place.wait_for_hosts()
            for name, cluster, count in (("managed", "", managed), ("exec jobs", "all", bound)):
                if cluster:
                    place.run("launch", "-y", "-c", cluster, *nodes)
                load, cpu = os.getloadavg()[0], cpu_s()
                done = all_of_them(place, count, cluster)
                rows[name] = {
                    "jobs": count,
                    "seconds": round(done.seconds, 2),
                    "cpu_s": round(cpu_s() - cpu, 2),
                    "load": round(load, 1),
                    "jobs_per_s": round(count / done.seconds, 1),
                    "server_mib": round(done.server_mib),
                    "failed": done.failed,
                }
        finally:
            place.end()
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--hosts", type=int, default=16)
    parser.add_argument("--managed", type=int, default=1000, help="0: launches only")
    parser.add_argument("--jobs", type=int, default=1000, help="on a cluster that has all hosts")
    parser.add_argument("--job-hosts", type=int, default=20)
    parser.add_argument("--json", type=Path, default=None)
    options = parser.parse_args()
    if reason := why_no_hosts():
        raise SystemExit(f"no hosts here: {reason}")
    if GROUP.parent.exists():
        GROUP.mkdir()
        (GROUP / "cgroup.procs").write_text(str(os.getpid()))
    rows = launches(options.hosts)
    if options.managed:
        rows |= jobs(options.managed, options.jobs, options.job_hosts)
    print(f"{'':10} {'seconds':>8} {'CPU s':>8} {'load':>6}  more")
    for name, row in rows.items():
        more = f"{row['jobs_per_s']} jobs/s, server {row['server_mib']} MiB" if "jobs_per_s" in row else ""
        print(f"{name:10} {row['seconds']:8.2f} {row['cpu_s']:8.2f} {row['load']:6.1f}  {more}")
    if options.json:
        options.json.write_text(
            json.dumps({"hosts": options.hosts, "processors": os.cpu_count(), "rows": rows}, indent=1) + "\n"
        )
    if GROUP.exists():
        (GROUP.parent / "cgroup.procs").write_text(str(os.getpid()))
        with contextlib.suppress(OSError):  # what has just been ended is still there
            GROUP.rmdir()


if __name__ == "__main__":
    main()
