"""The move tables hold together: total, with one end each, and no dead ends before it."""

from __future__ import annotations

import itertools
from enum import StrEnum

import pytest

from argosy.model.phases import (
    ATTEMPT_MOVES,
    CLAIM_MOVES,
    MACHINES,
    NODE_MOVES,
    WORKLOAD_MOVES,
    AttemptPhase,
    ClaimPhase,
    NodePhase,
    WorkloadPhase,
    is_final,
    may_move,
)

TABLES = [
    (WorkloadPhase, WORKLOAD_MOVES),
    (AttemptPhase, ATTEMPT_MOVES),
    (ClaimPhase, CLAIM_MOVES),
    (NodePhase, NODE_MOVES),
]


@pytest.mark.parametrize(("phases", "moves"), TABLES)
def test_every_phase_has_a_row_and_one_is_the_end(phases: type[StrEnum], moves: dict) -> None:
    assert set(moves) == set(phases)
    ends = [phase for phase in phases if not moves[phase]]
    assert len(ends) == 1
    assert [phase for phase in phases if is_final(phase)] == ends


@pytest.mark.parametrize(("phases", "moves"), TABLES)
def test_every_phase_can_be_reached_and_can_end(phases: type[StrEnum], moves: dict) -> None:
    first, end = next(iter(phases)), next(phase for phase in phases if not moves[phase])

    def reach(start: StrEnum) -> set[StrEnum]:
        seen = {start}
        todo = [start]
        while todo:
            new = moves[todo.pop()] - seen
            seen |= new
            todo += new
        return seen

    assert reach(first) == set(phases)
    assert all(end in reach(phase) for phase in phases)


@pytest.mark.parametrize(("phases", "moves"), TABLES)
def test_may_move_is_the_table_and_staying(phases: type[StrEnum], moves: dict) -> None:
    for old, new in itertools.product(phases, phases):
        assert may_move(old, new) == (old == new or new in moves[old])


def test_no_moves_between_machines() -> None:
    """`running` of a workload and `running` of an attempt are different things that look alike."""
    assert not may_move(WorkloadPhase.STARTING, AttemptPhase.RUNNING)
    assert not may_move(ClaimPhase.HELD, NodePhase.STOPPED)


def test_rest_is_left_only_through_starting_or_the_end() -> None:
    assert WorkloadPhase.RUNNING not in WORKLOAD_MOVES[WorkloadPhase.STOPPED]
    assert WorkloadPhase.STARTING in WORKLOAD_MOVES[WorkloadPhase.STOPPED]
    assert set(MACHINES) == {"workload", "attempt", "claim", "node"}
