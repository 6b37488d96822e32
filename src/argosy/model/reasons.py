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
    NODE_UNFIT = "node-unfit"
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
    QUOTA = "quota-exceeded"
    NO_OFFER = "no-offer"
    CREDENTIALS = "credentials"
    PROVIDER_REFUSED = "provider-refused"
    CLUSTER_GONE = "cluster-gone"
    TASKS_FAILED = "tasks-failed"
    GROUP_ENDED = "group-ended"
    NOT_DUE = "not-due"
    OUTPUTS_NOT_SENT = "outputs-not-sent"
    DRAINED = "drained"
    UNREADY = "unready"
    INTERNAL = "internal"


class ReasonInfo(NamedTuple):
    blame: Blame
    retry: Retry
    hint: str


_U, _PL, _PR = Blame.USER, Blame.PLATFORM, Blame.PROVIDER

REASONS: Final[dict[Reason, ReasonInfo]] = {
    Reason.USER_CODE_FAILED: ReasonInfo(_U, Retry.NEVER, "Log: `argosy logs CLUSTER JOB`"),
    Reason.SETUP_FAILED: ReasonInfo(
        _U, Retry.NEVER, "fix the `setup` commands. Log: `argosy logs CLUSTER JOB`"
    ),
    Reason.PREPARE_FAILED: ReasonInfo(
        _PL, Retry.SAME, "what the node could not prepare is in the log: `argosy logs CLUSTER JOB`"
    ),
    Reason.NODE_UNFIT: ReasonInfo(
        _PR,
        Retry.ELSEWHERE,
        "free space on the node's disk; a managed job (`argosy jobs launch`) tries three other nodes",
    ),
    Reason.OUT_OF_MEMORY: ReasonInfo(_U, Retry.NEVER, "ask for more with `resources.memory`"),
    Reason.LOG_DISK_FULL: ReasonInfo(_U, Retry.NEVER, "free space on the node's disk, then launch again"),
    Reason.CANCELLED_BY_USER: ReasonInfo(_U, Retry.NEVER, "launch it again when it is wanted"),
    Reason.STOPPED_BY_USER: ReasonInfo(_U, Retry.NEVER, "`argosy start CLUSTER` brings the cluster back"),
    Reason.IDLE: ReasonInfo(
        _U,
        Retry.NEVER,
        "`argosy start CLUSTER` brings it back; `argosy autostop CLUSTER -i 60` changes the idle time",
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
        _PL,
        Retry.SAME,
        "it starts again by itself; `argosy explain CLUSTER JOB` says when, and for whom it made room",
    ),
    Reason.MOVED: ReasonInfo(
        _PL, Retry.SAME, "it goes on by itself on cheaper machines; its deadline allows it"
    ),
    Reason.RANK_VANISHED: ReasonInfo(
        _PL, Retry.ELSEWHERE, "perhaps killed by the kernel for want of memory: see `dmesg` on the node"
    ),
    Reason.OUT_OF_CAPACITY: ReasonInfo(_PR, Retry.ELSEWHERE, "try other resources with `any_of`, or wait"),
    Reason.QUOTA: ReasonInfo(
        _PR, Retry.ELSEWHERE, "ask the provider for a higher quota, or try other resources with `any_of`"
    ),
    Reason.NO_OFFER: ReasonInfo(
        _U, Retry.NEVER, "`argosy launch --dryrun FILE.yaml` lists what exists and why it does not fit"
    ),
    Reason.CREDENTIALS: ReasonInfo(_U, Retry.NEVER, "`argosy check` says which credential is missing"),
    Reason.PROVIDER_REFUSED: ReasonInfo(
        _U, Retry.NEVER, "the message names the field that the provider refused"
    ),
    Reason.CLUSTER_GONE: ReasonInfo(
        _U, Retry.NEVER, "`argosy launch -c CLUSTER FILE.yaml` makes the cluster again"
    ),
    Reason.TASKS_FAILED: ReasonInfo(
        _U,
        Retry.NEVER,
        "`argosy jobs queue --tasks JOB` lists its tasks, `argosy jobs logs JOB/TASK` has a log",
    ),
    Reason.GROUP_ENDED: ReasonInfo(
        _U, Retry.NEVER, "`argosy jobs queue --tasks JOB` shows which task ended the others"
    ),
    Reason.NOT_DUE: ReasonInfo(_U, Retry.NEVER, "`when: always` runs it whatever becomes of the ones before"),
    Reason.DRAINED: ReasonInfo(_PL, Retry.NEVER, "`argosy serve status` shows what serves in its place"),
    Reason.UNREADY: ReasonInfo(
        _U, Retry.NEVER, "`argosy serve logs SERVICE` shows what it printed; see `readiness_probe`"
    ),
    Reason.OUTPUTS_NOT_SENT: ReasonInfo(
        _U,
        Retry.NEVER,
        "the program has ended, and what it wrote did not get to its store; on a cluster it is still there: "
        "`argosy cp CLUSTER:PATH .`",
    ),
    Reason.INTERNAL: ReasonInfo(
        _PL, Retry.SAME, "`argosy server status` names the server's log; please report it"
    ),
}


def hint_for(reason: Reason, *, cluster: str = "", number: int | str = 0, gone: bool = False) -> str:
    """The hint of `reason` with the names of one cluster or job in its commands.

    Args:
        cluster: the cluster, or the one that the job runs on; "": unknown, or the job is managed.
        number: of the job, or what it is called as part of a group; 0: it is about a cluster.
        gone: the cluster has ended, so that `start` cannot bring it back.

    >>> hint_for(Reason.USER_CODE_FAILED, cluster="dev", number=3)
    'Log: `argosy logs dev 3`'
    >>> hint_for(Reason.USER_CODE_FAILED, number=3)
    'Log: `argosy jobs logs 3`'
    """
    if gone and reason in (Reason.IDLE, Reason.STOPPED_BY_USER):
        reason = Reason.CLUSTER_GONE
    hint = REASONS[reason].hint
    if number:
        hint = hint.replace("--tasks JOB", f"--tasks {number}").replace(
            "logs JOB/TASK", f"logs {number}/TASK"
        )
    if number and not cluster:
        hint = hint.replace("argosy logs CLUSTER JOB", f"argosy jobs logs {number}")
        hint = hint.replace("argosy explain CLUSTER JOB", f"argosy explain {number}")
    if cluster:
        hint = hint.replace("CLUSTER JOB", f"{cluster} {number}" if number else cluster)
        hint = hint.replace("CLUSTER", cluster)
    return hint


def explained(fact: str, hint: str) -> str:
    """What happened, then what to do: `exited with code 3. Log: ...`, `it was idle; ...`."""
    return f"{fact}. {hint}" if hint[:1].isupper() else f"{fact}; {hint}"
