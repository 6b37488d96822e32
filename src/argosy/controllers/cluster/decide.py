"""Clusters: nodes that stay, jobs that share them in order, and autostop. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from argosy.controllers.cluster.idle import idle_since_ms, open_uses
from argosy.controllers.failover import end_round, next_text, note_refused, reason_of, told_round
from argosy.controllers.hedging import give_back_others, is_up, second_order
from argosy.controllers.policies import finish, new_claim
from argosy.controllers.pool.decide import decide_jobs, fail_cluster
from argosy.controllers.pool.wanted import places_left
from argosy.controllers.settling import is_settling
from argosy.controllers.view import Action, NewId, Put, View, WakeAt, event
from argosy.model.kinds.cluster import cluster_spec, cluster_state
from argosy.model.kinds.job import job_task
from argosy.model.phases import ClaimPhase, Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.resources import Autostop
from argosy.model.rows import Claim, Workload
from argosy.model.units import render_duration
from argosy.planning.availability import order_for_failover
from argosy.scheduler.machines import is_owned

_UNSURE_MS: Final = 1000


def decide(view: View, cluster: Workload, new_id: NewId) -> list[Action]:
    """What to do about one live cluster and the queue of jobs on it."""
    if cluster.desired is Desired.END:
        return _go(view, cluster)
    if cluster.desired is Desired.STOP or cluster.phase is WorkloadPhase.STOPPING:
        return _rest(view, cluster)  # also when it was meanwhile asked to run again: it rests first
    if cluster.phase is WorkloadPhase.QUEUED:
        return []  # `pool.decide_owned` gives it a claim in its turn
    if cluster.phase is WorkloadPhase.STARTING:
        return _start(view, cluster, new_id)
    if cluster.phase is WorkloadPhase.STOPPED:
        return _start_again(view, cluster)
    return _run(view, cluster, new_id)


def _start_again(view: View, cluster: Workload) -> list[Action]:
    claims = [claim for claim in view.rows.claims_of(cluster.id) if claim.desired is Desired.STOP]
    if any(is_owned(claim.choice.offer, view.abilities) for claim in claims):
        return []  # its machines may be in use: `pool.decide_owned` starts it in its turn
    changed = msgspec.structs.replace(cluster, phase=WorkloadPhase.STARTING, reason=None, detail="")
    changed = changed.with_status(active_ms=view.now_ms)
    return [Put(changed), *(Put(msgspec.structs.replace(claim, desired=Desired.RUN)) for claim in claims)]


def _start(view: View, cluster: Workload, new_id: NewId) -> list[Action]:
    claims = view.rows.claims_of(cluster.id)
    good = [
        claim
        for claim in claims
        if claim.phase in (ClaimPhase.REQUESTED, ClaimPhase.HELD, ClaimPhase.STOPPED)
    ]
    if not good:
        failed = [claim for claim in claims if claim.reason is not None]
        if not failed:
            return [Put(msgspec.structs.replace(cluster, phase=WorkloadPhase.QUEUED))]
        return _after_refusal(view, cluster, failed, new_id)
    used = next((claim for claim in good if is_up(view, claim)), None)
    if used is None:
        return second_order(view, cluster, good, new_id)
    changed = msgspec.structs.replace(
        cluster, phase=WorkloadPhase.RUNNING, started_ms=cluster.started_ms or view.now_ms, detail=""
    )
    return [
        Put(end_round(view, changed).with_status(active_ms=view.now_ms, up_ms=view.now_ms)),
        *give_back_others(view, cluster, used, good),
        event(
            view,
            cluster.id,
            "running",
            "1 node is ready" if used.count == 1 else f"{used.count} nodes are ready",
        ),
    ]


def _after_refusal(view: View, cluster: Workload, failed: Sequence[Claim], new_id: NewId) -> list[Action]:
    """The next place of those that are left in this round; when none is, the end, with all that was said."""
    last = failed[-1]
    reason = last.reason or Reason.OUT_OF_CAPACITY
    if reason is Reason.PROVIDER_REFUSED:
        return fail_cluster(view, cluster, reason, last.detail)
    noted = cluster
    for claim in failed:
        noted = note_refused(view, noted, claim)
    left = places_left(view, noted)
    if left.elsewhere:
        choices = order_for_failover(left.elsewhere, view.memory, view.now_ms, ordered=left.ordered)
        claim = new_claim(new_id("clm"), cluster.id, choices, last.count, view.now_ms, config=last.config)
        text = next_text(last, claim.choice)
        changed = msgspec.structs.replace(noted, detail=text)
        return [Put(claim), Put(changed), event(view, cluster.id, "failover", text)]
    if left.unsure:  # a server that has just begun: who has not said yet what they have may have a place
        noting: list[Action] = [Put(noted)] if noted is not cluster else []
        return [*noting, WakeAt(cluster.id, view.now_ms + _UNSURE_MS)]
    if reason is Reason.OUT_OF_CAPACITY and is_owned(last.choice.offer, view.abilities):
        retry_ms = view.now_ms + view.policy.retry_max_ms
        waits = msgspec.structs.replace(
            cluster, phase=WorkloadPhase.QUEUED, retry_ms=retry_ms, detail=last.detail
        )
        return [Put(waits)]  # what we own and somebody uses is waited for
    return fail_cluster(view, noted, reason_of(noted, reason), told_round(noted, last, left.dear))


def _run(view: View, cluster: Workload, new_id: NewId) -> list[Action]:
    claims = [claim for claim in view.rows.claims_of(cluster.id) if claim.phase is ClaimPhase.HELD]
    if not claims:
        lost = [claim for claim in view.rows.claims_of(cluster.id) if claim.reason is not None]
        reason = lost[-1].reason if lost else Reason.NODE_LOST
        outcome = Outcome.PREEMPTED if reason is Reason.PREEMPTED else Outcome.LOST
        detail = lost[-1].detail if lost else "its nodes are gone"
        ended = msgspec.structs.replace(
            cluster,
            phase=WorkloadPhase.FINISHED,
            outcome=outcome,
            reason=reason,
            detail=detail,
            ended_ms=view.now_ms,
        )
        return [Put(ended), event(view, cluster.id, outcome.value, detail)]
    over, until = _time_up(view, cluster)
    if over:
        return over
    return [*(decide_jobs(view, cluster, new_id) or _watch_idleness(view, cluster)), *until]


def _time_up(view: View, cluster: Workload) -> tuple[list[Action], list[Action]]:
    """The stop of a cluster that was up as long as it may be, whatever runs; else when to look again."""
    policy, up_ms = cluster_spec(cluster).autostop, cluster_state(cluster).up_ms
    if policy.max_s is None or not up_ms:
        return [], []
    due_ms = up_ms + policy.max_s * 1000
    if view.now_ms < due_ms:
        return [], [WakeAt(cluster.id, due_ms)]
    text = f"was up for {render_duration(policy.max_s)}, which is its `max_duration`"
    desired = Desired.END if policy.down else Desired.STOP
    changed = msgspec.structs.replace(cluster, desired=desired, reason=Reason.MAX_DURATION, detail=text)
    return [Put(changed), event(view, cluster.id, "max-duration", text)], []


def _watch_idleness(view: View, cluster: Workload) -> list[Action]:
    """`active_ms` is 0 while jobs or connections that count are there, else when the cluster fell idle."""
    jobs = view.rows.jobs_of(cluster.id)
    policy, active_ms = cluster_spec(cluster).autostop, cluster_state(cluster).active_ms
    if open_uses(cluster, jobs, view.observed):
        return [Put(cluster.with_status(active_ms=0))] if active_ms else []
    if not active_ms:
        changed = cluster.with_status(active_ms=view.now_ms)
        if cluster_spec(cluster).down_when_done and not jobs:
            return [Put(msgspec.structs.replace(changed, desired=Desired.END, detail="its jobs are done"))]
        return [Put(changed)]
    return _autostop(view, cluster, policy)


def _autostop(view: View, cluster: Workload, policy: Autostop) -> list[Action]:
    if policy.idle_s is None:
        return []
    due_ms = idle_since_ms(cluster, view.rows.nodes_of(cluster.id), view.observed) + policy.idle_s * 1000
    if view.now_ms < due_ms:
        return [WakeAt(cluster.id, due_ms)]
    desired = Desired.END if policy.down else Desired.STOP
    text = f"idle for {policy.idle_s // 60} min" if policy.idle_s >= 60 else f"idle for {policy.idle_s} s"
    changed = msgspec.structs.replace(cluster, desired=desired, reason=Reason.IDLE, detail=text)
    return [Put(changed), event(view, cluster.id, "idle", text)]


def _end_jobs(
    view: View, cluster: Workload, reason: Reason, *, queued_too: bool
) -> tuple[list[Action], bool]:
    """Actions that end the cluster's jobs, and whether any attempt is still live."""
    actions: list[Action] = []
    live = False
    for job in view.rows.jobs_of(cluster.id):
        if view.rows.attempt_of(job.id) is not None:
            live = True
            if job.desired is not Desired.END:
                actions.append(Put(msgspec.structs.replace(job, desired=Desired.END, reason=reason)))
        elif queued_too:
            actions += finish(view, job, Outcome.CANCELLED, reason, f"cluster {cluster.name} was taken down")
    return actions, live


