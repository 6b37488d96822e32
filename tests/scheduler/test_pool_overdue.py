"""Attained service orders jobs, and no job waits or is preempted without end."""

from __future__ import annotations

import random
from dataclasses import dataclass, field

import msgspec
import pytest
from pool_world import World, job, node, tenancy

from argosy.model.tenancy import SharePolicy
from argosy.scheduler.ask import Ask
from argosy.scheduler.order import EVICTIONS_MAX, OVERDUE, OVERDUE_BUCKET, Order, overdue_ms, place_of
from argosy.scheduler.pool import Pool

AGING_S, GUARD_S = 600, 60
LIMIT_S = OVERDUE * AGING_S
POLICY = SharePolicy(attained_service=True, aging_s=AGING_S, min_runtime_s=GUARD_S)


def batch(number: int, gpus: int, submitted_ms: int, length_s: int) -> Ask:
    return job(
        number,
        gpus,
        urgency=3,
        preemptible=True,
        checkpoint=True,
        submitted_ms=submitted_ms,
        estimate_s=length_s,
    )


@dataclass
class Trace:
    """One queue on a machine of four GPUs, in virtual time, with whoever must go gone at once."""

    arrivals: list[Ask]
    ended_ms: dict[str, int] = field(default_factory=dict)
    evictions: dict[str, int] = field(default_factory=dict)
    overdue_s: dict[str, int] = field(default_factory=dict)  # the lengths of those that became overdue

    def __post_init__(self) -> None:
        policy = {name: getattr(POLICY, name) for name in ("attained_service", "aging_s", "min_runtime_s")}
        self.world = World(Pool(tenancy(**policy), machines=[node(0)]))

    def play(self, until_ms: int) -> None:
        world, to_come = self.world, sorted(self.arrivals, key=lambda ask: ask.submitted_ms)
        wake_ms: int | None = None
        while to_come or world.running or world.waiting:
            ends = {self.end_of(id): id for id in world.running}
            times = [*ends, *(each.submitted_ms for each in to_come[:1]), *([wake_ms] if wake_ms else [])]
            world.now_ms = max(world.now_ms, min(times))
            if world.now_ms >= until_ms:
                return
            for id in [id for id in world.running if self.end_of(id) <= world.now_ms]:
                world.end(id)
                self.ended_ms[id] = world.now_ms
            while to_come and to_come[0].submitted_ms <= world.now_ms:
                world.submit(to_come.pop(0))
            while True:
                decision = world.cycle()
                for evict in decision.evictions:
                    self.evictions[evict.job_id] = self.evictions.get(evict.job_id, 0) + 1
                    world.leave(evict.job_id)
                if not decision.evictions:
                    break
            wake_ms = decision.wake_ms
            for ask in world.waiting.values():
                if overdue_ms(ask, POLICY) <= world.now_ms:
                    assert ask.estimate_s is not None
                    self.overdue_s[ask.id] = ask.estimate_s

    def end_of(self, job_id: str) -> int:
        run = self.world.running[job_id]
        assert run.ask.estimate_s is not None
        done_ms = run.ask.attained // (run.ask.needs[0].gpu_milli)
        return run.started_ms + run.ask.estimate_s * 1000 - done_ms

    def wait_s(self, ask: Ask) -> float:
        assert ask.estimate_s is not None
        return (self.ended_ms[ask.id] - ask.submitted_ms) / 1000 - ask.estimate_s


def stream(dice: random.Random, count: int, *, every_s: int, lengths_s: tuple[int, int]) -> list[Ask]:
    at_ms, found = 1_000_000, []
    for number in range(2, 2 + count):
        at_ms += 1000 * dice.randint(1, 2 * every_s)
        found.append(batch(number, dice.choice([1, 1, 2, 4]), at_ms, dice.randint(*lengths_s)))
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_long_job_is_not_kept_out_by_ever_new_short_ones(seed: int) -> None:
    """It asks for the whole machine for ten hours, and has had two; more short jobs come than the machine can
    run."""
    long = msgspec.structs.replace(
        batch(1, 4, 1_000_000 - 7_200_000, 36_000), attained=7_200 * 4_000_000, number=1
    )
    trace = Trace([long, *stream(random.Random(seed), 400, every_s=120, lengths_s=(200, 400))])
    trace.play(1_000_000 + 90_000_000)
    assert trace.wait_s(long) <= LIMIT_S + GUARD_S
    assert trace.evictions.get(long.id, 0) <= EVICTIONS_MAX


@pytest.mark.parametrize("seed", range(12))
def test_nobody_waits_longer_than_for_those_that_are_overdue_too(seed: int) -> None:
    """Random traces, also with more work than there is room. Who is overdue waits for others that are, and
    for the end of one minimum-runtime guard; nobody is preempted more often than is allowed."""
    dice = random.Random(seed)
    arrivals = stream(dice, 60, every_s=dice.choice([300, 600, 1500]), lengths_s=(30, 9_000))
    trace = Trace(arrivals)
    trace.play(1 << 60)
    assert trace.ended_ms.keys() == {ask.id for ask in arrivals}
    for ask in arrivals:
        others_s = sum(length for id, length in trace.overdue_s.items() if id != ask.id)
        assert trace.wait_s(ask) <= LIMIT_S + GUARD_S + others_s
        assert trace.evictions.get(ask.id, 0) <= EVICTIONS_MAX


def test_what_it_has_run_is_no_wait_and_many_evictions_are_enough() -> None:
    ask = msgspec.structs.replace(batch(1, 4, 0, 100), attained=500 * 4_000_000)
    assert overdue_ms(ask, POLICY) == (LIMIT_S + 500) * 1000
    often = msgspec.structs.replace(ask, evictions=EVICTIONS_MAX)
    assert place_of(often, POLICY, 1)[1] == OVERDUE_BUCKET


def test_it_rises_when_it_becomes_overdue_and_the_cycle_is_woken_for_it() -> None:
    order = Order()
    order.advance(POLICY, 0)
    served = msgspec.structs.replace(batch(1, 4, 0, 100), attained=9 * 3_600_000 * 1000)
    order.add(served)
    order.add(batch(2, 4, 10, 100))
    order.advance(POLICY, AGING_S * 1000 + 10)
    assert [order.place(id) for id in ("j001", "j002")] == [2, 1]
    due_ms = order.next_ms()
    assert due_ms == overdue_ms(batch(2, 4, 10, 100), POLICY)
    order.advance(POLICY, overdue_ms(served, POLICY))
    assert [order.place(id) for id in ("j001", "j002")] == [1, 2]
