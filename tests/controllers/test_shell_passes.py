"""When the shell looks at what: under virtual time, with the real store."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec

from argosy.controllers.shell import SWEEP_S, Shell
from argosy.model.resources import Infra
from argosy.model.tenancy import TENANCY_ID, Queue, Tenancy
from argosy.store import Store
from argosy.testing.builders import a_job, a_task, want_gpus
from argosy.testing.faults import Faults
from argosy.testing.memory_log_sink import MemoryLogSink
from argosy.testing.sim_agent import SimAgentDirectory
from argosy.testing.sim_provider import a_market
from argosy.testing.virtual_time import run_virtual
from argosy.testing.world import World


class Recorded(Shell):
    """Notes when it made a pass over everything."""

    full: list[float]

    async def _pass(self, dirty: set[str], *, everything: bool) -> None:
        if everything:
            self.full.append(self._clock.monotonic_s())
        await super()._pass(dirty, everything=everything)


@contextlib.asynccontextmanager
async def a_server(**parts: Any) -> AsyncIterator[tuple[Recorded, Store, World]]:
    world = World(0, Faults())
    store = await Store.open("sqlite://", ids=world.ids, clock=world.clock, inline=True)
    shell = Recorded(
        store=store,
        providers=a_market(world),
        agents=SimAgentDirectory(world),
        logs=MemoryLogSink(),
        clock=world.clock,
        ids=world.ids,
        **parts,
    )
    shell.full = []
    running = asyncio.create_task(shell.run())
    try:
        yield shell, store, world
    finally:
        running.cancel()
        await asyncio.wait([running])
        await store.close()


def test_a_full_pass_comes_also_while_others_wake_more_often() -> None:
    async def main() -> list[float]:
        async with a_server() as (shell, _, world):
            await asyncio.sleep(1)
            shell.full.clear()
            began_s = world.clock.monotonic_s()
            for number in range(140):
                shell._wake_at("clm-nobody", world.clock.now_ms() + 100)
                shell.wake(f"job-nobody{number}")
                await asyncio.sleep(0.1)
            return [at_s - began_s for at_s in shell.full]

    passes = run_virtual(main())
    gaps = [later - earlier for earlier, later in zip([0.0, *passes], passes, strict=False)]
    assert len(passes) >= 2
    assert max(gaps) <= SWEEP_S + 0.2


async def _until(reached: Callable[[], Any], limit_s: float) -> float:
    began_s = asyncio.get_running_loop().time()
    while not await reached():
        assert asyncio.get_running_loop().time() - began_s < limit_s
        await asyncio.sleep(0.01)
    return asyncio.get_running_loop().time() - began_s


def test_a_change_of_the_queues_wakes_the_pools() -> None:
    """Also when nothing else happens: a waiting job starts when its limit goes."""

    async def main() -> float:
        async with a_server() as (shell, store, _):
            [tree] = await store.commit([Tenancy(queues=(Queue(path="acme", limit={"gpus": 0}),))])
            wish = msgspec.structs.replace(want_gpus(1000), infra=Infra(provider="pool"))
            task = a_task(resources=(wish,))
            job = a_job(id="job-1", managed=True, task=task, queue="acme")
            await store.commit([job])
            shell.wake("job-1")
            await asyncio.sleep(SWEEP_S + 1)
            assert not (await store.snapshot()).claims_of("job-1")
            await _until(lambda: _swept(shell), 2 * SWEEP_S)  # the next one is far away
            await store.commit([Tenancy(queues=(Queue(path="acme", limit={"gpus": 8000}),), rev=tree.rev)])
            shell.wake(TENANCY_ID)

            async def has_claim() -> bool:
                return bool((await store.snapshot()).claims_of("job-1"))

            return await _until(has_claim, 2 * SWEEP_S)

    assert run_virtual(main()) < 1


async def _swept(shell: Recorded) -> bool:
    return shell._clock.monotonic_s() - shell._swept_s < 0.1


def test_a_server_whose_state_is_anothers_decides_no_more() -> None:
    async def main() -> None:
        ours = [True]
        async with a_server(is_ours=lambda: ours[0]) as (shell, store, _):
            await asyncio.sleep(1)
            ours[0] = False
            await store.commit([a_job(id="job-1", managed=True, task=a_task())])
            shell.wake("job-1")
            await asyncio.sleep(60)
            assert not (await store.snapshot()).claims_of("job-1")

    run_virtual(main())
