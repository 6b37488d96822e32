"""IBM Cloud's driver against a fake of its API: the suite, a real host, and its own bad inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.rows import Claim
from argosy.providers.ibm.provider import Ibm
from argosy.testing.cloud_hosts import CloudHosts
from argosy.testing.conformance.cloud import (
    CloudSubject,
    MovedClock,
    a_machine_claim,
    a_setting,
    hold_case,
    hold_host_life,
)
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.conformance.refusals import REFUSALS, hold_kills
from argosy.testing.conformance.refusals import Case as Refusal
from argosy.testing.fake_cloud import FakeMachine
from argosy.testing.fake_ibm import KEY, FakeIbm
from argosy.testing.hosts import why_no_hosts

Cloud = tuple[FakeIbm, MovedClock]
KIND = "gx2-8x64x1v100"


class Subject(CloudSubject):
    secrets = (KEY, "PRIVATE KEY")
    calls = ("create", "delete", "make_address")
    cloud: FakeIbm
    spot = False

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim(
            "ibm", KIND, region="us-south", count=count, spot=self.spot, accelerator="V100"
        )

    def claim_of(self, machine: FakeMachine) -> str:
        return "-".join(machine.name.split("-")[:2]) if machine.name.startswith("clm-") else ""


class SpotSubject(Subject):
    spot = True


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeIbm(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path, kind: type[Subject] = Subject, **environ: str) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ() | environ)
    return kind(MachineDriver(Ibm(setting), setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    kind = SpotSubject if case_name(case) == "preemption_becomes_a_fact" else Subject
    try:
        hold_case(lambda subject: hold(case, subject), subject_of(cloud, tmp_path, kind))
    except NotApplicable as reason:
        pytest.skip(str(reason))
    assert cloud[0].addresses == {}, "an address that nobody uses costs"


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals(case: Refusal, cloud: Cloud, tmp_path: Path) -> None:
    hold_case(case, subject_of(cloud, tmp_path))


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.nightly), 4])
def test_killed_at_calls(cloud: Cloud, tmp_path: Path, step: int) -> None:
    """Also while the network is made, and between a machine and its address."""
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=1, step=step) * step >= 12
    assert cloud[0].addresses == {}
    places = [(place, asked.name) for place, asked in cloud[0].things.values()]
    assert len(places) == len(set(places))


@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_machine_is_reached(tmp_path: Path) -> None:
    with CloudHosts("ubuntu") as hosts, FakeIbm(hosts=hosts) as fake:
        setting = a_setting(tmp_path, MovedClock(), fake.environ())
        setting = msgspec.structs.replace(setting, clock=SystemClock(), ids=SystemIds())
        claim = a_machine_claim("ibm", "bx2-8x32", region="us-south", zone="us-south-2")
        asyncio.run(hold_host_life(MachineDriver(Ibm(setting), setting), claim))


def test_a_machine_that_failed_to_start_says_why(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = subject.claim()
        await subject.driver.ensure(claim)
        (machine,) = subject.cloud.machines()
        machine.state = "failed"
        subject.cloud.reasons[machine.id] = [{"code": "cannot_start_capacity", "message": "No capacity"}]
        with pytest.raises(
            border.OutOfCapacity, match=r"IBM Cloud has no gx2-.* in us-south-1 now: No capacity"
        ):
            await subject.driver.ensure(claim)
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_is_wrong_is_said(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        wrong = a_machine_claim("ibm", KIND, region="mars")
        with pytest.raises(border.RequestRefused, match="IBM Cloud has no region `mars`: it has au-syd"):
            await subject.driver.ensure(wrong)
        subject.cloud.refuse("create", subject.cloud.error(403, "not_authorized", "not permitted"))
        text = "not permitted.* give the key's owner the role Editor on VPC Infrastructure"
        with pytest.raises(border.CredentialsRejected, match=text):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))
    lost = subject_of(cloud, tmp_path / "lost", IBMCLOUD_API_KEY="")

    async def act() -> None:
        (finding,) = await lost.driver.check()
        assert finding.what.startswith(
            "IBM Cloud has no key to use, neither in IBMCLOUD_API_KEY nor in ~/.ibm/"
        )
        assert finding.hint == "`ibmcloud iam api-key-create argosy`"

    asyncio.run(act())
