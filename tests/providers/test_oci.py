"""OCI's driver against a fake of its API that checks signatures: the suite, a real host, its bad inputs."""

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
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.providers.oci.account import profile_in
from argosy.providers.oci.provider import Oci
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
from argosy.testing.fake_oci import FakeOci
from argosy.testing.hosts import why_no_hosts

Cloud = tuple[FakeOci, MovedClock]
REGION = "eu-frankfurt-1"


class Subject(CloudSubject):
    calls = ("launch", "terminate")
    cloud: FakeOci

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim(
            "oci", "VM.GPU.A10.1", region=REGION, count=count, spot=self.spot, accelerator="A10"
        )

    spot = False


class SpotSubject(Subject):
    spot = True


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeOci(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path, kind: type[Subject] = Subject, **environ: str) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ() | environ)
    return kind(MachineDriver(Oci(setting), setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    kind = SpotSubject if case_name(case) == "preemption_becomes_a_fact" else Subject
    try:
        hold_case(lambda subject: hold(case, subject), subject_of(cloud, tmp_path, kind))
    except NotApplicable as reason:
        pytest.skip(str(reason))


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals(case: Refusal, cloud: Cloud, tmp_path: Path) -> None:
    hold_case(case, subject_of(cloud, tmp_path))


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.nightly), 5])
def test_killed_at_calls(cloud: Cloud, tmp_path: Path, step: int) -> None:
    """Also while the network is made: there is one of each part."""
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=2, step=step) * step >= 12
    kinds = [path for path, _ in cloud[0].things.values()]
    assert len(kinds) == len(set(kinds)) == 3


@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_machine_is_reached(tmp_path: Path) -> None:
    with CloudHosts("ubuntu") as hosts, FakeOci(hosts=hosts) as fake:
        setting = a_setting(tmp_path, MovedClock(), fake.environ())
        setting = msgspec.structs.replace(setting, clock=SystemClock(), ids=SystemIds())
        claim = a_machine_claim("oci", "VM.Standard.E4.Flex$_4_16", region=REGION)
        asyncio.run(hold_host_life(MachineDriver(Oci(setting), setting), claim))


def test_what_a_launch_says(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        wish = Resources(disk_size_bytes=200 * GIB, disk_tier="high", labels=(("team", "vision"),))
        claim = a_machine_claim("oci", "VM.Standard.A1.Flex$_4_16", region=REGION, zone="AD-2", wish=wish)
        await subject.driver.ensure(claim)
        (asked,) = [ask.body for ask in subject.cloud.called("launch")]
        assert asked.availability_domain == "Uocm:EU-FRANKFURT-1-AD-2"
        assert (asked.shape, asked.shape_config.ocpus) == ("VM.Standard.A1.Flex", 4)
        assert (
            asked.source_details.boot_volume_size_in_g_bs,
            asked.source_details.boot_volume_vpus_per_g_b,
        ) == (200, 20)
        assert asked.freeform_tags["team"] == "vision"
        assert asked.freeform_tags["argosy-user"] == "ubuntu"
        await subject.driver.release(claim.id)

    hold_case(case, subject_of(cloud, tmp_path))


def test_the_next_domain_is_tried_and_all_are_told(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        domain = "Uocm:EU-FRANKFURT-1-AD-1"
        subject.cloud.capacity = {("VM.GPU.A10.1", domain): 0}
        claim = subject.claim(2)
        await subject.driver.ensure(claim)
        assert {each.zone for each in subject.cloud.machines()} == {"Uocm:EU-FRANKFURT-1-AD-2"}
        await subject.driver.release(claim.id)
        subject.cloud.capacity = {("VM.GPU.A10.1", ""): 0}
        with pytest.raises(
            border.OutOfCapacity, match=r"no zone of eu-frankfurt-1 has VM.GPU.A10.1: OCI has no .*AD-2"
        ):
            await subject.driver.ensure(subject.claim())
        subject.cloud.reports = False  # many accounts may not ask
        with pytest.raises(border.OutOfCapacity, match="Out of host capacity"):
            await subject.driver.ensure(subject.claim())

    hold_case(case, subject_of(cloud, tmp_path))


def test_regions_and_names_that_are_wrong(cloud: Cloud, tmp_path: Path) -> None:
    async def case(subject: Subject) -> None:
        wrong = a_machine_claim("oci", "VM.GPU.A10.1", region="mars-1")
        text = "OCI's region mars-1 is not subscribed: subscribe to it in the console"
        with pytest.raises(border.RequestRefused, match=text):
            await subject.driver.ensure(wrong)
        wrong = a_machine_claim("oci", "XX.1", region=REGION)
        with pytest.raises(border.RequestRefused, match=r"says: Shape XX.1 is not valid"):
            await subject.driver.ensure(wrong)
        config = '{"oci": {"region_configs": {"default": {"vcn_subnet": "ocid1.subnet.none"}}}}'
        wrong = msgspec.structs.replace(subject.claim(), config=config)
        text = "Subnet not found.* a policy does not allow it"
        with pytest.raises(border.CredentialsRejected, match=text):
            await subject.driver.ensure(wrong)
        wrong = msgspec.structs.replace(subject.claim(), config='{"oci": {"region_configs": 5}}')
        with pytest.raises(border.RequestRefused, match=r"`config.oci` of the task: Expected"):
            await subject.driver.ensure(wrong)
        assert subject.truth() == set()

    hold_case(case, subject_of(cloud, tmp_path))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, r"OCI has no credentials in .*/config; `oci setup config`"),
        ("user=x", r"has no profile DEFAULT that can be read; `oci setup config`"),
        ("[DEFAULT]\nuser=x\nregion=y\n", r"lacks fingerprint, tenancy, key_file; `oci setup config`"),
    ],
)
def test_credentials_that_are_missing(tmp_path: Path, text: str | None, said: str) -> None:
    path = tmp_path / "config"
    if text is not None:
        path.write_text(text)
    with pytest.raises(border.CredentialsRejected, match=said):
        profile_in({"OCI_CONFIG_FILE": str(path)})


def test_a_key_that_is_none(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    path = Path(subject.cloud.environ()["OCI_CONFIG_FILE"])
    (path.parent / "key.pem").write_text("not a key")
    setting = a_setting(
        tmp_path, subject.clock, {"OCI_CONFIG_FILE": str(path), "OCI_API_URL": subject.cloud.url}
    )

    async def act() -> None:
        (finding,) = await MachineDriver(Oci(setting), setting).check()
        assert not finding.ok
        assert "is not a private key, or its pass phrase is wrong" in finding.what
        assert finding.hint == "`oci setup config`"

    asyncio.run(act())
