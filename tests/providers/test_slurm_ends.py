"""How jobs of claims end on a real Slurm, and what it refuses: facts and texts."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.boot import agent_zipapp
from argosy.infra.system import SystemClock
from argosy.model.facts import ClaimFact, ClaimState
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.providers.slurm import script
from argosy.providers.slurm.cluster import Cluster
from argosy.providers.slurm.provider import SlurmProvider
from argosy.providers.slurm.runner import LocalRunner
from argosy.providers.slurm.settings import ClusterSettings
from argosy.testing.builders import a_choice, a_claim, a_gpu_shape, a_node, an_offer
from argosy.testing.slurm_cluster import SlurmCluster, what_is_missing

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"NO SLURM WAS TESTED: {MISSING}")
#: What Slurm does by itself takes it up to half a minute on a busy machine.
ENDS = pytest.mark.nightly


class Login:
    """A provider on the login node of a cluster."""

    def __init__(self, slurm: SlurmCluster, zipapp: Path, **settings: str) -> None:
        self.slurm = slurm
        given = msgspec.convert({"node_dir": str(slurm.folder), **settings}, ClusterSettings)
        self.cluster = Cluster(
            "lab", LocalRunner(slurm.environ), given, clock=SystemClock(), agent=lambda: zipapp
        )
        self.provider = SlurmProvider({"lab": self.cluster})

    async def until(self, claim: Claim, *states: ClaimState) -> ClaimFact:
        for _ in range(600):
            for fact in await self.provider.observe([claim.id]):
                if fact.state in states:
                    return fact
            await asyncio.sleep(0.1)
        raise AssertionError(f"never {states}: {await self.provider.observe([claim.id])}{self.slurm.log()}")

    def job(self, claim: Claim) -> str:
        return self.slurm.jobs()[claim.id]


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(nodes=2)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_zipapp(tmp_path_factory.mktemp("agent"))


@pytest.fixture
def login(slurm: SlurmCluster, zipapp: Path) -> Iterator[Login]:
    yield Login(slurm, zipapp)
    slurm.clear()


def claim_of(count: int = 1, partition: str = "low", kind: str = "gpu:h100:8", **fields: object) -> Claim:
    shape = a_gpu_shape(8, "H100", instance_type=f"{kind}-16c-2g", cpus_milli=16000, memory_bytes=2000 << 20)
    offer = an_offer(
        provider="slurm", region="lab", zone=partition, shape=shape, capacity=Capacity.QUEUED, divisible=True
    )
    choice = a_choice(
        offer=offer, cpus_milli=1000, memory_bytes=100 << 20, accelerator=None, accelerators_milli=0
    )
    return a_claim(count=count, choice=choice, **fields)


@ENDS
def test_who_cancels_a_job_ends_the_claim(login: Login) -> None:
    async def main() -> None:
        claim = claim_of()
        await login.provider.ensure(claim)
        await login.until(claim, ClaimState.HELD)
        login.slurm.run("scancel", login.job(claim))
        fact = await login.until(claim, ClaimState.GONE)
        assert fact.detail == "the job was cancelled outside of Argosy (scancel) (Slurm: CANCELLED)"
        await login.provider.release(claim.id)
        assert list(await login.provider.observe([])) == []

    asyncio.run(main())


@ENDS
def test_a_job_that_slurm_starts_again_does_not_bring_the_claim_back(login: Login) -> None:
    async def main() -> None:
        claim = claim_of(tag="sto-1")
        runner = login.cluster._runner
        order = script.Order(claim_id=claim.id, tag="sto-1", nodes=1, partition="low", memory_mib=100,
                             agent="none.pyz", options=("--requeue",))  # fmt: skip
        await runner.run(script.install_script("none.pyz"), data=b"not an agent")
        assert (await runner.run(script.submit_script(order, wait=True))).status == 0
        number = login.job(claim)
        login.slurm.run("scontrol", "requeue", number, check=False)
        fact = None
        for _ in range(120):  # Slurm holds it for two minutes, and first ends what runs
            login.slurm.run("scontrol", "update", f"JobId={number}", "StartTime=now", check=False)
            fact = next(iter(await login.provider.observe([claim.id])), fact)
            if fact is not None and fact.state is ClaimState.GONE:
                break
            await asyncio.sleep(0.5)
        assert fact is not None and fact.state is ClaimState.GONE
        assert fact.detail.startswith("the job failed (Slurm: FAILED")

    asyncio.run(main())


@ENDS
def test_a_job_of_ours_cannot_be_requeued(login: Login) -> None:
    async def main() -> None:
        claim = claim_of()
        await login.provider.ensure(claim)
        await login.until(claim, ClaimState.HELD)
        number = login.job(claim)
        login.slurm.run("scontrol", "requeue", number, check=False)
        assert login.slurm.state(number) == "RUNNING"

    asyncio.run(main())


@ENDS
def test_a_suspended_job_is_held_and_its_nodes_are_not_alive(login: Login) -> None:
    async def main() -> None:
        claim = claim_of()
        await login.provider.ensure(claim)
        await login.until(claim, ClaimState.HELD)
        login.slurm.run("scontrol", "suspend", login.job(claim))
        await asyncio.sleep(1.1)
        (fact,) = await login.provider.observe([claim.id])
        assert (fact.state, fact.nodes[0].alive) == (ClaimState.HELD, False)
        assert fact.detail == "Slurm has suspended the job for another one"
        login.slurm.run("scontrol", "resume", login.job(claim))

    asyncio.run(main())


def test_no_python_on_the_nodes_is_told_by_the_claim(slurm: SlurmCluster, zipapp: Path) -> None:
    login = Login(slurm, zipapp, python="python9")

    async def main() -> None:
        claim = claim_of()
        await login.provider.ensure(claim)
        fact = await login.until(claim, ClaimState.GONE)
        assert fact.detail.endswith(": n1 has no python9"), fact.detail
        await login.provider.release(claim.id)

    asyncio.run(main())


def test_agents_are_told_of_the_end_and_live_through_it(login: Login) -> None:
    """SIGUSR1 comes to the batch script before the time limit, SIGTERM to all processes when the job is
    preempted: agents go on, with a notice, until Slurm kills them."""

    async def main() -> None:
        claim = claim_of()
        await login.provider.ensure(claim)
        fact = await login.until(claim, ClaimState.HELD)
        node = a_node(claim_id=claim.id, provider="slurm", address=fact.nodes[0].address)
        client = AgentClient(lambda: login.provider.reach(node))
        boot = await client.node()
        assert boot.notice is None
        for words, code in ((("--batch", "--signal=USR1"), "time-limit"), (("--signal=TERM",), "preempted")):
            login.slurm.run("scancel", *words, login.job(claim))
            for _ in range(200):
                facts = await client.node()
                if facts.notice is not None:
                    break
                await asyncio.sleep(0.05)
            assert facts.notice is not None
            assert facts.notice.code in (code, "time-limit")
            assert facts.notice.ends
        await login.provider.release(claim.id)
        assert not login.slurm.nodes_with(login.slurm.jobs().get(claim.id, "none"))

    asyncio.run(main())


@pytest.mark.nightly
def test_a_lost_node_and_a_time_limit_become_facts(login: Login) -> None:
    async def main() -> None:
        claim, short = claim_of(count=1), claim_of(partition="short", kind="gpu:a100:8")
        await login.provider.ensure(claim)
        await login.provider.ensure(short)
        await login.until(claim, ClaimState.HELD)
        login.slurm.kill_node("n1")
        fact = await login.until(claim, ClaimState.GONE)
        assert fact.detail == "a node of the job failed (Slurm: NODE_FAIL, NodeDown)"
        login.slurm.boot_node("n1")
        await asyncio.sleep(60)
        fact = await login.until(short, ClaimState.GONE)
        assert fact.detail == "the job reached its time limit (Slurm: TIMEOUT)"
        login.slurm.until(lambda: "idle" in login.slurm.run("sinfo", "-h", "-N", "-n", "n1", "-o%T"), "n1")

    asyncio.run(main())


def test_a_job_that_waits_says_for_what_and_how_long_it_may(login: Login) -> None:
    async def main() -> None:
        login.slurm.run("sbatch", "-N2", "--exclusive", "-t60", "-o/dev/null", "--wrap", "sleep 600")
        login.slurm.until(lambda: "RUNNING" in login.slurm.run("squeue", "-h", "-o", "%T"), "all nodes taken")
        now_ms = SystemClock().now_ms()
        claim = claim_of(requested_ms=now_ms)
        await login.provider.ensure(claim)
        fact = await login.until(claim, ClaimState.PENDING)
        assert fact.detail.startswith("waits in the queue of Slurm (")
        config = '{"slurm": {"provision_timeout": 5}}'
        late = msgspec.structs.replace(claim, config=config, requested_ms=now_ms - 60_000)
        with pytest.raises(border.OutOfCapacity) as caught:
            await login.provider.ensure(late)
        said = str(caught.value)
        assert re.fullmatch(
            r"still waits after 6\d s, `config.slurm.provision_timeout` is 5 s "
            r"\(Slurm: (Resources|Priority)\)",
            said,
        ), said
        offers = await login.provider.quote(None)  # type: ignore[arg-type]
        waits = [each.wait_s for each in offers if each.zone == "short"]
        assert all(wait_s is not None and 3000 < wait_s < 3700 for wait_s in waits), waits

    asyncio.run(main())


def test_check_lists_what_a_task_may_name(login: Login) -> None:
    words = ("starttime=now+1hour", "duration=60", "users=root", "nodes=n1", "partition=low")
    login.slurm.run("scontrol", "create", "reservation", "ReservationName=course", *words)
    try:
        texts = [each.what for each in asyncio.run(login.provider.check())]
    finally:
        login.slurm.run("scontrol", "delete", "ReservationName=course")
    assert texts[0].startswith("lab: Slurm ")
    assert (
        "lab: partition low: 2 of 2 nodes up, gpu:a100:8-16c-2g, gpu:h100:8-16c-2g; "
        "a job runs at most 7-00:00:00; features a100, h100, ib"
    ) in texts
    assert any(each.startswith("lab: reservation course: n1 until ") for each in texts), texts
    assert texts[-1].endswith(", inactive, for root")


REFUSED = (
    (claim_of(partition="nope"), border.RequestRefused,
     "the cluster lab has no partition `nope`; it has low, high, short, tiny, closed"),
    (claim_of(count=2), border.OutOfCapacity, "partition lab/low has 1 nodes gpu:h100:8-16c-2g, asked for 2"),
    (claim_of(kind="gpu:h200:8"), border.OutOfCapacity,
     "partition lab/low has no nodes gpu:h200:8-16c-2g any more"),
    (claim_of(partition="short", config='{"slurm": {"time": "2:00:00"}}'), border.RequestRefused,
     "partition lab/short gives a job at most 0-00:01:00, `config.slurm.time` asks for 0-02:00:00; "
     "ask for less, or take another"),
    (claim_of(config='{"slurm": {"constraint": "nofeature"}}'), border.RequestRefused,
     "Slurm: Invalid feature specification; `sinfo -o %f` lists the features of nodes"),
    (claim_of(config='{"slurm": {"reservation": "mine"}}'), border.RequestRefused,
     "Slurm: Requested reservation is invalid; `scontrol show reservation` lists them"),
    (claim_of(config='{"slurm": {"sbatch_options": {"mem-per-gpu": "x"}}}'), border.RequestRefused, None),
)  # fmt: skip


@pytest.mark.parametrize(("claim", "kind", "text"), REFUSED)
def test_what_cannot_be_is_refused_with_slurms_words(
    claim: Claim, kind: type[border.BorderError], text: str | None, login: Login
) -> None:
    with pytest.raises(kind) as caught:
        asyncio.run(login.provider.ensure(claim))
    assert text is None or str(caught.value) == text
    assert claim.id not in login.slurm.jobs()


@pytest.mark.nightly  # its clients wait for it for four seconds each
def test_a_controller_that_is_away_is_waited_for(login: Login) -> None:
    async def main() -> None:
        login.slurm.stop_controller()
        try:
            with pytest.raises(border.Transient, match="the controller of Slurm does not answer: "):
                await login.provider.ensure(claim_of())
            with pytest.raises(border.Transient, match="the controller of Slurm does not answer: "):
                await login.provider.observe([])
            (finding,) = await login.provider.check()
            assert (finding.ok, finding.hint) == (
                False,
                "run `sinfo` on this machine to see whether Slurm works there",
            )
        finally:
            login.slurm.start_controller()

    asyncio.run(main())
