"""Spot, on-demand, or spot until the last safe moment: which finishes by a deadline, with what chance, for
how much.

The mixed policy is the safety net of Wu et al., "Can't Be Late: Optimizing Spot Instance Savings under
Deadlines" (NSDI 2024): compute on spot while the slack lasts, and move to on-demand at the moment from which
only on-demand still makes it. Their traces say when spot can be had; here a rate of losses and a time to
recover stand for them.

Model. Work of W seconds is cut into K equal pieces of c seconds, each ended by a checkpoint. Losses come with
a constant rate h (all nodes of a gang together). A loss costs the part x of the present piece that was done
(an exponential time, cut at c) and r seconds of recovery. So a run on spot takes W + sum(x_i + r) over its
losses, whose number is negative binomial. The slack after which the mixed policy moves is S = D - start - W -
c - r: as long as at most S was lost, losing one more piece and moving still ends in time. Expected costs are
exact (Wald's identity: x_i do not depend on what stops the run); chances use the exact law for one loss and
the normal approximation for the sum of several x_i. `tests/planning/test_deadline.py` plays the model with
dice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final, NamedTuple

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.offer import Capacity, Choice
from argosy.model.resources import Resources
from argosy.model.task import Task
from argosy.model.units import render_duration, render_price
from argosy.planning.objective import Known, Objective, rank_by, runtime_of

#: Of one node, where nothing is published: one loss in 20 hours, as is common for scarce accelerators.
UNKNOWN_HAZARD_PER_HOUR: Final = 0.05
_NEVER: Final = 1e-3  # chance below which a move is not worth a word
_HOURS_A_MONTH: Final = 730.0
_LOSSES_MAX: Final = 20_000
WEIGHED: Final = 24  # choices of each capacity that are weighed against a deadline, the cheapest
_MACHINES_MAX: Final = 64  # other kinds of machines that are weighed as well
CHECKPOINT_S: Final = 1800  # taken to be between checkpoints, where there are any
_TINY: Final = 1e-12


class Policy(StrEnum):
    ON_DEMAND = "on-demand"  # anything that is not taken back: owned and reserved machines too
    SPOT = "spot"
    MIXED = "spot, then on-demand"


class DeadlineAsk(msgspec.Struct, frozen=True, kw_only=True):
    """What must be done by when. All in seconds from now."""

    deadline_s: int
    estimated_s: int  # of the whole task, on any of the choices unless `durations` says otherwise
    progress: float = 0.0  # part of it that is done already, 0 to 1
    start_s: int = 300  # from now until the first node computes
    recovery_s: int = 600  # from a loss until the work goes on, on spot or on-demand
    checkpoint_s: int | None = CHECKPOINT_S  # between checkpoints; None: there are none, a loss starts over
    num_nodes: int = 1
    confidence: float = 0.99  # a policy with a lower chance is not chosen


class Outlook(msgspec.Struct, frozen=True, kw_only=True):
    """What one policy is expected to do."""

    policy: Policy
    choice: Choice  # where it starts
    fallback: Choice | None = None  # on-demand of the mixed policy
    probability: float  # of finishing by the deadline
    cost_micro_usd: int  # expected, until it finishes
    finish_s: int  # expected, from now
    losses: float = 0.0  # expected number
    switch_probability: float = 0.0
    slack_s: int = 0  # MIXED: how much may be lost before it moves to on-demand


class DeadlinePlan(msgspec.Struct, frozen=True, kw_only=True):
    """The chosen policy, the others, and why. `chosen` None: the deadline cannot be met, `earliest` is the
    best there is."""

    chosen: Outlook | None
    outlooks: tuple[Outlook, ...]  # cheapest first
    earliest: Outlook | None
    text: str
    hint: str = ""

    def error(self) -> ArgosyError | None:
        """For faces that must stop here; None when the deadline can be met."""
        return None if self.chosen is not None else ArgosyError("no-offer", self.text, hint=self.hint)


def hazard_per_hour(low_pct: int, high_pct: int) -> float:
    """Rate of losses of one node from a published band of percent per month: its middle.

    >>> round(hazard_per_hour(5, 10), 6)
    0.000107
    """
    monthly = min(max((low_pct + high_pct) / 200, 0.0), 0.99)
    return -math.log1p(-monthly) / _HOURS_A_MONTH


def plan_deadline(
    choices: Sequence[Choice],
    ask: DeadlineAsk,
    *,
    hazard: Callable[[Choice], float | None] | None = None,
    durations: Callable[[Choice], int] | None = None,
    name: str = "the task",
) -> DeadlinePlan:
    """The policy with the lowest expected cost among those that meet the deadline with enough confidence.

    Args:
        choices: what fits, as `Plan.choices`; prices are for all nodes.
        hazard: losses of one node per hour by choice; None for one: `UNKNOWN_HAZARD_PER_HOUR`.
        durations: seconds of the whole task on a choice (measured or scaled); default: `ask.estimated_s`.
    """
    if not 0 <= ask.progress <= 1 or ask.estimated_s <= 0 or not 0 < ask.confidence <= 1:
        raise ValueError(
            "estimated_s must be above 0, progress between 0 and 1, confidence above 0 and at most 1"
        )
    works = [_work_s(choice, ask, durations) for choice in choices]
    steady = [
        (choice, work)
        for choice, work in zip(choices, works, strict=True)
        if choice.offer.capacity is not Capacity.SPOT
    ]
    outlooks = [_steady(choice, work, ask) for choice, work in steady]
    for choice, work in zip(choices, works, strict=True):
        if choice.offer.capacity is Capacity.SPOT:
            rate = None if hazard is None else hazard(choice)
            losses = _Losses(ask, work, UNKNOWN_HAZARD_PER_HOUR if rate is None else rate)
            outlooks.append(_spot(choice, ask, losses))
            for other in _fallbacks(steady, work):
                mixed = _mixed(choice, other, ask, losses)
                if mixed is not None:
                    outlooks.append(mixed)
    outlooks.sort(key=lambda each: (each.cost_micro_usd, -each.probability, each.finish_s, each.policy))
    good = [each for each in outlooks if each.probability >= ask.confidence]
    chosen = _simplest(good) if good else None
    if chosen is not None:
        text = _explain(chosen, outlooks, ask, name)
        return DeadlinePlan(
            chosen=chosen, outlooks=tuple(outlooks), earliest=_earliest(outlooks, ask), text=text
        )
    earliest = _earliest(outlooks, ask)
    return DeadlinePlan(
        chosen=None,
        outlooks=tuple(outlooks),
        earliest=earliest,
        text=_explain_late(earliest, ask, name),
        hint=_hint_late(earliest),
    )


def _simplest(good: Sequence[Outlook]) -> Outlook:
    """The first; spot alone for a move to on-demand that as good as never comes."""
    first = good[0]
    if first.policy is not Policy.MIXED or first.switch_probability >= _NEVER:
        return first
    limit = first.cost_micro_usd * (1 + _NEVER)
    same = (each for each in good if each.policy is Policy.SPOT and each.choice == first.choice)
    return next((each for each in same if each.cost_micro_usd <= limit), first)


def _work_s(choice: Choice, ask: DeadlineAsk, durations: Callable[[Choice], int] | None) -> float:
    whole = ask.estimated_s if durations is None else durations(choice)
    return max(1.0, whole * (1 - ask.progress))


def _fallbacks(steady: Sequence[tuple[Choice, float]], work: float) -> Iterator[Choice]:
    """On-demand places to move to: the cheapest that is not slower, as the pieces of work are counted in
    spot's seconds."""
    equal = [choice for choice, other in steady if other <= work]
    if equal:
        yield min(equal, key=lambda choice: choice.price_micro_usd)


