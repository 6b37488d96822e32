"""Rules of other systems decide as the systems do: held against references that were written apart from them.

A reference keeps its own state over time, as the originals do (Knative's autoscaler, Ray Serve's policy,
SkyServe's autoscaler, the horizontal pod autoscaler below KEDA's scaler); ours is a function of what it sees.
"""

from __future__ import annotations

import math
import os
import random
from collections.abc import Callable

import pytest
from msgspec.structs import replace

from argosy.controllers.service.scaling import FRESH, wanted_replicas
from argosy.model.scaling import CONCURRENCY, PRESETS, REQUESTS, Formula, Policy, Seen, Target

SERIES = 1000 if os.environ.get("ARGOSY_NIGHTLY") else 150
DECISIONS = 14


class Deployment:
    """What all references see: values by second, and how many replicas there are."""

    def __init__(self, least: int, most: int) -> None:
        self.least, self.most = least, most
        self.values: list[float] = []
        self.ready = 1
        self.starting = 0
        self.second = 0

    def mean(self, seconds: int) -> float:
        chosen = self.values[max(0, len(self.values) - seconds) :]
        return sum(chosen) / len(chosen) if chosen else 0.0

    def clip(self, count: int) -> int:
        return min(self.most, max(self.least, count))


class Hpa:
    """Kubernetes: 10 % tolerance (in floats, as there), doubling, the highest of 5 minutes."""

    every = 15

    def __init__(self, target: float) -> None:
        self.target, self.recommended = target, list[tuple[int, int]]()

    def decide(self, it: Deployment) -> int:
        now = it.ready + it.starting
        usage = it.values[-1] / (self.target * now) if now else 9.0
        asked = now if now and abs(1.0 - usage) <= 0.1 else math.ceil(it.values[-1] / self.target)
        asked = min(asked, max(now * 2, now + 4))
        self.recommended.append((it.second, asked))
        if asked >= now:
            return asked
        window = [count for second, count in self.recommended if it.second - second <= 300]
        return min(now, max(window))


class Keda(Hpa):
    """The same between 1 and the maximum; 0 and 1 by activity and cooldown, as its operator does."""

    def __init__(self, target: float) -> None:
        super().__init__(target)
        self.active_at: int | None = None

    def decide(self, it: Deployment) -> int:
        asked = max(1, super().decide(it))
        if self.active_at is None:
            self.active_at = it.second
        if it.values[-1] > 2:  # activation, strictly
            self.active_at = it.second
            return asked
        if it.ready + it.starting == 0:
            return 0
        if it.starting and not it.ready:
            return asked
        return 0 if it.second - self.active_at >= 60 else asked


