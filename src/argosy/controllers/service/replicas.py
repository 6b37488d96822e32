"""Replicas on their way: starting → warming → ready ⇄ suspect → draining → gone. Pure.

A replica is a child job. It counts as ready when a probe of its present attempt was answered well; it
leaves the routes first, and is told to end only when every gateway has said that it knows, and has no
request of it under way.
"""

from __future__ import annotations

from typing import Final

import msgspec

from argosy.controllers.service.draft import Draft
from argosy.controllers.service.mix import is_mixed, mix_of, on_demand_task
from argosy.controllers.service.spread import note_taken_back, place_of_job, spread_task
from argosy.controllers.view import backoff_ms
from argosy.model.facts import RankPhase
from argosy.model.kinds.job import JOB, JobSpec, JobStatus, ReplicaOf
from argosy.model.kinds.service import Failed, Replica, ReplicaState, Revision, service_state
from argosy.model.phases import AttemptPhase, Desired, Outcome
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Workload
from argosy.model.served import ReplicaFact
from argosy.model.serving import Serving
from argosy.model.task import Task

RESTARTS: Final = 3  # of a program that fails, on its nodes, before its replica counts as failed
SUSPECT_MS, REFUSED_MS = (
    60_000,
    5_000,
)  # a suspect replica is given up after so long; one where nobody listens sooner
PROVEN_MS: Final = 60_000  # who was ready for so long fails for another reason than its revision
SUSPECT_AFTER: Final = 3  # bad answers in a row
AGAIN_AFTER: Final = 2  # good ones
#: Below those that kernels give to connections (32,768 and more), also with 6,000 added: there some runtimes
#: answer with their figures (`spec/recipes.toml`).
_PORTS: Final = range(20_000, 26_000)
_S = ReplicaState


def observe(draft: Draft) -> None:
    """Bring every replica to the state that its job and its answers say."""
    for replica in list(draft.replicas):
        job = draft.view.rows.workloads.get(replica.job_id)
        if job is None:
            _gone(draft, replica)
        elif replica.state is _S.DRAINING:
            _drain(draft, replica, job)
        else:
            _advance(draft, replica, job)


# -- ends -------------------------------------------------------------------------------------------


def _gone(draft: Draft, replica: Replica) -> None:
    draft.drop(replica)
    if replica.state is _S.DRAINING:
        return
    ended = [each for each in draft.view.rows.ends_for(draft.row.id) if each.id == replica.job_id]
    outcome = ended[-1].outcome if ended else None
    why = _why_ended(ended[-1] if ended else None)
    if outcome in (Outcome.LOST, Outcome.PREEMPTED):
        if not replica.on_demand:
            note_taken_back(draft, replica.place)
        draft.tell("replica-lost", f"replica {replica.number}: {why}")
        return
    note_failed(draft, replica, why)


def note_failed(draft: Draft, replica: Replica, why: str) -> None:
    """It ended by itself, or never became ready."""
    draft.failed.append(
        Failed(
            job_id=replica.job_id,
            number=replica.number,
            revision=replica.revision,
            at_ms=draft.now_ms,
            was_proven=replica.is_proven,
            detail=why,
        )
    )
    draft.tell("replica-failed", f"replica {replica.number} of revision {replica.revision}: {why}")
    rollout = draft.rollout
    is_new = rollout is not None and not rollout.is_over and rollout.new == replica.revision
    if rollout is not None and is_new and not replica.is_proven:
        draft.rollout = msgspec.structs.replace(rollout, failed=rollout.failed + 1, why=why)


def _why_ended(job: Workload | None) -> str:
    if job is None:
        return "it is gone"
    if job.outcome is Outcome.SUCCEEDED:
        return "its program ended by itself (exit code 0): a server runs until it is stopped"
    return job.detail or (job.reason.value if job.reason is not None else "it ended")


# -- on the way in ----------------------------------------------------------------------------------


