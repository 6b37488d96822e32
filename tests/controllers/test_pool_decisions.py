"""Pools as the controllers use them: rows in, rows out; evictions from their beginning to the next start."""

from __future__ import annotations

import itertools

import msgspec
import pytest

from argosy.controllers.job.decide import decide as decide_job
from argosy.controllers.job.seat import seat_gang
from argosy.controllers.observed import Facts
from argosy.controllers.past import Past
from argosy.controllers.policies import evict
from argosy.controllers.pool.caches import PoolCaches
from argosy.controllers.pool.decide import decide_jobs, decide_owned
from argosy.controllers.pool.pictures import Picture
from argosy.controllers.view import Action, Emit, Expect, Put, View
from argosy.model.areas import Where
from argosy.model.facts import NodeFacts, RankFact, RankPhase
from argosy.model.offer import Capacity, DeviceShare, Offer, Placement, Shape
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, NodePhase, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.resources import Accelerator, Infra, Resources
from argosy.model.rows import CLAIMS_TAKEN, Attempt, Claim, Node, Row, Workload
from argosy.model.scheduling import Isolation, Scheduling
from argosy.model.task import Task
from argosy.model.tenancy import Group, Queue, SharePolicy, Tenancy
from argosy.model.units import GIB, Bound
from argosy.planning import Ability
from argosy.planning.availability import Memory, refusal_of, remember
from argosy.scheduler.ask import Waiting
from argosy.scheduler.estimate import History
from argosy.scheduler.machines import machine_of_node, machines_of_offers
from argosy.scheduler.picture import taken_of
from argosy.scheduler.requests import ask_of_job, expected_s, queue_of, urgency_of
from argosy.store import Snapshot
from argosy.testing.builders import (
    a_choice,
    a_claim,
    a_cluster,
    a_gpu_shape,
    a_job,
    a_node,
    a_shape,
    a_task,
    an_attempt,
    changed,
    some_devices,
)
from argosy.testing.virtual_time import EPOCH_MS

NOW = EPOCH_MS + 3_600_000
FARM = Offer(
    provider="farm", shape=a_gpu_shape(4, "L4"), capacity=Capacity.OWNED, price_micro_usd=0, nodes_max=2
)
CLOUD = Offer(
    provider="cloud",
    region="east",
    zone="a",
    shape=a_shape(instance_type="c8"),
    capacity=Capacity.ON_DEMAND,
    price_micro_usd=400_000,
)
HALF = Resources(cpus=Bound(500))
_counter = itertools.count(1)


def new_id(prefix: str) -> str:
    return f"{prefix}-new{next(_counter)}"


def a_view(
    *rows: Row | Tenancy, offers: tuple[Offer, ...] = (FARM, CLOUD), now_ms: int = NOW, **parts: object
) -> View:
    return View(
        now_ms=now_ms,
        rows=Snapshot.of(rows),
        observed=Facts(),
        offers=offers,
        abilities={
            "farm": Ability(multi_node=True, fractions=True, owned=True),
            "cloud": Ability(multi_node=True, spot=True),
        },
        **parts,
    )


def pictured(view: View) -> Picture:
    """The picture of a server that has followed these rows, and decided nothing."""
    caches = view.pools or PoolCaches()
    view = msgspec.structs.replace(view, pools=caches)
    caches.owned(view)
    list(caches.clusters(view))
    return Picture(view)


def tell(view: View, workload_id: str) -> str:
    told = pictured(view).pending(view.rows, view.rows.workloads[workload_id], view.now_ms)
    return told.text if told is not None else ""


def explain(view: View, workload_id: str) -> Waiting | None:
    return pictured(view).explain(view.rows, view.rows.workloads[workload_id], view.now_ms)


def puts(actions: list[Action]) -> dict[str, Row]:
    return {action.row.id: action.row for action in actions if isinstance(action, Put)}


def claims(actions: list[Action]) -> list[Claim]:
    return [row for row in puts(actions).values() if isinstance(row, Claim)]


def gpu_job(name: str, milli: int, number: int = 1, **fields: object) -> Workload:
    """A managed job that wants L4s of the farm."""
    scheduling = fields.pop("scheduling", Scheduling())
    nodes = fields.pop("num_nodes", 1)
    wish = Resources(
        accelerator=Accelerator(model="L4", milli=milli), priority_class=fields.pop("priority_class", None)
    )
    task = a_task(name=name, resources=(wish,), num_nodes=nodes, scheduling=scheduling)
    return a_job(id=f"job-{name}", task=task, managed=True, number=number, **fields)


def held_by(job: Workload, view: View, *, age_s: int = 3600) -> tuple[Workload, Claim, Node, Attempt]:
    """The rows of a managed job that runs where the pool put it."""
    made = decide_owned(view, new_id)
    [claim] = [claim for claim in claims(made) if claim.workload_id == job.id]
    at_ms = view.now_ms - age_s * 1000
    claim = msgspec.structs.replace(claim, phase=ClaimPhase.HELD, requested_ms=at_ms, held_ms=at_ms)
    node = a_node(
        id=f"nod-{job.id}", claim_id=claim.id, workload_id=job.id, provider="farm", phase=NodePhase.READY
    )
    attempt = an_attempt(
        id=f"att-{job.id}",
        workload_id=job.id,
        placements=(Placement(rank=0, node_id=node.id, devices=claim.placements[0].devices),),
        phase=AttemptPhase.RUNNING,
        placed_ms=at_ms,
        running_ms=at_ms,
    )
    running = changed(job, phase=WorkloadPhase.RUNNING, attempts=1, attempt_id=attempt.id, started_ms=at_ms)
    return running, claim, node, attempt


