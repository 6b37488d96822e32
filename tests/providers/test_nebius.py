"""Nebius' driver against a fake that speaks gRPC in the vendor's own messages: the suite, a real host behind
a machine, GPU clusters, and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("nebius", reason="the SDK of Nebius is not installed: argosy[nebius]")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Setting, Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimState
from argosy.model.resources import Networking, Resources
from argosy.model.rows import Claim
from argosy.model.units import GIB
from argosy.providers.nebius.provider import Nebius
from argosy.testing.cloud_hosts import CloudHosts
from argosy.testing.conformance.cloud import (
    CloudSubject,
    MovedClock,
    a_machine_claim,
    a_setting,
    hold_host_life,
)
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, gone, hold, settled
from argosy.testing.conformance.refusals import (
    REFUSALS,
    a_clock_that_is_off_is_named,
    hold_kills,
    too_many_calls_wait_as_long_as_they_are_told,
)
from argosy.testing.conformance.refusals import Case as Refusal
from argosy.testing.fake_nebius import TOKEN, FakeNebiusCloud
from argosy.testing.hosts import why_no_hosts

KIND, GPUS = "cpu-d3_4vcpu-16gb", "gpu-h100-sxm_8gpu-128vcpu-1600gb"
GPU = "gpu-h100-sxm_1gpu-16vcpu-200gb"
REGION = "eu-north1"


class Subject(CloudSubject):
    secrets: tuple[str, ...] = (TOKEN, "PRIVATE KEY")
    calls = ("create", "delete")
    cloud: FakeNebiusCloud

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("nebius", KIND, region=REGION, count=count)

    async def make_foreign(self) -> None:
        self.cloud.order(name="web-1", kind=KIND, region=REGION, extra={"parent": "project-e00"})


class SpotSubject(Subject):
    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("nebius", GPU, region=REGION, count=count, spot=True, accelerator="H100")


@pytest.fixture(scope="module")
def cloud() -> Iterator[tuple[FakeNebiusCloud, MovedClock]]:
    clock = MovedClock()
    with FakeNebiusCloud(now=clock.now_s) as fake:
        yield fake, clock


Cloud = tuple[FakeNebiusCloud, MovedClock]


def subject_of(cloud: Cloud, root: Path, kind: type[Subject] = Subject) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ())
    return kind(MachineDriver(Nebius(setting), setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    takes_back = case_name(case) == "preemption_becomes_a_fact"
    subject = subject_of(cloud, tmp_path, SpotSubject if takes_back else Subject)

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


@pytest.mark.nightly
@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_machine_is_reached(tmp_path: Path) -> None:
    with CloudHosts("ubuntu") as hosts, FakeNebiusCloud(hosts=hosts) as fake:
        environ = fake.environ()
        setting = Setting(root=tmp_path, clock=SystemClock(), ids=SystemIds(), environ=environ, home=tmp_path)
        claim = a_machine_claim("nebius", KIND, region=REGION)
        asyncio.run(hold_host_life(MachineDriver(Nebius(setting), setting), claim))


#: gRPC tells neither its server's clock nor how long to wait.
_SAID = (a_clock_that_is_off_is_named, too_many_calls_wait_as_long_as_they_are_told)


@pytest.mark.parametrize("case", [each for each in REFUSALS if each not in _SAID], ids=case_name)
def test_refusals(case: Refusal, cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)

    async def act() -> None:
        await case(subject)
        await subject.driver.disconnect()

    asyncio.run(act())


@pytest.mark.parametrize("count", [1, pytest.param(2, marks=pytest.mark.nightly)])
def test_killed_at_every_call(count: int, cloud: Cloud, tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=count) >= 6


def fails(subject: Subject, claim: Claim, kind: type[border.BorderError]) -> str:
    async def act() -> str:
        with pytest.raises(kind) as caught:
            await subject.driver.ensure(claim)
        await subject.driver.disconnect()
        return str(caught.value)

    return asyncio.run(act())


def test_shortage_that_the_operation_tells_leaves_nothing(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.late, subject.cloud.capacity[(KIND, "")] = {KIND}, 1
    said = fails(subject, subject.claim(count=2), border.OutOfCapacity)
    assert said == f"Nebius has no {KIND} in eu-north1: no {KIND} left"
    assert subject.cloud.machines("starting", "running", "stopped", "failed") == []


def test_a_start_that_failed_later_is_told_and_goes(cloud: Cloud, tmp_path: Path) -> None:
    """The server that ordered it was gone when the operation failed."""
    subject = subject_of(cloud, tmp_path)
    claim = subject.claim()

    async def act() -> None:
        await subject.driver.ensure(claim)
        (machine,) = subject.cloud.machines()
        machine.state = "failed"
        failed = subject.cloud._operation(machine.id, subject.cloud.shortage(KIND))
        subject.cloud.operations[machine.id] = [failed]
        (fact,) = await subject.driver.observe([claim.id])
        assert fact.state is ClaimState.GONE
        assert f"no {KIND} left" in fact.detail
        await subject.driver.release(claim.id)
        await gone(subject, claim.id)
        assert subject.cloud.machines("failed") == []
        await subject.driver.disconnect()

    asyncio.run(act())


def gang(count: int = 2, config: str = "") -> Claim:
    wish = Resources(config=config)
    claim = a_machine_claim("nebius", GPUS, region=REGION, count=count, accelerator="H100", wish=wish)
    offer = claim.choice.offer
    shape = msgspec.structs.replace(offer.shape, accelerators_milli=8000)
    choice = msgspec.structs.replace(
        claim.choice, offer=msgspec.structs.replace(offer, shape=shape), accelerators_milli=8000
    )
    return msgspec.structs.replace(claim, choice=choice)


def test_a_gang_with_eight_gpus_has_a_gpu_cluster_that_goes_with_it(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.advised = {(GPUS, "fabric-3"): 1, (GPUS, "fabric-4"): 8}
    claim = gang()

    async def act() -> None:
        await subject.driver.ensure(claim)
        await settled(subject, claim.id)
        (cluster,) = subject.cloud.clusters.values()
        assert cluster.spec.infiniband_fabric == "fabric-4"  # where there is most room
        assert {each.extra["spec"].gpu_cluster.id for each in subject.cloud.machines()} == {
            cluster.metadata.id
        }
        await subject.driver.release(claim.id)
        await subject.driver.observe([])  # the machines are gone: so may the cluster
        assert subject.cloud.clusters == {}
        assert await subject.driver.observe([]) == []
        await subject.driver.disconnect()

    asyncio.run(act())


def test_no_gpu_cluster_stays_after_a_refusal(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.capacity[(GPUS, "")] = 1
    claim = gang(config='{"nebius": {"region_configs": {"eu-north1": {"fabric": "fabric-3"}}}}')

    async def act() -> None:
        with pytest.raises(border.OutOfCapacity):
            await subject.driver.ensure(claim)
        await subject.driver.observe([])
        assert subject.cloud.clusters == {}
        await subject.driver.disconnect()

    asyncio.run(act())


@pytest.mark.nightly
def test_killed_at_every_call_of_a_gang_with_a_gpu_cluster(cloud: Cloud, tmp_path: Path) -> None:
    class Gangs(Subject):
        def claim(self, count: int = 1) -> Claim:
            return gang(count)

        async def pass_time(self, seconds: float) -> None:
            await super().pass_time(seconds)
            await self.driver.observe([])

    assert hold_kills(lambda root: subject_of(cloud, root, Gangs), tmp_path, count=2) >= 8
    assert cloud[0].clusters == {}


def test_what_cannot_be_had_now_is_closed(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.advised = {(GPUS, "fabric-3"): 0, (GPUS, "fabric-4"): 0}

    async def act() -> None:
        offers = await subject.driver.vendor.quote(Want())
        assert {(each.shape.instance_type, each.capacity.value, each.closed) for each in offers} == {
            (GPUS, "on-demand", "Nebius has none in eu-north1 now"),
            (GPUS, "spot", "Nebius has none in eu-north1 now"),
        }
        subject.cloud.quota = 0
        offers = await subject.driver.vendor.quote(Want())
        assert {each.closed for each in offers} == {"the account's quota in eu-north1 is used up (0)"}
        await subject.driver.disconnect()

    asyncio.run(act())


def test_an_order_says_disk_image_subnet_and_price(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    wish = Resources(
        disk_size_bytes=300 * GIB,
        disk_tier="best",
        image_id="computeimage-mine",
        labels=(("team", "a"),),
        networking=Networking(subnet_names=("lab",), security_groups=("vpcsecuritygroup-1",)),
        config='{"nebius": {"use_internal_ips": true}}',
    )
    claim = a_machine_claim("nebius", GPU, region=REGION, spot=True, accelerator="H100", wish=wish)

    async def act() -> None:
        await subject.driver.ensure(claim)
        await subject.driver.disconnect()

    asyncio.run(act())
    (call,) = subject.cloud.called("create")
    spec = call.body.spec
    disk = spec.boot_disk.managed_disk.spec
    assert (disk.size_gibibytes, disk.type.name) == (372, "NETWORK_SSD_IO_M3")
    assert disk.source_image_id == "computeimage-mine"
    card = spec.network_interfaces[0]
    assert (card.subnet_id, card.security_groups[0].id) == ("vpcsubnet-lab", "vpcsecuritygroup-1")
    assert not card.check_presence("public_ip_address")
    assert spec.pricing_model.field == "follows_spot_price"
    assert call.body.metadata.labels["team"] == "a"
    assert "name: ubuntu" in spec.cloud_init_user_data


def a_claim_with(config: str = "", **wish: object) -> Claim:
    return a_machine_claim("nebius", KIND, region=REGION, wish=Resources(config=config, **wish))  # type: ignore[arg-type]


def test_bad_input_says_what_to_do(cloud: Cloud, tmp_path: Path) -> None:
    def said(claim: Claim, kind: type[border.BorderError] = border.RequestRefused) -> str:
        return fails(subject, claim, kind)

    subject = subject_of(cloud, tmp_path)
    assert said(a_machine_claim("nebius", KIND, region="mars")) == (
        "the account has no project in `mars`: its regions are eu-north1"
    )
    assert said(a_machine_claim("nebius", "gpu-x_1gpu", region=REGION)) == (
        "Nebius says: spec.resources.preset: unknown preset; asked for gpu-x_1gpu in eu-north1"
    )
    assert said(a_machine_claim("nebius", "huge", region=REGION)) == (
        "`huge` is no type of machine of Nebius: they are called PLATFORM_PRESET"
    )
    assert said(a_claim_with(networking=Networking(subnet_names=("lan",)))) == (
        "the project project-e00 has no subnet lan: it has lab, other, default-subnet-abc; "
        "`nebius vpc subnet create --parent-id project-e00` makes one"
    )
    assert said(a_claim_with(labels=(("a b", "c"),))) == (
        "Nebius says: metadata.labels: the label a b is not valid; asked for cpu-d3_4vcpu-16gb in eu-north1"
    )
    fast = msgspec.structs.replace(a_claim_with(network_tier="best"), count=2)
    assert said(fast) == (
        "`network_tier: best` is InfiniBand between machines with eight GPUs at Nebius: "
        "cpu-d3_4vcpu-16gb has none"
    )
    assert "`config.nebius` of the task" in said(a_claim_with('{"nebius": {"use_internal_ips": 7}}'))
    subject.cloud.quota = 0
    assert said(subject.claim(), border.QuotaExceeded) == (
        "Nebius says: Quota limit exceeded (quota compute.instance.count, limit 0); `nebius quotas "
        "quota-allowance list` shows the limits, and the console asks for more"
    )
    subject.cloud.quota = None
    billing = subject.cloud.error(403, "forbidden", "The billing account is suspended")
    subject.cloud.refuse("create", billing)
    assert said(subject.claim(), border.QuotaExceeded) == (
        "Nebius says: The billing account is suspended (permission_denied); "
        "look at the account's billing page"
    )
    subject.cloud.refuse("create", subject.cloud.error(429, "rate", "too many requests"))
    assert said(subject.claim(), border.Transient) == "Nebius wants fewer calls: too many requests"
    subject.cloud.expired = True
    assert said(subject.claim(), border.CredentialsRejected) == (
        "Nebius does not accept the credentials: the token is not valid; make new ones with `nebius profile "
        "create` (or `nebius iam get-access-token` for NEBIUS_IAM_TOKEN), and look at this machine's clock"
    )


def test_too_many_calls_are_waited_out_for_an_hour(cloud: Cloud, tmp_path: Path) -> None:
    """gRPC does not tell how long to wait: the order is tried again until the cloud takes it."""
    subject, claim = subject_of(cloud, tmp_path), subject_of(cloud, tmp_path).claim()
    subject.cloud.refuse("", subject.cloud.error(429, "rate", "too many requests"), 1000)

    async def act() -> None:
        for _ in range(60):
            with pytest.raises(border.Transient) as caught:
                await subject.driver.ensure(claim)
            assert str(caught.value) == "Nebius wants fewer calls: too many requests"
            assert caught.value.after_s == 10
            await subject.pass_time(60)
        assert subject.truth() == set()
        subject.cloud.refusals.clear()
        await subject.driver.ensure(claim)
        assert subject.machines(claim.id) == 1
        await subject.driver.release(claim.id)
        await subject.driver.disconnect()

    asyncio.run(act())


def test_a_clock_that_is_off_is_a_token_that_is_not_valid(cloud: Cloud, tmp_path: Path) -> None:
    """gRPC does not tell the cloud's time either: the text says to look at the clock."""
    subject = subject_of(cloud, tmp_path)
    subject.cloud.expired, subject.cloud.skew_s = True, 600.0
    assert fails(subject, subject.claim(), border.CredentialsRejected) == (
        "Nebius does not accept the credentials: the token is not valid; make new ones with `nebius profile "
        "create` (or `nebius iam get-access-token` for NEBIUS_IAM_TOKEN), and look at this machine's clock"
    )


