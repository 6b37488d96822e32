"""When ranks that cannot be reached have certainly ended: a lease after the last renewal.

A server renews the lease of an attempt while it sees that the attempt is wanted, and for at most `ROWS_AGE_S`
without having looked. So after an attempt was written as ending, its ranks have ended everywhere `ROWS_AGE_S`
and a lease later, whichever server wrote it. Time is what this process has measured itself since it saw that:
wall clocks jump, and what was before a restart is not known.

C. Gray and D. Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache
consistency", SOSP 1989.
"""

from __future__ import annotations

from typing import Final

from argosy.controllers.view import Rows
from argosy.model.ids import Clock
from argosy.model.phases import AttemptPhase
from argosy.model.rows import Attempt

ROWS_AGE_S: Final = 10.0  # who has not looked at the rows for so long renews nothing
MARGIN_MS: Final = 10_000  # on top of a lease: until the node has ended the ranks
_DRIFT: Final = 1.05  # clocks of nodes run at least nearly as fast as ours


class Fences:
    """Since when attempts with a lease are seen as ending."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._rows: Rows | None = None
        self._ending: dict[str, tuple[float, int]] = {}  # by attempt: since when, and its lease in ms

    def follow(self, rows: Rows) -> None:
        """Note what differs from the rows of the last time."""
        before, self._rows = self._rows, rows
        if before is None:
            for attempt in rows.attempts.values():
                self._note(attempt)
            return
        for old, new in rows.news(before):
            if isinstance(new, Attempt):
                self._note(new)
            elif isinstance(old, Attempt):
                self._ending.pop(old.id, None)

    def _note(self, attempt: Attempt) -> None:
        if attempt.phase is AttemptPhase.ENDING and attempt.lease_ms and attempt.id not in self._ending:
            self._ending[attempt.id] = self._clock.monotonic_s(), attempt.lease_ms

    def left_ms(self, attempt_id: str) -> int:
        """For how long its ranks may still go on somewhere, at most; 0: they have ended."""
        since_s, lease_ms = self._ending.get(attempt_id, (self._clock.monotonic_s(), 0))
        whole_ms = int(ROWS_AGE_S * 1000 + lease_ms * _DRIFT) + MARGIN_MS
        return max(0, whole_ms - int((self._clock.monotonic_s() - since_s) * 1000))
