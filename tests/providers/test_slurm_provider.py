"""The Slurm provider on a real Slurm, on its login node: the suite for every provider, and what is special
here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import ClassVar

import msgspec
import pytest

from argosy.infra.boot import agent_zipapp
from argosy.infra.provider import Want
from argosy.infra.ssh import Ssh
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.providers.slurm.cluster import Cluster
from argosy.providers.slurm.provider import SlurmProvider
from argosy.providers.slurm.runner import LocalRunner, SshRunner, target_of
from argosy.providers.slurm.settings import ClusterSettings
from argosy.testing.builders import a_choice, a_claim, a_gpu_shape, an_offer
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.slurm_cluster import LoginNode, SlurmCluster, what_is_missing

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(bool(MISSING), reason=f"NO SLURM WAS TESTED: {MISSING}")
#: What differs when commands travel; the others would only test Slurm twice.
THROUGH_SSH = {
    "a_gang_is_all_or_none",
    "cancelled_in_mid_call_leaves_nothing_unowned",
    "reach_leads_to_the_agent_and_nowhere_else",
}
#: Many jobs: in CI these run through the login node alone, or not at all.
SLOW = {
    "cancelled_in_mid_call_leaves_nothing_unowned",
    "ensure_after_a_cancelled_one_completes_it",
    "a_gang_is_all_or_none",
}
_SECRET = "s3cr3t-token-of-the-server"
GIB_2000_MIB = 2000 << 20


@pytest.fixture(scope="module")
def slurm() -> Iterator[SlurmCluster]:
    cluster = SlurmCluster(nodes=4)
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_zipapp(tmp_path_factory.mktemp("agent"))


class SlurmSubject:
    gaps: ClassVar[dict[str, str]] = {}
    secrets = (_SECRET,)

    def __init__(self, slurm: SlurmCluster, zipapp: Path) -> None:
        self.slurm = slurm
        self._numbers: dict[str, str] = {}
        runner = LocalRunner({**slurm.environ, "ARGOSY_TOKEN": _SECRET})
        settings = ClusterSettings(node_dir=str(slurm.folder))
        self.cluster = Cluster("lab", runner, settings, clock=SystemClock(), agent=lambda: zipapp)
        self.provider = SlurmProvider({"lab": self.cluster})

    def claim(self, count: int = 1, *, gpus: int = 0, partition: str = "low", **fields: object) -> Claim:
        shape = a_gpu_shape(
            8, "H100", instance_type="gpu:h100:8-16c-2g", cpus_milli=16000, memory_bytes=GIB_2000_MIB
        )
        choice = a_choice(
            offer=an_offer(
                provider="slurm",
                region="lab",
                zone=partition,
                shape=shape,
                capacity=Capacity.QUEUED,
                divisible=True,
            ),
            cpus_milli=2000,
            memory_bytes=200 << 20,
            accelerator="H100" if gpus else None,
            accelerators_milli=1000 * gpus,
        )
        return a_claim(count=count, choice=choice, **fields)

    def too_large(self) -> Claim:
        return self.claim(count=3)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.1))

    def truth(self) -> set[str]:
        jobs = {name: job for name, job in self.slurm.jobs().items() if name.startswith("clm-")}
        self._numbers.update(jobs)
        return set(jobs)

    def machines(self, claim_id: str) -> int:
        self.truth()
        number = self._numbers.get(claim_id)
        if number is None:
            return 0
        held = self.slurm.run("squeue", "-h", "-t", "R,CG", "-j", number, "-o", "%D", check=False).strip()
        return int(held) if held else len(self.slurm.nodes_with(number))

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        lost = asyncio.ensure_future(call())
        await asyncio.sleep(0.05)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)

    async def preempt(self, claim_id: str) -> None:
        """A job of a partition that comes before takes all nodes."""
        command = (
            "sbatch",
            "--parsable",
            "-p",
            "high",
            "-N4",
            "--exclusive",
            "-o/dev/null",
            "--wrap",
            "sleep 600",
        )
        taker = self.slurm.run(*command).strip()
        number = self.slurm.jobs()[claim_id]
        await asyncio.to_thread(
            self.slurm.until, lambda: self.slurm.state(number) == "PREEMPTED", "preemption"
        )
        self.slurm.run("scancel", taker)

    async def make_foreign(self) -> None:
        self.slurm.run("sbatch", "--job-name=mine", "--mem=10", "-o/dev/null", "--wrap", "sleep 600")


class SshSubject(SlurmSubject):
    """The same cluster, through a login node."""

    def __init__(self, slurm: SlurmCluster, zipapp: Path, login: LoginNode, ssh: Ssh) -> None:
        super().__init__(slurm, zipapp)
        runner = SshRunner(ssh, target_of("login", config_file=str(login.config_file)))
        settings = ClusterSettings(login="login", node_dir=str(slurm.folder))
        self.cluster = Cluster("lab", runner, settings, clock=SystemClock(), agent=lambda: zipapp)
        self.provider = SlurmProvider({"lab": self.cluster})


@pytest.fixture(scope="module")
def login(slurm: SlurmCluster) -> Iterator[LoginNode]:
    if not Path("/usr/sbin/sshd").exists():
        pytest.skip("NO LOGIN NODE WAS TESTED: no /usr/sbin/sshd here (package openssh-server)")
    node = LoginNode(slurm)
    yield node
    node.stop()


@pytest.mark.parametrize("case", [each for each in CASES if case_name(each) in THROUGH_SSH], ids=case_name)
def test_conformance_through_a_login_node(
    case: Case, slurm: SlurmCluster, zipapp: Path, login: LoginNode, tmp_path: Path
) -> None:
    async def main() -> None:
        ssh = Ssh(tmp_path / "ssh", SystemIds(), slurm.environ)
        try:
            await hold(case, SshSubject(slurm, zipapp, login, ssh))  # type: ignore[arg-type]
        finally:
            await ssh.close()

    asyncio.run(main())
    slurm.clear()


@pytest.fixture
def subject(slurm: SlurmCluster, zipapp: Path) -> Iterator[SlurmSubject]:
    yield SlurmSubject(slurm, zipapp)
    slurm.clear()


def _slow(case: Case) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.nightly,) if case_name(case) in SLOW else ()


@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=_slow(each), id=case_name(each)) for each in CASES]
)
def test_conformance(case: Case, subject: SlurmSubject) -> None:
    try:
        asyncio.run(hold(case, subject))  # type: ignore[arg-type]
    except NotApplicable as reason:
        pytest.skip(str(reason))


def test_a_fraction_is_so_many_shards(subject: SlurmSubject) -> None:
    claim = subject.claim(gpus=1)
    offer = msgspec.structs.replace(claim.choice.offer, parts=True)
    part = msgspec.structs.replace(claim.choice, offer=offer, accelerators_milli=500)

    async def act() -> None:
        quoted = await subject.provider.quote(Want())
        assert any(each.parts and each.shape.accelerator == "H100" for each in quoted)
        await subject.provider.ensure(msgspec.structs.replace(claim, choice=part))
        said = subject.slurm.run("squeue", "-h", "-o", "%b", "-n", claim.id)
        assert said.strip().endswith("shard:h100:2")
        await subject.provider.release(claim.id)

    asyncio.run(act())
