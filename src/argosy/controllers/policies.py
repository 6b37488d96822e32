"""What several kinds of workload do in the same way: called, never inherited. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import msgspec

from argosy.controllers.sharing import leave
from argosy.controllers.view import Action, Put, View, event
from argosy.model.facts import Notice, RankPhase
from argosy.model.kinds import kind_of, task_of
from argosy.model.kinds.job import job_state
from argosy.model.offer import Choice, Placement, Rejection
from argosy.model.phases import AttemptPhase, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Claim, Node, Workload
from argosy.planning.confirmed import TRIED


def new_attempt(
    job: Workload,
    placements: tuple[Placement, ...],
    attempt_id: str,
    now_ms: int,
    *,
    why: str = "",
    lease_ms: int = 0,
) -> tuple[Workload, Attempt]:
    """The job and its next attempt, to be put together."""
    number = job_state(job).attempts + 1
    attempt = Attempt(
        id=attempt_id,
        workload_id=job.id,
        number=number,
        placements=placements,
        placed_ms=now_ms,
        why=why,
        lease_ms=lease_ms,
    )
    changed = msgspec.structs.replace(job, phase=WorkloadPhase.STARTING, reason=None, detail="")
    return changed.with_status(attempts=number, attempt_id=attempt_id), attempt


def evict(view: View, job: Workload, why: str, *, room_for: str = "") -> list[Action]:
    """Tell a running job to make room: its ranks end with their grace, then it waits again (`after_attempt`
    of jobs).

    Without an attempt (a managed job whose nodes are being made) its claims are given up at once. Nothing is
    done about a job that is ending anyway, or whose ranks have all ended: its capacity becomes free anyway.
    """
    attempt = view.rows.attempt_of(job.id)
    if attempt is None:
        waiting = msgspec.structs.replace(evicted(job, 0), detail=why)
        return [Put(waiting), event(view, job.id, "evicted", why), *end_claims(view, job)]
    if attempt.phase is AttemptPhase.ENDING or _has_ended(view, attempt):
        return []
    ending = msgspec.structs.replace(
        attempt,
        phase=AttemptPhase.ENDING,
        outcome=Outcome.PREEMPTED,
        reason=Reason.EVICTED,
        detail=why,
        room_for=room_for,
        ending_ms=view.now_ms,
    )
    return [Put(ending), event(view, job.id, "evicted", why)]


def _has_ended(view: View, attempt: Attempt) -> bool:
    facts = [view.observed.rank(f"{attempt.id}.{place.rank}") for place in attempt.placements]
    return all(fact is not None and fact.phase is RankPhase.EXITED for fact in facts)


def evicted(job: Workload, retry_ms: int) -> Workload:
    """The job as it waits again after it made room: it spends no restart and keeps its place in the order."""
    state = job_state(job)
    return msgspec.structs.replace(
        job,
        phase=WorkloadPhase.RECOVERING,
        reason=Reason.EVICTED,
        retry_ms=retry_ms,
        status=msgspec.structs.replace(state, evictions=state.evictions + 1),
    )


def attained_by(attempt: Attempt) -> int:
    """What an ended attempt has used: milli-GPU x ms, of one without GPU milli-CPU x ms (one CPU where none
    is named)."""
    if not attempt.running_ms:
        return 0
    used = sum(share.milli for place in attempt.placements for share in place.devices)
    used = used or sum(place.cpus_milli or 1000 for place in attempt.placements)
    return used * max(0, attempt.ended_ms - attempt.running_ms)


def new_claim(
    claim_id: str,
    owner_id: str,
    choices: Sequence[Choice],
    count: int,
    now_ms: int,
    *,
    placements: tuple[Placement, ...] = (),
    config: str = "",
) -> Claim:
    """The order for the first of `choices`; the next ones are what to try after it. `placements`: on owned
    machines. `config`: what the task says to infrastructures."""
    return Claim(
        id=claim_id,
        workload_id=owner_id,
        choice=choices[0],
        alternatives=tuple(choices[1:TRIED]),
        count=count,
        placements=placements,
        config=config,
        requested_ms=now_ms,
    )


def finish(view: View, job: Workload, outcome: Outcome, reason: Reason | None, detail: str) -> list[Action]:
    """The job is over; its claims, if it owns any, are to be released."""
    ended = msgspec.structs.replace(
        job, phase=WorkloadPhase.FINISHED, outcome=outcome, reason=reason, detail=detail, ended_ms=view.now_ms
    )
    text = detail or (reason.value if reason is not None else "")
    return [Put(ended), event(view, job.id, outcome.value, text), *end_claims(view, job)]


def end_claims(view: View, job: Workload) -> list[Action]:
    """The workload gives up what it has: machines that others use a part of stay for them."""
    return leave(view.rows, job)


def lost_text(view: View, node: Node, after_ms: int = 0) -> str:
    """Why a node that does not answer is held for lost by now; "" when it is not. `after_ms`: how long it may
    be silent (0: as long as the policy says)."""
    silent_ms = view.now_ms - node.unreachable_ms
    if node.phase is not NodePhase.UNREACHABLE or silent_ms < (after_ms or view.policy.lost_after_ms):
        return ""
    return f"node {node.index} has not answered for {silent_ms // 1000} s"


def is_copied(job: Workload, nodes: Sequence[Node], shared_dirs: Mapping[str, str]) -> bool:
    """Whether what a job keeps lies on its nodes alone, and goes with them."""
    task = task_of(job)
    if task is not None and task.checkpoints.to:
        return bool(nodes)
    owns_nodes = kind_of(job).runs and job.host_id is None
    return owns_nodes and bool(nodes) and not shared_dirs.get(nodes[0].provider)


def notice_of(view: View, nodes: Iterable[Node]) -> tuple[Node, Notice] | None:
    """The first of these nodes that were told that they end, and what they were told."""
    told = [
        (node, notice)
        for node in nodes
        for notice in (_told_itself(view, node), _told_by_provider(view, node))
        if notice is not None and notice.ends
    ]
    return min(told, key=lambda each: each[1].at_ms, default=None)


def _told_itself(view: View, node: Node) -> Notice | None:
    link = view.observed.link(node.id)
    return link.facts.notice if link is not None else None


def _told_by_provider(view: View, node: Node) -> Notice | None:
    fact = view.observed.claim(node.claim_id)
    seen = (each for each in fact.nodes if each.index == node.index) if fact is not None else ()
    return next((each.facts.notice for each in seen if each.facts is not None), None)


def notice_text(node: Node, notice: Notice, now_ms: int) -> str:
    left_s = max(0, notice.at_ms - now_ms) // 1000
    return notice.text or f"node {node.index} is taken away in {left_s} s ({notice.code})"


def render_rejections(rejected: tuple[Rejection, ...]) -> str:
    return "; ".join(f"{each.provider}: {each.text}" for each in rejected[:4])
