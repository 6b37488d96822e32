"""What Slurm says, in our words: states of jobs, reasons of waiting, refusals. Pure.

Slurm's own sentence is always kept; ours comes after it.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from argosy.infra import border
from argosy.model.facts import ClaimState

# -- states --------------------------------------------------------------------------------------------------

#: Of a job: what the claim is, and whether its nodes work. A state that is not listed holds nodes until
#: Slurm says
#: otherwise.
_STATES: Final[dict[str, ClaimState]] = {
    **dict.fromkeys(
        ("PENDING", "CONFIGURING", "POWER_UP_NODE", "REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "RESIZING",
         "RESV_DEL_HOLD", "SPECIAL_EXIT", "STAGE_OUT"),
        ClaimState.PENDING,
    ),
    **dict.fromkeys(("RUNNING", "COMPLETING", "SUSPENDED", "STOPPED", "SIGNALING"), ClaimState.HELD),
    "PREEMPTED": ClaimState.PREEMPTED,
    **dict.fromkeys(
        ("BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "EXPEDITING", "FAILED",
         "LAUNCH_FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "RECONFIG_FAIL", "REVOKED", "TIMEOUT"),
        ClaimState.GONE,
    ),
}  # fmt: skip
#: Nodes are still occupied; `COMPLETING` may last as long as an epilog does.
OCCUPYING: Final = frozenset(
    {"RUNNING", "SUSPENDED", "STOPPED", "SIGNALING", "COMPLETING", "CONFIGURING", "RESIZING", "STAGE_OUT"}
)
FROZEN: Final = frozenset({"SUSPENDED", "STOPPED"})
DEAD: Final = FROZEN | {"COMPLETING"}  # its nodes do not work; how it ends, it says when it is over
#: It came back by itself, or would, which no claim may.
REQUEUED: Final = frozenset({"REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "SPECIAL_EXIT"})

#: It says in its log why.
ENDED_BY_ITSELF: Final = frozenset({"FAILED", "COMPLETED", "OUT_OF_MEMORY"})

_ENDS: Final[dict[str, str]] = {
    "BOOT_FAIL": "a node did not boot",
    "CANCELLED": "the job was cancelled outside of Argosy (scancel)",
    "COMPLETED": "the job ended by itself",
    "DEADLINE": "the job reached its deadline",
    "FAILED": "the job failed",
    "LAUNCH_FAILED": "the job could not be started on its nodes",
    "NODE_FAIL": "a node of the job failed",
    "OUT_OF_MEMORY": "the job used more memory than it had asked for",
    "PREEMPTED": "a job of higher priority took the nodes",
    "REVOKED": "another cluster of the federation took the job",
    "TIMEOUT": "the job reached its time limit",
}


def claim_state(job_state: str) -> ClaimState:
    """
    >>> claim_state("RUNNING"), claim_state("NODE_FAIL"), claim_state("PREEMPTED")
    (<ClaimState.HELD: 'held'>, <ClaimState.GONE: 'gone'>, <ClaimState.PREEMPTED: 'preempted'>)
    """
    return _STATES.get(job_state, ClaimState.HELD)


def end_text(job_state: str, reason: str) -> str:
    """Why a job is over, as a clause with Slurm's own word.

    >>> end_text("TIMEOUT", "TimeLimit")
    'the job reached its time limit (Slurm: TIMEOUT)'
    """
    said = f"{job_state}, {reason}" if reason and reason not in ("None", "TimeLimit") else job_state
    return f"{_ENDS.get(job_state, 'the job is over')} (Slurm: {said})"


# -- reasons of waiting --------------------------------------------------------------------------------------

#: What never passes by itself. The others (Resources, Priority, Dependency, ...) do.
_NEVER: Final[dict[str, str]] = {
    "PartitionNodeLimit": "the partition allows fewer nodes for one job",
    "PartitionTimeLimit": "the partition's time limit is shorter",
    "PartitionConfig": "no node of the partition, or its limits, can meet what is asked for",
    "PartitionDown": "the partition takes no jobs to run",
    "PartitionInactive": "the partition is inactive",
    "BadConstraints": "no node meets what is asked for",
    "AccountNotAllowed": "the account may not use this partition",
    "QOSNotAllowed": "the QoS may not be used in this partition",
    "InvalidAccount": "there is no such account",
    "InvalidQOS": "there is no such QoS",
    "JobHeldAdmin": "an administrator holds the job",
    "JobHoldMaxRequeue": "the job was started too often",
    "ReservationDeleted": "the reservation is gone",
    "DeadLine": "the deadline cannot be met",
}
_QUOTAS: Final = ("Assoc", "QOS", "MaxJob", "MaxCpuPerAccount", "MaxGRESPerAccount", "MaxMemPerAccount")


def pending_text(reason: str, start: str) -> str:
    """What a pending claim waits for, with Slurm's estimate of its start.

    >>> pending_text("Resources", "2026-11-29T18:00:00")
    'waits in the queue of Slurm (Resources); Slurm expects the start at 2026-11-29 18:00'
    """
    text = f"waits in the queue of Slurm ({reason or 'not yet scheduled'})"
    return f"{text}; Slurm expects the start at {start.replace('T', ' ')[:16]}" if start else text


def pending_error(reason: str) -> border.BorderError | None:
    """The refusal that a reason means; None when waiting helps.

    >>> pending_error("Priority") is None, str(pending_error("QOSMaxGRESPerUser"))
    (True, 'quota QOSMaxGRESPerUser is exhausted (limit set by the site)')
    """
    word = reason.strip("()").partition(" ")[0].rstrip(",")
    if word in _NEVER:
        return border.RequestRefused("slurm", f"Slurm: {reason}: {_NEVER[word]}")
    if word.startswith(_QUOTAS):
        return border.QuotaExceeded(word, "set by the site")
    return None


# -- refusals ------------------------------------------------------------------------------------------------


class _Refusal(NamedTuple):
    words: str  # in what Slurm says, in small letters
    kind: str  # capacity | quota | request | transient | credentials
    what: str  # field or scope
    fix: str


_REFUSALS: Final = (
    _Refusal("invalid partition", "request", "partition", "`sinfo -s` lists the partitions"),
    _Refusal(
        "invalid account or account/partition",
        "request",
        "account",
        "`sacctmgr show assoc user=$USER` lists your accounts; set `config.slurm.account`",
    ),
    _Refusal("invalid qos", "request", "qos", "`sacctmgr show qos` lists them; set `config.slurm.qos`"),
    _Refusal(
        "user's group not permitted",
        "request",
        "partition",
        "choose a partition that you may use, or ask its owner",
    ),
    _Refusal("access/permission denied", "credentials", "", "ask the site for access"),
    _Refusal("invalid generic resource", "request", "accelerators", "`sinfo -o %G` lists what nodes have"),
    _Refusal("invalid gres", "request", "accelerators", "`sinfo -o %G` lists what nodes have"),
    _Refusal(
        "invalid feature specification", "request", "constraint", "`sinfo -o %f` lists the features of nodes"
    ),
    _Refusal(
        "requested reservation is invalid", "request", "reservation", "`scontrol show reservation` lists them"
    ),
    _Refusal(
        "requested time limit is invalid",
        "request",
        "time",
        "ask for less with `config.slurm.time`; `sinfo -o '%R %l'` shows the limits",
    ),
    _Refusal("time limit exceeds", "request", "time", "ask for less with `config.slurm.time`"),
    _Refusal("invalid node name", "request", "sbatch_options", "`sinfo -N` lists the nodes"),
    _Refusal("node count specification invalid", "request", "num_nodes", "ask for fewer nodes"),
    _Refusal("cpu count specification invalid", "request", "cpus", "ask for fewer CPUs"),
    _Refusal("memory specification can not be satisfied", "request", "memory", "ask for less memory"),
    _Refusal("more processors requested than permitted", "request", "cpus", "ask for fewer CPUs"),
    _Refusal(
        "node configuration is not available",
        "capacity",
        "",
        "`sinfo -e -o '%R %D %c %m %G'` shows what nodes have",
    ),
    _Refusal("partition configuration not available now", "capacity", "", "`sinfo` shows which nodes are up"),
    _Refusal("nodes are busy", "capacity", "", "wait, or take another partition"),
    _Refusal("violates accounting/qos policy", "quota", "accounting/QOS policy", ""),
    _Refusal("maxjobcount limit", "quota", "MaxJobCount", ""),
    _Refusal(
        "required partition not available (inactive or drain)", "capacity", "", "`sinfo` shows its state"
    ),
    _Refusal("unable to contact slurm controller", "transient", "", ""),
    _Refusal("socket timed out", "transient", "", ""),
    _Refusal("zero bytes were transmitted", "transient", "", ""),
    _Refusal("communication connection failure", "transient", "", ""),
    _Refusal("connection refused", "transient", "", ""),
    _Refusal("slurm temporarily unable to accept", "transient", "", ""),
    _Refusal("resource temporarily unavailable", "transient", "", ""),
    _Refusal("connection timed out", "transient", "", ""),
    _Refusal(
        "unrecognized option",
        "request",
        "sbatch_options",
        "`sbatch --help` lists the options of this version",
    ),
    _Refusal(
        "invalid option", "request", "sbatch_options", "`sbatch --help` lists the options of this version"
    ),
)

_PREFIXES: Final = (
    *("sbatch:", "srun:", "scancel:", "squeue:", "sinfo:", "scontrol:", "error:"),
    *("Batch job submission failed:", "allocation failure:"),
)
RETRY_S: Final = 5.0


def refusal(said: str, scope: str) -> border.BorderError:
    """The error for what a command of Slurm printed when it failed.

    >>> error = refusal("sbatch: error: invalid partition specified: gup", "lab/gup")
    >>> type(error).__name__, str(error)
    ('RequestRefused', 'Slurm: invalid partition specified: gup; `sinfo -s` lists the partitions')
    """
    text = _sentence(said)
    small = said.lower()
    found = next((each for each in _REFUSALS if each.words in small), None)
    if found is None:
        return border.RequestRefused("slurm", f"Slurm refuses the job: {text}")
    full = f"Slurm: {text}; {found.fix}" if found.fix else f"Slurm: {text}"
    match found.kind:
        case "capacity":
            return border.OutOfCapacity(scope, full)
        case "quota":
            error = border.QuotaExceeded(found.what, "set by the site")
            error.args = (
                f"{full}; `sacctmgr show assoc user=$USER` and `sacctmgr show qos` show the limits",
            )
            return error
        case "transient":
            return border.Transient(f"the controller of Slurm does not answer: {text}", RETRY_S)
        case "credentials":
            return border.CredentialsRejected(full)
        case _:
            return border.RequestRefused(found.what, full)


def is_unknown_job(said: str) -> bool:
    """Whether a command failed because the job is over."""
    small = said.lower()
    return any(
        words in small
        for words in (
            "invalid job id",
            "already completing or completed",
            "job has already finished",
            "already exited",
        )
    )


def _sentence(said: str) -> str:
    """What was printed, in one line, without the names of the programs."""
    lines = []
    for line in said.strip().splitlines():
        text = line.strip()
        for prefix in _PREFIXES:
            text = text.removeprefix(prefix).strip()
        if text and text not in lines:
            lines.append(text)
    return "; ".join(lines)[:500] or "it said nothing"
