"""Deadlines: the formulas against the model played with dice, and the words."""

from __future__ import annotations

import random
from statistics import fmean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.model.offer import Capacity, Choice, Offer, Shape
from argosy.model.resources import Resources
from argosy.model.scheduling import Scheduling
from argosy.model.task import StorageMount, Task
from argosy.model.units import render_price
from argosy.planning.deadline import order_choices
from argosy.planning.objective import Known, Run
from argosy.planning.outlook import DeadlineAsk, DeadlinePlan, Outlook, Policy, hazard_per_hour, plan_deadline

HOUR = 3600
DOLLAR = 1_000_000


def at(
    price: int, capacity: Capacity = Capacity.ON_DEMAND, region: str = "us-east-1", kind: str = "p4d.24xlarge"
) -> Choice:
    offer = Offer(
        provider="aws",
        region=region,
        shape=Shape(instance_type=kind),
        capacity=capacity,
        price_micro_usd=price * DOLLAR,
    )
    return Choice(
        offer=offer, resources=Resources(), cpus_milli=0, memory_bytes=0, price_micro_usd=price * DOLLAR
    )


ON_DEMAND = at(32)
SPOT = at(10, Capacity.SPOT, "us-east-2")


def of(plan: DeadlinePlan, policy: Policy) -> Outlook:
    return next(each for each in plan.outlooks if each.policy is policy)


