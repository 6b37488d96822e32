"""The spot policy: never late, not dearer than on-demand alone, and it comes back to spot."""

from __future__ import annotations

import random

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Resources
from argosy.model.scheduling import Scheduling
from argosy.model.task import Task
from argosy.planning.availability import Memory, Seen, note_spot, opens_ms, sightings
from argosy.planning.deadline import NextStep, Terms, next_step
from argosy.planning.spot_policy import (
    Sightings,
    Situation,
    Step,
    Where,
    ask_again_s,
    decide,
    expected_cost,
    spare_s,
)

HOUR = 3600
TICK_S = 300
TERMS = Terms(changeover_s=600, unsaved_s=900, react_s=TICK_S)


def a_choice(capacity: Capacity, zone: str = "a", price: int = 3) -> Choice:
    price = price if capacity is Capacity.ON_DEMAND else price - 2
    offer = Offer(
        provider="cloud",
        region="r",
        zone=zone,
        shape=Shape(instance_type="gpu"),
        capacity=capacity,
        price_micro_usd=price * 1_000_000,
    )
    return Choice(
        offer=offer,
        resources=Resources(),
        cpus_milli=0,
        memory_bytes=0,
        price_micro_usd=offer.price_micro_usd,
    )


STEADY = a_choice(Capacity.ON_DEMAND)
SPOTS = [a_choice(Capacity.SPOT, zone) for zone in "ab"]


def a_task(deadline_h: float, work_h: float, *, checkpoint: bool = True) -> Task:
    return Task(
        deadline_s=int(deadline_h * HOUR),
        estimated_s=int(work_h * HOUR),
        scheduling=Scheduling(checkpoint=checkpoint),
    )


def ask(
    task: Task,
    memory: Memory,
    now_h: float,
    done: float = 0.0,
    held: Choice | None = None,
    terms: Terms = TERMS,
) -> NextStep:
    step = next_step(
        (*SPOTS, STEADY),
        task,
        memory=memory,
        now_ms=int(now_h * HOUR * 1000),
        submitted_ms=0,
        done_fraction=done,
        held=held,
        terms=terms,
    )
    assert step is not None
    return step


