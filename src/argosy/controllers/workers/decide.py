"""Pools of workers: so many clusters are kept up and set up; those that are lost, too old or too many are
replaced or go when they are free. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.controllers.crew import Worker, lost_workers, workers_of
from argosy.controllers.policies import finish
from argosy.controllers.view import Action, NewId, Put, View, WakeAt, backoff_ms, event
from argosy.model.kinds.cluster import CLUSTER, ClusterSpec, ClusterStatus
from argosy.model.kinds.job import JOB, JobSpec, JobStatus
from argosy.model.kinds.workers import WorkersSpec, workers_spec, workers_state
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Workload
from argosy.model.task import Task

SETUP_NAME: Final = "setup"
_FAILURES_SEEN: Final = 6  # of the last workers, for the pause before the next


def decide(view: View, pool: Workload, new_id: NewId) -> list[Action]:
    """What to do about one live pool of workers."""
    workers = workers_of(view.rows, pool.id)
    if pool.desired is Desired.END:
        if view.rows.children_of(pool.id):
            return []  # they end with their parent
        return finish(view, pool, Outcome.CANCELLED, pool.reason or Reason.CANCELLED_BY_USER, "")
    actions = _end_some(view, pool, workers)
    if not actions:
        actions = _add_missing(view, pool, workers, new_id)
    if not actions:
        actions = _phase(pool, workers)
    if any(worker.is_free for worker in workers):
        waiting = [row for row in view.rows.waiters_of(pool.id) if row.desired is Desired.RUN]
        actions += [WakeAt(row.id, view.now_ms) for row in waiting]
    return actions


def _end_some(view: View, pool: Workload, workers: list[Worker]) -> list[Action]:
    """End workers whose setup failed, and free ones that are too old or too many. Of those that are too old
    one at a time goes, so that the others go on."""
    spec = workers_spec(pool)
    there = [worker for worker in workers if worker.cluster.desired is Desired.RUN]
    failed = [worker for worker in there if worker.has_failed]
    actions: list[Action] = []
    for worker in failed:
        why = worker.setup.detail if worker.setup is not None else ""
        text = f"worker {worker.cluster.name} could not be set up: {why}"
        actions += [_ended(worker, Reason.SETUP_FAILED, text), event(view, pool.id, "worker-failed", text)]
    good = [worker for worker in there if not worker.has_failed]
    idle = [worker for worker in good if not worker.jobs]
    idle.sort(key=lambda worker: (worker.is_ready, worker.cluster.number, worker.cluster.id))
    for worker in idle[: max(0, len(good) - spec.size)]:
        actions.append(_ended(worker, Reason.IDLE, "the pool was made smaller"))
    if not actions:
        old = [worker for worker in idle if worker.cluster.number < spec.generation]
        coming = [worker for worker in good if not worker.is_ready]
        if old and not coming:
            actions.append(_ended(old[0], Reason.IDLE, "the pool was changed"))
    return actions


def _ended(worker: Worker, reason: Reason, text: str) -> Put:
    return Put(msgspec.structs.replace(worker.cluster, desired=Desired.END, reason=reason, detail=text))


def _add_missing(view: View, pool: Workload, workers: list[Worker], new_id: NewId) -> list[Action]:
    spec, state = workers_spec(pool), workers_state(pool)
    missing = spec.size - sum(worker.cluster.desired is Desired.RUN for worker in workers)
    if missing <= 0:
        return []
    retry_ms = _not_before(view, pool)
    if view.now_ms < retry_ms:
        return [WakeAt(pool.id, retry_ms)]
    actions: list[Action] = []
    for number in range(state.made + 1, state.made + missing + 1):
        cluster = _cluster(pool, spec, number, new_id(CLUSTER.prefix), view.now_ms)
        actions += [Put(cluster), Put(_setup(pool, spec, cluster, new_id(JOB.prefix), view.now_ms))]
    changed = pool.with_status(made=state.made + missing)
    if pool.phase is WorkloadPhase.QUEUED:
        changed = msgspec.structs.replace(changed, phase=WorkloadPhase.STARTING)
    return [Put(changed), *actions]


def _not_before(view: View, pool: Workload) -> int:
    """Workers that fail one after the other are made again with growing pauses; a lost one at once."""
    count, last_ms = 0, 0
    for row in reversed(lost_workers(view.rows, pool.id)[-_FAILURES_SEEN:]):
        if row.outcome is not Outcome.FAILED and row.reason is not Reason.SETUP_FAILED:
            break
        count, last_ms = count + 1, max(last_ms, row.ended_ms)
    return last_ms + backoff_ms(view.policy, count) if count else 0


def _phase(pool: Workload, workers: list[Worker]) -> list[Action]:
    if pool.phase is WorkloadPhase.STARTING and any(worker.is_ready for worker in workers):
        started = min(worker.cluster.started_ms for worker in workers if worker.is_ready)
        changed = msgspec.structs.replace(pool, phase=WorkloadPhase.RUNNING, started_ms=started)
        return [Put(changed)]
    return []


def _cluster(pool: Workload, spec: WorkersSpec, number: int, id: str, now_ms: int) -> Workload:
    """The nodes of a worker. Its `number` is the generation of the pool that it belongs to."""
    task = spec.task
    return Workload(
        id=id,
        kind=CLUSTER.name,
        name=f"{pool.name}-{number}",
        spec=ClusterSpec(
            num_nodes=task.num_nodes,
            resources=task.resources,
            ordered=task.ordered,
            scheduling=task.scheduling,
            confirmed=spec.confirmed,
        ),
        status=ClusterStatus(active_ms=now_ms),
        user=pool.user,
        project=pool.project,
        queue=pool.queue,
        number=spec.generation,
        parent_id=pool.id,
        created_ms=now_ms,
    )


def _setup(pool: Workload, spec: WorkersSpec, cluster: Workload, id: str, now_ms: int) -> Workload:
    """The job that sets a worker up: the files and the `setup` of the pool, once on every node."""
    task: Task = msgspec.structs.replace(spec.task, name=SETUP_NAME, run="true", notify=())
    return Workload(
        id=id,
        kind=JOB.name,
        name=SETUP_NAME,
        spec=JobSpec(task=task),
        status=JobStatus(),
        user=pool.user,
        project=pool.project,
        queue=pool.queue,
        number=cluster.number,
        host_id=cluster.id,
        parent_id=pool.id,
        created_ms=now_ms,
    )
