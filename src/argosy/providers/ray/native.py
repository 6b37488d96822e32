"""Ray's own jobs, as they are: a claim holds nothing, and each attempt on it is one submitted job.

`NativeNode` stands where a node's agent would (`infra.speaker`): it turns `prepare`, `run`, `stop` and
`watch` into calls of the Jobs API. A job's id is that of its attempt, which Ray takes once: a late repeat
runs nothing.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import Channel, RankOrder
from argosy.infra.machine_notes import Notes
from argosy.model.facts import ClaimFact, ClaimState, NodeFacts, NodeSighting, RankFact, RankPhase
from argosy.model.rows import Claim
from argosy.providers.ray.api import Job, RayApi, Submission
from argosy.providers.ray.logs import JobLog
from argosy.providers.ray.settings import TaskOptions
from argosy.providers.ray.states import TAG, address_of, reason_of

if TYPE_CHECKING:
    from argosy.infra.speaker import Speaker

OF_CLAIM: Final = "argosy_cluster"  # in the metadata of such a job: the claim that it runs on
_STOP_LOOKS: Final = 120
_STOP_LOOK_S: Final = 0.25
_STOPPED: Final = 143  # the exit code of what SIGTERM ended
#: Ends that are no fault of the program: another attempt may do.
_LOST: Final = (
    "JOB_SUPERVISOR_ACTOR_DIED",
    "JOB_SUPERVISOR_ACTOR_START_TIMEOUT",
    "JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE",
)


class NativeClaim(msgspec.Struct, frozen=True, kw_only=True):
    """The note of a claim: how its jobs are submitted, and which of their ranks are forgotten."""

    claim_id: str
    tag: str
    region: str
    options: TaskOptions
    cpus_milli: int = 0
    memory_bytes: int = 0
    forgotten: tuple[str, ...] = ()

    def fact(self) -> ClaimFact:
        """It is there as soon as it is noted."""
        node = NodeSighting(index=0, address=address_of(self.claim_id, 0, self.region))
        return ClaimFact(claim_id=self.claim_id, state=ClaimState.HELD, nodes=(node,), tag=self.tag)


def note_of(claim: Claim, options: TaskOptions) -> NativeClaim:
    """Raises RequestRefused for several nodes: a job of Ray asks for its own."""
    if claim.count > 1:
        raise border.RequestRefused(
            "num_nodes",
            f"a job of Ray is one program, which asks Ray for nodes itself: leave out "
            f"`num_nodes` ({claim.count})",
        )
    return NativeClaim(
        claim_id=claim.id,
        tag=claim.tag,
        region=claim.choice.offer.region,
        options=options,
        cpus_milli=claim.choice.cpus_milli,
        memory_bytes=claim.choice.memory_bytes,
    )


def submission_of(note: NativeClaim, order: RankOrder) -> Submission:
    """The job of an attempt. A command that the task gives as Ray's own is not touched."""
    options = note.options
    command = order.run if order.run == options.entrypoint else f"exec bash -c {shlex.quote(order.run)}"
    if order.setup:
        command = f"bash -c {shlex.quote(order.setup)} && {command}"
    environment = dict(options.runtime_env)
    environment["env_vars"] = {**order.env, **(environment.get("env_vars") or {})}
    return Submission(
        entrypoint=command,
        submission_id=attempt_of(order.id),
        runtime_env=environment,
        metadata={TAG: note.tag, OF_CLAIM: note.claim_id},
        entrypoint_num_cpus=options.entrypoint_num_cpus,
        entrypoint_num_gpus=options.entrypoint_num_gpus,
        entrypoint_memory=options.entrypoint_memory,
        entrypoint_resources=options.entrypoint_resources,
    )


def attempt_of(rank_id: str) -> str:
    return rank_id.rpartition(".")[0]


