"""Why something is in the state it is in: a closed list, each code with blame, retry advice and a hint."""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple


class Blame(StrEnum):
    USER = "user"
    PLATFORM = "platform"
    PROVIDER = "provider"


class Retry(StrEnum):
    NEVER = "never"
    SAME = "same"  # again, same place
    ELSEWHERE = "elsewhere"  # again, on a fresh claim


class Reason(StrEnum):
    USER_CODE_FAILED = "user-code-failed"
    SETUP_FAILED = "setup-failed"
    PREPARE_FAILED = "prepare-failed"
    OUT_OF_MEMORY = "out-of-memory"
    LOG_DISK_FULL = "log-disk-full"
    CANCELLED_BY_USER = "cancelled-by-user"
    STOPPED_BY_USER = "stopped-by-user"
    IDLE = "idle"
    MAX_DURATION = "max-duration"
    RESTARTS_EXHAUSTED = "restarts-exhausted"
    NODE_LOST = "node-lost"
    PREEMPTED = "preempted"
    EVICTED = "evicted"
    MOVED = "moved"
    RANK_VANISHED = "rank-vanished"
    OUT_OF_CAPACITY = "out-of-capacity"
    NO_OFFER = "no-offer"
    CREDENTIALS = "credentials"
    PROVIDER_REFUSED = "provider-refused"
    CLUSTER_GONE = "cluster-gone"
    INTERNAL = "internal"


class ReasonInfo(NamedTuple):
    blame: Blame
    retry: Retry
    hint: str


_U, _PL, _PR = Blame.USER, Blame.PLATFORM, Blame.PROVIDER

REASONS: Final[dict[Reason, ReasonInfo]] = {
    Reason.USER_CODE_FAILED: ReasonInfo(_U, Retry.NEVER, "read the end of the log: `argosy logs`"),
    Reason.SETUP_FAILED: ReasonInfo(
        _U, Retry.NEVER, "fix the `setup` commands; their output is in `argosy logs`"
    ),
    Reason.PREPARE_FAILED: ReasonInfo(
        _PL, Retry.SAME, "see `argosy logs` for what the node could not prepare"
    ),
    Reason.OUT_OF_MEMORY: ReasonInfo(_U, Retry.NEVER, "ask for more with `resources.memory`"),
    Reason.LOG_DISK_FULL: ReasonInfo(_U, Retry.NEVER, "free space on the node's disk, then launch again"),
    Reason.CANCELLED_BY_USER: ReasonInfo(_U, Retry.NEVER, "launch it again when it is wanted"),
    Reason.STOPPED_BY_USER: ReasonInfo(_U, Retry.NEVER, "`argosy start` brings the cluster back"),
    Reason.IDLE: ReasonInfo(
        _U, Retry.NEVER, "`argosy start` brings it back; `argosy autostop` changes the idle time"
    ),
    Reason.MAX_DURATION: ReasonInfo(_U, Retry.NEVER, "raise `max_duration`"),
    Reason.RESTARTS_EXHAUSTED: ReasonInfo(
        _U, Retry.NEVER, "raise `job_recovery.max_restarts_on_errors` or fix the program"
    ),
    Reason.NODE_LOST: ReasonInfo(
        _PR, Retry.ELSEWHERE, "a managed job (`argosy jobs launch`) recovers by itself"
    ),
    Reason.PREEMPTED: ReasonInfo(
        _PR, Retry.ELSEWHERE, "a managed job (`argosy jobs launch`) recovers by itself"
    ),
    Reason.EVICTED: ReasonInfo(
        _PL, Retry.SAME, "it starts again by itself; `argosy explain` says when, and for whom it made room"
    ),
    Reason.MOVED: ReasonInfo(
        _PL, Retry.SAME, "it goes on by itself on cheaper machines; its deadline allows it"
    ),
    Reason.RANK_VANISHED: ReasonInfo(
        _PL, Retry.ELSEWHERE, "something killed the process and its supervisor; look at the node's kernel log"
    ),
    Reason.OUT_OF_CAPACITY: ReasonInfo(_PR, Retry.ELSEWHERE, "try other resources with `any_of`, or wait"),
    Reason.NO_OFFER: ReasonInfo(
        _U, Retry.NEVER, "`argosy launch --dryrun` lists what exists and why it does not fit"
    ),
    Reason.CREDENTIALS: ReasonInfo(_U, Retry.NEVER, "`argosy check` says which credential is missing"),
    Reason.PROVIDER_REFUSED: ReasonInfo(
        _U, Retry.NEVER, "the message names the field that the provider refused"
    ),
    Reason.CLUSTER_GONE: ReasonInfo(_U, Retry.NEVER, "`argosy launch -c NAME` makes the cluster again"),
    Reason.INTERNAL: ReasonInfo(
        _PL, Retry.SAME, "`argosy server status` names the server's log; please report it"
    ),
}
