"""Reservations: when, where, what may start before them, and that nobody delays them."""

from __future__ import annotations

import heapq

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pool_world import World, gpus, job, node, running, tenancy

from argosy.model.tenancy import Queue, SharePolicy, Tenancy
from argosy.scheduler.ask import Ask
from argosy.scheduler.pool import Pool

NOW = 1_000_000


def starts(world: World) -> list[str]:
    return [start.ask_id for start in world.cycle().starts]


def half_full(**policy: object) -> World:
    """n0 is in use for 100 s, n1 is free but for a gang of two nodes that comes first."""
    world = World(Pool(tenancy(**policy), machines=[node(0), node(1)]))
    world.submit(job(0, 4, estimate_s=100))
    assert starts(world) == ["j000"]
    world.submit(job(1, 4, nodes=2, estimate_s=50))
    return world


def test_who_is_over_before_may_overtake() -> None:
    world = half_full()
    world.submit(job(2, 2, estimate_s=100))
    world.submit(job(3, 2, estimate_s=101))
    decision = world.cycle()
    assert [(s.ask_id, s.why) for s in decision.starts] == [
        ("j002", "backfill: a's job 1 waits for room, and this is over before that can start")
    ]
    (kept,) = decision.reservations
    assert (kept.ask_id, kept.starts_at_ms) == ("j001", NOW + 100_000)
    assert decision.wake_ms == NOW + 100_000


def test_who_fits_beside_may_overtake() -> None:
    world = World(Pool(machines=[node(0), node(1, gpus=5)]))
    world.submit(job(0, 4, estimate_s=100))
    starts(world)
    world.submit(job(1, 4, nodes=2, estimate_s=50))
    world.submit(job(2, 2, estimate_s=1000))
    world.submit(job(3, 1, estimate_s=1000))
    decision = world.cycle()
    assert [(s.ask_id, s.why) for s in decision.starts] == [
        ("j003", "backfill: a's job 1 waits for room, and this does not delay it")
    ]
    assert decision.starts[0].placements[0].node_id == "n1"


def test_cpus_that_are_needed_then_are_kept_now() -> None:
    world = World(Pool(machines=[node(0, cpus=32)]))
    world.submit(job(0, 1, cpus=10, estimate_s=100))
    starts(world)
    world.submit(job(1, 1, cpus=30, estimate_s=100))  # 10 come back, 20 of the 22 free ones must stay free
    world.submit(job(2, 1, cpus=3, estimate_s=1000))
    world.submit(job(3, 1, cpus=2, estimate_s=1000))
    assert starts(world) == ["j003"]


def test_a_fraction_of_a_device_that_is_needed_whole() -> None:
    world = World(Pool(machines=[node(0, gpus=1)]))
    world.submit(job(0, 0.5, estimate_s=100))
    starts(world)
    world.submit(job(1, 1, estimate_s=100))
    world.submit(job(2, 0.5, estimate_s=1000))
    world.submit(job(3, 0.5, estimate_s=100))
    assert starts(world) == ["j003"]


def test_strict_order_waits() -> None:
    world = half_full(backfill="none")
    world.submit(job(2, 1, estimate_s=1))
    world.submit(job(3, 1, queue="b", estimate_s=1, urgency=4))
    first = world.cycle()
    assert first.starts == ()
    assert first.reservations == ()
    world.submit(job(4, 1, queue="b", estimate_s=1))  # another queue that has nothing comes first
    assert starts(world) == ["j004"]


@pytest.mark.parametrize("mode", ["easy", "conservative"])
def test_conservative_keeps_room_for_all(mode: str) -> None:
    world = World(Pool(tenancy(backfill=mode), machines=[node(0)]))
    world.submit(job(0, 3, estimate_s=100))
    starts(world)
    world.submit(job(1, 4, estimate_s=100))  # from 100 on
    world.submit(job(2, 4, estimate_s=100))  # from 200 on, only when that is conservative
    world.submit(job(3, 1, estimate_s=100))
    decision = world.cycle()
    assert [s.ask_id for s in decision.starts] == ["j003"]
    kept = {each.ask_id: each.starts_at_ms - NOW for each in decision.reservations}
    assert kept == {"j001": 100_000} if mode == "easy" else {"j001": 100_000, "j002": 200_000}


def test_one_reservation_for_each_queue() -> None:
    world = World(Pool(machines=[node(0), node(1)]))
    for number in range(2):
        world.submit(job(number, 3, estimate_s=100 + 50 * number))
    starts(world)
    for number, queue in ((2, "b"), (3, "b"), (4, "c")):
        world.submit(job(number, 4, queue=queue, estimate_s=100))
    world.submit(job(9, 1, queue="d", estimate_s=1000, urgency=4))
    decision = world.cycle()
    assert decision.starts == ()
    kept = {
        each.ask_id: (each.starts_at_ms - NOW, each.placements[0].node_id) for each in decision.reservations
    }
    assert kept == {"j002": (100_000, "n0"), "j004": (150_000, "n1")}


def test_larger_jobs_of_a_queue_have_a_reservation_behind_its_first() -> None:
    world = World(Pool(machines=[node(0), node(1)]))
    for number in range(2):
        world.submit(job(number, 3, estimate_s=100 + 50 * number))
    starts(world)
    for number, size in ((2, 2), (3, 2), (4, 4), (5, 4)):
        world.submit(job(number, size, estimate_s=100))
    world.submit(job(9, 1, queue="d", estimate_s=1000, urgency=4))
    decision = world.cycle()
    assert [each.ask_id for each in decision.reservations] == ["j002", "j004"]


