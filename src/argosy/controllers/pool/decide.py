"""What the pools decide, as rows: attempts on the nodes of a cluster, claims on owned machines and elsewhere.
Pure.

A decision about a pool bumps one row or count that every such decision of this pool expects (the cluster's
row, the number of claims ever taken), so of two servers that look at the same room one is told to look again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from argosy.controllers.policies import evict, finish, new_attempt, new_claim, render_rejections
from argosy.controllers.pool.caches import PoolCaches, caches_of
from argosy.controllers.pool.wanted import Wanted
from argosy.controllers.pool.words import clause
from argosy.controllers.sharing import Shares
from argosy.controllers.strategies import Lost, order_after_loss
from argosy.controllers.view import Action, Expect, NewId, Put, View, WakeAt, event
from argosy.model.kinds import gang_of, kind_of
from argosy.model.offer import Choice, Placement
from argosy.model.phases import Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import CLAIMS_TAKEN, Workload
from argosy.planning.availability import order_for_failover
from argosy.scheduler.ask import Decision, Start
from argosy.scheduler.cache import PoolCache
from argosy.scheduler.inventory import need_of

POOL = "pool"  # the subject of times to look at the owned machines again


def decide_jobs(view: View, cluster: Workload, new_id: NewId) -> list[Action]:
    """Jobs of a running cluster: who starts, who makes room, who can never fit. The cluster's row is put with
    every start."""
    book = caches_of(view)
    books = book.of_cluster(view, cluster)  # also when nobody waits: what was borrowed meanwhile counts later
    if not books.waiting:
        return []
    actions: list[Action] = []
    nodes = view.rows.nodes_of(cluster.id)
    if nodes and all(node.ready_ms for node in nodes):  # else what is missing may still come up
        actions += _fail_impossible(view, book, books, cluster)
    decision = books.cycle(view.now_ms)
    book.recheck(cluster.id, _touched(decision))
    for each in decision.evictions:
        actions += evict(view, view.rows.workloads[each.job_id], each.why, room_for=each.for_id)
    for start in decision.starts:
        job = view.rows.workloads[start.ask_id]
        changed, attempt = new_attempt(job, start.placements, new_id("att"), view.now_ms, why=start.why)
        actions += [Put(changed), Put(attempt)]
    if any(isinstance(action, Put) for action in actions):
        actions.append(Put(cluster.with_status(active_ms=0)))  # busy
        actions += _same_tree(view)
    if decision.wake_ms is not None:
        actions.append(WakeAt(cluster.id, decision.wake_ms))
    return actions


def decide_owned(view: View, new_id: NewId) -> list[Action]:
    """Managed jobs and clusters that wait for machines: owned ones in the order of the pool, others for who
    finds no room there. One decision, so that all of it holds or none."""
    book = caches_of(view)
    books, wanted = book.owned(view)
    actions: list[Action] = []
    if not wanted or not (view.offers or view.priced):
        return actions
    for id in sorted(id for id, each in wanted.items() if not (each.here or each.hopes)):
        actions += _no_offer(view, wanted[id].workload, render_rejections(wanted[id].rejected))
    for id, text in books.hopeless():
        book.recheck(None, [id])
        if not wanted[id].hopes:
            actions += _no_offer(view, wanted[id].workload, clause(text))
    decision = book.cycle(books, view.now_ms)
    book.recheck(None, _touched(decision))
    takes, shares = False, Shares(view)
    started = {start.ask_id for start in decision.starts}
    for start in decision.starts:
        actions += _start(view, wanted[start.ask_id], start, new_id)
        takes = True
    for id in sorted(wanted, key=lambda one: _turn(wanted[one].workload)):
        each = wanted[id]
        if each.unsure or id in started:
            continue
        if each.elsewhere and view.now_ms < each.waits_ms:
            actions.append(WakeAt(POOL, each.waits_ms))
        elif each.elsewhere and view.now_ms >= each.workload.retry_ms:
            choices = order_for_failover(each.elsewhere, view.memory, view.now_ms, ordered=each.ordered)
            choices = list(order_after_loss(*_strategy(each.workload, choices)))
            made = shares.join(each.workload, choices)
            if made is None:
                made = _claim(view, each, choices, (), new_id)
                shares.opened(each.workload, made)
            actions += made
            started.add(id)
    actions = shares.settled(actions)
    for eviction in decision.evictions:
        if eviction.for_id in started:
            continue  # nobody is ended for who can go elsewhere
        victim = view.rows.workloads.get(eviction.job_id)
        if victim is not None:
            actions += evict(view, victim, eviction.why, room_for=eviction.for_id)
    if takes:
        actions.append(Expect(CLAIMS_TAKEN, view.rows.taken))
    if any(isinstance(action, Put) for action in actions):
        actions += _same_tree(view)
    if decision.wake_ms is not None:
        actions.append(WakeAt(POOL, decision.wake_ms))
    return actions


def _strategy(
    workload: Workload, choices: Sequence[Choice]
) -> tuple[str | None, Sequence[Choice], Lost | None]:
    """What `order_after_loss` is asked."""
    gang = gang_of(workload)
    provider, region, zone = gang.ran_in or ("", "", "")
    lost = Lost(provider=provider, region=region, zone=zone) if provider else None
    return gang.resources[0].recovery.strategy, choices, lost


def _touched(decision: Decision) -> Iterable[str]:
    return [start.ask_id for start in decision.starts] + [each.job_id for each in decision.evictions]


def _turn(workload: Workload) -> tuple[int, int, str]:
    return workload.created_ms, workload.number, workload.id


def _same_tree(view: View) -> list[Action]:
    tenancy = view.rows.tenancy
    return [Expect(tenancy.id, tenancy.rev)] if tenancy.rev else []


def _start(view: View, each: Wanted, start: Start, new_id: NewId) -> list[Action]:
    if each.rests is not None:
        running = msgspec.structs.replace(
            each.workload, phase=WorkloadPhase.STARTING, reason=None, detail=""
        ).with_status(active_ms=view.now_ms)
        places = _where_they_were(each.rests.placements, start.placements)
        claim = msgspec.structs.replace(each.rests, desired=Desired.RUN, placements=places)
        return [Put(running), Put(claim)]
    assert each.ask is not None
    need = need_of(each.ask, start.placements)
    first = each.here[each.ask.needs.index(need)]
    return _claim(view, each, (first, *each.elsewhere), start.placements, new_id, why=start.why)


def _where_they_were(before: tuple[Placement, ...], now: tuple[Placement, ...]) -> tuple[Placement, ...]:
    """The same machines, and on each the node whose files are there."""
    ranks = {place.node_id: place.rank for place in before}
    if len(ranks) != len(now) or ranks.keys() != {place.node_id for place in now}:
        return now  # several on one machine: any of them will do
    moved = (msgspec.structs.replace(place, rank=ranks[place.node_id]) for place in now)
    return tuple(sorted(moved, key=lambda place: place.rank))


def _claim(
    view: View,
    each: Wanted,
    choices: Sequence[Choice],
    placements: tuple[Placement, ...],
    new_id: NewId,
    *,
    why: str = "",
) -> list[Action]:
    workload = each.workload
    claim = new_claim(
        new_id("clm"),
        workload.id,
        choices,
        len(placements) or each.num_nodes,
        view.now_ms,
        placements=placements,
        config=gang_of(workload).config,
    )
    changed = msgspec.structs.replace(workload, phase=WorkloadPhase.STARTING)
    actions: list[Action] = [Put(claim), Put(changed)]
    if each.why:
        actions.append(event(view, workload.id, "deadline", each.why))
    elif why:
        actions.append(event(view, workload.id, "placed", why))
    return actions


def _no_offer(view: View, workload: Workload, detail: str) -> list[Action]:
    if not kind_of(workload).hosts:
        return finish(view, workload, Outcome.FAILED, Reason.NO_OFFER, detail)
    return fail_cluster(view, workload, Reason.NO_OFFER, detail)


def fail_cluster(view: View, cluster: Workload, reason: Reason, detail: str) -> list[Action]:
    """The cluster is over before it ran, and with it the jobs that wait for it."""
    ended = msgspec.structs.replace(
        cluster,
        phase=WorkloadPhase.FINISHED,
        outcome=Outcome.FAILED,
        reason=reason,
        detail=detail,
        ended_ms=view.now_ms,
    )
    actions: list[Action] = [Put(ended), event(view, cluster.id, reason.value, detail)]
    for job in view.rows.jobs_of(cluster.id):
        if view.rows.attempt_of(job.id) is None:
            actions += finish(
                view, job, Outcome.CANCELLED, Reason.CLUSTER_GONE, f"its cluster failed: {detail}"
            )
    return actions


def _fail_impossible(view: View, book: PoolCaches, books: PoolCache, cluster: Workload) -> list[Action]:
    """Jobs that no state of these nodes could hold fail at once. Asked once for each job and set of
    machines."""
    actions: list[Action] = []
    for id, text in books.hopeless():
        actions += finish(view, view.rows.workloads[id], Outcome.FAILED, Reason.NO_OFFER, clause(text))
        book.recheck(cluster.id, [id])
    return actions
