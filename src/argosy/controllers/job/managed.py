"""Managed jobs between two attempts: they order nodes of their own, start on them, and go elsewhere. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.controllers.deadlines import give_up_ms, has_deadline
from argosy.controllers.elastic import left_of, smaller
from argosy.controllers.failover import end_round, next_text, note_refused, round_of, told_round
from argosy.controllers.hedging import give_back_others, is_up, second_order
from argosy.controllers.job.seat import seat_gang
from argosy.controllers.policies import end_claims, finish, new_attempt
from argosy.controllers.pool.wanted import places_left
from argosy.controllers.sharing import beside, orders_of, waits_for_setup
from argosy.controllers.view import Action, NewId, Put, View, WakeAt, backoff_ms, event
from argosy.model.kinds.job import job_spec, job_state
from argosy.model.phases import ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Claim, Node, Workload
from argosy.model.units import many
from argosy.planning.availability import order_for_failover

_SETUP_MS: Final = 1_000  # so often who waits for the setup of another looks again


def usable_claims(view: View, job: Workload) -> list[Claim]:
    """Its orders that may still come up, and those that have: more than one where a late one was hedged."""
    return [
        claim
        for claim in orders_of(view.rows, job)
        if claim.desired is Desired.RUN and claim.phase in (ClaimPhase.REQUESTED, ClaimPhase.HELD)
    ]


def recover(view: View, job: Workload) -> list[Action]:
    if view.now_ms < job.retry_ms:
        return [WakeAt(job.id, job.retry_ms)]
    if usable_claims(view, job):
        return [Put(msgspec.structs.replace(job, phase=WorkloadPhase.STARTING))]
    return []  # waits until the old claim is gone; `pool.decide_owned` then gives it a fresh one


def start_managed(view: View, job: Workload, new_id: NewId) -> list[Action]:
    orders = usable_claims(view, job)
    if not orders:
        return _claim_failed(view, job)
    claim = next((each for each in orders if is_up(view, each)), orders[0])
    latest_ms = give_up_ms(view, job, claim)
    if latest_ms is not None and view.now_ms >= latest_ms:
        text = "spot did not come up while there was time: on-demand is ordered"
        return [*_retry(view, job, Reason.OUT_OF_CAPACITY, text, view.now_ms), *end_claims(view, job)]
    nodes = [node for node in view.rows.nodes_of_claim(claim.id) if node.phase is NodePhase.READY]
    if claim.phase is not ClaimPhase.HELD or (len(nodes) < claim.count and not left_of(view, job, claim)):
        if claim.workload_id != job.id or claim.guests:
            return []  # an order that several wait for is not hedged
        return second_order(view, job, orders, new_id) if latest_ms is None else [WakeAt(job.id, latest_ms)]
    if waits_for_setup(view.rows, claim, job):
        return [WakeAt(job.id, view.now_ms + _SETUP_MS)]
    others = beside(view.rows, claim, job)
    placements = seat_gang(job, claim, nodes, others)
    if placements is None:
        if others:
            text = "the machine that it was to share has no room for it"
            return [*_retry(view, job, Reason.OUT_OF_CAPACITY, text, view.now_ms), *end_claims(view, job)]
        text = "its nodes do not have what its claim promised"
        return finish(view, job, Outcome.FAILED, Reason.INTERNAL, text)
    lease_ms = _lease_ms(view, job, claim, nodes)
    changed, attempt = new_attempt(
        end_round(view, job), placements, new_id("att"), view.now_ms, lease_ms=lease_ms
    )
    return [Put(changed), Put(attempt), *give_back_others(view, job, claim, orders)]


def _lease_ms(view: View, job: Workload, claim: Claim, nodes: list[Node]) -> int:
    """Of an attempt on these nodes: by default where a silent node may come back with what ran there."""
    wanted = job_spec(job).task.resources[0].recovery.at_most_once
    if wanted is None:
        wanted = claim.choice.offer.provider in view.returning
    links = [view.observed.link(node.id) for node in nodes]
    able = all(link is not None and link.facts.leases for link in links)
    return view.policy.lease_ms if wanted and able else 0


def _claim_failed(view: View, job: Workload) -> list[Action]:
    """The order failed. A wrong request ends the job; a lack of capacity is tried again, elsewhere first."""
    failed = [claim for claim in orders_of(view.rows, job) if claim.reason is not None]
    last = failed[-1] if failed else None
    reason = (last.reason if last is not None else None) or Reason.OUT_OF_CAPACITY
    detail = last.detail if last is not None else ""
    if reason is Reason.PROVIDER_REFUSED:
        return finish(view, job, Outcome.FAILED, reason, detail)
    for claim in failed:
        job = note_refused(view, job, claim)
    left = places_left(view, job)
    if reason is Reason.CREDENTIALS and not left.elsewhere:
        return finish(view, job, Outcome.FAILED, reason, told_round(job, last, left.dear))
    state = job_state(job)
    if has_deadline(job_spec(job).task):  # a refusal is no recovery: the spot policy says when to ask where
        return _retry(view, job, reason, detail, view.now_ms + view.policy.retry_base_ms)
    if left.elsewhere and last is not None and round_of(job):
        then = order_for_failover(left.elsewhere, view.memory, view.now_ms, ordered=left.ordered)
        text = next_text(last, then[0])
        return [*_retry(view, job, reason, text, view.now_ms), event(view, job.id, "failover", text)]
    detail = told_round(job, last, left.dear)
    if fewer := smaller(job):
        text = f"{detail or 'no place has so many nodes'}; {many(fewer, 'node')} asked for"
        job = end_round(view, job).with_status(size=fewer)
        return [*_retry(view, job, reason, text, view.now_ms), event(view, job.id, "failover", text)]
    recoveries = state.recoveries + 1
    job = end_round(view, job).with_status(recoveries=recoveries, size=0)
    return _retry(view, job, reason, detail, view.now_ms + backoff_ms(view.policy, recoveries))


def _retry(view: View, job: Workload, reason: Reason, detail: str, retry_ms: int) -> list[Action]:
    changed = msgspec.structs.replace(
        job, phase=WorkloadPhase.RECOVERING, reason=reason, detail=detail, retry_ms=retry_ms
    )
    return [Put(changed), WakeAt(job.id, retry_ms)]