# -- owned machines ---------------------------------------------------------------------------------


def test_a_claim_says_on_which_machine_and_devices_it_stands() -> None:
    job = gpu_job("a", 2000)
    actions = decide_owned(a_view(job), new_id)
    [claim] = claims(actions)
    [place] = claim.placements
    assert (claim.choice.offer.provider, place.node_id) == ("farm", "farm#0")
    assert sum(share.milli for share in place.devices) == 2000
    assert puts(actions)[job.id].phase is WorkloadPhase.STARTING
    assert [action for action in actions if isinstance(action, Expect)] == [Expect(CLAIMS_TAKEN, 0)]


def test_gangs_get_all_their_machines_or_none() -> None:
    first = gpu_job("a", 4000)
    view = a_view(first)
    rows = held_by(first, view)
    gang = gpu_job("gang", 4000, 2, num_nodes=2)
    assert claims(decide_owned(a_view(*rows, gang), new_id)) == []
    text = tell(a_view(*rows, gang), gang.id)
    assert text == "waits for 4 L4 on each of 2 nodes: 4 of 8 in use by job 1"
    [claim] = claims(decide_owned(a_view(gang), new_id))
    assert [place.node_id for place in claim.placements] == ["farm#0", "farm#1"]


def test_who_finds_no_room_and_may_go_elsewhere_goes_there() -> None:
    big = a_cluster(id="clu-big", resources=(Resources(cpus=Bound(60_000), infra=Infra(provider="farm")),))
    rows = [
        a_claim(
            id=f"clm-{n}", workload_id="clu-big", count=1, phase=ClaimPhase.HELD, choice=a_choice(offer=FARM),
            placements=(Placement(rank=0, node_id=f"farm#{n}", cpus_milli=64_000),),
        )
        for n in (0, 1)
    ]  # fmt: skip
    wish = (Resources(cpus=Bound(8000)),)
    anywhere = a_job(id="job-any", task=a_task(resources=wish), managed=True)
    running = msgspec.structs.replace(big, phase=WorkloadPhase.RUNNING)
    [claim] = claims(decide_owned(a_view(running, *rows, anywhere), new_id))
    assert (claim.choice.offer.provider, claim.placements) == ("cloud", ())
    [claim] = claims(decide_owned(a_view(anywhere), new_id))
    assert (claim.choice.offer.provider, [c.offer.provider for c in claim.alternatives]) == (
        "farm",
        ["cloud"],
    )


def test_refusals_move_a_place_back() -> None:
    other = msgspec.structs.replace(CLOUD, zone="b")
    job = a_job(
        id="job-any", task=a_task(resources=(Resources(infra=Infra(provider="cloud")),)), managed=True
    )
    first = claims(decide_owned(a_view(job, offers=(CLOUD, other)), new_id))[0].choice
    refused = remember(Memory(), refusal_of(first, NOW - 1000))
    second = claims(decide_owned(a_view(job, offers=(CLOUD, other), memory=refused), new_id))[0].choice
    assert {first.offer.zone, second.offer.zone} == {"a", "b"}


def test_residency_is_a_promise_of_the_controllers_too() -> None:
    wish = (Resources(infra=Infra(provider="cloud"), areas=("eu",)),)
    job = a_job(id="job-eu", task=a_task(resources=wish), managed=True)
    where = {("cloud", "east"): Where(country="DE")}
    assert len(claims(decide_owned(a_view(job, atlas=lambda: where), new_id))) == 1
    ended = puts(decide_owned(a_view(job), new_id))["job-eu"]
    assert ended.reason is Reason.NO_OFFER and "country is not known" in ended.detail


def test_a_deadline_chooses_what_is_tried_and_says_why() -> None:
    spot = msgspec.structs.replace(CLOUD, capacity=Capacity.SPOT, price_micro_usd=100_000)
    task = a_task(
        resources=(Resources(infra=Infra(provider="cloud")),), estimated_s=36_000, scheduling=PREEMPTIBLE,
        deadline_s=10 * 36_000,
    )  # fmt: skip
    job = a_job(id="job-late", task=task, managed=True, created_ms=NOW)
    loose = decide_owned(a_view(job, offers=(CLOUD, spot)), new_id)
    assert claims(loose)[0].choice.offer.capacity is Capacity.SPOT
    [told] = [action.event for action in loose if isinstance(action, Emit)]
    assert told.code == "deadline" and "deadline of 100h" in told.text
    hours_later = NOW + 89 * 3_600_000 + 36 * 60_000
    tight = decide_owned(a_view(job, offers=(CLOUD, spot), now_ms=hours_later), new_id)
    assert claims(tight)[0].choice.offer.capacity is Capacity.ON_DEMAND


