"""Lambda's driver against a fake of its API: the suite, a real host behind a machine, and what is refused."""

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
from argosy.providers.lambda_cloud.provider import Lambda
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
from argosy.testing.fake_lambda import KEY, FakeLambda
from argosy.testing.hosts import why_no_hosts

KIND = "gpu_1x_a10"


class Subject(CloudSubject):
    secrets = (KEY, "PRIVATE KEY")
    calls = ("launch", "terminate")

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("lambda", KIND, region="us-east-1", count=count, accelerator="A10")


@pytest.fixture(scope="module")
def cloud() -> Iterator[tuple[FakeLambda, MovedClock]]:
    clock = MovedClock()
    with FakeLambda(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: tuple[FakeLambda, MovedClock], root: Path) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ())
    vendor = Lambda(setting, launch_every_s=0.0, call_every_s=0.0)
    return Subject(MachineDriver(vendor, setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: tuple[FakeLambda, MovedClock], tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)

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


@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_machine_is_reached(tmp_path: Path) -> None:
    with CloudHosts("ubuntu") as hosts, FakeLambda(hosts=hosts) as fake:
        environ = fake.environ()
        setting = Setting(root=tmp_path, clock=SystemClock(), ids=SystemIds(), environ=environ, home=tmp_path)
        vendor = Lambda(setting, launch_every_s=0.0, call_every_s=0.0)
        claim = a_machine_claim("lambda", KIND, region="us-east-1", accelerator="A10")
        asyncio.run(hold_host_life(MachineDriver(vendor, setting), claim))


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals(case: Refusal, cloud: tuple[FakeLambda, MovedClock], tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)

    async def act() -> None:
        await case(subject)
        await subject.driver.disconnect()

    asyncio.run(act())


def test_killed_at_every_call(cloud: tuple[FakeLambda, MovedClock], tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=2) >= 6
