"""DigitalOcean's driver against a fake of its API: the suite, a real host, and its own bad inputs."""

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
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers.digitalocean.provider import DigitalOcean
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
from argosy.testing.fake_digitalocean import KEY, FakeDigitalOcean
from argosy.testing.hosts import why_no_hosts

Cloud = tuple[FakeDigitalOcean, MovedClock]


class Subject(CloudSubject):
    secrets = (KEY, "PRIVATE KEY")
    calls = ("create", "destroy")
    takes_back = False
    gaps: Mapping[str, str] = {**CloudSubject.gaps, "preemption_becomes_a_fact": "it takes nothing back"}
    cloud: FakeDigitalOcean

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim(
            "digitalocean", "gpu-h100x1-80gb", region="nyc3", count=count, accelerator="H100"
        )


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeDigitalOcean(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path, **environ: str) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ() | environ)
    vendor = DigitalOcean(setting, call_every_s=0.0)
    return Subject(MachineDriver(vendor, setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    try:
        hold_case(lambda subject: hold(case, subject), subject_of(cloud, tmp_path))
    except NotApplicable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals(case: Refusal, cloud: Cloud, tmp_path: Path) -> None:
    hold_case(case, subject_of(cloud, tmp_path))


def test_strangers_may_tell_little(cloud: Cloud, tmp_path: Path) -> None:
    hold_case(strangers_may_tell_little, subject_of(cloud, tmp_path))


def test_killed_at_every_call(cloud: Cloud, tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=2) >= 6
    assert len(cloud[0].keys) == 1


@pytest.mark.nightly  # as a machine of Lambda, but for the user
@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_droplet_is_reached(tmp_path: Path) -> None:
    with CloudHosts("root") as hosts, FakeDigitalOcean(hosts=hosts) as fake:
        setting = a_setting(tmp_path, MovedClock(), fake.environ())
        setting = msgspec.structs.replace(setting, clock=SystemClock(), ids=SystemIds())
        claim = a_machine_claim("digitalocean", "s-2vcpu-4gb", region="fra1")
        asyncio.run(hold_host_life(MachineDriver(DigitalOcean(setting), setting), claim))


def test_an_order_that_fails_after_it_was_accepted_leaves_nothing(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        subject.cloud.errored, claim = 1, subject.claim(2)
        await subject.driver.ensure(claim)
        await subject.pass_time(30)
        with pytest.raises(border.OutOfCapacity, match=r"-[01] was not made: its creation failed"):
            await subject.driver.ensure(claim)
        assert subject.cloud.machines("failed") == []

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_fails_before_an_order_is_no_order(cloud: Cloud, tmp_path: Path) -> None:
    """The answer to our key was lost: nothing was ordered, so nothing has to be waited for."""

    async def case(subject: Subject) -> None:
        subject.cloud.lost, claim = ["add_key"], subject.claim()
        with pytest.raises(border.Unreachable):
            await subject.driver.ensure(claim)
        assert await subject.driver.observe([]) == []
        await subject.driver.ensure(claim)
        assert (len(subject.cloud.keys), len(subject.cloud.machines())) == (1, 1)
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_droplet_that_somebody_switched_off_is_switched_on(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = subject.claim()
        await subject.driver.ensure(claim)
        subject.cloud.rest(subject.cloud.machines()[0])
        await subject.pass_time(2)
        await subject.driver.ensure(claim)
        assert [each.state for each in subject.cloud.machines()] == ["running"]
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_no_region_has_is_closed(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        (closed,) = await subject.driver.quote(Want())
        assert (closed.shape.instance_type, closed.region) == ("gpu-none", "")
        assert closed.closed == "no region of DigitalOcean has one now"

    hold_case(case, subject_of(cloud, tmp_path))


def test_all_is_closed_for_an_account_at_its_limit(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        await subject.driver.ensure(claim := subject.claim(2))
        subject.cloud.quota = 2
        (closed,) = await subject.driver.quote(Want())
        assert (closed.shape.instance_type, closed.region) == ("", "")
        assert closed.closed == "the account has 2 droplets, which is its limit"
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


IMAGES = {
    "ubuntu-22-04-x64": (Resources(image_id="ubuntu-22-04-x64"), "ubuntu-22-04-x64"),
    "by number": (Resources(image_id="7555620"), 7555620),
    "by region": (Resources(extra='{"image_id": {"nyc3": "mine"}}'), "mine"),
    "none": (Resources(), "gpu-h100x1-base"),
}


@pytest.mark.parametrize("image", IMAGES)
def test_the_image_that_a_task_names(image: str, cloud: Cloud, tmp_path: Path) -> None:
    asked, told = IMAGES[image]

    async def case(subject: Subject) -> None:
        await subject.driver.ensure(claim := a_claim_with(subject, asked))
        assert subject.cloud.called("create")[0].body.image == told
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_images_that_cannot_be_had(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        elsewhere = Resources(extra='{"image_id": {"fra1": "mine"}}')
        with pytest.raises(border.RequestRefused, match="`image_id` has no image for nyc3: it has fra1"):
            await subject.driver.ensure(a_claim_with(subject, elsewhere))
        container = Resources(image_id="docker:ubuntu")
        with pytest.raises(border.Unsupported, match="machines of DigitalOcean run no container images"):
            await subject.driver.ensure(a_claim_with(subject, container))
        assert subject.cloud.called("create") == []

    hold_case(case, subject_of(cloud, tmp_path))


REFUSED = {
    "You specified an invalid size for Droplet creation.": (border.RequestRefused, "DigitalOcean says: "),
    "Region is not available": (border.OutOfCapacity, "DigitalOcean has no gpu-h100x1-80gb in nyc3 now: "),
    "This size is currently restricted.": (border.OutOfCapacity, "has no gpu-h100x1-80gb in nyc3 now"),
    "Droplet already has a pending event.": (border.Transient, "pending event"),
    "Your account is locked": (border.CredentialsRejected, "/account/billing"),
    "this will exceed your droplet limit": (border.QuotaExceeded, "droplet_limit_increase"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_its_own_words(said: str, cloud: Cloud, tmp_path: Path) -> None:
    kind, text = REFUSED[said]

    async def case(subject: Subject) -> None:
        subject.cloud.refuse("create", subject.cloud.error(422, "invalid", said))
        with pytest.raises(kind, match=text):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_locked_account_is_told_by_check(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        (good,) = await subject.driver.check()
        assert good.what == "the token is accepted; the account may have 25 droplets"
        subject.cloud.status = "locked"
        (bad,) = await subject.driver.check()
        assert bad.what == "DigitalOcean has locked this account: it says no more"
        assert bad.hint == "look at https://cloud.digitalocean.com/account/billing"

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_token_is_looked_for_where_doctl_keeps_it(cloud: Cloud, tmp_path: Path) -> None:
    home = {"DIGITALOCEAN_TOKEN": "", "HOME": str(tmp_path)}

    async def missing(subject: Subject) -> None:
        (finding,) = await subject.driver.check()
        assert finding.what == (
            "DigitalOcean has no token to use, neither in DIGITALOCEAN_TOKEN, "
            "DIGITALOCEAN_ACCESS_TOKEN nor in ~/.config/doctl/config.yaml"
        )
        assert finding.hint == "`doctl auth init`"

    hold_case(missing, subject_of(cloud, tmp_path, **home))
    config = tmp_path / ".config/doctl/config.yaml"
    config.parent.mkdir(parents=True)
    for text in (f"access-token: {KEY}", f"context: work\naccess-token: x\nauth-contexts:\n  work: {KEY}"):
        config.write_text(text)

        async def found(subject: Subject) -> None:
            assert [each.ok for each in await subject.driver.check()] == [True]

        hold_case(found, subject_of(cloud, tmp_path, **home))
