"""Samsung Cloud Platform's driver against a fake that is built to published shapes; nobody tried it there."""

from __future__ import annotations

import base64
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers.scp.provider import Access, Scp, signature
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
from argosy.testing.fake_scp import KEY, PROJECT, SECRET, ZONE, FakeScp

Cloud = tuple[FakeScp, MovedClock]
KIND = "g1v16a1"


class Subject(CloudSubject):
    secrets = (SECRET, "PRIVATE KEY")
    calls = ("create", "delete")
    takes_back = False
    gaps: Mapping[str, str] = {**CloudSubject.gaps, "preemption_becomes_a_fact": "it takes nothing back"}
    cloud: FakeScp

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("scp", KIND, region=ZONE, count=count, accelerator="A100-80GB")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeScp(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(
    cloud: Cloud, root: Path, environ: Mapping[str, str] | None = None, *, ready: bool = True
) -> Subject:
    fake, clock = cloud
    fake.reset()
    if ready and not fake.keeps and not fake.groups:
        fake.groups[GROUP] = ("VPC-1", 0.0)
    setting = a_setting(root, clock, fake.environ() | dict(environ or {}))
    return Subject(MachineDriver(Scp(setting, call_every_s=0.0), setting, settle_s=0.0), fake, clock)


GROUP = "argosyad506745"


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
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path) >= 15
    assert [len(each) for each in cloud[0].rules.values()] == [3, 2]


def test_what_is_asked_for(cloud: Cloud, tmp_path: Path) -> None:
    """An image for GPUs, a disk in tens of GB, a script that lets us in, and ways for ssh."""

    async def case(subject: Subject) -> None:
        claim = a_claim_with(subject, Resources(disk_size_bytes=101 * 10**9))
        claim = msgspec.structs.replace(claim, tag="sto-01m8mk3c607f1f8625q0")
        await subject.driver.ensure(claim)
        asked = subject.cloud.called("create")[0].body
        assert (asked.image_id, asked.block_storage.disk_size) == ("IMAGE-GPU", 110)
        assert asked.block_storage.block_storage_name == "argosy 1 sto-01m8mk3c607f1f8"
        script = base64.b64decode(asked.initial_script.initial_script_content).decode()
        assert "ssh-ed25519 " in script
        assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
        group, wall = subject.cloud.rules[f"GROUP-{GROUP}"], subject.cloud.rules["FIREWALL-1"]
        assert [(each.rule_direction, each.source_ip_addresses) for each in group] == [
            ("IN", ["0.0.0.0/0"]),
            ("OUT", []),
            ("IN", ["192.168.0.0/24"]),
        ]
        assert [each.destination_ip_addresses for each in wall] == [["192.168.0.0/24"], ["0.0.0.0/0"]]
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_group_that_is_being_made_is_waited_for(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim, subject.cloud.group_s = subject.claim(), 20.0
        for _ in range(2):
            with pytest.raises(border.Transient, match="makes a security group: that takes a moment"):
                await subject.driver.ensure(claim)
        await subject.pass_time(21)
        await subject.driver.ensure(claim)
        assert len(subject.cloud.groups) == 1
        assert len(subject.cloud.machines()) == 1
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path, ready=False))


def test_what_is_busy_is_deleted_later(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim, subject.cloud.boot_s = subject.claim(), 60.0
        await subject.driver.ensure(claim)
        with pytest.raises(border.Transient, match="There is an ongoing request"):
            await subject.driver.release(claim.id)
        await subject.pass_time(61)
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_what_people_have_to_make_is_named(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        elsewhere = a_machine_claim("scp", KIND, region="KOREA-9")
        with pytest.raises(border.RequestRefused, match=f"no service zone `KOREA-9`; it has {ZONE}"):
            await subject.driver.ensure(elsewhere)
        subject.cloud.key_pairs = []
        with pytest.raises(border.RequestRefused, match=r"no key pair at .*; make one in the console"):
            await subject.driver.ensure(subject.claim())
        subject.cloud.subnets = []
        with pytest.raises(
            border.RequestRefused, match="no VPC with an internet gateway and a public subnet"
        ):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))


def test_the_image_that_a_task_names(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        claim = a_claim_with(subject, Resources(image_id="IMAGE-20"))
        await subject.driver.ensure(claim)
        assert subject.cloud.called("create")[0].body.image_id == "IMAGE-20"
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


REFUSED = {
    "The server type is not available": (400, border.OutOfCapacity, f"has no {KIND} in {ZONE} now"),
    "The project is suspended": (403, border.QuotaExceeded, "billing page"),
    "The name is not valid": (400, border.RequestRefused, "^Samsung Cloud Platform says: The name is not"),
    "You have no right to do this": (403, border.CredentialsRejected, "does not let these credentials"),
}


@pytest.mark.parametrize("said", REFUSED)
def test_its_own_words(said: str, cloud: Cloud, tmp_path: Path) -> None:
    status, kind, text = REFUSED[said]

    async def case(subject: Subject) -> None:
        subject.cloud.refuse("create", subject.cloud.error(status, "invalid", said))
        with pytest.raises(kind, match=text):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))


def test_a_signature_covers_what_is_sent() -> None:
    access = Access("a", "s", "p")
    one = signature(access, "GET", "https://host/path?size=999", "1700000000000")
    assert one == "zJ4GmSiuwLd2oT0NQTnjAGFsOxXaCFcX0A2s5J3wO+Q="
    assert signature(access, "POST", "https://host/path?size=999", "1700000000000") != one
    assert signature(access, "GET", "https://host/path?size=998", "1700000000000") != one
    assert signature(access, "GET", "https://host/path?size=999", "1700000000001") != one


def test_access_is_looked_for_in_two_places(cloud: Cloud, tmp_path: Path) -> None:
    none = {"SCP_ACCESS_KEY": "", "HOME": str(tmp_path)}

    async def missing(subject: Subject) -> None:
        (finding,) = await subject.driver.check()
        assert finding.what == (
            "Samsung Cloud Platform has no access key, secret key and project to use, neither in "
            "SCP_ACCESS_KEY and SCP_SECRET_KEY and SCP_PROJECT_ID nor in ~/.scp/scp_credential"
        )
        assert finding.hint.startswith("make an access key in the console")

    async def found(subject: Subject) -> None:
        (finding,) = await subject.driver.check()
        assert finding.what == f"the access key is accepted; the project has the service zones {ZONE}"

    hold_case(missing, subject_of(cloud, tmp_path, none))
    (tmp_path / ".scp").mkdir()
    told = f"access_key = {KEY}\nsecret_key = {SECRET}\nproject_id = {PROJECT}\n"
    (tmp_path / ".scp/scp_credential").write_text(told)
    hold_case(found, subject_of(cloud, tmp_path, none))