def test_what_no_machine_could_hold_fails_with_the_nearest_in_words() -> None:
    job = gpu_job("odd", 4000, num_nodes=3)
    wish = gpu_job("labelled", 1000, 2, scheduling=Scheduling(labels=(("disk", "nvme"),)))
    ended = puts(decide_owned(a_view(job, wish), new_id))
    assert [ended[id].reason for id in ("job-odd", "job-labelled")] == [Reason.NO_OFFER] * 2
    assert "farm: has 4 L4, asked for 4 for each of 3 nodes" in ended["job-odd"].detail
    assert "farm#0 comes nearest" in ended["job-labelled"].detail
    assert ended["job-labelled"].detail.startswith("it can never start: ")  # people read `failed: it can …`


def test_nothing_fails_before_every_place_has_told_what_it_has() -> None:
    job = gpu_job("a", 1000)
    assert puts(decide_owned(a_view(job, offers=(CLOUD,), silent=frozenset(("farm",))), new_id)) == {}
    ended = puts(decide_owned(a_view(job, offers=(CLOUD,)), new_id))
    assert ended["job-a"].reason is Reason.NO_OFFER


def test_what_waits_for_places_that_have_not_answered_yet_says_so() -> None:
    job = gpu_job("a", 1000)
    asked = a_view(job, offers=(), silent=frozenset(("farm",)))
    assert tell(asked, "job-a") == "the server has just started: it does not know yet what all places have"
    seen = pictured(asked).pending(Snapshot.of([job]), job, NOW)
    assert seen is not None and seen.code == "later"
    assert tell(a_view(job, offers=()), "job-a").startswith("no infrastructure is enabled")


def test_limits_of_queues_hold_and_are_told() -> None:
    tree = Tenancy(queues=(Queue(path="red", limit={"gpus": 4000}),), rev=3)
    one = gpu_job("one", 4000, 1, project="red", user="ann")
    two = gpu_job("two", 4000, 2, project="red", user="bob")
    view = a_view(tree, one, two)
    actions = decide_owned(view, new_id)
    assert [claim.workload_id for claim in claims(actions)] == ["job-one"]
    assert Expect("tenancy", 3) in actions
    rows = held_by(one, view)
    waiting = explain(a_view(tree, *rows, two), "job-two")
    assert waiting is not None and waiting.code == "limit"
    assert "red: 4 + 4 > 4 gpus, over by 4" in waiting.text.lower()
    used = {row.path: row.used.get("gpus", 0) for row in pictured(a_view(tree, *rows, two)).usage}
    assert (used["red"], used["red/ann"]) == (4000, 4000)


def test_a_resting_cluster_asks_for_its_own_machine_again() -> None:
    cluster = a_cluster(
        id="clu-0", phase=WorkloadPhase.STOPPED, resources=(Resources(infra=Infra(provider="farm")),)
    )
    choice = msgspec.structs.replace(
        a_choice(offer=FARM), cpus_milli=64_000, memory_bytes=0, accelerators_milli=0, accelerator=None
    )
    place = Placement(rank=0, node_id="farm#1", cpus_milli=64_000)
    rests = a_claim(
        id="clm-0", workload_id="clu-0", choice=choice, phase=ClaimPhase.STOPPED, desired=Desired.STOP,
        placements=(place,),
    )  # fmt: skip
    rows = puts(decide_owned(a_view(cluster, rests), new_id))
    assert (rows["clu-0"].phase, rows["clm-0"].desired) == (WorkloadPhase.STARTING, Desired.RUN)
    assert rows["clm-0"].placements == (place,)
    other = a_claim(
        id="clm-1", workload_id="clu-1", choice=choice, phase=ClaimPhase.HELD, placements=(place,)
    )
    owner = a_cluster(id="clu-1", name="d", phase=WorkloadPhase.RUNNING)
    assert puts(decide_owned(a_view(cluster, rests, owner, other), new_id)) == {}


# -- evictions --------------------------------------------------------------------------------------

PREEMPTIBLE = Scheduling(preemptible=True, checkpoint=True)


def crowded() -> tuple[list[Row], Workload]:
    """Two preemptible jobs hold all L4s; somebody more urgent wants half of them."""
    low = [
        gpu_job(f"low{n}", 4000, n, scheduling=PREEMPTIBLE, priority_class="opportunistic") for n in (1, 2)
    ]
    rows: list[Row] = list(held_by(low[0], a_view(low[0])))
    second = held_by(low[1], a_view(*rows, low[1]))
    return [*rows, *second], gpu_job("high", 4000, 3, priority_class="interactive")


