"""The jobs of our claims on one cluster: one list of the queue for all of them, and what it means.

Whoever asks while a list is under way gets the next one.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator, Sequence
from typing import Final

from argosy.infra.ssh import Ran
from argosy.infra.tombstones import is_claim_id
from argosy.model.facts import ClaimFact, ClaimState, NodeSighting
from argosy.model.ids import Clock
from argosy.providers.slurm import script
from argosy.providers.slurm.listing import Job, parse_squeue
from argosy.providers.slurm.native_script import NativeClaim, read_notes
from argosy.providers.slurm.runner import Runner
from argosy.providers.slurm.words import (
    DEAD,
    ENDED_BY_ITSELF,
    FROZEN,
    claim_state,
    end_text,
    pending_text,
    refusal,
)

_FRESH_S: Final = 1.0  # a younger list does for claims that are named
_CALM_S: Final = 60.0  # when for so long nothing has changed
_CALM_FRESH_S: Final = 5.0  # one that is so old does, too
NATIVE: Final = "native:"  # instead of a job's id in the address of a node
_KEPT_MAX: Final = 1000  # of jobs about which something is remembered


class Jobs:
    """What `squeue` says of one cluster."""

    def __init__(self, name: str, runner: Runner, clock: Clock) -> None:
        self._name = name
        self._runner = runner
        self._clock = clock
        self._jobs: list[Job] = []
        self._jobs_s = float("-inf")
        self._changed_s = clock.monotonic_s()
        self._listing = asyncio.Lock()
        self.notes: dict[str, NativeClaim] = {}  # claims in native mode
        self._submits: dict[str, str] = {}  # claims that are just submitted, and their tags
        self._submitted = 0  # how many were
        self._addresses: dict[str, dict[str, str]] = {}  # by job: node -> address
        self._last_words: dict[str, str] = {}  # of jobs that ended by themselves

    @contextlib.contextmanager
    def submitting(self, claim_id: str, tag: str) -> Iterator[None]:
        """A job comes, or does not: meanwhile the claim is listed, and no list is kept."""
        self._submits[claim_id] = tag
        try:
            yield
        finally:
            self._submits.pop(claim_id, None)
            self._submitted += 1
            self.forget()

    def forget(self) -> None:
        """Something has changed: the next list is a new one."""
        self._jobs_s = float("-inf")

    async def listed(self, *, fresh: bool) -> list[Job]:
        """Every job of a claim, newest news. `fresh`: what happened before this call is in it."""
        asked_s = self._clock.monotonic_s()
        fresh_s = _CALM_FRESH_S if asked_s - self._changed_s > _CALM_S else _FRESH_S
        if not fresh and not self._submits and asked_s - self._jobs_s < fresh_s:
            return self._jobs
        async with self._listing:
            if self._jobs_s < asked_s or self._submits:
                began_s = self._clock.monotonic_s()
                ran = await self._runner.run(script.list_script())
                if ran.status:
                    raise refusal(ran.err, self._name)
                text = ran.out.decode("utf-8", "replace")
                found = parse_squeue(text)
                self.notes = {note.claim_id: note for note in read_notes(text)}
                ours = [job for job in found if is_claim_id(job.name)]
                if [(job.id, job.state) for job in ours] != [(job.id, job.state) for job in self._jobs]:
                    self._changed_s = began_s
                self._jobs, self._jobs_s = ours, began_s
            return self._jobs

    async def facts(self, claim_ids: Sequence[str]) -> list[ClaimFact]:
        """What Slurm knows of claims (of all when none is named)."""
        ended = self._submitted
        jobs = await self.listed(fresh=not claim_ids)
        while self._submitted != ended:  # a job came while the list was made
            ended = self._submitted
            jobs = await self.listed(fresh=True)
        submitting = dict(self._submits)
        noted = [note for note in self.notes.values() if not claim_ids or note.claim_id in claim_ids]
        by_claim: dict[str, list[Job]] = {}
        for job in jobs:
            if not claim_ids or job.name in claim_ids:
                by_claim.setdefault(job.name, []).append(job)
        unknown = [job for each in by_claim.values() for job in each if self._wants_addresses(job)]
        if unknown:
            await self._learn_addresses(unknown)
        told = [telling(each) for each in by_claim.values()]
        await asyncio.gather(*(self._hear(job) for job in told if job.state in ENDED_BY_ITSELF))
        facts = [self._fact(job) for job in told] + [self._noted(note) for note in noted]
        for claim_id, tag in submitting.items():  # their jobs may be there before the next list is
            if (
                claim_id not in by_claim
                and claim_id not in self.notes
                and (not claim_ids or claim_id in claim_ids)
            ):
                text = "is being submitted"
                facts.append(ClaimFact(claim_id=claim_id, state=ClaimState.PENDING, detail=text, tag=tag))
        return facts

    def _fact(self, job: Job) -> ClaimFact:
        state, tag = claim_state(job.state), script.tag_of(job.comment) or ""
        if state is ClaimState.PENDING:
            text = pending_text(job.reason, job.start)
            return ClaimFact(claim_id=job.name, state=state, detail=text, tag=tag)
        if state is not ClaimState.HELD:
            said = self._last_words.get(job.id, "")
            text = end_text(job.state, job.reason) + (f": {said}" if said else "")
            return ClaimFact(claim_id=job.name, state=state, detail=text, tag=tag)
        known = self._addresses.get(job.id, {})
        nodes = tuple(
            NodeSighting(
                index=index,
                address=f"{self._name}/{job.id}/{node}",
                ip=known.get(node, "127.0.0.1"),
                alive=job.state not in DEAD,
            )
            for index, node in enumerate(job.nodes)
        )
        detail = "Slurm has suspended the job for another one" if job.state in FROZEN else ""
        return ClaimFact(claim_id=job.name, state=state, nodes=nodes, tag=tag, detail=detail)

    def _noted(self, note: NativeClaim) -> ClaimFact:
        """A claim in native mode is there as soon as it is noted: it holds nothing."""
        nodes = tuple(
            NodeSighting(index=index, address=f"{self._name}/{NATIVE}{note.claim_id}/{index}")
            for index in range(note.count)
        )
        return ClaimFact(claim_id=note.claim_id, state=ClaimState.HELD, nodes=nodes, tag=note.tag)

    async def _hear(self, job: Job) -> None:
        """What a job that ended by itself said last."""
        if job.id not in self._last_words:
            ran = await self._runner.run(script.log_script(job.name))
            lines = _telling_lines(ran.out.decode("utf-8", "replace"))
            if len(self._last_words) > _KEPT_MAX:
                self._last_words.clear()
            self._last_words[job.id] = lines[-1][:300] if lines else ""

    def _wants_addresses(self, job: Job) -> bool:
        return job.state == "RUNNING" and job.id not in self._addresses

    async def _learn_addresses(self, jobs: Sequence[Job]) -> None:
        nodes = sorted({node for job in jobs for node in job.nodes})
        ran = await self._runner.run(script.address_script(",".join(nodes)))
        found = addresses(ran)
        for job in jobs:
            self.keep_addresses(job, found)

    def keep_addresses(self, job: Job, found: dict[str, str]) -> None:
        if len(self._addresses) > _KEPT_MAX:  # of jobs that are long over
            self._addresses.clear()
        self._addresses[job.id] = {node: found[node] for node in job.nodes if node in found}


def _telling_lines(log: str) -> list[str]:
    """Of the end of a job's log, without srun's echo of them; what we say ourselves counts most."""
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    ours = [line.removeprefix("argosy: ") for line in lines if line.startswith("argosy: ")]
    return ours or [line for line in lines if "Exited with exit code" not in line] or lines


def telling(jobs: Sequence[Job]) -> Job:
    """The job that stands for a claim: the oldest that lives, else the newest. A second one can only be
    there when two
    servers ordered at once; it waits for the first to end and goes with the release."""
    live = [job for job in jobs if claim_state(job.state) in (ClaimState.PENDING, ClaimState.HELD)]
    return min(live, key=_age) if live else max(jobs, key=_age)


def _age(job: Job) -> tuple[int, str]:
    digits = job.id.partition("_")[0]
    return (int(digits) if digits.isdigit() else 0, job.id)


def addresses(ran: Ran) -> dict[str, str]:
    """Of the lines `address NODE IP`."""
    found = {}
    for line in ran.out.decode("utf-8", "replace").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "address":
            found[words[1]] = words[2]
    return found
