"""Nobody takes turns for ever: evictions come at intervals that double, and between them the pool rests."""

from __future__ import annotations

import math

from hypothesis import example, given
from hypothesis import strategies as st
from pool_world import World, gpus, job, node, tenancy

from argosy.model.tenancy import Queue, SharePolicy
from argosy.scheduler.ask import Ask
from argosy.scheduler.pool import Pool
from argosy.scheduler.preempt import DOUBLINGS_MAX, guarded_ms

PROTECTED_S = 60
HORIZON_MS = 100 * PROTECTED_S * 1000

Row = tuple[str, int, int, int]  # queue, GPUs, urgency, priority


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    queues = draw(st.sampled_from([("a", "b"), ("a", "b", "c"), ("a/x", "a/y", "b")]))
    row = st.tuples(st.sampled_from(queues), st.integers(1, 5), st.integers(2, 3), st.integers(0, 1))
    return draw(st.lists(row, min_size=2, max_size=9))


def evictions_until_horizon(world: World) -> int:
    """All jobs run for ever; who is evicted has left at once. After every moment at which something could
    change, it rests."""
    until_ms, count = world.now_ms + HORIZON_MS, 0
    while world.now_ms <= until_ms:
        decisions = world.settle()
        count += sum(len(decision.evictions) for decision in decisions)
        assert not decisions[-1].starts and not decisions[-1].evictions
        wake_ms = decisions[-1].wake_ms
        if wake_ms is None:
            break
        assert wake_ms > world.now_ms
        world.now_ms = wake_ms
    return count


#: Of ten GPUs `a` gets six, then `b` has three and waits with 2 and with 4: each reclaim takes free room,
#: too, and what it leaves over is what the other takes next. Without doubling this goes on once a minute.
TURNS = [("b", 4), ("b", 3), ("b", 2), ("b", 4), ("b", 1), ("a", 6), ("b", 6)]


@given(st.integers(3, 10), rows(), st.booleans(), st.integers(0, 4))
@example(10, [(queue, wants, 3, 0) for queue, wants in TURNS], True, 0)
def test_evictions_are_bounded_by_jobs_and_the_logarithm_of_time(
    size: int, jobs: list[Row], paced: bool, deserved: int
) -> None:
    queues = (Queue(path="b", deserved=gpus(min(deserved, size))),) if deserved else ()
    pool = Pool(tenancy(*queues, min_runtime_s=PROTECTED_S, aging_s=10**9), machines=[node(0, size)])
    world = World(pool)
    start_ms, count = world.now_ms, 0
    for number, (queue, wants, urgency, priority) in enumerate(jobs):
        world.submit(job(number, wants, queue=queue, urgency=urgency, priority=priority, preemptible=True))
        if paced:
            count += sum(len(decision.evictions) for decision in world.settle())
            world.now_ms += PROTECTED_S * 1000 + 1000
    count += evictions_until_horizon(world)
    spent = max(world.now_ms - start_ms, PROTECTED_S * 1000) / (PROTECTED_S * 1000)
    assert count <= len(jobs) * (1 + math.log2(spent))


def test_protection_doubles_with_every_eviction_up_to_a_bound() -> None:
    policy = SharePolicy(min_runtime_s=600)

    def after(evictions: int) -> int:
        return guarded_ms(Ask(id="j", needs=(), evictions=evictions), policy)

    assert [after(k) // 1000 for k in (0, 1, 2, 3)] == [600, 1200, 2400, 4800]
    assert after(DOUBLINGS_MAX) == after(99) == 600_000 * 1024


def test_how_often_it_made_room_does_not_change_its_class() -> None:
    pool = Pool(machines=[node(0)])
    assert pool.order.shape(job(1)) == pool.order.shape(job(2, evictions=3))
