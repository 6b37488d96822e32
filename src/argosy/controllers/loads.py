"""What gateways count of one service, second by second: rates, shares, and what the autoscaler looks at.

Counters only grow; a gateway that begins anew begins at zero, which is taken for what it is. Kept in
memory: after a start of the server the past is empty, and the autoscaler more careful for a while.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import add, attrgetter, sub
from typing import Final

import msgspec

from argosy.controllers.rates import Rates, bucket_of, quantile_ms
from argosy.model.routes import LATENCY_BOUNDS_MS, RevisionCounters, ServiceCounters
from argosy.model.scaling import CONCURRENCY, LATENCY, QUEUE, REQUESTS, TOKENS, WORK
from argosy.model.served import Count, Rate

KEPT_S: Final = 600
_RATE_S: Final = 60
_BUCKETS: Final = len(LATENCY_BOUNDS_MS) + 1
_NONE: Final = (0,) * _BUCKETS
_OF_SECONDS: Final[Mapping[str, Callable[[Second], float]]] = {
    REQUESTS: attrgetter("requests"),
    CONCURRENCY: attrgetter("concurrency"),
    QUEUE: attrgetter("held"),
    LATENCY: attrgetter("first_byte_s"),
    TOKENS: attrgetter("tokens"),
    WORK: attrgetter("work"),
}


class Mark(msgspec.Struct, frozen=True):
    """The counters of one revision at one moment."""

    requests: int = 0
    errors: int = 0
    latency: tuple[int, ...] = _NONE

    @classmethod
    def of(cls, counters: RevisionCounters) -> Mark:
        latency = tuple(counters.latency) + (0,) * (_BUCKETS - len(counters.latency))
        return cls(counters.requests, counters.errors, latency)

    def since(self, before: Mark) -> Mark:
        """What came after `before`; all of it when the counters began anew meanwhile."""
        if self.requests < before.requests:
            return self
        latency = tuple(map(sub, self.latency, before.latency))
        return Mark(self.requests - before.requests, self.errors - before.errors, latency)


class Second(msgspec.Struct, frozen=True):
    """What happened in one second."""

    requests: float
    concurrency: float
    held: float
    first_byte_s: float
    tokens: float
    work: float  # replica-seconds


class Total(msgspec.Struct, frozen=True):
    """What was answered until the end of one second, since the first one."""

    requests: int = 0
    errors: int = 0
    tokens: int = 0
    latency: tuple[int, ...] = _NONE


class Load:
    """Of one service."""

    def __init__(self) -> None:
        self.seconds: deque[Second] = deque(maxlen=KEPT_S)
        self._totals: deque[Total] = deque((Total(),), maxlen=_RATE_S + 1)  # of the last minute's seconds
        self.used_ms = 0
        self.weighs = False  # gateways say how much work requests are
        self.rates = Rates()
        self._last: ServiceCounters | None = None
        self._at_ms = 0
        self._marks: dict[int, Mark] = {}  # by revision: when the shares changed
        self._shares: object = None

    def add(self, counters: ServiceCounters, now_ms: int, shares: object) -> None:
        """The counters as they are now. `shares`: of the revisions; when they change, counts begin anew."""
        if shares != self._shares:
            self._shares = shares
            self._marks = {int(each.id): Mark.of(each) for each in counters.revisions}
        self.used_ms = max(self.used_ms, counters.last_use_ms, now_ms if counters.in_flight else 0)
        last, elapsed_ms = self._last, now_ms - self._at_ms
        if last is not None and elapsed_ms < 950:
            return
        if last is not None:
            self._note(last, counters, elapsed_ms / 1000)
        self.rates.add(counters, now_ms)
        self._last, self._at_ms = counters, now_ms

    def _note(self, last: ServiceCounters, now: ServiceCounters, seconds: float) -> None:
        before = {each.id: each for each in last.revisions}
        latency = [0] * _BUCKETS
        first = [0] * _BUCKETS
        tokens = errors = 0
        for each in now.revisions:
            old = before.get(each.id) or RevisionCounters(id=each.id)
            step = Mark.of(each).since(Mark.of(old))
            latency = list(map(add, latency, step.latency))
            errors += step.errors
            if each.requests >= old.requests:
                first = _added(first, each.first_byte, old.first_byte)
                tokens += each.input_tokens + each.output_tokens - old.input_tokens - old.output_tokens
        requests = now.requests - last.requests if now.requests >= last.requests else now.requests
        second = Second(
            requests=requests / seconds,
            concurrency=float(now.in_flight + now.held),
            held=float(now.held),
            first_byte_s=quantile_ms(first, 0.95) / 1000,
            tokens=tokens / seconds,
            work=max(0, now.work_ms - last.work_ms) / 1000 / seconds,
        )
        self.weighs = self.weighs or second.work > 0
        count = max(1, min(KEPT_S, round(seconds)))
        self.seconds.extend([second] * count)
        before_total = self._totals[-1]
        self._totals.extend([before_total] * (count - 1))
        self._totals.append(
            Total(
                before_total.requests + requests,
                before_total.errors + errors,
                before_total.tokens + tokens,
                tuple(map(add, before_total.latency, latency)),
            )
        )

    def counts(self, counters: ServiceCounters, older: int) -> Mapping[int, Count]:
        """By revision, since the shares changed. `older`: the one that the others are compared with."""
        now = {int(each.id): Mark.of(each) for each in counters.revisions}
        steps = {number: mark.since(self._marks.get(number, Mark())) for number, mark in now.items()}
        base = steps.get(older)
        bound = bucket_of(base.latency, 0.95) if base is not None and base.requests else _BUCKETS
        return {
            number: Count(requests=step.requests, errors=step.errors, slow=sum(step.latency[bound + 1 :]))
            for number, step in steps.items()
        }

    def rate(self) -> Rate:
        """Over the last minute."""
        then, now, seconds = self._totals[0], self._totals[-1], len(self._totals) - 1
        requests = now.requests - then.requests
        if not requests:
            return Rate()
        latency = tuple(map(sub, now.latency, then.latency))
        return Rate(
            requests_milli=round(1000 * requests / seconds),
            errors=now.errors - then.errors,
            p50_ms=quantile_ms(latency, 0.5),
            p99_ms=quantile_ms(latency, 0.99),
            tokens_milli=round(1000 * (now.tokens - then.tokens) / seconds),
        )

    def signals(self, names: Collection[str]) -> Mapping[str, Sequence[float]]:
        """For the autoscaler, those of `names` that there are: one value for each second, oldest first."""
        found: dict[str, list[float]] = {}
        for name in names:
            if name in _OF_SECONDS and (name != WORK or self.weighs):
                value = _OF_SECONDS[name]
                found[name] = [value(each) for each in self.seconds]
        return found

    @property
    def work_each_s(self) -> float:
        """Replica-seconds of one request on average; 0: nobody says."""
        requests = sum(each.requests for each in self.seconds)
        return sum(each.work for each in self.seconds) / requests if requests else 0.0


def _added(total: list[int], now: Sequence[int], before: Sequence[int]) -> list[int]:
    old = [*before, *([0] * (_BUCKETS - len(before)))]
    new = [*now, *([0] * (_BUCKETS - len(now)))]
    return [a + b - c for a, b, c in zip(total, new, old, strict=True)]
