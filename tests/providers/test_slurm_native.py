"""Native mode on a real Slurm: the user's own commands as batch jobs, through the wire that agents speak."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_slurm_ends import MISSING, Login, claim_of

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import RankOrder
from argosy.model.facts import ClaimState, RankFact, RankPhase
from argosy.model.rows import Claim
from argosy.testing.builders import a_node
from argosy.testing.slurm_cluster import SlurmCluster

pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"NO SLURM WAS TESTED: {MISSING}")
NATIVE = '{"slurm": {"native": true}}'


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(nodes=2, extra_conf="MaxArraySize=9")
    yield cluster
    cluster.stop()


@pytest.fixture
def login(slurm: SlurmCluster) -> Iterator[Login]:
    yield Login(slurm, Path("/nonexistent/agent.pyz"))
    slurm.clear()


async def held(login: Login, claim: Claim) -> list[AgentClient]:
    await login.provider.ensure(claim)
    fact = await login.until(claim, ClaimState.HELD)
    nodes = [a_node(claim_id=claim.id, provider="slurm", address=node.address) for node in fact.nodes]
    return [AgentClient(lambda node=node: login.provider.reach(node)) for node in nodes]  # type: ignore[misc]


async def watched(client: AgentClient, rank_id: str, *until: RankPhase) -> tuple[RankFact, bytes]:
    out = b""
    async for report in client.watch({}):
        out += b"".join(chunk.data for chunk in report.logs if chunk.rank_id == rank_id)
        for rank in report.ranks:
            if rank.id == rank_id and rank.phase in until:
                return rank, out
    raise AssertionError("the watch ended")


def test_a_gang_is_one_batch_job_with_logs_and_exit_codes(login: Login) -> None:
    async def main() -> None:
        claim = claim_of(count=2, kind="any", config=NATIVE, tag="sto-1")
        clients = await held(login, claim)
        assert login.slurm.jobs() == {}, "a claim holds nothing"
        assert (await clients[0].node()).cpus_milli == 1000
        env = {"ARGOSY_NUM_NODES": "2", "TOKEN": "s3cr3t"}
        for rank, client in enumerate(clients):
            order = RankOrder(
                id=f"att-1.{rank}", setup="echo set up", env={**env, "ARGOSY_NODE_RANK": str(rank)},
                run='n=$(wc -l <<<"$ARGOSY_NODE_IPS"); echo "rank $ARGOSY_NODE_RANK, $TOKEN, $n nodes"; '
                    "exit $ARGOSY_NODE_RANK",
            )  # fmt: skip
            await client.prepare([order])
        assert login.slurm.jobs() == {}
        for rank, client in enumerate(clients):
            await client.run([f"att-1.{rank}"])
        await clients[0].run(["att-1.0"])
        assert list(login.slurm.jobs()) == [f"{claim.id}:att-1"]
        for rank, client in enumerate(clients):
            fact, out = await watched(client, f"att-1.{rank}", RankPhase.EXITED)
            assert fact.exit_code == rank
            assert out.decode() == f"set up\nrank {rank}, s3cr3t, 2 nodes\n"
        files = [each for each in login.slurm.home.rglob("*") if each.is_file()]
        assert not [
            each for each in files if b"s3cr3t" in each.read_bytes() and not each.name.startswith("out.")
        ]
        assert {fact.tag for fact in await login.provider.observe([])} == {"sto-1"}
        await login.provider.release(claim.id)
        assert list(await login.provider.observe([])) == []
        assert not (login.slurm.home / ".argosy/slurm/native" / claim.id).exists()
        with pytest.raises(border.RequestRefused):
            await login.provider.ensure(claim)

    asyncio.run(main())


def test_a_job_is_stopped_and_another_server_sees_what_runs(login: Login) -> None:
    async def main() -> None:
        claim = claim_of(kind="any", config=NATIVE)
        (client,) = await held(login, claim)
        order = RankOrder(
            id="att-2.0", run="echo begun; sleep 600", env={"ARGOSY_NUM_NODES": "1"}, run_now=True
        )
        await client.prepare([order])
        await watched(client, "att-2.0", RankPhase.RUNNING)
        other = Login(login.slurm, Path("/nonexistent/agent.pyz"))
        (second,) = await held(other, claim)
        fact, _ = await watched(second, "att-2.0", RankPhase.RUNNING)
        assert fact.phase is RankPhase.RUNNING
        await second.stop(["att-2.0"], 1.0)
        fact, _ = await watched(second, "att-2.0", RankPhase.EXITED, RankPhase.VANISHED)
        assert fact.exit_code is not None
        assert login.slurm.jobs() == {}
        with pytest.raises(border.RequestRefused, match="files are not brought there"):
            await client.missing_chunks(["0" * 64])
        await login.provider.release(claim.id)

    asyncio.run(main())


def array_order(attempt: str, index: int, run: str, size: int = 3, parallel: int = 1) -> RankOrder:
    """What the group's task `index` orders."""
    env = {"ARGOSY_NUM_NODES": "1", "ARGOSY_GROUP_ID": "grp-1", "ARGOSY_ARRAY_INDEX": str(index),
           "ARGOSY_ARRAY_SIZE": str(size), "ARGOSY_ARRAY_PARALLEL": str(parallel), "TOKEN": "s3cr3t",
           "NAME": f"it's {index}"}  # fmt: skip
    return RankOrder(id=f"{attempt}.0", setup="echo $TOKEN", run=run, env=env, run_now=True)


