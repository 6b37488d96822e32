"""What ended ranks have written is uploaded to its stores before their attempt may end. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.controllers.policies import lost_text
from argosy.controllers.view import Action, SaveCheckpoint, SettleData, View, WakeAt, data_of
from argosy.model.facts import RankPhase
from argosy.model.kinds.job import job_task
from argosy.model.mounts import is_written, storage_of
from argosy.model.phases import AttemptPhase, NodePhase, Outcome
from argosy.model.rows import Attempt, Node, Workload

TRIES = 5
_SENT_AFTER = (Outcome.SUCCEEDED, Outcome.FAILED, Outcome.CANCELLED)


def settling(
    view: View, job: Workload, attempt: Attempt, nodes: Sequence[Node | None], outcome: Outcome
) -> list[Action] | str:
    """What is to be done first; [] when nothing is, or a text that says what did not get to its store."""
    task = job_task(job)
    written = [mount.target for mount in storage_of(task) if is_written(mount)]
    sends = task.returns if outcome in _SENT_AFTER else ()
    flushes = written if outcome in (*_SENT_AFTER, Outcome.PREEMPTED) else []
    present = [node for node in nodes if node is not None]
    if task.checkpoints.to and outcome in _SENT_AFTER and _is_to_be_copied(view, attempt, present):
        return [
            SaveCheckpoint(attempt.id, job, tuple(present)),
            WakeAt(job.id, view.now_ms + view.policy.save_ms),
        ]
    if not (sends or flushes) or view.observed.settled(attempt.id):
        return []
    if not any(view.observed.rank(f"{attempt.id}.{place.rank}") for place in attempt.placements):
        return []  # nothing of it ever ran
    paths = ", ".join(f"`{path}`" for path in (*(each.path for each in sends), *flushes))
    for node in present:
        link = view.observed.link(node.id)
        if node.phase in (NodePhase.GONE, NodePhase.STOPPED) or lost_text(view, node):
            return f"{paths} is lost with node {node.index}"
        if link is None or not link.up:
            return [WakeAt(job.id, view.now_ms + view.policy.link_grace_ms)]
    if len(present) < len(nodes):
        return f"{paths} is lost with its node"
    if view.observed.busy(attempt.id):
        return [WakeAt(job.id, view.now_ms + view.policy.heal_every_ms)]
    failure = view.observed.failure(data_of(attempt.id))
    if failure is not None:
        if failure.code == "request-refused" or failure.count >= TRIES:
            return failure.text if flushes and not sends else f"{paths} was not sent: {failure.text}"
        if view.now_ms < failure.after_ms:
            return [WakeAt(job.id, failure.after_ms)]
    return [SettleData(attempt, job, tuple(present))]


def is_settling(view: View, attempt: Attempt) -> bool:
    """Whether its program has ended and what it has written is on its way to stores. Ends by itself: a store
    that takes nothing is given up, and a node that is lost has nothing to send."""
    job = view.rows.workloads.get(attempt.workload_id)
    if job is None or attempt.phase is not AttemptPhase.ENDING or attempt.outcome is None:
        return False
    facts = [view.observed.rank(f"{attempt.id}.{place.rank}") for place in attempt.placements]
    if any(fact is None or fact.phase not in (RankPhase.EXITED, RankPhase.VANISHED) for fact in facts):
        return False
    nodes = [view.rows.nodes.get(place.node_id) for place in attempt.placements]
    found = settling(view, job, attempt, nodes, attempt.outcome)
    return bool(found) and not isinstance(found, str)


def _is_to_be_copied(view: View, attempt: Attempt, nodes: Sequence[Node]) -> bool:
    """Whether what the program saved last is still to be brought to the bucket of its checkpoints."""
    links = [view.observed.link(node.id) for node in nodes]
    return (
        view.copies
        and bool(attempt.running_ms)
        and not view.observed.saved(attempt.id)
        and any(link is not None and link.up for link in links)
    )
