"""Who is preempted: rights, the smallest sets, nominated placements, moves, and that it all ends."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_world import World, gpus, job, node, tenancy

from argosy.model.tenancy import Queue
from argosy.scheduler.ask import Ask, Decision
from argosy.scheduler.pool import Pool

OLD_S = 10_000  # older than any protection


def full(*asks: Ask, nodes: int = 1, size: int = 4, **policy: object) -> World:
    """A pool in which these run since long ago."""
    queues: tuple[Queue, ...] = policy.pop("queues", ())  # type: ignore[assignment]
    world = World(Pool(tenancy(*queues, **policy), machines=[node(i, size) for i in range(nodes)]))
    for ask in asks:
        world.submit(ask)
    world.cycle()
    assert not world.waiting
    world.now_ms += OLD_S * 1000
    return world


def told(decision: Decision) -> list[tuple[str, str, str, str]]:
    return [(e.job_id, e.for_id, e.kind, e.why) for e in decision.evictions]


def test_the_more_urgent_displaces_the_least_urgent_of_its_queue() -> None:
    world = full(
        job(1, 2, preemptible=True, urgency=4),
        job(2, 1, preemptible=True),
        job(3, 1, preemptible=True, priority=7),
    )
    world.submit(job(9, 1, urgency=2))
    decision = world.cycle()
    assert told(decision) == [
        (
            "j001",
            "j009",
            "preempt",
            "made room for a's job 9, which is more urgent (interactive before opportunistic)",
        )
    ]
    assert decision.starts == ()
    assert world.cycle().evictions == (), "nobody is ended twice for one"
    world.leave("j001")
    decision = world.cycle()
    assert [(s.ask_id, s.why) for s in decision.starts] == [("j009", "the room that was kept for it is free")]
    assert decision.evictions == (), "the evicted does not come back at the expense of others"


def test_nobody_waits_for_what_does_not_end() -> None:
    """What was told to end holds its room as long as its machine does not answer: another one makes room."""
    world = full(job(1, 4, preemptible=True), job(2, 4, preemptible=True), nodes=2)
    leaving = msgspec.structs.replace(world.running["j001"], leaving=True)
    world.pool.running(leaving)
    world.submit(job(9, 4, urgency=2))
    assert told(world.cycle()) == [], "its room comes soon"
    world.pool.running(msgspec.structs.replace(leaving, stuck=True))
    assert [(each[0], each[1]) for each in told(world.cycle())] == [("j002", "j009")]


def test_priority_within_a_class() -> None:
    world = full(job(1, 4, preemptible=True))
    world.submit(job(2, 4))
    assert told(world.cycle()) == []
    world.submit(job(3, 4, priority=1))
    assert told(world.cycle()) == [
        ("j001", "j003", "preempt", "made room for a's job 3, which has priority 1 (this has 0)")
    ]


@pytest.mark.parametrize(
    "change", [{"preemptible": False}, {"urgency": 2}, {"queue": "b"}, {"started": True}], ids=str
)
def test_who_is_not_ended(change: dict[str, object]) -> None:
    recent = change.pop("started", False)
    world = full(job(1, 4, **{"preemptible": True, **change}))
    if recent:
        world.now_ms -= (OLD_S - 599) * 1000  # the policy protects for 600 s
    world.submit(job(9, 4, urgency=2))
    decision = world.cycle()
    assert decision.evictions == ()
    if recent:
        assert decision.wake_ms == 1_000_000 + 600_000
        world.now_ms = decision.wake_ms
        assert len(world.cycle().evictions) == 1


def test_no_preemption_when_the_policy_says_so() -> None:
    world = full(job(1, 4, preemptible=True, urgency=4), preemption=False)
    world.submit(job(9, 4, urgency=0))
    assert world.cycle().evictions == ()


def test_the_newest_and_the_cheapest_go_first() -> None:
    world = full(job(1, 1, preemptible=True), job(2, 2, preemptible=True))
    world.submit(job(3, 1, preemptible=True))
    world.cycle()
    world.now_ms += OLD_S * 1000
    world.submit(job(9, 1, urgency=2))
    assert [e.job_id for e in world.cycle().evictions] == ["j003"]
    world.leave("j003")
    world.pool.withdraw("j003")
    del world.waiting["j003"]
    world.cycle()
    world.submit(job(10, 1, urgency=2))
    assert [e.job_id for e in world.cycle().evictions] == ["j001"], "of the same age the smaller one"


def test_checkpoints_make_a_job_cheaper() -> None:
    world = full(job(1, 1, preemptible=True, checkpoint=True), job(2, 3, preemptible=True, checkpoint=True))
    run = msgspec.structs.replace(world.running["j002"], checkpoint_ms=world.now_ms)
    world.running["j002"] = run
    world.pool.running(run)
    world.submit(job(9, 1, urgency=2))
    assert [e.job_id for e in world.cycle().evictions] == ["j002"]


def test_only_who_stands_in_the_way() -> None:
    """Eight small jobs, and a gang that needs a whole machine: the four on one machine go."""
    world = full(*(job(n, 1, preemptible=True) for n in range(8)), nodes=2)
    world.submit(job(9, 4, urgency=2))
    decision = world.cycle()
    where = {world.running[e.job_id].placements[0].node_id for e in decision.evictions}
    assert len(decision.evictions) == 4
    assert len(where) == 1


def test_the_room_that_leaves_is_kept() -> None:
    world = full(job(1, 2, preemptible=True, urgency=4), job(2, 2))
    world.submit(job(9, 2, urgency=2))
    assert len(world.cycle().evictions) == 1
    world.submit(job(3, 1))
    world.submit(job(4, 2, queue="b", urgency=0))
    assert world.cycle().starts == ()
    world.leave("j001")
    assert [s.ask_id for s in world.cycle().starts] == ["j009"]


def test_part_of_the_room_is_free_already_and_nobody_takes_it() -> None:
    world = full(job(1, 3, preemptible=True, urgency=4))
    world.submit(job(9, 4, urgency=2))
    assert len(world.cycle().evictions) == 1
    world.submit(job(3, 1, queue="b", urgency=0))
    assert world.cycle().starts == ()
    world.pool.withdraw("j009")
    del world.waiting["j009"]
    assert [s.ask_id for s in world.cycle().starts] == ["j003"]


def test_a_nominated_placement_survives_a_restart() -> None:
    world = full(job(1, 4, preemptible=True, urgency=4))
    world.submit(job(9, 4, urgency=2))
    world.cycle()
    again = world.rebuilt()
    decision = again.cycle(world.now_ms)
    assert (decision.starts, decision.evictions) == ((), ())
    assert set(again.nominated) == {"j009"}
    again.ended("j001")
    assert [s.ask_id for s in again.cycle(world.now_ms).starts] == ["j009"]


@pytest.mark.parametrize(("first", "second"), [("b", "b"), ("b/ann", "b/ann"), ("b/ann", "b/bob")])
def test_what_a_queue_deserves_is_judged_for_each_request_by_itself(first: str, second: str) -> None:
    """The first of b asks for more than b deserves and waits; the second does not, and gets it back. People
    have queues of their own below it, of which nobody wrote."""
    queues = (Queue(path="a", deserved={"cpus": 1000}), Queue(path="b", deserved={"cpus": 1000}))
    world = World(Pool(tenancy(*queues, min_runtime_s=0), machines=[node(0, 0, cpus=2)]))
    for number in (1, 2):
        world.submit(job(number, 0, queue="a", preemptible=True))
    world.cycle()
    world.now_ms += 10
    world.submit(job(3, 0, queue=first, cpus=2))
    assert not world.cycle().evictions
    world.submit(job(4, 0, queue=second))
    world.settle()
    assert "j004" in world.running and "j003" in world.waiting


def test_a_nominated_placement_is_given_up_with_its_machine() -> None:
    world = full(job(1, 4, preemptible=True, urgency=4))
    world.submit(job(9, 4, urgency=2))
    world.cycle()
    world.pool.drop_machine("n0")
    world.pool.put_machine(node(1))
    world.end("j001")
    decision = world.cycle()
    assert [(s.ask_id, s.placements[0].node_id) for s in decision.starts] == [("j009", "n1")]


# --- between queues

SHARED = (
    Queue(path="acme/nlp", deserved=gpus(4)),
    Queue(path="acme/vision", guaranteed=gpus(2), deserved=gpus(4)),
)


def test_what_is_guaranteed_is_there_at_once_or_taken_back() -> None:
    world = full(
        *(job(n, 1, queue="acme/nlp/bob", preemptible=True) for n in range(6)), size=8, queues=SHARED
    )
    world.submit(job(12, 2, queue="acme/vision/ann"))
    decision = world.cycle()
    assert [s.ask_id for s in decision.starts] == ["j012"], "it was never lent"
    world.now_ms += OLD_S * 1000
    world.submit(job(13, 2, queue="acme/vision/ann"))
    decision = world.cycle()
    assert len(decision.evictions) == 2
    assert {e.kind for e in decision.evictions} == {"reclaim"}
    assert decision.evictions[0].why == (
        "made room for acme/vision/ann's job 13: acme/nlp/bob used more than it deserves, acme/vision/ann "
        "less"
    )
    for each in decision.evictions:
        world.leave(each.job_id)
    assert [s.ask_id for s in world.cycle().starts] == ["j013"]
    assert world.settle()[-1].evictions == ()


def test_below_its_guarantee_it_is_served_in_one_cycle() -> None:
    """The whole pool is in use by those who borrow; the machine came back smaller."""
    queues = (Queue(path="acme/nlp"), Queue(path="acme/vision", guaranteed={"gpus/A100": 8000}))
    world = World(Pool(tenancy(*queues), machines=[node(0, 8), node(1, 8)]))
    for number in range(8):
        world.submit(job(number, 1, queue="acme/nlp/bob", preemptible=True, models=("A100",)))
    world.cycle()
    world.now_ms += OLD_S * 1000
    used = {run.placements[0].node_id for run in world.running.values()}
    assert len(used) == 1
    world.pool.drop_machine("n1" if used == {"n0"} else "n0")
    world.submit(job(12, 8, queue="acme/vision/ann", models=("A100",)))
    decision = world.cycle()
    assert len(decision.evictions) == 8
    assert decision.evictions[0].why == (
        "made room for acme/vision/ann's job 12, which is below acme/vision's guarantee of 8 A100"
    )


def test_nobody_falls_below_the_guarantee() -> None:
    queues = (Queue(path="a", guaranteed=gpus(3)), Queue(path="b", guaranteed=gpus(1)))
    world = full(*(job(n, 1, queue="a", preemptible=True) for n in range(3)), queues=queues)
    world.submit(job(8, 1, queue="b", preemptible=True))
    world.cycle()
    world.now_ms += OLD_S * 1000
    world.submit(job(9, 1, queue="b", urgency=0))
    decision = world.cycle()
    assert [(e.job_id, e.kind) for e in decision.evictions] == [("j008", "preempt")], "only its own"


def test_equal_borrowers_leave_each_other_alone() -> None:
    world = full(*(job(n, 1, queue="ab"[n % 2], preemptible=True) for n in range(4)))
    world.submit(job(8, 1, queue="a", preemptible=True))
    world.submit(job(9, 1, queue="b", preemptible=True))
    assert world.cycle().evictions == ()


# --- attained service


def served(number: int, size: float = 1, **more: object) -> Ask:
    return job(number, size, preemptible=True, checkpoint=True, **more)


def test_who_has_had_less_goes_before_who_has_had_more() -> None:
    world = full(served(1, 4), attained_service=True)
    world.submit(served(2, 4))
    assert [e.job_id for e in world.cycle().evictions] == ["j001"], "it has had 11 GPU hours"
    world.leave("j001")
    decision = world.cycle()
    assert [s.ask_id for s in decision.starts] == ["j002"]
    assert decision.wake_ms == world.now_ms + 600_000, "then it is no longer protected"
    world.now_ms += 600_000
    assert world.cycle().wake_ms == world.now_ms + 300_000, "then it has had one GPU hour"
    world.now_ms += 3_600_000 * 4
    assert world.cycle().evictions == (), "16 GPU hours are in one bucket with 11"
    world.now_ms += 3_600_000 * 13
    assert [e.job_id for e in world.cycle().evictions] == ["j002"], "68 are not"


def test_without_checkpoints_service_does_not_count() -> None:
    world = full(job(1, 4, preemptible=True), attained_service=True)
    world.submit(served(2, 4))
    assert world.cycle().evictions == ()


# --- moves


def test_moves_make_room_for_a_whole_machine() -> None:
    world = full(*(served(n, 2, estimate_s=100_000) for n in range(4)), nodes=2, consolidation=True)
    ends = [run.ask.id for run in world.running.values()]
    by_node: dict[str, list[str]] = {}
    for job_id in ends:
        by_node.setdefault(world.running[job_id].placements[0].node_id, []).append(job_id)
    for ids in by_node.values():
        world.end(ids[0])
    world.submit(job(9, 4))
    decision = world.cycle()
    assert [(e.kind, e.for_id) for e in decision.evictions] == [("consolidate", "j009")]
    (moved,) = decision.evictions
    assert moved.why == "moves to another place so that a's job 9 fits; it goes on there"
    world.submit(job(10, 2, queue="b", urgency=0))  # both places are spoken for
    assert world.cycle().starts == ()
    world.pool.withdraw("j010")
    del world.waiting["j010"]
    world.leave(moved.job_id)
    assert sorted(s.ask_id for s in world.cycle().starts) == sorted(["j009", moved.job_id])


def test_a_move_that_leaves_somebody_without_a_place_is_none() -> None:
    world = full(*(served(n, 2) for n in range(3)), nodes=2, consolidation=True)
    world.submit(job(9, 4))
    assert world.cycle().evictions == ()


def test_the_new_place_of_who_does_not_come_back_is_given_up() -> None:
    world = full(*(served(n, 2) for n in range(4)), nodes=2, consolidation=True)
    for place in ("n0", "n1"):
        world.end(next(i for i, run in world.running.items() if run.placements[0].node_id == place))
    world.submit(job(9, 4))
    (moved,) = world.cycle().evictions
    world.end(moved.job_id)
    decision = world.cycle()
    assert [s.ask_id for s in decision.starts] == ["j009"]
    world.submit(job(10, 2))
    decision = world.cycle()
    assert decision.starts == ()
    assert decision.wake_ms == world.now_ms + 60_000
    world.now_ms += 60_000
    assert len(world.cycle().starts) == 1


# --- laws


def fits_without(world: World, ask: Ask, gone: set[str]) -> bool:
    """The placer and the quotas, asked from scratch."""
    pool = Pool(world.pool.tenancy, machines=world.pool.inventory.machines().values())
    for job_id, run in world.running.items():
        if job_id not in gone:
            pool.running(msgspec.structs.replace(run, leaving=False))
    amounts = pool.equivalence_class(ask).variants[0].amounts
    found = pool.inventory.find(ask) is not None
    return found and pool.quotas.over(ask.queue, amounts) is None and pool.quotas.lends(ask.queue, amounts)


ASKS = st.lists(
    st.tuples(
        st.sampled_from([0.5, 1, 2, 4]),
        st.integers(1, 2),
        st.sampled_from(["a/x", "a/y", "b"]),
        st.integers(2, 4),
        st.booleans(),
    ),
    min_size=3,
    max_size=14,
)
LAWS = (Queue(path="a", guaranteed=gpus(2), deserved=gpus(4)), Queue(path="b", deserved=gpus(4)))


@given(ASKS, ASKS)
def test_victim_sets_are_minimal_and_evictions_end(
    first: list[tuple[float, int, str, int, bool]], then: list[tuple[float, int, str, int, bool]]
) -> None:
    world = World(Pool(tenancy(*LAWS, backfill="none", min_runtime_s=0), machines=[node(0), node(1)]))
    number = itertools.count()
    for size, nodes, queue, urgency, preemptible in first:
        world.submit(job(next(number), size, nodes, queue=queue, urgency=urgency, preemptible=preemptible))
    world.settle()
    world.now_ms += 1000
    for size, nodes, queue, urgency, preemptible in then:
        world.submit(job(next(number), size, nodes, queue=queue, urgency=urgency, preemptible=preemptible))
    evicted: dict[str, int] = {}
    for _ in range(100):
        before = dict(world.running)
        decision = world.cycle()
        by_taker: dict[str, set[str]] = {}
        for evict in decision.evictions:
            by_taker.setdefault(evict.for_id, set()).add(evict.job_id)
            evicted[evict.job_id] = evicted.get(evict.job_id, 0) + 1
        if len(by_taker) == 1 and not decision.starts:
            ((taker, victims),) = by_taker.items()
            ask = world.pool.nominated[taker].ask
            assert all(before[victim].ask.preemptible for victim in victims)
            assert fits_without(world, ask, victims)
            for kept in victims:
                assert not fits_without(world, ask, victims - {kept}), "one fewer would have done"
        for evict in decision.evictions:
            world.leave(evict.job_id)
        world.now_ms += 1
        if not decision.starts and not decision.evictions:
            break
    else:
        raise AssertionError("it goes round in circles")
