"""Jobs: one attempt at a time, gangs that start and end together, recovery of managed jobs. Pure.

Laws: at most one live attempt per job. A managed job starts again only when the provider has confirmed that
the nodes of its last attempt are gone, or every rank has exited: it never runs twice at once.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

import msgspec

from argosy.controllers.deadlines import back_to_spot, kept_s, moved
from argosy.controllers.elastic import keeps_nodes
from argosy.controllers.job.draining import drains_until_ms
from argosy.controllers.job.environment import rank_orders
from argosy.controllers.job.managed import recover, start_managed
from argosy.controllers.job.peers import peers_of
from argosy.controllers.policies import (
    attained_by,
    end_claims,
    evicted,
    finish,
    is_copied,
    lost_text,
    notice_of,
    notice_text,
)
from argosy.controllers.settling import settling
from argosy.controllers.view import (
    Action,
    NewId,
    PrepareRanks,
    Put,
    RunRanks,
    SaveCheckpoint,
    StopRanks,
    View,
    WakeAt,
    backoff_ms,
    event,
)
from argosy.model.facts import Notice, RankFact, RankPhase
from argosy.model.kinds.job import job_spec, job_state
from argosy.model.offer import Placement
from argosy.model.phases import AttemptPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import REASONS, Reason, Retry
from argosy.model.rows import Attempt, Node, Workload


class Standing(Enum):
    """Where one rank is, as far as we can know."""

    GONE = "gone"  # its node is
    UNKNOWN = "unknown"  # its node does not answer
    ABSENT = "absent"  # its node answers and does not know it: an order may still be on its way
    PREPARING = "preparing"
    READY = "ready"
    RUNNING = "running"
    EXITED = "exited"
    VANISHED = "vanished"


_OVER = frozenset({Standing.GONE, Standing.EXITED, Standing.VANISHED})
_TO_STOP = frozenset({Standing.ABSENT, Standing.PREPARING, Standing.READY, Standing.RUNNING})


class Rank(msgspec.Struct, frozen=True):
    id: str
    placement: Placement
    node: Node | None
    standing: Standing
    fact: RankFact | None


def decide(view: View, job: Workload, new_id: NewId) -> list[Action]:
    """What to do about one live job. Jobs of a cluster are placed by the cluster; managed ones place
    themselves."""
    attempt = view.rows.attempt_of(job.id)
    if attempt is not None:
        actions = decide_attempt(view, job, attempt)
        if not any(isinstance(action, Put) for action in actions):
            actions += back_to_spot(view, job, attempt, new_id)
        return actions
    spec = job_spec(job)
    if job.desired is Desired.END:
        reason = job.reason if job.reason not in (None, Reason.EVICTED) else Reason.CANCELLED_BY_USER
        return finish(view, job, Outcome.CANCELLED, reason, "")
    if not spec.managed:
        if job.host_id not in view.rows.workloads:
            return finish(view, job, Outcome.CANCELLED, Reason.CLUSTER_GONE, "its cluster is gone")
        return []
    if job.phase is WorkloadPhase.RECOVERING:
        return recover(view, job)
    if job.phase is WorkloadPhase.STARTING:
        return start_managed(view, job, new_id)
    return []  # queued: `pool.decide_owned` gives it a claim in its turn


# -- attempts ---------------------------------------------------------------------------------------


def ranks_of(view: View, attempt: Attempt) -> list[Rank]:
    result = []
    for placement in attempt.placements:
        rank_id = f"{attempt.id}.{placement.rank}"
        node = view.rows.nodes.get(placement.node_id)
        fact = view.observed.rank(rank_id)
        result.append(Rank(rank_id, placement, node, _standing(view, node, fact), fact))
    return result


def _standing(view: View, node: Node | None, fact: RankFact | None) -> Standing:
    if fact is not None and fact.phase is RankPhase.EXITED:
        return Standing.EXITED  # known for certain, whatever became of the node
    if node is None or node.phase in (NodePhase.GONE, NodePhase.STOPPED):
        return Standing.GONE
    link = view.observed.link(node.id)
    if link is None or not link.up:
        return Standing.UNKNOWN
    return Standing.ABSENT if fact is None else Standing(fact.phase.value)


def decide_attempt(view: View, job: Workload, attempt: Attempt) -> list[Action]:
    ranks = ranks_of(view, attempt)
    if attempt.phase is AttemptPhase.ENDING:
        return _end(view, job, attempt, ranks)
    exited = [rank for rank in ranks if rank.standing is Standing.EXITED]
    if job.desired is Desired.END:
        return _begin_end(
            view, job, attempt, ranks, Outcome.CANCELLED, job.reason or Reason.CANCELLED_BY_USER, ""
        )
    failed = [rank for rank in exited if rank.fact is not None and rank.fact.exit_code != 0]
    if failed:
        first = min(failed, key=lambda rank: (rank.fact.ended_ms if rank.fact else 0, rank.placement.rank))
        doubt_ms = _doubt_ms(view, job, first)
        lost = (
            _why_lost(view, attempt, [rank for rank in ranks if rank is not first], first)
            if doubt_ms
            else None
        )
        if lost is not None:
            return _begin_end(view, job, attempt, ranks, *lost)
        if doubt_ms > view.now_ms:
            return [WakeAt(job.id, doubt_ms)]
        attempt = msgspec.structs.replace(attempt, failed_rank=first.placement.rank)
        return _begin_end(view, job, attempt, ranks, Outcome.FAILED, *_why_failed(first, len(ranks)))
    if len(exited) == len(ranks):
        return _ended(view, job, attempt, ranks, Outcome.SUCCEEDED, None, "")
    lost = _why_lost(view, attempt, ranks)
    if lost is not None:
        return _begin_end(view, job, attempt, ranks, *lost)
    told = _notice_of(view, job, ranks)
    if told is not None:
        ending = _ending(view, attempt, Outcome.PREEMPTED, Reason.PREEMPTED, notice_text(*told, view.now_ms))
        return [Put(ending), event(view, job.id, "notice", ending.detail)]
    task = job_spec(job).task
    actions: list[Action] = []
    if attempt.running_ms and task.max_duration_s is not None:
        due = attempt.running_ms + task.max_duration_s * 1000
        if view.now_ms >= due:
            text = f"ran for {task.max_duration_s} s, which is its `max_duration`"
            return _begin_end(view, job, attempt, ranks, Outcome.FAILED, Reason.MAX_DURATION, text)
        actions.append(WakeAt(job.id, due))
    return actions + _advance(view, job, attempt, ranks)


def _advance(view: View, job: Workload, attempt: Attempt, ranks: list[Rank]) -> list[Action]:
    standings = [rank.standing for rank in ranks]
    started = {Standing.RUNNING, Standing.EXITED}
    if attempt.phase is AttemptPhase.RUNNING:
        waiting = [rank for rank in ranks if rank.standing is Standing.READY]
        return _per_node(waiting, lambda node_id, ids: RunRanks(attempt.id, node_id, ids))
    if Standing.ABSENT in standings:
        return _prepare(view, job, attempt, ranks)
    if all(standing in started or standing is Standing.READY for standing in standings):
        return _running(view, job, attempt, ranks)
    if attempt.phase is AttemptPhase.PLACED and Standing.PREPARING in standings:
        return [Put(msgspec.structs.replace(attempt, phase=AttemptPhase.PREPARING))]
    return []


def _running(view: View, job: Workload, attempt: Attempt, ranks: list[Rank]) -> list[Action]:
    starts = [
        rank.fact.started_ms for rank in ranks if rank.fact is not None and rank.standing is Standing.RUNNING
    ]
    now_ms = min([start for start in starts if start] or [view.now_ms])
    running = msgspec.structs.replace(attempt, phase=AttemptPhase.RUNNING, running_ms=now_ms)
    changed = msgspec.structs.replace(job, phase=WorkloadPhase.RUNNING, started_ms=job.started_ms or now_ms)
    told = any("started" in wish.on for wish in job_spec(job).task.notify)
    events = [event(view, job.id, "running", "")] if told else []
    claims = [rank.node.claim_id for rank in ranks if rank.node is not None]
    claim = view.rows.claims.get(claims[0]) if claims else None
    if claim is not None:
        offer = claim.choice.offer
        where = (offer.provider, offer.region, offer.zone)
        changed = changed.with_status(ran_on=claim.id, ran_in=where)
    return [Put(running), Put(changed), *events]


def _prepare(view: View, job: Workload, attempt: Attempt, ranks: list[Rank]) -> list[Action]:
    if view.observed.busy(attempt.id):
        return []
    failure = view.observed.failure(attempt.id)
    if failure is not None:
        if failure.code in ("request-refused", "disk-full") or failure.count >= 5:
            reason = Reason.NODE_UNFIT if failure.code == "disk-full" else Reason.PREPARE_FAILED
            return _begin_end(view, job, attempt, ranks, Outcome.FAILED, reason, failure.text)
        if view.now_ms < failure.after_ms:
            return [WakeAt(job.id, failure.after_ms)]
    nodes = [rank.node for rank in ranks if rank.node is not None]
    if len(nodes) < len(ranks):
        return []
    peers = peers_of(view.rows, job)
    if peers is None:
        return []  # the group looks at this job again when all of its tasks have nodes
    cluster = view.rows.workloads.get(job.host_id) if job.host_id else None
    claim = view.rows.claims.get(nodes[0].claim_id)
    shared = view.shared_dirs.get(nodes[0].provider, "")
    orders = rank_orders(job, attempt, nodes, cluster=cluster, claim=claim, shared_dir=shared, peers=peers)
    absent = {rank.id for rank in ranks if rank.standing is Standing.ABSENT}
    actions: list[Action] = []
    for node in nodes:
        mine = tuple(order for where, order in orders if where.id == node.id and order.id in absent)
        if mine:
            actions.append(PrepareRanks(attempt, job, node.id, mine))
    return actions


def _why_failed(rank: Rank, count: int) -> tuple[Reason, str]:
    fact = rank.fact
    assert fact is not None
    index = rank.placement.rank
    if fact.detail:
        text = f"rank {index}: {fact.detail}" if count > 1 else fact.detail
    else:
        who = ([f"rank {index}"] if count > 1 else []) + (["setup"] if fact.stage == "setup" else [])
        text = f"{': '.join(who) or 'the program'} exited with code {fact.exit_code}"
    if fact.oom:
        return Reason.OUT_OF_MEMORY, text
    if "disk full" in fact.detail:
        return Reason.LOG_DISK_FULL, text
    return (Reason.SETUP_FAILED if fact.stage == "setup" else Reason.USER_CODE_FAILED), text


def _doubt_ms(view: View, job: Workload, rank: Rank) -> int:
    """Until when the end of a rank of a managed job may have been that of its machine: one that shuts down
    ends its programs by signals, and tells that before it is gone. 0: it was the program's own."""
    fact = rank.fact
    assert fact is not None
    if (
        not job_spec(job).managed
        or job_spec(job).replica is not None
        or (fact.exit_code or 0) <= 128
        or fact.oom
        or fact.detail
    ):
        return 0
    until_ms = fact.ended_ms + view.policy.doubt_ms  # by the clock of its machine
    return until_ms if until_ms - view.policy.doubt_ms <= view.now_ms else 0


