"""Whether a new revision is worse than the old one: a test that may be looked at as often as one likes. Pure.

Both revisions serve at the same time, the new one a known share of the requests. When it is no worse, each
failure that happens is its own with no more than a known probability. The evidence against that grows with
failures that are its own, and shrinks with those that are not. While the new revision is no worse, it passes
1/alpha with a probability of at most alpha, at whatever moments it is looked at (Ville's inequality).

Failures are answers 5xx, streams that were cut and time-outs; not 4xx, 429, nor clients that left. Slow
answers (later than the service promises, or than the old revision's 95th percentile) count the same way.
"""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Final

import msgspec

from argosy.model.units import many


class Outcome(StrEnum):
    """What the figures say of the new revision."""

    WAIT = "wait"  # too few requests to say anything
    GOOD = "good"  # enough of them, and nothing against it
    BAD = "bad"  # it is to be rolled back


class Tally(msgspec.Struct, frozen=True, kw_only=True):
    """What one revision did in one span of time, the same for both, since the weights were set."""

    requests: int = 0
    errors: int = 0
    slow: int = 0
    ready: int = 0  # replicas that are ready now
    crashes: int = 0  # in a row, the most of any replica
    waited_s: int = 0  # since its first replica was ordered, while none was ever ready


class Terms(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """When a rollout goes on, and when it goes back."""

    alpha: float = 0.01  # how often a healthy revision may be rolled back
    ratio: float = 1.0  # so many times the failures of the old one are still no worse
    min_requests: int = 20  # of the new revision, before it is called good
    start_timeout_s: int = 1200
    max_crashes: int = 3
    hard_requests: int = 20  # from so many requests on a share of failures above `hard_errors` is enough
    hard_errors: float = 0.5
    latency: bool = True  # slow answers count, too


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """What earlier weights of the same rollout left, as natural logarithms."""

    errors: float = 0.0
    slow: float = 0.0


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """An outcome with its reason and the evidence so far."""

    outcome: Outcome
    why: str
    evidence: Evidence = Evidence()


NOTHING: Final = Evidence()
DEFAULT: Final = Terms()


def verdict(
    old: Tally, new: Tally, share: float, terms: Terms = DEFAULT, carried: Evidence = NOTHING
) -> Verdict:
    """What the figures since the last change of weights say; `share` of all requests went to the new one.

    `carried` is the evidence of the last answer with the weights before. 0 < share; with 1 there is nothing
    to compare with, and only the hard limits count.
    """
    stopped = _hard_stop(old, new, terms)
    if stopped:
        return Verdict(outcome=Outcome.BAD, why=stopped, evidence=carried)
    total = old.requests + new.requests
    seen = f"of {many(new.requests, 'request')}"
    other = f"of {old.requests:,}"
    routed = max(share, new.requests / total) if total else share
    tests = 2 if terms.latency else 1
    errors = carried.errors + log_evidence(new.errors, old.errors + new.errors, routed, terms.ratio)
    slow = carried.slow
    if terms.latency:
        slow += log_evidence(new.slow, old.slow + new.slow, routed, terms.ratio)
    evidence = Evidence(errors=errors, slow=slow)
    limit = math.log(tests / terms.alpha)
    for value, name, mine, theirs in (
        (errors, "failed", new.errors, old.errors),
        (slow, "were slow", new.slow, old.slow),
    ):
        if value >= limit:
            why = (
                f"{mine} {seen} {name}, of the old revision's {theirs} {other}: "
                f"chance explains that in 1 of {_odds(value, tests)} cases"
            )
            return Verdict(outcome=Outcome.BAD, why=why, evidence=evidence)
    if new.requests < terms.min_requests or not new.ready:
        why = f"{new.requests} of {many(terms.min_requests, 'request')}, {many(new.ready, 'replica')} ready"
        return Verdict(outcome=Outcome.WAIT, why=why, evidence=evidence)
    why = f"{new.errors} {seen} failed, of the old revision's {old.errors} {other}"
    return Verdict(outcome=Outcome.GOOD, why=why, evidence=evidence)


def _odds(value: float, tests: int) -> str:
    odds = math.exp(min(value, 30.0)) / tests
    return f"{odds:,.0f}" if value <= 20 else "many millions of"


def _hard_stop(old: Tally, new: Tally, terms: Terms) -> str:
    """Why no statistics are needed; "" where they are."""
    if not new.ready and new.waited_s >= terms.start_timeout_s:
        return f"no replica was ready in {terms.start_timeout_s} s"
    if new.crashes >= terms.max_crashes:
        return f"a replica ended {many(new.crashes, 'time')} in a row"
    worse = not old.requests or old.errors * new.requests < new.errors * old.requests
    if worse and new.requests >= terms.hard_requests and new.errors > terms.hard_errors * new.requests:
        return f"{new.errors} of {many(new.requests, 'request')} failed"
    return ""


def log_evidence(new: int, events: int, share: float, ratio: float = 1.0) -> float:
    """The logarithm of the evidence that `new` of `events` events are more than the new revision's due.

    A mixture over all larger probabilities, with the density of Beta(1/2, 1/2 (1-share)/share): in closed
    form a quotient of incomplete beta functions.
    """
    if share >= 1.0 or events == 0:
        return 0.0
    due = share * ratio / (share * ratio + 1 - share)
    a, b = 0.5, 0.5 * (1 - share) / share if share < 0.5 else 0.5
    after_a, after_b = a + new, b + events - new
    return (
        log_beta_above(after_a, after_b, due)
        - log_beta_above(a, b, due)
        + log_beta(after_a, after_b)
        - log_beta(a, b)
        - new * math.log(due)
        - (events - new) * math.log1p(-due)
    )


def log_beta(a: float, b: float) -> float:
    """Logarithm of the beta function."""
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def log_beta_above(a: float, b: float, x: float) -> float:
    """Logarithm of the probability that a variable with the distribution Beta(a, b) is above x; 0 < x < 1."""
    front = a * math.log(x) + b * math.log1p(-x) - log_beta(a, b)
    if x < (a + 1) / (a + b + 2):
        below = math.exp(front) * _fraction(a, b, x) / a
        return math.log1p(-min(below, 1 - 1e-15))
    return front + math.log(_fraction(b, a, 1 - x) / b)


def _fraction(a: float, b: float, x: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    tiny = 1e-300
    c, d = 1.0, 1 - (a + b) * x / (a + 1)
    d = 1 / (d if abs(d) > tiny else tiny)
    value = d
    for m in range(1, 100_000):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 + term * d
            c = 1 + term / c
            d, c = 1 / (d if abs(d) > tiny else tiny), (c if abs(c) > tiny else tiny)
            value *= d * c
        if abs(d * c - 1) < 1e-12:
            break
    return value
