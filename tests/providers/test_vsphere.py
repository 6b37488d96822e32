"""vSphere's driver against a fake of a vCenter's REST API: the suite, a real host, and its own bad inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimState
from argosy.model.rows import Claim
from argosy.providers.vsphere.provider import Vsphere
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
from argosy.testing.fake_vsphere import PASSWORD, FakeVsphere
from argosy.testing.hosts import why_no_hosts

Cloud = tuple[FakeVsphere, MovedClock]


class Subject(CloudSubject):
    secrets = (PASSWORD, "PRIVATE KEY")
    calls = ("clone", "delete", "make_spec")
    takes_back = False
    gaps: Mapping[str, str] = {**CloudSubject.gaps, "preemption_becomes_a_fact": "it takes nothing back"}
    cloud: FakeVsphere

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("vsphere", "ubuntu", count=count)

    def claim_of(self, machine: FakeMachine) -> str:
        return "-".join(machine.name.split("-")[:2]) if machine.name.startswith("clm-") else ""


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeVsphere(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path, **environ: str) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ() | environ)
    return Subject(MachineDriver(Vsphere(setting), setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    if case_name(case) == "reach_leads_to_the_agent_and_nowhere_else":
        pytest.skip("the machines of this fake are no hosts: see `test_a_machine_is_reached`")
    try:
        hold_case(lambda subject: hold(case, subject), subject_of(cloud, tmp_path))
    except NotApplicable as reason:
        pytest.skip(str(reason))
    assert cloud[0].specs == {}, "a specification holds a machine's own key"


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals(case: Refusal, cloud: Cloud, tmp_path: Path) -> None:
    hold_case(case, subject_of(cloud, tmp_path))


def test_killed_at_every_call(cloud: Cloud, tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=1) >= 8
    assert cloud[0].specs == {}


@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_machine_is_reached(tmp_path: Path) -> None:
    with CloudHosts("ubuntu") as hosts, FakeVsphere(hosts=hosts) as fake:
        setting = a_setting(tmp_path, MovedClock(), fake.environ())
        setting = msgspec.structs.replace(setting, clock=SystemClock(), ids=SystemIds())
        asyncio.run(
            hold_host_life(MachineDriver(Vsphere(setting), setting), a_machine_claim("vsphere", "ubuntu"))
        )


def test_templates_are_offers(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        offers = {each.shape.instance_type: each.shape for each in await subject.driver.quote(Want())}
        assert offers["ubuntu"].accelerator is None
        gpus = offers["train_A100x2"]
        assert (gpus.accelerator, gpus.accelerators_milli, gpus.cpus_milli) == ("A100", 2000, 32_000)
        said = [finding.what for finding in await subject.driver.check()]
        assert said[1] == "can be cloned: train_A100x2, ubuntu"

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_machine_whose_tools_do_not_run_yet_is_pending(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        subject.cloud.tools_s, claim = 30.0, subject.claim()
        await subject.driver.ensure(claim)
        (fact,) = await subject.driver.observe([claim.id])
        assert fact.state is ClaimState.PENDING
        await subject.pass_time(30)
        (fact,) = await subject.driver.observe([claim.id])
        assert fact.state is ClaimState.HELD
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_is_wrong_is_said(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        with pytest.raises(border.RequestRefused, match=r"no template centos: it has train_A100x2, ubuntu"):
            await subject.driver.ensure(a_machine_claim("vsphere", "centos"))
        refusal = subject.cloud.error(403, "UNAUTHORIZED", "Permission to perform this operation was denied.")
        subject.cloud.refuse("clone", refusal)
        with pytest.raises(border.CredentialsRejected, match=r"denied.*; give the user the rights that"):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))
    lost = subject_of(cloud, tmp_path / "lost", VSPHERE_FOLDER="elsewhere")

    async def no_folder() -> None:
        (finding,) = await lost.driver.check()
        assert finding.what == "vCenter has no folder `elsewhere` for machines"
        assert finding.hint == "`govc folder.create /DATACENTER/vm/elsewhere` makes it"
        await lost.driver.disconnect()

    asyncio.run(no_folder())
    bare = subject_of(cloud, tmp_path / "bare", VSPHERE_PASSWORD="")

    async def no_password() -> None:
        (finding,) = await bare.driver.check()
        text = "VMware vSphere lacks VSPHERE_PASSWORD, and ~/.vsphere/credential.yaml does not have it"
        assert finding.what == text
        await bare.driver.disconnect()

    asyncio.run(no_password())
