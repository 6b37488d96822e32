"""Jobs with deadlines in a world that takes spot back, refuses it and kills servers: while on-demand can be
had, none is late."""

from __future__ import annotations

import pytest

from argosy.model.kinds.job import JOB, JobSpec, JobStatus
from argosy.model.phases import Outcome
from argosy.model.resources import Infra, Resources
from argosy.model.rows import Claim, Workload
from argosy.model.scheduling import Scheduling
from argosy.model.task import Task
from argosy.model.units import Bound
from argosy.testing.faults import Faults
from argosy.testing.harness import Simulation
from argosy.testing.world import World

HOUR_S = 3600
SLACKS_H = (0.75, 1.5, 3.0, 4.0)


class DeadlineJobs(Simulation):
    """Jobs of three hours with more and less slack, one and two nodes, and nothing else."""

    async def _acts(self, world: World) -> None:
        jobs = [self._job(world, number, slack_h) for number, slack_h in enumerate(SLACKS_H, 1)]
        await self.store.write(jobs)
        for server in self._servers:
            if server is not None:
                server.wake(*(job.id for job in jobs))
        limit_s = (max(SLACKS_H) + 3.2) * HOUR_S
        await self._watch(limit_s, lambda: not any(world.rows[job.id].is_live for job in jobs))
        for job in jobs:
            row = world.rows[job.id]
            assert isinstance(row, Workload) and isinstance(row.spec, JobSpec)
            due_ms = row.created_ms + (row.spec.task.deadline_s or 0) * 1000
            if row.outcome is not Outcome.SUCCEEDED or row.ended_ms > due_ms:
                late_s = (row.ended_ms - due_ms) // 1000
                world.violate("in-time", f"{row.name} is {row.phase.value} {row.outcome}, {late_s} s late")
        self.capacities = [
            each.choice.offer.capacity.value for each in world.rows.values() if isinstance(each, Claim)
        ]

    def _job(self, world: World, number: int, slack_h: float) -> Workload:
        wish = Resources(infra=Infra(provider="cloud"), cpus=Bound(4000))
        task = Task(
            run=f"sim work_s={3 * HOUR_S} checkpoint_s=1200",
            num_nodes=1 + number % 2,
            resources=(wish,),
            grace_s=2,
            scheduling=Scheduling(checkpoint=True),
            deadline_s=round((3 + slack_h) * HOUR_S),
            estimated_s=3 * HOUR_S,
        )
        return Workload(
            id=world.ids.new("job"),
            kind=JOB.name,
            name=f"j{number}",
            spec=JobSpec(task=task, managed=True),
            status=JobStatus(),
            number=number,
            created_ms=world.clock.now_ms(),
        )


def play(seed: int) -> None:
    faults = Faults(preemptions_per_h=0.7, capacity_miss=0.4, crash=0.002, price_moves_per_h=1.0)
    simulation = DeadlineJobs(seed, faults=faults)
    simulation.run()
    assert {"spot", "on-demand"} <= set(simulation.capacities)


@pytest.mark.parametrize("seed", range(2))
def test_no_job_is_late_while_on_demand_can_be_had(seed: int) -> None:
    play(seed)


@pytest.mark.nightly
@pytest.mark.parametrize("seed", range(2, 40))
def test_no_job_is_late_at_night(seed: int) -> None:
    play(seed)