def _cost(price_micro_usd: int, seconds: float) -> float:
    return price_micro_usd * seconds / 3600


def _steady(choice: Choice, work: float, ask: DeadlineAsk) -> Outlook:
    finish = ask.start_s + work
    return Outlook(
        policy=Policy.ON_DEMAND,
        choice=choice,
        probability=1.0 if finish <= ask.deadline_s else 0.0,
        cost_micro_usd=round(_cost(choice.price_micro_usd, finish)),
        finish_s=math.ceil(finish),
    )


class _Losses:
    """The law of losses of one task on one spot choice."""

    def __init__(self, ask: DeadlineAsk, work: float, hazard: float) -> None:
        self.work = work
        self.pieces = 1 if not ask.checkpoint_s else max(1, math.ceil(work / ask.checkpoint_s))
        self.piece = work / self.pieces
        self.recovery = float(max(1, ask.recovery_s))
        rate = max(0.0, hazard) * ask.num_nodes / 3600
        self.exponent = rate * self.piece
        self.fail = -math.expm1(-self.exponent)  # chance that a piece is lost
        h, c = self.exponent, self.piece
        if h < 1e-4:  # the closed forms cancel
            self.lost_mean, self.lost_var = c / 2, c * c / 12
        elif h > 500:
            self.lost_mean, self.lost_var = c / h, (c / h) ** 2
        else:
            grown = math.expm1(h)
            self.lost_mean = c / h - c / grown
            self.lost_var = max(0.0, (c / h) ** 2 - c * c * (grown + 1) / (grown * grown))

    def lost_within(self, count: int, seconds: float) -> float:
        """P(x_1 + ... + x_count <= seconds)."""
        if seconds < 0:
            return 0.0
        if count == 0 or seconds >= count * self.piece:
            return 1.0
        if count == 1:
            return -math.expm1(-self.exponent * seconds / self.piece) / self.fail
        deviation = math.sqrt(count * self.lost_var) or _TINY
        return 0.5 * math.erfc(-(seconds - count * self.lost_mean) / deviation / math.sqrt(2))

    def counts(self) -> Iterator[float]:
        """P(N = 0), P(N = 1), ... of losses before the last piece is done: negative binomial."""
        log_fail = math.log(self.fail) if self.fail > 0 else -math.inf
        # log(1 - fail) is -exponent exactly
        for n in range(_LOSSES_MAX):
            log_p = -self.exponent * self.pieces
            if n:
                log_p += (
                    math.lgamma(n + self.pieces)
                    - math.lgamma(n + 1)
                    - math.lgamma(self.pieces)
                    + n * log_fail
                )
            yield math.exp(log_p) if log_p > -745 else 0.0

    @property
    def mean_count(self) -> float:
        return self.pieces * math.expm1(self.exponent) if self.exponent < 700 else math.inf

    def within(self, budget: float) -> float:
        """P(everything that losses take <= budget)."""
        if budget < 0:
            return 0.0
        if self.fail <= 0:
            return 1.0
        total = seen = 0.0
        for n, chance in enumerate(self.counts()):
            rest = budget - n * self.recovery
            if rest < 0 or seen > 1 - _TINY:
                break
            seen += chance
            total += chance * self.lost_within(n, rest)
        return min(1.0, total)


