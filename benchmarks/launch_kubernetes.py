"""Kubernetes: the first line of a launch and of an exec, and what a thousand pods cost a server.

    python benchmarks/launch_kubernetes.py [--runs 7] [--pods 1000] [--seconds 60] [--json FILE]

The cluster is `argosy.testing.fake_kube` in a process of its own. For launches its pods are real processes
(root, unshare, nsenter); the floor beside them is a pod that is made by one plain call and whose first line
is read from its log: what a launch takes beyond that is ours. For the thousand pods, in claims of ten, the
real server watches the cluster and keeps an exec with the agent of each pod, whose ends are in the cluster's
process; figures are the server process's alone, from /proc, after everything has come to rest.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import msgspec
from launch_slurm import busy_s, children_s
from machine import cpu_s, describe, resident_bytes, write
from report import Figure, render_table

from argosy.agent.mux import GREETING, Mux
from argosy.agent.serve import Agent
from argosy.infra.mux import carry
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.offer import Capacity
from argosy.model.phases import ClaimPhase, NodePhase, WorkloadPhase
from argosy.server.run import Network, Settings, serve
from argosy.store import Store, lock_state_dir
from argosy.testing.builders import a_choice, a_claim, a_cluster, a_node, an_offer
from argosy.testing.fake_kube import FakeKube, why_no_pods
from argosy.testing.fake_kube import a_node as a_machine

ARGOSY = Path(sys.executable).parent / "argosy"
PODS_OF_A_CLAIM = 10
SETTLE_S = 30.0
TARGETS = {"cpu": 10.0, "memory": 250.0}


# ---- launches


class Bench:
    """A server of its own beside a cluster of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, __file__, "--part", "cluster", "--folder", str(folder), "--real"]
        self.cluster = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.cluster.stdout is not None
        self.url = self.cluster.stdout.readline().strip()
        self.env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ARGOSY_")},
            **{"ARGOSY_HOME": f"{folder}/state", "ARGOSY_INFRA": "kubernetes,local", "NO_COLOR": "1"},
            **{"KUBECONFIG": f"{folder}/config", "HOME": str(folder)},
        }
        self.argosy("server", "start")
        self.server = int(json.loads(self.argosy("server", "status", "--json"))["health"]["pid"])
        self.argosy("gpus", "--infra", "kubernetes")

    def argosy(self, *words: str) -> str:
        command = [ARGOSY, *words]
        return subprocess.run(
            command, env=self.env, capture_output=True, text=True, timeout=120, check=False
        ).stdout

    def first_line(self, words: Sequence[str]) -> tuple[float, float]:
        """Seconds until the marker comes out of a command, and processor seconds of it and the server."""
        own_s, server_s, began = children_s(), busy_s(self.server), time.perf_counter()
        with subprocess.Popen(words, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as child:
            assert child.stdout is not None
            seen = b""
            while b"first-line" not in seen:
                data = os.read(child.stdout.fileno(), 4096)
                if not data:
                    raise RuntimeError(seen.decode(errors="replace"))
                seen += data
            line_s = time.perf_counter() - began
            while os.read(child.stdout.fileno(), 4096):
                pass
        return line_s, children_s() - own_s + busy_s(self.server) - server_s

    def bare_pod(self, number: int) -> float:
        """Seconds from the call that makes a pod until its first line is in its log."""
        container = {"name": "a", "image": "b", "command": ["sh", "-c", "echo first-line; sleep 60"]}
        body = {"metadata": {"name": f"bare-{number}"}, "spec": {"containers": [container]}}
        began = time.perf_counter()
        made = self._call("POST", "/api/v1/namespaces/default/pods", body)
        log = self.folder / "pods" / made["metadata"]["uid"] / "log"
        while not (log.exists() and b"first-line" in log.read_bytes()):
            assert time.perf_counter() - began < 30, "the pod says nothing"
            time.sleep(0.001)
        took_s = time.perf_counter() - began
        self._call("DELETE", f"/api/v1/namespaces/default/pods/bare-{number}?gracePeriodSeconds=0", None)
        return took_s

    def _call(self, method: str, path: str, body: object) -> Any:
        request = urllib.request.Request(self.url + path, method=method, data=msgspec.json.encode(body))
        request.add_header("Authorization", "Bearer a-token")
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)

    def close(self) -> None:
        self.argosy("down", "--all", "--yes")
        self.argosy("server", "stop")
        self.cluster.send_signal(signal.SIGTERM)
        self.cluster.wait(30)


