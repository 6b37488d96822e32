"""What Slurm says, in our words: states of jobs, reasons of waiting, refusals. Pure.

Slurm's own sentence is always kept; ours comes after it.
"""

from __future__ import annotations

from typing import Final

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


_LIMITS: Final = "`sacctmgr show assoc user=$USER` and `sacctmgr show qos` show the limits"
_CLOCKS: Final = "`timedatectl` there and here tells whose is off"
#: What is asked for and cannot be, by words in what Slurm says, in small letters: the field, what to do.
_REQUESTS: Final = {
    "invalid partition": ("partition", "`sinfo -s` lists the partitions"),
    "invalid account or account/partition": (
        "account",
        "`sacctmgr show assoc user=$USER` lists your accounts; set `config.slurm.account`",
    ),
    "invalid qos": ("qos", "`sacctmgr show qos` lists them; set `config.slurm.qos`"),
    "user's group not permitted": ("partition", "choose a partition that you may use, or ask its owner"),
    "invalid generic resource": ("accelerators", "`sinfo -o %G` lists what nodes have"),
    "invalid gres": ("accelerators", "`sinfo -o %G` lists what nodes have"),
    "invalid feature specification": ("constraint", "`sinfo -o %f` lists the features of nodes"),
    "requested reservation is invalid": ("reservation", "`scontrol show reservation` lists them"),
    "requested time limit is invalid": (
        "time",
        "ask for less with `config.slurm.time`; `sinfo -o '%R %l'` shows the limits",
    ),
    "time limit exceeds": ("time", "ask for less with `config.slurm.time`"),
    "invalid node name": ("sbatch_options", "`sinfo -N` lists the nodes"),
    "node count specification invalid": ("num_nodes", "ask for fewer nodes"),
    "cpu count specification invalid": ("cpus", "ask for fewer CPUs"),
    "more processors requested than permitted": ("cpus", "ask for fewer CPUs"),
    "memory specification can not be satisfied": ("memory", "ask for less memory"),
    "unrecognized option": ("sbatch_options", "`sbatch --help` lists the options of this version"),
    "invalid option": ("sbatch_options", "`sbatch --help` lists the options of this version"),
}
_CREDENTIALS: Final = {
    "access/permission denied": "ask the site for access",
    "rewound credential": f"the clocks of this machine and of the controller differ: {_CLOCKS}",
    "expired credential": f"the clocks of this machine and of the controller differ: {_CLOCKS}",
    "authentication error": (
        "munge does not accept this machine: its key or its clock is another than the controller's "
        f"(`munge -n | unmunge` tells; {_CLOCKS})"
    ),
}
_CAPACITY: Final = {
    "node configuration is not available": "`sinfo -e -o '%R %D %c %m %G'` shows what nodes have",
    "partition configuration not available now": "`sinfo` shows which nodes are up",
    "nodes are busy": "wait, or take another partition",
    "required partition not available (inactive or drain)": "`sinfo` shows its state",
}
_LIMITED: Final = {
    "violates accounting/qos policy": "accounting/QOS policy",
    "maxjobcount limit": "MaxJobCount",
}
_PASSING: Final = (
    "unable to contact slurm controller",
    "socket timed out",
    "zero bytes were transmitted",
    "communication connection failure",
    "connection refused",
    "slurm temporarily unable to accept",
    "resource temporarily unavailable",
    "connection timed out",
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
    text, small = _sentence(said), said.lower()
    for words, (field, fix) in _REQUESTS.items():
        if words in small:
            return border.RequestRefused(field, f"Slurm: {text}; {fix}")
    for words, fix in _CREDENTIALS.items():
        if words in small:
            return border.CredentialsRejected(f"Slurm: {text}; {fix}")
    for words, fix in _CAPACITY.items():
        if words in small:
            return border.OutOfCapacity(scope, f"Slurm: {text}; {fix}")
    for words, what in _LIMITED.items():
        if words in small:
            return border.QuotaExceeded(what, "set by the site", f"Slurm: {text}; {_LIMITS}")
    if any(words in small for words in _PASSING):
        return border.Transient(f"the controller of Slurm does not answer: {text}", RETRY_S)
    return border.RequestRefused("slurm", f"Slurm refuses the job: {text}")


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
