"""Hyperstack's driver against a fake of its API: the suite, rest by hibernation, and its own bad inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Want
from argosy.model.facts import ClaimState
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers.hyperstack.provider import Hyperstack
from argosy.testing.conformance.cloud import (
    CloudSubject,
    MovedClock,
    a_claim_with,
    a_machine_claim,
    a_setting,
    hold_case,
    strangers_may_tell_little,
)
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.conformance.refusals import REFUSALS, hold_kills
from argosy.testing.conformance.refusals import Case as Refusal
from argosy.testing.fake_hyperstack import KEY, FakeHyperstack

Cloud = tuple[FakeHyperstack, MovedClock]


class Subject(CloudSubject):
    secrets = (KEY, "PRIVATE KEY")
    calls = ("create", "delete")
    kind = "n3-H100x1"
    cloud: FakeHyperstack

    def claim(self, count: int = 1) -> Claim:
        spot = self.kind.endswith("-spot")
        return a_machine_claim(
            "hyperstack", self.kind, region="CANADA-1", count=count, spot=spot, accelerator="H100"
        )


class Spot(Subject):
    kind = "n3-H100x1-spot"


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeHyperstack(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(
    cloud: Cloud, root: Path, kind: type[Subject] = Subject, environ: Mapping[str, str] | None = None
) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ() | dict(environ or {}))
    return kind(MachineDriver(Hyperstack(setting, call_every_s=0.0), setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    kind = Spot if case_name(case) == "preemption_becomes_a_fact" else Subject
    try:
        hold_case(lambda subject: hold(case, subject), subject_of(cloud, tmp_path, kind))
    except NotApplicable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals(case: Refusal, cloud: Cloud, tmp_path: Path) -> None:
    hold_case(case, subject_of(cloud, tmp_path))


def test_strangers_may_tell_little(cloud: Cloud, tmp_path: Path) -> None:
    hold_case(strangers_may_tell_little, subject_of(cloud, tmp_path))


def test_killed_at_every_call(cloud: Cloud, tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=2) >= 9
    assert (len(cloud[0].keys), len(cloud[0].environments)) == (1, 121)


def test_what_is_asked_for(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        await subject.driver.ensure(claim := subject.claim())
        (asked,) = subject.cloud.called("create")
        assert asked.body.image_name == "Ubuntu Server 22.04 LTS R570 CUDA 12.8"
        assert asked.body.labels == ["argosy", "argosy-nodes:1"]
        ways = [
            (each.protocol, each.remote_ip_prefix, each.port_range_min) for each in asked.body.security_rules
        ]
        assert ways == [("tcp", "0.0.0.0/0", 22), ("tcp", "10.0.0.0/8", 1), ("udp", "10.0.0.0/8", 1)]
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_somebody_shut_down_is_started(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        await subject.driver.ensure(claim := subject.claim())
        (machine,) = subject.cloud.machines()
        subject.cloud.rest(machine)
        machine.extra["shut"] = True
        await subject.pass_time(2)
        await subject.driver.ensure(claim)
        assert len(subject.cloud.called("start")) == 1
        assert machine.state == "running"
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_failed_is_deleted(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        await subject.driver.ensure(claim := subject.claim())
        (machine,) = subject.cloud.machines()
        machine.state = "failed"
        await subject.pass_time(2)
        with pytest.raises(border.OutOfCapacity, match="-0 was not made: its status is ERROR"):
            await subject.driver.ensure(claim)
        assert machine.state == "ended"

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_spot_machine_that_vanished_was_taken_back(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        await subject.driver.ensure(claim := subject.claim())
        await subject.preempt(claim.id)
        await subject.pass_time(61)
        (fact,) = await subject.driver.observe([claim.id])
        assert (fact.state, fact.detail) == (ClaimState.PREEMPTED, f"Hyperstack no longer lists {claim.id}-0")
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path, Spot))


def test_what_is_out_of_stock_is_closed(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        subject.cloud.empty.add(("n3-H100x1", "NORWAY-1"))
        (closed,) = await subject.driver.quote(Want())
        assert (closed.shape.instance_type, closed.region) == ("n3-H100x1", "NORWAY-1")
        assert closed.closed == "Hyperstack has none in stock in NORWAY-1"

    hold_case(case, subject_of(cloud, tmp_path))


def test_credit_that_is_used_up_is_told_by_check(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        (good,) = await subject.driver.check()
        assert good.what == "the key is accepted; the credit is 25.00 $"
        subject.cloud.credit = 0.0
        (bad,) = await subject.driver.check()
        assert bad.what == "the credit at Hyperstack (0.00 $) is too small to launch"
        assert bad.hint == "add to it at https://console.hyperstack.cloud/billing"

    hold_case(case, subject_of(cloud, tmp_path))


def test_the_image_that_a_task_names(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = a_claim_with(subject, Resources(image_id="Ubuntu Server 22.04 LTS R535 CUDA 12.2"))
        await subject.driver.ensure(claim)
        assert subject.cloud.called("create")[0].body.image_name == "Ubuntu Server 22.04 LTS R535 CUDA 12.2"
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


REFUSED = {
    "Flavor n9 does not exist": (
        404,
        "not-found",
        border.RequestRefused,
        r"^Hyperstack says: Flavor n9 does not exist \(not_found\); asked for n3-H100x1 in CANADA-1$",
    ),
    "Region X does not exist": (404, "not-found", border.RequestRefused, "Region X does not exist"),
    "Insufficient credit": (403, "invalid", border.QuotaExceeded, "console.hyperstack.cloud/billing"),
    "A VM with this name exists": (409, "conflict", border.Transient, "with this name exists"),
    "Your organization is suspended": (403, "forbidden", border.QuotaExceeded, "billing page"),
    "Your role does not allow this": (403, "forbidden", border.CredentialsRejected, "does not let these"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_its_own_words(said: str, cloud: Cloud, tmp_path: Path) -> None:
    status, code, kind, text = REFUSED[said]

    async def case(subject: Subject) -> None:
        subject.cloud.refuse("create", subject.cloud.error(status, code, said))
        with pytest.raises(kind, match=text):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))


def test_without_a_key_it_says_where_one_is_made(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        (finding,) = await subject.driver.check()
        assert finding.what == "Hyperstack has no key to use, HYPERSTACK_API_KEY is not set"
        assert finding.hint == "make a key at https://console.hyperstack.cloud and set HYPERSTACK_API_KEY"

    hold_case(case, subject_of(cloud, tmp_path, environ={"HYPERSTACK_API_KEY": ""}))