def test_one_of_several_projects_has_to_be_chosen(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.projects = {"project-a": ("team-a", REGION), "project-b": ("team-b", REGION)}
    assert fails(subject, subject.claim(), border.RequestRefused) == (
        "eu-north1 has several projects: set NEBIUS_PROJECT_ID to one of "
        "project-a (team-a), project-b (team-b)"
    )
    claim = a_claim_with('{"nebius": {"region_configs": {"eu-north1": {"project_id": "project-b"}}}}')

    async def act() -> None:
        await subject.driver.ensure(claim)
        await subject.driver.disconnect()

    asyncio.run(act())
    assert subject.cloud.machines()[0].extra["parent"] == "project-b"
    subject.cloud.projects = {}
    (finding,) = asyncio.run(Nebius(a_setting(tmp_path, cloud[1], subject.cloud.environ())).check())
    assert (finding.what, finding.hint) == (
        "the account has no project",
        "`nebius iam project create` makes one",
    )


def test_missing_credentials_say_where_they_are_looked_for(cloud: Cloud, tmp_path: Path) -> None:
    setting = a_setting(tmp_path, cloud[1], {"HOME": str(tmp_path)})
    (finding,) = asyncio.run(Nebius(setting).check())
    assert finding.what == "Nebius has no credentials to use"
    assert finding.hint == (
        "set NEBIUS_IAM_TOKEN (`nebius iam get-access-token` prints one), give ~/.nebius/credentials.json of "
        "a service account, or make ~/.nebius/config.yaml with `nebius profile create`"
    )
    (tmp_path / ".nebius").mkdir()
    (tmp_path / ".nebius" / "config.yaml").write_text("profiles: [")
    (finding,) = asyncio.run(Nebius(setting).check())
    assert finding.what.startswith("the credentials of Nebius cannot be read (")
