"""A server that is killed after every commit and every effect of a launch, a failover, a recovery, a stop, a
start and a `down` on the fake EC2: its successor goes on, and nothing is left, lost or made twice."""

from __future__ import annotations

import asyncio
import contextvars
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

import msgspec
import pytest

pytest.importorskip("moto.ec2", reason="moto is not installed")
pytest.importorskip("boto3", reason="boto3 is not installed")

from argosy.controllers.shell import Shell
from argosy.infra.provider import Provider
from argosy.model.phases import ClaimPhase, Desired, Outcome, WorkloadPhase
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Claim, Row, Workload
from argosy.providers.aws.provider import AwsProvider
from argosy.providers.aws.states import CLAIM
from argosy.store import Store
from argosy.testing.builders import a_cluster, a_job, a_task
from argosy.testing.fake_ec2 import FakeEc2
from argosy.testing.fake_ec2_cloud import tags_of
from argosy.testing.faults import NONE, SimCrash
from argosy.testing.harness import SimStore
from argosy.testing.memory_log_sink import MemoryLogSink
from argosy.testing.sim_agent import SimAgentDirectory
from argosy.testing.sim_ec2 import SimAccount, SimEc2, keep_looking, some_offers
from argosy.testing.virtual_time import EPOCH_MS, run_virtual
from argosy.testing.world import INCARNATION, Incarnation, World

ON_DEMAND = Resources(infra=Infra(provider="aws"), instance_type="m6i.large", use_spot=False)
SPOT = Resources(infra=Infra(provider="aws"), instance_type="m6i.large", use_spot=True)


class CountingWorld(World):
    """Kills the server at its `at`-th point (0: never), or at the first of that name, and notes what all
    points are."""

    def __init__(self, at: int | str) -> None:
        super().__init__(7, NONE)
        self.at = at
        self.points: list[str] = []
        self.knows_rows = True

    def maybe_crash(self, point: str) -> None:
        life = INCARNATION.get()
        if life is None or point.startswith(("before agent", "during agent", "after agent")):
            return
        if life.dead.is_set():
            raise SimCrash(f"{life.name} is dead")
        self.points.append(point)
        if self.at in (len(self.points), point) and not self.crashes:
            self.crashes += 1
            life.die()
            raise SimCrash(point)


class One:
    """`infra.provider.Providers` of one provider."""

    def __init__(self, provider: Provider) -> None:
        self.provider = provider

    def get(self, name: str) -> Provider:
        return self.provider

    def all(self) -> Mapping[str, Provider]:
        return {"aws": self.provider}


class Life:
    """One run: a managed job and a cluster, from launch to the empty cloud."""

    def __init__(self, world: CountingWorld, cloud: FakeEc2, store: Store, root: Path) -> None:
        self.world, self.cloud, self.inner, self.root = world, cloud, store, root
        self.store = SimStore(store, world, self._committed)
        self.shell: Shell | None = None
        self.over = False

    def _committed(self, rows: Sequence[Row]) -> None:
        for row in rows:
            self.world.rows[row.id] = row

    async def serve(self) -> None:
        """One server after another, each with a driver of its own over the same folder."""
        number = 0
        while not self.over:
            number += 1
            life = Incarnation(f"server-{number}")
            context = contextvars.copy_context()
            context.run(INCARNATION.set, life)
            driver = AwsProvider(
                self.root, clock=self.world.clock, ids=self.world.ids, account=SimAccount(self.world)
            )
            self.shell = Shell(
                store=cast("Store", self.store),
                providers=One(SimEc2(self.world, self.cloud, driver, some_offers())),
                agents=SimAgentDirectory(self.world),
                logs=MemoryLogSink(),
                clock=self.world.clock,
                ids=self.world.ids,
                is_ours=life.is_ours,
            )
            task = asyncio.get_running_loop().create_task(self.shell.run(), context=context)
            task.add_done_callback(lambda _, life=life: life.die())  # type: ignore[misc]
            try:
                await life.left.wait()
            finally:
                life.die()
                task.cancel()
                await asyncio.wait([task], timeout=60)
            await asyncio.sleep(3)

    async def put(self, *rows: Row) -> None:
        made = await self.inner.commit(rows)
        self._committed(made)
        if self.shell is not None:
            self.shell.wake()

    async def want(self, row_id: str, desired: Desired) -> None:
        row = (await self.inner.snapshot()).workloads[row_id]
        await self.put(msgspec.structs.replace(row, desired=desired))

    async def until(self, what: str, seen: Callable[[], bool], limit_s: float = 1200) -> None:
        ends_s = self.world.now_s + limit_s
        while not seen():
            assert self.world.now_s < ends_s, f"waited in vain: {what}; {self.world.log[-30:]}"
            self._check()
            await asyncio.sleep(0.5)

    def row(self, row_id: str) -> Workload:
        row = self.world.rows[row_id]
        assert isinstance(row, Workload)
        return row

    def _check(self) -> None:
        """No instance without a row; none twice."""
        assert not self.world.violations, self.world.violations[0].render()
        live = Counter(tags_of(each)[CLAIM] for each in self.cloud.instances())
        for claim_id, count in live.items():
            claim = self.world.rows.get(claim_id)
            assert isinstance(claim, Claim), f"{claim_id} has machines and no row"
            assert count <= claim.count, f"{count} machines for {claim_id}, which wants {claim.count}"