def _wind_down(
    view: View, cluster: Workload, reason: Reason, *, queued_too: bool
) -> tuple[list[Action], bool, bool]:
    """The way to rest and to the end alike: jobs end with their grace. (actions, any attempt live, claims may
    go)."""
    actions, live = _end_jobs(view, cluster, reason, queued_too=queued_too)
    if cluster.phase is not WorkloadPhase.STOPPING:
        stopping = msgspec.structs.replace(cluster, phase=WorkloadPhase.STOPPING)
        actions.append(Put(stopping.with_status(active_ms=view.now_ms)))
        return actions, live, False
    since_ms = cluster_state(cluster).active_ms
    patience_ms = since_ms + _longest_grace_ms(view, cluster) + view.policy.kill_margin_ms
    if live and view.now_ms < patience_ms:
        return [*actions, WakeAt(cluster.id, patience_ms)], live, False
    attempts = [view.rows.attempt_of(job.id) for job in view.rows.jobs_of(cluster.id)]
    if any(attempt is not None and is_settling(view, attempt) for attempt in attempts):
        return [*actions, WakeAt(cluster.id, view.now_ms + view.policy.heal_every_ms)], live, False
    return actions, live, True


def _go(view: View, cluster: Workload) -> list[Action]:
    """Down: jobs end with their grace, then the claims are released, then it is over."""
    actions, live, go_on = _wind_down(view, cluster, Reason.CANCELLED_BY_USER, queued_too=True)
    if not go_on:
        return actions
    claims = view.rows.claims_of(cluster.id)
    for claim in claims:
        if claim.desired is not Desired.END:
            actions.append(Put(msgspec.structs.replace(claim, desired=Desired.END)))
    if not claims and not live:
        ended = msgspec.structs.replace(
            cluster,
            phase=WorkloadPhase.FINISHED,
            outcome=cluster.outcome or Outcome.CANCELLED,
            ended_ms=view.now_ms,
        )
        actions += [Put(ended), event(view, cluster.id, "ended", "its machines are released")]
    return actions