class _Move(NamedTuple):
    """How a run goes that leaves spot when more than a slack was lost."""

    losses: float  # expected
    chance: float  # of leaving


def _moves(losses: _Losses, slack: float) -> _Move:
    """Sums over i of P(the i-th loss is met), and over n of P(it is the one that exhausts the slack)."""
    if losses.fail <= 0:
        return _Move(0.0, 0.0)
    met = left = 0.0
    at_least = 1.0  # P(N >= n)
    kept = 1.0  # P(the first n - 1 losses stay within the slack)
    counts = losses.counts()
    for n in range(1, _LOSSES_MAX):
        at_least -= next(counts)
        if at_least <= _TINY or kept <= _TINY:
            break
        met += kept * at_least
        keeps = min(kept, losses.lost_within(n, slack - n * losses.recovery))
        left += (kept - keeps) * at_least
        kept = keeps
    return _Move(met, min(1.0, left))


def _spot(choice: Choice, ask: DeadlineAsk, losses: _Losses) -> Outlook:
    price, count = choice.price_micro_usd, losses.mean_count
    # Without an end in sight the numbers say "years", not infinity.
    count = min(count, 1e6)
    seconds = ask.start_s + losses.work + count * (losses.lost_mean + losses.recovery)
    return Outlook(
        policy=Policy.SPOT,
        choice=choice,
        probability=losses.within(ask.deadline_s - ask.start_s - losses.work),
        cost_micro_usd=round(_cost(price, seconds)),
        finish_s=math.ceil(seconds),
        losses=count,
    )


