"""Hedged orders: where machines have not come up after the time that this typically takes, a second order is
placed elsewhere. The first that is up is used, the other is given back. Pure.

Only for workloads that ask for it (`hedge: true`), once in a round, and never at a higher price than was
confirmed. A job has one attempt at most: it begins on the machines that are used, in the commit that gives
back the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from argosy.controllers.deadlines import has_deadline
from argosy.controllers.failover import place_words
from argosy.controllers.policies import new_claim
from argosy.controllers.pool.wanted import places_left
from argosy.controllers.view import Action, NewId, Put, View, WakeAt, event
from argosy.model.kinds import gang_of, task_of
from argosy.model.offer import Offer
from argosy.model.phases import ClaimPhase, Desired, NodePhase
from argosy.model.rows import Claim, Workload
from argosy.model.units import render_duration
from argosy.planning.availability import order_for_failover, typical_start_ms
from argosy.scheduler.machines import is_owned

UNKNOWN_MS = 90_000  # of a provider of which no start is known


def is_up(view: View, claim: Claim) -> bool:
    """Whether all nodes of a claim can be used."""
    nodes = view.rows.nodes_of_claim(claim.id)
    ready = sum(node.phase is NodePhase.READY for node in nodes)
    return claim.phase is ClaimPhase.HELD and ready >= claim.count


def give_back_others(view: View, workload: Workload, used: Claim, claims: Sequence[Claim]) -> list[Action]:
    """End the orders beside the one that is used; nothing is placed on their nodes any more."""
    actions: list[Action] = []
    for other in claims:
        if other.id == used.id or other.desired is Desired.END:
            continue
        actions.append(Put(msgspec.structs.replace(other, desired=Desired.END)))
        for node in view.rows.nodes_of_claim(other.id):
            if node.phase in (NodePhase.BOOTING, NodePhase.READY, NodePhase.UNREACHABLE):
                actions.append(Put(msgspec.structs.replace(node, phase=NodePhase.DRAINING)))
        text = (
            f"{place_words(used.choice.offer)} came up first: {place_words(other.choice.offer)} is given back"
        )
        actions.append(event(view, workload.id, "hedged", text))
    return actions


def second_order(view: View, workload: Workload, claims: Sequence[Claim], new_id: NewId) -> list[Action]:
    """A second order elsewhere when the only one is late; else when to look again."""
    task = task_of(workload)
    wants = any(wish.hedge for wish in gang_of(workload).resources)
    if not wants or len(claims) != 1 or workload.status.hedge_id or (task is not None and has_deadline(task)):
        return []
    (late,) = claims
    if is_owned(late.choice.offer, view.abilities) or late.desired is not Desired.RUN:
        return []
    provider = late.choice.offer.provider
    patience_ms = typical_start_ms(view.memory, provider) or UNKNOWN_MS
    due_ms = late.requested_ms + patience_ms
    if view.now_ms < due_ms:
        return [WakeAt(workload.id, due_ms)]
    here = _place(late.choice.offer)
    left = places_left(view, workload)
    others = [each for each in left.elsewhere if _place(each.offer) != here]
    if not others:
        return []
    choices = order_for_failover(others, view.memory, view.now_ms, ordered=left.ordered)
    second = new_claim(new_id("clm"), workload.id, choices, late.count, view.now_ms)
    waited = render_duration((view.now_ms - late.requested_ms) // 1000)
    text = (
        f"{place_words(late.choice.offer)} has not come up after {waited}: "
        f"{place_words(second.choice.offer)} is ordered as well, the first that is up is used"
    )
    noted = msgspec.structs.replace(workload, detail=text).with_status(hedge_id=second.id)
    return [Put(noted), Put(second), event(view, workload.id, "hedged", text)]


def _place(offer: Offer) -> tuple[str, str, str]:
    return offer.provider, offer.region, offer.zone
