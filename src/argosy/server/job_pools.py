"""Worker pools: lookup by name, and their views. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.api.job_pools import JobPoolView, WorkerView
from argosy.controllers.crew import Worker, lost_workers, workers_of
from argosy.model.access import Caller
from argosy.model.errors import ArgosyError
from argosy.model.kinds import label
from argosy.model.kinds.workers import WORKERS, WorkersSpec, workers_spec
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.rows import Workload
from argosy.server.guarding import sees
from argosy.store.snapshot import Snapshot


def find_pool(rows: Snapshot, name: str, project: str, caller: Caller) -> Workload:
    """A live pool of workers that the caller may see. Raises `not-found`."""
    found = rows.find_named(WORKERS.name, name, project)
    if found is None or not sees(caller, found):
        known = ", ".join(row.name for row in rows.named(WORKERS.name) if sees(caller, row))
        raise ArgosyError(
            "not-found",
            f"there is no worker pool `{name}`",
            hint=f"there are {known}" if known else "`argosy jobs pool apply NAME FILE.yaml` makes one",
        )
    return found


def view_pool(pool: Workload, rows: Snapshot) -> JobPoolView:
    spec, workers = workers_spec(pool), workers_of(rows, pool.id)
    ended = lost_workers(rows, pool.id)
    last = ended[-1].detail if ended and not any(worker.is_ready for worker in workers) else ""
    return JobPoolView(
        id=pool.id,
        name=pool.name,
        status="stopping" if pool.desired is Desired.END else pool.phase.value,
        size=spec.size,
        ready=sum(worker.is_ready for worker in workers),
        free=sum(worker.is_free for worker in workers),
        waiting=len(rows.waiters_of(pool.id)),
        resources=spec.task.resources[0].render(),
        num_nodes=spec.task.num_nodes,
        user=pool.user,
        project=pool.project,
        created_ms=pool.created_ms,
        detail=f"the last worker ended: {last}" if last else "",
        workers=tuple(_view_worker(worker, spec) for worker in workers),
    )


def _view_worker(worker: Worker, spec: WorkersSpec) -> WorkerView:
    cluster = worker.cluster
    status = "stopping" if cluster.desired is Desired.END else cluster.phase.value
    if cluster.phase is WorkloadPhase.RUNNING and cluster.desired is Desired.RUN:
        status = "busy" if worker.jobs else "free" if worker.is_ready else "setting up"
    return WorkerView(
        cluster=cluster.name,
        status=status,
        detail=cluster.detail,
        job=_labels(worker.jobs),
        is_old=cluster.number < spec.generation,
    )


def _labels(jobs: Sequence[Workload]) -> str:
    return ", ".join(label(job) for job in jobs)