def _mixed(spot: Choice, fallback: Choice, ask: DeadlineAsk, losses: _Losses) -> Outlook | None:
    """None: there is no slack, on-demand must be used from the start."""
    slack = ask.deadline_s - ask.start_s - losses.work - losses.piece - losses.recovery
    if slack < 0:
        return None
    move = _moves(losses, slack)
    # Wald: of all pieces tried, the part `fail` is lost; so what is done on spot follows from the losses.
    if losses.fail > 0:
        done = min(
            losses.work, (1 - losses.fail) / losses.fail * move.losses * losses.piece + _unmet(losses, move)
        )
    else:
        done = losses.work
    lost = move.losses * losses.lost_mean
    # Recovery is paid at the price of what is being started: spot, or on-demand for the move.
    on_spot = ask.start_s + done + lost + (move.losses - move.chance) * losses.recovery
    moved = losses.work - done + move.chance * losses.recovery
    cost = _cost(spot.price_micro_usd, on_spot) + _cost(fallback.price_micro_usd, moved)
    return Outlook(
        policy=Policy.MIXED,
        choice=spot,
        fallback=fallback,
        probability=1.0,
        cost_micro_usd=round(cost),
        finish_s=math.ceil(on_spot + moved),
        losses=move.losses,
        switch_probability=move.chance,
        slack_s=int(slack),
    )


def _unmet(losses: _Losses, move: _Move) -> float:
    """Rounding only: where losses are so rare that none is met, all the work is done on spot."""
    return losses.work if move.losses <= _TINY else 0.0


def _earliest(outlooks: Sequence[Outlook], ask: DeadlineAsk) -> Outlook | None:
    return min(outlooks, key=lambda each: (each.finish_s, each.cost_micro_usd), default=None)


# --- tasks -----------------------------------------------------------------------------------------


NOT_WEIGHED: Final = "the deadline is not weighed: `estimated_hours` is not known"


class Order(NamedTuple):
    """Choices in the order in which to try them, and why: what was chosen for the deadline, or that it cannot
    be met."""

    choices: tuple[Choice, ...]
    reason: str  # "": there is no deadline, the objective alone decides


class Weighed(NamedTuple):
    """An order, and the plan behind it."""

    choices: tuple[Choice, ...]
    reason: str
    plan: DeadlinePlan | None = (
        None  # None: there is no deadline, or nothing is known of how long the task runs
    )


def wishes_of(task: Task, *, managed: bool = True) -> tuple[Resources, ...]:
    """The candidates of `task` as places are asked for them.

    Who does not speak of spot does not get machines that are taken back, but for one case: a managed job with
    a deadline, which recovers and for which `order_choices` weighs both.
    """
    if managed and (task.deadline_s is not None or task.deadline_at_ms is not None):
        return task.resources
    return tuple(
        wish if wish.use_spot is not None else msgspec.structs.replace(wish, use_spot=False)
        for wish in task.resources
    )


def seconds_left(task: Task, *, now_ms: int, submitted_ms: int) -> int | None:
    """Until the deadline of `task`, the earlier of its two; below 0 when it has passed, None when it has
    none."""
    ends_ms = [] if task.deadline_s is None else [submitted_ms + task.deadline_s * 1000]
    if task.deadline_at_ms is not None:
        ends_ms.append(task.deadline_at_ms)
    return (min(ends_ms) - now_ms) // 1000 if ends_ms else None


def keeps_checkpoints(task: Task) -> bool:
    """Whether a loss costs the work since the last checkpoint, not all of it: the task says so, asks for
    recovery, or has storage mounted that lives on."""
    return (
        task.scheduling.checkpoint
        or any(wish.recovery.strategy for wish in task.resources)
        or any(mount.mode != "COPY" for mount in task.storage_mounts)
    )


def deadline_ask(task: Task, left_s: int) -> DeadlineAsk:
    """What to plan for `task` with `left_s` seconds until its deadline. Runtimes are told by choice
    (`durations`)."""
    return DeadlineAsk(
        deadline_s=left_s,
        estimated_s=max(1, task.estimated_s or 1),
        num_nodes=task.num_nodes,
        checkpoint_s=CHECKPOINT_S if keeps_checkpoints(task) else None,
    )