def play(ask: DeadlineAsk, hazard: float, dice: random.Random) -> tuple[float, float]:
    """(finish, dollars) of one run on spot. Written from the words of the model."""
    work = ask.estimated_s * (1 - ask.progress)
    pieces = 1 if not ask.checkpoint_s else max(1, -int(-work // ask.checkpoint_s))
    piece = work / pieces
    rate = hazard * ask.num_nodes / HOUR
    clock, paid, done = float(ask.start_s), ask.start_s * 10.0, 0
    while done < pieces:
        alive = dice.expovariate(rate) if rate else float("inf")
        if alive >= piece:
            clock, paid, done = clock + piece, paid + piece * 10, done + 1
            continue
        clock, paid = clock + alive + ask.recovery_s, paid + (alive + ask.recovery_s) * 10
    return clock, paid / HOUR


CASES = [
    (DeadlineAsk(deadline_s=36 * HOUR, estimated_s=30 * HOUR), 0.1),
    (DeadlineAsk(deadline_s=32 * HOUR, estimated_s=30 * HOUR), 0.1),
    (DeadlineAsk(deadline_s=40 * HOUR, estimated_s=30 * HOUR, num_nodes=4, recovery_s=900), 0.2),
    (DeadlineAsk(deadline_s=12 * HOUR, estimated_s=5 * HOUR, checkpoint_s=None), 0.2),
    (DeadlineAsk(deadline_s=26 * HOUR, estimated_s=20 * HOUR, progress=0.5, checkpoint_s=2 * HOUR), 0.3),
]


@pytest.mark.parametrize(("ask", "hazard"), CASES)
def test_the_formulas_are_what_dice_give(ask: DeadlineAsk, hazard: float) -> None:
    plan = plan_deadline([ON_DEMAND, SPOT], ask, hazard=lambda choice: hazard)
    spot = of(plan, Policy.SPOT)
    dice, runs = random.Random(7), 6000
    played = [play(ask, hazard, dice) for _ in range(runs)]
    assert fmean(finish <= ask.deadline_s for finish, _ in played) == pytest.approx(
        spot.probability, abs=0.03
    )
    assert fmean(dollars for _, dollars in played) == pytest.approx(spot.cost_micro_usd / DOLLAR, rel=0.025)
    assert fmean(finish for finish, _ in played) == pytest.approx(spot.finish_s, rel=0.025)


asks = st.builds(
    DeadlineAsk,
    deadline_s=st.integers(1, 400 * HOUR),
    estimated_s=st.integers(1, 300 * HOUR),
    progress=st.floats(0, 1),
    start_s=st.integers(0, HOUR),
    recovery_s=st.integers(0, 2 * HOUR),
    checkpoint_s=st.none() | st.integers(60, 12 * HOUR),
    num_nodes=st.integers(1, 64),
)


@given(ask=asks, hazard=st.floats(0, 2))
def test_numbers_stay_numbers_and_the_choice_is_the_cheapest_that_is_in_time(
    ask: DeadlineAsk, hazard: float
) -> None:
    plan = plan_deadline([ON_DEMAND, SPOT], ask, hazard=lambda choice: hazard)
    for each in plan.outlooks:
        assert 0 <= each.probability <= 1
        assert each.cost_micro_usd >= 0 and each.losses >= 0
    good = [each for each in plan.outlooks if each.probability >= ask.confidence]
    if plan.chosen is None:
        assert not good and plan.error() is not None and plan.earliest is not None
    else:
        assert plan.chosen.cost_micro_usd <= 1.001 * min(each.cost_micro_usd for each in good)
        assert plan.error() is None


@given(hours=st.integers(1, 100), extra=st.integers(0, 100), hazard=st.floats(0.001, 1))
def test_more_time_never_lowers_the_chance_and_more_losses_never_raise_it(
    hours: int, extra: int, hazard: float
) -> None:
    def chance(deadline_h: int, rate: float) -> float:
        ask = DeadlineAsk(deadline_s=deadline_h * HOUR, estimated_s=hours * HOUR)
        return of(plan_deadline([SPOT], ask, hazard=lambda choice: rate), Policy.SPOT).probability

    due = hours + 2
    assert chance(due + extra, hazard) >= chance(due, hazard) - 0.02
    assert chance(due, hazard * 2) <= chance(due, hazard) + 0.02


def test_spot_that_is_never_lost_is_simply_cheap() -> None:
    ask = DeadlineAsk(deadline_s=10 * HOUR, estimated_s=6 * HOUR, start_s=0)
    plan = plan_deadline([ON_DEMAND, SPOT], ask, hazard=lambda choice: 0.0, name="`train`")
    assert plan.chosen is not None and plan.chosen.probability == 1
    assert plan.chosen.cost_micro_usd == 60 * DOLLAR
    assert (
        plan.text
        == "`train` runs on spot aws/us-east-2 p4d.24xlarge: 100% chance of being done by the deadline of "
        "10h, "
        "for $60.00 expected with 0 losses; on-demand would cost $192.00"
    )


def test_the_mixed_policy_explains_itself() -> None:
    ask = DeadlineAsk(deadline_s=36 * HOUR, estimated_s=33 * HOUR)
    plan = plan_deadline([ON_DEMAND, SPOT], ask, hazard=lambda choice: 0.1, name="`train`")
    assert plan.chosen is not None and plan.chosen.policy is Policy.MIXED
    spot, on_demand = of(plan, Policy.SPOT), of(plan, Policy.ON_DEMAND)
    assert spot.cost_micro_usd < plan.chosen.cost_micro_usd < on_demand.cost_micro_usd
    assert plan.text == (
        "`train` starts on spot aws/us-east-2 p4d.24xlarge; when that is taken back it asks other places, "
        "waits while there is slack, or runs on-demand on aws/us-east-1 p4d.24xlarge and comes back to spot; "
        "on-demand at the latest 2h 50m from now: done by the deadline of 36h for "
        f"{render_price(plan.chosen.cost_micro_usd)} expected; on-demand would cost $1,058.67, "
        "spot would cost $344.86 with a chance of 95.1% only"
    )


def test_a_tight_deadline_takes_on_demand() -> None:
    ask = DeadlineAsk(deadline_s=6 * HOUR + 400, estimated_s=6 * HOUR)
    plan = plan_deadline([ON_DEMAND, SPOT], ask, hazard=lambda choice: 0.3, name="`train`")
    assert plan.text == (
        "`train` runs on-demand on aws/us-east-1 p4d.24xlarge: done in 6h 5m, before the deadline of 6h "
        "6m, for $194.67; "
        "spot would cost $68.80 with a chance of 16.5% only"
    )


def test_a_deadline_that_cannot_be_met_says_what_is_the_earliest_and_its_price() -> None:
    ask = DeadlineAsk(deadline_s=10 * HOUR, estimated_s=12 * HOUR)
    plan = plan_deadline([ON_DEMAND, SPOT], ask, name="`train`")
    error = plan.error()
    assert plan.chosen is None and error is not None
    assert error.what == (
        "the deadline of 10h cannot be met: the earliest finish of `train` is in 12h 5m, on aws/us-east-1 "
        "p4d.24xlarge "
        "on-demand for $386.67"
    )
    assert (
        error.hint
        == "set `deadline: 12.1h`, ask for faster accelerators, or for more nodes if the task scales with "
        "them"
    )


def test_spot_alone_that_may_be_late_says_so() -> None:
    ask = DeadlineAsk(deadline_s=10 * HOUR, estimated_s=9 * HOUR)
    plan = plan_deadline([SPOT], ask, hazard=lambda choice: 0.2)
    assert plan.text == (
        "the deadline of 10h cannot be met with 99% confidence: the earliest finish of the task is in 9h "
        "51m, on "
        "aws/us-east-2 p4d.24xlarge spot, with a chance of 63.7% to be in time, for $98.64 expected"
    )
    assert plan.hint == "allow on-demand (`use_spot: false`), or give it more time"


def test_nothing_fits_at_all() -> None:
    plan = plan_deadline([], DeadlineAsk(deadline_s=60, estimated_s=60))
    assert plan.text == "the deadline of 1m cannot be met: nothing fits the task"


def test_faster_machines_are_known_by_their_durations() -> None:
    fast = at(40, kind="p5.48xlarge")
    ask = DeadlineAsk(deadline_s=6 * HOUR, estimated_s=12 * HOUR)
    plan = plan_deadline([ON_DEMAND, fast], ask, durations=lambda c: (4 if c is fast else 12) * HOUR)
    assert plan.chosen is not None and plan.chosen.choice is fast


def test_published_bands_become_rates() -> None:
    assert hazard_per_hour(0, 0) == 0
    assert hazard_per_hour(0, 5) < hazard_per_hour(5, 10) < hazard_per_hour(20, 100) < 0.01


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match="progress"):
        plan_deadline([], DeadlineAsk(deadline_s=1, estimated_s=1, progress=2.0))


# --- in which order a launch or a recovery tries places --------------------------------------------

KEPT = Scheduling(checkpoint=True)
TRAIN = Task(name="train", deadline_s=36 * HOUR, estimated_s=30 * HOUR, scheduling=KEPT)


def kinds(choices: tuple[Choice, ...]) -> list[str]:
    return [choice.offer.capacity.value for choice in choices]


def test_spot_is_first_while_there_is_slack() -> None:
    choices, reason, _ = order_choices([ON_DEMAND, SPOT], TRAIN, now_ms=0, submitted_ms=0)
    assert kinds(choices) == ["spot", "on-demand"]
    assert (
        reason == "task `train` runs on spot aws/us-east-2 p4d.24xlarge: >99.9% chance of being done by the "
        "deadline of 36h, "
        "for $307.15 expected with 1.5 losses; on-demand would cost $962.67"
    )


@pytest.mark.parametrize(
    ("hours", "done", "first"), [(5, 0.1, "spot"), (6, 0.0, "on-demand"), (30, 0.9, "spot"), (30, 0.805, "on-demand")]  # noqa: E501
)  # fmt: skip
def test_a_recovery_without_slack_goes_on_demand(hours: int, done: float, first: str) -> None:
    order = order_choices(
        [ON_DEMAND, SPOT], TRAIN, now_ms=hours * HOUR * 1000, submitted_ms=0, done_fraction=done
    )
    assert kinds(order.choices)[0] == first, order.reason


def test_without_checkpoints_a_loss_is_the_whole_work() -> None:
    plain = Task(name="train", deadline_s=36 * HOUR, estimated_s=30 * HOUR)
    assert kinds(order_choices([SPOT, ON_DEMAND], plain, now_ms=0, submitted_ms=0).choices)[0] == "on-demand"
    mounted = Task(
        deadline_s=36 * HOUR, estimated_s=30 * HOUR, storage_mounts=(StorageMount(target="/c", name="c"),)
    )
    assert kinds(order_choices([SPOT, ON_DEMAND], mounted, now_ms=0, submitted_ms=0).choices)[0] == "spot"


def test_a_deadline_that_passed_orders_by_the_earliest_finish_and_says_so() -> None:
    order = order_choices(
        [SPOT, ON_DEMAND], TRAIN, now_ms=39 * HOUR * 1000, submitted_ms=0, done_fraction=0.5
    )
    assert order.reason == (
        "the deadline passed 3h ago: the earliest finish of task `train` is in 15h 5m, on aws/us-east-1 "
        "p4d.24xlarge "
        "on-demand for $482.67"
    )
    assert kinds(order.choices) == ["on-demand", "spot"]


def test_of_two_deadlines_the_earlier_counts_and_progress_shortens_the_work() -> None:
    task = Task(
        deadline_s=36 * HOUR, deadline_at_ms=20 * HOUR * 1000, estimated_s=30 * HOUR, progress_milli=500
    )
    order = order_choices([ON_DEMAND], task, now_ms=0, submitted_ms=0)
    assert order.reason == (
        "the task runs on-demand on aws/us-east-1 p4d.24xlarge: done in 15h 5m, before the deadline of "
        "20h, for $482.67"
    )


def test_measured_runs_stand_in_for_the_estimate() -> None:
    task = Task(deadline_s=10 * HOUR)
    assert order_choices([SPOT], task, now_ms=0, submitted_ms=0).reason == (
        "the deadline is not weighed: `estimated_hours` is not known"
    )
    known = Known(runs=(Run(instance_type="p4d.24xlarge", duration_s=2 * HOUR),))
    reason = order_choices([ON_DEMAND], task, now_ms=0, submitted_ms=0, known=known).reason
    assert "done in 2h 5m" in reason


def test_the_objective_orders_without_a_deadline() -> None:
    fast = at(50, kind="p5.48xlarge")
    runs = (
        Run(instance_type="p4d.24xlarge", duration_s=4 * HOUR),
        Run(instance_type="p5.48xlarge", duration_s=HOUR),
    )
    task = Task(objective="time")
    order = order_choices([ON_DEMAND, fast], task, now_ms=0, submitted_ms=0, known=Known(runs=runs))
    assert order == ((fast, ON_DEMAND), "", None)
    assert order_choices([ON_DEMAND, fast], Task(), now_ms=0, submitted_ms=0).choices == (ON_DEMAND, fast)


@given(
    prices=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    spots=st.lists(st.booleans(), min_size=12, max_size=12),
    ordered=st.booleans(),
    left=st.integers(-10, 60),
    done=st.floats(0, 1),
)
def test_an_order_is_a_permutation(
    prices: list[int], spots: list[bool], ordered: bool, left: int, done: float
) -> None:
    choices = [
        at(price, Capacity.SPOT if spot else Capacity.ON_DEMAND, f"r{index}")
        for index, (price, spot) in enumerate(zip(prices, spots, strict=False))
    ]
    task = Task(deadline_s=36 * HOUR, estimated_s=20 * HOUR, ordered=ordered, scheduling=KEPT)
    now_ms = (36 - left) * HOUR * 1000
    order = order_choices(choices, task, now_ms=now_ms, submitted_ms=0, done_fraction=done)
    assert set(order.choices) == set(choices) and len(order.choices) == len(choices)
    again = order_choices(choices, task, now_ms=now_ms, submitted_ms=0, done_fraction=done)
    assert order == again and order.reason