class Player:
    """A job in a world where every zone has spot or not, tick by tick. A loss costs what was done since the
    last checkpoint, every start a changeover."""

    def __init__(self, task: Task, there: list[list[bool]]) -> None:
        self.task, self.there = task, there
        self.memory, self.again_ms = Memory(), 0
        self.held: Choice | None = None
        self.at_s = self.done_s = self.unsaved_s = self.starting_s = 0
        self.paid = 0.0

    def run(self) -> None:
        assert self.task.estimated_s is not None
        while self.done_s < self.task.estimated_s and self.at_s < 10 * HOUR * 24:
            self._look()
            if self.held is not None:
                self.paid += self.held.price_micro_usd * TICK_S / HOUR
                if self.starting_s > 0:
                    self.starting_s -= TICK_S
                else:
                    self.done_s += TICK_S
                    self.unsaved_s = (self.unsaved_s + TICK_S) % TERMS.unsaved_s
            self.at_s += TICK_S

    def _spot(self, choice: Choice) -> bool:
        zone = self.there["ab".index(choice.offer.zone)]
        return zone[min(self.at_s // TICK_S, len(zone) - 1)]

    def _look(self) -> None:
        now_ms = self.at_s * 1000
        held = self.held
        if held is not None and held.offer.capacity is Capacity.SPOT and not self._spot(held):
            self.memory = note_spot(self.memory, held, Seen.LOST, now_ms)
            self._stop()
        elif now_ms < self.again_ms:
            return
        while True:
            assert self.task.estimated_s is not None
            done = self.done_s / self.task.estimated_s
            step = ask(self.task, self.memory, self.at_s / HOUR, done, self.held)
            self.again_ms = step.again_ms
            if not step.choices:
                return
            first = step.choices[0]
            if first.offer.capacity is not Capacity.SPOT or self._spot(first):
                if first.offer.capacity is Capacity.SPOT:
                    self.memory = note_spot(self.memory, first, Seen.GRANTED, now_ms)
                self._stop()
                self.held, self.starting_s = first, TERMS.changeover_s
                return
            self.memory = note_spot(self.memory, first, Seen.REFUSED, now_ms)

    def _stop(self) -> None:
        self.held = None
        self.done_s -= self.unsaved_s
        self.unsaved_s = 0


def weather(seed: int, mean_there: float, mean_gone: float, ticks: int) -> list[bool]:
    dice, found = random.Random(seed), list[bool]()
    there = dice.random() < 0.5
    while len(found) < ticks:
        found += [there] * max(1, round(dice.expovariate(1 / (mean_there if there else mean_gone))))
        there = not there
    return found


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    work_h=st.sampled_from([2, 6, 12]),
    slack=st.sampled_from([0.1, 0.25, 0.5, 1.0]),
    there=st.sampled_from([2, 12, 60]),
    gone=st.sampled_from([2, 12, 60]),
)
def test_a_job_is_never_late_while_on_demand_is_there(
    seed: int, work_h: int, slack: float, there: int, gone: int
) -> None:
    task = a_task(work_h * (1 + slack) + 0.5, work_h)
    player = Player(task, [weather(seed + zone, there, gone, 1000) for zone in range(2)])
    player.run()
    assert task.deadline_s is not None and player.at_s <= task.deadline_s


def test_many_jobs_together_cost_less_than_on_demand() -> None:
    costs = []
    for seed in range(12):
        task = a_task(10, 8)
        player = Player(task, [weather(seed, 24, 12, 400), weather(seed + 99, 24, 12, 400)])
        player.run()
        costs.append(player.paid / (8 * 3_000_000))
    assert sum(costs) / len(costs) < 0.75 and max(costs) < 1.15


def test_where_spot_never_comes_the_slack_is_not_wasted_on_tries() -> None:
    player = Player(a_task(10, 8), [[False], [False]])
    player.run()
    assert player.paid == (8 * HOUR + TERMS.changeover_s) * 3_000_000 / HOUR


def test_a_refusal_holds_for_its_own_zone_only() -> None:
    task = a_task(36, 24)
    memory = note_spot(Memory(), SPOTS[0], Seen.REFUSED, 0)
    assert ask(task, memory, 0).choices == (SPOTS[1],)
    both = note_spot(memory, SPOTS[1], Seen.REFUSED, 0)
    waits = ask(task, both, 0)
    assert waits.step is Step.WAIT and waits.choices == ()
    assert 0 < waits.again_ms <= 60_000, "the first gaps are short: it asks again soon"
    assert ask(task, both, waits.again_ms / 1000 / HOUR).step is Step.SPOT


def test_it_waits_only_while_there_is_slack_and_comes_back_from_on_demand() -> None:
    task = a_task(26, 24)
    memory = Memory()
    for spot in SPOTS:
        memory = note_spot(memory, spot, Seen.REFUSED, int(1.6 * HOUR * 1000))
    forced = ask(task, memory, 1.7)
    assert (forced.step, forced.forced, forced.choices) == (Step.STEADY, True, (STEADY,))
    ahead = ask(task, Memory(), 6, 0.24, STEADY)
    assert ahead.step is Step.SPOT and ahead.choices == tuple(SPOTS), "it asks beside what it runs on"
    late = ask(task, Memory(), 6, 0.17, STEADY)
    assert late.step is Step.STEADY and late.choices == ()


def test_slack_is_spent_at_about_an_even_pace() -> None:
    """Of six hours a fifth at once; the rest as time goes by, which is kept for spot of later hours."""
    task, memory = a_task(30, 24), Memory()
    for spot in SPOTS:
        memory = note_spot(memory, spot, Seen.REFUSED, int(1.29 * HOUR * 1000))
    waits = ask(task, memory, 1.29)
    assert waits.step is Step.WAIT
    for spot in SPOTS:
        memory = note_spot(memory, spot, Seen.REFUSED, 2 * HOUR * 1000)
    ordered = ask(task, memory, 2)
    assert (ordered.step, ordered.forced, ordered.choices) == (Step.STEADY, False, (STEADY,))
    assert ask(task, Memory(), 2).step is Step.SPOT, "spot that is there costs no slack"
    assert ask(task, Memory(), 3, 0.8 / 24, STEADY).step is Step.STEADY, "nor is on-demand left too soon"
    assert ask(task, Memory(), 6, 3.8 / 24, STEADY).step is Step.SPOT


def test_a_wait_ends_when_the_pace_says_so() -> None:
    now = Situation(
        left_s=29 * HOUR,
        work_s=24 * HOUR,
        where=Where.NOTHING,
        open=False,
        changeover_s=600,
        whole_s=30 * HOUR,
        whole_work_s=24 * HOUR,
    )
    waits = decide(now)
    assert waits.step is Step.WAIT
    later = msgspec.structs.replace(now, left_s=now.left_s - waits.until_s)
    assert decide(later).step is Step.STEADY
    assert decide(msgspec.structs.replace(later, whole_s=None)).step is Step.WAIT, (
        "of itself it would wait on"
    )


def test_without_checkpoints_on_demand_is_not_left() -> None:
    task = a_task(40, 24, checkpoint=False)
    assert ask(task, Memory(), 0).step is Step.STEADY
    assert ask(task, Memory(), 12, 0.5, STEADY).step is Step.STEADY


def test_spot_alone_is_asked_again_and_again() -> None:
    step = next_step(SPOTS, a_task(26, 24), memory=Memory(), now_ms=0, submitted_ms=0)
    assert step is not None and step.choices == tuple(SPOTS)
    memory = Memory()
    for spot in SPOTS:
        memory = note_spot(memory, spot, Seen.REFUSED, 0)
    step = next_step(SPOTS, a_task(26, 24), memory=memory, now_ms=25 * HOUR * 1000, submitted_ms=0)
    assert step is not None and step.choices == tuple(SPOTS), "there is nothing else, late or not"


@pytest.mark.parametrize(
    "task",
    [Task(estimated_s=HOUR), Task(deadline_s=HOUR), Task(deadline_s=HOUR, estimated_s=HOUR, ordered=True)],
)
def test_the_policy_has_no_say_without_a_deadline_a_duration_or_a_choice(task: Task) -> None:
    assert next_step((*SPOTS, STEADY), task, memory=Memory(), now_ms=0, submitted_ms=0) is None
    assert next_step((STEADY,), a_task(3, 1), memory=Memory(), now_ms=0, submitted_ms=0) is None


def test_what_was_seen_of_a_place_is_summed_up() -> None:
    spot, minute = SPOTS[0], 60_000
    memory = note_spot(Memory(), spot, Seen.REFUSED, 0)
    memory = note_spot(memory, spot, Seen.REFUSED, 5 * minute)
    memory = note_spot(memory, spot, Seen.GRANTED, 10 * minute)
    memory = note_spot(memory, spot, Seen.LOST, 15 * minute)
    memory = note_spot(memory, spot, Seen.GRANTED, 20 * minute)
    memory = note_spot(memory, spot, Seen.LOST, 80 * minute)
    assert sightings(memory, spot, 90 * minute) == Sightings(
        there_s=65 * 60, grants=2, losses=1, brief=1, missing_s=15 * 60, returns=2
    )
    assert sightings(memory, SPOTS[1], 90 * minute) == Sightings()
    assert opens_ms(memory, spot, 80 * minute) == 81 * minute
    left = note_spot(note_spot(memory, spot, Seen.GRANTED, 90 * minute), spot, Seen.LEFT, 100 * minute)
    assert opens_ms(left, spot, 100 * minute) == 100 * minute, "what was given back may be there"
    assert note_spot(memory, STEADY, Seen.REFUSED, 0) is memory


def test_on_demand_is_not_left_again_at_once_for_a_place_that_took_spot_back_too_soon() -> None:
    spot, minute, memory = SPOTS[0], 60_000, Memory()
    for lost_min, alone_min in ((10, 60), (110, 120)):
        memory = note_spot(memory, spot, Seen.GRANTED, (lost_min - 10) * minute)
        memory = note_spot(memory, spot, Seen.LOST, lost_min * minute)
        assert opens_ms(memory, spot, lost_min * minute) == (lost_min + 1) * minute, "who is idle asks soon"
        assert opens_ms(memory, spot, lost_min * minute, leaves=True) == (lost_min + alone_min) * minute
    memory = note_spot(note_spot(memory, spot, Seen.GRANTED, 200 * minute), spot, Seen.LOST, 400 * minute)
    assert opens_ms(memory, spot, 400 * minute, leaves=True) == 401 * minute, "that had paid"


def test_places_are_left_alone_the_longer_the_longer_they_are_missing() -> None:
    often = Sightings(missing_s=100 * 600, returns=100)
    assert ask_again_s(0, often) == 60 and ask_again_s(7200, often) < 120
    rare = Sightings(missing_s=40 * HOUR, returns=2)
    assert (
        ask_again_s(0, rare) == 60 and ask_again_s(1200, rare) == 300 and ask_again_s(9 * HOUR, rare) == 600
    )


situations = st.builds(
    Situation,
    left_s=st.integers(60, 200 * HOUR),
    work_s=st.integers(60, 150 * HOUR),
    where=st.sampled_from(Where),
    open=st.booleans(),
    changeover_s=st.integers(1, HOUR),
    unsaved_s=st.integers(0, HOUR),
    spot_share=st.floats(0.05, 0.95),
    places=st.integers(1, 40),
)


@settings(max_examples=40, deadline=None)
@given(now=situations)
def test_every_situation_has_an_answer_that_is_safe(now: Situation) -> None:
    decision = decide(now)
    assert decision.until_s > 0 and 0 <= expected_cost(now) <= now.work_s + now.changeover_s
    if now.where is Where.NOTHING and spare_s(now) < 0:
        assert decision.step is Step.STEADY and decision.forced
    if decision.step is Step.SPOT and now.where is not Where.SPOT:
        assert now.open and spare_s(now) >= now.changeover_s + now.unsaved_s
    if decision.step is Step.WAIT:
        assert spare_s(now) >= 0 and decision.until_s <= spare_s(now) + 1
