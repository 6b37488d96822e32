"""Managed jobs without a claim, in their turn: each gets a claim when the planner finds room. Pure.

Strict order by number: the first job that has to wait for capacity in use holds back those behind it, so that a big
job is not starved by small ones. Jobs that recover come first.
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from argosy.controllers.policies import finish, job_spec, new_claim, render_rejections
from argosy.controllers.view import Action, NewId, Put, View
from argosy.model.offer import Plan
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.resources import Resources
from argosy.model.rows import Claim, Workload
from argosy.model.units import Bound
from argosy.planning import plan, usage_by_provider, waits_for
from argosy.planning.place import DEFAULT_CPUS_MILLI


def with_floor(candidates: tuple[Resources, ...]) -> tuple[Resources, ...]:
    """Managed jobs that name no CPUs reserve a default share, or a thousand of them would start on one machine at once."""
    return tuple(
        each if each.cpus else msgspec.structs.replace(each, cpus=Bound(DEFAULT_CPUS_MILLI))
        for each in candidates
    )


def plan_job(view: View, job: Workload, claims: list[Claim], names: Mapping[str, str] | None = None) -> Plan:
    """Where a managed job would go, given what `claims` hold."""
    task = job_spec(job).task
    return plan(
        with_floor(task.resources),
        task.num_nodes,
        view.offers,
        abilities=view.abilities,
        usage=usage_by_provider(claims, names),
        ordered=task.ordered,
    )


def waiting_jobs(view: View) -> list[Workload]:
    """Managed jobs whose turn it is to get a claim when there is room: recovering ones first, then by number."""
    waiting = [
        job
        for job in view.rows.managed_jobs()
        if job.desired is Desired.RUN
        and (
            job.phase is WorkloadPhase.QUEUED
            or (
                job.phase is WorkloadPhase.RECOVERING
                and view.now_ms >= job.retry_ms
                and not view.rows.claims_of(job.id)
            )
        )
        and view.rows.attempt_of(job.id) is None
    ]
    waiting.sort(key=lambda job: (job.phase is WorkloadPhase.QUEUED, job.number))
    return waiting


def explain_queue(view: View) -> dict[str, str]:
    """Why managed jobs wait, by id; those that are about to get a claim are left out."""
    claims = list(view.rows.claims.values())
    names = {row.id: row.name for row in view.rows.workloads.values()}
    texts: dict[str, str] = {}
    head = ""
    for job in waiting_jobs(view):
        if head:
            texts[job.id] = f"waits behind {head}: managed jobs get their nodes in order"
            continue
        text = waits_for(plan_job(view, job, claims, names))
        if text:
            head = f"job {job.number}"
            texts[job.id] = text
    return texts


def decide_queue(view: View, new_id: NewId) -> list[list[Action]]:
    """One decision per job that gets a claim, or that no place could ever hold."""
    waiting = waiting_jobs(view)
    claims = list(view.rows.claims.values())
    decisions: list[list[Action]] = []
    for job in waiting:
        answer = plan_job(view, job, claims)
        if not answer.choices:
            if waits_for(answer) or not view.offers:
                break
            decisions.append(
                finish(view, job, Outcome.FAILED, Reason.NO_OFFER, render_rejections(answer.rejected))
            )
            continue
        claim = new_claim(new_id("clm"), job.id, answer.choices, answer.num_nodes, view.now_ms)
        claims.append(claim)
        changed = msgspec.structs.replace(job, phase=WorkloadPhase.STARTING)
        decisions.append([Put(claim), Put(changed)])
    return decisions