class Kpa:
    """Knative: a stable and a panic window; a panic ends one stable window after the last excess."""

    every = 2

    def __init__(self, target: float) -> None:
        self.target = target
        self.panics_since: int | None = None
        self.ceiling = 0

    def decide(self, it: Deployment) -> int:
        pods = max(1, it.ready)
        bounds = (pods // 2, pods * 1000)
        stable, panic = (
            sorted((bounds[0], math.ceil(it.mean(window) / self.target), bounds[1]))[1] for window in (60, 6)
        )
        if panic >= 2 * pods:
            self.panics_since = it.second
        elif self.panics_since is not None and it.second - self.panics_since > 60:
            self.panics_since, self.ceiling = None, 0
        if self.panics_since is None:
            return stable
        self.ceiling = max(self.ceiling, panic, it.ready)
        return self.ceiling


class RayServe:
    """Ray Serve: decisions must be taken again and again until their delay is over."""

    every = 1

    def __init__(self, target: float) -> None:
        self.target, self.counter = target, 0

    def decide(self, it: Deployment) -> int:
        now = max(1, it.ready + it.starting)
        asked = max(it.least, math.ceil(it.mean(30) / self.target))
        if asked > now:
            self.counter = max(0, self.counter) + 1
            delay = 30
        elif asked < now:
            self.counter = min(0, self.counter) - 1
            delay = 600
        else:
            self.counter = 0
            return now
        if abs(self.counter) > delay:
            self.counter = 1 if asked > now else -1
            return asked
        return now


class SkyServe:
    """SkyServe: queries of a minute per second over the target; thresholds are counted in decisions."""

    every = 20

    def __init__(self, target: float) -> None:
        self.target, self.more, self.less = target, 0, 0

    def decide(self, it: Deployment) -> int:
        asked = max(it.least, math.ceil(sum(it.values[-60:]) / min(60, len(it.values)) / self.target))
        now = it.ready + it.starting
        if now == 0 or asked == now:
            self.more = self.less = 0 if now else self.more
            return asked
        self.more, self.less = (self.more + 1, 0) if asked > now else (0, self.less + 1)
        if self.more >= 300 // 20 or self.less >= 1200 // 20:
            self.more = self.less = 0
            return asked
        return now


Reference = Hpa | Kpa | RayServe | SkyServe


def _series(dice: random.Random) -> Callable[[], float]:
    """A load that drifts, jumps and is sometimes nothing."""
    level = dice.choice((0.0, 3.0, 20.0, 120.0))

    def value() -> float:
        nonlocal level
        chance = dice.random()
        if chance < 0.03:
            level = dice.choice((0.0, 1.0, 5.0, 40.0, 200.0))
        elif chance < 0.5:
            level *= dice.uniform(0.85, 1.2)
        return float(int(level))

    return value


@pytest.mark.parametrize(
    ("formula", "reference", "least"),
    [
        (Formula.HPA, Hpa, 1),
        (Formula.HPA, Keda, 0),
        (Formula.KPA, Kpa, 1),
        (Formula.RAY, RayServe, 1),
        (Formula.SKYSERVE, SkyServe, 1),
    ],
)
def test_same_decisions(formula: Formula, reference: Callable[[float], Reference], least: int) -> None:
    dice = random.Random(f"{formula} {least}")
    moved = 0
    for number in range(SERIES):
        target = dice.choice((1.0, 2.0, 7.0, 12.5))
        theirs, it, value = reference(target), Deployment(least, 60), _series(dice)
        policy = _policy(formula, target, least)
        it.ready, it.second = dice.randint(1, 12), 10_000
        counts = formula in (Formula.SKYSERVE, Formula.RAY)  # decisions in a row
        gap = theirs.every * (1 if counts else dice.choice((1, 1, 4)))
        decisions = DECISIONS * (3 if counts else 1)
        memory = FRESH
        for step in range(decisions):
            for _ in range(gap):
                it.second += 1
                it.values.append(value())
            seen = Seen(
                now_ms=it.second * 1000,
                ready=it.ready,
                starting=it.starting,
                signals={policy.targets[0].signal: it.values[-1300:]},
            )
            ours = wanted_replicas(policy, seen, memory)
            expected = it.clip(theirs.decide(it))
            assert ours.replicas == expected, (number, step, it.values[-6:], it.ready, it.starting, ours.why)
            memory = ours.memory
            moved += expected != it.ready + it.starting
            _follow(it, expected, dice)
    assert moved > SERIES / 4  # the series ask for something


def _policy(formula: Formula, target: float, least: int) -> Policy:
    signal = {Formula.SKYSERVE: REQUESTS, Formula.HPA: "jobs"}.get(formula, CONCURRENCY)
    return replace(
        PRESETS[formula],
        min_replicas=least,
        max_replicas=60,
        idle_s=60,
        targets=(Target(signal=signal, value=target, activation=2.0 if least == 0 else 0.0),),
    )


def _follow(it: Deployment, wanted: int, dice: random.Random) -> None:
    """Replicas are ordered, become ready, and go: the starting ones first."""
    if it.starting and dice.random() < 0.5:
        some = dice.randint(1, it.starting)
        it.starting, it.ready = it.starting - some, it.ready + some
    present = it.ready + it.starting
    if wanted >= present:
        it.starting += wanted - present
        return
    cut = min(it.starting, present - wanted)
    it.starting -= cut
    it.ready -= present - wanted - cut
