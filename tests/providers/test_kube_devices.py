"""Devices that pods claim (dynamic resource allocation), before the fake cluster, in two versions of it."""

from __future__ import annotations

import asyncio
from pathlib import Path

import msgspec
import pytest
from kube_cluster import KubeSubject, a_driver, a_kube, a_pod_claim, with_cluster
from test_kube_life import fact_of

from argosy.infra import border
from argosy.infra.provider import Want
from argosy.model.facts import ClaimState
from argosy.model.rights import role_documents
from argosy.model.units import GIB
from argosy.providers.kubernetes.devices import DeviceClass, ResourceClaim, ResourceSlice, lots_of
from argosy.providers.kubernetes.provider import KubernetesProvider
from argosy.testing.conformance.provider import CASES, Case, case_name, hold
from argosy.testing.fake_kube import FakeKube, a_node
from argosy.testing.fake_kube_devices import a_class, a_slice
from argosy.testing.fake_kube_rules import JSON, rights_of

H100, MIG = "NVIDIA H100 80GB HBM3", "mig.nvidia.com"


def with_devices(kube: FakeKube, version: str = "v1") -> FakeKube:
    """Two nodes of eight cards, and one with parts of a card, all listed by a driver."""
    group = f"resource.k8s.io/{version}"
    kube.groups.add(group)
    for name, kind in (("gpu.nvidia.com", "gpu"), (MIG, "mig")):
        kube.put("deviceclasses", a_class(name, kind), group=group)
    for name in ("gpu1", "gpu2"):
        kube.put("resourceslices", a_slice(name, H100, 8, version=version), group=group)
    parts = a_slice("parts", H100, 7, version=version, type="mig", profile="1g.10gb")
    kube.put("resourceslices", parts, group=group)
    return kube


NODES = [a_node(name, cpu="64", memory="512Gi") for name in ("gpu1", "gpu2", "parts")]


