"""A server with two clouds whose rows the catalog prices, in virtual time; every place says what a test
wants."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

from argosy.controllers.shell import Shell
from argosy.model.phases import WorkloadPhase
from argosy.model.rows import Workload
from argosy.store import Store
from argosy.testing.builders import want_gpus
from argosy.testing.faults import Faults
from argosy.testing.memory_log_sink import MemoryLogSink
from argosy.testing.rented import FixedPrices, RentedProvider, Row, a_block
from argosy.testing.sim_agent import SimAgentDirectory
from argosy.testing.sim_provider import SimProviders
from argosy.testing.world import World

NO = "InsufficientInstanceCapacity"
AWS = [
    Row("us-east-1", "us-east-1a", 3.0),
    Row("us-east-1", "us-east-1b", 3.0),
    Row("us-west-2", "us-west-2a", 3.1),
    Row("us-east-1", "us-east-1a", 3.4, "g1.large"),
]
GCP = [Row("us-central1", "us-central1-a", 5.0, "a2")]
GPU = want_gpus(1000)


class Rig:
    """A server, two clouds, and what became of one workload."""

    def __init__(self, world: World, store: Store, **limits: Any) -> None:
        self.world, self.store = world, store
        self.aws, self.gcp = RentedProvider(world), RentedProvider(world, "gcp")
        self.prices = FixedPrices(a_block("aws", AWS), a_block("gcp", GCP))
        self.shell = self._shell()
        self._running: asyncio.Task[None] | None = None

    def _shell(self) -> Shell:
        return Shell(
            store=self.store,
            providers=SimProviders([self.aws, self.gcp]),
            agents=SimAgentDirectory(self.world),
            logs=MemoryLogSink(),
            clock=self.world.clock,
            ids=self.world.ids,
            prices=self.prices,
        )

    async def stop(self) -> None:
        """The server is gone in the middle of whatever it did."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.wait([self._running])

    def start(self) -> None:
        """A server begins; the first, or one after another."""
        if self._running is not None:
            self.shell = self._shell()
        self._running = asyncio.create_task(self.shell.run())

    async def put(self, row: Workload) -> Workload:
        (stored,) = await self.store.commit([row])
        assert isinstance(stored, Workload)
        self.shell.wake(stored.id)
        return stored

    async def until(self, id: str, *phases: WorkloadPhase, limit_s: float = 3600) -> Workload:
        row = None
        for _ in range(int(limit_s)):
            row = await self.store.load(id)
            assert isinstance(row, Workload)
            if row.phase in phases:
                return row
            await asyncio.sleep(1)
        raise AssertionError(f"{id} is {row.phase if row else None}")

    async def events(self, id: str, code: str = "failover") -> list[str]:
        found = await self.store.load_events(subject=id, after=None, limit=200)
        return [each.text for each in found if each.code == code]

    async def places(self) -> list[tuple[str, int]]:
        """(zone, price for an hour) of every claim, in the order of asking."""
        claims = await self.store.load_claims(since_ms=0)
        claims.sort(key=lambda claim: claim.id)
        return [(claim.choice.offer.zone, claim.choice.price_micro_usd) for claim in claims]


@contextlib.asynccontextmanager
async def a_rig() -> AsyncIterator[Rig]:
    world = World(0, Faults())
    store = await Store.open("sqlite://", ids=world.ids, clock=world.clock, inline=True)
    rig = Rig(world, store)
    rig.start()
    try:
        yield rig
    finally:
        await rig.stop()
        await store.close()
