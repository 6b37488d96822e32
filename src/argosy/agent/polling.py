"""Looking at the logs of ranks while somebody reads them, and at the disk that they grow on."""

from __future__ import annotations

import time

from argosy.agent.rank import POLL_FAST_S, Observer, Rank

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from argosy.agent.supervision import Supervision

_POLL_SLOW_S = 0.1
_DISK_EVERY_S = 1.0
_SILENCED_S = 30.0  # a log that grew so shortly before its disk was full has been cut off


class Polling:
    """Notices that logs grow. `kill` ends a rank whose log has no room left."""

    def __init__(self, shared: Supervision, kill: Callable[[Rank], None]) -> None:
        self._shared = shared
        self._kill = kill
        self._timer: asyncio.TimerHandle | None = None
        self._disk_seen_s = 0.0

    def observe(self, observer: Observer) -> None:
        self._shared.observers.add(observer)
        now = time.monotonic()
        for rank in self._shared.by_id.values():
            rank.poll_at_s = now
        self._schedule(0.0)

    def poll_soon(self, rank: Rank) -> None:
        rank.poll_s = POLL_FAST_S
        rank.poll_at_s = time.monotonic() + POLL_FAST_S
        if self._shared.observers:
            self._schedule(POLL_FAST_S)

    def _schedule(self, in_s: float) -> None:
        due = self._shared.loop.time() + in_s
        if self._timer is not None:
            if self._timer.when() <= due:
                return
            self._timer.cancel()
        self._timer = self._shared.loop.call_at(due, self._poll)

    def _poll(self) -> None:
        """Look at the logs that are due: often while they grow, ever less often while they are quiet."""
        self._timer = None
        live = [rank for rank in self._shared.by_id.values() if rank.pid and not rank.ended]
        if not self._shared.observers or not live:
            return
        now = time.monotonic()
        if now - self._disk_seen_s > _DISK_EVERY_S:
            self._disk_seen_s = now
            self._end_silenced(live, now)
        slow_s = max(_POLL_SLOW_S, len(live) / 1000)
        for rank in live:
            if rank.poll_at_s > now + 0.001:
                continue
            if rank.measure_log():
                if rank.is_truncated:  # the next agent must count from where this one does
                    rank.is_truncated = False
                    self._shared.save(rank)
                rank.grew_s = now
                rank.poll_s = POLL_FAST_S
                for observer in self._shared.observers:
                    observer.log_grew(rank)
            else:
                rank.poll_s = min(slow_s, rank.poll_s * 1.3)
            rank.poll_at_s = now + rank.poll_s
        self._schedule(max(0.001, min(rank.poll_at_s for rank in live) - now))

    def _end_silenced(self, live: list[Rank], now: float) -> None:
        """A program whose log has no room left would go on unseen."""
        for rank in live if self._shared.disk_is_full() else ():
            if now - rank.grew_s < _SILENCED_S and not rank.verdict and rank.stop_at_s is None:
                rank.verdict = disk_full_text(self._shared.node_name, rank)
                self._kill(rank)


def disk_full_text(node: str, rank: Rank) -> str:
    return "disk full on %s while logging: %d bytes kept" % (node, rank.log_bytes)
