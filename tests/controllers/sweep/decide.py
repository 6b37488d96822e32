"""A sweep starts one job for each trial, and is over when all of them are."""

from __future__ import annotations

import msgspec

from argosy.controllers.policies import finish
from argosy.controllers.view import Action, NewId, Put, View
from argosy.model.kinds.job import JOB, JobSpec, JobStatus
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.rows import Workload
from argosy.model.task import Task
from sweep import SweepSpec


def decide(view: View, row: Workload, new_id: NewId) -> list[Action]:
    """What to do about one live sweep."""
    children = view.rows.children_of(row.id)
    if row.desired is Desired.END:
        return finish(view, row, Outcome.CANCELLED, row.reason, "") if not children else []
    if row.phase is WorkloadPhase.QUEUED:
        return _begin(view, row, new_id)
    if row.phase is WorkloadPhase.STARTING:
        return [Put(msgspec.structs.replace(row, phase=WorkloadPhase.RUNNING, started_ms=view.now_ms))]
    return finish(view, row, Outcome.SUCCEEDED, None, "") if not children else []


def _begin(view: View, row: Workload, new_id: NewId) -> list[Action]:
    spec = row.spec
    assert isinstance(spec, SweepSpec)
    trials = [
        Workload(
            id=new_id(JOB.prefix),
            kind=JOB.name,
            name=f"{row.name}-{number}",
            spec=JobSpec(task=Task(run=spec.run), managed=True),
            status=JobStatus(),
            number=number,
            parent_id=row.id,
            project=row.project,
            user=row.user,
            created_ms=view.now_ms,
        )
        for number in range(1, spec.trials + 1)
    ]
    begun = msgspec.structs.replace(row, phase=WorkloadPhase.STARTING).with_status(started=len(trials))
    return [Put(begun), *map(Put, trials)]
