"""Elastic gangs: managed jobs that run on as many nodes as are available, and on no fewer than their minimum.
Pure.

Its size is decided when an attempt begins, never while one runs: on owned machines it is as large as room
and quota allow then; other places are asked for all nodes first, and after each round of refusals for a
quarter less. Where nodes are lost and their neighbours stay (`Manifest.may_return`), the next attempt runs on
these.
"""

from __future__ import annotations

from typing import Final

from argosy.controllers.view import View
from argosy.model.kinds import gang_of
from argosy.model.phases import ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.rows import Attempt, Claim, Node, Workload
from argosy.scheduler.machines import is_owned
from argosy.scheduler.requests import holds_room

GIVEN_BACK_MS: Final = 30_000  # so long it waits for what it ran on itself


def smaller(job: Workload) -> int:
    """The size to ask for when all places have refused; 0: it was the smallest, and all are asked for all
    nodes again later."""
    gang = gang_of(job)
    size = gang.size or gang.num_nodes
    return max(gang.least, size - max(1, size // 4)) if size > gang.least else 0


def comes_back(view: View, job: Workload) -> bool:
    """Whether owned machines that an elastic gang has lost with its attempt are just being given back."""
    if job.phase is not WorkloadPhase.RECOVERING or not gang_of(job).is_elastic:
        return False
    if view.now_ms - job.retry_ms >= GIVEN_BACK_MS:
        return False
    claims = view.rows.claims_of(job.id)
    return any(is_owned(claim.choice.offer, view.abilities) and holds_room(claim) for claim in claims)


def left_of(view: View, job: Workload, claim: Claim) -> list[Node]:
    """Nodes of a claim that has lost others, on which the job can go on; [] where they are too few."""
    gang = gang_of(job)
    stays = claim.phase is ClaimPhase.HELD and claim.desired is Desired.RUN
    if not (stays and gang.is_elastic and claim.choice.offer.provider in view.returning):
        return []
    nodes = view.rows.nodes_of_claim(claim.id)
    if len(nodes) < claim.count or not all(node.ready_ms for node in nodes):
        return []  # the others may still come up
    ready = [node for node in nodes if node.phase is NodePhase.READY]
    return ready if gang.least <= len(ready) < claim.count else []


def keeps_nodes(view: View, job: Workload, attempt: Attempt, outcome: Outcome | None) -> bool:
    """Whether the job goes on with what is left of the claim of its lost attempt."""
    if outcome is not Outcome.LOST:
        return False
    nodes = (view.rows.nodes.get(place.node_id) for place in attempt.placements)
    ids = {node.claim_id for node in nodes if node is not None}
    return any(left_of(view, job, claim) for claim in view.rows.claims_of(job.id) if claim.id in ids)
