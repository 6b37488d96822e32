"""How nodes of a Ray cluster are reached from afar, and how they end: nothing of a claim outlives its job."""

from __future__ import annotations

import asyncio
import getpass
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ray_subject import RaySubject

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.infra.boot import agent_zipapp
from argosy.infra.dialled import Dialled
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimFact, ClaimState, RankPhase
from argosy.model.rows import Claim
from argosy.providers.ray.cluster import Way
from argosy.server.dialling import DialDoor
from argosy.server.door import Door, Limits
from argosy.server.listeners import bind_tcp
from argosy.testing.builders import a_node
from argosy.testing.conformance.provider import settled
from argosy.testing.fake_ray import FakeRay
from argosy.testing.slurm_cluster import LoginNode


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_zipapp(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def ray() -> Iterator[FakeRay]:
    cluster = FakeRay({"CPU": 8.0}, {"CPU": 8.0})
    yield cluster
    cluster.close()


@asynccontextmanager
async def door() -> AsyncIterator[Dialled]:
    """Where nodes dial in, at an address of the loopback."""

    async def nothing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    sock = bind_tcp("127.0.0.1:0")
    url = f"http://127.0.0.1:{sock.getsockname()[1]}"
    dialled = Dialled(b"secret", SystemClock(), SystemIds(), public_url=url)
    opened = Door(nothing, [sock], Limits(), dials=DialDoor(dialled))
    await opened.open()
    try:
        yield dialled
    finally:
        await dialled.close()
        await opened.close()


async def held(subject: RaySubject, claim: Claim) -> ClaimFact:
    await subject.provider.ensure(claim)
    return await settled(subject, claim.id)


def test_nodes_that_are_other_machines_dial_in(ray: FakeRay, zipapp: Path, tmp_path: Path) -> None:
    for node in ray.nodes:
        node.ip = "203.0.113.7"
    said: list[bytes] = []

    async def main() -> None:
        async with door() as dialled:
            subject = RaySubject(ray, zipapp, tmp_path, dialled)
            claim = subject.claim(count=2)
            fact = await held(subject, claim)
            assert {each.ip for each in fact.nodes} == {"203.0.113.7"}
            said.append(next(each for uri, each in ray.kept.items() if uri.endswith(f"{claim.id}.json")))
            async with asyncio.timeout(90):
                while not all(dialled.has(f"{claim.id}-{index}") for index in (0, 1)):
                    await subject.provider.observe([claim.id])  # orders are given once
                    await asyncio.sleep(0.02)
            node = a_node(claim_id=claim.id, provider="ray", address=fact.nodes[1].address)
            client = AgentClient(lambda: subject.provider.reach(node))
            assert (await client.node()).agent_version
            await client.close()
            assert sum("argosy-clm" in each for each in ray.asked) == 1
            await subject.provider.release(claim.id)
            assert not subject.machines(claim.id)
            await subject.cluster.close()

    asyncio.run(main())
    token = msgspec.json.decode(said[0])["0"]["token"]
    jobs = b"".join(msgspec.json.encode(each.details()) for each in ray.jobs.values())
    logs = b"".join(each.read_bytes() for each in ray.folder.glob("*.log"))
    assert token.encode() not in jobs + logs


@asynccontextmanager
async def far(ray: FakeRay, zipapp: Path, folder: Path) -> AsyncIterator[tuple[RaySubject, ClaimFact]]:
    """A claim on two nodes of which only the cluster's dashboard is reached: no socket of theirs is seen."""
    for node in ray.nodes:
        node.ip = "203.0.113.7"
    subject = RaySubject(ray, zipapp, folder)
    fact = await held(subject, subject.claim(count=2))
    try:
        yield subject, fact
    finally:
        await subject.provider.release(fact.claim_id)
        await subject.cluster.close()
    assert not list(ray.folder.glob("argosy-post-*"))


def client_of(subject: RaySubject, fact: ClaimFact, index: int) -> AgentClient:
    node = a_node(claim_id=fact.claim_id, provider="ray", address=fact.nodes[index].address)
    return AgentClient(lambda: subject.provider.reach(node))


async def output_of(client: AgentClient, run: str, env: Mapping[str, str]) -> bytes:
    """Of a program that ends well."""
    await client.prepare([RankOrder(id="att-1.0", run=run, run_now=True, env=dict(env))])
    out = b""
    async for report in client.watch({}):
        out += b"".join(chunk.data for chunk in report.logs)
        if [rank for rank in report.ranks if rank.phase is RankPhase.EXITED and rank.exit_code == 0]:
            break
    return out


def test_nodes_are_reached_through_the_dashboard_alone(ray: FakeRay, zipapp: Path, tmp_path: Path) -> None:
    """Both ways, more than one file of the driver holds, and nothing of it in clear."""
    seen: list[bytes] = []

    async def main() -> None:
        async with far(ray, zipapp, tmp_path) as (subject, fact):
            clients = [client_of(subject, fact, index) for index in (0, 1)]
            run = "echo $WORD; head -c 6000000 /dev/zero | tr '\\0' x"
            for client in clients:
                out = await output_of(client, run, {"WORD": "s3cret-word"})
                assert out.startswith(b"s3cret-word\n")
                assert out.endswith(b"x" * 6_000_000)
            seen.extend(each.read_bytes() for each in ray.folder.glob("argosy-post-*"))
            until_s = asyncio.get_running_loop().time() + 90
            while [each for each in ray.kept if "post" in each]:  # mail is taken out of the store
                assert asyncio.get_running_loop().time() < until_s
                await asyncio.sleep(0.02)
            for client in clients:
                await client.close()

    asyncio.run(main())
    assert seen
    jobs = b"".join(msgspec.json.encode(each.details()) for each in ray.jobs.values())
    assert b"s3cret-word" not in b"".join(seen) + jobs


def test_a_stream_of_the_dashboard_that_breaks_off_is_taken_up_again(
    ray: FakeRay, zipapp: Path, tmp_path: Path
) -> None:
    ray.cuts_streams_after = 300_000

    async def main() -> None:
        async with far(ray, zipapp, tmp_path) as (subject, fact):
            client = client_of(subject, fact, 0)
            task = asyncio.ensure_future(output_of(client, "head -c 1000000 /dev/zero | tr '\\0' x", {}))
            while len([each for each in ray.asked if "logs/stream" in each]) < 3 and not task.done():
                await asyncio.sleep(0.02)
            ray.cuts_streams_after = None
            assert await task == b"x" * 1_000_000
            await client.close()

    asyncio.run(main())


def test_two_servers_reach_nodes_through_one_dashboard(ray: FakeRay, zipapp: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with far(ray, zipapp, tmp_path) as (subject, fact):
            other = RaySubject(ray, zipapp, tmp_path / "other")
            await other.provider.observe([])
            clients = [client_of(each, fact, index) for each in (subject, other) for index in (0, 1)]
            for _ in range(2):
                assert len([await each.node() for each in clients]) == 4
            for client in clients:
                await client.close()
            await other.cluster.close()

    asyncio.run(main())


def test_a_ray_whose_streams_are_older_is_told(ray: FakeRay, zipapp: Path, tmp_path: Path) -> None:
    ray.puts_bytes_before = True

    async def main() -> None:
        async with far(ray, zipapp, tmp_path) as (subject, fact):
            client = client_of(subject, fact, 0)
            with pytest.raises(border.Unreachable, match="streams its logs in an older form"):
                await client.node()
            await client.close()

    asyncio.run(main())


def test_a_driver_that_is_gone_is_told(ray: FakeRay, zipapp: Path, tmp_path: Path) -> None:
    async def main() -> None:
        async with far(ray, zipapp, tmp_path) as (subject, fact):
            client = client_of(subject, fact, 0)
            await client.node()
            await subject.cluster.api.stop(fact.claim_id)
            async with asyncio.timeout(90):
                while not (await subject.cluster.api.job(fact.claim_id)).is_over:  # type: ignore[union-attr]
                    await asyncio.sleep(0.02)
            with pytest.raises(border.Unreachable):
                await client.node()
            await client.close()

    asyncio.run(main())


class _Place:
    """What a login node stands on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environ = {"SLURM_CONF": "", "HOME": str(folder), "USER": getpass.getuser()}

    def until(self, is_so: Callable[[], bool], what: str, limit_s: float) -> None:
        until = time.monotonic() + limit_s
        while not is_so():
            assert time.monotonic() < until, what
            time.sleep(0.02)


@pytest.mark.skipif(not Path("/usr/sbin/sshd").exists(), reason="NO SSH WAS TESTED: no /usr/sbin/sshd here")
def test_nodes_are_reached_by_way_of_a_login(ray: FakeRay, zipapp: Path, tmp_path: Path) -> None:
    for node in ray.nodes:
        node.ip = "203.0.113.7"
    login = LoginNode(_Place(ray.folder))  # type: ignore[arg-type]
    known = login.config_file.read_text().replace("Host login", "Host login 203.0.113.7")
    login.config_file.write_text(known)

    async def main() -> None:
        subject = RaySubject(ray, zipapp, tmp_path, login="login", ssh_config=str(login.config_file))
        assert await subject.cluster.way() is Way.SSH
        claim = subject.claim()
        fact = await held(subject, claim)
        node = a_node(claim_id=claim.id, provider="ray", address=fact.nodes[0].address)
        client = AgentClient(lambda: subject.provider.reach(node))
        assert (await client.node()).agent_version
        await client.close()
        await subject.provider.release(claim.id)
        await subject.cluster.close()

    try:
        asyncio.run(main())
    finally:
        login.stop()


@pytest.mark.parametrize("what", ["driver", "actor"])
def test_a_killed_driver_or_actor_leaves_no_agent_and_no_program(
    what: str, ray: FakeRay, zipapp: Path, tmp_path: Path
) -> None:
    async def main() -> None:
        subject = RaySubject(ray, zipapp, tmp_path)
        claim = subject.claim(count=2 if what == "actor" else 1)
        fact = await held(subject, claim)
        node = a_node(claim_id=claim.id, provider="ray", address=fact.nodes[0].address)
        client = AgentClient(lambda: subject.provider.reach(node))
        mark = tmp_path / "pid"
        run = f"echo $$ >{mark}.new; mv {mark}.new {mark}; (setsid sleep 600 &) ; exec sleep 600"
        await client.prepare([RankOrder(id="att-1.0", run=run, run_now=True)])
        async with asyncio.timeout(90):
            while not mark.exists():
                await asyncio.sleep(0.02)
        pid = int(mark.read_text())
        os.kill(ray.pid_of(claim.id, what), signal.SIGKILL)
        async with asyncio.timeout(90):
            while Path(f"/proc/{pid}").exists() or subject.machines(claim.id) == claim.count:
                await asyncio.sleep(0.02)
        await client.close()
        if what == "driver":
            gone = await settled(subject, claim.id, ClaimState.GONE)
            assert gone.detail == "its driver was ended by signal 9"
        else:
            async with asyncio.timeout(90):
                while (seen := await subject.provider.observe([claim.id]))[0].nodes[0].alive:
                    await asyncio.sleep(0.02)
            assert [each.alive for each in seen[0].nodes] == [False, True]
            with pytest.raises(border.Unreachable):
                await subject.provider.reach(node)
        await subject.provider.release(claim.id)
        assert not subject.machines(claim.id)
        await subject.cluster.close()

    asyncio.run(main())
    until = time.monotonic() + 90
    while subprocess.run(["pgrep", "-f", f"{ray.folder}/argosy-"], capture_output=True).stdout:
        assert time.monotonic() < until, "a process is left"
        time.sleep(0.05)


def test_a_program_ends_with_its_code(ray: FakeRay, zipapp: Path, tmp_path: Path) -> None:
    """The whole way on one node: files of the agent, a program, its output."""

    async def main() -> None:
        subject = RaySubject(ray, zipapp, tmp_path)
        claim = subject.claim()
        fact = await held(subject, claim)
        node = a_node(claim_id=claim.id, provider="ray", address=fact.nodes[0].address)
        client = AgentClient(lambda: subject.provider.reach(node))
        run = 'env | grep -c "^RAY_"; exit 3'
        await client.prepare([RankOrder(id="att-1.0", run=run, run_now=True)])
        out = b""
        async for report in client.watch({}):
            out += b"".join(chunk.data for chunk in report.logs)
            if [rank for rank in report.ranks if rank.phase is RankPhase.EXITED and rank.exit_code == 3]:
                break
        assert out == b"0\n"
        await client.close()
        await subject.provider.release(claim.id)
        await subject.cluster.close()

    asyncio.run(main())


@pytest.mark.nightly
def test_a_server_that_dies_at_any_call_leaves_nothing(ray: FakeRay, zipapp: Path, tmp_path: Path) -> None:
    """The next server, which has its disk, orders the claim again or releases it: one is there, then none."""

    async def main() -> None:
        for calls in range(1, 7):
            first = RaySubject(ray, zipapp, tmp_path)
            claim = first.claim()
            ray.dies_after = calls
            try:
                await first.provider.ensure(claim)
            except border.Unreachable:
                pass
            else:
                assert calls > 4, "an order takes so many calls"
            ray.dies_after = None
            await first.cluster.close()
            second = RaySubject(ray, zipapp, tmp_path)
            if calls % 2:
                await held(second, claim)
                assert second.machines(claim.id) == 1
            await second.provider.release(claim.id)
            assert second.machines(claim.id) == 0
            assert claim.id not in second.truth()
            assert await second.provider.observe([]) == []
            with pytest.raises(border.RequestRefused):
                await second.provider.ensure(claim)
            await second.cluster.close()

    asyncio.run(main())