def _advance(draft: Draft, replica: Replica, job: Workload) -> None:
    attempt = draft.view.rows.attempt_of(job.id)
    place = place_of_job(draft.view.rows, job.id)
    if place and place != replica.place:
        replica = draft.change(replica, place=place)
    if attempt is not None and job.desired is Desired.RUN and _must_leave(attempt):
        _leave(draft, replica, attempt)
        return
    if job.desired is Desired.END or attempt is None or attempt.phase is not AttemptPhase.RUNNING:
        if replica.state is not _S.STARTING:
            draft.change(replica, state=_S.STARTING, why=job.detail)
        return
    if _has_ended(draft, attempt):
        if replica.state is not _S.STARTING:
            draft.change(replica, state=_S.STARTING, why="its program has ended")
        return
    if attempt.id != replica.attempt_id:
        replica = draft.change(replica, state=_S.WARMING, attempt_id=attempt.id, address="", why="")
    elif replica.state is _S.STARTING:
        replica = draft.change(replica, state=_S.WARMING, why="")
    fact = draft.view.observed.replica(job.id)
    if fact is not None and fact.attempt_id != attempt.id:
        fact = None
    if replica.state is _S.WARMING:
        _warm(draft, replica, attempt, fact)
    elif fact is not None and replica.state is _S.READY:
        _look(draft, replica, fact)
    elif replica.state is _S.SUSPECT:
        _doubt(draft, replica, fact)


def _must_leave(attempt: Attempt) -> bool:
    """Its node was given notice, or others need the room; its program is there until its requests are
    done."""
    return (
        attempt.phase is AttemptPhase.ENDING
        and attempt.outcome is Outcome.PREEMPTED
        and attempt.reason in (Reason.PREEMPTED, Reason.EVICTED)
    )


def _leave(draft: Draft, replica: Replica, attempt: Attempt) -> None:
    """Out of the routes at once. It counts no more, so that another one is ordered in the same decision."""
    if attempt.reason is Reason.PREEMPTED and not replica.on_demand:
        note_taken_back(draft, replica.place)
    draft.drain(replica, attempt.detail)
    draft.tell("replica-leaves", f"replica {replica.number}: {attempt.detail}; another one takes its place")


def _has_ended(draft: Draft, attempt: Attempt) -> bool:
    """Known before its job has drawn the consequences."""
    fact = draft.view.observed.rank(f"{attempt.id}.0")
    return fact is not None and fact.phase in (RankPhase.EXITED, RankPhase.VANISHED)