def array_tasks(login: Login) -> list[tuple[str, str, str]]:
    """(array, index, state) of what Slurm has in its queue."""
    out = login.slurm.run("squeue", "-h", "-r", "-o", "%F %K %T")
    return [(words[0], words[1], words[2]) for words in sorted(map(str.split, out.splitlines()))]


def test_tasks_of_a_group_are_one_job_array(login: Login) -> None:
    """Submitted as one, with Slurm's limit of how many run at once; looked at, stopped and released alone."""

    async def main() -> None:
        claims = [claim_of(kind="any", config=NATIVE, id=f"clm-{index}") for index in range(3)]
        clients = [(await held(login, claim))[0] for claim in claims]
        go = login.slurm.home / "go"
        run = f'echo "$NAME is $SLURM_ARRAY_TASK_ID"; until [ -e {go} ]; do sleep 0.05; done'
        orders = [array_order(f"att-{index}", index, run) for index in range(3)]
        await asyncio.gather(
            *(client.prepare([order]) for client, order in zip(clients, orders, strict=True))
        )
        await watched(clients[0], "att-0.0", RankPhase.RUNNING)
        ((array, *_), *_) = array_tasks(login)
        assert array_tasks(login) == [
            (array, "0", "RUNNING"),
            (array, "1", "PENDING"),
            (array, "2", "PENDING"),
        ]
        said = login.slurm.run("scontrol", "show", "job", f"{array}_1")
        assert "ArrayTaskThrottle=1" in said
        fact, _ = await watched(clients[1], "att-1.0", RankPhase.PREPARING)
        assert fact.detail.startswith("waits in the queue of Slurm (JobArrayTaskLimit)")

        other = Login(login.slurm, Path("/nonexistent/agent.pyz"))  # a server that knows nothing of it
        seconds = [(await held(other, claim))[0] for claim in claims]
        await asyncio.gather(
            *(client.prepare([order]) for client, order in zip(seconds, orders, strict=True))
        )
        assert len(array_tasks(login)) == 3, "none twice"
        await seconds[1].stop(["att-1.0"], 1.0)
        fact, _ = await watched(seconds[1], "att-1.0", RankPhase.EXITED)
        await login.provider.release("clm-2")
        assert array_tasks(login) == [(array, "0", "RUNNING")]

        go.touch()
        fact, out = await watched(clients[0], "att-0.0", RankPhase.EXITED)
        assert (fact.exit_code, out.decode()) == (0, "s3cr3t\nit's 0 is 0\n")
        await clients[1].prepare([array_order("att-3", 1, "exit 4")])  # tried once more, by itself
        fact, _ = await watched(clients[1], "att-3.0", RankPhase.EXITED)
        assert fact.exit_code == 4
        files = [each for each in login.slurm.home.rglob("*") if each.is_file()]
        assert not [
            each for each in files if b"s3cr3t" in each.read_bytes() and not each.name.startswith("out.")
        ]
        for claim in claims[:2]:
            await login.provider.release(claim.id)
        assert list((login.slurm.home / ".argosy/slurm/native").iterdir()) == []
        assert list((login.slurm.home / ".argosy/slurm/arrays").iterdir()) == []

    asyncio.run(main())


def test_an_array_that_is_larger_than_the_site_allows_is_told_before(login: Login) -> None:
    async def main() -> None:
        claim = claim_of(kind="any", config=NATIVE)
        (client,) = await held(login, claim)
        with pytest.raises(border.RequestRefused) as told:
            await client.prepare([array_order("att-9", 0, "true", size=10)])
        assert str(told.value) == (
            "the array has 10 tasks, and Slurm on lab takes at most 9 in one (MaxArraySize); launch it in "
            "parts of `--num-jobs 9`, or leave out `native`"
        )
        await login.provider.release(claim.id)

    asyncio.run(main())
