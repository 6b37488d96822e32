"""Virtual time: hours pass at once, the same seed is the same run, forgotten wake-ups are errors."""

from __future__ import annotations

import asyncio
import random

import pytest

from argosy.testing.virtual_time import (
    Deadlock,
    FixedClock,
    Livelock,
    SimClock,
    SimIds,
    VirtualLoop,
    run_virtual,
)


def test_sleeps_end_in_order_and_time_is_what_was_slept() -> None:
    seen: list[tuple[float, str]] = []

    async def sleeper(name: str, seconds: float) -> None:
        await asyncio.sleep(seconds)
        seen.append((asyncio.get_running_loop().time(), name))

    async def main() -> float:
        await asyncio.gather(sleeper("b", 86400.5), sleeper("a", 0.25), sleeper("c", 90000))
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 90000
    assert seen == [(0.25, "a"), (86400.5, "b"), (90000.0, "c")]


def test_odd_fractions_do_not_spin() -> None:
    async def main() -> float:
        for _ in range(10_000):
            await asyncio.sleep(0.1 / 3)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == pytest.approx(333.33, abs=0.1)


def test_waiting_for_what_never_comes_is_a_deadlock_that_names_the_task() -> None:
    async def main() -> None:
        await asyncio.create_task(asyncio.Event().wait(), name="the forgotten one")

    with pytest.raises(Deadlock, match="the forgotten one"):
        run_virtual(main())


def test_spinning_is_a_livelock() -> None:
    async def main() -> None:
        while True:
            await asyncio.sleep(0)

    with pytest.raises(Livelock):
        run_virtual(main())


def test_threads_become_calls_in_place() -> None:
    async def main() -> int:
        return await asyncio.to_thread(lambda: 42)

    async def failing() -> None:
        await asyncio.to_thread(lambda: 1 / 0)

    assert run_virtual(main()) == 42
    with pytest.raises(ZeroDivisionError):
        run_virtual(failing())


def test_timeouts_work() -> None:
    async def main() -> float:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(15):
                await asyncio.sleep(3600)
        return asyncio.get_running_loop().time()

    assert run_virtual(main()) == 15


def test_unawaited_failures_are_kept() -> None:
    async def main() -> list[str]:
        async def broken() -> None:
            raise ValueError("boom")

        task = asyncio.create_task(broken())
        await asyncio.sleep(1)
        del task
        await asyncio.sleep(1)
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        return loop.failures

    assert any("boom" in text for text in run_virtual(main()))


def test_left_over_tasks_are_ended() -> None:
    ended: list[str] = []

    async def worker() -> None:
        try:
            await asyncio.sleep(10**6)
        finally:
            ended.append("worker")

    async def main() -> None:
        task = asyncio.create_task(worker())
        await asyncio.sleep(1)
        assert not task.done()

    run_virtual(main())
    assert ended == ["worker"]


def test_global_dice_are_seeded_and_given_back() -> None:
    async def main() -> float:
        return random.random()

    random.seed(99)
    expected = random.Random(99).random()
    assert run_virtual(main(), seed=5) == run_virtual(main(), seed=5) != run_virtual(main(), seed=6)
    assert random.random() == expected


def test_wall_clock_can_step_and_monotonic_cannot() -> None:
    async def main() -> tuple[int, float]:
        clock = SimClock()
        before = clock.now_ms()
        await asyncio.sleep(10)
        clock.step_wall(-3_600_000)
        return clock.now_ms() - before, clock.monotonic_s()

    assert run_virtual(main()) == (10_000 - 3_600_000, 10.0)


def test_fixed_clock_moves_only_by_hand() -> None:
    clock = FixedClock(1000)
    clock.advance(2.5)
    assert (clock.now_ms(), clock.monotonic_s()) == (3500, 2.5)


def test_ids_are_seeded_and_rise() -> None:
    first, second = SimIds(1), SimIds(1)
    made = [first.new("job") for _ in range(100)]
    assert made == sorted(made) == [second.new("job") for _ in range(100)]
    assert SimIds(2).new("job") != made[0]
