"""The role of one server among several of one database: whether it decides, and who works through it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping

from argosy.controllers.observed import Facts
from argosy.controllers.view import terminals_of
from argosy.store.servers import fence_of

FENCE = fence_of("deciding")


class Seat:
    """`term`: the number of the term in which this server decides (0: another does; None: it is alone).
    `took_over` is called when it begins to decide after another one."""

    def __init__(self, facts: Facts, wake: Callable[..., None], took_over: Callable[[], None]) -> None:
        self.term: Callable[[], int] | None = None
        self._facts, self._wake, self._took_over = facts, wake, took_over
        self._attended: Counter[str] = Counter()

    def decides(self) -> bool:
        return self.term is None or self.term() > 0

    def fence(self) -> Mapping[str, int]:
        """What must hold when a decision is written. The database refuses it when the term is over, whatever
        this server believes: it may have slept."""
        return {} if self.term is None else {FENCE: self.term() or -1}

    def begin_to_decide(self) -> None:
        """Another server decided until now: what providers said to this one before is old."""
        self._facts.forget_claims()
        self._took_over()
        self._wake()

    @contextlib.contextmanager
    def attended(self, cluster_id: str) -> Iterator[None]:
        """Somebody has a terminal there: meanwhile the cluster is not idle."""
        self._facts.begin(terminals_of(cluster_id))
        self._attended[cluster_id] += 1
        self._wake(cluster_id)
        try:
            yield
        finally:
            self._facts.end(terminals_of(cluster_id))
            self._attended[cluster_id] -= 1
            self._attended += Counter()  # what is attended by nobody goes
            self._wake(cluster_id)

    def attending(self) -> Mapping[str, int]:
        """Clusters, with how many are at work there."""
        return self._attended

    def uses(self) -> Mapping[str, tuple[int, str]]:
        """When each session was used last, and by what, as far as this server knows."""
        return self._facts.uses()