def test_an_urgent_job_makes_room_and_starts_when_it_is_free() -> None:
    rows, high = crowded()
    actions = decide_owned(a_view(*rows, high), new_id)
    [told] = [row for row in puts(actions).values() if isinstance(row, Attempt)]
    assert (told.phase, told.outcome, told.reason) == (AttemptPhase.ENDING, Outcome.PREEMPTED, Reason.EVICTED)
    assert told.room_for == high.id and "made room for" in told.detail
    assert claims(actions) == []  # a start never counts on room that is not free yet
    assert [action.event.code for action in actions if isinstance(action, Emit)] == ["evicted"]
    later = [told if row.id == told.id else row for row in rows]
    again = decide_owned(a_view(*later, high), new_id)
    assert puts(again) == {}  # nobody else is ended for it
    gone = [row for row in later if getattr(row, "workload_id", row.id) != told.workload_id]
    victim = msgspec.structs.replace(
        next(row for row in rows if row.id == told.workload_id),
        phase=WorkloadPhase.RECOVERING,
        reason=Reason.EVICTED,
    )
    started = decide_owned(a_view(*gone, victim, high), new_id)
    assert [claim.workload_id for claim in claims(started)] == [high.id]


def test_the_protected_stay() -> None:
    rows, high = crowded()
    young = [
        msgspec.structs.replace(row, requested_ms=NOW - 5000) if isinstance(row, Claim) else row
        for row in rows
    ]
    assert puts(decide_owned(a_view(*young, high), new_id)) == {}
    never = Tenancy(policy=SharePolicy(preemption=False), rev=1)
    assert puts(decide_owned(a_view(never, *rows, high), new_id)) == {}


@pytest.mark.parametrize("managed", [True, False])
def test_who_made_room_waits_again_and_spends_no_restart(managed: bool) -> None:
    cluster = a_cluster(id="clu-0", phase=WorkloadPhase.RUNNING)
    owner = "job-0" if managed else "clu-0"
    claim = a_claim(id="clm-0", workload_id=owner, phase=ClaimPhase.HELD)
    node = a_node(id="nod-0", workload_id=owner, claim_id="clm-0", phase=NodePhase.READY, gpus=2)
    share = DeviceShare(index=0, milli=1000)
    attempt = an_attempt(
        id="att-0", workload_id="job-0", phase=AttemptPhase.RUNNING, running_ms=NOW - 60_000,
        placements=(Placement(rank=0, node_id="nod-0", devices=(share,)),),
    )  # fmt: skip
    job = a_job(
        id="job-0", managed=managed, phase=WorkloadPhase.RUNNING, attempts=1, attempt_id="att-0", errors=1,
        recoveries=2, attained=7,
    )  # fmt: skip
    facts = Facts()
    facts.link_up("nod-0", NodeFacts(), NOW)
    facts.set_ranks("nod-0", [RankFact(id="att-0.0", phase=RankPhase.RUNNING)], complete=True)
    rows: list[Row] = [job, claim, node, *([] if managed else [cluster])]
    view = msgspec.structs.replace(a_view(*rows, attempt), observed=facts)
    ending = puts(evict(view, job, "made room for job 9", room_for="job-9"))["att-0"]
    assert isinstance(ending, Attempt) and claim.desired is Desired.RUN  # its nodes stay until it has ended
    facts.set_ranks("nod-0", [RankFact(id="att-0.0", phase=RankPhase.EXITED, exit_code=143)], complete=True)
    view = msgspec.structs.replace(a_view(*rows, ending), observed=facts)
    ended = puts(decide_job(view, job, new_id))
    waits = ended["job-0"]
    assert isinstance(waits, Workload)
    assert (waits.phase, waits.reason) == (WorkloadPhase.RECOVERING, Reason.EVICTED)
    assert (waits.status.evictions, waits.status.errors, waits.status.recoveries) == (1, 1, 2)
    assert waits.status.attained == 7 + 1000 * 60_000
    assert (ended["clm-0"].desired is Desired.END) if managed else ("clm-0" not in ended)
    cancelled = msgspec.structs.replace(job, desired=Desired.END)
    over = puts(decide_job(view, cancelled, new_id))["job-0"]
    assert (over.outcome, over.reason) == (Outcome.CANCELLED, Reason.CANCELLED_BY_USER)


def test_a_job_that_is_over_anyway_is_not_evicted() -> None:
    facts = Facts()
    facts.set_ranks("nod-0", [RankFact(id="att-0.0", phase=RankPhase.EXITED, exit_code=0)], complete=True)
    job = a_job(id="job-0", phase=WorkloadPhase.RUNNING, attempt_id="att-0")
    view = msgspec.structs.replace(
        a_view(job, an_attempt(id="att-0", workload_id="job-0", phase=AttemptPhase.RUNNING)), observed=facts
    )
    assert evict(view, job, "made room") == []


def test_nobody_is_ended_for_who_can_go_elsewhere() -> None:
    low = a_job(
        id="job-low",
        task=a_task(resources=(Resources(cpus=Bound(64_000)),), scheduling=PREEMPTIBLE),
        managed=True,
    )
    one = msgspec.structs.replace(FARM, nodes_max=1)
    offers = (one, msgspec.structs.replace(CLOUD, shape=a_shape(cpus_milli=64_000, instance_type="c64")))
    rows = held_by(low, a_view(low, offers=offers))
    wish = (Resources(cpus=Bound(64_000), priority_class="interactive"),)
    high = a_job(id="job-high", task=a_task(resources=wish), managed=True, number=2)
    actions = decide_owned(a_view(*rows, high, offers=offers), new_id)
    assert [claim.choice.offer.provider for claim in claims(actions)] == ["cloud"]
    assert not [row for row in puts(actions).values() if isinstance(row, Attempt)]


