"""A service on a stage: its decisions are carried out on rows in memory, and replicas do as they are told."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Final

import msgspec

from argosy.controllers.kinds import decide_workload
from argosy.controllers.observed import Facts
from argosy.controllers.view import Emit, Put, View
from argosy.model.kinds import kind_of
from argosy.model.kinds.job import job_spec
from argosy.model.kinds.service import (
    SERVICE,
    Replica,
    ReplicaState,
    Revision,
    ServiceSpec,
    ServiceStatus,
    service_spec,
    service_state,
)
from argosy.model.offer import Offer, Placement
from argosy.model.phases import AttemptPhase, Desired, Outcome, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Attempt, Row, Workload
from argosy.model.served import Count, ReplicaFact, ServedFact
from argosy.model.serving import Probe, Replicas, Serving, Strategy
from argosy.model.task import Task
from argosy.planning.ability import Ability
from argosy.planning.choose import plan
from argosy.store import Snapshot
from argosy.testing.builders import a_claim
from argosy.testing.virtual_time import EPOCH_MS

ROLLING: Final = Strategy()
ABILITIES: Final = {"sim": Ability(spot=True)}


def a_revision(number: int, replicas: int = 2, most: int = 0, strategy: Strategy = ROLLING) -> Revision:
    serving = Serving(
        probe=Probe(path="/health", start_ms=60_000, failing_ms=30_000),
        replicas=Replicas(least=replicas, most=most or replicas),
    )
    task = Task(run=f"serve {number}", service=serving)
    return Revision(number=number, digest=f"digest-{number}", task=task, strategy=strategy)


def _is_spot(job: Workload) -> bool:
    return any(wish.use_spot for wish in job_spec(job).task.resources)


class Stage:
    """`beat` lets time pass and the service decide until it has nothing more to say."""

    def __init__(self, replicas: int = 2, most: int = 0) -> None:
        self.now_ms = EPOCH_MS
        self.facts = Facts()
        self.ids = itertools.count(1)
        self.events: list[tuple[str, str]] = []
        self.busy: dict[str, int] = {}  # requests under way, by id of the job
        self.counts: dict[int, Count] = {}
        self.is_gateway_there = True
        self.broken: set[int] = set()  # revisions that never answer
        self.crashing: set[int] = set()  # revisions whose program ends
        self.hold_spot = False  # no spot machine is to be had
        self.offers: list[Offer] = []  # that machines can be had from; the cheapest is taken
        self.full: set[str] = set()  # regions that are offered and refuse
        self.room = 100  # replicas that find a machine
        self.all: dict[str, Row] = {}
        row = Workload(
            id="svc-1",
            kind=SERVICE.name,
            name="chat",
            spec=ServiceSpec(revisions=(a_revision(1, replicas, most),), wanted=1),
            status=ServiceStatus(),
            created_ms=self.now_ms,
        )
        self.rows = Snapshot.of([row])
        self.least_ready = 10_000

    # -- looking ------------------------------------------------------------------------------------

    @property
    def row(self) -> Workload:
        return self.rows.workloads["svc-1"]

    @property
    def state(self) -> ServiceStatus:
        return service_state(self.row)

    def replicas(self, *states: ReplicaState) -> list[Replica]:
        return [each for each in self.state.replicas if not states or each.state in states]

    def ready(self, revision: int | None = None) -> int:
        found = self.replicas(ReplicaState.READY)
        return sum(revision in (None, each.revision) for each in found)

    @property
    def weights(self) -> Mapping[int, int]:
        return {number: weight for number, weight in self.state.weights if weight}

    def told(self, code: str) -> list[str]:
        return [text for each, text in self.events if each == code]

    # -- changing -----------------------------------------------------------------------------------

    def put(self, *rows: Row) -> None:
        self.rows = self.rows.changed(rows, seq=self.rows.seq + 1)

    def update(self, strategy: Strategy = ROLLING, replicas: int = 2) -> None:
        spec = service_spec(self.row)
        number = spec.revisions[-1].number + 1
        new = a_revision(number, replicas, strategy=strategy)
        spec = msgspec.structs.replace(spec, revisions=(*spec.revisions, new), wanted=number)
        self.put(msgspec.structs.replace(self.row, spec=spec))

    def want(self, **fields: int) -> None:
        self.put(
            msgspec.structs.replace(self.row, spec=msgspec.structs.replace(service_spec(self.row), **fields))
        )

    def beat(self, seconds: float = 1.0, times: int = 1) -> None:
        for _ in range(times):
            self.now_ms += int(seconds * 1000)
            for _ in range(20):
                self._world()
                if not self._decide():
                    break
            if "svc-1" in self.rows.workloads:
                self.least_ready = min(self.least_ready, self.ready())

    def _decide(self) -> bool:
        if "svc-1" not in self.rows.workloads:
            return False
        view = View(
            now_ms=self.now_ms, rows=self.rows, observed=self.facts, offers=self.offers, abilities=ABILITIES
        )
        actions = decide_workload(view, self.row, lambda prefix: f"{prefix}-{next(self.ids):03d}")
        puts = [each.row for each in actions if isinstance(each, Put)]
        self.events += [(each.event.code, each.event.text) for each in actions if isinstance(each, Emit)]
        if puts:
            self.put(*puts)
        return bool(puts)

    def _world(self) -> None:
        """Jobs get machines, programs begin, answer or end; gateways take the routes over."""
        running = sum(
            kind_of(row).runs for row in self.rows.workloads.values() if row.phase is WorkloadPhase.RUNNING
        )
        for job in [row for row in self.rows.workloads.values() if kind_of(row).runs]:
            revision = next(each.revision for each in self.state.replicas if each.job_id == job.id)
            attempt = self.rows.attempt_of(job.id)
            if job.desired is Desired.END:
                self.end(job.id, Outcome.CANCELLED)
            elif attempt is None and self.hold_spot and _is_spot(job):
                continue
            elif attempt is None and running < self.room:
                running += 1
                self._start(job)
            elif attempt is not None and revision in self.crashing:
                self.end(job.id, Outcome.FAILED, "the program exited with code 1")
            elif attempt is not None and attempt.phase is AttemptPhase.RUNNING:
                self._answer(job, attempt, good=revision not in self.broken)
        if self.is_gateway_there and "svc-1" in self.rows.workloads:
            self.facts.services["svc-1"] = ServedFact(
                generation=self.state.generation,
                at_ms=self.now_ms,
                in_flight=dict(self.busy),
                counts=self.counts,
            )

    def _start(self, job: Workload) -> None:
        attempt = Attempt(
            id=f"att-{job.id}",
            workload_id=job.id,
            number=1,
            placements=(Placement(rank=0, node_id="node-1"),),
            phase=AttemptPhase.RUNNING,
            placed_ms=self.now_ms,
        )
        self.put(attempt, msgspec.structs.replace(job, phase=WorkloadPhase.RUNNING))
        if self.offers:
            task = job_spec(job).task
            there = [each for each in self.offers if each.region not in self.full]
            choices = plan(task.resources, 1, there, abilities=ABILITIES, ordered=task.ordered).choices
            self.put(a_claim(id=f"clm-{job.id}", workload_id=job.id, choice=choices[0]))

    def _answer(self, job: Workload, attempt: Attempt, *, good: bool) -> None:
        old = self.facts.replicas.get(job.id)
        if old is not None and bool(old.good) is good:
            return
        self.facts.replicas[job.id] = ReplicaFact(
            attempt_id=attempt.id,
            address=f"127.0.0.1:{20000 + int(job.id[-3:])}",
            good=3 if good else 0,
            bad=0 if good else 3,
            since_ms=self.now_ms,
            at_ms=self.now_ms,
            why="" if good else "/health answers 503",
        )

    def must_leave(self, job_id: str, why: str, reason: Reason = Reason.PREEMPTED) -> None:
        """Its node was given notice, or it was evicted."""
        attempt = self.rows.attempt_of(job_id)
        assert attempt is not None
        ending = msgspec.structs.replace(
            attempt,
            phase=AttemptPhase.ENDING,
            outcome=Outcome.PREEMPTED,
            reason=reason,
            detail=why,
            ending_ms=self.now_ms,
        )
        self.put(ending)

    def end(self, job_id: str, outcome: Outcome, detail: str = "") -> None:
        job, attempt = self.rows.workloads[job_id], self.rows.attempt_of(job_id)
        ended = msgspec.structs.replace(
            job, phase=WorkloadPhase.FINISHED, outcome=outcome, detail=detail, ended_ms=self.now_ms
        )
        over = [msgspec.structs.replace(attempt, phase=AttemptPhase.ENDED)] if attempt is not None else []
        self.put(ended, *over)
