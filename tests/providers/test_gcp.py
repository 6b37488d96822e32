"""Google Cloud's driver against a fake of Compute Engine: the suite, kills at every call, a real host."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Setting
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.rows import Claim
from argosy.providers.gcp.provider import Google
from argosy.testing.cloud_hosts import CloudHosts
from argosy.testing.conformance.cloud import (
    CloudSubject,
    MovedClock,
    a_machine_claim,
    a_setting,
    hold_host_life,
)
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.conformance.refusals import REFUSALS, hold_kills
from argosy.testing.conformance.refusals import Case as Refusal
from argosy.testing.fake_gcp import REFRESH, TOKEN, FakeGcp
from argosy.testing.hosts import why_no_hosts

KIND = "n2-standard-4"


class Subject(CloudSubject):
    secrets = (REFRESH, TOKEN, "secret-of-the-client", "PRIVATE KEY")
    calls = ("insert", "bulk_insert", "delete")
    spot = False

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim(
            "gcp", KIND, region="us-central1", zone="us-central1-a", count=count, spot=self.spot
        )


class SpotSubject(Subject):
    spot = True


@pytest.fixture(scope="module")
def cloud() -> Iterator[tuple[FakeGcp, MovedClock]]:
    clock = MovedClock()
    with FakeGcp(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: tuple[FakeGcp, MovedClock], root: Path, kind: type[Subject] = Subject) -> Subject:
    fake, clock = cloud
    fake.reset()
    root.mkdir(exist_ok=True)
    setting = a_setting(root, clock, fake.sign_in(root))
    vendor = Google(setting, patience_s=0.0)
    return kind(MachineDriver(vendor, setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    preempts = case_name(case) == "preemption_becomes_a_fact"
    subject = subject_of(cloud, tmp_path, SpotSubject if preempts else Subject)

    async def act() -> None:
        try:
            await hold(case, subject)
        finally:
            await subject.driver.disconnect()

    try:
        asyncio.run(act())
    except NotApplicable as reason:
        pytest.skip(str(reason))
    assert [each for each in subject.cloud.machines() if subject.claim_of(each)] == []


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals(case: Refusal, cloud: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)

    async def act() -> None:
        await case(subject)
        await subject.driver.disconnect()

    asyncio.run(act())


def test_killed_at_every_call(cloud: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=2) >= 6
    assert cloud[0].disks == {}


@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_machine_is_reached(tmp_path: Path) -> None:
    with CloudHosts("ubuntu") as hosts, FakeGcp(hosts=hosts) as fake:
        environ = fake.sign_in(tmp_path)
        setting = Setting(root=tmp_path, clock=SystemClock(), ids=SystemIds(), environ=environ, home=tmp_path)
        claim = a_machine_claim("gcp", KIND, region="us-central1", zone="us-central1-a")
        asyncio.run(hold_host_life(MachineDriver(Google(setting), setting), claim))
