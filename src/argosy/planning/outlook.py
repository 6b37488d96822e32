"""Spot, on-demand, or both under the spot policy: which meets a deadline, with what chance, for how much.

Model of a run on spot alone. Work of W seconds is cut into K equal pieces of c seconds, each ended by a
checkpoint. Losses come with a constant rate h (all nodes of a gang together). A loss costs the part x of the
present piece that was done (an exponential time, cut at c) and r seconds of recovery. So a run on spot takes
W + sum(x_i + r) over its losses, whose number is negative binomial. Expected costs are exact; chances use the
exact law for one loss and the normal approximation for the sum of several x_i.
`tests/planning/test_deadline.py` plays the model with dice.

What spot with on-demand to fall back to costs is what `spot_policy` expects of its own decisions: the
controllers decide with the same function.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from typing import Final

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.offer import Capacity, Choice
from argosy.model.units import render_chance, render_duration, render_price
from argosy.planning.spot_policy import Situation, Where, expected_cost, spare_s

#: Of one node, where nothing is published: one loss in 20 hours, as is common for scarce accelerators.
UNKNOWN_HAZARD_PER_HOUR: Final = 0.05
_SAME: Final = 1e-2  # part of the cost below which two policies are the same
_HOURS_A_MONTH: Final = 730.0
_LOSSES_MAX: Final = 20_000
CHECKPOINT_S: Final = 1800  # taken to be between checkpoints, where there are any
_TINY: Final = 1e-12


class Policy(StrEnum):
    ON_DEMAND = "on-demand"  # anything that is not taken back: owned and reserved machines too
    SPOT = "spot"
    MIXED = "spot and on-demand"  # spot while it is there and there is slack, see `spot_policy`


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
    latest_s: int = 0  # MIXED: on-demand is ordered then at the latest, if nothing was done until then


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
            losses = _Losses(ask, work, rate)
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
    """The first; spot alone for a policy that as good as never needs another."""
    first = good[0]
    limit = first.cost_micro_usd * (1 + _SAME)
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

    def __init__(self, ask: DeadlineAsk, work: float, published: float | None) -> None:
        hazard = UNKNOWN_HAZARD_PER_HOUR if published is None else published
        self.published = published is not None
        self.work = work
        self.pieces = 1 if not ask.checkpoint_s else max(1, math.ceil(work / ask.checkpoint_s))
        self.piece = work / self.pieces
        self.recovery = float(max(1, ask.recovery_s))
        self.rate = max(0.0, hazard) * ask.num_nodes / 3600
        self.exponent = self.rate * self.piece
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
    """The spot policy with this fallback. None: there is no slack, on-demand must be used from the start."""
    now = Situation(
        left_s=ask.deadline_s - ask.start_s,
        work_s=losses.work,
        where=Where.NOTHING,
        open=True,
        changeover_s=losses.recovery,
        unsaved_s=losses.piece,
        spot_share=spot.price_micro_usd / max(1, fallback.price_micro_usd),
        loss_per_s=losses.rate if losses.published else None,
    )
    slack = spare_s(now) - now.changeover_s - now.unsaved_s
    if slack < 0:
        return None
    paid_s = expected_cost(now) + ask.start_s * now.spot_share
    return Outlook(
        policy=Policy.MIXED,
        choice=spot,
        fallback=fallback,
        probability=1.0,
        cost_micro_usd=round(_cost(fallback.price_micro_usd, paid_s)),
        finish_s=math.ceil(min(ask.deadline_s, _spot(spot, ask, losses).finish_s)),
        losses=min(losses.mean_count, ask.deadline_s / max(1.0, losses.recovery)),
        latest_s=max(0, int(ask.start_s + spare_s(now))),
    )


def _earliest(outlooks: Sequence[Outlook], ask: DeadlineAsk) -> Outlook | None:
    return min(outlooks, key=lambda each: (each.finish_s, each.cost_micro_usd), default=None)


# --- words -----------------------------------------------------------------------------------------


def _place(choice: Choice) -> str:
    offer = choice.offer
    parts = [part for part in (offer.provider, offer.region, offer.zone) if part]
    return "/".join(parts) + (f" {offer.shape.instance_type}" if offer.shape.instance_type else "")


def _due(seconds: int) -> str:
    """Deadlines read in hours, as people write them."""
    return f"{seconds // 3600}h" if seconds % 3600 == 0 else render_duration(seconds)


def _explain(chosen: Outlook, outlooks: Sequence[Outlook], ask: DeadlineAsk, name: str) -> str:
    price = render_price(chosen.cost_micro_usd)
    due = _due(ask.deadline_s)
    if chosen.policy is Policy.MIXED and chosen.fallback is not None:
        text = (
            f"{name} starts on spot {_place(chosen.choice)}; when that is taken back it asks other places, "
            f"waits while there is slack, or runs on-demand on {_place(chosen.fallback)} and comes back "
            f"to spot; on-demand at the latest {render_duration(chosen.latest_s)} from now: "
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
    for policy in (Policy.ON_DEMAND, Policy.SPOT):
        best = next((each for each in outlooks if each.policy is policy), None)
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
