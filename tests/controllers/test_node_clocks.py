"""Nodes whose wall clock is wrong: what they date is told by the server's clock."""

from __future__ import annotations

import msgspec
import pytest

from argosy.controllers.node_clocks import NodeClocks
from argosy.infra.agent_port import Report
from argosy.model.facts import NodeFacts, Notice, RankFact, RankPhase

NODE, HOUR_MS, NOW_MS = "nod-1", 3_600_000, 1_700_000_000_000
RANK = RankFact(id="att-1.0", phase=RankPhase.EXITED, started_ms=NOW_MS - 9000, ended_ms=NOW_MS - 4000)


def a_report(off_ms: int = 0, *, sent_ago_ms: int = 0, rank: RankFact = RANK, **more: NodeFacts) -> Report:
    """As it comes at `NOW_MS` from a node that booted `NOW_MS - 50_000`; its times are by its own clock."""
    moved = msgspec.structs.replace(
        rank,
        **{
            name: getattr(rank, name) + off_ms
            for name in ("started_ms", "ended_ms", "active_ms")
            if getattr(rank, name)
        },
    )
    wall_ms = NOW_MS - sent_ago_ms + off_ms
    return Report(complete=True, ranks=(moved,), sent=50_000 - sent_ago_ms, wall_ms=wall_ms, **more)


@pytest.mark.parametrize("off_ms", [HOUR_MS, -HOUR_MS, 30 * 24 * HOUR_MS])
def test_times_of_a_clock_that_is_off_are_told_by_ours(off_ms: int) -> None:
    [rank] = NodeClocks().report(NODE, a_report(off_ms), NOW_MS).ranks
    assert rank == RANK


def test_a_clock_that_is_right_is_taken_as_it_is() -> None:
    report = a_report(1500)
    assert NodeClocks().report(NODE, report, NOW_MS) is report


def test_a_report_that_was_long_on_its_way_moves_nothing() -> None:
    clocks = NodeClocks()
    clocks.report(NODE, a_report(), NOW_MS)
    late = a_report(sent_ago_ms=20_000)
    assert clocks.report(NODE, late, NOW_MS) is late


def test_a_clock_that_is_set_right_moves_nothing_any_more() -> None:
    clocks = NodeClocks()
    clocks.report(NODE, a_report(HOUR_MS), NOW_MS)
    report = a_report()
    assert clocks.report(NODE, report, NOW_MS) is report


def test_what_was_dated_before_a_clock_was_set_back_has_not_happened_later_than_now() -> None:
    """It began when the clock was an hour ahead, and is told by one that is half an hour behind."""
    rank = msgspec.structs.replace(RANK, started_ms=RANK.started_ms + HOUR_MS + HOUR_MS // 2)
    [told] = NodeClocks().report(NODE, a_report(-HOUR_MS // 2, rank=rank), NOW_MS).ranks
    assert told.started_ms == NOW_MS


def test_times_that_are_not_known_stay_so() -> None:
    rank = RankFact(id="att-1.0", phase=RankPhase.PREPARING)
    assert NodeClocks().report(NODE, a_report(HOUR_MS, rank=rank), NOW_MS).ranks == (rank,)


@pytest.mark.parametrize(
    ("by_node", "ours_ms"), [(True, NOW_MS + 60_000), (False, NOW_MS + 60_000 + HOUR_MS)]
)
def test_a_notice_is_moved_only_when_the_node_dated_it(by_node: bool, ours_ms: int) -> None:
    """What the metadata service of a cloud says is by the cloud's clock."""
    notice = Notice(code="terminate", at_ms=NOW_MS + 60_000 + HOUR_MS, by_node=by_node)
    told = NodeClocks().report(NODE, a_report(HOUR_MS, node=NodeFacts(notice=notice)), NOW_MS)
    assert told.node is not None and told.node.notice is not None
    assert told.node.notice.at_ms == ours_ms


def test_an_older_agent_that_does_not_show_its_clock_is_taken_as_it_is() -> None:
    report = msgspec.structs.replace(a_report(HOUR_MS), wall_ms=0)
    assert NodeClocks().report(NODE, report, NOW_MS) is report
