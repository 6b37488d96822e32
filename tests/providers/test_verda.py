"""Verda's driver against a fake of its API: the suite, spot machines, disks, and its own bad inputs."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Setting, Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimState
from argosy.model.offer import Capacity
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers.verda.provider import Verda
from argosy.testing.cloud_hosts import CloudHosts
from argosy.testing.conformance.cloud import (
    CloudSubject,
    MovedClock,
    a_claim_with,
    a_machine_claim,
    a_setting,
    hold_case,
    hold_host_life,
    strangers_may_tell_little,
)
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.conformance.refusals import REFUSALS, hold_kills
from argosy.testing.conformance.refusals import Case as Refusal
from argosy.testing.fake_verda import CLIENT, KEY, TOKEN, FakeVerda
from argosy.testing.hosts import why_no_hosts

Cloud = tuple[FakeVerda, MovedClock]
KIND = "1H100.80S.30V"


class Subject(CloudSubject):
    secrets = (KEY, TOKEN, "PRIVATE KEY")
    calls = ("deploy", "act")
    cloud: FakeVerda

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim(
            "verda", KIND, region="FIN-01", count=count, spot=self.spot, accelerator="H100"
        )

    spot = False


class Spot(Subject):
    spot = True


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeVerda(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path, kind: type[Subject] = Subject, **environ: str) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ() | environ)
    return kind(MachineDriver(Verda(setting, call_every_s=0.0), setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    kind = Spot if case_name(case) == "preemption_becomes_a_fact" else Subject
    try:
        hold_case(lambda subject: hold(case, subject), subject_of(cloud, tmp_path, kind))
    except NotApplicable as reason:
        pytest.skip(str(reason))
    assert cloud[0].volumes == {}


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals(case: Refusal, cloud: Cloud, tmp_path: Path) -> None:
    hold_case(case, subject_of(cloud, tmp_path))


def test_strangers_may_tell_little(cloud: Cloud, tmp_path: Path) -> None:
    hold_case(strangers_may_tell_little, subject_of(cloud, tmp_path))


def test_killed_at_every_call(cloud: Cloud, tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=2) >= 8
    assert len(cloud[0].keys) == 1
    assert cloud[0].volumes == {}


@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_machine_with_a_host_key_of_its_own_is_reached(tmp_path: Path) -> None:
    with CloudHosts("root") as hosts, FakeVerda(hosts=hosts) as fake:
        environ = fake.environ()
        setting = Setting(root=tmp_path, clock=SystemClock(), ids=SystemIds(), environ=environ, home=tmp_path)
        claim = a_machine_claim("verda", "CPU.4V.16G", region="FIN-01")
        asyncio.run(hold_host_life(MachineDriver(Verda(setting), setting), claim))


def test_what_is_still_being_made_goes_when_it_can(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim, subject.cloud.boot_s = subject.claim(), 60.0
        await subject.driver.ensure(claim)
        with pytest.raises(border.Transient, match="Can't discontinue a provisioning instance"):
            await subject.driver.release(claim.id)
        await subject.pass_time(61)
        await subject.driver.release(claim.id)
        assert subject.cloud.volumes == {}

    hold_case(case, subject_of(cloud, tmp_path))


@pytest.mark.parametrize("status", ["error", "no_capacity", "installation_failed"])
def test_what_was_not_made_goes(status: str, cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = subject.claim()
        await subject.driver.ensure(claim)
        subject.cloud.machines()[0].extra["status"] = status
        await subject.pass_time(2)
        text = f"Verda has no {KIND} in FIN-01 now" if status == "no_capacity" else f"its status is {status}"
        with pytest.raises(border.OutOfCapacity, match=text):
            await subject.driver.ensure(claim)
        assert subject.cloud.volumes == {}

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_spot_machine_that_is_taken_back_leaves_no_disk(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = subject.claim()
        await subject.driver.ensure(claim)
        assert len(subject.cloud.volumes) == 1
        await subject.preempt(claim.id)
        await subject.pass_time(2)
        (fact,) = await subject.driver.observe([claim.id])
        assert fact.state is ClaimState.PREEMPTED
        assert fact.detail == f"Verda took the spot machine {claim.id}-0 in FIN-01 back"
        assert subject.cloud.volumes == {}
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path, Spot))


def test_what_is_asked_for(cloud: Cloud, tmp_path: Path) -> None:
    """The newest image that fits, the disk of the wish, and one login for an hour."""

    async def case(subject: Subject) -> None:
        claim = a_claim_with(subject, Resources(disk_size_bytes=250 * 10**9))
        await subject.driver.ensure(claim)
        (asked,) = subject.cloud.called("deploy")
        assert asked.body.image == "ubuntu-24.04-cuda-12.8-open"
        assert asked.body.os_volume.size == 250
        assert subject.cloud.logins == 1
        await subject.pass_time(3600)
        await subject.driver.release(claim.id)
        assert subject.cloud.logins == 2

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_cannot_be_had_now_is_closed(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        found = {
            (each.shape.instance_type, each.region, each.capacity): each.closed
            for each in await subject.driver.quote(Want())
        }
        none = "no location of Verda has one now"
        assert found == {
            ("CPU.4V.16G", "ICE-01", Capacity.ON_DEMAND): "ICE-01 has none now",
            ("CPU.4V.16G", "", Capacity.SPOT): none,
            (KIND, "", Capacity.SPOT): none,
        }

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_balance_that_is_used_up_is_told_by_check(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        (good,) = await subject.driver.check()
        assert good.what == "the credentials are accepted; the balance is 42.50 usd"
        subject.cloud.balance = 0.0
        (bad,) = await subject.driver.check()
        assert bad.what == "the balance at Verda is used up"
        assert bad.hint == "add to it at https://console.verda.com"

    hold_case(case, subject_of(cloud, tmp_path))


def test_the_image_that_a_task_names(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = a_claim_with(subject, Resources(image_id="ubuntu-22.04-cuda-12.4"))
        await subject.driver.ensure(claim)
        assert subject.cloud.called("deploy")[0].body.image == "ubuntu-22.04-cuda-12.4"
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


REFUSED = {
    "Invalid instance type": (400, "invalid", border.RequestRefused, "Verda says: Invalid instance type"),
    "Invalid location code": (400, "invalid", border.RequestRefused, "Invalid location code"),
    "No capacity": (503, "service_unavailable", border.OutOfCapacity, f"Verda has no {KIND} in FIN-01 now"),
    "No money": (402, "insufficient_funds", border.QuotaExceeded, "add to it at https://console.verda.com"),
    "This account is blocked": (403, "forbidden_action", border.CredentialsRejected, "does not let these"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_its_own_words(said: str, cloud: Cloud, tmp_path: Path) -> None:
    status, code, kind, text = REFUSED[said]

    async def case(subject: Subject) -> None:
        subject.cloud.refuse("deploy", subject.cloud.error(status, code, said))
        with pytest.raises(kind, match=text):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))


def test_credentials_are_looked_for_in_three_places(cloud: Cloud, tmp_path: Path) -> None:
    none = {"VERDA_CLIENT_ID": "", "HOME": str(tmp_path)}

    async def missing(subject: Subject) -> None:
        (finding,) = await subject.driver.check()
        assert finding.what == (
            "Verda has no credentials to use, neither in VERDA_CLIENT_ID and VERDA_CLIENT_SECRET, "
            "DATACRUNCH_CLIENT_ID and DATACRUNCH_CLIENT_SECRET nor in ~/.verda/config.json"
        )
        assert finding.hint.startswith("make credentials of the API at https://console.verda.com")

    async def found(subject: Subject) -> None:
        assert [each.ok for each in await subject.driver.check()] == [True]

    hold_case(missing, subject_of(cloud, tmp_path, **none))
    older = {"DATACRUNCH_CLIENT_ID": CLIENT, "DATACRUNCH_CLIENT_SECRET": KEY}
    hold_case(found, subject_of(cloud, tmp_path, **none, **older))
    (tmp_path / ".verda").mkdir()
    told = {"client_id": CLIENT, "client_secret": KEY, "default_region": "FIN-01"}
    (tmp_path / ".verda/config.json").write_bytes(msgspec.json.encode(told))
    hold_case(found, subject_of(cloud, tmp_path, **none))
