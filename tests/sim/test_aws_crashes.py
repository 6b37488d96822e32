"""A server that is killed after every commit and every effect of a launch, a failover, a recovery, a stop, a
start and a `down` on the fake EC2: its successor goes on, and nothing is left, lost or made twice."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from crash_life import CountingWorld, Life

from argosy.infra.machine_driver import MachineDriver
from argosy.infra.machines import CLAIM
from argosy.infra.provider import Provider, Setting
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Claim, Row
from argosy.providers.aws.provider import Aws
from argosy.store import Store
from argosy.testing.builders import a_cluster, a_job, a_task
from argosy.testing.fake_ec2 import FakeEc2, why_no_fake_ec2
from argosy.testing.fake_ec2_cloud import tags_of
from argosy.testing.sim_ec2 import SimAccount, SimEc2, keep_looking, some_offers
from argosy.testing.virtual_time import EPOCH_MS, run_virtual

pytestmark = pytest.mark.skipif(bool(why_no_fake_ec2()), reason=why_no_fake_ec2() or "there is a fake EC2")

ON_DEMAND = Resources(infra=Infra(provider="aws"), instance_type="m6i.large", use_spot=False)
SPOT = Resources(infra=Infra(provider="aws"), instance_type="m6i.large", use_spot=True)


def check(cloud: FakeEc2, rows: Mapping[str, Row]) -> None:
    """No instance without a row; none twice."""
    live = Counter(tags_of(each)[CLAIM] for each in cloud.instances())
    for claim_id, count in live.items():
        claim = rows.get(claim_id)
        assert isinstance(claim, Claim), f"{claim_id} has machines and no row"
        assert count <= claim.count, f"{count} machines for {claim_id}, which wants {claim.count}"


async def play(at: int | str, root: Path, cloud: FakeEc2) -> CountingWorld:
    world = CountingWorld(at)
    cloud.reset()
    cloud.now, cloud.boot_s, cloud.end_s, cloud.lag_s = (lambda: EPOCH_MS / 1000 + world.now_s), 4.0, 3.0, 2.0
    cloud.capacity |= {("m6i.large", f"us-east-1{zone}"): 0 for zone in "abde"}  # zones refuse, then a region
    cloud.capacity[("m6i.large", "us-east-1c")] = 1
    store = await Store.open("sqlite://", ids=world.ids, clock=world.clock, inline=True)

    def provider() -> Provider:
        setting = Setting(root=root, environ={}, clock=world.clock, ids=world.ids)
        driver = MachineDriver(Aws(setting, SimAccount(world)), setting)
        return SimEc2(world, cloud, driver, some_offers())

    run = Life(world, store, provider, lambda rows: check(cloud, rows))
    job = a_job(managed=True, task=a_task(run="sim work_s=90", resources=(SPOT,)), created_ms=EPOCH_MS)
    cluster = a_cluster(num_nodes=2, resources=(ON_DEMAND,))
    on_it = a_job(host_id=cluster.id, task=a_task(run="sim work_s=5", num_nodes=2, resources=(Resources(),)))
    looking = asyncio.ensure_future(keep_looking(world, cloud))
    serving = asyncio.ensure_future(run.serve())
    try:
        await run.put(job)
        await run.put(cluster, on_it)
        await run.until("the job runs", lambda: run.runs(job.id))
        (spot,) = [each for each in cloud.instances() if each.lifecycle == "spot"]
        cloud.interrupt(spot.id, 0)
        await run.until("the cluster's job ended", lambda: not run.row(on_it.id).is_live)
        await run.restart(cluster.id)
        await run.end(cluster.id, (job.id, on_it.id), lambda: cloud.left() == [] and cloud.groups == {})
    finally:
        await run.close(looking, serving)
    return world


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