# -- clusters ---------------------------------------------------------------------------------------


def test_jobs_of_a_cluster_recover_in_their_place_and_the_cluster_row_is_the_lock() -> None:
    cluster = a_cluster(id="clu-0", phase=WorkloadPhase.RUNNING)
    node = a_node(id="nod-0", phase=NodePhase.READY, ready_ms=1)
    whole = (Resources(cpus=Bound(8000)),)
    back = a_job(
        id="job-1", number=1, phase=WorkloadPhase.RECOVERING, reason=Reason.EVICTED, attempts=1,
        task=a_task(resources=whole),
    )  # fmt: skip
    new = a_job(id="job-2", number=2, task=a_task(resources=whole))
    rows = puts(decide_jobs(a_view(cluster, node, back, new), cluster, new_id))
    assert rows["job-1"].phase is WorkloadPhase.STARTING and "job-2" not in rows
    assert "clu-0" in rows
    [attempt] = [row for row in rows.values() if isinstance(row, Attempt)]
    assert (attempt.number, attempt.why) == (2, "it was next in queue default/nobody")


def test_a_job_that_no_node_could_hold_fails_at_once() -> None:
    cluster = a_cluster(id="clu-0", phase=WorkloadPhase.RUNNING)
    node = a_node(id="nod-0", phase=NodePhase.READY, ready_ms=1, gpus=2)
    job = a_job(
        id="job-1", task=a_task(resources=(Resources(accelerator=Accelerator(model="H100", milli=1000)),))
    )
    ended = puts(decide_jobs(a_view(cluster, node, job), cluster, new_id))["job-1"]
    assert (ended.outcome, ended.reason) == (Outcome.FAILED, Reason.NO_OFFER)
    assert ended.detail.startswith("it can never start: ") and not ended.detail.endswith(".")
    booting = msgspec.structs.replace(node, ready_ms=0, phase=NodePhase.BOOTING)
    assert puts(decide_jobs(a_view(cluster, booting, job), cluster, new_id)) == {}


def test_a_job_that_names_no_cpus_runs_on_a_node_with_less_than_the_default_share() -> None:
    cluster = a_cluster(id="clu-0", phase=WorkloadPhase.RUNNING)
    claim = a_claim(phase=ClaimPhase.HELD, choice=changed(a_choice(), cpus_milli=250))
    node = a_node(id="nod-0", phase=NodePhase.READY, ready_ms=1, cpus_milli=250)
    unnamed, too_large = a_job(id="job-1"), a_job(id="job-2", task=a_task(resources=(HALF,)))
    rows = puts(decide_jobs(a_view(cluster, claim, node, unnamed, too_large), cluster, new_id))
    [attempt] = [row for row in rows.values() if isinstance(row, Attempt)]
    assert (attempt.workload_id, attempt.placements[0].cpus_milli) == ("job-1", 250)
    assert (rows["job-2"].outcome, rows["job-2"].reason) == (Outcome.FAILED, Reason.NO_OFFER)


def test_ranks_of_a_cluster_job_go_to_different_nodes() -> None:
    cluster = a_cluster(id="clu-0", phase=WorkloadPhase.RUNNING, num_nodes=2)
    nodes = [a_node(id=f"nod-{n}", index=n, phase=NodePhase.READY, ready_ms=1) for n in (0, 1)]
    job = a_job(id="job-1", task=a_task(num_nodes=2))
    rows = puts(decide_jobs(a_view(cluster, *nodes, job), cluster, new_id))
    [attempt] = [row for row in rows.values() if isinstance(row, Attempt)]
    assert [place.node_id for place in attempt.placements] == ["nod-0", "nod-1"]


# -- books ------------------------------------------------------------------------------------------


def test_books_that_were_kept_decide_as_fresh_ones() -> None:
    book, rows = PoolCaches(), dict[str, Row]()
    snapshot = Snapshot.of(())
    offers = (FARM, CLOUD)
    for step in range(30):
        job = gpu_job(f"j{step:02d}", (500, 1000, 4000)[step % 3], step, user="ann" if step % 2 else "bob")
        changed: list[Row] = [job]
        if step % 4 == 3 and rows:
            over = sorted(row.id for row in rows.values() if isinstance(row, Claim))[:2]
            changed += [msgspec.structs.replace(rows.pop(id), phase=ClaimPhase.GONE) for id in over]
        snapshot = snapshot.changed(changed, seq=step)
        kept = msgspec.structs.replace(
            a_view(offers=offers, now_ms=NOW + step * 1000), rows=snapshot, pools=book
        )
        ids = iter(range(step * 100, step * 100 + 100))
        mine = decide_owned(kept, lambda prefix: f"{prefix}-{next(ids):06d}")  # noqa: B023
        ids = iter(range(step * 100, step * 100 + 100))
        fresh = decide_owned(
            msgspec.structs.replace(kept, pools=None),
            lambda prefix: f"{prefix}-{next(ids):06d}",  # noqa: B023
        )
        assert sorted(puts(mine)) == sorted(puts(fresh))
        if step % 5:  # else the commit is lost: the next pass must say the same again
            written = list(puts(mine).values())
            rows |= {row.id: row for row in written}
            snapshot = snapshot.changed(written, seq=step)