class NativeNode:
    """The jobs of one claim. `infra.speaker.SpokenFor`."""

    cannot = "commands run as Ray's own jobs here: {}"

    def __init__(self, note: NativeClaim, api: RayApi, notes: Notes[NativeClaim]) -> None:
        self.note = note
        self._api, self._notes = api, notes
        self._orders: dict[str, RankOrder] = {}  # prepared and not yet submitted
        self._stopped: set[str] = set()
        self._submitting = asyncio.Lock()
        self._logs: dict[str, JobLog] = {}  # by rank

    def facts(self) -> NodeFacts:
        note = self.note
        return NodeFacts(hostname=note.region, cpus_milli=note.cpus_milli, memory_bytes=note.memory_bytes)

    async def prepare(self, orders: Sequence[RankOrder]) -> None:
        for order in orders:
            if order.id not in self._stopped and order.id not in self.note.forgotten:
                self._orders.setdefault(order.id, order)
        await self.run([order.id for order in orders if order.run_now])

    async def run(self, rank_ids: Sequence[str]) -> None:
        async with self._submitting:
            for rank_id in rank_ids:
                order = self._orders.get(rank_id)
                if order is not None:
                    await self._api.submit(submission_of(self.note, order))
                    self._orders.pop(rank_id, None)

    async def stop(self, rank_ids: Sequence[str], grace_s: float) -> None:
        """Ray's own grace counts: SIGTERM, and SIGKILL after 3 s, or as the cluster is set up."""
        self._stopped.update(rank_ids)
        for rank_id in rank_ids:
            self._orders.pop(rank_id, None)
            await self._api.stop(attempt_of(rank_id))

    async def forget(self, rank_ids: Sequence[str]) -> None:
        """Ray keeps the records of its jobs: they stay in its list."""
        forgotten = tuple(dict.fromkeys((*self.note.forgotten, *rank_ids)))
        self.note = self._notes.save(msgspec.structs.replace(self.note, forgotten=forgotten))
        for rank_id in rank_ids:
            if (log := self._logs.pop(rank_id, None)) is not None:
                log.close()

    def close(self) -> None:
        """Nobody listens to its jobs any more."""
        for log in self._logs.values():
            log.close()

    async def look(self, cursors: dict[str, int]) -> tuple[list[RankFact], list[tuple[str, int, bytes]]]:
        """Facts of every rank, and bytes of logs after `cursors`. An end is told with or after the last
        byte."""
        jobs = {
            f"{job.submission_id}.0": job
            for job in await self._api.jobs()
            if (job.metadata or {}).get(OF_CLAIM) == self.note.claim_id
        }
        facts, logs = [], []
        for rank_id in dict.fromkeys((*self._orders, *jobs, *self._stopped)):
            if rank_id in self.note.forgotten:
                continue
            job, offset = jobs.get(rank_id), cursors.get(rank_id, 0)
            size, is_read = 0, False
            if job is not None:
                log = self._logs.setdefault(rank_id, JobLog(self._api, attempt_of(rank_id)))
                piece, is_read = await log.read(offset, job)
                size = log.size
                if piece:
                    logs.append((rank_id, offset, piece))
            facts.append(self._fact(rank_id, job, size, is_read=is_read))
        return facts, logs

    def _fact(self, rank_id: str, job: Job | None, size: int, *, is_read: bool) -> RankFact:
        def fact(phase: RankPhase, **more: Any) -> RankFact:  # Any: fields of the fact
            return RankFact(id=rank_id, phase=phase, log_bytes=size, **more)

        if job is None:
            if rank_id in self._stopped:
                return fact(RankPhase.EXITED, exit_code=_STOPPED)
            return fact(RankPhase.READY)
        started_ms, ended_ms = job.start_time or 0, job.end_time or 0
        if job.status == "PENDING":
            return fact(RankPhase.PREPARING, stage="setup", detail=job.message or "")
        if not job.is_over or not is_read:
            return fact(RankPhase.RUNNING, started_ms=started_ms)
        if job.error_type in _LOST:
            return fact(RankPhase.VANISHED, started_ms=started_ms, ended_ms=ended_ms, detail=reason_of(job))
        code = {"SUCCEEDED": 0, "STOPPED": _STOPPED}.get(job.status, job.driver_exit_code or 1)
        return fact(
            RankPhase.EXITED,
            exit_code=code if code >= 0 else 128 - code,
            started_ms=started_ms,
            ended_ms=ended_ms,
            detail=reason_of(job),
        )


class NativeClaims:
    """The claims of one cluster that hold nothing: their notes, and who stands for their agents."""

    def __init__(self, region: str, api: RayApi, notes: Notes[NativeClaim]) -> None:
        self._region, self._api, self._notes = region, api, notes
        self._nodes: dict[str, tuple[NativeNode, Speaker]] = {}

    def note(self, claim: Claim, options: TaskOptions) -> None:
        """Raises RequestRefused, OSError."""
        self._notes.save(self._notes.load(claim.id) or note_of(claim, options))

    def facts(self, claim_ids: Sequence[str]) -> list[ClaimFact]:
        mine = [each for each in self._notes.all() if each.region == self._region]
        return [each.fact() for each in mine if not claim_ids or each.claim_id in claim_ids]

    async def open(self, claim_id: str) -> Channel | None:
        """A stream to who stands for its agent; None: it is no such claim."""
        note = self._notes.load(claim_id)
        if note is None:
            return None
        if claim_id not in self._nodes:
            from argosy.infra.speaker import Speaker

            node = NativeNode(note, self._api, self._notes)
            self._nodes[claim_id] = (node, Speaker(node))
        return await self._nodes[claim_id][1].open()

    async def release(self, claim_id: str) -> bool:
        """Its jobs are stopped; Ray keeps their records. False: it is no such claim."""
        if self._notes.load(claim_id) is None:
            return False
        for _ in range(_STOP_LOOKS):
            running = running_of(claim_id, await self._api.jobs())
            if not running:
                break
            await asyncio.gather(*(self._api.stop(each) for each in running))
            await asyncio.sleep(_STOP_LOOK_S)
        else:
            raise border.Transient(f"the job {running[0]} is told to stop, and Ray has not ended it yet", 5)
        self._notes.remove(claim_id)
        if (known := self._nodes.pop(claim_id, None)) is not None:
            known[0].close()
        return True

    def close(self) -> None:
        for node, _ in self._nodes.values():
            node.close()


def running_of(claim_id: str, jobs: Sequence[Job]) -> list[str]:
    """Ids of the jobs of a claim that are not over."""
    return [
        job.submission_id or ""
        for job in jobs
        if not job.is_over and (job.metadata or {}).get(OF_CLAIM) == claim_id
    ]
