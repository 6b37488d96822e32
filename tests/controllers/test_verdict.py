"""The test that rolls a new revision back."""

from __future__ import annotations

import math
import random

import pytest
from msgspec.structs import replace

from argosy.controllers.service.verdict import (
    Evidence,
    Outcome,
    Tally,
    Terms,
    log_beta_above,
    log_evidence,
    verdict,
)


@pytest.mark.parametrize(
    ("a", "b", "x", "expected"),
    [  # logarithms of scipy.stats.beta.sf
        (0.5, 0.05, 0.01, -0.00944042346),
        (0.5, 0.05, 0.5, -0.085084385),
        (0.5, 4.5, 0.01, -0.261527115),
        (0.5, 4.5, 0.5, -4.20261839),
        (0.5, 900.0, 0.01, -10.7653168),
        (7.5, 0.05, 0.5, -7.30260546e-05),
        (7.5, 4.5, 0.1, -5.59963863e-06),
        (7.5, 4.5, 0.9, -4.90136074),
        (7.5, 900.0, 0.1, -73.0166498),
        (130.0, 0.05, 0.9, -4.76317314e-09),
        (130.0, 900.0, 0.1, -0.0036679772),
        (130.0, 90000.0, 0.01, -528.04065),
    ],
)
def test_incomplete_beta(a: float, b: float, x: float, expected: float) -> None:
    assert log_beta_above(a, b, x) == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_the_evidence_is_the_integral_that_it_is_said_to_be() -> None:
    share, new, events = 0.1, 9, 30
    a, b = 0.5, 4.5
    ticks = [0.1 + (i + 0.5) * 0.9 / 100_000 for i in range(100_000)]
    weight = [math.exp((a - 1) * math.log(p) + (b - 1) * math.log(1 - p)) for p in ticks]
    likely = [(p / share) ** new * ((1 - p) / (1 - share)) ** (events - new) for p in ticks]
    integral = sum(w * v for w, v in zip(weight, likely, strict=True)) / sum(weight)
    assert math.exp(log_evidence(new, events, share)) == pytest.approx(integral, rel=1e-4)


def _play(
    rng: random.Random, rates: tuple[float, float], share: float, minutes: int, per_s: int = 50
) -> float:
    """Minutes until a roll-back, looked at every 10 s; inf: none."""
    old = new = Tally(ready=1)
    for look in range(minutes * 6):
        mine = int(per_s * 10 * share)
        theirs = per_s * 10 - mine
        new = replace(new, requests=new.requests + mine, errors=new.errors + _draw(rng, mine, rates[1]))
        old = replace(old, requests=old.requests + theirs, errors=old.errors + _draw(rng, theirs, rates[0]))
        if verdict(old, new, share).outcome is Outcome.BAD:
            return (look + 1) / 6
    return math.inf


def _draw(rng: random.Random, count: int, rate: float) -> int:
    """Binomial, by the gaps between hits."""
    hits, at = 0, 0
    while True:
        at += int(math.log(1.0 - rng.random()) / math.log1p(-rate)) + 1
        if at > count:
            return hits
        hits += 1


def test_healthy_revisions_stay_and_bad_ones_go_soon() -> None:
    rng = random.Random(11)
    assert sum(_play(rng, (0.01, 0.01), 0.1, 30) < math.inf for _ in range(60)) <= 1
    found = sorted(_play(rng, (0.01, 0.03), 0.1, 30) for _ in range(41))
    assert found[20] <= 3
    found = sorted(_play(rng, (0.01, 0.2), 0.1, 30) for _ in range(41))
    assert found[20] <= 1


def test_what_it_says() -> None:
    old, new = Tally(requests=9000, errors=90, ready=3), Tally(requests=1000, errors=10, ready=1)
    assert verdict(old, new, 0.1).why == "10 of 1,000 requests failed, of the old revision's 90 of 9,000"
    assert verdict(old, new, 0.1).outcome is Outcome.GOOD
    bad = verdict(old, replace(new, errors=40), 0.1)
    assert bad.outcome is Outcome.BAD
    assert bad.why.startswith(
        "40 of 1,000 requests failed, of the old revision's 90 of 9,000: chance explains"
    )
    slow = verdict(replace(old, slow=450), replace(new, slow=200), 0.1)
    assert slow.outcome is Outcome.BAD
    assert slow.why.startswith("200 of 1,000 requests were slow, of the old revision's 450 of 9,000")
    assert verdict(replace(old, slow=450), replace(new, slow=200), 0.1, Terms(latency=False)).outcome is (
        Outcome.GOOD
    )


@pytest.mark.parametrize(
    ("new", "outcome", "why"),
    [
        (Tally(waited_s=1200), Outcome.BAD, "no replica was ready in 1200 s"),
        (Tally(crashes=3), Outcome.BAD, "a replica ended 3 times in a row"),
        (Tally(requests=20, errors=11, ready=1), Outcome.BAD, "11 of 20 requests failed"),
        (Tally(requests=0, ready=1), Outcome.WAIT, "0 of 20 requests, 1 replica ready"),
        (Tally(waited_s=60), Outcome.WAIT, "0 of 20 requests, 0 replicas ready"),
    ],
)
def test_hard_limits(new: Tally, outcome: Outcome, why: str) -> None:
    answer = verdict(Tally(requests=1000, errors=3, ready=2), new, 0.1)
    assert (answer.outcome, answer.why) == (outcome, why)


def test_an_old_revision_that_fails_as_much_is_no_reason_to_go_back() -> None:
    old, new = Tally(requests=900, errors=810, ready=1), Tally(requests=100, errors=60, ready=1)
    assert verdict(old, new, 0.1).outcome is Outcome.GOOD


def test_evidence_is_carried_over_a_change_of_weights() -> None:
    old, new = Tally(requests=900, errors=9, ready=1), Tally(requests=100, errors=5, ready=1)
    first = verdict(old, new, 0.1)
    assert first.outcome is Outcome.GOOD
    assert first.evidence.errors > 0
    second = verdict(Tally(), Tally(ready=1), 0.5, carried=first.evidence)
    assert second.evidence == Evidence(errors=first.evidence.errors, slow=first.evidence.slow)


def test_more_requests_than_the_weight_says_are_no_evidence() -> None:
    """Sticky users or lost replicas: the share that really went there counts, where it is larger."""
    old, new = Tally(requests=500, errors=20, ready=1), Tally(requests=500, errors=20, ready=1)
    assert verdict(old, new, 0.01).outcome is Outcome.GOOD


def test_with_nothing_to_compare_with_only_hard_limits_count() -> None:
    assert verdict(Tally(), Tally(requests=100, errors=40, ready=1), 1.0).outcome is Outcome.GOOD
    assert verdict(Tally(), Tally(requests=100, errors=60, ready=1), 1.0).outcome is Outcome.BAD