def _why_lost(
    view: View, attempt: Attempt, ranks: list[Rank], killed: Rank | None = None
) -> tuple[Outcome, Reason, str] | None:
    """`killed`: a rank that a signal has ended, so that its machine may be going."""
    if killed is not None and killed.node is not None:
        told, link = notice_of(view, [killed.node]), view.observed.link(killed.node.id)
        if told is not None:
            return Outcome.PREEMPTED, Reason.PREEMPTED, notice_text(*told, view.now_ms)
        if link is not None and not link.up:
            text = f"node {killed.node.index} was shut down"
            return Outcome.LOST, Reason.NODE_LOST, text
        killed = msgspec.structs.replace(killed, standing=Standing.RUNNING)
    for rank in [*ranks, *([killed] if killed is not None else [])]:
        node, index = rank.node, rank.placement.rank
        if node is None:
            return Outcome.LOST, Reason.NODE_LOST, f"node of rank {index} is gone"
        if rank.standing is Standing.EXITED:
            continue
        claim = view.rows.claims.get(node.claim_id)
        if node.phase in (NodePhase.GONE, NodePhase.DRAINING, NodePhase.STOPPED):
            if (claim is not None and claim.reason is Reason.PREEMPTED) or node.reason is Reason.PREEMPTED:
                return Outcome.PREEMPTED, Reason.PREEMPTED, claim.detail if claim else ""
            return Outcome.LOST, Reason.NODE_LOST, f"node {node.index} is gone"
        if rank.standing is Standing.VANISHED:
            return (
                Outcome.LOST,
                Reason.RANK_VANISHED,
                f"rank {index}: {rank.fact.detail}"
                if rank.fact is not None and rank.fact.detail
                else f"rank {index} and its supervisor were killed (SIGKILL)",
            )
        if rank.standing is Standing.ABSENT and attempt.phase is AttemptPhase.RUNNING:
            return (
                Outcome.LOST,
                Reason.RANK_VANISHED,
                f"node {node.index} has no record of rank {index} any more",
            )
        # With a lease its ranks end soon unless it is heard: what is left of that is time to come back.
        if text := lost_text(view, node, attempt.lease_ms // 2):
            return Outcome.LOST, Reason.NODE_LOST, text
    return None


def _begin_end(
    view: View,
    job: Workload,
    attempt: Attempt,
    ranks: list[Rank],
    outcome: Outcome,
    reason: Reason,
    detail: str,
) -> list[Action]:
    """Intent to end: written before any rank is told, so that a crash cannot forget why."""
    if all(rank.standing in _OVER for rank in ranks) and not view.observed.busy(attempt.id):
        return _ended(view, job, attempt, ranks, outcome, reason, detail)
    actions: list[Action] = [Put(_ending(view, attempt, outcome, reason, detail))]
    if job_spec(job).managed and outcome in (Outcome.LOST, Outcome.PREEMPTED):
        actions += [] if keeps_nodes(view, job, attempt, outcome) else end_claims(view, job)
    return actions


def _ending(view: View, attempt: Attempt, outcome: Outcome, reason: Reason | None, detail: str) -> Attempt:
    return msgspec.structs.replace(
        attempt,
        phase=AttemptPhase.ENDING,
        outcome=outcome,
        reason=reason,
        detail=detail,
        ending_ms=view.now_ms,
    )


def _notice_of(view: View, job: Workload, ranks: list[Rank]) -> tuple[Node, Notice] | None:
    """What the nodes of a managed job were told about their end. Other jobs go on while their nodes do."""
    if not job_spec(job).managed:
        return None
    open_ranks = [rank for rank in ranks if rank.standing is not Standing.EXITED]
    return notice_of(view, [rank.node for rank in open_ranks if rank.node is not None])


def _grace(view: View, job: Workload, attempt: Attempt, ranks: list[Rank]) -> tuple[int, int]:
    """(seconds between SIGTERM and SIGKILL, when all ranks should have ended). Who was given notice has all
    the time until then, less a reserve."""
    grace_s, due_ms = job_spec(job).task.grace_s, attempt.ending_ms
    due_ms += grace_s * 1000
    told = _notice_of(view, job, ranks)
    if told is not None and attempt.reason is Reason.PREEMPTED:
        latest_ms = told[1].at_ms - view.policy.notice_reserve_ms
        grace_s, due_ms = max(grace_s, (latest_ms - view.now_ms) // 1000), max(due_ms, latest_ms)
    if job_spec(job).replica is not None and attempt.reason is Reason.EVICTED:
        due_ms += grace_s * 1000  # its requests come first
    return grace_s, due_ms


def _end(view: View, job: Workload, attempt: Attempt, ranks: list[Rank]) -> list[Action]:
    grace_s, due_ms = _grace(view, job, attempt, ranks)
    patience_ms = due_ms + view.policy.kill_margin_ms
    late = view.now_ms >= patience_ms
    assert attempt.outcome is not None

    fence_ms = view.fence_ms(attempt.id) if view.fence_ms is not None and attempt.lease_ms else None

    def over(rank: Rank) -> bool:
        if rank.standing in _OVER or (rank.standing is Standing.UNKNOWN and fence_ms == 0):
            return not view.observed.busy(attempt.id)
        # Who may run twice does not wait for ever for a dead node; others wait for its release.
        return _may_run_twice(job) and rank.node is not None and bool(lost_text(view, rank.node))

    if all(over(rank) for rank in ranks):
        nodes = tuple(rank.node for rank in ranks if rank.node is not None)
        until_ms = patience_ms + view.policy.save_ms
        if _leaves_work(view, job, attempt, nodes) and view.now_ms < until_ms:
            return [SaveCheckpoint(attempt.id, job, nodes), WakeAt(job.id, until_ms)]
        return _ended(view, job, attempt, ranks, attempt.outcome, attempt.reason, attempt.detail)
    told = _notice_of(view, job, ranks)
    requests_ms = drains_until_ms(view, job, attempt, told[1] if told is not None else None)
    if view.now_ms < requests_ms:
        return [WakeAt(job.id, requests_ms)]
    # A rank that its node does not know is stopped too: the node remembers that, and an order which another
    # server has sent before arrives too late to run.
    alive = [rank for rank in ranks if rank.standing in _TO_STOP]
    why = attempt.reason.value if attempt.reason is not None else ""
    actions = _per_node(alive, lambda node_id, ids: StopRanks(attempt.id, node_id, ids, float(grace_s), why))
    if late and job_spec(job).managed and not keeps_nodes(view, job, attempt, attempt.outcome):
        actions += end_claims(view, job)
    if fence_ms:
        actions.append(WakeAt(attempt.id, view.now_ms + fence_ms))
    actions.append(WakeAt(job.id, patience_ms if not late else view.now_ms + view.policy.heal_every_ms))
    return actions


def _leaves_work(view: View, job: Workload, attempt: Attempt, nodes: tuple[Node, ...]) -> bool:
    """Whether what ended ranks have kept is still to be copied, because the job goes on elsewhere."""
    if attempt.outcome is not Outcome.PREEMPTED or not view.copies or view.observed.saved(attempt.id):
        return False
    links = [view.observed.link(node.id) for node in nodes]
    return is_copied(job, nodes, view.shared_dirs) and any(link is not None and link.up for link in links)


def _may_run_twice(job: Workload) -> bool:
    """Whether a rank that cannot be reached, and may still run, does not keep the job from going on."""
    spec = job_spec(job)
    return not spec.managed or spec.task.resources[0].recovery.at_most_once is False


def _per_node(ranks: list[Rank], make: Callable[[str, tuple[str, ...]], Action]) -> list[Action]:
    by_node: dict[str, list[str]] = {}
    for rank in ranks:
        by_node.setdefault(rank.placement.node_id, []).append(rank.id)
    return [make(node_id, tuple(ids)) for node_id, ids in by_node.items()]


def _ended(
    view: View,
    job: Workload,
    attempt: Attempt,
    ranks: list[Rank],
    outcome: Outcome,
    reason: Reason | None,
    detail: str,
) -> list[Action]:
    unsettled = settling(view, job, attempt, [rank.node for rank in ranks], outcome)
    if isinstance(unsettled, str):
        reason = Reason.OUTPUTS_NOT_SENT if outcome is Outcome.SUCCEEDED else reason
        detail = f"{detail}; {unsettled}" if detail else unsettled
        outcome = Outcome.FAILED if outcome is Outcome.SUCCEEDED else outcome
    elif unsettled:
        is_new = attempt.phase is not AttemptPhase.ENDING
        return [*([Put(_ending(view, attempt, outcome, reason, detail))] if is_new else []), *unsettled]
    codes = tuple(rank.fact.exit_code if rank.fact is not None else None for rank in ranks)
    starts = [rank.fact.started_ms for rank in ranks if rank.fact is not None and rank.fact.started_ms]
    started_ms = attempt.running_ms or (min(starts) if starts else 0)
    ended = msgspec.structs.replace(
        attempt,
        phase=AttemptPhase.ENDED,
        outcome=outcome,
        reason=reason,
        detail=detail,
        exit_codes=codes,
        running_ms=started_ms,
        ended_ms=view.now_ms,
    )
    job = msgspec.structs.replace(job, started_ms=job.started_ms or started_ms)
    return [Put(ended), *after_attempt(view, job, ended)]


def after_attempt(view: View, job: Workload, attempt: Attempt) -> list[Action]:
    """Finish the job, or let it start again: a managed one after a loss, any that made room for others."""
    spec, outcome = job_spec(job), attempt.outcome
    assert outcome is not None
    state = job_state(job)
    kept = state.kept_s + kept_s(spec.task, attempt)
    job = job.with_status(attained=state.attained + attained_by(attempt), kept_s=kept)
    state = job_state(job)
    was_evicted = attempt.reason is Reason.EVICTED
    if was_evicted and job.desired is Desired.END:
        return finish(view, job, Outcome.CANCELLED, job.reason or Reason.CANCELLED_BY_USER, "")
    if outcome in (Outcome.SUCCEEDED, Outcome.CANCELLED) or job.desired is Desired.END:
        return finish(view, job, outcome, attempt.reason, attempt.detail)
    if was_evicted:
        waiting = msgspec.structs.replace(evicted(job, view.now_ms), detail=attempt.detail)
        return [Put(waiting), *end_claims(view, job)]
    if attempt.reason is Reason.MOVED:
        return moved(view, job, attempt)
    again = False
    errors, recoveries = state.errors, state.recoveries
    reason: Reason | None = attempt.reason
    detail = attempt.detail
    if spec.managed:
        if outcome in (Outcome.LOST, Outcome.PREEMPTED):
            again, recoveries = True, recoveries + 1
        elif reason is not Reason.MAX_DURATION:
            again, errors, reason, detail = _restart_on_error(job, attempt)
    if not again:
        return finish(view, job, outcome, reason, detail)
    fresh = outcome in (Outcome.LOST, Outcome.PREEMPTED) or attempt.reason is Reason.NODE_UNFIT
    retry_ms = view.now_ms + (
        0 if fresh and recoveries <= 1 else backoff_ms(view.policy, max(1, errors + recoveries - 1))
    )
    keeps = keeps_nodes(view, job, attempt, outcome)
    if keeps:
        state = msgspec.structs.replace(state, ran_on="")  # each node is to have what was copied of all
    changed = msgspec.structs.replace(
        job,
        phase=WorkloadPhase.RECOVERING,
        reason=reason,
        detail=detail,
        retry_ms=retry_ms,
        status=msgspec.structs.replace(state, errors=errors, recoveries=recoveries, size=0),
    )
    text = f"attempt {attempt.number} ended: {detail or (reason.value if reason else outcome.value)}; starting again"  # noqa: E501
    actions: list[Action] = [Put(changed), event(view, job.id, "recovering", text), WakeAt(job.id, retry_ms)]
    if fresh and not keeps:
        actions += end_claims(view, job)
    return actions


def _restart_on_error(job: Workload, attempt: Attempt) -> tuple[bool, int, Reason | None, str]:
    """(start again?, restarts spent, reason, detail). Exit codes that the user listed do not count as
    errors."""
    recovery, errors = job_spec(job).task.resources[0].recovery, job_state(job).errors
    codes = {code for code in attempt.exit_codes if code}
    if codes & set(recovery.recover_on_exit_codes):
        return True, errors, attempt.reason, attempt.detail
    if attempt.reason is not None and REASONS[attempt.reason].retry is not Retry.NEVER and errors < 3:
        return True, errors + 1, attempt.reason, attempt.detail
    if errors < recovery.max_restarts_on_errors:
        return True, errors + 1, attempt.reason, attempt.detail
    if recovery.max_restarts_on_errors:
        text = f"{attempt.detail}; all {recovery.max_restarts_on_errors} restarts are used"
        return False, errors, Reason.RESTARTS_EXHAUSTED, text
    return False, errors, attempt.reason, attempt.detail
