"""Managed jobs with a deadline: every zone is asked, slack is waited for, on-demand is left again."""

from __future__ import annotations

import itertools

from argosy.controllers.deadlines import done_fraction
from argosy.controllers.job.decide import after_attempt
from argosy.controllers.job.decide import decide as decide_job
from argosy.controllers.observed import Facts
from argosy.controllers.past import Past
from argosy.controllers.pool.decide import POOL, decide_owned
from argosy.controllers.view import Action, Put, View, WakeAt
from argosy.model.facts import NodeFacts, RankFact, RankPhase
from argosy.model.kinds.job import job_state
from argosy.model.offer import Capacity, Choice, Offer, Placement
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Claim, Row, Workload
from argosy.model.scheduling import Scheduling
from argosy.model.task import Task
from argosy.planning import Ability
from argosy.planning.availability import Memory, Seen, note_spot, sightings
from argosy.planning.spot_policy import Sightings
from argosy.store import Snapshot
from argosy.testing.builders import a_choice, a_claim, a_job, a_node, a_shape, a_task, an_attempt, changed
from argosy.testing.virtual_time import EPOCH_MS

HOUR_MS = 3_600_000
_counter = itertools.count(1)


def new_id(prefix: str) -> str:
    return f"{prefix}-new{next(_counter)}"


def an_offer(capacity: Capacity, zone: str) -> Offer:
    return Offer(
        provider="cloud",
        region="east",
        zone=zone,
        shape=a_shape(instance_type="c8"),
        capacity=capacity,
        price_micro_usd=300_000 if capacity is Capacity.ON_DEMAND else 100_000,
    )


ON_DEMAND = an_offer(Capacity.ON_DEMAND, "a")
SPOT_A, SPOT_B = an_offer(Capacity.SPOT, "a"), an_offer(Capacity.SPOT, "b")
KEPT = Scheduling(checkpoint=True)


def a_training(deadline_h: float = 36, estimated_h: float = 24) -> Task:
    return a_task(
        deadline_s=int(deadline_h * 3600), estimated_s=int(estimated_h * 3600), scheduling=KEPT, grace_s=0
    )


def choice_of(offer: Offer) -> Choice:
    return a_choice(offer=offer)


def a_view(*rows: Row, now_h: float = 0.0, memory: Memory | None = None, facts: Facts | None = None) -> View:
    return View(
        now_ms=EPOCH_MS + round(now_h * HOUR_MS),
        rows=Snapshot.of(rows),
        observed=facts or Facts(),
        offers=(ON_DEMAND, SPOT_A, SPOT_B),
        abilities={"cloud": Ability(multi_node=True, spot=True)},
        memory=memory or Memory(),
    )


def refused(*offers: Offer, at_h: float = 0.0) -> Memory:
    memory = Memory()
    for offer in offers:
        memory = note_spot(memory, choice_of(offer), Seen.REFUSED, EPOCH_MS + round(at_h * HOUR_MS))
    return memory


def claims(actions: list[Action]) -> list[Claim]:
    return [action.row for action in actions if isinstance(action, Put) and isinstance(action.row, Claim)]


def put(actions: list[Action], kind: type[Row]) -> Row:
    (row,) = [action.row for action in actions if isinstance(action, Put) and isinstance(action.row, kind)]
    return row


def wakes(actions: list[Action], subject: str) -> list[int]:
    return [action.at_ms for action in actions if isinstance(action, WakeAt) and action.subject == subject]


def test_a_refusal_in_one_zone_leaves_the_other_zone_to_be_asked_at_once() -> None:
    job = a_job(managed=True, task=a_training())
    (claim,) = claims(decide_owned(a_view(job), new_id))
    assert claim.choice.offer == SPOT_A
    (claim,) = claims(decide_owned(a_view(job, memory=refused(SPOT_A)), new_id))
    assert claim.choice.offer == SPOT_B


def test_it_waits_while_there_is_slack_and_takes_on_demand_when_there_is_none() -> None:
    job = a_job(managed=True, task=a_training())
    actions = decide_owned(a_view(job, memory=refused(SPOT_A, SPOT_B)), new_id)
    (at_ms,) = wakes(actions, POOL)
    assert claims(actions) == [] and EPOCH_MS < at_ms <= EPOCH_MS + 60_000
    late = a_view(job, memory=refused(SPOT_A, SPOT_B, at_h=11.5), now_h=11.5)
    (claim,) = claims(decide_owned(late, new_id))
    assert claim.choice.offer == ON_DEMAND