def test_what_the_machines_cannot_hold_closes_them() -> None:
    job = gpu_job("a", 4000)
    rows = held_by(job, a_view(job))
    small = msgspec.structs.replace(FARM, shape=a_gpu_shape(2, "L4"), nodes_max=1)
    place = msgspec.structs.replace(rows[1].placements[0], node_id="farm")
    there = [msgspec.structs.replace(rows[1], placements=(place,)), rows[0], *rows[2:]]
    other = gpu_job("b", 1000, 2)
    assert claims(decide_owned(a_view(*there, other, offers=(small,)), new_id)) == []


# -- words and pictures -----------------------------------------------------------------------------


def test_pictures_name_machines_holders_and_who_waits() -> None:
    first, second = gpu_job("a", 4000), gpu_job("b", 4000, 2)
    rows = held_by(first, a_view(first))
    more = held_by(second, a_view(*rows, second))
    third = gpu_job("c", 4000, 3, user="cid")
    [farm] = pictured(a_view(*rows, *more, third)).pools
    assert (farm.id, [machine.id for machine in farm.machines]) == ("farm", ["farm#0", "farm#1"])
    assert [(held.id, held.placements[0].node_id) for held in farm.held] == [
        ("job-a", "farm#0"),
        ("job-b", "farm#1"),
    ]
    [queued] = farm.waiting
    assert (queued.id, queued.position, queued.models) == ("job-c", 1, ("L4",))
    assert queued.waiting is not None and queued.waiting.code == "capacity"


def test_a_job_of_a_cluster_that_waits_says_so() -> None:
    holder = gpu_job("a", 4000)
    rows = held_by(holder, a_view(holder, offers=(msgspec.structs.replace(FARM, nodes_max=1),)))
    wish = (Resources(accelerator=Accelerator(model="L4", milli=4000)),)
    cluster = a_cluster(id="clu-0", name="late", resources=wish)
    job = a_job(id="job-1", host_id="clu-0")
    view = a_view(*rows, cluster, job, offers=(msgspec.structs.replace(FARM, nodes_max=1),))
    assert tell(view, "job-1") == "waits for the cluster, which waits for 4 L4: 4 of 4 in use by job 1"


def test_a_job_says_what_its_cluster_waits_for_in_one_sentence() -> None:
    detail = "this machine runs at most 128 nodes"
    late = a_cluster(id="clu-0", name="many", retry_ms=NOW + 37_000, detail=detail,
                     resources=(Resources(infra=Infra(provider="farm")),))  # fmt: skip
    job = a_job(id="job-1", host_id="clu-0")
    view = a_view(late, job)
    assert tell(view, "job-1") == f"waits for the cluster; next try in 37s: {detail}"
    assert tell(view, "clu-0") == f"next try in 37s: {detail}"
    told = explain(view, "job-1")
    assert told is not None and told.text == tell(view, "job-1")
    tree = Tenancy(queues=(Queue(path="red", limit={"gpus": 4000}),))
    wish = (Resources(accelerator=Accelerator(model="L4", milli=8000)),)
    never = a_cluster(id="clu-1", name="big", resources=wish, project="red", queue="red/ann", num_nodes=1)
    wide = a_cluster(id="clu-2", name="wide", project="red", queue="red/ann", num_nodes=2,
                     resources=(Resources(accelerator=Accelerator(model="L4", milli=4000)),))  # fmt: skip
    rows = a_view(tree, never, wide, a_job(id="job-2", host_id="clu-2"))
    assert tell(rows, "job-2") == (
        "waits for the cluster; it can never start: it asks for 8 GPUs, and queue red may use at most 4"
    )


def test_what_waits_elsewhere_says_when_it_is_tried_again() -> None:
    wish = (Resources(infra=Infra(provider="cloud")),)
    job = a_job(id="job-1", managed=True, task=a_task(resources=wish), retry_ms=NOW + 60_000,
                phase=WorkloadPhase.RECOVERING, detail="no capacity in east")  # fmt: skip
    assert tell(a_view(job), "job-1") == "next try in 1m: no capacity in east"


def test_what_was_submitted_a_moment_ago_is_about_to_be_considered() -> None:
    new = gpu_job("new", 1000)
    seen = pictured(a_view(gpu_job("old", 1000)))
    told = seen.pending(Snapshot.of([new]), new, NOW)
    assert told is not None and told.text == "about to be considered"
    assert not seen.knows(Snapshot.of([new]), new)


def test_the_only_node_that_would_do_does_not_answer() -> None:
    cluster = a_cluster(id="clu-0", phase=WorkloadPhase.RUNNING)
    silent = a_node(id="nod-0", phase=NodePhase.UNREACHABLE, ready_ms=1, gpus=1)
    small = a_node(id="nod-1", index=1, phase=NodePhase.READY, ready_ms=1)
    job = a_job(
        id="job-1", task=a_task(resources=(Resources(accelerator=Accelerator(model="A100", milli=1000)),))
    )
    view = a_view(cluster, silent, small, job)
    assert tell(view, "job-1") == "The only suitable node does not answer."
    more = a_node(id="nod-2", index=2, phase=NodePhase.UNREACHABLE, ready_ms=1, gpus=1)
    assert tell(a_view(cluster, silent, more, job), "job-1") == "None of the 2 suitable nodes answers."
    going = msgspec.structs.replace(silent, phase=NodePhase.DRAINING)
    assert tell(a_view(cluster, going, small, job), "job-1") == "The only suitable node is being given up."


