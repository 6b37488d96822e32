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
    cluster = SlurmCluster(nodes=2)
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
