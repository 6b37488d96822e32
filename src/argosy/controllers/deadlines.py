"""Managed jobs with a deadline: how much of their work is done, what they order next, when they return to
spot. Pure.

All of it is `planning.deadline.next_step`; here is what it is told. While a job runs on on-demand, spot is
ordered beside it: the job goes on until the spot nodes are ready, and moves then.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.controllers.offered import plan_in
from argosy.controllers.policies import new_claim
from argosy.controllers.view import Action, NewId, Put, View, WakeAt, event
from argosy.model.kinds.job import job_spec, job_state
from argosy.model.offer import Capacity, Choice
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Claim, Workload
from argosy.model.task import Task
from argosy.planning.confirmed import keep_to
from argosy.planning.deadline import NextStep, keeps_checkpoints, next_step, wishes_of
from argosy.planning.outlook import CHECKPOINT_S
from argosy.planning.spot_policy import Step
from argosy.scheduler.requests import with_floor


def has_deadline(task: Task) -> bool:
    return task.deadline_s is not None or task.deadline_at_ms is not None


def kept_s(task: Task, attempt: Attempt) -> int:
    """Seconds of an ended attempt whose work a later one goes on from: what came after the last checkpoint is
    lost."""
    if not attempt.running_ms or not keeps_checkpoints(task):
        return 0
    return max(0, (attempt.ended_ms - attempt.running_ms) // 1000 - CHECKPOINT_S)


def done_fraction(job: Workload, now_ms: int, attempt: Attempt | None = None) -> float:
    """Part of the whole work that is done: what ended attempts have kept, and all of the present one."""
    task = job_spec(job).task
    if not task.estimated_s:
        return 0.0
    running_s = max(0, now_ms - attempt.running_ms) // 1000 if attempt and attempt.running_ms else 0
    return min(1.0, (job_state(job).kept_s + running_s) / task.estimated_s)


def step_of(
    view: View,
    job: Workload,
    choices: Sequence[Choice],
    attempt: Attempt | None = None,
    held: Choice | None = None,
) -> NextStep | None:
    """The next step of a managed job by the deadline policy; None: the policy does not apply."""
    return next_step(
        choices,
        job_spec(job).task,
        memory=view.memory,
        now_ms=view.now_ms,
        submitted_ms=job.created_ms,
        done_fraction=done_fraction(job, view.now_ms, attempt),
        held=held,
    )


def back_to_spot(view: View, job: Workload, attempt: Attempt, new_id: NewId) -> list[Action]:
    """For a job on on-demand: order spot when the policy wants it, move when its nodes are ready."""
    spec = job_spec(job)
    if not spec.managed or attempt.phase is not AttemptPhase.RUNNING or not has_deadline(spec.task):
        return []
    mine, others = claims_beside(view, job, attempt)
    if mine is None or mine.choice.offer.capacity is not Capacity.ON_DEMAND:
        return []
    if others:
        return _move(view, job, attempt, others[0])
    wishes = with_floor(wishes_of(spec.task))
    made = plan_in(view, wishes, spec.task.num_nodes)
    choices, _ = keep_to(made.choices, spec.confirmed)
    bought = [each for each in choices if each.offer.capacity in (Capacity.SPOT, Capacity.ON_DEMAND)]
    step = step_of(view, job, bought, attempt, mine.choice)
    if step is None:
        return []
    if step.step is not Step.SPOT or not step.choices:
        return [WakeAt(job.id, max(step.again_ms, view.now_ms + 1000))]
    claim = new_claim(
        new_id("clm"), job.id, step.choices, spec.task.num_nodes, view.now_ms, config=spec.task.config
    )
    place = claim.choice.offer
    text = (
        f"spot is asked for in {place.zone or place.region or place.provider} while the job runs on on-demand"
    )
    return [Put(claim), event(view, job.id, "deadline", text)]


def claims_beside(view: View, job: Workload, attempt: Attempt) -> tuple[Claim | None, list[Claim]]:
    """(the claim that an attempt runs on, others of its job that are wanted)."""
    ids = {
        node.claim_id
        for place in attempt.placements
        if (node := view.rows.nodes.get(place.node_id)) is not None
    }
    claims = view.rows.claims_of(job.id)
    mine = next((claim for claim in claims if claim.id in ids), None)
    return mine, [claim for claim in claims if claim.id not in ids and claim.desired is Desired.RUN]


def _move(view: View, job: Workload, attempt: Attempt, claim: Claim) -> list[Action]:
    nodes = [node for node in view.rows.nodes_of_claim(claim.id) if node.phase is NodePhase.READY]
    if claim.phase is not ClaimPhase.HELD or len(nodes) < claim.count:
        return []
    ending = msgspec.structs.replace(
        attempt,
        phase=AttemptPhase.ENDING,
        outcome=Outcome.PREEMPTED,
        reason=Reason.MOVED,
        detail="spot is there again",
        ending_ms=view.now_ms,
    )
    return [Put(ending), event(view, job.id, "deadline", "the job moves from on-demand to spot")]


def moved(view: View, job: Workload, attempt: Attempt) -> list[Action]:
    """After the attempt has ended: the job starts on the spot nodes, and what it ran on is given back."""
    mine, _ = claims_beside(view, job, attempt)
    waiting = msgspec.structs.replace(
        job, phase=WorkloadPhase.RECOVERING, reason=Reason.MOVED, detail=attempt.detail, retry_ms=view.now_ms
    )
    actions: list[Action] = [Put(waiting), WakeAt(job.id, view.now_ms)]
    if mine is not None and mine.desired is not Desired.END:
        actions.append(Put(msgspec.structs.replace(mine, desired=Desired.END)))
    return actions


def give_up_ms(view: View, job: Workload, claim: Claim) -> int | None:
    """When a job that waits for nodes of spot must give them up, because only on-demand makes the deadline
    then; None: it may wait."""
    task = job_spec(job).task
    if claim.choice.offer.capacity is not Capacity.SPOT or not has_deadline(task):
        return None
    made = plan_in(view, with_floor(wishes_of(task)), task.num_nodes)
    if all(each.offer.capacity is Capacity.SPOT for each in made.choices):
        return None
    step = step_of(view, job, made.choices)
    return None if step is None else step.give_up_ms