def _longest_grace_ms(view: View, cluster: Workload) -> int:
    jobs = view.rows.jobs_of(cluster.id)
    return (
        max((job_task(job).grace_s for job in jobs if job.phase is not WorkloadPhase.QUEUED), default=0)
        * 1000
    )


def _rest(view: View, cluster: Workload) -> list[Action]:
    """Stop: running jobs end, queued ones keep their place, the claims rest."""
    if cluster.phase is WorkloadPhase.STOPPED:
        return []
    if cluster.phase is WorkloadPhase.QUEUED:  # nothing was ordered yet
        return [Put(msgspec.structs.replace(cluster, desired=Desired.END))]
    actions, live, go_on = _wind_down(view, cluster, Reason.STOPPED_BY_USER, queued_too=False)
    if not go_on:
        return actions
    claims = [claim for claim in view.rows.claims_of(cluster.id) if claim.phase is not ClaimPhase.RELEASING]
    for claim in claims:
        if claim.desired is Desired.RUN:
            actions.append(Put(msgspec.structs.replace(claim, desired=Desired.STOP)))
    if not claims and not live:
        actions.append(Put(msgspec.structs.replace(cluster, desired=Desired.END)))
    elif not live and all(claim.phase is ClaimPhase.STOPPED for claim in claims):
        actions.append(Put(msgspec.structs.replace(cluster, phase=WorkloadPhase.STOPPED)))
    return actions