def measure_launches(runs: int) -> list[Figure]:
    floor = Figure("floor", "floor: a bare pod's first line", "s", 0.1, peers="")
    launch = Figure("launch", "launch: first line", "s", 1.1, peers="")
    launch_cpu = Figure("launch-cpu", "launch: processor time of command and server", "CPU-s", 1.0, peers="")
    beyond = Figure("beyond", "launch: beyond the pod's start", "s", 1.0, peers="")
    run = Figure("exec", "exec: first line", "s", 0.3, peers="")
    run_cpu = Figure("exec-cpu", "exec: processor time of command and server", "CPU-s", 0.5, peers="")
    here = Figure("local-launch", "beside it: launch on this machine", "s", 0.5, peers="")
    here_run = Figure("local-exec", "beside it: exec on this machine", "s", 0.3, peers="")
    figures = [floor, launch, launch_cpu, beyond, run, run_cpu, here, here_run]
    with tempfile.TemporaryDirectory(prefix="argosy-bench-", dir="/tmp", ignore_cleanup_errors=True) as name:
        bench = Bench(Path(name))
        try:
            for number in range(runs + 1):
                cluster = f"b{number}"
                floor_s = bench.bare_pod(number)
                place = ("--infra", "k8s", "--cpus", "1", "--memory", "0.1")
                words = [str(ARGOSY), "launch", "-y", "-c", cluster, *place, "--", "echo first-line"]
                line_s, cpu = bench.first_line(words)
                exec_s, exec_cpu = bench.first_line([str(ARGOSY), "exec", cluster, "--", "echo first-line"])
                near = f"h{number}"
                words = [str(ARGOSY), "launch", "-y", "-c", near, "--infra", "local", "--", "echo first-line"]
                here_s, _ = bench.first_line(words)
                here_exec_s, _ = bench.first_line([str(ARGOSY), "exec", near, "--", "echo first-line"])
                bench.argosy("down", "-y", cluster, near)
                if number:  # the first builds the agent and loads the client
                    samples = (floor_s, line_s, cpu, line_s - floor_s, exec_s, exec_cpu, here_s, here_exec_s)
                    for figure, value in zip(figures, samples, strict=True):
                        figure.samples.append(round(value, 3))
        finally:
            bench.close()
    return figures


# ---- the cluster's process