def left(kube: FakeKube) -> list[str]:
    return [key[3] for key in kube.store.objects if key[1].startswith("resourceclaim")]


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_they_are_offered_claimed_and_given_back(version: str, tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        with_devices(kube, version)

        async def offered() -> set[tuple[str | None, int, int | None]]:
            found = [(each.shape, each.wait_s) for each in await provider.quote(Want())]
            return {
                (one.accelerator, one.accelerators_milli, wait_s) for one, wait_s in found if one.accelerator
            }

        assert await offered() == {("H100", 8000, 0), ("H100", 142, 0)}
        claim = a_pod_claim(2, gpus=5)
        await provider.ensure(claim)
        await provider.ensure(claim)
        await fact_of(provider, claim.id, ClaimState.HELD)
        group = f"resource.k8s.io/{version}"
        ((_, template),) = kube.store.of("resourceclaimtemplates", group=group)
        (wanted,) = template["spec"]["spec"]["devices"]["requests"]
        asked = wanted if version == "v1beta1" else wanted["exactly"]
        assert (asked["deviceClassName"], asked["count"]) == ("gpu.nvidia.com", 5)
        assert asked["selectors"][0]["cel"]["expression"] == (
            f'device.attributes["gpu.nvidia.com"].productName == "{H100}"'
        )
        for pod in kube.pods_of(claim.id):
            resources = pod["spec"]["containers"][0]["resources"]
            assert resources["claims"] == [{"name": "devices"}]
            assert not any("/" in name for name in (*resources["requests"], *resources["limits"]))
        assert {pod["spec"]["nodeName"] for pod in kube.pods_of(claim.id)} == {"gpu1", "gpu2"}
        assert await offered() == {("H100", 3000, 0), ("H100", 8000, None), ("H100", 142, 0)}
        await provider.release(claim.id)
        assert left(kube) == []

    with_cluster(tmp_path, act, nodes=NODES)


def test_a_part_of_a_card_is_a_device_too(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        with_devices(kube)
        part = a_pod_claim(gpus=1, milli=125)
        await provider.ensure(part)
        await fact_of(provider, part.id, ClaimState.HELD)
        ((_, template),) = kube.store.of("resourceclaimtemplates", group="resource.k8s.io/v1")
        asked = template["spec"]["spec"]["devices"]["requests"][0]["exactly"]
        assert (asked["deviceClassName"], asked["count"]) == (MIG, 1)
        assert asked["selectors"][0]["cel"]["expression"].endswith('.profile == "1g.10gb"')
        await provider.release(part.id)
        assert left(kube) == []

    with_cluster(tmp_path, act, nodes=NODES)


def test_more_than_there_is_leaves_nothing(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        with_devices(kube)
        claim = a_pod_claim(3, gpus=8)
        with pytest.raises(border.OutOfCapacity) as caught:
            await provider.ensure(claim)
        assert str(caught.value) == "lab has room for 2 such pods when nothing else runs, asked for 3"
        await provider.release(claim.id)
        assert left(kube) == []

    with_cluster(tmp_path, act, nodes=NODES)


#: What is the same whoever gives the devices is tried without them.
_CASES = [each for each in CASES if "gang" in case_name(each) or "cancelled" in case_name(each)]


@pytest.mark.parametrize("case", _CASES, ids=case_name)
def test_conformance(case: Case, tmp_path: Path) -> None:
    async def run() -> None:
        async with a_kube(tmp_path, nodes=NODES) as kube:
            subject = KubeSubject(with_devices(kube), tmp_path / "driver")
            try:
                await hold(case, subject)
            finally:
                await subject.provider.disconnect()

    asyncio.run(run())


@pytest.mark.parametrize("step", range(5))
def test_a_driver_that_dies_after_any_call_leaves_what_the_next_one_ends(step: int, tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        with_devices(kube)
        claim = a_pod_claim(3, gpus=2)
        kube.die_after(step)
        await asyncio.gather(provider.ensure(claim), return_exceptions=True)
        kube.live()
        fresh = a_driver(kube, tmp_path / "driver", settle_s=2.0)
        if step % 2:
            await fresh.ensure(claim)
            await fact_of(fresh, claim.id, ClaimState.HELD)
            assert len(kube.pods_of(claim.id)) == 3
        await fresh.release(claim.id)
        assert [key for key in kube.store.objects if key[3].startswith("clm-")] == []
        await fresh.disconnect()

    with_cluster(tmp_path, act, nodes=NODES)


def test_who_may_not_list_them_is_told_what_lets_him(tmp_path: Path) -> None:
    documents = role_documents("ml", account="argosy", cluster_wide=True)
    wide = next(each for each in documents if each["kind"] == "ClusterRole")
    assert wide["rules"].pop() == {
        "apiGroups": ["resource.k8s.io"],
        "resources": ["resourceslices", "deviceclasses", "resourceclaims"],
        "verbs": ["list"],
    }

    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        with_devices(kube)
        assert {each.shape.accelerator for each in await provider.quote(Want())} == {None}
        (finding,) = [each for each in await provider.check() if not each.ok]
        assert finding.what == (
            "lab: may not list devices that pods claim (resource.k8s.io): they are not offered"
        )
        assert finding.hint == "`argosy kubernetes manifest --cluster-wide --apply` lets us"

    with_cluster(tmp_path, act, nodes=NODES, rights=rights_of(documents))


# -- what is read of slices ------------------------------------------------------------------------------


def a_told(body: JSON) -> ResourceSlice:
    return msgspec.convert(body, ResourceSlice)


def a_class_that_says(expression: str) -> DeviceClass:
    spec = {"selectors": [{"cel": {"expression": expression}}]}
    return msgspec.convert({"metadata": {"name": "some"}, "spec": spec}, DeviceClass)


def test_of_a_pool_the_newest_slices_count_and_what_is_allotted_is_not_free() -> None:
    old, new = a_slice("n1", H100, 8), a_slice("n1", H100, 2)
    new["spec"]["pool"]["generation"] = 2
    result = {"driver": "gpu.nvidia.com", "pool": "n1", "device": "gpu-1"}
    claim = msgspec.convert({"status": {"allocation": {"devices": {"results": [result]}}}}, ResourceClaim)
    every = a_class_that_says("device.driver == 'gpu.nvidia.com'")
    (lot,) = lots_of([a_told(old), a_told(new)], [every], [claim])
    assert (lot.units, lot.free, lot.model, lot.device_bytes) == (2, 1, "H100", 80 * GIB)


@pytest.mark.parametrize(
    ("expression", "holds"),
    [
        ("device.driver == 'gpu.nvidia.com'", True),
        ("device.driver == 'gpu.amd.com'", False),
        ("device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'gpu'", True),
        ("device.driver == 'gpu.nvidia.com' && device.attributes['gpu.nvidia.com'].type == 'mig'", False),
        ("device.capacity['gpu.nvidia.com'].memory.isGreaterThan(quantity('10Gi'))", False),
        ("", False),
    ],
)
def test_a_class_that_is_not_understood_is_no_class(expression: str, holds: bool) -> None:
    found = lots_of([a_told(a_slice("n1", H100, 1))], [a_class_that_says(expression)], [])
    assert bool(found) == holds