def _warm(draft: Draft, replica: Replica, attempt: Attempt, fact: ReplicaFact | None) -> None:
    if fact is not None and fact.good and fact.address:
        first = replica.ready_ms == 0
        draft.change(
            replica,
            state=_S.READY,
            address=fact.address,
            ready_ms=replica.ready_ms or draft.now_ms,
            why="",
            left=0,
        )
        if first:
            draft.changes["start_s"] = max(1, (draft.now_ms - replica.made_ms) // 1000)
            draft.tell("replica-ready", f"replica {replica.number} of revision {replica.revision} is ready")
        return
    revision = draft.revision(replica.revision)
    limit_ms = revision.serving.probe.start_ms if revision is not None else 0
    due_ms = replica.since_ms + limit_ms
    why = fact.why if fact is not None else ""
    if draft.now_ms < due_ms:
        draft.wake(due_ms)
        if why and why != replica.why:
            draft.change(replica, why=why)
        return
    text = f"it was not ready after {limit_ms // 1000} s: {why or 'no answer'}"
    note_failed(draft, replica, text)
    draft.end_job(replica.job_id, Reason.UNREADY, text)
    draft.change(replica, state=_S.DRAINING, why=text)


def _look(draft: Draft, replica: Replica, fact: ReplicaFact) -> None:
    """A ready one that does not answer any more, or has answered for long enough."""
    if not replica.is_proven:
        proven_ms = replica.since_ms + PROVEN_MS
        if draft.now_ms >= proven_ms:
            replica = draft.change(replica, is_proven=True)
        else:
            draft.wake(proven_ms)
    revision = draft.revision(replica.revision)
    failing_ms = revision.serving.probe.failing_ms if revision is not None else 0
    late = fact.bad >= SUSPECT_AFTER and draft.now_ms - fact.since_ms >= failing_ms
    refused = fact.refused and fact.bad >= SUSPECT_AFTER
    if fact.address and fact.address != replica.address:
        draft.change(replica, address=fact.address)
    elif (late or refused) and _may_suspect(draft, replica):
        draft.change(replica, state=_S.SUSPECT, left=draft.next_generation, why=fact.why)
        draft.tell("replica-suspect", f"replica {replica.number} does not answer: {fact.why}")
        draft.wake(draft.now_ms + REFUSED_MS)
    elif fact.bad >= SUSPECT_AFTER:
        draft.wake(max(draft.now_ms + 1000, fact.since_ms + failing_ms))


def _may_suspect(draft: Draft, replica: Replica) -> bool:
    """Never more than half of the replicas on probes alone: then the probe is wrong rather than all of
    them."""
    doubted = len([each for each in draft.replicas if each.state is _S.SUSPECT])
    ready = len([each for each in draft.replicas if each.state is _S.READY])
    return doubted + 1 <= max(1, (doubted + ready) // 2)


def _doubt(draft: Draft, replica: Replica, fact: ReplicaFact | None) -> None:
    if fact is not None and fact.good >= AGAIN_AFTER:
        draft.change(replica, state=_S.READY, left=0, why="")
        return
    limit_ms = REFUSED_MS if fact is not None and fact.refused else SUSPECT_MS
    if draft.now_ms - replica.since_ms >= limit_ms:
        draft.drain(replica, f"it did not answer for {limit_ms // 1000} s: {replica.why}")
    else:
        draft.wake(replica.since_ms + limit_ms)


# -- on the way out ---------------------------------------------------------------------------------


def _drain(draft: Draft, replica: Replica, job: Workload) -> None:
    if job.desired is Desired.END:
        return
    attempt = draft.view.rows.attempt_of(job.id)
    is_over = attempt is None or attempt.id != replica.attempt_id
    if is_over or is_drained(draft, replica):
        draft.end_job(job.id, Reason.DRAINED, replica.why)
    else:
        draft.wake(draft.now_ms + 1000)


def is_drained(draft: Draft, replica: Replica) -> bool:
    """Whether nobody sends it requests and none is under way; or it took too long."""
    if not replica.left or not replica.address:
        return True  # it never took any
    revision = draft.revision(replica.revision)
    limit_ms = (revision.serving if revision is not None else Serving()).drain_ms
    if draft.now_ms - replica.since_ms >= limit_ms:
        return True
    fact = draft.view.observed.served(draft.row.id)
    if fact is None or fact.generation < replica.left:
        return False
    return not fact.in_flight.get(replica.job_id)


# -- how many ---------------------------------------------------------------------------------------


def staff(draft: Draft, wanted: dict[int, int], new_id: object) -> None:
    """Make what is missing, and take out what is too much, revision by revision."""
    for number in sorted({each.revision for each in draft.replicas} | set(wanted)):
        there = draft.of(number)
        count = wanted.get(number, 0)
        revision = draft.revision(number)
        if revision is None or not is_mixed(revision):
            _fill(draft, number, there, count, new_id)
            continue
        spot = [each for each in there if not each.on_demand]
        mix = mix_of(count, revision.serving.replicas, sum(each.state is _S.READY for each in spot))
        _fill(draft, number, spot, mix.spot, new_id)
        steady = [each for each in there if each.on_demand]
        _fill(draft, number, steady, mix.on_demand, new_id, on_demand=True)


def _fill(
    draft: Draft, number: int, there: list[Replica], count: int, new_id: object, *, on_demand: bool = False
) -> None:
    """So many of `there` as `count` says, and what is missing."""
    revision = draft.revision(number)
    for replica in victims(draft, there)[: max(0, len(there) - count)]:
        if replica.state is _S.READY and _ready(draft) <= draft.floor:
            continue
        draft.drain(replica, _why_drained(draft, number, count, on_demand=on_demand))
    if revision is not None and count > len(there):
        _make(draft, revision, count - len(there), new_id, on_demand=on_demand)


def _ready(draft: Draft) -> int:
    return sum(each.state is _S.READY for each in draft.replicas)


def _why_drained(draft: Draft, number: int, count: int, *, on_demand: bool = False) -> str:
    if on_demand and number == draft.serves:
        return f"{count} on demand {'is' if count == 1 else 'are'} wanted"
    if count == 0 and number != draft.serves:
        return f"revision {number} does not serve any more"
    return f"{count} {'replica is' if count == 1 else 'replicas are'} wanted"


def victims(draft: Draft, replicas: list[Replica]) -> list[Replica]:
    """Who goes first: who has not begun, who does not answer, who has the fewest requests, who is oldest."""
    fact = draft.view.observed.served(draft.row.id)
    order = {_S.STARTING: 0, _S.WARMING: 1, _S.SUSPECT: 2, _S.READY: 3, _S.DRAINING: 4}

    def place(each: Replica) -> tuple[int, int, int]:
        return order[each.state], fact.in_flight.get(each.job_id, 0) if fact is not None else 0, each.number

    return sorted(replicas, key=place)


def not_before_ms(draft: Draft, revision: int) -> int:
    """When a replica may be made in place of one that failed: pauses grow with each failure in a row. A
    failure that is later than now, by a clock that was set back since, holds nobody up."""
    count, last_ms = 0, 0
    mine = [each for each in draft.replicas if each.revision == revision]
    good_ms = max((each.since_ms for each in mine if each.is_proven and each.state is _S.READY), default=0)
    for failed in reversed(draft.failed):
        if failed.revision != revision or failed.at_ms <= good_ms:
            continue
        count, last_ms = count + 1, last_ms or failed.at_ms
        if failed.was_proven:
            break
    return last_ms + backoff_ms(draft.view.policy, count) if count and last_ms <= draft.now_ms else 0


def _make(draft: Draft, revision: Revision, count: int, new_id: object, *, on_demand: bool) -> None:
    due_ms = not_before_ms(draft, revision.number)
    if draft.now_ms < due_ms:
        draft.wake(due_ms)
        return
    made = draft.changes.get("made", draft.before.made)
    assert callable(new_id)
    if on_demand:
        task = on_demand_task(revision.task)
        revision = msgspec.structs.replace(revision, task=task, confirmed=None)
    for number in range(made + 1, made + count + 1):
        port = _port(draft, number)
        task, place = spread_task(draft, revision, revision.task, on_demand=on_demand)
        job = _job(draft, revision, task, number, port, new_id(JOB.prefix))
        draft.put(job)
        draft.replicas.append(
            Replica(
                job_id=job.id,
                number=number,
                revision=revision.number,
                port=port,
                on_demand=on_demand,
                place=place,
                since_ms=draft.now_ms,
                made_ms=draft.now_ms,
            )
        )
    draft.changes["made"] = made + count


def _port(draft: Draft, number: int) -> int:
    """One that no live replica of any service has: several of them may run on one machine."""
    taken = {
        replica.port
        for row in draft.view.rows.named(draft.row.kind)
        for replica in service_state(row).replicas
    } | {each.port for each in draft.replicas}
    seed = sum(ord(letter) * (place + 31) for place, letter in enumerate(draft.row.id)) + number * 7
    for step in range(len(_PORTS)):
        port = _PORTS[(seed + step) % len(_PORTS)]
        if port not in taken:
            return port
    return _PORTS[seed % len(_PORTS)]


def _job(draft: Draft, revision: Revision, task: Task, number: int, port: int, job_id: str) -> Workload:
    """The row of the job. Programs that fail are started again on their nodes a few times."""
    row, name = draft.row, draft.row.name
    written, confirmed = revision.serving.port, revision.confirmed
    if confirmed is not None and task is not revision.task:  # its price holds, the order of places does not
        confirmed = msgspec.structs.replace(confirmed, order=())
    return Workload(
        id=job_id,
        kind=JOB.name,
        name=f"{name}-{number}",
        spec=JobSpec(
            task=_task(task, f"{name}-{number}"),
            managed=True,
            confirmed=confirmed,
            replica=ReplicaOf(service=name, revision=revision.number, port=port, written_port=written),
        ),
        status=JobStatus(),
        user=row.user,
        project=row.project,
        queue=row.queue,
        number=number,
        parent_id=row.id,
        created_ms=draft.now_ms,
    )


def _task(task: Task, name: str) -> Task:
    resources = []
    for wish in task.resources:
        recovery = wish.recovery
        if not recovery.max_restarts_on_errors:
            recovery = msgspec.structs.replace(recovery, max_restarts_on_errors=RESTARTS)
        resources.append(
            msgspec.structs.replace(wish, recovery=recovery, priority_class=wish.priority_class or "service")
        )
    return msgspec.structs.replace(
        task, name=name, resources=tuple(resources), service=None, notify=(), extra="", not_executed=()
    )