async def run_cluster(folder: Path, pods: int, real: bool) -> None:
    """Prints its address. With `pods`: they run already, and their agents answer."""
    node = a_machine("n1", cpu="100000", memory="100000Gi", pods="100000")
    kube = FakeKube(folder, nodes=[node], real=real)
    talking = 0
    if pods:  # an agent reaps all children of its process: it is not for one that has pods of its own
        (folder / "root").mkdir(exist_ok=True)
        agent = Agent(str(folder / "root"), "pod", [], asyncio.get_running_loop())

        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal talking
            talking += 1
            try:
                writer.write(GREETING)
                await carry(Mux(reader, writer, agent.connection))
            finally:
                talking -= 1

        kube.pods.agent = answer
    await kube.start()
    kube.kubeconfig(folder / "config")
    claims = [f"clm-{number:020}" for number in range(pods // PODS_OF_A_CLAIM)]
    for claim in claims:
        for index in range(PODS_OF_A_CLAIM):
            name = f"{claim}-{index}"
            labels = {"argosy.dev/claim": claim, "argosy.dev/node": str(index)}
            labels["argosy.dev/nodes"] = str(PODS_OF_A_CLAIM)
            container = {
                "name": "argosy",
                "image": "b",
                "resources": {"requests": {"cpu": "1", "memory": "1Gi"}},
            }
            body = {
                "metadata": {"name": name, "labels": labels},
                "spec": {"nodeName": "n1", "containers": [container]},
            }
            kube.put("pods", body, namespace="default")
            running = {"name": "argosy", "image": "b", "state": {"running": {}}}
            ready = [{"type": "Ready", "status": "True"}]
            kube.store.change(
                ("v1", "pods", "default", name),
                phase="Running",
                podIP="127.0.0.1",
                conditions=ready,
                containerStatuses=[running],
            )
    print(kube.url, flush=True)
    ends = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ends.set)
    while not ends.is_set():
        (folder / "connected").write_text(str(talking))
        try:
            async with asyncio.timeout(1.0):
                await ends.wait()
        except TimeoutError:
            pass
    await kube.stop()


# ---- the server's process


async def run_server(folder: Path, pods: int) -> None:
    """Clusters of ten pods each, as rows, and the real server over them."""
    rows: list[Any] = []
    offer = an_offer(provider="kubernetes", region="lab", capacity=Capacity.QUEUED, divisible=True)
    for number in range(pods // PODS_OF_A_CLAIM):
        cluster = a_cluster(name=f"c{number}", num_nodes=PODS_OF_A_CLAIM, phase=WorkloadPhase.RUNNING)
        claim = a_claim(
            id=f"clm-{number:020}",
            workload_id=cluster.id,
            count=PODS_OF_A_CLAIM,
            phase=ClaimPhase.HELD,
            choice=a_choice(offer=offer),
        )
        rows += [cluster, claim]
        rows += [
            a_node(
                claim_id=claim.id, workload_id=cluster.id, provider="kubernetes", index=index,
                address=f"lab/default/{claim.id}-{index}", phase=NodePhase.READY,
            )
            for index in range(PODS_OF_A_CLAIM)
        ]  # fmt: skip
    url = f"sqlite:///{folder / 'argosy.db'}"
    store = await Store.open(url, ids=SystemIds(), clock=SystemClock(), keys=folder / "secrets.key")
    await store.commit(puts=rows)
    await store.close()
    with lock_state_dir(folder) as lock:
        await serve(Settings(state_dir=folder, log_level="warning"), Network(None, None), lock)


def measure_pods(pods: int, seconds: float) -> dict[str, float]:
    with tempfile.TemporaryDirectory(prefix="pods-") as name:
        folder = Path(name)
        (folder / "state").mkdir()
        (folder / "root").mkdir()
        me = [sys.executable, __file__, "--pods", str(pods)]
        env = {**os.environ, "KUBECONFIG": str(folder / "config"), "ARGOSY_INFRA": "kubernetes", "HOME": name}
        with subprocess.Popen(
            [*me, "--part", "cluster", "--folder", name], stdout=subprocess.PIPE
        ) as cluster:
            assert cluster.stdout is not None
            cluster.stdout.readline()
            began_s = time.monotonic()
            server = subprocess.Popen([*me, "--part", "server", "--folder", f"{name}/state"], env=env)
            try:
                while connected(folder) < pods:
                    time.sleep(0.2)
                    assert server.poll() is None and time.monotonic() - began_s < 300
                connected_s, connected_cpu_s = time.monotonic() - began_s, cpu_s(server.pid)
                time.sleep(SETTLE_S)
                at_s, used_s = time.monotonic(), cpu_s(server.pid)
                time.sleep(seconds)
                assert connected(folder) == pods, "some were lost on the way"
                return {
                    "pods": pods,
                    "cpu_percent": round(100 * (cpu_s(server.pid) - used_s) / (time.monotonic() - at_s), 2),
                    "memory_mb": round(resident_bytes(server.pid) / 1e6, 1),
                    "all_connected_s": round(connected_s, 1),
                    "cpu_s_until_connected": round(connected_cpu_s, 1),
                }
            finally:
                server.terminate()
                server.wait(30)
                cluster.terminate()


def connected(folder: Path) -> int:
    try:
        return int((folder / "connected").read_text() or 0)
    except (OSError, ValueError):
        return 0


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--pods", type=int, default=0)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--part", choices=("cluster", "server"), help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--real", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.part:
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        if args.part == "cluster":
            asyncio.run(run_cluster(args.folder, args.pods, args.real))
        else:
            import uvloop

            uvloop.run(run_server(args.folder, args.pods))
        return
    if missing := why_no_pods():
        raise SystemExit(missing)
    machine = describe()
    figures = measure_launches(args.runs)
    print(render_table(figures))
    print(f"\nload when it began: {machine['load_1m']}; median exec: {median(figures[4].samples)} s\n")
    row = measure_pods(args.pods or 1000, args.seconds)
    print("| pods | server, % of a core | server, MB | connected after, s | CPU until then, s |")
    print("|---|---|---|---|---|")
    print(f"| {' | '.join(f'{value:g}' for value in row.values())} |")
    print(f"\ntarget for 1,000: {TARGETS['cpu']:g} % and {TARGETS['memory']:g} MB")
    listed = [{"key": each.key, "unit": each.unit, "samples": each.samples} for each in figures]
    load = round(os.getloadavg()[0], 1)
    write(args.json, machine=machine, load_at_end=load, pods=row, figures=listed)


if __name__ == "__main__":
    main()