def test_orders_that_were_refused_are_no_recoveries() -> None:
    job = a_job(managed=True, task=a_training(), phase=WorkloadPhase.STARTING)
    gone = a_claim(
        workload_id=job.id,
        choice=choice_of(SPOT_A),
        phase=ClaimPhase.RELEASING,
        desired=Desired.END,
        reason=Reason.OUT_OF_CAPACITY,
    )
    changed_job = put(decide_job(a_view(job, gone), job, new_id), Workload)
    assert isinstance(changed_job, Workload) and changed_job.phase is WorkloadPhase.RECOVERING
    assert job_state(changed_job).recoveries == 0


def running(offer: Offer, **status: int) -> tuple[Workload, Attempt, list[Row], Facts]:
    job = a_job(managed=True, task=a_training(), phase=WorkloadPhase.RUNNING, attempts=1, **status)
    claim = a_claim(
        id="clm-1", workload_id=job.id, choice=choice_of(offer), phase=ClaimPhase.HELD, held_ms=EPOCH_MS
    )
    node = a_node(id="nod-1", claim_id=claim.id, workload_id=job.id, phase=NodePhase.READY, ready_ms=EPOCH_MS)
    attempt = an_attempt(
        id="att-1",
        workload_id=job.id,
        placements=(Placement(rank=0, node_id=node.id),),
        phase=AttemptPhase.RUNNING,
        running_ms=EPOCH_MS,
    )
    job = changed(job, attempt_id=attempt.id)
    facts = Facts()
    facts.link_up(node.id, NodeFacts(), EPOCH_MS)
    facts.set_ranks(node.id, [RankFact(id="att-1.0", phase=RankPhase.RUNNING)], complete=True)
    return job, attempt, [job, claim, node, attempt], facts


def test_a_job_on_demand_asks_for_spot_beside_and_moves_when_its_nodes_are_ready() -> None:
    job, attempt, rows, facts = running(ON_DEMAND)
    (spot,) = claims(decide_job(a_view(*rows, now_h=6, facts=facts), job, new_id))
    assert spot.choice.offer == SPOT_A and spot.workload_id == job.id
    assert claims(decide_job(a_view(*rows, spot, now_h=6, facts=facts), job, new_id)) == [], "it asks once"

    held = changed(spot, phase=ClaimPhase.HELD, held_ms=EPOCH_MS + 6 * HOUR_MS)
    node = a_node(id="nod-2", claim_id=held.id, workload_id=job.id, phase=NodePhase.BOOTING)
    view = a_view(*rows, held, node, now_h=6.1, facts=facts)
    assert decide_job(view, job, new_id) == [], "its nodes are not ready"
    ready = changed(node, phase=NodePhase.READY, ready_ms=view.now_ms)
    ending = put(decide_job(a_view(*rows, held, ready, now_h=6.1, facts=facts), job, new_id), Attempt)
    assert isinstance(ending, Attempt) and ending.reason is Reason.MOVED

    facts.set_ranks("nod-1", [RankFact(id="att-1.0", phase=RankPhase.EXITED, exit_code=143)], complete=True)
    others = [row for row in rows if row.id != attempt.id]
    actions = decide_job(a_view(*others, ending, held, ready, now_h=6.1, facts=facts), job, new_id)
    (given_back,) = claims(actions)
    assert given_back.id == "clm-1" and given_back.desired is Desired.END
    moved, ended = put(actions, Workload), put(actions, Attempt)
    assert isinstance(moved, Workload) and moved.phase is WorkloadPhase.RECOVERING
    assert job_state(moved).recoveries == 0 and job_state(moved).kept_s == 6 * 3600 + 360 - 1800
    rest = [row for row in others if row.id not in (job.id, "clm-1")]
    view = a_view(moved, given_back, held, ready, ended, *rest, now_h=6.2)
    started = put(decide_job(view, moved, new_id), Workload)
    assert isinstance(started, Workload) and started.phase is WorkloadPhase.STARTING
    placed = put(decide_job(a_view(started, held, ready, now_h=6.2), started, new_id), Attempt)
    assert isinstance(placed, Attempt) and placed.placements[0].node_id == "nod-2"


