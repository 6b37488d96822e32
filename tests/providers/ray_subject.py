"""A subject for the suite of all providers: Ray, on whatever cluster it is given."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import ClassVar, Protocol

from argosy.infra.dialled import Dialled
from argosy.infra.machine_notes import Notes
from argosy.infra.ssh import Ssh
from argosy.infra.system import SystemClock, SystemIds
from argosy.infra.tombstones import Tombstones
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.providers.ray.api import RayApi, Submission
from argosy.providers.ray.cluster import Cluster, Means
from argosy.providers.ray.native import NativeClaim
from argosy.providers.ray.provider import RayProvider
from argosy.providers.ray.settings import ClusterSettings
from argosy.testing.builders import a_choice, a_claim, a_gpu_shape, an_offer


class World(Protocol):
    """A cluster of two nodes with 8 CPUs each, on this machine."""

    address: str
    folder: Path  # a short path
    token: str
    loses_replies: bool

    def running(self) -> set[str]:
        """Ids of jobs that are not over."""

    def preempt(self, claim_id: str) -> None:
        """The nodes of a claim are taken. Raises NotApplicable."""


class RaySubject:
    gaps: ClassVar[dict[str, str]] = {}
    patience_s = 0.1  # so long it waits for a cluster at a time

    def __init__(
        self, ray: World, zipapp: Path, folder: Path, dialled: Dialled | None = None, **fields: str
    ) -> None:
        self.ray = ray
        self.secrets = (ray.token,) if ray.token else ()
        settings = ClusterSettings(address=ray.address, node_dir=str(ray.folder), **fields)
        api = RayApi(settings, clock=SystemClock(), environ={"RAY_AUTH_TOKEN": ray.token})
        means = Means(
            clock=SystemClock(),
            ids=SystemIds(),
            dialled=dialled,
            released=Tombstones(folder / "released"),
            notes=Notes(folder / "native", NativeClaim),
            ssh=lambda: Ssh(ray.folder / "ssh", SystemIds()),
            agent=lambda: zipapp,
        )
        self.cluster = Cluster("lab", api, settings, means)
        self.provider = RayProvider({"lab": self.cluster})

    def claim(self, count: int = 1) -> Claim:
        shape = a_gpu_shape(0, accelerator=None, instance_type="cpu-8c-8g", cpus_milli=8000)
        offer = an_offer(provider="ray", region="lab", shape=shape, capacity=Capacity.QUEUED, divisible=True)
        choice = a_choice(offer=offer, cpus_milli=2000, memory_bytes=200 << 20, accelerators_milli=0)
        return a_claim(count=count, choice=choice)

    def too_large(self) -> Claim:
        return self.claim(count=3)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, self.patience_s))

    def truth(self) -> set[str]:
        return {each for each in self.ray.running() if each.startswith("clm-")}

    def machines(self, claim_id: str) -> int:
        agents = Path(self.cluster.settings.node_dir).glob(f"argosy-{claim_id}-*/agent.lock")
        return len(list(agents))

    async def lose_reply_of(self, call: Callable[[], Awaitable[None]]) -> None:
        self.ray.loses_replies = True
        lost = asyncio.ensure_future(call())
        await asyncio.sleep(0.3)
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        self.ray.loses_replies = False

    async def preempt(self, claim_id: str) -> None:
        """Every node of the claim is taken by the cluster's own provider."""
        self.ray.preempt(claim_id)
        while self.machines(claim_id):
            await asyncio.sleep(0.02)

    async def make_foreign(self) -> None:
        await self.cluster.api.submit(
            Submission(entrypoint="exec sleep 600", submission_id=f"mine-{id(self)}")
        )