def test_an_overrun_moves_the_reservation_and_ends_nothing() -> None:
    world = half_full()
    world.submit(job(2, 4, estimate_s=150))
    assert world.cycle().reservations[0].starts_at_ms == NOW + 100_000
    world.now_ms = NOW + 100_000
    decision = world.cycle()
    assert decision.reservations[0].starts_at_ms == NOW + 200_000, "it is reckoned to need twice as long"
    assert (decision.starts, decision.evictions) == ((), ())
    world.now_ms = NOW + 110_000
    world.end("j000")
    assert starts(world) == ["j001"]


def test_an_early_end_starts_the_first_at_once() -> None:
    world = half_full()
    world.submit(job(2, 2, estimate_s=90))
    assert starts(world) == ["j002"]
    world.end("j000")
    assert starts(world) == []
    world.end("j002")
    assert starts(world) == ["j001"]


def test_services_are_not_expected_to_end() -> None:
    world = World(Pool(machines=[node(0)]))
    world.submit(job(0, 1, urgency=1))
    starts(world)
    world.submit(job(1, 4, estimate_s=10))  # for this nothing can be promised
    world.submit(job(2, 1, estimate_s=10_000))
    decision = world.cycle()
    assert [s.ask_id for s in decision.starts] == ["j002"]
    assert decision.reservations == ()


def test_a_gang_that_waits_for_a_limit_is_not_starved_by_its_own_queue() -> None:
    world = World(Pool(tenancy(Queue(path="a", limit=gpus(4))), machines=[node(0, gpus=8)]))
    world.submit(job(0, 1, estimate_s=100))
    starts(world)
    world.submit(job(1, 4, estimate_s=100))
    world.submit(job(2, 1, estimate_s=101))
    world.submit(job(3, 1, estimate_s=100))
    world.submit(job(4, 1, queue="b", estimate_s=1000))
    assert sorted(starts(world)) == ["j003", "j004"]
    world.now_ms += 100_000
    world.end("j000")
    assert starts(world) == []
    world.end("j003")
    assert starts(world) == ["j001"]


# --- nobody delays a reservation


def play(
    world: World, lengths: dict[str, int], later: list[tuple[int, Ask]]
) -> tuple[dict[str, int], dict[str, int]]:
    """Exact run times: (when each started, when it was promised to each that was the first to wait), in ms
    since NOW."""
    started = dict.fromkeys(world.running, 0)
    promised: dict[str, int] = {}
    ends = [(NOW + lengths[job_id] * 1000, job_id) for job_id in world.running]
    arrivals = sorted(((NOW + at, ask.id, ask) for at, ask in later), key=lambda row: row[:2])
    heapq.heapify(ends)
    while True:
        decision = world.cycle()
        for start in decision.starts:
            started[start.ask_id] = world.now_ms - NOW
            heapq.heappush(ends, (world.now_ms + lengths[start.ask_id] * 1000, start.ask_id))
        for each in decision.reservations[:1]:
            promised.setdefault(each.ask_id, each.starts_at_ms - NOW)
        times = [ends[0][0]] if ends else []
        times += [arrivals[0][0]] if arrivals else []
        if not times:
            return started, promised
        world.now_ms = min(times)
        while ends and ends[0][0] == world.now_ms:
            world.end(heapq.heappop(ends)[1])
        while arrivals and arrivals[0][0] == world.now_ms:
            world.submit(arrivals.pop(0)[2])


SHAPES = st.tuples(  # GPUs, nodes, seconds, CPUs, arrival
    st.sampled_from([0.5, 1, 2, 3, 4]),
    st.integers(1, 3),
    st.sampled_from([1, 2, 60, 61, 100, 300]),
    st.integers(1, 12),
    st.sampled_from([0, 1, 2, 1000, 3000, 60_000, 200_000]),
)


@given(st.lists(SHAPES, min_size=4, max_size=16), st.sampled_from(["easy", "conservative"]))
def test_no_job_delays_what_was_promised(shapes: list[tuple[float, int, int, int, int]], mode: str) -> None:
    """One queue: who is the first to wait starts at the promised time at the latest, whatever comes after it.
    (With several reservations one may move when somebody who comes before it starts earlier than
    promised.)"""
    world = World(
        Pool(Tenancy(policy=SharePolicy(backfill=mode, aging_s=10**6)), machines=[node(0), node(1), node(2)])
    )
    lengths, later = {}, []
    for number, (size, nodes, length_s, cpus, at) in enumerate(sorted(shapes, key=lambda each: each[-1])):
        ask = job(number, size, nodes, cpus=cpus, estimate_s=length_s, submitted_ms=NOW + at)
        lengths[ask.id] = length_s
        later.append((at, ask))
    started, promised = play(world, lengths, later)
    assert set(started) == set(lengths), "every job that fits starts in the end"
    for ask_id, at in promised.items():
        assert started[ask_id] <= at, ask_id


def test_the_law_is_not_empty() -> None:
    world = half_full()
    world.submit(job(2, 2, estimate_s=60))
    lengths = {"j000": 100, "j001": 50, "j002": 60}
    started, promised = play(world, lengths, [])
    assert promised == {"j001": 100_000}
    assert started == {"j000": 0, "j002": 0, "j001": 100_000}


def test_running_jobs_told_by_others_count() -> None:
    world = World(Pool(machines=[node(0)]))
    ask = job(0, 3, estimate_s=500)
    world.running[ask.id] = running(ask, ("n0", (0, 1, 2)), started_ms=NOW - 100_000)
    world.pool.running(world.running[ask.id])
    world.submit(job(1, 4, estimate_s=10))
    world.submit(job(2, 1, estimate_s=400))
    decision = world.cycle()
    assert decision.reservations[0].starts_at_ms == NOW + 400_000
    assert [s.ask_id for s in decision.starts] == ["j002"]
