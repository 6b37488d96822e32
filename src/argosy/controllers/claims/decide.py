"""Claims and their nodes: order, hold, heal, rest, release; what a provider's listing says of them. Pure.

Law: a claim reaches `gone` only after the provider said that it is released; whoever owns it can trust that
nothing of it runs any more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from argosy.controllers.elastic import left_of
from argosy.controllers.policies import lost_text, notice_of, notice_text
from argosy.controllers.sharing import tenants_of
from argosy.controllers.view import (
    Action,
    EnsureClaim,
    Learn,
    Miss,
    NewId,
    Put,
    ReleaseClaim,
    ReleaseOrphan,
    View,
    WakeAt,
    event,
)
from argosy.model.facts import ClaimFact, ClaimState, NodeSighting
from argosy.model.offer import Capacity
from argosy.model.phases import ClaimPhase, Desired, NodePhase, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Claim, Node, Workload

MISSES_BEFORE_GONE: Final = 3  # listings lag: a claim must be absent so often in a row, with its links down

_PERMANENT = {
    "out-of-capacity": Reason.OUT_OF_CAPACITY,
    "quota-exceeded": Reason.QUOTA,
    "credentials-rejected": Reason.CREDENTIALS,
    "request-refused": Reason.PROVIDER_REFUSED,
    "unsupported": Reason.PROVIDER_REFUSED,
}


def decide_claim(view: View, claim: Claim, new_id: NewId) -> list[Action]:
    """What to do about one live claim and its nodes."""
    if claim.phase is ClaimPhase.RELEASING:
        return _finish_release(view, claim)
    tenants = tenants_of(view.rows, claim)
    if claim.desired is Desired.END or not tenants:
        return _begin_release(view, claim, None, "")
    if claim.phase is ClaimPhase.REQUESTED:
        return _order(view, claim, new_id)
    if claim.phase is ClaimPhase.STOPPED:
        if claim.desired is Desired.RUN:
            return [
                Put(
                    msgspec.structs.replace(
                        claim, phase=ClaimPhase.REQUESTED, requested_ms=view.now_ms, reason=None, detail=""
                    )
                )
            ]
        return []
    return _hold(view, claim, tenants)


def _begin_release(view: View, claim: Claim, reason: Reason | None, detail: str) -> list[Action]:
    changed = msgspec.structs.replace(
        claim,
        phase=ClaimPhase.RELEASING,
        desired=Desired.END,
        placements=() if claim.phase is ClaimPhase.STOPPED else claim.placements,  # at rest it holds no room
        reason=reason or claim.reason,
        detail=detail or claim.detail,
    )
    actions: list[Action] = [Put(changed)]
    for node in view.rows.nodes_of_claim(claim.id):
        if node.phase not in (NodePhase.DRAINING, NodePhase.STOPPED, NodePhase.GONE):
            actions.append(Put(msgspec.structs.replace(node, phase=NodePhase.DRAINING, reason=reason)))
    if reason is not None:
        actions.append(
            event(
                view, claim.id, reason.value, detail or f"claim on {claim.choice.offer.provider} is given up"
            )
        )
    return actions


def _finish_release(view: View, claim: Claim) -> list[Action]:
    fact = view.observed.claim(claim.id)
    if fact is not None and fact.state is ClaimState.RELEASED:
        gone = msgspec.structs.replace(claim.settled(view.now_ms), phase=ClaimPhase.GONE, gone_ms=view.now_ms)
        actions: list[Action] = [Put(gone)]
        for node in view.rows.nodes_of_claim(claim.id):
            if node.phase is not NodePhase.GONE:
                actions.append(Put(msgspec.structs.replace(node, phase=NodePhase.GONE)))
        return actions
    return _when_free(view, claim, ReleaseClaim(claim))


def _when_free(view: View, claim: Claim, effect: EnsureClaim | ReleaseClaim) -> list[Action]:
    """The effect, unless one is under way or an earlier failure asks to wait."""
    if view.observed.busy(claim.id):
        return []
    failure = view.observed.failure(claim.id)
    if failure is not None and view.now_ms < failure.after_ms:
        return [WakeAt(claim.id, failure.after_ms)]
    return [effect]


def _order(view: View, claim: Claim, new_id: NewId) -> list[Action]:
    fact = view.observed.claim(claim.id)
    if fact is not None and fact.state is ClaimState.PREEMPTED:
        return _begin_release(view, claim, Reason.PREEMPTED, fact.detail)
    if fact is not None and fact.state is ClaimState.GONE and fact.detail:
        return _begin_release(view, claim, Reason.NODE_LOST, fact.detail)
    if claim.desired is Desired.STOP:
        if fact is not None and fact.state is ClaimState.STOPPED:
            return _at_rest(view, claim)
        return _when_free(view, claim, EnsureClaim(claim))
    if fact is not None and fact.state is ClaimState.HELD and len(fact.nodes) == claim.count:
        return _held(view, claim, fact, new_id)
    failure = view.observed.failure(claim.id)
    if failure is not None and failure.code in _PERMANENT:
        return _begin_release(view, claim, _PERMANENT[failure.code], failure.text)
    queued = _is_queued(claim, fact)
    if not queued and view.now_ms - claim.requested_ms > view.policy.boot_limit_ms:
        text = failure.text if failure else "the nodes did not come up in time"
        return _begin_release(view, claim, Reason.OUT_OF_CAPACITY, text)
    actions = _when_free(view, claim, EnsureClaim(claim))
    if queued and fact is not None and fact.detail not in ("", claim.detail):
        actions.insert(0, Put(msgspec.structs.replace(claim, detail=fact.detail)))
    return actions


def _is_queued(claim: Claim, fact: ClaimFact | None) -> bool:
    """Whether it waits in a queue that its place keeps, however long that takes."""
    pending = fact is not None and fact.state is ClaimState.PENDING
    return pending and claim.choice.offer.capacity is Capacity.QUEUED


def _held(view: View, claim: Claim, fact: ClaimFact, new_id: NewId) -> list[Action]:
    actions: list[Action] = [
        Put(msgspec.structs.replace(claim, phase=ClaimPhase.HELD, held_ms=view.now_ms, detail=""))
    ]
    known = {node.index: node for node in view.rows.nodes_of_claim(claim.id)}
    for seen in fact.nodes:
        old = known.get(seen.index)
        if old is None:
            actions.append(Put(_new_node(claim, seen, new_id("nod"))))
        elif old.phase is NodePhase.STOPPED:
            actions.append(
                Put(
                    msgspec.structs.replace(
                        old, phase=NodePhase.BOOTING, address=seen.address, ip=seen.ip, reason=None
                    )
                )
            )
    return actions


def _new_node(claim: Claim, seen: NodeSighting, node_id: str) -> Node:
    return Node(
        id=node_id,
        claim_id=claim.id,
        workload_id=claim.workload_id,
        provider=claim.choice.offer.provider,
        index=seen.index,
        address=seen.address,
        ip=seen.ip,
    )


def _at_rest(view: View, claim: Claim) -> list[Action]:
    stopped = msgspec.structs.replace(claim.settled(view.now_ms), phase=ClaimPhase.STOPPED)
    actions: list[Action] = [Put(stopped)]
    for node in view.rows.nodes_of_claim(claim.id):
        if node.phase is not NodePhase.STOPPED:
            actions.append(Put(msgspec.structs.replace(node, phase=NodePhase.STOPPED)))
    return actions


def _hold(view: View, claim: Claim, tenants: Sequence[Workload]) -> list[Action]:
    fact = view.observed.claim(claim.id)
    if fact is not None and fact.state in (ClaimState.PREEMPTED, ClaimState.GONE):
        reason = Reason.PREEMPTED if fact.state is ClaimState.PREEMPTED else Reason.NODE_LOST
        return _begin_release(view, claim, reason, fact.detail or "the provider took the nodes away")
    if claim.desired is Desired.STOP:
        if fact is not None and fact.state is ClaimState.STOPPED:
            return _at_rest(view, claim)
        return _when_free(view, claim, EnsureClaim(claim))
    nodes = view.rows.nodes_of_claim(claim.id)
    boots = any(node.phase is NodePhase.BOOTING for node in nodes)
    if boots and view.now_ms - claim.held_ms > view.policy.boot_limit_ms:
        return _begin_release(view, claim, Reason.NODE_LOST, "a node did not come up in time")
    actions: list[Action] = []
    if all(tenant.phase is WorkloadPhase.STARTING for tenant in tenants):
        owner = tenants[0]
        idle = all(view.rows.attempt_of(tenant.id) is None for tenant in tenants)
        told = notice_of(view, nodes) if idle else None
        if told is not None:
            return _begin_release(view, claim, Reason.PREEMPTED, notice_text(*told, view.now_ms))
        # Healing does not bring back every node. What has not begun yet begins elsewhere.
        for node in nodes:
            text = lost_text(view, node)
            if text and not left_of(view, owner, claim):
                return _begin_release(view, claim, Reason.NODE_LOST, text)
            if node.phase is NodePhase.UNREACHABLE and not text:
                actions.append(WakeAt(claim.id, node.unreachable_ms + view.policy.lost_after_ms))
    heal = fact is not None and fact.state is ClaimState.STOPPED
    for node in nodes:
        changed, wants_heal, wake_ms = _watch_node(view, claim, node)
        if changed is not None:
            actions.append(Put(changed))
            if changed.phase is NodePhase.UNREACHABLE:
                text = f"node {node.index} does not answer; healing it"
                actions.append(event(view, claim.workload_id, "node-unreachable", text))
            elif node.phase is NodePhase.UNREACHABLE:
                actions.append(
                    event(view, claim.workload_id, "node-back", f"node {node.index} answers again")
                )
        if wake_ms:
            actions.append(WakeAt(claim.id, wake_ms))
        heal = heal or wants_heal
    if heal:
        actions += _when_free(view, claim, EnsureClaim(claim))
        actions.append(WakeAt(claim.id, view.now_ms + view.policy.heal_every_ms))
    return actions


def _watch_node(view: View, claim: Claim, node: Node) -> tuple[Node | None, bool, int]:
    """(changed row, whether to heal, when to look again)."""
    link = view.observed.link(node.id)
    now, policy = view.now_ms, view.policy
    if link is not None and link.up:
        if node.phase in (NodePhase.BOOTING, NodePhase.UNREACHABLE):
            choice, facts = claim.choice, link.facts
            return (
                msgspec.structs.replace(
                    node,
                    phase=NodePhase.READY,
                    reason=None,
                    facts=facts,
                    cpus_milli=choice.cpus_milli or facts.cpus_milli,
                    memory_bytes=choice.memory_bytes or facts.memory_bytes,
                    devices=tuple(device.index for device in facts.devices),
                    ready_ms=now,
                    unreachable_ms=0,
                ),
                False,
                0,
            )
        return None, False, 0
    down_since = link.since_ms if link is not None else max(claim.held_ms, node.unreachable_ms)
    if node.phase is NodePhase.READY:
        if link is None:  # a fresh server: the link is being made
            return None, False, now + policy.link_grace_ms
        due = down_since + policy.link_grace_ms
        if now >= due:
            return msgspec.structs.replace(node, phase=NodePhase.UNREACHABLE, unreachable_ms=now), True, 0
        return None, False, due
    if node.phase is NodePhase.UNREACHABLE:
        return None, True, 0
    if node.phase is NodePhase.BOOTING:
        late = down_since + policy.heal_every_ms
        return None, now >= late, 0 if now >= late else late
    return None, False, 0


def decide_listing(view: View, provider: str, listed: Iterable[ClaimFact]) -> list[Action]:
    """What follows from a provider's list of all that it has of ours. `view` is of after the list: a claim's
    row is there before anything is ordered.

    What no live row wants is given back if this database ordered it: a release came before a late order. What
    has another tag, or none, belongs to another server and is left alone."""
    facts = {fact.claim_id: fact for fact in listed}
    actions: list[Action] = []
    for claim in view.rows.claims.values():
        fact = facts.pop(claim.id, None)
        if claim.choice.offer.provider != provider or view.observed.busy(claim.id):
            continue
        if fact is None:
            actions += _missed(view, claim)
            continue
        actions += _not_missed(view, claim)
        if claim.phase is not ClaimPhase.RELEASING:
            actions.append(Learn(fact))
    actions += [
        ReleaseOrphan(provider, id) for id, fact in facts.items() if view.tag and fact.tag == view.tag
    ]
    return actions


def _missed(view: View, claim: Claim) -> list[Action]:
    if claim.phase is not ClaimPhase.HELD:
        return []
    links = [view.observed.link(node.id) for node in view.rows.nodes_of_claim(claim.id)]
    if any(link is not None and link.up for link in links):
        return _not_missed(view, claim)
    times = view.observed.misses(claim.id) + 1
    actions: list[Action] = [Miss(claim.id, times)]
    if times >= MISSES_BEFORE_GONE:
        text = "the provider no longer lists it"
        actions.append(Learn(ClaimFact(claim_id=claim.id, state=ClaimState.GONE, detail=text)))
    return actions


def _not_missed(view: View, claim: Claim) -> list[Action]:
    return [Miss(claim.id, 0)] if view.observed.misses(claim.id) else []