# -- parts ------------------------------------------------------------------------------------------


def test_machines_come_from_facts_where_there_are_any() -> None:
    facts = NodeFacts(
        hostname="dgx", devices=some_devices(2, "H100"), sharing=("mps",), labels=(("disk", "nvme"),)
    )
    plain = Offer(
        provider="local", shape=Shape(cpus_milli=8000, memory_bytes=GIB), capacity=Capacity.OWNED,
        price_micro_usd=0, facts=facts,
    )  # fmt: skip
    tree = Tenancy(groups=(Group(name="train", nodes=("dg*",)),))
    [machine] = machines_of_offers([plain, plain], tree)
    assert (machine.id, machine.groups, machine.sharing) == ("local", ("train",), ("mps",))
    assert len(machine.devices) == 2 and ("disk", "nvme") in machine.labels


def test_only_ready_nodes_are_open() -> None:
    node = a_node(id="nod-0", phase=NodePhase.UNREACHABLE, gpus=2)
    machine = machine_of_node(msgspec.structs.replace(node, devices=(1,)), None, Tenancy())
    assert not machine.open and [device.index for device in machine.devices] == [1]


def test_asks_carry_queue_class_and_wishes() -> None:
    tree = Tenancy(
        queues=(Queue(path="org/vision"),),
        groups=(Group(name="g", nodes=("*",), queues=("org/vision",)), Group(name="h", kinds=("service",))),
    )
    job = a_job(project="vision", user="ann", task=a_task(scheduling=PREEMPTIBLE))
    ask = ask_of_job(job, tree, History())
    assert (ask.queue, ask.urgency, ask.preemptible, ask.needs[0].groups) == (
        "org/vision/ann",
        3,
        True,
        ("g",),
    )
    gone = msgspec.structs.replace(
        job, spec=msgspec.structs.replace(job.spec, task=Task(scheduling=Scheduling(queue="x/y")))
    )
    assert queue_of(gone, tree) == "vision/ann"
    assert urgency_of(gpu_job("u", 1000, priority_class="interactive")) == 2


def test_a_gang_sits_on_the_devices_of_its_claim() -> None:
    share = DeviceShare(index=3, milli=250, mechanism="mps", memory_bytes=GIB)
    wish = Resources(accelerator=Accelerator(model="A100", milli=250))
    choice = msgspec.structs.replace(
        a_choice(offer=FARM), resources=wish, accelerator="A100", accelerators_milli=250
    )
    claim = a_claim(choice=choice, placements=(Placement(rank=0, node_id="farm#0", devices=(share,)),))
    node = a_node(id="nod-0", gpus=1)
    seats = seat_gang(a_job(managed=True), claim, [node])
    assert seats is not None
    assert seats[0].devices == (msgspec.structs.replace(share, index=0),)
    assert seat_gang(a_job(managed=True), claim, [a_node(gpus=0)]) is None


def test_the_past_is_learned_from_rows() -> None:
    choice = a_choice(offer=CLOUD)
    claim = a_claim(id="clm-0", choice=choice)
    refused = msgspec.structs.replace(claim, phase=ClaimPhase.RELEASING, reason=Reason.OUT_OF_CAPACITY)
    before, after = Snapshot.of([claim]), Snapshot.of([refused])
    past = Past()
    past.follow(after, before, NOW)
    assert len(past.memory.refusals) == 1
    held = msgspec.structs.replace(claim, phase=ClaimPhase.HELD)
    past.follow(Snapshot.of([held]), before, NOW)
    assert past.memory.refusals == ()
    done = a_job(phase=WorkloadPhase.FINISHED, outcome=Outcome.SUCCEEDED, started_ms=NOW, ended_ms=NOW + 9000)
    past.ended([done])
    history = past.history(NOW)
    assert (9,) in history.runtimes_s.values()
    past.ended([done])
    assert past.history(NOW + 1000) is history  # a minute at least


def test_the_length_of_a_job_without_a_name_is_not_that_of_other_programs() -> None:
    def unnamed(number: int, run: str, **fields: object) -> Workload:
        return a_job(name=f"job-{number}", number=number, task=a_task(name=None, run=run), **fields)

    past = Past()
    over = {"phase": WorkloadPhase.FINISHED, "outcome": Outcome.SUCCEEDED, "started_ms": NOW}
    past.ended([unnamed(n, "sleep 1", ended_ms=NOW + 1000, **over) for n in (1, 2, 3)])
    history = past.history(NOW)
    assert expected_s(unnamed(4, "sleep 1"), history) == (1, False)
    assert expected_s(unnamed(5, "sleep 300"), history) == (1, True), "good enough to reckon with, no promise"
    named = a_job(name="train", number=6, task=a_task(name="train", run="sleep 300"))
    assert expected_s(named, history)[1] is True


