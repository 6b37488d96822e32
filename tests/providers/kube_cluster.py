"""A driver before a fake cluster, as tests want it."""

from __future__ import annotations

import asyncio
import os
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, ClassVar

import msgspec

from argosy.infra.boot import agent_zipapp
from argosy.infra.system import SystemClock
from argosy.model.offer import Capacity
from argosy.model.rights import role_documents
from argosy.model.rows import Claim
from argosy.providers.kubernetes.provider import KubernetesProvider
from argosy.testing.builders import a_choice, a_claim, a_gpu_shape, an_offer
from argosy.testing.fake_kube import FakeKube, a_node
from argosy.testing.fake_kube_rules import rights_of

TOKEN = "s3cr3t-token-of-the-kubeconfig"
AGENT = Path(tempfile.gettempdir()) / f"argosy-agent-{os.getuid()}"  # built once for all tests
H100 = {"nvidia.com/gpu.product": "NVIDIA-H100-80GB-HBM3", "nvidia.com/gpu.memory": "81559"}
ROLE = rights_of(role_documents("ml", account="argosy", cluster_wide=True))


def a_kube(folder: Path, **options: Any) -> FakeKube:
    """Two nodes of 8 H100, and the rights of the role that `argosy kubernetes manifest` prints."""
    nodes = [a_node(f"gpu{number}", labels=H100, gpu="8", cpu="64", memory="512Gi") for number in (1, 2)]
    given: dict[str, Any] = {
        "nodes": nodes,
        "namespaces": ("default", "ml"),
        "token": TOKEN,
        "rights": ROLE,
        **options,
    }
    return FakeKube(folder, **given)


def a_driver(kube: FakeKube, folder: Path, *, settle_s: float = 0.05, **environ: str) -> KubernetesProvider:
    folder.mkdir(exist_ok=True)
    config = kube.kubeconfig(folder / "config", namespace="ml")
    return KubernetesProvider(
        folder / "state",
        environ={"KUBECONFIG": str(config), "HOME": str(folder), "PATH": "/usr/bin:/bin", **environ},
        home=folder,
        clock=SystemClock(),
        zipapp=lambda: agent_zipapp(AGENT),
        settle_s=settle_s,
    )


def a_pod_claim(
    count: int = 1, *, gpus: int = 0, region: str = "lab", spot: bool = False, **fields: Any
) -> Claim:
    shape = a_gpu_shape(8, "H100", instance_type="8xH100-64c-512g")
    offer = an_offer(
        provider="kubernetes",
        region=region,
        shape=shape,
        capacity=Capacity.SPOT if spot else Capacity.QUEUED,
        divisible=True,
    )
    choice = a_choice(
        offer=offer,
        cpus_milli=fields.pop("cpus_milli", 2000),
        memory_bytes=1 << 30,
        accelerator="H100" if gpus else None,
        accelerators_milli=fields.pop("milli", 1000 * gpus),
        **({"resources": fields.pop("resources")} if "resources" in fields else {}),
    )
    now_ms = SystemClock().now_ms()
    return a_claim(count=count, choice=choice, requested_ms=fields.pop("requested_ms", now_ms), **fields)


class KubeSubject:
    """For the suite of all providers."""

    gaps: ClassVar[dict[str, str]] = {}
    secrets = (TOKEN,)

    def __init__(self, kube: FakeKube, folder: Path) -> None:
        self.kube = kube
        self.provider = a_driver(kube, folder)

    def claim(self, count: int = 1) -> Claim:
        return a_pod_claim(count, gpus=1)

    def too_large(self) -> Claim:
        return a_pod_claim(3, gpus=8)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.01))

    def truth(self) -> set[str]:
        every = (given["metadata"].get("labels") or {} for given in self.kube.store.objects.values())
        return {labels["argosy.dev/claim"] for labels in every if "argosy.dev/claim" in labels}

    def machines(self, claim_id: str) -> int:
        return len(self.kube.pods_of(claim_id))

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        self.kube.lose()
        await asyncio.gather(call(), return_exceptions=True)

    async def preempt(self, claim_id: str) -> None:
        for pod in self.kube.pods_of(claim_id):
            self.kube.preempt(pod["metadata"]["name"], "ml")

    async def make_foreign(self) -> None:
        body = {"metadata": {"name": "theirs"}, "spec": {"containers": [{"name": "a", "image": "b"}]}}
        self.kube.put("pods", body, namespace="ml")
        self.kube.pods.arrived(("v1", "pods", "ml", "theirs"))


Act = Callable[[FakeKube, KubernetesProvider], Awaitable[None]]


def with_cluster(folder: Path, act: Act, *, environ: dict[str, str] | None = None, **options: Any) -> None:
    """Run `act` before a fake cluster (`options` of `a_kube`), whose pods are of paper."""

    async def run() -> None:
        async with a_kube(folder, **options) as kube:
            provider = a_driver(kube, folder / "driver", **(environ or {}))
            try:
                await act(kube, provider)
            finally:
                await provider.disconnect()

    asyncio.run(run())


def configured(config: dict[str, Any], **fields: Any) -> Claim:
    """A claim of a task with such a `config.kubernetes`."""
    return a_pod_claim(config=msgspec.json.encode({"kubernetes": config}).decode(), **fields)
