"""Vast.ai's driver against a fake of its API: the suite for rented and bid containers, a real host behind
one, offers and what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.machine_vendor import Vendor
from argosy.infra.provider import Diagnostic, Setting, Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimState
from argosy.model.resources import Resources
from argosy.model.rows import Claim
from argosy.providers.vast.asks import Ask
from argosy.providers.vast.orders import best_first
from argosy.providers.vast.provider import Vast
from argosy.testing.cloud_hosts import CloudHosts
from argosy.testing.conformance.cloud import (
    CloudSubject,
    MovedClock,
    a_machine_claim,
    a_setting,
    hold_host_life,
)
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, gone, hold, settled
from argosy.testing.conformance.refusals import REFUSALS, hold_kills, no_room_leaves_nothing
from argosy.testing.conformance.refusals import Case as Refusal
from argosy.testing.fake_cloud import FakeMachine
from argosy.testing.fake_vast import KEY, FakeVast, an_ask
from argosy.testing.hosts import why_no_hosts

KIND, PLACE, GPU = "1x-RTX_4090-16-65536", "Sweden, SE, EU", "1x RTX 4090"


class Subject(CloudSubject):
    secrets: tuple[str, ...] = (KEY, "PRIVATE KEY")
    calls = ("rent", "destroy")
    cloud: FakeVast
    spot = False

    def __init__(self, provider: MachineDriver, cloud: FakeVast, clock: MovedClock) -> None:
        super().__init__(provider, cloud, clock)
        cloud.capacity = {(GPU, ""): self.most}

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("vast", KIND, region=PLACE, count=count, spot=self.spot, accelerator="RTX4090")

    def claim_of(self, machine: FakeMachine) -> str:
        return machine.labels.get("argosy-claim", "")

    async def make_foreign(self) -> None:
        self.cloud.order(name="web-1", kind=GPU, region=PLACE)


class SpotSubject(Subject):
    spot = True


Cloud = tuple[FakeVast, MovedClock]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeVast(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path, kind: type[Subject] = Subject) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ())
    return kind(MachineDriver(Vast(setting, every_s=0.0), setting, settle_s=0.0), fake, clock)


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
def test_a_container_is_reached(tmp_path: Path) -> None:
    with CloudHosts("root") as hosts, FakeVast(hosts=hosts) as fake:
        environ = fake.environ()
        setting = Setting(root=tmp_path, clock=SystemClock(), ids=SystemIds(), environ=environ, home=tmp_path)
        claim = a_machine_claim("vast", KIND, region=PLACE, accelerator="RTX4090")
        asyncio.run(hold_host_life(MachineDriver(Vast(setting, every_s=0.0), setting), claim))


@pytest.mark.parametrize("case", REFUSALS, ids=case_name)
def test_refusals(case: Refusal, cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    if case is no_room_leaves_nothing:  # the fake counts by GPUs
        subject.cloud.capacity[(GPU, "")] = 0

    async def act() -> None:
        await case(subject)
        await subject.driver.disconnect()

    asyncio.run(act())


def test_killed_at_every_call(cloud: Cloud, tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path) >= 4


def fails(subject: Subject, claim: Claim, kind: type[border.BorderError]) -> str:
    async def act() -> str:
        with pytest.raises(kind) as caught:
            await subject.driver.ensure(claim)
        await subject.driver.disconnect()
        return str(caught.value)

    return asyncio.run(act())


def held(subject: Subject, claim: Claim) -> FakeMachine:
    async def act() -> None:
        await subject.driver.ensure(claim)
        await settled(subject, claim.id)
        await subject.driver.disconnect()

    asyncio.run(act())
    (machine,) = subject.cloud.machines()
    return machine


def checked(vendor: Vendor) -> Diagnostic:
    async def act() -> Diagnostic:
        (finding,) = await vendor.check()
        await vendor.close()
        return finding

    return asyncio.run(act())


# -- offers ---------------------------------------------------------------------------------------------


def test_offers_are_those_of_now(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.asks = {
        1: an_ask(1),
        2: an_ask(2, dph_total=0.35, min_bid=None),
        3: an_ask(3, verified=False),
        4: an_ask(4, reliability2=0.9),
        5: an_ask(5, direct_port_count=0),
        6: an_ask(6, gpu_name="Q UNKNOWN"),
    }

    async def act() -> None:
        offers = await subject.driver.quote(Want())
        told = {
            (each.shape.instance_type, each.region, each.capacity.value, each.price_micro_usd, each.nodes_max)
            for each in offers
        }
        assert told == {(KIND, PLACE, "on-demand", 350_000, 2), (KIND, PLACE, "spot", 200_000, 1)}
        await subject.driver.quote(Want())
        assert len(subject.cloud.called("bundles")) == 1  # searches are counted: an answer serves a minute
        subject.clock.s += 61
        subject.cloud.refuse("bundles", subject.cloud.error(429, "search_quota_exceeded", "daily quota"))
        assert len(await subject.driver.quote(Want())) == 2
        await subject.driver.disconnect()

    asyncio.run(act())


def test_a_want_for_data_centers_asks_only_them(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.asks = {1: an_ask(1), 2: an_ask(2, datacenter=True, dph_total=0.6)}
    wish = Resources(config='{"vast": {"datacenter_only": true}}')

    async def act() -> None:
        offers = await subject.driver.quote(Want(resources=(wish,)))
        assert {each.price_micro_usd for each in offers if each.capacity == "on-demand"} == {600_000}
        await subject.driver.disconnect()

    asyncio.run(act())


def test_reliable_hosts_come_first_then_cheap_ones() -> None:
    def ask(id: int, usd: float, reliability: float) -> Ask:
        return Ask(gpu_name="x", num_gpus=1, dph_total=usd, id=id, reliability2=reliability)

    asks = [ask(1, 0.3, 0.96), ask(2, 0.4, 0.991), ask(3, 0.38, 0.994), ask(4, 0.9, 1.0)]
    assert [each.id for each in best_first(asks, 0.5, spot=False)] == [3, 2, 1]


def test_an_offer_that_was_taken_is_passed_over(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.asks = {1: an_ask(1, reliability2=0.999), 2: an_ask(2)}
    subject.cloud.refuse("rent", subject.cloud.shortage(""))
    machine = held(subject, subject.claim())
    assert machine.extra["ask"] == 2


# -- containers -----------------------------------------------------------------------------------------


def test_an_order_says_image_port_and_disk(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    config = '{"vast": {"create_instance_kwargs": {"image_login": "-u me -p pw docker.io"}}}'
    wish = Resources(
        image_id="docker:ubuntu:24.04", disk_size_bytes=50 * 10**9, config=config, ports=("8080", "22")
    )
    claim = a_machine_claim("vast", KIND, region=PLACE, spot=True, accelerator="RTX4090", wish=wish)
    held(subject, claim)
    (call,) = subject.cloud.called("rent")
    told = call.body
    assert (told.image, told.disk, told.runtype, told.cancel_unavail) == ("ubuntu:24.04", 50, "args", True)
    assert (told.price, told.label, told.image_login) == (0.8, f"{claim.id}-0", "-u me -p pw docker.io")
    assert [name for name in told.env if name.startswith("-p")] == ["-p 22:22", "-p 8080:8080"]
    assert subject.cloud.called("bundles")[-1].body["direct_port_count"] == {"gte": 2}


def test_a_bid_that_is_too_low_leaves_nothing(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path, SpotSubject)
    subject.cloud.outbid = 1.0
    said = fails(subject, subject.claim(), border.OutOfCapacity)
    assert said == (
        f"the offer of {KIND} (spot) in {PLACE} is gone: your bid is below the highest one (bid_too_low)"
    )
    assert subject.cloud.machines("starting", "running", "stopped", "preempted") == []


def test_an_image_that_does_not_exist_is_told(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.boot_s = 60.0
    claim = subject.claim()

    async def act() -> None:
        await subject.driver.ensure(claim)
        (machine,) = subject.cloud.machines()
        machine.extra["message"] = "Error response from daemon: manifest for nope:latest not found"
        with pytest.raises(border.RequestRefused) as caught:
            await subject.driver.ensure(claim)
        assert str(caught.value) == (
            "Vast.ai says: Error response from daemon: manifest for nope:latest not found"
        )
        await subject.driver.release(claim.id)
        await gone(subject, claim.id)
        assert subject.cloud.machines() == []
        await subject.driver.disconnect()

    asyncio.run(act())


def test_the_port_of_the_host_is_told(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    machine = held(subject, subject.claim())
    machine.ip, machine.extra["port"] = "192.0.2.9", 41022

    async def act() -> None:
        (told,) = await subject.driver.vendor.listed("")
        assert (told.host, told.port, told.user) == ("192.0.2.9", 41022, "root")
        await subject.driver.disconnect()

    asyncio.run(act())


def test_a_container_at_rest_whose_gpu_is_away_waits(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    machine = held(subject, subject.claim())
    machine.state, machine.extra["gpu_away"] = "stopped", True
    claim_id = subject.claim_of(machine)

    async def act() -> None:
        subject.clock.s += 3  # a listing serves two seconds
        (fact,) = await subject.driver.observe([claim_id])
        assert fact.state is ClaimState.STOPPED
        (told,) = await subject.driver.vendor.listed("")
        with pytest.raises(border.OutOfCapacity, match="Required resources are currently unavailable"):
            await subject.driver.vendor.start(told)
        await subject.driver.disconnect()

    asyncio.run(act())


def test_bad_input_says_what_to_do(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)

    def said(claim: Claim, kind: type[border.BorderError] = border.RequestRefused) -> str:
        return fails(subject, claim, kind)

    def with_config(config: str) -> Claim:
        return a_machine_claim("vast", KIND, region=PLACE, wish=Resources(config=config))

    assert said(a_machine_claim("vast", KIND, region="Mars, XX"), border.OutOfCapacity) == (
        f"no host of Vast.ai offers {KIND} in Mars, XX now"
    )
    assert said(a_machine_claim("vast", "huge", region=PLACE)) == (
        "`huge` is no type of Vast.ai: they are called like `1x-RTX_4090-16-65536`"
    )
    assert said(with_config('{"vast": {"create_instance_kwargs": {"onstart": "x"}}}')) == (
        "`create_instance_kwargs` of `config.vast` knows no onstart: it knows extra, image_login, lang_utf8, "
        "python_utf8, template_hash_id, user, volume_info"
    )
    assert "`config.vast` of the task" in said(with_config('{"vast": {"datacenter_only": 7}}'))
    subject.cloud.quota = 0
    assert said(subject.claim(), border.QuotaExceeded) == (
        "Vast.ai says: Your account lacks credit; see the billing page. (insufficient_credit); add credit at "
        "https://cloud.vast.ai/billing/"
    )
    subject.cloud.expired = True
    assert said(subject.claim(), border.CredentialsRejected) == (
        "Vast.ai does not accept the credentials: the credentials are not valid (auth_error); make a key at "
        "https://cloud.vast.ai/manage-keys/ and set VAST_API_KEY, or `vastai set api-key KEY`"
    )


def test_an_account_without_credit_is_told(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.credit = 0.0
    finding = checked(subject.driver.vendor)
    assert (finding.ok, finding.what, finding.hint) == (
        False,
        "the account has no credit",
        "add some at https://cloud.vast.ai/billing/",
    )


def test_the_key_is_found_where_the_vendor_keeps_it(cloud: Cloud, tmp_path: Path) -> None:
    fake, clock = cloud
    fake.reset()
    environ = {"HOME": str(tmp_path), "ARGOSY_VAST_URL": fake.url}
    finding = checked(Vast(a_setting(tmp_path, clock, environ)))
    assert (finding.ok, finding.what) == (
        False,
        "Vast.ai has no key to use, neither in VAST_API_KEY, ~/.config/vastai/vast_api_key nor in "
        "~/.vast_api_key",
    )
    (tmp_path / ".vast_api_key").write_text(f"{KEY}\n")
    finding = checked(Vast(a_setting(tmp_path, clock, environ)))
    assert (finding.ok, finding.what) == (True, "the key is accepted; 12.30 $ of credit")


@pytest.mark.nightly
def test_the_vendors_own_sdk_speaks_to_the_fake(cloud: Cloud, tmp_path: Path) -> None:
    why = "THE FAKE OF VAST.AI IS NOT HELD TO ITS SDK: `pip install vastai`"
    instances = pytest.importorskip("vastai.api.instances", reason=why)
    offers = pytest.importorskip("vastai.api.offers", reason=why)
    VastClient = pytest.importorskip("vastai.api.client", reason=why).VastClient
    subject = subject_of(cloud, tmp_path)
    client = VastClient(api_key=KEY, server_url=subject.cloud.url, retry=1)
    found = offers.search_offers(client, {"reliability2": {"gte": 0.95}}, limit=5)
    assert len(found) == 5
    for each in found[:3]:
        made = instances.create_instance(
            client, each["id"], image="ubuntu:24.04", args=["sleep", "9"], label="mine"
        )
        assert made["success"]
    held_now = instances.show_instances(client)
    assert [each["label"] for each in held_now] == ["mine"] * 3  # of two pages
    instances.stop_instance(client, held_now[0]["id"])
    assert instances.show_instances(client)[0]["intended_status"] == "stopped"
    instances.start_instance(client, held_now[0]["id"])
    for each in held_now:
        assert instances.destroy_instance(client, each["id"])["success"]
    assert instances.show_instances(client) == []
