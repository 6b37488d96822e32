"""What a workload asks of a pool, and what it holds there, in the words of the pool scheduler. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from hashlib import blake2b
from typing import Final

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.kinds import gang_of, kind_of, label, task_of
from argosy.model.kinds.job import job_task
from argosy.model.offer import Choice, Placement, place_of
from argosy.model.phases import ClaimPhase, Desired
from argosy.model.resources import Resources
from argosy.model.rows import Attempt, Claim, Workload
from argosy.model.scheduling import PRIORITY_CLASSES, Scheduling
from argosy.model.task import Task
from argosy.model.tenancy import Tenancy
from argosy.model.units import Bound
from argosy.scheduler.ask import Ask, Need, Running
from argosy.scheduler.estimate import History, estimate_s, is_known, kinds_of
from argosy.scheduler.machines import NAMED, PLACE, groups_for
from argosy.scheduler.quota import leaf_of

_LETTERS: Final = str.maketrans("0123456789", "ghijklmnop")
DEFAULT_CPUS_MILLI: Final = 500  # of a job that names no number: jobs run side by side by default


def with_floor(candidates: tuple[Resources, ...]) -> tuple[Resources, ...]:
    """Managed jobs that name no CPUs reserve a default share, or a thousand of them would start on one
    machine at once."""
    return tuple(
        each if each.cpus else msgspec.structs.replace(each, cpus=Bound(DEFAULT_CPUS_MILLI))
        for each in candidates
    )


def scheduling_of(workload: Workload) -> Scheduling:
    return gang_of(workload).scheduling


def resources_of(workload: Workload) -> tuple[Resources, ...]:
    return gang_of(workload).resources


def queue_of(workload: Workload, tenancy: Tenancy) -> str:
    """Path of the leaf that it counts in: as written when it was submitted, else by its project and user."""
    if workload.queue:
        return workload.queue
    try:
        return leaf_of(tenancy, workload.project, workload.user, scheduling_of(workload).queue)
    except ArgosyError:  # the tree has changed since: as if nobody had written about it
        return leaf_of(Tenancy(), workload.project, workload.user)


def urgency_of(workload: Workload) -> int:
    named = resources_of(workload)[0].priority_class
    name = named if named in PRIORITY_CLASSES else kind_of(workload).priority_class
    return PRIORITY_CLASSES.index(name)


def gpus_of(task: Task) -> int:
    """Milli-GPU of all nodes together, of the first candidate."""
    wish = task.resources[0].accelerator
    return wish.milli * task.num_nodes if wish is not None else 0


def job_kinds(job: Workload) -> tuple[str, ...]:
    """Kinds of runs in the history that say something about this job. One without a name is like those that
    run the same program: what else its user ran in that size promises nothing about it."""
    task = job_task(job)
    named = bool(task.name) or job.name not in ("", f"job-{job.number}")
    name = job.name if named else _program(task)
    same, size, user = kinds_of(user=job.user, project=job.project, name=name, gpu_milli=gpus_of(task))
    return (same, size, user) if named else (same, user)


def _program(task: Task) -> str:
    """A name for what a task runs. Letters only: digits in names count as equal."""
    digest = blake2b(f"{task.setup}\0{task.run}".encode(), digest_size=8).hexdigest()
    return "program-" + digest.translate(_LETTERS)


def expected_s(workload: Workload, history: History) -> tuple[int | None, bool]:
    """How long it will run once started, by what its user says, else by what jobs like it took; and whether
    that is a guess."""
    task = task_of(workload)
    if task is None:
        return None, True
    limit = task.max_duration_s
    if task.estimated_s is not None:
        return task.estimated_s if limit is None else min(task.estimated_s, limit), False
    kinds = job_kinds(workload)
    guess = estimate_s(history, kinds, urgency=urgency_of(workload), max_duration_s=limit)
    return guess, limit is None and not is_known(history, kinds)


def share_of_nodes(claims: Iterable[Claim]) -> int:
    """Milli-CPU of a job that names no number, on the nodes of a cluster: the default share; all of a node
    that has less."""
    has = (claim.choice.cpus_milli for claim in claims if claim.is_live)
    return min((milli for milli in has if 0 < milli < DEFAULT_CPUS_MILLI), default=DEFAULT_CPUS_MILLI)


def ask_of_job(
    job: Workload, tenancy: Tenancy, history: History, share_milli: int = DEFAULT_CPUS_MILLI
) -> Ask:
    """What a job asks of the nodes of its cluster. Each rank goes to a node of its own. `share_milli`: see
    `share_of_nodes`."""
    task = job_task(job)
    queue = queue_of(job, tenancy)
    needs = needs_of_job(job, tenancy, queue, share_milli)
    spread = task.scheduling.spread or ("node" if task.num_nodes > 1 else "")
    return _ask(job, needs, task.num_nodes, tenancy, history, queue=queue, spread=spread)


def needs_of_job(
    job: Workload, tenancy: Tenancy, queue: str, share_milli: int = DEFAULT_CPUS_MILLI
) -> list[Need]:
    """The candidates of what each rank needs, best first."""
    wishes = job_task(job).resources
    return [
        _need(job, wish, wish.cpus.amount if wish.cpus else share_milli, tenancy, queue) for wish in wishes
    ]


def ask_of_choices(
    workload: Workload,
    choices: Sequence[Choice],
    num_nodes: int,
    tenancy: Tenancy,
    history: History,
    *,
    only: tuple[str, ...] = (),
) -> Ask:
    """What a workload asks of owned machines: one candidate for each choice. `only`: none but these."""
    queue = queue_of(workload, tenancy)
    needs = [_need_of_choice(workload, choice, tenancy, queue, only) for choice in choices]
    spread = scheduling_of(workload).spread
    if not spread and num_nodes > 1 and any(choice.offer.apart for choice in choices):
        spread = "node"  # a node is a machine there
    return _ask(workload, needs, num_nodes, tenancy, history, queue=queue, spread=spread)


def running_attempt(
    job: Workload, attempt: Attempt, tenancy: Tenancy, history: History, share_milli: int
) -> Running:
    """What a job of a cluster holds."""
    return Running(
        ask=ask_of_job(job, tenancy, history, share_milli),
        placements=attempt.placements,
        started_ms=attempt.placed_ms,
        leaving=attempt.ending_ms > 0 or job.desired is Desired.END,
    )


def running_claim(
    workload: Workload,
    claim: Claim,
    placements: tuple[Placement, ...],
    attempt: Attempt | None,
    tenancy: Tenancy,
    history: History,
) -> Running:
    """What a claim on owned machines holds. Clusters are not ended to make room: people keep things there."""
    ask = ask_of_choices(workload, (claim.choice,), claim.count, tenancy, history)
    ask = msgspec.structs.replace(
        ask, id=holder_of(workload, claim), preemptible=ask.preemptible and kind_of(workload).evictable
    )
    leaving = (
        claim.phase is ClaimPhase.RELEASING
        or claim.desired is not Desired.RUN
        or workload.desired is not Desired.RUN
        or (attempt is not None and attempt.ending_ms > 0)
    )
    return Running(ask=ask, placements=placements, started_ms=claim.requested_ms, leaving=leaving)


def holder_of(workload: Workload, claim: Claim) -> str:
    """Under which id a claim stands in the books: that of its workload, while it is the one that the workload
    uses."""
    used = claim.phase in (ClaimPhase.REQUESTED, ClaimPhase.HELD) and claim.desired is Desired.RUN
    return workload.id if used else claim.id


def holds_room(claim: Claim) -> bool:
    """Claims at rest hold nothing until they are to run again, nor do those that were given up at rest."""
    if claim.phase is ClaimPhase.STOPPED:
        return claim.desired is Desired.RUN
    return claim.is_live and (claim.phase is not ClaimPhase.RELEASING or bool(claim.placements))


def _need(workload: Workload, wish: Resources, cpus_milli: int, tenancy: Tenancy, queue: str) -> Need:
    scheduling, gpu = scheduling_of(workload), wish.accelerator
    return Need(
        cpus_milli=cpus_milli,
        memory_bytes=wish.memory_for(cpus_milli),
        gpu_milli=gpu.milli if gpu is not None else 0,
        models=(gpu.model,) if gpu is not None and gpu.model is not None else (),
        gpu_memory_bytes=gpu.memory_min_bytes if gpu is not None else 0,
        labels=scheduling.labels,
        tolerations=scheduling.tolerations,
        groups=groups_for(workload.kind, queue, tenancy),
        only_group=scheduling.group,
        isolation=scheduling.isolation,
        tenant=workload.project,
        open=scheduling.share == "any",
    )


def _need_of_choice(
    workload: Workload, choice: Choice, tenancy: Tenancy, queue: str, only: tuple[str, ...]
) -> Need:
    """Amounts are those that the choice grants: what was not asked for by number is shared."""
    need = _need(workload, choice.resources, choice.cpus_milli, tenancy, queue)
    zone = choice.resources.infra.zone if choice.offer.apart else None
    named = ((NAMED, zone),) if zone and zone != "*" else ()
    own = ((PLACE, place_of(choice.offer)), *named)
    return msgspec.structs.replace(
        need,
        memory_bytes=choice.memory_bytes,
        gpu_milli=choice.accelerators_milli,
        models=(choice.accelerator,) if choice.accelerator else (),
        labels=(*need.labels, *own),
        only=only,
    )


def _ask(
    workload: Workload,
    needs: Sequence[Need],
    num_nodes: int,
    tenancy: Tenancy,
    history: History,
    *,
    queue: str,
    spread: str,
) -> Ask:
    gang = gang_of(workload)
    scheduling = gang.scheduling
    length_s, guessed = expected_s(workload, history)
    return Ask(
        id=workload.id,
        needs=tuple(dict.fromkeys(needs)),
        num_nodes=num_nodes,
        required=scheduling.required,
        preferred=scheduling.preferred,
        spread=spread,
        queue=queue,
        urgency=urgency_of(workload),
        priority=gang.resources[0].priority,
        submitted_ms=workload.created_ms,
        number=workload.number,
        label=label(workload) if workload.parent_id is not None else "",
        preemptible=scheduling.preemptible,
        checkpoint=scheduling.checkpoint,
        estimate_s=length_s,
        guessed=guessed,
        attained=gang.attained,
        not_before_ms=workload.retry_ms,
        evictions=gang.evictions,
    )
