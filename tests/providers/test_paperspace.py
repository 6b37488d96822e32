"""Paperspace's driver against a fake of its API: the suite, machines that are never ready, bad inputs."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.machines import of_name
from argosy.infra.provider import Want
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers.paperspace.provider import Paperspace
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
from argosy.testing.fake_cloud import FakeMachine
from argosy.testing.fake_paperspace import KEY, FakePaperspace

Cloud = tuple[FakePaperspace, MovedClock]


class Subject(CloudSubject):
    secrets = (KEY, "PRIVATE KEY")
    calls = ("create", "delete")
    takes_back = False
    gaps: Mapping[str, str] = {**CloudSubject.gaps, "preemption_becomes_a_fact": "it takes nothing back"}
    cloud: FakePaperspace

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim(
            "paperspace", "H100", region="East Coast (NY2)", count=count, accelerator="H100"
        )

    def claim_of(self, machine: FakeMachine) -> str:
        named = of_name(machine.name.partition(" ")[0])
        return named[0] if named is not None else ""


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakePaperspace(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path, environ: Mapping[str, str] | None = None) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ() | dict(environ or {}))
    return Subject(MachineDriver(Paperspace(setting, call_every_s=0.0), setting, settle_s=0.0), fake, clock)


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
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=2) >= 9
    assert (len(cloud[0].scripts), len(cloud[0].networks)) == (1, 1)


def test_what_is_asked_for(cloud: Cloud, tmp_path: Path) -> None:
    """A template with drivers, a disk that it fits on, a network where there are several nodes."""

    async def case(subject: Subject) -> None:
        claim = subject.claim()
        await subject.driver.ensure(claim)
        (asked,) = subject.cloud.called("create")
        assert asked.body.name == f"{claim.id}-0 argosy 1"
        assert (asked.body.template_id, asked.body.disk_size) == ("tml", 250)
        assert asked.body.network_id is None
        (script,) = subject.cloud.scripts.values()
        assert script.is_run_once
        assert "ssh-ed25519 " in script.script
        assert subprocess.run(["sh", "-n"], input=script.script, text=True, check=False).returncode == 0
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


TOLD = {
    "": "-0 was not made: it was not ready within 10 minutes",
    "No room for this machine": "-0 was not made: No room for this machine",
}


@pytest.mark.parametrize("told", TOLD)
def test_a_machine_that_is_never_ready_goes(told: str, cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        await subject.driver.ensure(claim := subject.claim())
        subject.cloud.stuck[subject.cloud.machines()[0].id] = told
        await subject.pass_time(30)
        if not told:
            await subject.driver.ensure(claim)
            await subject.pass_time(600)
        with pytest.raises(border.OutOfCapacity, match=TOLD[told]):
            await subject.driver.ensure(claim)
        assert subject.cloud.machines() == []

    hold_case(case, subject_of(cloud, tmp_path))


def test_the_image_that_a_task_names(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = a_claim_with(subject, Resources(image_id="t20"))
        await subject.driver.ensure(claim)
        assert subject.cloud.called("create")[0].body.template_id == "t20"
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


REFUSED = {
    "This machine is currently starting.": (400, border.Transient, "currently starting"),
    "You are not approved for this machine type": (403, border.QuotaExceeded, "console.paperspace.com"),
    "Your account is suspended": (403, border.QuotaExceeded, "billing page"),
    "Template not found": (404, border.RequestRefused, "^Paperspace says: Template not found"),
    "Members cannot create machines": (403, border.CredentialsRejected, "does not let these credentials"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_its_own_words(said: str, cloud: Cloud, tmp_path: Path) -> None:
    status, kind, text = REFUSED[said]

    async def case(subject: Subject) -> None:
        subject.cloud.refuse("create", subject.cloud.error(status, "invalid", said))
        with pytest.raises(kind, match=text):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))


def test_types_and_disks_that_it_does_not_have(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = a_machine_claim("paperspace", "H900", region="East Coast (NY2)")
        with pytest.raises(border.RequestRefused, match="no template of Ubuntu for `H900`"):
            await subject.driver.ensure(claim)
        choice = msgspec.structs.replace(claim.choice, resources=Resources(disk_size_bytes=3 * 10**12))
        with pytest.raises(border.RequestRefused, match="at most 2000 GB"):
            await subject.driver.ensure(msgspec.structs.replace(claim, choice=choice))

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_key_is_looked_for_in_two_places(cloud: Cloud, tmp_path: Path) -> None:
    none = {"PAPERSPACE_API_KEY": "", "HOME": str(tmp_path)}

    async def missing(subject: Subject) -> None:
        (finding,) = await subject.driver.check()
        assert finding.what == (
            "Paperspace has no key to use, neither in PAPERSPACE_API_KEY nor in ~/.paperspace/config.json"
        )
        assert finding.hint.startswith("make a key at https://console.paperspace.com/settings/apikeys")
        with pytest.raises(border.CredentialsRejected):
            await subject.driver.quote(Want())

    async def found(subject: Subject) -> None:
        assert [each.what for each in await subject.driver.check()] == ["the key is accepted"]

    hold_case(missing, subject_of(cloud, tmp_path, none))
    (tmp_path / ".paperspace").mkdir()
    (tmp_path / ".paperspace/config.json").write_text(f'{{"name": "a", "apiKey": "{KEY}"}}')
    hold_case(found, subject_of(cloud, tmp_path, none))
