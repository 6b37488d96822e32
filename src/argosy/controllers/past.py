"""The controllers' memory of the past: where capacity was refused, how long jobs ran, which queues used what
lately. In memory, learned again from the store's recent rows after a start.

Decisions only get better by it: none depends on it for safety. With several servers each learns from the rows
that all write.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from argosy.model import kinds
from argosy.model.offer import Capacity
from argosy.model.phases import ClaimPhase, Outcome
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Claim, Workload
from argosy.model.tenancy import Tenancy
from argosy.planning.availability import Memory, Seen, forgive, note_spot, note_start, refusal_of, remember
from argosy.scheduler import estimate
from argosy.scheduler.estimate import History
from argosy.scheduler.recall import HALF_LIVES, Use, Uses, uses_of_attempt, uses_of_claim
from argosy.scheduler.requests import job_kinds, share_of_nodes
from argosy.store import Snapshot, Store

REFUSALS_SINCE_MS: Final = 3_600_000  # older ones have faded
RUNS_LOADED: Final = 500
USES_LOADED: Final = 10_000  # the newest of the owned machines, and of each cluster
AT_ONCE: Final = 500
HISTORY_EVERY_MS: Final = 60_000  # estimates of all asks change together, and not with every job that ends


class Past:
    def __init__(self) -> None:
        self.memory = Memory()
        self._history = History()
        self._runs: list[tuple[tuple[str, ...], int]] = []  # not yet in the history
        self._renewed_ms: int | None = None

    def history(self, now_ms: int) -> History:
        """Run times by kind of job: the same object for a minute at least."""
        due = self._renewed_ms is None or not 0 <= now_ms - self._renewed_ms < HISTORY_EVERY_MS
        if self._runs and due:
            for kinds, runtime_s in self._runs:
                self._history = estimate.remember(self._history, kinds, runtime_s)
            self._runs.clear()
            self._renewed_ms = now_ms
        return self._history

    async def load(self, store: Store, now_ms: int) -> None:
        """What happened before this server was started."""
        for claim in await store.load_claims(since_ms=now_ms - REFUSALS_SINCE_MS):
            if claim.phase is ClaimPhase.GONE and _was_refused(claim):
                self._refused(claim, claim.gone_ms)
        rows = await store.snapshot()
        owners: list[str | None] = [None, *(row.id for row in rows.clusters())]
        for owner in owners:
            jobs = await store.load_jobs(host_id=owner, limit=RUNS_LOADED, parts=True)
            self._note_ended(reversed(jobs))

    async def uses(self, store: Store, now_ms: int) -> Uses:
        """What was used lately of the owned machines and of each cluster: what counts in the order of
        queues."""
        rows = await store.snapshot()
        since_ms = now_ms - HALF_LIVES * 1000 * rows.tenancy.policy.half_life_s
        claims = await store.load_claims(since_ms=since_ms, limit=USES_LOADED)
        owned = [claim for claim in claims if claim.choice.offer.capacity is Capacity.OWNED]
        owners = await store.load_by_id(Workload, {claim.workload_id for claim in owned})
        found: dict[str | None, list[Use]] = {None: []}
        for claim in owned:
            if claim.workload_id in owners:
                found[None] += uses_of_claim(owners[claim.workload_id], claim, rows.tenancy)
        for cluster in rows.clusters():
            attempts = await store.load_past_attempts(cluster.id, since_ms=since_ms, limit=USES_LOADED)
            placed = [attempt for attempt in attempts if attempt.placements]
            share_milli = share_of_nodes(rows.claims_of(cluster.id))
            found[cluster.id] = await _uses_of_attempts(store, placed, rows.tenancy, share_milli)
        return found

    def follow(self, rows: Snapshot, before: Snapshot | None, now_ms: int) -> None:
        """Learn from what differs between two snapshots."""
        if before is None:
            return
        for old, new in rows.news(before):
            if isinstance(new, Claim) and isinstance(old, Claim) and new.phase is not old.phase:
                self._note_claim(old, new, now_ms)

    def _note_claim(self, old: Claim, new: Claim, now_ms: int) -> None:
        """A claim has changed its phase."""
        seen = None
        if new.phase is ClaimPhase.HELD:
            self.memory = forgive(self.memory, new.choice)
            if new.choice.offer.capacity is not Capacity.OWNED:
                took_ms = max(0, new.held_ms - new.requested_ms)
                self.memory = note_start(self.memory, new.choice.offer.provider, took_ms)
            seen = Seen.GRANTED
        elif new.phase is ClaimPhase.RELEASING and old.phase is ClaimPhase.HELD:
            seen = Seen.LOST if new.reason is Reason.PREEMPTED else Seen.LEFT
        elif new.phase is ClaimPhase.RELEASING and _was_refused(new):
            self._refused(new, now_ms)
        if seen is not None:
            self.memory = note_spot(self.memory, new.choice, seen, now_ms)

    def _refused(self, claim: Claim, at_ms: int) -> None:
        """No capacity there, or a quota of its region is used up."""
        scope = "region" if claim.reason is Reason.QUOTA else "zone"
        self.memory = remember(self.memory, refusal_of(claim.choice, at_ms, scope=scope))
        self.memory = note_spot(self.memory, claim.choice, Seen.REFUSED, at_ms)

    def ended(self, jobs: Iterable[Workload]) -> None:
        """Jobs that this server has just recorded as finished."""
        self._note_ended(jobs)

    def _note_ended(self, jobs: Iterable[Workload]) -> None:
        for job in jobs:
            by_itself = job.outcome in (Outcome.SUCCEEDED, Outcome.FAILED)
            if by_itself and job.started_ms and _ran_undisturbed(job):
                self._runs.append((job_kinds(job), max(1, (job.ended_ms - job.started_ms) // 1000)))


def _ran_undisturbed(row: Workload) -> bool:
    """Whether it runs to its end by itself, and did so at the first try."""
    return any(
        gang.task is not None and not gang.recoveries and not gang.evictions for gang in kinds.gangs(row)
    )


def _was_refused(claim: Claim) -> bool:
    refused = claim.reason in (Reason.OUT_OF_CAPACITY, Reason.QUOTA)
    return refused and claim.choice.offer.capacity is not Capacity.OWNED


async def _uses_of_attempts(
    store: Store, attempts: Sequence[Attempt], tenancy: Tenancy, share_milli: int
) -> list[Use]:
    """A part at a time: between them requests are answered, and no more jobs are in memory than in one."""
    uses: list[Use] = []
    for start in range(0, len(attempts), AT_ONCE):
        some = attempts[start : start + AT_ONCE]
        jobs = await store.load_by_id(Workload, {attempt.workload_id for attempt in some})
        for attempt in some:
            if attempt.workload_id in jobs:
                uses += uses_of_attempt(jobs[attempt.workload_id], attempt, tenancy, share_milli)
    return uses
