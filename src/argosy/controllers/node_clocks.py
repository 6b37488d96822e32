"""Wall clocks of nodes, which may be wrong: what agents date is told by the server's clock.

A report says what its node's wall clock shows, and when it was sent by a clock that nobody sets (`sent`). The
report with the shortest delay determines the offset between that clock and ours, so a report that was delayed
changes nothing.
"""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.infra.agent_port import Report
from argosy.model.facts import NodeFacts, RankFact

TOLERANCE_MS: Final = 2000  # clocks that somebody keeps right differ by less, and are taken as they are
_WINDOW_MS: Final = 60_000  # clocks that nobody sets drift apart: after so long it is found anew


class NodeClocks:
    """What is known of the clock of each node."""

    def __init__(self) -> None:
        self._ways: dict[str, tuple[int, int]] = {}  # by node: our clock minus its `sent` at best; since when
        self._off: dict[str, int] = {}  # by node: its wall clock minus ours, in ms

    def forget(self, node_id: str) -> None:
        """It may have booted since it was heard."""
        self._ways.pop(node_id, None)
        self._off.pop(node_id, None)

    def report(self, node_id: str, report: Report, now_ms: int) -> Report:
        """The report with all times by our clock."""
        if not report.wall_ms:
            return report  # of an older agent, which does not say it
        way_ms = now_ms - report.sent
        best_ms, since_ms = self._ways.get(node_id, (way_ms, now_ms))
        if not 0 <= now_ms - since_ms <= _WINDOW_MS:
            best_ms, since_ms = way_ms, now_ms
        best_ms = min(best_ms, way_ms)
        self._ways[node_id] = best_ms, since_ms
        self._off[node_id] = off_ms = report.wall_ms - report.sent - best_ms
        if abs(off_ms) <= TOLERANCE_MS:
            return report
        return msgspec.structs.replace(
            report,
            ranks=tuple(_moved(rank, off_ms, now_ms) for rank in report.ranks),
            node=report.node and self.facts(node_id, report.node),
        )

    def facts(self, node_id: str, facts: NodeFacts) -> NodeFacts:
        """What a node says of itself, with all times by our clock."""
        off_ms, notice = self._off.get(node_id, 0), facts.notice
        if notice is None or not notice.by_node or abs(off_ms) <= TOLERANCE_MS:
            return facts
        notice = msgspec.structs.replace(notice, at_ms=notice.at_ms - off_ms)
        return msgspec.structs.replace(facts, notice=notice)


def _moved(rank: RankFact, off_ms: int, now_ms: int) -> RankFact:
    """Nothing has happened later than now: its clock may have been set since."""

    def ours(time_ms: int) -> int:
        return min(time_ms - off_ms, now_ms) if time_ms else 0

    return msgspec.structs.replace(
        rank,
        started_ms=ours(rank.started_ms),
        ended_ms=ours(rank.ended_ms),
        ready_ms=ours(rank.ready_ms),
        active_ms=ours(rank.active_ms),
        gpu_active_ms=ours(rank.gpu_active_ms),
    )
