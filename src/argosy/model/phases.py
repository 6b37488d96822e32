"""Desired state, phase, outcome and reason: four separate things, and the tables of allowed moves.

Law: `store.commit` refuses any move of a phase that is not in its table, so an illegal state cannot be
written, whoever writes it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Desired(StrEnum):
    """What the owner wants of a workload or a claim."""

    RUN = "run"  # should exist and work
    STOP = "stop"  # should rest, keeping its disks (clusters and their claims)
    END = "end"  # should be gone (for a job: cancelled)


class WorkloadPhase(StrEnum):
    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    RECOVERING = "recovering"
    STOPPING = "stopping"
    STOPPED = "stopped"  # a cluster at rest; see docs/decisions/0002-stopped-phase.md
    FINISHED = "finished"


class AttemptPhase(StrEnum):
    PLACED = "placed"
    PREPARING = "preparing"  # files, setup
    RUNNING = "running"
    ENDING = "ending"  # asked to stop, or one rank failed and the others are being ended
    ENDED = "ended"


class ClaimPhase(StrEnum):
    REQUESTED = "requested"
    HELD = "held"
    STOPPED = "stopped"
    RELEASING = "releasing"
    GONE = "gone"


class NodePhase(StrEnum):
    BOOTING = "booting"
    READY = "ready"
    UNREACHABLE = "unreachable"
    DRAINING = "draining"
    STOPPED = "stopped"
    GONE = "gone"


class Outcome(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    LOST = "lost"
    PREEMPTED = "preempted"
    SUPERSEDED = "superseded"


_W, _A, _C, _N = WorkloadPhase, AttemptPhase, ClaimPhase, NodePhase

WORKLOAD_MOVES: Final[dict[WorkloadPhase, frozenset[WorkloadPhase]]] = {
    _W.QUEUED: frozenset({_W.STARTING, _W.STOPPING, _W.FINISHED}),
    _W.STARTING: frozenset({_W.RUNNING, _W.RECOVERING, _W.STOPPING, _W.FINISHED, _W.QUEUED}),
    _W.RUNNING: frozenset({_W.RECOVERING, _W.STOPPING, _W.FINISHED}),
    _W.RECOVERING: frozenset({_W.STARTING, _W.STOPPING, _W.FINISHED}),
    _W.STOPPING: frozenset({_W.STOPPED, _W.FINISHED}),
    _W.STOPPED: frozenset({_W.STARTING, _W.STOPPING, _W.FINISHED}),
    _W.FINISHED: frozenset(),
}

ATTEMPT_MOVES: Final[dict[AttemptPhase, frozenset[AttemptPhase]]] = {
    _A.PLACED: frozenset({_A.PREPARING, _A.RUNNING, _A.ENDING, _A.ENDED}),
    _A.PREPARING: frozenset({_A.RUNNING, _A.ENDING, _A.ENDED}),
    _A.RUNNING: frozenset({_A.ENDING, _A.ENDED}),
    _A.ENDING: frozenset({_A.ENDED}),
    _A.ENDED: frozenset(),
}

CLAIM_MOVES: Final[dict[ClaimPhase, frozenset[ClaimPhase]]] = {
    _C.REQUESTED: frozenset({_C.HELD, _C.STOPPED, _C.RELEASING, _C.GONE}),
    _C.HELD: frozenset({_C.STOPPED, _C.RELEASING, _C.GONE}),
    _C.STOPPED: frozenset({_C.REQUESTED, _C.RELEASING, _C.GONE}),
    _C.RELEASING: frozenset({_C.GONE}),
    _C.GONE: frozenset(),
}

NODE_MOVES: Final[dict[NodePhase, frozenset[NodePhase]]] = {
    _N.BOOTING: frozenset({_N.READY, _N.UNREACHABLE, _N.DRAINING, _N.STOPPED, _N.GONE}),
    _N.READY: frozenset({_N.UNREACHABLE, _N.DRAINING, _N.STOPPED, _N.GONE}),
    _N.UNREACHABLE: frozenset({_N.READY, _N.DRAINING, _N.STOPPED, _N.GONE}),
    _N.DRAINING: frozenset({_N.STOPPED, _N.GONE}),
    _N.STOPPED: frozenset({_N.BOOTING, _N.GONE}),
    _N.GONE: frozenset(),
}


Phase = WorkloadPhase | AttemptPhase | ClaimPhase | NodePhase

#: Every machine by name, for the diagrams in the documentation.
MACHINES: Final[
    dict[
        str,
        dict[WorkloadPhase, frozenset[WorkloadPhase]]
        | dict[AttemptPhase, frozenset[AttemptPhase]]
        | dict[ClaimPhase, frozenset[ClaimPhase]]
        | dict[NodePhase, frozenset[NodePhase]],
    ]
] = {"workload": WORKLOAD_MOVES, "attempt": ATTEMPT_MOVES, "claim": CLAIM_MOVES, "node": NODE_MOVES}

LIVE_END: Final = frozenset({_W.FINISHED.value, _A.ENDED.value, _C.GONE.value})


def may_move(old: Phase, new: Phase) -> bool:
    """Whether a row in phase `old` may be written in phase `new` (staying is always allowed)."""
    if old == new:
        return True
    if isinstance(old, WorkloadPhase) and isinstance(new, WorkloadPhase):
        return new in WORKLOAD_MOVES[old]
    if isinstance(old, AttemptPhase) and isinstance(new, AttemptPhase):
        return new in ATTEMPT_MOVES[old]
    if isinstance(old, ClaimPhase) and isinstance(new, ClaimPhase):
        return new in CLAIM_MOVES[old]
    if isinstance(old, NodePhase) and isinstance(new, NodePhase):
        return new in NODE_MOVES[old]
    return False


def is_final(phase: Phase) -> bool:
    """Whether no move leads out of `phase`."""
    return phase.value in LIVE_END
