"""What several workload kinds do alike: called, never inherited. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.controllers.view import Action, Put, View
from argosy.model.offer import Choice, Placement, Rejection
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Claim, Workload
from argosy.model.task import JobSpec, Task


def job_spec(job: Workload) -> JobSpec:
    assert isinstance(job.spec, JobSpec)
    return job.spec


def new_attempt(
    job: Workload, placements: tuple[Placement, ...], attempt_id: str, now_ms: int
) -> tuple[Workload, Attempt]:
    """The job and its next attempt, to be put together."""
    number = job.attempts + 1
    attempt = Attempt(
        id=attempt_id, workload_id=job.id, number=number, placements=placements, placed_ms=now_ms
    )
    changed = msgspec.structs.replace(
        job, phase=WorkloadPhase.STARTING, attempts=number, attempt_id=attempt_id, reason=None, detail=""
    )
    return changed, attempt


ALTERNATIVES = 5  # how many more places a claim remembers, to be tried when the first refuses


def new_claim(claim_id: str, owner_id: str, choices: Sequence[Choice], count: int, now_ms: int) -> Claim:
    """The order for the first of `choices`; the next ones are what to try after it."""
    return Claim(
        id=claim_id,
        workload_id=owner_id,
        choice=choices[0],
        alternatives=tuple(choices[1 : 1 + ALTERNATIVES]),
        count=count,
        requested_ms=now_ms,
    )


def finish(view: View, job: Workload, outcome: Outcome, reason: Reason | None, detail: str) -> list[Action]:
    """The job is over; its claims, if it owns any, are to be released."""
    ended = msgspec.structs.replace(
        job, phase=WorkloadPhase.FINISHED, outcome=outcome, reason=reason, detail=detail, ended_ms=view.now_ms
    )
    actions: list[Action] = [Put(ended)]
    actions += end_claims(view, job)
    return actions


def end_claims(view: View, job: Workload) -> list[Action]:
    return [
        Put(msgspec.structs.replace(claim, desired=Desired.END))
        for claim in view.rows.claims_of(job.id)
        if claim.desired is not Desired.END
    ]


def task_of(job: Workload) -> Task:
    return job_spec(job).task


def render_rejections(rejected: tuple[Rejection, ...]) -> str:
    return "; ".join(f"{each.provider}: {each.text}" for each in rejected[:4])
