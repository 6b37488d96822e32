"""RunPod's driver against a fake of its API: the suite for pods, spot pods and clusters, a real host behind a
pod, and what is refused."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.machine_vendor import Vendor
from argosy.infra.provider import Diagnostic, KeepsVolumes, Setting, Want
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.facts import ClaimState
from argosy.model.own_volumes import OwnVolume
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Claim
from argosy.providers.runpod import create
from argosy.providers.runpod.orders import kind_of, names_of
from argosy.providers.runpod.provider import RunPod
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
from argosy.testing.fake_runpod import KEY, FakeRunPod
from argosy.testing.hosts import why_no_hosts
from argosy.testing.openapi_check import Spec

KIND, GPU = "1x_A40_SECURE", "NVIDIA A40"


class Subject(CloudSubject):
    secrets: tuple[str, ...] = (KEY, "PRIVATE KEY")
    calls = ("create_pod", "bid", "create_cluster", "delete_pod", "delete_cluster")
    cloud: FakeRunPod
    spot = False

    def __init__(self, provider: MachineDriver, cloud: FakeRunPod, clock: MovedClock) -> None:
        super().__init__(provider, cloud, clock)
        cloud.capacity = {(GPU, ""): self.most}

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("runpod", KIND, region="SE", count=count, spot=self.spot, accelerator="A40")

    def claim_of(self, machine: FakeMachine) -> str:
        return machine.labels.get("argosy-claim", "")

    async def make_foreign(self) -> None:
        self.cloud.order(name="web-1", kind=GPU, region="EU-SE-1")


class SpotSubject(Subject):
    spot = True


Cloud = tuple[FakeRunPod, MovedClock]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeRunPod(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path, kind: type[Subject] = Subject) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ())
    return kind(MachineDriver(RunPod(setting), setting, settle_s=0.0), fake, clock)


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
    assert subject.cloud.clusters == {}


#: What a spot pod does in another way: it is ordered by a call of its own.
_OF_SPOT = ("ensure_twice_is_one", "a_lost_reply_of_ensure_is_harmless")


@pytest.mark.parametrize("case", [each for each in CASES if case_name(each) in _OF_SPOT], ids=case_name)
def test_conformance_of_spot(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path, SpotSubject)

    async def act() -> None:
        await hold(case, subject)
        await subject.driver.disconnect()

    asyncio.run(act())


@pytest.mark.process
@pytest.mark.skipif(bool(why_no_hosts()), reason=why_no_hosts() or "hosts can be made")
def test_a_pod_is_reached(tmp_path: Path) -> None:
    with CloudHosts("root") as hosts, FakeRunPod(hosts=hosts) as fake:
        environ = fake.environ()
        setting = Setting(root=tmp_path, clock=SystemClock(), ids=SystemIds(), environ=environ, home=tmp_path)
        claim = a_machine_claim("runpod", KIND, region="SE", accelerator="A40")
        asyncio.run(hold_host_life(MachineDriver(RunPod(setting), setting), claim))


@pytest.mark.parametrize("case", REFUSALS, ids=case_name)
@pytest.mark.parametrize("kind", [Subject, SpotSubject], ids=["pod", "spot"])
def test_refusals(case: Refusal, kind: type[Subject], cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path, kind)
    if case is no_room_leaves_nothing:  # the fake counts by GPUs
        subject.cloud.capacity[(GPU, "")] = 0

    async def act() -> None:
        await case(subject)
        await subject.driver.disconnect()

    asyncio.run(act())


@pytest.mark.parametrize("count", [1, 2])
def test_killed_at_every_call(count: int, cloud: Cloud, tmp_path: Path) -> None:
    assert hold_kills(lambda root: subject_of(cloud, root), tmp_path, count=count) >= 4
    assert cloud[0].clusters == {}


def fails(subject: Subject, claim: Claim, kind: type[border.BorderError]) -> str:
    async def act() -> str:
        with pytest.raises(kind) as caught:
            await subject.driver.ensure(claim)
        await subject.driver.disconnect()
        return str(caught.value)

    return asyncio.run(act())


def checked(vendor: Vendor) -> Diagnostic:
    async def act() -> Diagnostic:
        (finding,) = await vendor.check()
        await vendor.close()
        return finding

    return asyncio.run(act())


def a_claim_with(config: str, **more: object) -> Claim:
    return a_machine_claim("runpod", KIND, accelerator="A40", wish=Resources(config=config), **more)  # type: ignore[arg-type]


def test_a_pod_ends_when_its_container_does(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    claim = subject.claim()

    async def act() -> None:
        await subject.driver.ensure(claim)
        (machine,) = subject.cloud.machines()
        machine.state = "stopped"
        (fact,) = await subject.driver.observe([claim.id])
        assert (fact.state, fact.detail) == (
            ClaimState.GONE,
            f"{claim.id}-0 in SE has ended: its container ended: does the image have sshd, or a package "
            "manager?",
        )
        await subject.driver.release(claim.id)
        await gone(subject, claim.id)
        assert subject.cloud.machines() == []
        await subject.driver.disconnect()

    asyncio.run(act())


def test_a_cluster_has_its_nodes_in_one_order(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    claim = subject.claim(count=3)

    async def act() -> None:
        await subject.driver.ensure(claim)
        first = await settled(subject, claim.id)
        again = await settled(subject, claim.id)
        assert [(each.index, each.address) for each in first.nodes] == [
            (each.index, each.address) for each in again.nodes
        ]
        assert [each.ip for each in first.nodes] == ["10.65.0.2", "10.65.0.3", "10.65.0.4"]
        await subject.driver.release(claim.id)
        await subject.driver.disconnect()

    asyncio.run(act())
    (call,) = subject.cloud.called("create_cluster")
    assert (call.body.name, call.body.compute.podCount) == (claim.id, 3)


def test_volumes_that_stay(cloud: Cloud, tmp_path: Path) -> None:
    fake, clock = cloud
    fake.reset()
    driver = create(a_setting(tmp_path, clock, fake.environ()))
    assert isinstance(driver, KeepsVolumes)
    there = OwnVolume(type="runpod-network-volume", path="/", name="models")
    new = msgspec.structs.replace(there, name="runs", size_bytes=50 << 30)
    here = Infra(provider="runpod", region="US", zone="US-KS-2")

    async def act() -> None:
        assert not await driver.make_volume(Infra(provider="runpod"), there)
        assert await driver.make_volume(here, new)
        assert not await driver.make_volume(here, new), "whoever made it has noted that"
        (call,) = fake.called("make_volume")
        assert (call.body.name, call.body.size, call.body.dataCenter) == ("runs", 50, "US-KS-2")
        await driver.remove_volume(here, new)
        await driver.remove_volume(here, new)
        assert [name for name, _ in fake.volumes.values()] == ["models"]
        for infra, volume, said in (
            (
                here,
                msgspec.structs.replace(new, size_bytes=0),
                "RunPod has no network volume `runs` of yours",
            ),
            (Infra(), new, "write `infra: runpod/COUNTRY/DATA-CENTER`"),
            (here, msgspec.structs.replace(new, size_bytes=1), "10 to 4,096 GB, and this is to have 1"),
        ):
            with pytest.raises(border.RequestRefused, match=said):
                await driver.make_volume(infra, volume)
        await driver.disconnect()

    asyncio.run(act())


def test_an_order_says_image_disk_volume_and_data_center(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    config = '{"runpod": {"network_volume": "models", "allowed_cuda_versions": ["12.8"]}}'
    wish = Resources(
        image_id="docker:nvcr.io/nvidia/pytorch:25.01",
        disk_size_bytes=50 * 10**9,
        config=config,
        ports=("8080", "9000-9001"),
    )
    claim = a_machine_claim("runpod", KIND, region="SE", accelerator="A40", wish=wish)

    async def act() -> None:
        await subject.driver.ensure(claim)
        spot = a_machine_claim("runpod", KIND, region="SE", accelerator="A40", wish=wish, spot=True)
        await subject.driver.ensure(spot)
        await subject.driver.disconnect()

    asyncio.run(act())
    (call,) = subject.cloud.called("create_pod")
    pod = call.body
    assert (pod.image, pod.disk, pod.gpu.allowedCudaVersions) == (
        "nvcr.io/nvidia/pytorch:25.01",
        50,
        ["12.8"],
    )
    assert (pod.dataCenterIds, pod.mounts.network[0].path) == (["EU-SE-1"], "/runpod-volume")
    assert pod.args.startswith("sh -c 'echo $ARGOSY_START")
    assert pod.ports == ["22/tcp", "8080/tcp", "9000/tcp", "9001/tcp"]
    (call,) = subject.cloud.called("bid")
    bid = call.body.variables.input
    assert (bid.bidPerGpu, bid.dataCenterId, bid.networkVolumeId) == (0.8, "EU-SE-1", "vol_models")
    assert bid.ports == "22/tcp,8080/tcp,9000/tcp,9001/tcp"


def test_what_nobody_has_now_is_closed(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    subject.cloud.capacity[("NVIDIA A100 80GB PCIe", "")] = 0

    async def act() -> None:
        offers = await subject.driver.vendor.quote(Want())
        kinds = {each.shape.instance_type for each in offers}
        assert {"1x_A100-80GB_SECURE", "8x_A100-80GB_SECURE"} <= kinds
        assert not [each for each in kinds if "A40" in each]
        assert {each.closed for each in offers} == {"RunPod has none in its secure cloud now"}
        await subject.driver.disconnect()

    asyncio.run(act())


def test_every_type_of_the_catalog_names_a_gpu() -> None:
    from argosy.catalog.catalog import SHIPPED
    from argosy.catalog.table import Table, rows_of

    gpus = [("A40", 48), ("A100 PCIe", 80), ("A100 SXM", 80), ("H100 PCIe", 80), ("H100 SXM", 80)]
    gpus += [
        ("H200 SXM", 141),
        ("B200", 180),
        ("B300", 288),
        ("L40S", 48),
        ("RTX 4090", 24),
        ("RTX 5090", 32),
    ]
    kinds = {row.instance_type for row in rows_of(Table.open(SHIPPED).block("runpod"))}
    for kind in kinds:
        found = [name for name, memory in gpus if kind_of(kind).gpu in names_of(name, memory)]
        assert len(found) == 1, (kind, found)


def test_bad_input_says_what_to_do(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)

    def said(claim: Claim, kind: type[border.BorderError] = border.RequestRefused) -> str:
        return fails(subject, claim, kind)

    assert said(a_machine_claim("runpod", "huge")) == (
        "`huge` is no type of RunPod: they are called like `1x_H100-SXM_SECURE`"
    )
    assert said(a_machine_claim("runpod", "1x_TPU_SECURE")) == (
        "RunPod has no GPU called `TPU` in any place: A100 PCIe, A40, H100 SXM"
    )
    assert said(a_machine_claim("runpod", KIND, region="XX"), border.OutOfCapacity) == (
        "RunPod has no 1x_A40_SECURE in XX now"
    )
    assert said(a_machine_claim("runpod", KIND, zone="MARS-1")) == (
        "RunPod says: dataCenterIds: unknown MARS-1; asked for 1x_A40_SECURE in MARS-1"
    )
    assert said(a_claim_with('{"runpod": {"network_volume": "data"}}')) == (
        "RunPod has no network volume `data` of yours: models (vol_models)"
    )
    assert said(
        a_claim_with('{"runpod": {"network_volume": "models"}}', region="US"), border.OutOfCapacity
    ) == ("RunPod has no 1x_A40_SECURE in US in EU-SE-1, where the volume models is")
    assert said(a_claim_with('{"runpod": {"bid_per_gpu": 0.1}}', spot=True), border.OutOfCapacity) == (
        "RunPod has no 1x_A40_SECURE (spot): Your bid is too low, the minimum is 0.2"
    )
    volume = '{"type": "runpod-network-volume", "path": "/m", "name": "%s"}'
    assert said(a_claim_with('{"runpod": {"volumes": [' + volume % "data" + "]}}")) == (
        "RunPod has no network volume `data` of yours: models (vol_models)"
    )
    assert said(a_claim_with('{"runpod": {"volumes": [' + volume % "" + "]}}")) == (
        "`/m`: write the `name` of a network volume of RunPod, without `sub_path`"
    )
    assert said(a_claim_with('{"runpod": {"network_volume": "x", "volumes": [' + volume % "a" + "]}}")) == (
        "a pod of RunPod has one network volume; keep one in `volumes`"
    )
    assert said(a_claim_with('{"runpod": {"registry": "r"}}', count=2)) == (
        "clusters of RunPod take no credential of a registry"
    )
    assert said(a_claim_with("{}", count=2, spot=True), border.Unsupported) == (
        "spot pods of RunPod stand alone: its clusters are on demand"
    )
    assert "`config.runpod` of the task" in said(a_claim_with('{"runpod": {"registry": 7}}'))
    poor = subject.cloud.error(402, "payment-required", "Your account balance is too low")
    subject.cloud.refuse("create_pod", poor)
    assert said(subject.claim(), border.QuotaExceeded) == (
        "RunPod says: Your account balance is too low; look at https://console.runpod.io/user/billing"
    )
    subject.cloud.expired = True
    assert said(subject.claim(), border.CredentialsRejected) == (
        "RunPod does not accept the credentials: the credentials are not valid; make a key at "
        "https://console.runpod.io/user/settings and set RUNPOD_API_KEY, or `runpod config`"
    )


def test_the_key_is_found_where_the_vendor_keeps_it(cloud: Cloud, tmp_path: Path) -> None:
    fake, clock = cloud
    fake.reset()
    environ = {"HOME": str(tmp_path), "ARGOSY_RUNPOD_URL": fake.url}
    finding = checked(RunPod(a_setting(tmp_path, clock, environ)))
    assert (finding.ok, finding.what) == (
        False,
        "RunPod has no key to use, neither in RUNPOD_API_KEY nor in ~/.runpod/config.toml",
    )
    (tmp_path / ".runpod").mkdir()
    (tmp_path / ".runpod" / "config.toml").write_text(f'[default]\napi_key = "{KEY}"\n')
    finding = checked(RunPod(a_setting(tmp_path, clock, environ)))
    assert (finding.ok, finding.what) == (True, "the key is accepted; 3 of 3 types of GPU can be had now")


def test_requests_and_answers_are_those_of_the_published_api(cloud: Cloud, tmp_path: Path) -> None:
    """Every call of a life is held to RunPod's OpenAPI document, which ARGOSY_SPECS/runpod.json is."""
    path = Path(os.environ.get("ARGOSY_SPECS", "/nonexistent")) / "runpod.json"
    if not path.exists():
        pytest.skip(
            "THE FAKE OF RUNPOD IS NOT HELD TO ITS OPENAPI: ARGOSY_SPECS names no folder with runpod.json"
        )
    spec, subject = Spec(path), subject_of(cloud, tmp_path)
    seen: set[str] = set()
    wrong: list[str] = []
    serve = subject.cloud.serve

    def watched(method: str, target: str, headers: dict[str, str], body: bytes) -> object:
        answer = serve(method, target, headers, body)
        place, _, query = target.partition("?")
        assert answer is not None
        if place.startswith("/v2/"):
            seen.add(f"{method} {place.rpartition('/')[0] if method == 'DELETE' else place}")
            try:
                if body:
                    spec.check_request(method, place, msgspec.json.decode(body))
                spec.check_query(method, place, [each.partition("=")[0] for each in query.split("&") if each])
                spec.check_answer(method, place, answer.status, msgspec.to_builtins(answer.body))
            except AssertionError as error:
                wrong.append(str(error))
        return answer

    subject.cloud.serve = watched  # type: ignore[method-assign, assignment]

    async def act() -> None:
        config = (
            '{"runpod": {"network_volume": "models", "allowed_cuda_versions": ["12.8"], "registry": "r"}}'
        )
        for claim in (a_claim_with(config, region="SE"), subject.claim(count=2)):
            await subject.driver.ensure(claim)
            await settled(subject, claim.id)
            await subject.driver.release(claim.id)
        with pytest.raises(border.RequestRefused):
            await subject.driver.ensure(a_machine_claim("runpod", KIND, zone="MARS-1"))
        await subject.driver.disconnect()

    try:
        asyncio.run(act())
    finally:
        del subject.cloud.serve
    assert wrong == []
    assert len(seen) >= 8, seen