def test_on_demand_is_kept_where_the_slack_is_gone_and_spot_is_kept_anyway() -> None:
    job, _, rows, facts = running(ON_DEMAND)
    late = changed(job, created_ms=EPOCH_MS - 11 * HOUR_MS)
    actions = decide_job(a_view(late, *rows[1:], now_h=1, facts=facts), late, new_id)
    assert claims(actions) == []
    job, _, rows, facts = running(SPOT_A)
    assert decide_job(a_view(*rows, now_h=6, facts=facts), job, new_id) == []


def test_spot_that_does_not_come_up_is_given_up_in_time_for_on_demand() -> None:
    job = a_job(managed=True, task=a_training(), phase=WorkloadPhase.STARTING)
    spot = a_claim(workload_id=job.id, choice=choice_of(SPOT_A))
    (at_ms,) = wakes(decide_job(a_view(job, spot, now_h=10), job, new_id), job.id)
    latest_h = (at_ms - EPOCH_MS) / HOUR_MS
    assert 11 < latest_h < 11.5, "12 h of slack less a changeover, a checkpoint and a minute"
    actions = decide_job(a_view(job, spot, now_h=latest_h), job, new_id)
    (given_up,) = claims(actions)
    waiting = put(actions, Workload)
    assert given_up.desired is Desired.END and waiting.phase is WorkloadPhase.RECOVERING
    assert isinstance(waiting, Workload)
    (claim,) = claims(decide_owned(a_view(waiting, now_h=latest_h + 0.01), new_id))
    assert claim.choice.offer == ON_DEMAND


def test_only_work_that_was_kept_counts_as_done() -> None:
    task = a_training()
    job = a_job(managed=True, task=task, phase=WorkloadPhase.RUNNING)
    for number, (hours, outcome, code) in enumerate(
        [(2.0, Outcome.LOST, None), (0.25, Outcome.PREEMPTED, None), (1.5, Outcome.FAILED, 1)], 1
    ):
        end_ms = EPOCH_MS + round(hours * HOUR_MS)
        attempt = an_attempt(
            workload_id=job.id,
            number=number,
            phase=AttemptPhase.ENDED,
            outcome=outcome,
            reason=Reason.USER_CODE_FAILED if code else Reason.NODE_LOST,
            exit_codes=(code,),
            running_ms=EPOCH_MS,
            ended_ms=end_ms,
        )
        recovery = changed(task.resources[0].recovery, max_restarts_on_errors=3)
        wish = changed(task.resources[0], recovery=recovery)
        job = changed(job, task=changed(task, resources=(wish,)))
        again = put(after_attempt(a_view(job), job, attempt), Workload)
        assert isinstance(again, Workload)
        job = again
    assert job_state(job).kept_s == round((1.5 + 0 + 1.0) * 3600)
    assert done_fraction(job, EPOCH_MS) == 2.5 / 24
    bare = a_job(managed=True, task=changed(task, scheduling=Scheduling()))
    lost = an_attempt(
        workload_id=bare.id,
        phase=AttemptPhase.ENDED,
        outcome=Outcome.LOST,
        running_ms=EPOCH_MS,
        ended_ms=EPOCH_MS + 5 * HOUR_MS,
    )
    again = put(after_attempt(a_view(bare), bare, lost), Workload)
    assert isinstance(again, Workload) and job_state(again).kept_s == 0


def test_the_past_learns_how_spot_comes_and_goes() -> None:
    past, hour_s = Past(), 3600
    asked = a_claim(id="clm-1", choice=choice_of(SPOT_A), rev=1)
    held = changed(asked, phase=ClaimPhase.HELD, rev=2)
    lost = changed(held, phase=ClaimPhase.RELEASING, reason=Reason.PREEMPTED, rev=3)
    before = Snapshot.of([asked])
    for at_h, row in ((0, held), (2, lost)):
        rows = Snapshot.of([row])
        past.follow(rows, before, EPOCH_MS + at_h * HOUR_MS)
        before = rows
    seen = sightings(past.memory, held.choice, EPOCH_MS + 3 * HOUR_MS)
    assert seen == Sightings(there_s=2 * hour_s, grants=1, losses=1)
