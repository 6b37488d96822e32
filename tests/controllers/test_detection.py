"""How soon losses are noticed and answered: the real shell and store under virtual time, in seconds of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import msgspec
import pytest

from argosy.controllers.shell import Shell
from argosy.infra.provider import Manifest
from argosy.model.facts import RankPhase
from argosy.model.phases import NodePhase, WorkloadPhase
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Claim, Node
from argosy.store import Snapshot, Store
from argosy.testing.builders import a_job, a_task
from argosy.testing.machines import Machine
from argosy.testing.memory_log_sink import MemoryLogSink
from argosy.testing.sim_agent import SimAgentDirectory
from argosy.testing.sim_provider import CLOUD, SimProvider, SimProviders, a_market, announce
from argosy.testing.virtual_time import run_virtual
from argosy.testing.world import World

JOB = "job-1"


class Scene:
    """A managed job that runs on a spot node of the cloud, and the server that looks after it."""

    def __init__(self, world: World, store: Store, cloud: Counting) -> None:
        self.world, self.store, self.cloud = world, store, cloud

    async def rows(self) -> Snapshot:
        return await self.store.snapshot()

    async def claims(self) -> list[Claim]:
        return list((await self.rows()).claims_of(JOB))

    async def node(self) -> Node:
        return next(iter((await self.rows()).nodes.values()))

    @property
    def machine(self) -> Machine:
        return next(iter(self.world.machines.values()))

    async def until(self, reached: Callable[[], Awaitable[object]], limit_s: float = 600.0) -> float:
        """Seconds until it is so."""
        began_s = self.world.now_s
        while not await reached():
            assert self.world.now_s - began_s < limit_s
            await asyncio.sleep(0.02)
        return self.world.now_s - began_s

    async def is_running(self) -> bool:
        job = (await self.rows()).workloads[JOB]
        return job.phase is WorkloadPhase.RUNNING


class Counting(SimProvider):
    """Notes when it was asked what it has."""

    asked: list[float]

    async def observe(self, claim_ids):  # type: ignore[no-untyped-def]
        if not claim_ids:
            self.asked.append(self.world.now_s)
        return await super().observe(claim_ids)


@contextlib.asynccontextmanager
async def a_scene(manifest: Manifest = CLOUD) -> AsyncIterator[Scene]:
    world = World(0)
    store = await Store.open("sqlite://", ids=world.ids, clock=world.clock, inline=True)
    cloud = Counting(world, manifest, a_market(world).get("cloud").offers)
    cloud.asked = []
    shell = Shell(
        store=store,
        providers=SimProviders([cloud]),
        agents=SimAgentDirectory(world),
        logs=MemoryLogSink(),
        clock=world.clock,
        ids=world.ids,
    )
    running = asyncio.create_task(shell.run())
    try:
        await asyncio.sleep(1)
        wish = Resources(infra=Infra(provider="cloud"), use_spot=True)
        task = a_task(run="sim work_s=100000", resources=(wish,))
        await store.commit([a_job(id=JOB, managed=True, task=task)])
        shell.wake(JOB)
        scene = Scene(world, store, cloud)
        await scene.until(scene.is_running)
        yield scene
    finally:
        running.cancel()
        await asyncio.wait([running])
        await store.close()


@pytest.mark.parametrize("later_s", [0.0, 1.4, 3.7])
def test_a_node_that_falls_silent_is_unreachable_within_six_seconds(later_s: float) -> None:
    async def main() -> float:
        async with a_scene() as scene:
            await asyncio.sleep(30 + later_s)
            scene.machine.is_partitioned = True

            async def noticed() -> bool:
                return (await scene.node()).phase is NodePhase.UNREACHABLE

            return await scene.until(noticed)

    assert run_virtual(main()) <= 6


def test_a_short_silence_is_none() -> None:
    async def main() -> None:
        async with a_scene() as scene:
            for _ in range(20):
                await asyncio.sleep(2)
                scene.machine.is_partitioned = True
                await asyncio.sleep(3)
                scene.world.heal(scene.machine)
                assert (await scene.node()).phase is NodePhase.READY

    run_virtual(main())


def test_the_next_nodes_are_ordered_a_second_after_a_notice() -> None:
    """The ranks end by themselves; what they ran on is given back only then."""

    async def main() -> float:
        async with a_scene() as scene:
            await asyncio.sleep(30)
            [first] = await scene.claims()
            rank = next(iter(scene.machine.ranks.values()))
            announce(scene.world, scene.cloud.orders[first.id], 120)

            async def ordered() -> bool:
                return any(claim.id != first.id for claim in await scene.claims())

            took_s = await scene.until(ordered)
            assert rank.fact.phase is RankPhase.EXITED
            await scene.until(scene.is_running)
            assert (await scene.rows()).workloads[JOB].status.recoveries == 1  # type: ignore[attr-defined]
            return took_s

    assert run_virtual(main()) <= 1


def test_a_provider_is_asked_at_once_what_became_of_a_lost_node_else_as_slowly_as_it_wants() -> None:
    async def main() -> None:
        async with a_scene(msgspec.structs.replace(CLOUD, observe_s=60.0)) as scene:
            scene.cloud.asked.clear()
            await asyncio.sleep(600)
            assert 9 <= len(scene.cloud.asked) <= 11
            scene.cloud.asked.clear()
            lost_s = scene.world.now_s
            scene.world.kill_machine(scene.machine, "power cut")
            await asyncio.sleep(30)
            assert scene.cloud.asked[0] - lost_s < 0.1
            assert 4 <= len(scene.cloud.asked) <= 8

    run_virtual(main())


LAB = msgspec.structs.replace(CLOUD, may_return=True)


def test_a_job_goes_on_elsewhere_when_the_lease_of_a_node_that_may_return_is_over() -> None:
    """The node cannot be reached, so nobody can end what runs there: it ends by itself, and only then the
    next attempt begins. When the node returns, it is given back."""

    async def main() -> None:
        async with a_scene(LAB) as scene:
            await asyncio.sleep(30)
            lost, [first] = scene.machine, await scene.claims()
            [rank] = lost.ranks.values()
            lost.is_partitioned = True
            lost_s = scene.world.now_s

            async def began_again() -> bool:
                return len(scene.world.starts) == 2

            await scene.until(began_again)
            assert rank.fact.phase is RankPhase.VANISHED
            assert scene.world.exits[rank.fact.id][0] - lost_s <= 70
            assert scene.world.now_s - lost_s <= 200
            assert first.id in {claim.id for claim in await scene.claims()}, "it does not answer"
            scene.world.heal(lost)

            async def given_back() -> bool:
                return first.id not in {claim.id for claim in await scene.claims()}

            await scene.until(given_back)
            assert scene.world.violations == []

    run_virtual(main())


@pytest.mark.parametrize("silent_s", [4.0, 20.0])
def test_a_short_partition_costs_a_job_with_a_lease_nothing(silent_s: float) -> None:
    async def main() -> None:
        async with a_scene(LAB) as scene:
            for _ in range(5):
                await asyncio.sleep(40)
                scene.machine.is_partitioned = True
                await asyncio.sleep(silent_s)
                scene.world.heal(scene.machine)
            await asyncio.sleep(200)
            assert len(scene.world.starts) == 1
            assert await scene.is_running()

    run_virtual(main())


def test_without_a_lease_a_job_waits_until_its_provider_has_ended_what_is_silent() -> None:
    async def main() -> None:
        async with a_scene() as scene:
            await asyncio.sleep(30)
            [rank] = scene.machine.ranks.values()
            assert rank.order.lease is None
            scene.machine.is_partitioned = True

            async def began_again() -> bool:
                return len(scene.world.starts) == 2

            await scene.until(began_again)
            assert scene.world.violations == []

    run_virtual(main())
