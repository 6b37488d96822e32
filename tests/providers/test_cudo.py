"""Cudo Compute's driver against a fake of its API: the suite, room that is asked before, bad inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers.cudo.provider import Cudo
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
from argosy.testing.fake_cudo import KEY, FakeCudo

Cloud = tuple[FakeCudo, MovedClock]
KIND = "ice-lake-a40_1x4v16gb"
PLACE = "se-stockholm-1"


class Subject(CloudSubject):
    secrets = (KEY, "PRIVATE KEY")
    calls = ("create", "terminate")
    takes_back = False
    gaps: Mapping[str, str] = {**CloudSubject.gaps, "preemption_becomes_a_fact": "it takes nothing back"}
    cloud: FakeCudo

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("cudo", KIND, region=PLACE, count=count, accelerator="A40")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeCudo(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path, environ: Mapping[str, str] | None = None) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ() | dict(environ or {}))
    return Subject(MachineDriver(Cudo(setting, call_every_s=0.0), setting, settle_s=0.0), fake, clock)


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
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=2) >= 8


def test_what_is_asked_for(cloud: Cloud, tmp_path: Path) -> None:
    """The size that the type's name tells, the newest image with drivers, the disk of the wish."""

    async def case(subject: Subject) -> None:
        claim = a_claim_with(subject, Resources(disk_size_bytes=200 * 2**30))
        await subject.driver.ensure(claim)
        asked = subject.cloud.called("create")[0].body
        assert (asked.machine_type, asked.gpus, asked.vcpus, asked.memory_gib) == ("ice-lake-a40", 1, 4, 16)
        assert asked.boot_disk_image_id == "ubuntu-2204-nvidia-550-docker-v20240905"
        assert asked.boot_disk.size_gib == 200
        assert asked.vm_id == f"{claim.id}-0"
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_changes_is_terminated_later(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim, subject.cloud.boot_s = subject.claim(), 60.0
        await subject.driver.ensure(claim)
        with pytest.raises(border.Transient, match=f"ends {claim.id}-0 when it is no longer STARTING"):
            await subject.driver.release(claim.id)
        await subject.pass_time(61)
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_failed_is_terminated(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        await subject.driver.ensure(claim := subject.claim())
        (machine,) = subject.cloud.machines()
        machine.state = "failed"
        await subject.pass_time(2)
        with pytest.raises(border.OutOfCapacity, match="-0 was not made: its state is FAILED"):
            await subject.driver.ensure(claim)
        assert machine.state == "ended"

    hold_case(case, subject_of(cloud, tmp_path))


PLACES = {
    ("us-dallas-1", KIND): (
        border.OutOfCapacity,
        "has no host with room for ice-lake-a40_1x4v16gb in us-dallas-1",
    ),
    ("xx-nowhere-1", KIND): (border.RequestRefused, "Cudo Compute has no data centre `xx-nowhere-1`"),
    (PLACE, "z80_1x1v1gb"): (border.RequestRefused, "has no `z80`; it has ice-lake-a40, sapphire-rapids"),
    (PLACE, "big"): (border.RequestRefused, "`big` is no type and size of Cudo Compute, such as"),
    ("", KIND): (border.RequestRefused, "an order at Cudo Compute names a data centre"),
}


@pytest.mark.parametrize("place", PLACES, ids=lambda place: " ".join(place))
def test_where_nothing_can_be_had(place: tuple[str, str], cloud: Cloud, tmp_path: Path) -> None:
    kind, text = PLACES[place]

    async def case(subject: Subject) -> None:
        with pytest.raises(kind, match=text):
            await subject.driver.ensure(a_machine_claim("cudo", place[1], region=place[0]))
        assert subject.cloud.called("create") == []

    hold_case(case, subject_of(cloud, tmp_path))


def test_the_image_that_a_task_names(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = a_claim_with(subject, Resources(image_id="ubuntu-2404"))
        await subject.driver.ensure(claim)
        assert subject.cloud.called("create")[0].body.boot_disk_image_id == "ubuntu-2404"
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


REFUSED = {
    "billing account is not active": (400, "9", border.QuotaExceeded, "https://compute.cudo.org"),
    "project limit exceeded": (429, "8", border.QuotaExceeded, "ask Cudo Compute for more"),
    "not enough resources": (400, "9", border.OutOfCapacity, f"has no {KIND} in {PLACE} now"),
    "invalid VM ID": (400, "3", border.RequestRefused, "^Cudo Compute says: invalid VM ID"),
    "permission denied": (403, "7", border.CredentialsRejected, "does not let these credentials"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_its_own_words(said: str, cloud: Cloud, tmp_path: Path) -> None:
    status, code, kind, text = REFUSED[said]

    async def case(subject: Subject) -> None:
        subject.cloud.refuse("create", subject.cloud.error(status, code, said))
        with pytest.raises(kind, match=text):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_project_that_is_not_there_or_that_nobody_pays(cloud: Cloud, tmp_path: Path) -> None:
    async def good(subject: Subject) -> None:
        assert [each.what for each in await subject.driver.check()] == [
            "the key is accepted for the project `research`"
        ]
        subject.cloud.billing_account = ""
        (bad,) = await subject.driver.check()
        assert bad.what == "nobody pays for the project `research` at Cudo Compute"
        assert bad.hint == "give it a billing account at https://compute.cudo.org"

    async def elsewhere(subject: Subject) -> None:
        (bad,) = await subject.driver.check()
        assert bad.what == "Cudo Compute has no project `other` for this key"
        assert bad.hint == "name one of yours in CUDO_PROJECT"

    hold_case(good, subject_of(cloud, tmp_path))
    hold_case(elsewhere, subject_of(cloud, tmp_path, {"CUDO_PROJECT": "other"}))


def test_access_is_looked_for_where_cudoctl_keeps_it(cloud: Cloud, tmp_path: Path) -> None:
    none = {"CUDO_API_KEY": "", "HOME": str(tmp_path)}

    async def missing(subject: Subject) -> None:
        (finding,) = await subject.driver.check()
        assert finding.what == (
            "Cudo Compute has no key to use, neither in CUDO_API_KEY and CUDO_PROJECT nor in "
            "~/.config/cudo/cudo.yml"
        )
        assert finding.hint == "`cudoctl init`"

    async def found(subject: Subject) -> None:
        assert [each.ok for each in await subject.driver.check()] == [True]

    hold_case(missing, subject_of(cloud, tmp_path, none))
    config = tmp_path / ".config/cudo/cudo.yml"
    config.parent.mkdir(parents=True)
    config.write_text(
        "configVersion: v0\ncurrent-context: work\n"
        "contexts:\n- {name: work, key: mine, project: research}\n"
        f"keys:\n- {{name: mine, key: {KEY}}}\n"
    )
    hold_case(found, subject_of(cloud, tmp_path, none))
