"""Azure's driver against a fake of its API: the suite, a real host behind a machine, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

import asyncio

from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Setting
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimState
from argosy.model.rows import Claim
from argosy.providers.azure.provider import Azure
from argosy.testing.cloud_hosts import CloudHosts
from argosy.testing.conformance.cloud import (
    CloudSubject,
    MovedClock,
    a_machine_claim,
    a_setting,
    hold_case,
    hold_host_life,
)
from argosy.testing.conformance.provider import CASES, Case, case_name, gone, hold, settled
from argosy.testing.conformance.refusals import REFUSALS, hold_kills
from argosy.testing.conformance.refusals import Case as Refusal
from argosy.testing.fake_azure import FakeAzure
from argosy.testing.fake_azure_ground import SECRET, TOKEN
from argosy.testing.hosts import why_no_hosts

KIND, INFINIBAND = "Standard_D4s_v5", "Standard_ND96isr_H100_v5"


GAPS = {
    **CloudSubject.gaps,
    "preemption_becomes_a_fact": "only spot machines are taken back, and they cannot rest: see below",
}


class Subject(CloudSubject):
    gaps = GAPS
    secrets = (SECRET, TOKEN, "PRIVATE KEY")
    calls = ("put_machine", "delete_machine")
    cloud: FakeAzure
    takes_back = False

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("azure", KIND, region="eastus", count=count)


class GangSubject(Subject):
    """Gangs with InfiniBand, which are put into something that must go, too."""

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("azure", INFINIBAND, region="eastus", count=count, accelerator="H100")

    def truth(self) -> set[str]:
        made = {str(each["id"]).rpartition("/")[2] for each in self.cloud.things.values()}
        return super().truth() | made


@pytest.fixture(scope="module")
def cloud() -> Iterator[tuple[FakeAzure, MovedClock]]:
    clock = MovedClock()
    with FakeAzure(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: tuple[FakeAzure, MovedClock], root: Path, kind: type[Subject] = Subject) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ())
    return kind(MachineDriver(Azure(setting, wait_s=0.0), setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", [each for each in CASES if case_name(each) not in GAPS], ids=case_name)
def test_conformance(case: Case, cloud: tuple[FakeAzure, MovedClock], tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    hold_case(lambda each: hold(case, each), subject)
    assert subject.cloud.leftovers() == []


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals(case: Refusal, cloud: tuple[FakeAzure, MovedClock], tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    hold_case(case, subject)
    assert subject.cloud.leftovers() == []


def test_killed_at_every_call(cloud: tuple[FakeAzure, MovedClock], tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root, GangSubject), tmp_path, count=2) >= 10
    assert cloud[0].leftovers() == []


def test_an_evicted_spot_machine_is_preempted(cloud: tuple[FakeAzure, MovedClock], tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    claim = a_machine_claim("azure", KIND, region="eastus", spot=True)

    async def life(subject: CloudSubject) -> None:
        await subject.provider.ensure(claim)
        await settled(subject, claim.id)
        (machine,) = subject.cloud.machines()
        subject.cloud.preempt(machine)
        (fact,) = await subject.provider.observe([])
        assert (fact.state, fact.detail) == (
            ClaimState.PREEMPTED,
            f"Microsoft Azure took the spot machine {machine.name} in eastus back: it was evicted",
        )
        await subject.provider.ensure(claim)  # orders nothing again
        assert subject.cloud.machines() == []
        await subject.provider.release(claim.id)
        await gone(subject, claim.id)

    hold_case(life, subject)
    assert subject.cloud.leftovers() == []


@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_machine_is_reached(tmp_path: Path) -> None:
    with CloudHosts("azureuser") as hosts, FakeAzure(hosts=hosts) as fake:
        environ = fake.environ()
        setting = Setting(root=tmp_path, clock=SystemClock(), ids=SystemIds(), environ=environ, home=tmp_path)
        claim = a_machine_claim("azure", KIND, region="eastus")
        asyncio.run(hold_host_life(MachineDriver(Azure(setting), setting), claim))
