"""TPU VMs of Google Cloud against a fake of their API: the suite, queued resources, what is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from gcp_world import World, a_claim_for

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.model.facts import ClaimState
from argosy.model.phases import Desired
from argosy.model.rows import Claim
from argosy.providers.gcp.provider import Google
from argosy.testing.conformance.cloud import CloudSubject, MovedClock, a_machine_claim, a_setting
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.conformance.refusals import hold_kills
from argosy.testing.fake_gcp import REFRESH, TOKEN, FakeGcp

KIND, ZONE = "tpu-v5litepod-1", "us-central1-a"


class Subject(CloudSubject):
    secrets: tuple[str, ...] = (REFRESH, TOKEN, "PRIVATE KEY")
    calls = ("create_tpu", "delete_tpu")
    spot = False

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim(
            "gcp",
            KIND,
            region="us-central1",
            zone=ZONE,
            count=count,
            spot=self.spot,
            accelerator="tpu-v5litepod-1",
        )


class SpotSubject(Subject):
    spot = True


class SliceSubject(Subject):
    """Its nodes are the hosts of slices that have two."""

    def claim(self, count: int = 1) -> Claim:
        kind = "tpu-v5p-16"
        return a_machine_claim(
            "gcp", kind, region="us-central1", zone=ZONE, count=2 * count, spot=self.spot, accelerator=kind
        )

    def machines(self, claim_id: str) -> int:
        return 2 * super().machines(claim_id)


class SpotSliceSubject(SliceSubject):
    spot = True


#: Nobody is behind the addresses of the fake, and a slice does not rest.
_NOT_OF_SLICES = ("reach_", "nodes_rest_")
_SUBJECTS: Mapping[str, tuple[type[Subject], type[Subject]]] = {
    "one host": (Subject, SpotSubject),
    "slice": (SliceSubject, SpotSliceSubject),
}


@pytest.fixture(scope="module")
def google() -> Iterator[tuple[FakeGcp, MovedClock]]:
    clock = MovedClock()
    with FakeGcp(now=clock.now_s) as fake:
        yield fake, clock


@pytest.fixture
def world(google: tuple[FakeGcp, MovedClock], tmp_path: Path) -> World:
    fake, clock = google
    fake.reset()
    return World(fake, clock, tmp_path, fake.sign_in(tmp_path))


@pytest.mark.parametrize(
    ("hosts", "case"),
    [
        pytest.param(hosts, case, id=f"{hosts}-{case_name(case)}")
        for hosts in _SUBJECTS
        for case in CASES
        if hosts == "one host" or not case_name(case).startswith(_NOT_OF_SLICES)
    ],
)
def test_conformance(hosts: str, case: Case, google: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    fake, clock = google
    fake.reset()
    setting = a_setting(tmp_path, clock, fake.sign_in(tmp_path))
    kind = _SUBJECTS[hosts][case_name(case) == "preemption_becomes_a_fact"]
    subject = kind(MachineDriver(Google(setting, patience_s=0.0), setting, settle_s=0.0), fake, clock)

    async def act() -> None:
        try:
            await hold(case, subject)
        finally:
            await subject.driver.disconnect()

    try:
        asyncio.run(act())
    except NotApplicable as reason:
        pytest.skip(str(reason))
    assert [each for each in fake.machines() if subject.claim_of(each)] == []


@pytest.mark.parametrize("hosts", _SUBJECTS)
def test_killed_at_every_call(hosts: str, google: tuple[FakeGcp, MovedClock], tmp_path: Path) -> None:
    fake, clock = google

    def make(root: Path) -> Subject:
        fake.reset()
        root.mkdir(exist_ok=True)
        setting = a_setting(root, clock, fake.sign_in(root))
        driver = MachineDriver(Google(setting, patience_s=0.0), setting, settle_s=0.0)
        return _SUBJECTS[hosts][0](driver, fake, clock)

    assert hold_kills(make, tmp_path) >= 6


def a_tpu(kind: str = "tpu-v6e-8", count: int = 1, **wish: object) -> Claim:
    return a_claim_for(kind, zone=ZONE, count=count, accelerator=kind, **wish)  # type: ignore[arg-type]


def test_an_order_says_what_a_tpu_needs(world: World) -> None:
    claim = a_tpu(spot=True, labels=(("team", "ai"),))

    async def act() -> None:
        await world.driver.ensure(claim)
        (ask,) = world.fake.called("create_tpu")
        told = ask.body
        assert (told.accelerator_type, told.runtime_version) == ("v6e-8", "v2-alpha-tpuv6e")
        assert told.metadata["ssh-keys"].startswith("ubuntu:ssh-ed25519 ")
        assert told.tags == ["argosy"]
        assert told.labels["team"] == "ai"
        assert told.network_config.network == "projects/lab-1/global/networks/default"

    world.run(act)


def test_another_runtime(world: World) -> None:
    claim = a_tpu(accelerator_args=(("runtime_version", "tpu-ubuntu2204-base"),))
    world.run(lambda: world.driver.ensure(claim))
    assert world.fake.called("create_tpu")[0].body.runtime_version == "tpu-ubuntu2204-base"


@pytest.mark.parametrize(
    ("claim", "kind", "said"),
    [
        (
            a_tpu("tpu-v5p-16", count=3),
            border.RequestRefused,
            "tpu-v5p-16 has 2 hosts, and each is a node: ask for 2 nodes, or a multiple",
        ),
        (
            a_tpu(image_id="mine"),
            border.RequestRefused,
            "TPUs start from `runtime_version` in `accelerator_args`, and not from an image",
        ),
        (
            a_tpu(config={"runtime_version": "old"}),
            border.RequestRefused,
            "Google Cloud says: invalid runtime version old; asked for tpu-v6e-8 in us-central1-a",
        ),
    ],
)
def test_refused(claim: Claim, kind: type[border.BorderError], said: str, world: World) -> None:
    error = world.refusal(claim)
    assert type(error) is kind, error
    assert str(error) == said


def test_no_room(world: World) -> None:
    world.fake.capacity["tpu-v6e-8", ""] = 1
    error = world.refusal(a_tpu(count=2))
    assert isinstance(error, border.OutOfCapacity)
    assert str(error) == (
        "Google Cloud has no tpu-v6e-8 in us-central1-a: There is no more capacity in the zone "
        '"us-central1-a"; you can try in another zone'
    )


def test_an_order_that_fails_late_says_why(world: World) -> None:
    world.fake.op_s = 60.0
    world.fake.capacity["tpu-v6e-8", ""] = 0
    claim = a_tpu()

    async def act() -> None:
        await world.driver.ensure(claim)
        assert (await world.fact(claim)).state is ClaimState.PENDING
        world.clock.s += 61
        fact = await world.fact(claim)
        assert fact.state is ClaimState.GONE
        assert "There is no more capacity" in fact.detail
        await world.driver.release(claim.id)
        assert list(await world.driver.observe([])) == []

    world.run(act)


def test_a_quota(world: World) -> None:
    world.fake.quota = 0
    error = world.refusal(a_tpu())
    assert isinstance(error, border.QuotaExceeded)
    assert (error.what, error.limit) == ("TPUV5sPerProjectPerZone", "0")


def test_a_project_without_tpus_is_asked_seldom(world: World) -> None:
    world.fake.tpu_on = False

    async def act() -> None:
        for _ in range(3):
            assert list(await world.driver.observe([])) == []
        assert len(world.fake.called("tpus")) == 1

    world.run(act)
    error = world.refusal(a_tpu())
    assert isinstance(error, border.CredentialsRejected)
    assert str(error).endswith("`gcloud services enable tpu.googleapis.com` turns it on")


def test_a_zone_that_does_not_answer_holds_what_it_held(world: World) -> None:
    claim = a_tpu()

    async def act() -> None:
        await world.driver.ensure(claim)
        world.clock.s += 300
        assert (await world.fact(claim)).state is ClaimState.HELD
        world.fake.silent_tpus = {"us-central1-a", "asia-east1-c"}
        assert (await world.fact(claim)).state is ClaimState.HELD

    world.run(act)


def test_a_queue_gives_all_or_none(world: World) -> None:
    world.fake.queue_s = 30.0
    queue = {"run_duration": 3600, "provision_timeout": 600}
    claim = a_tpu(count=2, config={"managed_instance_group": queue})

    async def act() -> None:
        await world.driver.ensure(claim)
        assert (await world.fact(claim)).state is ClaimState.PENDING
        world.clock.s += 31
        fact = await world.fact(claim)
        assert fact.state is ClaimState.HELD
        assert len(fact.nodes) == 2
        await world.driver.release(claim.id)
        assert world.fake.queue == {}
        assert world.fake.machines() == []

    world.run(act)


def test_queues_that_are_listed_by_zone(world: World, tmp_path: Path) -> None:
    world.fake.queue_wildcard, world.fake.queue_s = False, 30.0
    queue = {"run_duration": 3600, "provision_timeout": 600}
    claim = a_tpu(config={"managed_instance_group": queue})
    again = World(world.fake, world.clock, tmp_path, world.fake.sign_in(tmp_path))

    async def act() -> None:
        await world.driver.ensure(claim)
        assert (await world.fact(claim)).state is ClaimState.PENDING
        assert (await again.fact(claim)).state is ClaimState.PENDING  # another server, on the same notes
        calls = len(world.fake.called("queued"))
        await again.driver.observe([])
        assert len(world.fake.called("queued")) == calls + 1
        await again.driver.release(claim.id)
        assert world.fake.queue == {}
        await again.driver.disconnect()

    world.run(act)


def test_a_queue_that_gives_up_says_why(world: World) -> None:
    world.fake.capacity["tpu-v6e-8", ""] = 0
    queue = {"run_duration": 3600, "provision_timeout": 600}
    claim = a_tpu(config={"managed_instance_group": queue})

    async def act() -> None:
        await world.driver.ensure(claim)
        world.clock.s += 601
        fact = await world.fact(claim)
        assert fact.state is ClaimState.GONE
        assert "There is no more capacity in the zone" in fact.detail
        await world.driver.release(claim.id)
        assert world.fake.queue == {}

    world.run(act)


# -- slices of several hosts ---------------------------------------------------------------------------------


def test_a_slice_is_one_order_whose_hosts_are_nodes(world: World) -> None:
    claim = a_tpu("tpu-v6e-16", count=8)

    async def act() -> None:
        await world.driver.ensure(claim)
        await world.driver.ensure(claim)
        assert sorted(ask.query["nodeId"] for ask in world.fake.called("create_tpu")) == [
            f"{claim.id}-0",
            f"{claim.id}-4",
        ]
        world.clock.s += 300
        fact = await world.fact(claim)
        assert fact.state is ClaimState.HELD
        assert [each.index for each in fact.nodes] == list(range(8))
        assert len({each.ip for each in fact.nodes}) == 8
        assert len({each.address for each in fact.nodes}) == 8
        await world.driver.release(claim.id)
        assert world.fake.machines() == []
        assert len(world.fake.called("delete_tpu")) == 2

    world.run(act)


def test_of_two_slices_both_or_none(world: World) -> None:
    world.fake.capacity["tpu-v6e-16", ""] = 1
    assert isinstance(world.refusal(a_tpu("tpu-v6e-16", count=8)), border.OutOfCapacity)


def test_a_slice_that_is_taken_back_takes_all_hosts(world: World) -> None:
    claim = a_tpu("tpu-v6e-16", count=4, spot=True)

    async def act() -> None:
        await world.driver.ensure(claim)
        world.clock.s += 300
        assert (await world.fact(claim)).state is ClaimState.HELD
        world.fake.preempt(world.fake.machines()[0])
        fact = await world.fact(claim)
        assert fact.state is ClaimState.PREEMPTED
        assert "took the spot machine" in fact.detail
        await world.driver.release(claim.id)
        assert world.fake.machines() == []

    world.run(act)


@pytest.mark.parametrize("still_listed", [True, False])
def test_a_queued_spot_slice_is_suspended_when_it_is_taken_back(world: World, still_listed: bool) -> None:
    queue = {"run_duration": 3600, "provision_timeout": 600}
    claim = a_tpu("tpu-v5p-16", count=2, spot=True, config={"managed_instance_group": queue})

    async def act() -> None:
        await world.driver.ensure(claim)
        world.clock.s += 300
        assert (await world.fact(claim)).state is ClaimState.HELD
        (machine,) = world.fake.machines()
        world.fake.preempt(machine)
        assert (await world.fact(claim)).state is ClaimState.PREEMPTED
        if not still_listed:
            machine.state = "ended"
            assert (await world.fact(claim)).state is ClaimState.PREEMPTED
        await world.driver.release(claim.id)
        assert world.fake.queue == {}
        assert world.fake.machines() == []

    world.run(act)


def test_a_slice_of_several_hosts_does_not_rest(world: World) -> None:
    claim = a_tpu("tpu-v6e-16", count=4)

    async def act() -> None:
        await world.driver.ensure(claim)
        world.clock.s += 300
        await world.driver.observe([])
        with pytest.raises(
            border.Unsupported, match="a tpu-v6e-16 has several hosts and cannot rest: it can only go"
        ):
            await world.driver.ensure(msgspec.structs.replace(claim, desired=Desired.STOP))
        await world.driver.release(claim.id)

    world.run(act)
