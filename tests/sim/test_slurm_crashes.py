"""A server that is killed after every commit and every effect of a launch, a failover, a recovery and a
`down` on Slurm: its successor goes on, nothing is left, lost or made twice. Scripts are cut short, too."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from crash_life import CountingWorld, Life

from argosy.infra.provider import Provider
from argosy.model.phases import ClaimPhase
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Claim, Row
from argosy.providers.slurm.cluster import Cluster
from argosy.providers.slurm.provider import SlurmProvider
from argosy.providers.slurm.settings import ClusterSettings
from argosy.store import Store
from argosy.testing.builders import a_cluster, a_job, a_task
from argosy.testing.fake_slurm import FakeSlurm, SimRunner, keep_looking
from argosy.testing.sim_driver import SimDriver
from argosy.testing.virtual_time import EPOCH_MS, run_virtual

ANYWHERE = Resources(infra=Infra(provider="slurm", region="lab"))
NO_NODES = "Requested partition configuration not available now"


def check(slurm: FakeSlurm, rows: Mapping[str, Row]) -> None:
    """No job of Slurm without a row, none for a claim that is over, none twice."""
    for name, count in Counter(job.name for job in slurm.jobs()).items():
        claim = rows.get(name)
        assert isinstance(claim, Claim), f"{name} has a job and no row"
        assert count == 1, f"{count} jobs for {name}"
        assert claim.phase is not ClaimPhase.GONE, f"{name} is gone and has a job"


async def play(at: int | str, root: Path) -> CountingWorld:
    world = CountingWorld(at)
    slurm = FakeSlurm(root / "slurm", {"low": ["n1", "n2", "n3", "n4"], "high": ["n5", "n6", "n7", "n8"]})
    slurm.refuse("high", NO_NODES)
    agent = root / "agent-1.pyz"
    agent.write_bytes(b"an agent")
    store = await Store.open("sqlite://", ids=world.ids, clock=world.clock, inline=True)

    def provider() -> Provider:
        runner = SimRunner(world, slurm)
        cluster = Cluster("lab", runner, ClusterSettings(), clock=world.clock, agent=lambda: agent)
        return SimDriver(world, SlurmProvider({"lab": cluster}))

    run = Life(world, store, provider, lambda rows: check(slurm, rows))
    job = a_job(managed=True, task=a_task(run="sim work_s=90", resources=(ANYWHERE,)), created_ms=EPOCH_MS)
    cluster = a_cluster(num_nodes=2, resources=(ANYWHERE,))
    on_it = a_job(host_id=cluster.id, task=a_task(run="sim work_s=5", num_nodes=2, resources=(Resources(),)))
    looking = asyncio.ensure_future(keep_looking(world, slurm))
    serving = asyncio.ensure_future(run.serve())
    try:
        await run.put(job)
        await run.put(cluster, on_it)
        await run.until("the job runs", lambda: run.runs(job.id))
        claims = [row for row in world.rows.values() if isinstance(row, Claim) and row.workload_id == job.id]
        assert [each.choice.offer.zone for each in claims][-1] == "low"
        slurm.preempt(claims[-1].id)
        await run.until("the cluster's job ended", lambda: not run.row(on_it.id).is_live)
        await run.end(cluster.id, (job.id, on_it.id), lambda: slurm.jobs() == [])
    finally:
        await run.close(looking, serving)
    return world


@pytest.mark.parametrize(
    "point", ["during slurm.submit", pytest.param("after slurm.submit", marks=pytest.mark.nightly)]
)
def test_a_server_killed_when_slurm_has_the_job_leaves_nothing_behind(point: str, tmp_path: Path) -> None:
    """The job is there, and nobody heard of it."""
    assert run_virtual(play(point, tmp_path), 7).crashes == 1


@pytest.mark.nightly
@pytest.mark.timeout(1800)
def test_a_server_killed_at_any_point_leaves_nothing_behind(tmp_path: Path) -> None:
    """Before, in the middle of and after every commit and every script that changes something."""
    whole = run_virtual(play(0, tmp_path / "0"), 7)
    assert len(whole.points) > 60, whole.points
    for at, point in enumerate(whole.points, 1):
        try:
            world = run_virtual(play(at, tmp_path / str(at)), 7)
        except AssertionError as error:
            raise AssertionError(f"killed at point {at}: {point}: {error}") from error
        assert world.crashes == 1
