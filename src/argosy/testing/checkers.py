"""The laws of the control plane, checked over committed rows and the truth of the simulated world.

`Audit` looks at every commit, `check_now` at everything twice a virtual minute, `check_settled` after
faults stopped, `check_over` at the end. What the world can see by itself it checks at once (see `world`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from argosy.controllers.view import View
from argosy.model.kinds import gang_of, kind_of, task_of
from argosy.model.kinds.job import job_spec, job_state, job_task
from argosy.model.phases import AttemptPhase, ClaimPhase, Desired, Outcome, WorkloadPhase, is_final, may_move
from argosy.model.rows import Attempt, Claim, Node, Row, Workload
from argosy.testing.memory_log_sink import MemoryLogSink
from argosy.testing.pool_checkers import PoolLaws, would_act
from argosy.testing.sim_provider import SimProviders
from argosy.testing.world import INCARNATION, World

LEAK_LIMIT_S: Final = (
    900.0  # how long something unwanted may exist: listings lag, calls fail, servers restart
)
GANG_LIMIT_S: Final = 300.0  # on top of the grace: how long a gang may outlive its first exit


class Checkers:
    """All checkers of one simulation. What they find goes to `world.violate`."""

    def __init__(self, world: World, providers: SimProviders, sink: MemoryLogSink) -> None:
        self.world = world
        self.providers = providers
        self.sink = sink
        self.pools = PoolLaws(world, providers)
        self.views: Callable[[], Sequence[View]] = (
            lambda: ()
        )  # of every live server, when it is known how to ask
        self._since: dict[str, float] = {}  # what is unwanted, and the time served when that was first seen
        self._servers = 0  # that live
        self._served_s = 0.0  # how long at least one has lived, until `_from_s`
        self._from_s = 0.0
        self.commits = 0
        self.also_unsettled: Callable[[], list[str]] = list  # what else has to happen by itself

    # -- every commit ---------------------------------------------------------------------------------------

    def committed(self, rows: Sequence[Row]) -> None:
        """Call with the rows as written, before anything else can happen."""
        self.commits += 1
        world = self.world
        old_rows = {row.id: world.rows.get(row.id) for row in rows}
        for row in rows:
            world.rows[row.id] = row
        for row in rows:
            old = old_rows[row.id]
            if old is None or old.phase != row.phase:
                world.tell(f"row {row.id}: {old.phase.value if old else '-'} -> {_describe(row)}")
            self._check_move(old, row)
            if isinstance(row, Attempt):
                if old is None:
                    self._check_new_attempt(row)
                if row.phase is AttemptPhase.ENDED:
                    self._check_exit_codes(row)
            elif isinstance(row, Workload) and kind_of(row).runs and row.outcome is Outcome.SUCCEEDED:
                self._check_success(row)
            elif isinstance(row, Claim):
                if old is None:
                    self._check_new_claim(row)
                if row.phase is ClaimPhase.GONE:
                    self._check_gone(row)
        self.pools.committed([(old_rows[row.id], row) for row in rows])

    def _check_move(self, old: Row | None, row: Row) -> None:
        if row.rev != (old.rev + 1 if old is not None else 1):
            self.world.violate("revisions", f"{row.id} goes from rev {old.rev if old else 0} to {row.rev}")
        if old is not None and not may_move(old.phase, row.phase):
            self.world.violate("phases", f"{row.id} goes from {old.phase.value} to {row.phase.value}")
        if (
            old is not None
            and is_final(old.phase)
            and getattr(old, "outcome", None) != getattr(row, "outcome", None)
        ):
            self.world.violate("finished-is-final", f"{row.id} changes its outcome after its end")
        if isinstance(row, Workload | Attempt) and is_final(row.phase) and row.outcome is None:
            self.world.violate("outcome", f"{row.id} is over and has no outcome")

    def _check_new_attempt(self, attempt: Attempt) -> None:
        world = self.world
        job = world.rows.get(attempt.workload_id)
        if not isinstance(job, Workload) or not kind_of(job).runs:
            world.violate("attempt", f"{attempt.id} belongs to no job")
            return
        if job.phase is WorkloadPhase.FINISHED:
            world.violate("finished-never-restarts", f"{job.id} is finished and gets attempt {attempt.id}")
        live = [
            one.id
            for one in world.rows.values()
            if isinstance(one, Attempt) and one.is_live and one.workload_id == job.id
        ]
        if len(live) > 1:
            world.violate("one-attempt", f"{job.id} has live attempts {live}")
        ranks, task = [place.rank for place in attempt.placements], job_task(job)
        if sorted(ranks) != list(range(len(ranks))):
            world.violate("gang-together", f"{attempt.id} does not place every rank exactly once")
        if not (task.min_nodes or task.num_nodes) <= len(ranks) <= task.num_nodes:
            world.violate("gang-size", f"{attempt.id} has {len(ranks)} of {task.num_nodes} ranks")
        self._check_room(attempt)
        self._check_order(job)

    def _check_new_claim(self, claim: Claim) -> None:
        """Controllers alone make claims, and none that costs more than its launch was told to keep to."""
        if INCARNATION.get() is None:
            self.world.violate("controllers-claim", f"{claim.id} was written by a request")
        owner = self.world.rows.get(claim.workload_id)
        confirmed = gang_of(owner).confirmed if isinstance(owner, Workload) else None
        limit = confirmed.max_hourly_micro_usd if confirmed is not None else None
        if limit is not None and claim.choice.price_micro_usd > limit:
            self.world.violate(
                "confirmed-price",
                f"{claim.id} costs {claim.choice.price_micro_usd} micro-USD/h, {limit} was confirmed",
            )

    def _check_room(self, attempt: Attempt) -> None:
        """What live attempts hold of each node that this one uses, against what the node has."""
        world = self.world
        live = [one for one in world.rows.values() if isinstance(one, Attempt) and one.is_live]
        for node_id in sorted({place.node_id for place in attempt.placements}):
            node = world.rows.get(node_id)
            if not isinstance(node, Node):
                world.violate("room", f"{attempt.id} is placed on {node_id}, which does not exist")
                continue
            held = [place for one in live for place in one.placements if place.node_id == node_id]
            cpus = sum(place.cpus_milli for place in held)
            memory = sum(place.memory_bytes for place in held)
            if cpus > node.cpus_milli or memory > node.memory_bytes:
                world.violate(
                    "room", f"{node_id} holds {cpus} of {node.cpus_milli} milli-CPUs, {memory} bytes"
                )
            devices: dict[int, int] = {}
            for place in held:
                for share in place.devices:
                    devices[share.index] = devices.get(share.index, 0) + share.milli
            for index, milli in devices.items():
                if milli > 1000 or index not in node.devices:
                    world.violate("room", f"device {index} of {node_id} holds {milli} of 1000")

    def _check_order(self, job: Workload) -> None:
        if job.host_id is None or not kind_of(job).runs:
            return
        wish = _shape_of(job)
        for other in self.world.rows.values():
            if (
                isinstance(other, Workload)
                and other.host_id == job.host_id
                and other.number < job.number
                and other.phase is WorkloadPhase.QUEUED
                and other.desired is Desired.RUN
                and kind_of(other).runs
                and _shape_of(other) == wish
            ):
                self.world.violate(
                    "order", f"job {job.number} starts before job {other.number} of the same shape"
                )

    def _check_exit_codes(self, attempt: Attempt) -> None:
        for rank, code in enumerate(attempt.exit_codes):
            truth = self.world.exits.get(f"{attempt.id}.{rank}")
            if code is not None and (truth is None or truth[1] != code):
                self.world.violate(
                    "exit-codes", f"{attempt.id}.{rank} is recorded with {code}, the truth is {truth}"
                )

    def _check_success(self, job: Workload) -> None:
        attempt = self.world.rows.get(job_state(job).attempt_id or "")
        ranks = attempt.placements if isinstance(attempt, Attempt) else ()
        codes = [
            self.world.exits.get(f"{job_state(job).attempt_id}.{place.rank}", (0.0, None))[1]
            for place in ranks
        ]
        if not codes or any(code != 0 for code in codes):
            self.world.violate(
                "success-is-true", f"{job.id} is recorded as succeeded, its ranks ended with {codes}"
            )

    def _check_gone(self, claim: Claim) -> None:
        left = [one.address for one in self.world.machines.values() if one.claim_id == claim.id]
        if left and self.world.faults.forgets_releases == 0:
            self.world.violate("gone-is-gone", f"{claim.id} is recorded as gone, and {left} exist")

    # -- twice a minute, pools once -----------------------------------------------------------------------

    def server_comes(self, change: int) -> None:
        """1: a server begins, -1: one is gone. What is late is late in time served: without a server nothing
        can be put right."""
        self._served_s, self._from_s = self._served(), self.world.now_s
        self._servers += change

    def _served(self) -> float:
        return self._served_s + (self.world.now_s - self._from_s if self._servers else 0.0)

    def check_now(self) -> None:
        unwanted = {**self._leaks(), **self._late_gangs(), **self._late_stops(), **self._orphans()}
        unwanted |= self.pools.check(self.views)
        now_s = self._served()
        self._since = {key: self._since.get(key, now_s) for key in unwanted}
        for key, (checker, text, limit_s) in unwanted.items():
            if now_s - self._since[key] > limit_s:
                self.world.violate(checker, f"{text}, for {now_s - self._since[key]:.0f} s")
        seen = [(machine.claim_id, machine.index) for machine in self.world.machines.values()]
        if len(seen) != len(set(seen)):
            self.world.violate("one-machine", "two machines stand for one node of a claim")

    def _leaks(self) -> dict[str, tuple[str, str, float]]:
        found = {}
        for sim in self.providers.sims():
            for claim_id in sim.names_of_all():
                claim = self.world.rows.get(claim_id)
                if not isinstance(claim, Claim) or not claim.is_live:
                    found[f"leak {claim_id}"] = (
                        "leak",
                        f"{claim_id} exists and nothing wants it",
                        LEAK_LIMIT_S,
                    )
        return found

    def _late_gangs(self) -> dict[str, tuple[str, str, float]]:
        """Ranks that run on although another rank of their gang has ended, on machines that could be told."""
        found = {}
        for rank_id, address in self.world.running.items():
            attempt = self.world.attempt_of(rank_id)
            machine = self.world.machines[address]
            if attempt is None or len(attempt.placements) < 2 or not machine.answers:
                continue
            job = self.world.rows.get(attempt.workload_id)
            grace_s = _grace_s(job)
            failed = [
                place.rank
                for place in attempt.placements
                if self.world.exits.get(f"{attempt.id}.{place.rank}", (0.0, 0))[1] not in (0,)
            ]
            if failed:
                text = f"{rank_id} runs although ranks {failed} of its gang have failed"
                found[f"gang {rank_id} {machine.trouble_s}"] = ("gang-together", text, grace_s + GANG_LIMIT_S)
        return found

    def _late_stops(self) -> dict[str, tuple[str, str, float]]:
        """Ranks that run on although their attempt is being ended, on machines that could be told."""
        found = {}
        for rank_id, address in self.world.running.items():
            attempt = self.world.attempt_of(rank_id)
            machine = self.world.machines[address]
            if attempt is None or attempt.phase is not AttemptPhase.ENDING or not machine.answers:
                continue
            job = self.world.rows.get(attempt.workload_id)
            grace_s = _grace_s(job)
            text = f"{rank_id} runs although its attempt is ending"
            found[f"stop {rank_id} {machine.trouble_s}"] = ("stops-in-time", text, grace_s + GANG_LIMIT_S)
        return found

    def _orphans(self) -> dict[str, tuple[str, str, float]]:
        found = {}
        for rank_id, address in self.world.running.items():
            attempt = self.world.attempt_of(rank_id)
            machine = self.world.machines[address]
            if machine.answers and (attempt is None or attempt.phase is AttemptPhase.ENDED):
                text = f"{rank_id} runs although its attempt is over"
                found[f"orphan {rank_id} {machine.trouble_s}"] = ("orphan-rank", text, GANG_LIMIT_S)
        return found

    # -- after the faults -----------------------------------------------------------------------------------

    def unsettled(self) -> list[str]:
        """What still has to happen by itself: nothing but jobs that wait for what others hold may be left."""
        rows = self.world.rows
        jobs = [
            row for row in rows.values() if isinstance(row, Workload) and kind_of(row).runs and row.is_live
        ]
        clusters = {row.id: row for row in rows.values() if isinstance(row, Workload) and kind_of(row).hosts}
        claims = [row for row in rows.values() if isinstance(row, Claim) and row.is_live]
        found = self.also_unsettled()
        for job in jobs:
            if job_spec(job).replica is not None:
                continue  # it runs until it is told to end
            cluster = clusters.get(job.host_id or "")
            if job.phase not in (WorkloadPhase.QUEUED, WorkloadPhase.RECOVERING):
                found.append(f"{job.id} is {job.phase.value}")
        for cluster in clusters.values():
            if cluster.phase in (WorkloadPhase.STARTING, WorkloadPhase.STOPPING, WorkloadPhase.RECOVERING):
                found.append(f"{cluster.id} is {cluster.phase.value}")
        found += [
            f"{claim.id} is {claim.phase.value}" for claim in claims if claim.phase is ClaimPhase.RELEASING
        ]
        for view in self.views()[:1] if not found else ():  # fresh pools are the dearest question
            found += would_act(view)
        return found

    def left_over(self) -> list[str]:
        """What is there although everything was ended."""
        found = [f"{row.id} is {row.phase.value}" for row in self.world.rows.values() if row.is_live]
        found += [f"machine {address} exists" for address in self.world.machines]
        found += [f"rank {rank_id} runs" for rank_id in self.world.running]
        for sim in self.providers.sims():
            found += [f"{sim.manifest.name} holds {claim_id}" for claim_id in sorted(sim.names_of_all())]
        return found

    def check_over(self) -> None:
        """Whose exit was recorded, its log is complete: to the last byte."""
        self._check_submissions()
        for attempt in self.world.rows.values():
            if not isinstance(attempt, Attempt):
                continue
            for rank, code in enumerate(attempt.exit_codes):
                rank_id = f"{attempt.id}.{rank}"
                truth = self.world.logs_of.get(rank_id)
                if code is not None and truth is not None and self.sink.read(rank_id) != truth:
                    self.world.violate("log-kept", f"the log of {rank_id} is not what it wrote")

    def _check_submissions(self) -> None:
        """All jobs of a request were written, once, or none; what was answered was written."""
        rows = self.world.rows
        for each in self.world.submissions:
            written = [ids for ids in each.tries if any(id in rows for id in ids)]
            if len(written) > 1 or any(id not in rows for ids in written for id in ids):
                self.world.violate("once", f"the jobs of request {each.key} are {written}")
            elif each.answer is not None and each.answer not in written:
                self.world.violate("once", f"request {each.key} was answered {each.answer}: {written}")


def _grace_s(job: Row | None) -> int:
    task = task_of(job) if isinstance(job, Workload) else None
    return task.grace_s if task is not None else 0


def _shape_of(job: Workload) -> tuple[object, ...]:
    """Jobs that differ in nothing that the order looks at."""
    task = job_task(job)
    limit = (task.max_duration_s, task.estimated_s)
    return (task.resources, task.num_nodes, task.scheduling, limit, job.project, job.user, job.retry_ms)


def _describe(row: Row) -> str:
    outcome, reason = getattr(row, "outcome", None), getattr(row, "reason", None)
    detail = getattr(row, "detail", "")
    parts = [row.phase.value, outcome.value if outcome else "", reason.value if reason else "", detail]
    return " ".join(part for part in parts if part)