def order_choices(
    choices: Sequence[Choice],
    task: Task,
    *,
    now_ms: int,
    submitted_ms: int,
    done_fraction: float = 0.0,
    known: Known | None = None,
    hazard: Callable[[Choice], float | None] | None = None,
) -> Order:
    """`choices` as a launch, or a recovery, of `task` should try them.

    With a deadline: those that meet it with enough confidence, the lowest expected cost first; then the
    others, the most probable first. So a job that lost its spot machines goes on with spot while there is
    slack, and on demand when there is none. A deadline that cannot be met any more orders by the earliest
    finish and says so. Without a deadline the objective of the task orders, equals as they came. In order of
    preference (`task.ordered`) nothing moves but what would be late.

    Args:
        choices: what fits, as `Plan.choices`: cheapest or most preferred first, of spot and not of spot where
        both will do. now_ms, submitted_ms: the present, and when the task was submitted: a deadline of `12h`
        counts from then. done_fraction: part of the whole work that is done and kept, 0 to 1; at least
        `task.progress_milli` of it is. known: earlier runs and facts on accelerators; by default the estimate
        of the user is all that is known. hazard: losses of one node per hour by choice, as for
        `plan_deadline`.
    """
    found = weigh(
        choices,
        task,
        now_ms=now_ms,
        submitted_ms=submitted_ms,
        done_fraction=done_fraction,
        known=known,
        hazard=hazard,
    )
    return Order(found.choices, found.reason)


def weigh(
    choices: Sequence[Choice],
    task: Task,
    *,
    now_ms: int,
    submitted_ms: int,
    done_fraction: float = 0.0,
    known: Known | None = None,
    hazard: Callable[[Choice], float | None] | None = None,
) -> Weighed:
    """As `order_choices`, with the plan: its `error()` is what faces tell that must stop when the deadline
    cannot be met."""
    done = min(1.0, max(done_fraction, task.progress_milli / 1000))
    facts = msgspec.structs.replace(known or Known(estimated_s=task.estimated_s), progress=done)
    ranked = tuple(choices)
    if not task.ordered and Objective(task.objective) is not Objective.COST:
        best = rank_by(Objective(task.objective), ranked, task.num_nodes, facts).ranked
        ranked = tuple(each.choice for each in best)
    left_s = seconds_left(task, now_ms=now_ms, submitted_ms=submitted_ms)
    if left_s is None or not ranked:
        return Weighed(ranked, "")
    runtimes = {
        choice: seconds
        for choice in some_of_each(ranked)
        if (seconds := runtime_of(choice, task.num_nodes, facts).seconds) is not None
    }
    if not runtimes:
        return Weighed(ranked, NOT_WEIGHED)
    name = f"task `{task.name}`" if task.name else "the task"
    ask = deadline_ask(task, left_s)
    made = plan_deadline(tuple(runtimes), ask, hazard=hazard, durations=runtimes.__getitem__, name=name)
    best_of: dict[Choice, Outlook] = {}
    for outlook in made.outlooks:  # cheapest first
        known_best = best_of.get(outlook.choice)
        if known_best is None or known_best.probability < ask.confidence <= outlook.probability:
            best_of[outlook.choice] = outlook
    position = {choice: index for index, choice in reversed(list(enumerate(ranked)))}

    def key(choice: Choice) -> tuple[float, ...]:
        mine = best_of.get(choice)
        if mine is None:
            return 2, position[choice]
        if mine.probability >= ask.confidence:
            return 0, position[choice] if task.ordered else mine.cost_micro_usd, position[choice]
        return 1, -mine.probability, mine.finish_s, mine.cost_micro_usd, position[choice]

    return Weighed(tuple(sorted(ranked, key=key)), made.text, made)


def some_of_each(choices: Sequence[Choice]) -> list[Choice]:
    """Choices that are worth weighing: the first of each capacity, and the first of each further machine of
    it."""
    seen: dict[Capacity, int] = {}
    machines: dict[tuple[str, str, str], None] = {}
    found = []
    for choice in choices:
        offer = choice.offer
        machine = (offer.provider, offer.shape.instance_type, offer.capacity.value)
        fresh = machine not in machines and len(machines) < _MACHINES_MAX
        machines.setdefault(machine, None)
        count = seen[offer.capacity] = seen.get(offer.capacity, 0) + 1
        if count <= WEIGHED or fresh:
            found.append(choice)
    return found


# --- words -----------------------------------------------------------------------------------------