# -- clusters of parts of devices -------------------------------------------------------------------


def a_part(share: DeviceShare, *, sharing: tuple[str, ...] = (), **cluster: object) -> list[Row]:
    """A running cluster of one node that was given `share` of an A100."""
    wish = Resources(accelerator=Accelerator(model="A100", milli=share.milli))
    choice = msgspec.structs.replace(
        a_choice(offer=FARM), resources=wish, accelerator="A100", accelerators_milli=share.milli
    )
    place = Placement(rank=0, node_id="farm#0", devices=(share,))
    node = a_node(id="nod-0", phase=NodePhase.READY, ready_ms=1, gpus=1)
    return [
        a_cluster(id="clu-0", phase=WorkloadPhase.RUNNING, resources=(wish,), **cluster),
        a_claim(id="clm-0", choice=choice, phase=ClaimPhase.HELD, placements=(place,)),
        msgspec.structs.replace(node, facts=msgspec.structs.replace(node.facts, sharing=sharing)),
    ]


def part_job(number: int, milli: int, **scheduling: object) -> Workload:
    wish = Resources(accelerator=Accelerator(model="A100", milli=milli), cpus=Bound(100))
    task = a_task(resources=(wish,), scheduling=Scheduling(**scheduling))
    return a_job(id=f"job-{number}", number=number, task=task)


def shares_given(view: View, *, book: PoolCaches | None = None) -> dict[str, DeviceShare]:
    """By job, what the next cycle gives in cluster `clu-0`."""
    view = msgspec.structs.replace(view, pools=book)
    rows = puts(decide_jobs(view, view.rows.workloads["clu-0"], new_id)).values()
    return {row.workload_id: row.placements[0].devices[0] for row in rows if isinstance(row, Attempt)}


def test_jobs_together_get_no_more_of_a_device_than_their_cluster_claimed() -> None:
    rows = a_part(DeviceShare(index=3, milli=500))
    jobs = [part_job(n, 250) for n in (1, 2, 3)]
    given = shares_given(a_view(*rows, *jobs))
    assert {id: (share.index, share.milli) for id, share in given.items()} == {
        "job-1": (0, 250),
        "job-2": (0, 250),
    }
    whole = a_part(DeviceShare(index=3, milli=1000))
    assert len(shares_given(a_view(*whole, *jobs))) == 3
    unknown = [msgspec.structs.replace(row, placements=()) if isinstance(row, Claim) else row for row in rows]
    assert len(shares_given(a_view(*unknown, *jobs))) == 3, "where it stands is not known"


def test_what_is_larger_than_the_part_of_its_cluster_fails_at_once() -> None:
    rows = a_part(DeviceShare(index=0, milli=500))
    ended = puts(decide_jobs(a_view(*rows, part_job(1, 1000)), rows[0], new_id))["job-1"]
    assert ended.reason is Reason.NO_OFFER
    assert "the cluster has a part of its devices only" in ended.detail


def test_parts_inside_have_the_mechanism_and_the_memory_of_the_claim() -> None:
    claimed = DeviceShare(index=0, milli=500, mechanism="mps", memory_bytes=40 * GIB)
    rows = a_part(claimed, sharing=("mps",))
    jobs = [part_job(1, 250), part_job(2, 250, isolation=Isolation.MEMORY), part_job(3, 250)]
    given = shares_given(a_view(*rows, *jobs))
    assert set(given) == {"job-1", "job-2"}
    assert {share.mechanism for share in given.values()} == {"mps"}
    assert 0 < sum(share.memory_bytes for share in given.values()) <= claimed.memory_bytes
    plain = a_part(DeviceShare(index=0, milli=500), sharing=("mps",))
    assert shares_given(a_view(*plain, part_job(1, 250, isolation=Isolation.MEMORY))) == {}, (
        "others take turns there"
    )


def test_parts_of_a_divided_card_stay_within_the_slices_of_the_claim() -> None:
    claimed = DeviceShare(index=0, milli=500, mechanism="mig", profile="3g.40gb", slot=4)
    rows = a_part(claimed, sharing=("mig",))
    jobs = [part_job(n, 120, isolation=Isolation.HARDWARE) for n in (1, 2, 3, 4)]
    given = shares_given(a_view(*rows, *jobs))
    assert {share.mechanism for share in given.values()} == {"mig"}
    assert sorted(share.slot for share in given.values()) == [4, 5, 6]


def test_what_is_withheld_is_nobody() -> None:
    book = PoolCaches()
    rows = a_part(DeviceShare(index=0, milli=500))
    view = a_view(*rows, part_job(1, 250), part_job(2, 500), pools=book)
    [picture] = [each for each in pictured(view).pools if each.id == "clu-0"]
    assert picture.held == ()
    assert taken_of(picture) == {("nod-0", 0): 500}
    assert shares_given(view, book=book).keys() == {"job-1"}
    text = tell(msgspec.structs.replace(view, pools=book), "job-2")
    assert "withheld" not in text
    assert not [each for each in pictured(view).usage if "withheld" in each.path]
    stranger = part_job(3, 250)
    stranger = msgspec.structs.replace(stranger, project="others")
    assert shares_given(a_view(*rows, stranger)) == {}
