"""When something starts is told as far as anything is known about what it waits for, and no further."""

from __future__ import annotations

from pool_world import World, job, node

from argosy.scheduler.estimate import CLASS_DEFAULT_S, History, is_guess, is_known, kinds_of, remember
from argosy.scheduler.pool import Pool


def world_of(*estimates_s: int | None) -> World:
    """One machine of four devices that is full, with jobs of one device each."""
    world = World(Pool(machines=[node(0)]))
    for number, estimate_s in enumerate(estimates_s):
        world.submit(job(number, 1, estimate_s=estimate_s))
    world.cycle()
    assert len(world.running) == len(estimates_s) == 4
    return world


def starts_in_s(world: World, job_id: str, *, when: bool = True) -> int | None:
    at_ms = world.pool.explain(job_id, world.now_ms, when=when).starts_at_ms
    return None if at_ms is None else (at_ms - world.now_ms) // 1000


def test_what_names_its_length_lets_others_be_told() -> None:
    world = world_of(100, 200, 300, 400)
    world.submit(job(10, 2, estimate_s=50))
    world.submit(job(11, 4, estimate_s=50))
    world.cycle()
    assert [starts_in_s(world, each) for each in ("j010", "j011")] == [200, 400]


def test_lists_tell_what_a_reservation_says() -> None:
    world = world_of(100, 200, 300, 400)
    world.submit(job(10, 3, estimate_s=50))
    world.submit(job(11, 1, estimate_s=10_000))  # somebody who could overtake it: so its room is reserved
    world.cycle()
    world.end("j000")
    world.cycle()
    assert [starts_in_s(world, each, when=False) for each in ("j010", "j011")] == [300, None]


def test_nothing_is_told_of_what_waits_for_something_unknown() -> None:
    world = world_of(100, None, None, None)
    world.submit(job(10, 1, estimate_s=50))
    world.submit(job(11, 2, estimate_s=50))
    world.cycle()
    assert is_guess(world.running["j001"].ask) and not is_guess(world.running["j000"].ask)
    assert [starts_in_s(world, each) for each in ("j010", "j011")] == [100, None]


def test_nor_of_what_comes_after_something_unknown_that_waits_itself() -> None:
    world = world_of(100, 100, 100, 100)
    world.submit(job(10, 4))
    world.submit(job(11, 4, estimate_s=50))
    world.cycle()
    assert CLASS_DEFAULT_S[3] is not None
    assert [starts_in_s(world, each) for each in ("j010", "j011")] == [100, None]


def test_the_answer_does_not_depend_on_who_was_asked_about_first() -> None:
    told = []
    for order in (("j010", "j011", "j012"), ("j012", "j011", "j010")):
        world = world_of(100, 200, 300, None)
        for number in (10, 11, 12):
            world.submit(job(number, 2, estimate_s=50))
        world.cycle()
        answers = {each: starts_in_s(world, each) for each in order}
        told.append([answers[each] for each in sorted(answers)])
    assert told[0] == told[1] == [200, 250, 300]


def test_who_is_kept_back_reads_no_time_that_nobody_knows() -> None:
    for estimate_s, ending in (
        (400, "which comes before it and starts in about 6m 40s."),
        (None, "which comes before it."),
    ):
        world = world_of(estimate_s, estimate_s, estimate_s, 300)
        world.submit(job(10, 4, estimate_s=50))
        world.submit(job(11, 1, estimate_s=10_000_000))
        world.cycle()
        world.end("j003")
        world.cycle()
        waiting = world.pool.explain("j011", world.now_ms)
        assert (waiting.code, waiting.place) == ("order", 2)
        assert waiting.text == f"There is room, but it is kept for a's job 10, {ending}"


def test_what_the_past_says_enough_about() -> None:
    history = History()
    mine = kinds_of(user="ann", name="train-1", gpu_milli=8000, project="vision")
    assert not is_known(history, mine)
    for _ in range(20):  # others of hers, of another size
        history = remember(history, kinds_of(user="ann", name="x", gpu_milli=0, project="vision"), 5)
    assert not is_known(history, mine)
    for known in (False, False, True):  # of this size
        history = remember(history, kinds_of(user="ann", name="y", gpu_milli=8000, project="vision"), 500)
        assert is_known(history, mine) is known
    assert is_known(
        remember(History(), kinds_of(user="ann", name="train-7", gpu_milli=8000, project="vision"), 60), mine
    )


def test_a_guess_is_reckoned_with_and_not_promised() -> None:
    world = World(Pool(machines=[node(0)]))
    world.submit(job(0, 4, estimate_s=60, guessed=True))
    world.cycle()
    world.submit(job(1, 4, estimate_s=60))
    world.cycle()
    assert world.pool.ends.next_ms() == world.running["j000"].started_ms + 60_000
    assert starts_in_s(world, "j001") is None