async def play(at: int | str, root: Path, cloud: FakeEc2) -> CountingWorld:
    world = CountingWorld(at)
    cloud.reset()
    cloud.now, cloud.boot_s, cloud.end_s, cloud.lag_s = (lambda: EPOCH_MS / 1000 + world.now_s), 4.0, 3.0, 2.0
    cloud.capacity |= {("m6i.large", f"us-east-1{zone}"): 0 for zone in "abde"}  # zones refuse, then a region
    cloud.capacity[("m6i.large", "us-east-1c")] = 1
    store = await Store.open("sqlite://", ids=world.ids, clock=world.clock, inline=True)
    run = Life(world, cloud, store, root)
    job = a_job(managed=True, task=a_task(run="sim work_s=90", resources=(SPOT,)), created_ms=EPOCH_MS)
    cluster = a_cluster(num_nodes=2, resources=(ON_DEMAND,))
    on_it = a_job(host_id=cluster.id, task=a_task(run="sim work_s=5", num_nodes=2, resources=(Resources(),)))
    looking = asyncio.ensure_future(keep_looking(world, cloud))
    serving = asyncio.ensure_future(run.serve())
    try:
        await run.put(job)
        await run.put(cluster, on_it)
        await run.until("the job runs", lambda: bool(world.running) and _runs(world, job.id))
        (spot,) = [each for each in cloud.instances() if each.lifecycle == "spot"]
        cloud.interrupt(spot.id, 0)
        await run.until("the cluster's job ended", lambda: not run.row(on_it.id).is_live)
        await run.want(cluster.id, Desired.STOP)
        await run.until("it rests", lambda: run.row(cluster.id).phase is WorkloadPhase.STOPPED)
        await run.want(cluster.id, Desired.RUN)
        await run.until("it runs again", lambda: run.row(cluster.id).phase is WorkloadPhase.RUNNING)
        await run.want(cluster.id, Desired.END)
        await run.until("the job ended", lambda: not run.row(job.id).is_live)
        await run.until("the cluster is gone", lambda: not run.row(cluster.id).is_live)
        rows = world.rows.values
        await run.until(
            "claims are gone",
            lambda: all(row.phase is ClaimPhase.GONE for row in rows() if isinstance(row, Claim)),
        )
        await run.until("the cloud is empty", lambda: cloud.left() == [] and cloud.groups == {}, 300)
        assert run.row(job.id).outcome is Outcome.SUCCEEDED, "a job was lost"
        assert run.row(on_it.id).outcome is Outcome.SUCCEEDED, "a job was lost"
    finally:
        run.over = True
        serving.cancel()
        looking.cancel()
        await asyncio.wait([serving, looking])
        await store.close()
    assert not world.violations, world.violations[0].render()
    return world


def _runs(world: CountingWorld, job_id: str) -> bool:
    attempts = {rank_id.rpartition(".")[0] for rank_id in world.running}
    return any(getattr(world.rows.get(each), "workload_id", "") == job_id for each in attempts)


@pytest.fixture(scope="module")
def cloud() -> Iterator[FakeEc2]:
    with FakeEc2() as fake, pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            patch.delenv(name)
        for name, value in fake.environ().items():
            patch.setenv(name, value)
        yield fake


def test_a_server_killed_after_an_order_leaves_nothing_behind(cloud: FakeEc2, tmp_path: Path) -> None:
    """The machines are made, and nobody heard of it."""
    world = run_virtual(play("after aws.run_instances", tmp_path, cloud), 7)
    assert world.crashes == 1


@pytest.mark.nightly
def test_a_server_killed_at_any_point_leaves_nothing_behind(cloud: FakeEc2, tmp_path: Path) -> None:
    """Before and after every commit and every call that changes something: about 120 runs of 4 s each."""
    whole = run_virtual(play(0, tmp_path / "0", cloud), 7)
    assert len(whole.points) > 80, whole.points
    for at, point in enumerate(whole.points, 1):
        try:
            world = run_virtual(play(at, tmp_path / str(at), cloud), 7)
        except AssertionError as error:
            raise AssertionError(f"killed at point {at}: {point}: {error}") from error
        assert world.crashes == 1
