"""What was borrowed lately survives a restart: it is worked out from the rows of what has ended."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from argosy.controllers.observed import Facts
from argosy.controllers.past import Past
from argosy.controllers.pool.caches import PoolCaches
from argosy.controllers.pool.decide import decide_jobs, decide_owned
from argosy.controllers.view import Put, View
from argosy.infra.system import SystemClock, SystemIds
from argosy.model.offer import Capacity, Offer
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.rows import Row, Workload
from argosy.model.tenancy import Queue, SharePolicy, Tenancy
from argosy.planning import Ability
from argosy.scheduler.cache import PoolCache
from argosy.scheduler.recall import Use, uses_of_claim
from argosy.store import Store
from argosy.testing.builders import (
    a_choice,
    a_claim,
    a_cluster,
    a_gpu_shape,
    a_job,
    a_node,
    a_task,
    want_gpus,
)
from argosy.testing.virtual_time import EPOCH_MS

HOUR_MS = 3_600_000
TREE = Tenancy(
    queues=(Queue(path="ann", deserved={"gpus": 200}), Queue(path="bob")),
    policy=SharePolicy(half_life_s=24 * 3600),
)
FARM = Offer(provider="farm", shape=a_gpu_shape(4), capacity=Capacity.OWNED, price_micro_usd=0)
CLUSTER = a_cluster(id="clu-1", name="c", phase=WorkloadPhase.RUNNING)
NODE = a_node(id="nod-1", workload_id="clu-1", phase=NodePhase.READY, ready_ms=1, gpus=4)


class Lab:
    """A store, and the books of a server that lives; `hour` is the time."""

    def __init__(self, store: Store, cluster_id: str | None) -> None:
        self.store = store
        self.cluster_id = cluster_id
        self.hour = 0.0
        self.book = PoolCaches()
        self._numbers = itertools.count(1)

    @property
    def now_ms(self) -> int:
        return EPOCH_MS + int(self.hour * HOUR_MS)

    async def view(self, book: PoolCaches) -> View:
        return View(
            now_ms=self.now_ms,
            rows=await self.store.snapshot(),
            observed=Facts(),
            offers=(FARM,),
            abilities={"farm": Ability(multi_node=True, fractions=True, owned=True)},
            pools=book,
        )

    async def books(self, book: PoolCaches) -> PoolCache:
        view = await self.view(book)
        cluster = view.rows.workloads.get("clu-1")
        return book.of_cluster(view, cluster) if cluster else book.owned(view)[0]

    async def ask(self, name: str, queue: str, milli: int) -> None:
        task = a_task(name=name, resources=(want_gpus(milli),))
        job = a_job(
            id=f"job-{name}",
            task=task,
            queue=queue,
            host_id=self.cluster_id,
            managed=self.cluster_id is None,
            number=next(self._numbers),
            created_ms=self.now_ms,
        )
        await self.store.commit([msgspec.structs.replace(job, host_id=self.cluster_id)])

    async def decide(self, book: PoolCaches | None = None, *, write: bool = True) -> list[str]:
        """One decision; who starts, in this order."""
        view = await self.view(book or self.book)

        def new_id(prefix: str) -> str:
            return f"{prefix}-{next(self._numbers)}"

        cluster = view.rows.workloads.get("clu-1")
        decided = decide_jobs(view, cluster, new_id) if cluster else decide_owned(view, new_id)
        puts = [action.row for action in decided if isinstance(action, Put)]
        if write and puts:
            await self.store.commit(puts)
        return [row.workload_id for row in puts if not isinstance(row, Workload) and not row.rev]

    async def end(self, name: str) -> None:
        snapshot = await self.store.snapshot()
        job = snapshot.workloads[f"job-{name}"]
        over = {"phase": WorkloadPhase.FINISHED, "outcome": Outcome.SUCCEEDED, "ended_ms": self.now_ms}
        held: list[Row] = [
            msgspec.structs.replace(each, phase=AttemptPhase.ENDED, ended_ms=self.now_ms)
            for each in snapshot.attempts.values()
            if each.workload_id == job.id
        ]
        held += [
            msgspec.structs.replace(each, phase=ClaimPhase.GONE, gone_ms=self.now_ms)
            for each in snapshot.claims_of(job.id)
        ]
        await self.store.commit([msgspec.structs.replace(job, **over), *held])
        await self.decide()  # nobody waits, and time goes on

    async def restarted(self) -> PoolCaches:
        book = PoolCaches()
        book.recall(await Past().uses(self.store, self.now_ms))
        return book


def borrowed(books: PoolCache) -> dict[str, tuple[int, int]]:
    """Milli-GPUs and milli-CPUs that queues borrowed lately."""
    nodes = books.pool.quotas.tree.nodes.items()
    return {path: (node.history[2], node.history[0]) for path, node in nodes if any(node.history)}


@pytest.mark.parametrize("cluster_id", ["clu-1", None])
def test_the_order_is_the_same_after_a_restart(tmp_path: Path, cluster_id: str | None) -> None:
    """Ann had three GPUs for a day, Bob one for an hour; both ask for three now, Ann first. Nobody waited
    meanwhile."""

    async def scenario() -> None:
        url = f"sqlite:///{tmp_path / 'a.db'}"
        store = await Store.open(url, ids=SystemIds(), clock=SystemClock())
        await store.commit([TREE, *((CLUSTER, NODE) if cluster_id else ())])
        lab = Lab(store, cluster_id)
        await lab.ask("long", "ann", 3000)
        assert await lab.decide() == ["job-long"]
        lab.hour = 2
        await lab.ask("short", "bob", 1000)
        assert await lab.decide() == ["job-short"]
        lab.hour = 3
        await lab.end("short")
        lab.hour = 24
        await lab.end("long")
        lab.hour = 30
        await lab.ask("stays", "bob", 500)
        assert await lab.decide() == ["job-stays"]
        lab.hour = 31

        again = await lab.restarted()
        lived, recalled = borrowed(await lab.books(lab.book)), borrowed(await lab.books(again))
        assert lived.keys() == recalled.keys() >= {"ann", "bob"}
        for path in lived:
            for mine, theirs in zip(lived[path], recalled[path], strict=True):
                assert abs(mine - theirs) <= max(mine, theirs) // 200 + 4  # steps of a 4096th of a half-life
        above = 3000 - (
            0 if cluster_id else 200
        )  # who deserves a part of the whole deserves none of somebody's cluster
        assert abs(recalled["ann"][0] - above * 0.5 * 2 ** (-7 / 24)) < 20  # for a day, 7 hours ago

        await lab.ask("ann", "ann", 3000)
        lab.hour = 31.1
        await lab.ask("bob", "bob", 3000)
        forgetful = await lab.decide(PoolCaches(), write=False)
        after = await lab.decide(await lab.restarted(), write=False)
        before = await lab.decide(lab.book, write=False)
        assert before == after == ["job-bob"]
        assert forgetful == ["job-ann"]
        await store.close()

    asyncio.run(scenario())


def test_periods_of_a_cluster_on_owned_machines() -> None:
    cluster = a_cluster(id="clu-1", queue="ann")
    choice = a_choice(offer=FARM, cpus_milli=2000, memory_bytes=0, accelerators_milli=1000)
    held = a_claim(workload_id="clu-1", choice=choice, count=2, phase=ClaimPhase.HELD, requested_ms=100)

    def periods(**fields: object) -> Sequence[tuple[int, int]]:
        uses = list(uses_of_claim(cluster, msgspec.structs.replace(held, **fields), TREE))
        assert all(use.amounts == AMOUNTS and use.queue == "ann" for use in uses)
        return [(use.from_ms, use.to_ms) for use in uses]

    assert periods() == [(100, 0)]
    assert periods(held_ms=150) == [(150, 0)]
    assert periods(spent_ms=50, held_ms=300) == [(100, 150), (300, 0)]
    stopped = {"spent_ms": 50, "phase": ClaimPhase.STOPPED, "desired": Desired.STOP}
    assert periods(**stopped) == [(100, 150)]
    assert periods(spent_ms=50, phase=ClaimPhase.GONE, gone_ms=400) == [(100, 150)]


AMOUNTS = {"jobs": 1, "cpus": 4000, "gpus": 2000, "gpus/A100": 2000}


def test_models_are_counted_as_the_machines_know_them(tmp_path: Path) -> None:
    """A job that named no model counts for the one that it got, where queues name models."""

    async def scenario() -> None:
        url = f"sqlite:///{tmp_path / 'a.db'}"
        store = await Store.open(url, ids=SystemIds(), clock=SystemClock())
        tree = msgspec.structs.replace(TREE, queues=(Queue(path="ann/x", deserved={"gpus/A100": 1000}),))
        await store.commit([tree, msgspec.structs.replace(CLUSTER, queue="ann"), NODE])
        lab = Lab(store, "clu-1")
        task = a_task(name="any", resources=(want_gpus(3000, None),))
        await store.commit([a_job(id="job-any", task=task, queue="ann/x", host_id="clu-1")])
        assert await lab.decide() == ["job-any"]
        lab.hour = 24
        await lab.end("any")
        [use] = (await Past().uses(store, lab.now_ms))["clu-1"]
        assert isinstance(use, Use) and "gpus/A100" not in use.amounts
        quotas = (await lab.books(await lab.restarted())).pool.quotas
        at = quotas.tree.names.index("gpus/A100")
        assert abs(quotas.tree.nodes["ann/x"].history[at] - 1000) < 4  # half of what was above one
        await store.close()

    asyncio.run(scenario())
