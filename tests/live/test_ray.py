"""The Ray provider on a real Ray of two nodes on this machine: the same suite as on the fake.

ARGOSY_RAY=/path/to/bin/ray pytest tests/live/test_ray.py
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.infra.boot import agent_zipapp
from argosy.model.facts import RankPhase
from argosy.testing.builders import a_node
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold, settled

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "providers"))

from ray_subject import RaySubject

PROGRAM = os.environ.get("ARGOSY_RAY", "")
pytestmark = [
    pytest.mark.skipif(not PROGRAM, reason="NO REAL RAY WAS TESTED: ARGOSY_RAY names no program `ray`"),
    pytest.mark.timeout(300),
]
_PORT, _DASHBOARD = 6391, 8291
_START_S = 90


class RealRay:
    """Two nodes, whose state is in folders of their own."""

    token = ""
    loses_replies = False  # a call is cancelled in its middle instead

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="real-ray-"))
        self.address = f"127.0.0.1:{_DASHBOARD}"
        self._environ = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_AUTH_MODE": "disabled",
            "RAY_raylet_start_wait_time_s": "120",  # on a machine that has much else to do
        }
        common = ["--num-cpus=8", "--object-store-memory=100000000", "--disable-usage-stats"]
        try:
            self._start(common)
        except BaseException:
            self.close()  # what has started is not left behind
            raise

    def _start(self, common: list[str]) -> None:
        self._run("start", "--head", f"--port={_PORT}", f"--dashboard-port={_DASHBOARD}", *common)
        self._run("start", f"--address=127.0.0.1:{_PORT}", *common)
        until = time.monotonic() + _START_S
        while self._alive() < 2:
            assert time.monotonic() < until, "the second node did not come up"
            time.sleep(0.5)

    def _run(self, *arguments: str) -> None:
        # A folder for each node, as on machines of their own: a node that unpacks a job's files anew takes
        # them from under the feet of what runs in a folder that it shares.
        own = [f"--temp-dir={self.folder}/{'t' if '--head' in arguments else 'u'}"]
        subprocess.run(
            [PROGRAM, *arguments, *own], check=True, env=self._environ, stdout=subprocess.DEVNULL, timeout=120
        )

    def _ask(self, path: str) -> object:
        with urllib.request.urlopen(f"http://{self.address}{path}", timeout=90) as reply:
            return json.load(reply)

    def _alive(self) -> int:
        found = self._ask("/api/v0/nodes?detail=true")
        assert isinstance(found, dict)
        return sum(each["state"] == "ALIVE" for each in found["data"]["result"]["result"])

    def running(self) -> set[str]:
        found = self._ask("/api/jobs/")
        assert isinstance(found, list)
        return {each["submission_id"] for each in found if each["status"] in ("PENDING", "RUNNING")}

    def preempt(self, claim_id: str) -> None:
        raise NotApplicable("nodes that a person started are lent by nobody")

    def clear(self) -> None:
        """No job is left, nor a record of one."""
        found = self._ask("/api/jobs/")
        assert isinstance(found, list)
        for job in found:
            until = time.monotonic() + 30
            while job["submission_id"] in self.running() and time.monotonic() < until:
                self._tell("POST", f"/api/jobs/{job['submission_id']}/stop")
                time.sleep(0.3)
            if job["submission_id"]:
                self._tell("DELETE", f"/api/jobs/{job['submission_id']}")

    def _tell(self, method: str, path: str) -> None:
        request = urllib.request.Request(f"http://{self.address}{path}", method=method)
        urllib.request.urlopen(request, timeout=90).close()

    def close(self) -> None:
        mark = f"\0HOME={self.folder}\0".encode()
        for turn in range(3):  # what is started in the meantime is found in the next one
            for each in Path("/proc").glob("[0-9]*/environ"):
                try:
                    if mark in b"\0" + each.read_bytes() + b"\0":
                        os.kill(int(each.parent.name), signal.SIGKILL)
                except OSError:
                    continue  # it ended, or is somebody else's
            time.sleep(0.1 * turn)
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(scope="module")
def ray() -> Iterator[RealRay]:
    cluster = RealRay()
    yield cluster
    cluster.close()


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_zipapp(tmp_path_factory.mktemp("agent"))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, ray: RealRay, zipapp: Path, tmp_path: Path) -> None:
    subject = RaySubject(ray, zipapp, tmp_path)
    subject.patience_s = 2.0  # its jobs take seconds to start, and more on a machine with other work
    subject.gaps = {"preemption_becomes_a_fact": "nodes that a person started are lent by nobody"}

    async def main() -> None:
        try:
            await hold(case, subject)  # type: ignore[arg-type]
        finally:
            await subject.cluster.close()

    try:
        asyncio.run(main())
    except NotApplicable as reason:
        pytest.skip(str(reason))
    finally:
        ray.clear()


def test_nodes_are_reached_through_the_dashboard_alone(
    ray: RealRay, zipapp: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if the nodes were other machines: bytes go both ways, in less time than people notice."""
    monkeypatch.setattr("argosy.providers.ray.cluster._is_own", lambda address: False)
    subject = RaySubject(ray, zipapp, tmp_path)
    subject.patience_s = 5.0  # Ray starts workers for tens of seconds on a busy machine

    async def main() -> None:
        claim = subject.claim(count=2)
        await subject.provider.ensure(claim)
        fact = await settled(subject, claim.id)
        for index in (0, 1):
            node = a_node(claim_id=claim.id, provider="ray", address=fact.nodes[index].address)
            client = AgentClient(lambda node=node: subject.provider.reach(node))  # type: ignore[misc]
            assert (await client.node()).agent_version
            times = []
            for _ in range(20):
                began = time.perf_counter()
                await client.node()
                times.append(time.perf_counter() - began)
            run = "head -c 20000000 /dev/zero | tr '\\0' x"
            await client.prepare([RankOrder(id="att-1.0", run=run, run_now=True)])
            out, began = 0, time.perf_counter()
            async for report in client.watch({}):
                out += sum(len(chunk.data) for chunk in report.logs)
                if [rank for rank in report.ranks if rank.phase is RankPhase.EXITED and rank.exit_code == 0]:
                    break
            took = time.perf_counter() - began
            assert out == 20_000_000
            print(
                f"node {index}: a call takes {sorted(times)[10]:.3f} s, output comes at {20 / took:.1f} MB/s"
            )
            await client.close()
        await subject.provider.release(claim.id)
        await subject.cluster.close()

    try:
        asyncio.run(main())
    finally:
        ray.clear()
    assert not list(ray.folder.glob("t/session_latest/logs/argosy-*"))
