"""Demand in replica-seconds of work: how many replicas a service needs for what arrives. Pure.

Requests differ, so they are not counted but weighed: one replica does one second of work in a second. The
past of ten minutes says what is usual, the last minute what is coming, and what already waits is ordered for
at once. Replicas that start count as present, so a slow start does not order the same again and again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

import msgspec

from argosy.model.scaling import REQUESTS, WORK, Policy, Seen

BURST_S: Final = 3  # so short is the mean that tells of a burst
TREND_S: Final = 60
MOST_GROWTH: Final = 2.0  # growth of the last minute goes on for so many minutes at most


class Language(msgspec.Struct, frozen=True, kw_only=True):
    """What a language model's replica needs for a request, in seconds."""

    prompt_s: float  # for each token of the prompt
    attention_s: float = 0.0  # for each pair of tokens of the prompt
    step_s: float  # of one step of the engine, shared by `batch` requests
    context_s: float = 0.0  # for each token that is there, in each step
    batch: int = 20  # the most requests at which tokens still come quickly enough
    answer_tokens: float = 100.0  # that an answer has on average

    def of(self, prompt_tokens: int) -> float:
        """Replica-seconds of one request."""
        attention = self.attention_s * prompt_tokens * prompt_tokens / 2
        each = self.step_s / self.batch + self.context_s * prompt_tokens
        return self.prompt_s * prompt_tokens + attention + self.answer_tokens * each


def needed(policy: Policy, seen: Seen) -> tuple[int, str]:
    """(replicas, why) that the work of the recent past asks for."""
    recent, held_s = arrived(policy, seen)
    if len(recent) < BURST_S:
        return seen.present, "nothing was measured yet"
    usual = quantile(_smoothed(recent, max(1, int(policy.slack_s))), policy.quantile) / policy.utilisation
    coming = _trend(recent, seen.cold_start_s) / policy.utilisation
    wish = math.ceil(max(usual, coming) - 1e-9)
    why = f"work of {max(usual, coming):.1f} replicas arrives"
    burst = sum(recent[-BURST_S:]) / BURST_S
    over = held_s + (burst - seen.ready) * policy.slack_s
    if over > 0:  # what cannot be done within the slack: a start takes as long as it takes
        panic = seen.ready + math.ceil(over / (policy.slack_s + seen.cold_start_s))
        panic = min(panic, math.ceil(policy.growth * max(1, seen.present)))
        if panic > wish:
            wish, why = panic, f"{over:.0f} s of work more wait than {seen.ready} ready ones can do in time"
    return wish, why


def arrived(policy: Policy, seen: Seen) -> tuple[Sequence[float], float]:
    """(work that arrived in each second, work that is held). Where no gateway weighs requests, a target does:
    so many requests per second are one replica's work."""
    count = policy.history_s
    if seen.signals.get(WORK):
        return seen.signals[WORK][-count:], seen.held_work_s
    for target in policy.targets:
        if target.signal == REQUESTS:
            each = 1 / target.value
            return [each * value for value in seen.signals.get(REQUESTS, ())[-count:]], each * seen.held
    return (), 0.0


def _smoothed(values: Sequence[float], width: int) -> list[float]:
    """Means over `width` values."""
    width = min(width, len(values))
    sums = [0.0, *accumulate(values)]
    return [(late - early) / width for early, late in zip(sums, sums[width:], strict=False)]


def _trend(values: Sequence[float], cold_start_s: float) -> float:
    """The mean of the last minute, and its growth over the one before for as long as a start takes."""
    last = values[-TREND_S:]
    mean = sum(last) / len(last)
    before = values[-2 * TREND_S : -TREND_S]
    if len(before) < TREND_S:
        return mean
    growth = max(0.0, mean - sum(before) / len(before))
    return mean + growth * min(MOST_GROWTH, cold_start_s / TREND_S)


def quantile(values: Sequence[float], share: float) -> float:
    """Between the two nearest values, in proportion."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)
