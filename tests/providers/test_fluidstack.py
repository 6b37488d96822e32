"""Fluidstack's driver: what it says of the clusters of an account, and the machines of the old platform."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("aiohttp", reason="aiohttp is not installed")

from argosy.infra import border
from argosy.infra.machine_driver import MachineDriver
from argosy.infra.provider import Diagnostic, Want
from argosy.model.rows import Claim
from argosy.providers.fluidstack import create
from argosy.providers.fluidstack.platform import Platform
from argosy.providers.fluidstack.provider import Fluidstack
from argosy.testing.conformance.cloud import CloudSubject, MovedClock, a_machine_claim, a_setting
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.conformance.refusals import REFUSALS, hold_kills
from argosy.testing.conformance.refusals import Case as Refusal
from argosy.testing.fake_fluidstack import KEY, TOKEN, FakeFluidstack

KIND = "H100_NVLINK_80GB::8"


class Subject(CloudSubject):
    secrets: tuple[str, ...] = (KEY, "PRIVATE KEY")
    calls = ("create", "delete")
    takes_back = False
    gaps: Mapping[str, str] = {
        **CloudSubject.gaps,
        "preemption_becomes_a_fact": "machines of the old platform are not taken back",
    }
    cloud: FakeFluidstack

    def claim(self, count: int = 1) -> Claim:
        return a_machine_claim("fluidstack", KIND, region="FINLAND", count=count, accelerator="H100")


Cloud = tuple[FakeFluidstack, MovedClock]


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    clock = MovedClock()
    with FakeFluidstack(now=clock.now_s) as fake:
        yield fake, clock


def subject_of(cloud: Cloud, root: Path) -> Subject:
    fake, clock = cloud
    fake.reset()
    setting = a_setting(root, clock, fake.environ())
    return Subject(MachineDriver(Platform(setting), setting, settle_s=0.0), fake, clock)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_conformance_of_the_old_platform(case: Case, cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)

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


@pytest.mark.parametrize("case", REFUSALS, ids=lambda case: case.__name__)
def test_refusals_of_the_old_platform(case: Refusal, cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)

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


def test_bad_input_says_what_to_do(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    assert fails(subject, a_machine_claim("fluidstack", "huge"), border.RequestRefused) == (
        "`huge` is no type of Fluidstack: they are called like `H100_NVLINK_80GB::8`"
    )
    unknown = a_machine_claim("fluidstack", "TPU::1", region="FINLAND")
    assert fails(subject, unknown, border.RequestRefused) == (
        "Fluidstack says: unknown GPU type TPU; asked for TPU::1 in FINLAND"
    )
    nowhere = a_machine_claim("fluidstack", KIND, region="MARS")
    assert fails(subject, nowhere, border.OutOfCapacity) == (
        f"Fluidstack has no {KIND} in MARS now: H100_NVLINK_80GB is out of stock"
    )
    setting = a_setting(tmp_path, cloud[1], {"HOME": str(tmp_path)})
    (finding,) = asyncio.run(Platform(setting).check())
    assert (finding.what, finding.hint) == (
        "Fluidstack has no key to use, neither in FLUIDSTACK_API_KEY nor in ~/.fluidstack/api_key",
        "make a key in the console of the old platform",
    )


def test_what_runs_out_of_stock_later_is_told_and_goes(cloud: Cloud, tmp_path: Path) -> None:
    subject = subject_of(cloud, tmp_path)
    claim = subject.claim()

    async def act() -> None:
        await subject.driver.ensure(claim)
        (machine,) = subject.cloud.machines()
        machine.state = "failed"
        with pytest.raises(border.OutOfCapacity, match=r"could not make .*-0 \(out_of_stock\)"):
            await subject.driver.ensure(claim)
        await subject.driver.release(claim.id)
        assert subject.cloud.machines("failed", "running", "starting") == []
        await subject.driver.disconnect()

    asyncio.run(act())


# -- the present API --------------------------------------------------------------------------------------


def a_cluster(name: str, type: str, health: str = "healthy") -> dict[str, Any]:
    id = "0b0c6a2e-0000-4000-8000-000000000000"
    return {"id": id, "name": name, "region": "us-east", "type": type, "health": health, "project_id": "p"}


def checked(cloud: Cloud, home: Path, clusters: list[dict[str, Any]]) -> list[Diagnostic]:
    fake, clock = cloud
    fake.reset()
    fake.clusters = clusters
    setting = a_setting(home, clock, fake.environ() | {"HOME": str(home)})

    async def act() -> list[Diagnostic]:
        driver = create(setting)
        assert isinstance(driver.vendor, Fluidstack)
        try:
            return list(await driver.check())
        finally:
            await driver.disconnect()

    return asyncio.run(act())


def test_clusters_are_handed_to_their_drivers(cloud: Cloud, tmp_path: Path) -> None:
    (tmp_path / ".kube").mkdir()
    (tmp_path / ".kube" / "config").write_text(
        "contexts: [{name: admin@train, context: {cluster: train, user: admin}}]"
    )
    (tmp_path / ".slurm").mkdir()
    (tmp_path / ".slurm" / "config").write_text("Host batch\n  HostName 192.0.2.1\n")
    clusters = [a_cluster("train", "kubernetes"), a_cluster("batch", "slurm")]
    found = checked(cloud, tmp_path, clusters)
    assert [(each.ok, each.what) for each in found] == [
        (
            True,
            "the token is accepted; clusters: 2. Fluidstack makes no machines by its API: tasks run on its "
            "clusters",
        ),
        (True, "the Kubernetes cluster train in us-east is `infra: kubernetes/admin@train`"),
        (True, "the Slurm cluster batch in us-east is `infra: slurm/batch`"),
    ]


def test_a_cluster_that_is_not_known_here_says_the_command(cloud: Cloud, tmp_path: Path) -> None:
    clusters = [
        a_cluster("train", "kubernetes"),
        a_cluster("batch", "slurm"),
        a_cluster("x", "slurm", "offline"),
    ]
    _, train, batch, away = checked(cloud, tmp_path, clusters)
    assert (train.ok, train.what) == (
        False,
        "the Kubernetes cluster train in us-east has no context in the kubeconfig",
    )
    assert train.hint == (
        "download its kubeconfig from the console, join it with yours (`KUBECONFIG=~/.kube/config:FILE "
        "kubectl config view --flatten`), and name its context in ARGOSY_KUBERNETES_CONTEXTS"
    )
    assert (batch.ok, batch.hint) == (
        False,
        "add its login node to ~/.slurm/config: `Host batch`, `HostName ADDRESS`, `User YOU` (the console "
        "tells the address)",
    )
    assert (away.ok, away.what) == (False, "the Slurm cluster x in us-east is offline")


def test_nothing_is_offered_and_nothing_ordered(cloud: Cloud, tmp_path: Path) -> None:
    fake, clock = cloud
    fake.reset()
    fake.clusters = [a_cluster("train", "kubernetes")]
    driver = create(a_setting(tmp_path, clock, fake.environ()))

    async def act() -> None:
        (offer,) = await driver.quote(Want())
        assert offer.closed == (
            "Fluidstack makes no machines by its API: tasks run on its clusters (kubernetes/train)"
        )
        assert (offer.region, offer.zone, offer.shape.instance_type) == ("", "", "")  # all of them
        with pytest.raises(border.Unsupported, match="`argosy check` tells how they are used"):
            await driver.ensure(a_machine_claim("fluidstack", KIND, region="FINLAND"))
        assert list(await driver.observe([])) == []
        await driver.release("clm-0000000000000000000z")
        await driver.disconnect()

    asyncio.run(act())
    assert fake.machines() == []


def test_refused_tokens_say_what_to_do(cloud: Cloud, tmp_path: Path) -> None:
    fake, clock = cloud
    fake.reset()
    fake.expired = True

    async def found_by(environ: dict[str, str]) -> Diagnostic:
        vendor = Fluidstack(a_setting(tmp_path, clock, environ))
        (finding,) = await vendor.check()
        await vendor.close()
        return finding

    refused = asyncio.run(found_by(fake.environ()))
    assert TOKEN not in repr(refused)
    assert (refused.ok, refused.what, refused.hint) == (
        False,
        "Fluidstack does not accept the credentials: the credentials are not valid",
        "make a token in the console of Fluidstack and set FLUIDSTACK_TOKEN",
    )
    missing = asyncio.run(found_by({"ARGOSY_FLUIDSTACK_URL": fake.url}))
    assert missing.what == (
        "Fluidstack has no token to use, neither in FLUIDSTACK_TOKEN nor in FLUIDSTACK_API_KEY and "
        "ARGOSY_FLUIDSTACK_PLATFORM"
    )


@pytest.mark.nightly
def test_the_old_sdk_speaks_to_the_fake(cloud: Cloud, tmp_path: Path) -> None:
    why = "THE FAKE OF FLUIDSTACK'S OLD PLATFORM IS NOT HELD TO ITS SDK: `pip install fluidstack`"
    client_module = pytest.importorskip("FluidStack.client", reason=why)
    fake, _ = cloud
    fake.reset()
    client = client_module.FluidStack(api_key=KEY, base_url=fake.url)
    client.ssh_keys.create(name="mine", public_key="ssh-ed25519 AAAA me")
    client.instances.create(
        gpu_type="H100_NVLINK_80GB", ssh_key="mine", name="a", gpu_count=8, region="FINLAND"
    )
    (told,) = client.instances.list()
    assert (told.name, told.status, told.username) == ("a", "running", "ubuntu")
    client.instances.delete(told.id)
    assert client.instances.list() == []