def _place(choice: Choice) -> str:
    offer = choice.offer
    parts = [part for part in (offer.provider, offer.region, offer.zone) if part]
    return "/".join(parts) + (f" {offer.shape.instance_type}" if offer.shape.instance_type else "")


def render_chance(probability: float) -> str:
    """
    >>> render_chance(1.0), render_chance(0.9996), render_chance(0.42), render_chance(0.0001), render_chance(0.0)
    ('100%', '>99.9%', '42%', '<0.1%', '0%')
    """  # noqa: E501
    if probability >= 1:
        return "100%"
    if probability > 0.999:
        return ">99.9%"
    if probability <= 0:
        return "0%"
    if probability < 0.001:
        return "<0.1%"
    return f"{probability * 100:.1f}".removesuffix(".0") + "%"


def _due(seconds: int) -> str:
    """Deadlines read in hours, as people write them."""
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else render_duration(seconds)


def _explain(chosen: Outlook, outlooks: Sequence[Outlook], ask: DeadlineAsk, name: str) -> str:
    price = render_price(chosen.cost_micro_usd)
    due = _due(ask.deadline_s)
    if chosen.policy is Policy.MIXED and chosen.fallback is not None:
        text = (
            f"{name} starts on spot {_place(chosen.choice)} and moves to on-demand "
            f"{_place(chosen.fallback)} when losses "
            f"have taken {render_duration(chosen.slack_s)} ({render_chance(chosen.switch_probability)} "
            "chance): "
            f"done by the deadline of {due} for {price} expected"
        )
    elif chosen.policy is Policy.SPOT:
        text = (
            f"{name} runs on spot {_place(chosen.choice)}: {render_chance(chosen.probability)} chance of "
            "being done by the "
            f"deadline of {due}, for {price} expected with {chosen.losses:.2g} losses"
        )
    else:
        capacity = chosen.choice.offer.capacity
        how = "on-demand on" if capacity is Capacity.ON_DEMAND else f"on {capacity.value}"
        text = (
            f"{name} runs {how} {_place(chosen.choice)}: done in {render_duration(chosen.finish_s)}, "
            f"before the deadline of {due}, for {price}"
        )
    others = []
    for policy in Policy:
        best = next((each for each in outlooks if each.policy is policy), None)
        if best is not None and best.policy is Policy.MIXED and best.switch_probability < _NEVER:
            continue  # it is spot, as good as always
        if best is not None and policy is not chosen.policy:
            chance = (
                "" if best.probability >= 1 else f" with a chance of {render_chance(best.probability)} only"
            )
            if best.probability >= ask.confidence:
                chance = ""
            others.append(f"{policy.value} would cost {render_price(best.cost_micro_usd)}{chance}")
    return text + (f"; {', '.join(others)}" if others else "")


def _explain_late(earliest: Outlook | None, ask: DeadlineAsk, name: str) -> str:
    due = _due(ask.deadline_s)
    late = f"the deadline of {due} cannot be met"
    if ask.deadline_s <= 0:
        late = f"the deadline passed {render_duration(-ask.deadline_s)} ago"
    if earliest is None:
        return f"{late}: nothing fits {name}"
    expected = " expected" if earliest.policy is not Policy.ON_DEMAND else ""
    kind = (
        earliest.choice.offer.capacity.value
        if earliest.policy is Policy.ON_DEMAND
        else (f"spot, with a chance of {render_chance(earliest.probability)} to be in time,")
    )
    sure = f" with {render_chance(ask.confidence)} confidence" if earliest.probability > 0 else ""
    return (
        f"{late}{sure}: the earliest finish of {name} is in {render_duration(earliest.finish_s)}, "
        f"on {_place(earliest.choice)} {kind} for {render_price(earliest.cost_micro_usd)}{expected}"
    )


def _hint_late(earliest: Outlook | None) -> str:
    if earliest is None:
        return "ask for less; `argosy offers` shows what exists"
    if earliest.policy is not Policy.ON_DEMAND:
        return "allow on-demand (`use_spot: false`), or give it more time"
    later = math.ceil(earliest.finish_s / 360) / 10
    return f"set `deadline: {later:g}h`, ask for faster accelerators, or for more nodes if the task scales with them"  # noqa: E501
