"""A service as one decision will leave it: its replicas, the changed rows, the events. Pure."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from argosy.controllers.view import Action, Put, View, WakeAt, event
from argosy.model.kinds.service import (
    Failed,
    Replica,
    ReplicaState,
    Revision,
    Rollout,
    ServiceSpec,
    ServiceStatus,
    revision_of,
    service_spec,
    service_state,
)
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.reasons import Reason
from argosy.model.rows import Workload

SETTLE_MS: Final = 5_000
FAILED_KEPT: Final = 10

#: In the routes, with or without new requests.
_ROUTED = (ReplicaState.READY, ReplicaState.SUSPECT, ReplicaState.DRAINING)


class Draft:
    """Collects what one decision says about one service; `actions` is the answer."""

    def __init__(self, view: View, row: Workload) -> None:
        self.view, self.row = view, row
        self.spec: ServiceSpec = service_spec(row)
        self.before: ServiceStatus = service_state(row)
        self.replicas: list[Replica] = list(self.before.replicas)
        self.rollout: Rollout | None = self.before.rollout
        self.serves = self.before.serves
        self.weights = self.before.weights
        self.failed: list[Failed] = list(self.before.failed)
        self.changes: dict[str, Any] = {}  # Any: other fields of the status
        self.floor = 0  # so many replicas are to answer, as far as that can be chosen
        self.phase = row.phase
        self.started_ms = row.started_ms
        self.detail = row.detail
        self._actions: list[Action] = []
        self._wake_ms: int | None = None

    @property
    def now_ms(self) -> int:
        return self.view.now_ms

    @property
    def next_generation(self) -> int:
        """Of the routes, if this decision changes them."""
        return self.before.generation + 1

    def revision(self, number: int) -> Revision | None:
        return revision_of(self.row, number)

    def of(self, revision: int, *states: ReplicaState) -> list[Replica]:
        """Replicas of a revision that are in one of the states (none named: that are not on their way
        out)."""
        wanted = states or tuple(each for each in ReplicaState if each is not ReplicaState.DRAINING)
        return [each for each in self.replicas if each.revision == revision and each.state in wanted]

    def ready(self, revision: int) -> int:
        return len(self.of(revision, ReplicaState.READY))

    def settled(self, revision: int) -> int:
        """How many have been ready for a moment, so that they are not just about to fail."""
        found = self.of(revision, ReplicaState.READY)
        young = [each.since_ms + SETTLE_MS for each in found if self.now_ms < each.since_ms + SETTLE_MS]
        if young:
            self.wake(min(young))
        return len(found) - len(young)

    def change(self, replica: Replica, **fields: Any) -> Replica:  # Any: fields of a replica
        """Another state of a replica. A state that is new is so since now."""
        if fields.get("state", replica.state) is not replica.state:
            fields.setdefault("since_ms", self.now_ms)
        changed = msgspec.structs.replace(replica, **fields)
        self.replicas = [changed if each.job_id == replica.job_id else each for each in self.replicas]
        return changed

    def drop(self, replica: Replica) -> None:
        self.replicas = [each for each in self.replicas if each.job_id != replica.job_id]

    def drain(self, replica: Replica, why: str) -> None:
        """No new requests. It ends when all gateways know, and what is under way is done."""
        left = replica.left or self.next_generation
        self.change(replica, state=ReplicaState.DRAINING, left=left, why=why)
        self.wake(self.now_ms)

    def end_job(self, job_id: str, reason: Reason, why: str) -> None:
        job = self.view.rows.workloads.get(job_id)
        if job is not None and job.desired is not Desired.END:
            self.put(msgspec.structs.replace(job, desired=Desired.END, reason=reason, detail=why))

    def put(self, row: Workload) -> None:
        self._actions.append(Put(row))

    def tell(self, code: str, text: str) -> None:
        self._actions.append(event(self.view, self.row.id, code, text))

    def wake(self, at_ms: int) -> None:
        """Look again then, or before."""
        self._wake_ms = at_ms if self._wake_ms is None else min(self._wake_ms, at_ms)

    def actions(self) -> list[Action]:
        """What the decision says: the row where it differs, other rows, events, and when to look again."""
        status = msgspec.structs.replace(
            self.before,
            replicas=tuple(sorted(self.replicas, key=lambda each: each.number)),
            rollout=self.rollout,
            serves=self.serves,
            weights=self.weights,
            failed=tuple(self.failed[-FAILED_KEPT:]),
            **self.changes,
        )
        if routes_key(status) != routes_key(self.before):
            status = msgspec.structs.replace(status, generation=self.next_generation)
        changed = msgspec.structs.replace(
            self.row, status=status, phase=self.phase, started_ms=self.started_ms, detail=self.detail
        )
        found = list(self._actions)
        if changed != self.row:
            found.insert(0, Put(changed))
        if self._wake_ms is not None:
            found.append(WakeAt(self.row.id, self._wake_ms))
        return found

    def is_running(self) -> None:
        """It answers, or has answered."""
        if self.phase is WorkloadPhase.QUEUED:
            self.phase = WorkloadPhase.STARTING
        elif self.phase is WorkloadPhase.STARTING:
            self.phase, self.started_ms = WorkloadPhase.RUNNING, self.started_ms or self.now_ms


def routes_key(status: ServiceStatus) -> object:
    """What a table of routes is made of: another one is another generation."""
    replicas = [
        (each.job_id, each.revision, each.address, each.state)
        for each in status.replicas
        if each.state in _ROUTED
    ]
    return replicas, status.weights, status.rollout is not None and (status.rollout.new, status.rollout.phase)
