"""How each replica and each revision of a service did in the last minute, from counters that only grow.

Every ten seconds the counters are remembered; the difference to the oldest that is remembered, a minute
ago, is the rate. A counter that is smaller than before began anew.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from argosy.model.routes import LATENCY_BOUNDS_MS, ReplicaCounters, RevisionCounters, ServiceCounters
from argosy.model.served import Rate

_EVERY_MS: Final = 10_000
_KEPT: Final = 7
_TOLD_MS: Final = 5_000  # a rate is worked out again after so long
_NONE: Final = Rate()


class Seen(msgspec.Struct, frozen=True):
    """Counters of one replica or revision at one moment."""

    requests: int
    errors: int
    tokens: int
    latency: tuple[int, ...]


Marks = Mapping[str, Seen]


class Rates:
    """Of one service: by id of its replicas' jobs, and by number of its revisions."""

    def __init__(self) -> None:
        self._replicas, self._revisions = _Pace(), _Pace()

    def add(self, counters: ServiceCounters, now_ms: int) -> None:
        """The counters as they are now."""
        self._replicas.add(_marks(counters.replicas), now_ms)
        self._revisions.add(_marks(counters.revisions), now_ms)

    def of_replicas(self) -> dict[str, Rate]:
        """Those that have answered anything in the last minute."""
        return self._replicas.rates()

    def of_revisions(self) -> dict[int, Rate]:
        return {int(id): rate for id, rate in self._revisions.rates().items() if id.isdecimal()}


class _Pace:
    """How the replicas, or the revisions, of one service did lately."""

    def __init__(self) -> None:
        self._past: deque[tuple[int, Marks]] = deque(maxlen=_KEPT)
        self._now: tuple[int, Marks] = (0, {})
        self._told_ms, self._told = 0, dict[str, Rate]()

    def add(self, marks: Marks, now_ms: int) -> None:
        self._now = (now_ms, marks)
        if not self._past or now_ms - self._past[-1][0] >= _EVERY_MS:
            self._past.append(self._now)

    def rates(self) -> dict[str, Rate]:
        now_ms, now = self._now
        if now_ms - self._told_ms < _TOLD_MS or not self._past:
            return self._told
        then_ms, then = self._past[0]
        seconds = (now_ms - then_ms) / 1000
        found = {id: _rate(seen, then.get(id), seconds) for id, seen in now.items()}
        self._told = {id: rate for id, rate in found.items() if rate != _NONE}
        self._told_ms = now_ms
        return self._told


def _marks(counters: Iterable[ReplicaCounters | RevisionCounters]) -> Marks:
    return {
        each.id: Seen(each.requests, each.errors, each.input_tokens + each.output_tokens, tuple(each.latency))
        for each in counters
        if each.requests
    }


def _rate(now: Seen, then: Seen | None, seconds: float) -> Rate:
    if then is None or now.requests < then.requests:
        then = Seen(0, 0, 0, ())
    requests = now.requests - then.requests
    if not requests or seconds <= 0:
        return _NONE
    before = (*then.latency, *([0] * (len(now.latency) - len(then.latency))))
    latency = [here - there for here, there in zip(now.latency, before, strict=True)]
    return Rate(
        requests_milli=round(1000 * requests / seconds),
        errors=max(0, now.errors - then.errors),
        p50_ms=quantile_ms(latency, 0.5),
        p99_ms=quantile_ms(latency, 0.99),
        tokens_milli=round(1000 * max(0, now.tokens - then.tokens) / seconds),
    )


def bucket_of(buckets: Sequence[int], share: float) -> int:
    """The bucket in which this share of all is reached.

    >>> bucket_of([0, 90, 8, 2], 0.95)
    2
    """
    total, seen = sum(buckets), 0
    for place, count in enumerate(buckets):
        seen += count
        if total and seen >= share * total:
            return place
    return len(buckets) - 1


def quantile_ms(buckets: Sequence[int], share: float) -> int:
    """The upper bound of the bucket in which this share of all is reached; 0 for none."""
    if sum(buckets) <= 0:
        return 0
    return LATENCY_BOUNDS_MS[min(bucket_of(buckets, share), len(LATENCY_BOUNDS_MS) - 1)]
