"""What becomes of pods: why they end, who starts them together, what is made beside them, and what a driver
that begins anew makes of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from kube_cluster import AGENT, H100, ROLE, a_driver, a_kube, a_pod_claim, configured, with_cluster

from argosy.infra import border
from argosy.infra.provider import Want
from argosy.model.facts import ClaimFact, ClaimState
from argosy.model.own_volumes import OwnVolume, VolumeConfig
from argosy.model.resources import Infra, Resources
from argosy.model.units import GIB
from argosy.providers.kubernetes.provider import KubernetesProvider
from argosy.testing.fake_kube import FakeKube, a_node


async def until(seen: Callable[[], Any]) -> Any:
    """What `seen` gives, when it gives something."""
    for _ in range(400):
        if value := seen():
            return value
        await asyncio.sleep(0.005)
    raise AssertionError("waited in vain")


async def fact_of(provider: KubernetesProvider, claim_id: str, state: ClaimState) -> ClaimFact:
    for _ in range(400):
        (fact,) = await provider.observe([claim_id])
        if fact.state is state:
            return fact
        await asyncio.sleep(0.005)
    raise AssertionError(f"it is {fact}")


@pytest.mark.parametrize(
    ("turn", "state", "said"),
    [
        (
            lambda kube, name: kube.preempt(name, "ml"),
            ClaimState.PREEMPTED,
            "was taken away: the scheduler made room for a pod of higher priority (PreemptionByScheduler: "
            "for another)",
        ),
        (
            lambda kube, name: kube.preempt(name, "ml", "EvictionByEvictionAPI"),
            ClaimState.PREEMPTED,
            "it was evicted, as when a node is drained or an autoscaler shrinks (EvictionByEvictionAPI: "
            "for another)",
        ),
        (
            lambda kube, name: kube.preempt(name, "ml", "DeletionByPodGC"),
            ClaimState.GONE,
            "is lost (DeletionByPodGC: for another)",
        ),
        (
            lambda kube, name: kube.fail(name, "ml"),
            ClaimState.GONE,
            "ran out of memory and was killed (OOMKilled)",
        ),
        (
            lambda kube, name: kube.fail(name, "ml", reason="Evicted", message="The node is full."),
            ClaimState.GONE,
            "ended as Evicted: The node is full.",
        ),
        (
            lambda kube, name: kube.fail(name, "ml", exit_code=3, why="Error", message="cannot use --root"),
            ClaimState.GONE,
            "its agent ended with exit code 3: cannot use --root",
        ),
        (
            lambda kube, name: kube.pods.delete(("v1", "pods", "ml", name), 0),
            ClaimState.GONE,
            "deleted by somebody else",
        ),
    ],
)
def test_an_end_has_the_reason_of_the_cluster(
    turn: Callable[[FakeKube, str], None], state: ClaimState, said: str, tmp_path: Path
) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        claim = a_pod_claim(2, gpus=1)
        await provider.ensure(claim)
        await fact_of(provider, claim.id, ClaimState.HELD)
        news = asyncio.ensure_future(provider.changed())
        await asyncio.sleep(0)
        turn(kube, f"{claim.id}-1")
        await news
        fact = await fact_of(provider, claim.id, state)
        assert fact.detail.startswith(f"the pod {claim.id}-1")
        assert said in fact.detail
        await provider.ensure(claim)
        assert len(kube.pods_of(claim.id)) <= 2, "nothing is made again in its place"
        await provider.release(claim.id)
        assert kube.pods_of(claim.id) == []
        assert await provider.observe([claim.id]) == []

    with_cluster(tmp_path, act)


def test_a_node_that_is_lost_is_not_alive_and_its_pods_do_not_hold_up_the_release(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        claim = a_pod_claim(gpus=1)
        await provider.ensure(claim)
        await fact_of(provider, claim.id, ClaimState.HELD)
        kube.kill_node("gpu1")
        for _ in range(200):
            (fact,) = await provider.observe([claim.id])
            if not fact.nodes[0].alive:
                break
            await asyncio.sleep(0.005)
        assert not fact.nodes[0].alive
        assert fact.state is ClaimState.HELD
        releasing = asyncio.ensure_future(provider.release(claim.id))
        await until(lambda: kube.pods_of(claim.id)[0]["metadata"].get("deletionTimestamp"))
        kube.store.remove(("v1", "pods", "ml", f"{claim.id}-0"))  # the node's owner gives up on it
        await releasing

    with_cluster(tmp_path, act)


def test_a_watch_that_breaks_or_is_too_old_loses_nothing(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        first, second = a_pod_claim(), a_pod_claim()
        await provider.ensure(first)
        await fact_of(provider, first.id, ClaimState.HELD)
        kube.streams.break_all()
        kube.store.remove(("v1", "pods", "ml", f"{first.id}-0"))
        kube.compact()
        await provider.ensure(second)
        await fact_of(provider, second.id, ClaimState.HELD)
        (fact,) = await provider.observe([first.id])
        assert fact.detail == f"the pod {first.id}-0 was deleted by somebody else"

    with_cluster(tmp_path, act)


def test_a_listing_of_many_pages(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        claims = [a_pod_claim(4, cpus_milli=10) for _ in range(3)]
        for claim in claims:
            await provider.ensure(claim)
        fresh = a_driver(kube, tmp_path / "driver")
        assert {fact.claim_id for fact in await fresh.observe([])} == {claim.id for claim in claims}
        assert all(fact.state is ClaimState.HELD for fact in await fresh.observe([]))
        await fresh.disconnect()

    with pytest.MonkeyPatch().context() as patch:
        patch.setattr("argosy.providers.kubernetes.api._PAGE", 5)
        with_cluster(tmp_path, act)


def test_the_cluster_starts_a_gang_where_it_knows_how(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        kube.groups.add("scheduling.k8s.io/v1beta1")
        claim, other = a_pod_claim(2, gpus=8), a_pod_claim(2, gpus=4)
        await provider.ensure(claim)
        await fact_of(provider, claim.id, ClaimState.HELD)
        await provider.ensure(other)
        assert {pod["spec"].get("nodeName") for pod in kube.pods_of(other.id)} == {None}
        assert kube.pods_of(other.id)[0]["spec"]["schedulingGroup"] == {"podGroupName": other.id}
        await provider.release(claim.id)
        await fact_of(provider, other.id, ClaimState.HELD)
        await provider.release(other.id)
        assert not list(kube.store.of("podgroups", group="scheduling.k8s.io/v1beta1"))

    with_cluster(tmp_path, act)


def test_a_queue_of_kueue_admits_a_gang_and_its_finalizers_do_not_stay(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        kube.pods.kueue_room = 4
        config = {"kueue": {"local_queue_name": "team"}}
        first = configured(config, count=2, gpus=2)
        second = configured(config, count=2, gpus=1, requested_ms=0)
        await provider.ensure(first)
        await fact_of(provider, first.id, ClaimState.HELD)
        await provider.ensure(second)
        fact = await fact_of(provider, second.id, ClaimState.PENDING)
        assert fact.detail == "waits in its queue until Kueue admits it", "for as long as it takes"
        labels = kube.pods_of(second.id)[0]["metadata"]["labels"]
        assert labels["kueue.x-k8s.io/queue-name"] == "team"
        assert labels["kueue.x-k8s.io/pod-group-name"] == second.id
        await provider.release(first.id)
        assert kube.pods_of(first.id) == []
        await fact_of(provider, second.id, ClaimState.HELD)

    with pytest.MonkeyPatch().context() as patch:
        patch.setattr("argosy.providers.kubernetes.making._LOOK_S", 0.05)
        with_cluster(tmp_path, act)


def test_queued_capacity_of_google_is_asked_for(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        kube.groups.add("autoscaling.x-k8s.io/v1")
        claim = configured({"dws": {"enabled": True, "max_run_duration": "24h"}}, count=2, gpus=8)
        await provider.ensure(claim)
        ((_, request),) = kube.store.of("provisioningrequests", group="autoscaling.x-k8s.io/v1")
        assert request["spec"]["podSets"] == [{"podTemplateRef": {"name": claim.id}, "count": 2}]
        assert request["spec"]["parameters"] == {"maxRunDurationSeconds": "86400"}
        notes = kube.pods_of(claim.id)[0]["metadata"]["annotations"]
        assert notes["autoscaling.x-k8s.io/consume-provisioning-request"] == claim.id
        await provider.release(claim.id)
        assert not list(kube.store.of("provisioningrequests", group="autoscaling.x-k8s.io/v1"))
        assert not list(kube.store.of("podtemplates"))

    with_cluster(tmp_path, act)


def test_ports_go_with_the_first_pod(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        claim = configured({"ports": "ingress"}, resources=Resources(ports=("8080", "9000-9001")))
        await provider.ensure(claim)
        ((_, service),) = kube.store.of("services")
        assert [each["port"] for each in service["spec"]["ports"]] == [8080, 9000, 9001]
        assert service["spec"]["selector"] == {"argosy.dev/claim": claim.id, "argosy.dev/node": "0"}
        assert len(list(kube.store.of("ingresses", group="networking.k8s.io/v1"))) == 1
        await provider.release(claim.id)
        assert not list(kube.store.of("services"))
        assert not list(kube.store.of("ingresses", group="networking.k8s.io/v1"))

    with_cluster(tmp_path, act)


def test_what_a_task_says_is_merged_into_its_pods(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        config = {
            "pod_config": {
                "metadata": {"annotations": {"team": "blue"}},
                "spec": {
                    "containers": [
                        {
                            "env": [{"name": "A", "value": "1"}],
                            "resources": {
                                "limits": {"rdma/hca": "1"},
                                "requests": {"rdma/hca": "1"},
                                "claims": [{"name": "gpu"}],
                            },
                            "volumeMounts": [{"name": "data", "mountPath": "/data"}],
                        },
                        {"name": "side", "image": "busybox"},
                    ],
                    "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
                    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
                    "resourceClaims": [{"name": "gpu", "resourceClaimTemplateName": "one-gpu"}],
                },
            },
            "service_account": "trainer",
            "image_pull_secrets": ["registry"],
            "set_pod_resource_limits": 1.5,
        }
        claim = configured(config, gpus=8, cpus_milli=3000)
        for number in (1, 2):
            kube.store.objects["v1", "nodes", "", f"gpu{number}"]["status"]["allocatable"]["rdma/hca"] = "1"
        await provider.ensure(claim)
        (pod,) = kube.pods_of(claim.id)
        spec, (main, side) = pod["spec"], pod["spec"]["containers"]
        assert spec["serviceAccountName"] == "trainer"
        assert spec["imagePullSecrets"] == [{"name": "registry"}]
        assert {"key": "dedicated", "operator": "Exists"} in spec["tolerations"]
        assert side["image"] == "busybox"
        assert main["resources"]["claims"] == [{"name": "gpu"}]
        assert main["env"] == [{"name": "A", "value": "1"}], "it was given cards: none is hidden"
        assert main["resources"]["limits"] == {
            **{"nvidia.com/gpu": "8", "cpu": "4500m", "memory": str(3 << 29), "rdma/hca": "1"}
        }
        places = [each["mountPath"] for each in main["volumeMounts"]]
        assert places == ["/argosy", "/argosy-root", "/dev/shm", "/data"]
        wanted = spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        label = {"key": "nvidia.com/gpu.product", "operator": "In", "values": ["NVIDIA-H100-80GB-HBM3"]}
        assert wanted == {"nodeSelectorTerms": [{"matchExpressions": [label]}]}

    with_cluster(tmp_path, act)


def test_volumes_of_a_task_are_in_its_pods_and_claims_are_made_once(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        volumes = [
            {"type": "k8s-pvc", "name": "data", "path": "/data", "size_bytes": 5 << 30, "sub_path": "a"},
            {"type": "k8s-pvc", "path": "/scratch", "size_bytes": 1 << 30,
             "config": {"storage_class_name": "fast", "access_mode": "ReadWriteOncePod"}},
            {"type": "k8s-hostpath", "path": "/srv", "config": {"host_path": "/mnt/srv"}},
            {"type": "k8s-pvc", "name": "there", "path": "/there"},
        ]  # fmt: skip
        claim = configured({"volumes": volumes})
        await provider.ensure(claim)
        await provider.ensure(claim)  # the claim is there by now
        ((_, made),) = kube.store.of("persistentvolumeclaims")
        assert made["metadata"]["name"] == "data"
        assert made["spec"] == {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": str(5 << 30)}},
        }
        (pod,) = kube.pods_of(claim.id)
        mounts = {each["mountPath"]: each for each in pod["spec"]["containers"][0]["volumeMounts"]}
        assert mounts["/data"] == {"name": "argosy-volume-0", "mountPath": "/data", "subPath": "a"}
        found = {each["name"]: each for each in pod["spec"]["volumes"]}
        assert found["argosy-volume-0"]["persistentVolumeClaim"] == {"claimName": "data"}
        assert found["argosy-volume-1"]["ephemeral"]["volumeClaimTemplate"]["spec"] == {
            "accessModes": ["ReadWriteOncePod"],
            "resources": {"requests": {"storage": str(1 << 30)}},
            "storageClassName": "fast",
        }
        assert found["argosy-volume-2"]["hostPath"] == {"path": "/mnt/srv", "type": "DirectoryOrCreate"}
        assert found["argosy-volume-3"]["persistentVolumeClaim"] == {"claimName": "there"}
        for volume, said in (
            ({"type": "k8s-hostpath", "path": "/x"}, "needs `config: {host_path: /PATH}`"),
            (
                {"type": "k8s-pvc", "path": "/x", "size_bytes": 1, "config": {"access_mode": "rw"}},
                "`/x`: `access_mode: rw` is none of ReadWriteOnce, ReadOnlyMany, ReadWriteMany, "
                "ReadWriteOncePod",
            ),
        ):
            with pytest.raises(border.RequestRefused) as caught:
                await provider.ensure(configured({"volumes": [volume]}))
            assert said in str(caught.value)

    with_cluster(tmp_path, act)


def test_volumes_that_stay_are_made_once_and_only_ours_are_removed(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        here, made = Infra(provider="kubernetes", region="lab"), OwnVolume(type="k8s-pvc", path="/", name="d")
        with pytest.raises(border.RequestRefused, match="there is no claim `d` in ml of lab"):
            await provider.make_volume(here, made)
        made = msgspec.structs.replace(made, size_bytes=5 << 30)
        assert await provider.make_volume(Infra(provider="kubernetes"), made)
        assert await provider.make_volume(here, made), "made before, by us"
        ((_, claim),) = kube.store.of("persistentvolumeclaims")
        assert claim["spec"]["resources"] == {"requests": {"storage": str(5 << 30)}}
        await provider.remove_volume(here, made)
        await provider.remove_volume(here, made)
        assert list(kube.store.of("persistentvolumeclaims")) == []
        assert await provider.make_volume(here, made)
        ((_, claim),) = kube.store.of("persistentvolumeclaims")
        claim["metadata"]["labels"] = {}
        assert not await provider.make_volume(here, made), "somebody else's"
        await provider.remove_volume(here, made)
        assert len(list(kube.store.of("persistentvolumeclaims"))) == 1
        path = OwnVolume(type="k8s-hostpath", path="/", config=VolumeConfig(host_path="/srv"))
        assert not await provider.make_volume(here, path)
        with pytest.raises(border.RequestRefused, match="no context in use is called gone"):
            await provider.make_volume(Infra(region="gone"), made)

    with_cluster(tmp_path, act)


def test_another_namespace_is_found_again_by_a_driver_that_begins_anew(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        claim = a_pod_claim(resources=Resources(infra=Infra(provider="kubernetes", region="lab/default")))
        claim = msgspec.structs.replace(claim, tag="sto-mine")
        await provider.ensure(claim)
        fresh = a_driver(kube, tmp_path / "driver")
        (fact,) = await fresh.observe([])
        assert (fact.claim_id, fact.tag) == (claim.id, "sto-mine")
        assert fact.nodes[0].address == f"lab/default/{claim.id}-0"
        await fresh.release(claim.id)
        assert kube.pods_of(claim.id) == []
        await fresh.disconnect()

    with_cluster(tmp_path, act, rights=None)


@pytest.mark.parametrize("step", range(7))
def test_a_driver_that_dies_after_any_call_leaves_what_the_next_one_ends(step: int, tmp_path: Path) -> None:
    """The server is killed after its n-th call that changes something; the next one finds all of it."""

    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        kube.groups.add("scheduling.k8s.io/v1beta1")
        claim = configured({"ports": "nodeport"}, count=3, resources=Resources(ports=("80",)))
        kube.die_after(step)
        await asyncio.gather(provider.ensure(claim), return_exceptions=True)
        kube.live()
        fresh = a_driver(kube, tmp_path / "driver", settle_s=2.0)
        assert {fact.claim_id for fact in await fresh.observe([])} <= {claim.id}
        if step % 2:
            await fresh.ensure(claim)
            await fact_of(fresh, claim.id, ClaimState.HELD)
            assert len(kube.pods_of(claim.id)) == 3
        await fresh.release(claim.id)
        left = [key for key in kube.store.objects if key[3].startswith("clm-")]
        assert left == []
        await fresh.disconnect()

    with_cluster(tmp_path, act)


def test_offers_are_what_is_free_now_and_what_a_whole_node_gives(tmp_path: Path) -> None:
    spot = {"cloud.google.com/gke-spot": "true", "cloud.google.com/gke-accelerator": "nvidia-l4"}
    shared = {"nvidia.com/gpu.product": "Tesla-T4-SHARED", "nvidia.com/gpu.replicas": "4"}
    nodes = [
        a_node("big", labels=H100, gpu="8", cpu="64", memory="512Gi"),
        a_node("spot", labels=spot, gpu="1"),
        a_node("turns", labels=shared, gpu="8"),
        a_node("parts", labels=H100, **{"nvidia.com/mig-1g.10gb": "7"}),
        a_node("plain", cpu="32"),
        {**a_node("closed", cpu="96"), "spec": {"unschedulable": True}},
    ]

    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        await provider.ensure(a_pod_claim(gpus=3))
        offers = [
            (
                each.shape.accelerator,
                each.shape.accelerators_milli,
                each.shape.cpus_milli,
                each.capacity,
                each.wait_s,
            )
            for each in await provider.quote(Want())
        ]
        assert sorted(offers, key=str) == [
            ("H100", 142, 16000, "queued", 0),
            ("H100", 5000, 62000, "queued", 0),
            ("H100", 8000, 64000, "queued", None),
            ("L4", 1000, 16000, "spot", 0),
            ("T4", 250, 16000, "queued", 0),
            (None, 0, 16000, "spot", 0),
            (None, 0, 32000, "queued", 0),
        ]
        part = a_pod_claim(gpus=1, milli=125)
        await provider.ensure(part)
        limits = kube.pods_of(part.id)[0]["spec"]["containers"][0]["resources"]["limits"]
        assert limits == {"nvidia.com/mig-1g.10gb": "1"}

    with_cluster(tmp_path, act, nodes=nodes)


def test_any_part_of_a_card_that_hami_divides(tmp_path: Path) -> None:
    cards = [
        {"id": f"GPU-{n}", "count": 10, "devmem": 81920, "type": "NVIDIA-NVIDIA H100 80GB HBM3"}
        for n in (1, 2)
    ]
    parts = {
        "nvidia.com/gpumem-percentage": "200",
        "nvidia.com/gpucores": "200",
    }  # HAMi's scheduler counts them
    labels = {"kubernetes.io/hostname": "vgpu"}
    node = a_node("vgpu", labels=labels, gpu="20", cpu="64", memory="512Gi", **parts)
    node["metadata"]["annotations"] = {"hami.io/node-nvidia-register": json.dumps(cards)}

    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        whole = a_pod_claim(gpus=1)
        await provider.ensure(whole)
        part = a_pod_claim(gpus=1, milli=300)
        await provider.ensure(part)
        asked = {"nvidia.com/gpu": "1", "nvidia.com/gpumem-percentage": "30", "nvidia.com/gpucores": "30"}
        assert kube.pods_of(part.id)[0]["spec"]["containers"][0]["resources"]["limits"] == asked
        assert kube.pods_of(whole.id)[0]["spec"]["containers"][0]["resources"]["limits"] == {
            "nvidia.com/gpu": "1"
        }
        offers = {each.shape.accelerators_milli: each for each in await provider.quote(Want())}
        assert offers[2000].shape.accelerator_memory_bytes == 80 * GIB
        with pytest.raises(border.OutOfCapacity):
            await provider.ensure(a_pod_claim(gpus=3))

    with_cluster(tmp_path, act, nodes=[node])


def test_nodes_that_cannot_be_listed_are_described_by_the_settings(tmp_path: Path) -> None:
    (tmp_path / "driver").mkdir()
    (tmp_path / "driver" / "kubernetes.yaml").write_text(
        "contexts:\n  lab:\n    autoscaler: karpenter\n    node_types:\n"
        "      - {accelerator: H100, count: 8, cpus: 64, memory: 512, selector: {pool: gpu}}\n"
    )

    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        (offer,) = await provider.quote(Want())
        assert (offer.shape.accelerator, offer.shape.accelerators_milli, offer.wait_s) == ("H100", 8000, 300)
        claim = a_pod_claim(gpus=8)
        await provider.ensure(claim)
        (pod,) = kube.pods_of(claim.id)
        terms = pod["spec"]["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        label = {"key": "pool", "operator": "In", "values": ["gpu"]}
        assert terms == {"nodeSelectorTerms": [{"matchExpressions": [label]}]}
        await provider.ensure(msgspec.structs.replace(claim, requested_ms=claim.requested_ms - 600_000))

    with_cluster(tmp_path, act, rights=[each for each in ROLE if each.namespace])


def test_several_contexts_of_which_one_does_not_answer(tmp_path: Path) -> None:
    async def run() -> None:
        async with a_kube(tmp_path / "one") as one, a_kube(tmp_path / "two") as two:
            provider = a_driver(one, tmp_path / "driver", ARGOSY_KUBERNETES_CONTEXTS="lab,far")
            more = two.kubeconfig(tmp_path / "far", name="far", namespace="ml")
            provider._environ = {
                **provider._environ,
                "KUBECONFIG": f"{tmp_path / 'driver' / 'config'}:{more}",
            }
            claim = a_pod_claim(region="far")
            await provider.ensure(claim)
            await fact_of(provider, claim.id, ClaimState.HELD)
            assert {offer.region for offer in await provider.quote(Want())} == {"lab", "far"}
            await two.stop()
            assert {offer.region for offer in await provider.quote(Want())} <= {"lab", "far"}
            for _ in range(100):
                facts = await provider.observe([])
                assert [fact.claim_id for fact in facts] == [claim.id], "it has not lost its pods"
                await asyncio.sleep(0.005)
            await provider.disconnect()

    asyncio.run(run())


def test_a_server_in_a_pod_uses_its_own_cluster(tmp_path: Path) -> None:
    from argosy.providers.kubernetes.kubeconfig import find_contexts

    account = tmp_path / "account"
    account.mkdir()
    (account / "token").write_text("t1\n")
    (account / "namespace").write_text("ml")
    environ = {"HOME": str(tmp_path), "KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}
    known = find_contexts(environ, account)
    context = known.contexts[known.current]
    assert (context.name, context.server, context.namespace) == ("in-cluster", "https://[fd00::1]:6443", "ml")
    assert context.token_file == str(account / "token")


def test_making_the_driver_loads_nothing(tmp_path: Path) -> None:
    """What it costs is measured by `benchmarks/drivers.py`."""
    import subprocess
    import sys

    code = (
        "import sys\n"
        "from argosy.infra.provider import Setting\nfrom argosy.infra.system import SystemClock, SystemIds\n"
        "from pathlib import Path\n"
        "import argosy.providers.kubernetes as it\n"
        f"it.create(Setting(root=Path({str(tmp_path)!r}), clock=SystemClock(), ids=SystemIds(), "
        f"environ={{}}))\n"
        "print(*(m for m in ('aiohttp', 'yaml', 'websockets') if m in sys.modules))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_agent_is_brought_once(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        for _ in range(3):
            await provider.ensure(a_pod_claim())
        assert kube.calls["POST configmaps"] == 1
        ((key, held),) = kube.store.of("configmaps")
        assert key[3].startswith("argosy-agent-")
        assert list(held["binaryData"]) == ["agent.pyz"]
        assert AGENT.exists()

    with_cluster(tmp_path, act)


def test_watching_asks_nothing_while_nothing_happens(tmp_path: Path) -> None:
    async def act(kube: FakeKube, provider: KubernetesProvider) -> None:
        claim = a_pod_claim(3, gpus=1)
        await provider.ensure(claim)
        await fact_of(provider, claim.id, ClaimState.HELD)
        await until(lambda: kube.calls["GET pods/exec"] == 3)
        before = sum(kube.calls.values())
        for _ in range(50):
            await provider.observe([])
        assert sum(kube.calls.values()) == before
        await provider.release(claim.id)

    with_cluster(tmp_path, act)
