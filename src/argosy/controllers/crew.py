"""The workers of a worker pool and which jobs may use them; read by the pool and by groups of jobs. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.controllers.view import Rows
from argosy.model.kinds import kind_of
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.rows import Workload


class Worker(msgspec.Struct, frozen=True):
    """One worker: a cluster, and how its setup went."""

    cluster: Workload
    setup: Workload | None  # the job that sets it up; None: it was not made yet
    jobs: Sequence[Workload]  # that run on it, besides its setup

    @property
    def is_ready(self) -> bool:
        """It is up and set up."""
        return (
            self.cluster.phase is WorkloadPhase.RUNNING
            and self.cluster.desired is Desired.RUN
            and self.setup is not None
            and self.setup.outcome is Outcome.SUCCEEDED
        )

    @property
    def is_free(self) -> bool:
        return self.is_ready and not self.jobs

    @property
    def has_failed(self) -> bool:
        """Its setup did not succeed."""
        return self.setup is not None and self.setup.outcome not in (None, Outcome.SUCCEEDED)


def workers_of(rows: Rows, pool_id: str) -> list[Worker]:
    """Live workers of a pool, oldest first."""
    children = [*rows.children_of(pool_id), *rows.ends_for(pool_id)]
    setups = {row.host_id: row for row in children if row.host_id is not None}
    clusters = sorted(
        (row for row in rows.children_of(pool_id) if kind_of(row).hosts), key=lambda row: row.id
    )
    return [
        Worker(
            cluster=row,
            setup=setups.get(row.id),
            jobs=[job for job in rows.jobs_of(row.id) if job.parent_id != pool_id],
        )
        for row in clusters
    ]


def lost_workers(rows: Rows, pool_id: str) -> list[Workload]:
    """Workers of a live pool that are over, in the order of their ends."""
    ended = [row for row in rows.ends_for(pool_id) if kind_of(row).hosts]
    return sorted(ended, key=lambda row: (row.ended_ms, row.id))
