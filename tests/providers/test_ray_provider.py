"""The Ray provider on a fake cluster whose jobs really run: the suite for every provider, and what is special
here."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from argosy.infra.boot import agent_zipapp
from argosy.infra.system import SystemClock
from argosy.infra.tombstones import Tombstones
from argosy.model.offer import Capacity
from argosy.model.rows import Claim
from argosy.providers.ray.api import RayApi, Submission
from argosy.providers.ray.cluster import Cluster
from argosy.providers.ray.provider import RayProvider
from argosy.providers.ray.settings import ClusterSettings
from argosy.testing.builders import a_choice, a_claim, a_gpu_shape, an_offer
from argosy.testing.conformance.provider import CASES, Case, NotApplicable, case_name, hold
from argosy.testing.fake_ray import FakeRay

_TOKEN = "t0ken-of-the-cluster"
#: Many jobs: in CI not at all.
SLOW = {"cancelled_in_mid_call_leaves_nothing_unowned", "ensure_after_a_cancelled_one_completes_it"}


@pytest.fixture(scope="module")
def zipapp(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return agent_zipapp(tmp_path_factory.mktemp("agent"))


@pytest.fixture(scope="module")
def ray() -> Iterator[FakeRay]:
    cluster = FakeRay({"CPU": 8.0}, {"CPU": 8.0}, token=_TOKEN)
    yield cluster
    cluster.close()


class RaySubject:
    gaps: ClassVar[dict[str, str]] = {}
    secrets = (_TOKEN,)

    def __init__(self, ray: FakeRay, zipapp: Path, folder: Path) -> None:
        self.ray = ray
        settings = ClusterSettings(address=ray.address, node_dir=str(ray.folder))
        api = RayApi(settings, clock=SystemClock(), environ={"RAY_AUTH_TOKEN": _TOKEN})
        self.cluster = Cluster(
            "lab",
            api,
            settings,
            clock=SystemClock(),
            dialled=None,
            released=Tombstones(folder / "released"),
            agent=lambda: zipapp,
        )
        self.provider = RayProvider({"lab": self.cluster})

    def claim(self, count: int = 1) -> Claim:
        shape = a_gpu_shape(0, accelerator=None, instance_type="cpu-8c-8g", cpus_milli=8000)
        offer = an_offer(provider="ray", region="lab", shape=shape, capacity=Capacity.QUEUED, divisible=True)
        choice = a_choice(offer=offer, cpus_milli=2000, memory_bytes=200 << 20, accelerators_milli=0)
        return a_claim(count=count, choice=choice)

    def too_large(self) -> Claim:
        return self.claim(count=3)

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(min(seconds, 0.1))

    def truth(self) -> set[str]:
        return {each for each in self.ray.running() if each.startswith("clm-")}

    def machines(self, claim_id: str) -> int:
        agents = Path(self.cluster.settings.node_dir).glob(f"argosy-*/ray/{claim_id}-*/agent.lock")
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
        held = {each["node"] for name, each in self.ray.actors.items() if name.startswith(claim_id)}
        for index, node in enumerate(self.ray.nodes):
            if node.id in held:
                self.ray.lose_node(index, "Terminated due to preemption")
        while self.machines(claim_id):
            await asyncio.sleep(0.02)

    async def make_foreign(self) -> None:
        await self.cluster.api.submit(
            Submission(entrypoint="exec sleep 600", submission_id=f"mine-{id(self)}")
        )


@pytest.fixture
def subject(ray: FakeRay, zipapp: Path, tmp_path: Path) -> Iterator[RaySubject]:
    yield RaySubject(ray, zipapp, tmp_path)
    ray.clear()
    for node in ray.nodes:
        node.is_alive, node.message = True, None


def _slow(case: Case) -> tuple[pytest.MarkDecorator, ...]:
    return (pytest.mark.nightly,) if case_name(case) in SLOW else ()


@pytest.mark.parametrize(
    "case", [pytest.param(each, marks=_slow(each), id=case_name(each)) for each in CASES]
)
def test_conformance(case: Case, subject: RaySubject) -> None:
    async def main() -> None:
        try:
            await hold(case, subject)  # type: ignore[arg-type]
        finally:
            await subject.cluster.close()

    try:
        asyncio.run(main())
    except NotApplicable as reason:
        pytest.skip(str(reason))
