"""Watches the replicas of services: probes whether they answer, and tells decisions what it saw.

A task for each replica whose program runs. The first probe goes out at once; until the first good answer
they come quickly, then as often as the service says. Answers become facts (`Facts.replicas`); the service
is looked at again when an answer is another than the one before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from argosy.controllers.job.ports import port_of
from argosy.controllers.observed import Facts
from argosy.controllers.view import Rows
from argosy.infra.border import BorderError
from argosy.infra.replica_port import Answer, ReplicaPort
from argosy.model.ids import Clock
from argosy.model.kinds.job import job_spec
from argosy.model.kinds.service import Replica, ReplicaState, revision_of, service_state
from argosy.model.phases import AttemptPhase
from argosy.model.rows import Node, Workload
from argosy.model.served import ReplicaFact
from argosy.model.serving import Probe
from argosy.store import Store

FIRST_MS, GROWTH, MOST_MS = 50, 1.3, 1_000  # between probes of a replica that has not been ready yet
_LOOK_FIRST, _LOOK_EVERY = 8, 20  # after so many refusals we look where it listens instead
_SUSPECT_MS: Final = 1_000
_UNSEEN_AFTER: Final = 3  # bad answers in a row that are told; more change nothing


class Target(msgspec.Struct, frozen=True):
    """One replica to be probed, as the rows have it."""

    service_id: str
    job_id: str
    attempt_id: str
    node: Node
    port: int
    probe: Probe
    state: ReplicaState


class Probing:
    """Keeps a probe on every replica that should answer."""

    def __init__(
        self,
        *,
        store: Store,
        ports: ReplicaPort | None,
        facts: Facts,
        clock: Clock,
        spawn: Callable[..., asyncio.Task[None]],
        wake: Callable[..., None],
    ) -> None:
        """`ports` None: replicas cannot be reached, and none becomes ready."""
        self._store, self._ports, self._facts = store, ports, facts
        self._clock, self._spawn, self._wake = clock, spawn, wake
        self._targets: dict[str, Target] = {}  # by id of the job
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def follow(self, rows: Rows, services: list[Workload]) -> None:
        """Start and end probes so that they match the rows."""
        if not services and not self._targets:
            return
        targets = {each.job_id: each for row in services for each in targets_of(rows, row)}
        for job_id, old in list(self._targets.items()):
            new = targets.get(job_id)
            if new is None or new.attempt_id != old.attempt_id:
                self._end(job_id)
        self._targets = targets
        for job_id in targets:
            if job_id not in self._tasks and self._ports is not None:
                self._tasks[job_id] = self._spawn(self._probe(job_id))
        self._forget(services)

    def _forget(self, services: list[Workload]) -> None:
        jobs = {each.job_id for row in services for each in service_state(row).replicas}
        for job_id in [each for each in self._facts.replicas if each not in jobs]:
            del self._facts.replicas[job_id]

    def _end(self, job_id: str) -> None:
        task, target = self._tasks.pop(job_id, None), self._targets.pop(job_id, None)
        if task is not None:
            task.cancel()
        if target is not None and self._ports is not None:
            self._ports.close(target.node.id, target.port)

    async def _probe(self, job_id: str) -> None:
        pause_ms = float(FIRST_MS)
        secrets: Mapping[str, str] = {}
        refusals, elsewhere = 0, ""
        while (target := self._targets.get(job_id)) is not None:
            if target.probe.headers and not secrets:
                secrets = await self._secrets(target)
            began_ms = self._clock.now_ms()
            address, answer = await self._ask(target, secrets)
            if answer.refused and not answer.good:
                refusals += 1
                if refusals % _LOOK_EVERY == _LOOK_FIRST:
                    elsewhere = await self._elsewhere(target)
                if elsewhere:
                    answer = msgspec.structs.replace(answer, why=f"{answer.why}; {elsewhere}")
            self._note(target, address, answer)
            if target.state is ReplicaState.READY:
                pause_ms = target.probe.every_ms
            elif target.state is ReplicaState.SUSPECT:
                pause_ms = _SUSPECT_MS
            else:
                pause_ms = min(pause_ms * GROWTH, MOST_MS, target.probe.every_ms)
            spent_ms = self._clock.now_ms() - began_ms
            await asyncio.sleep(max(FIRST_MS, pause_ms - spent_ms) / 1000)

    async def _elsewhere(self, target: Target) -> str:
        """Where its program listens instead, in words."""
        assert self._ports is not None
        ports = await self._ports.listening(target.node, f"{target.attempt_id}.0")
        others = [port for port in ports if port != target.port]
        if not others:
            return ""
        listed, hint = ", ".join(map(str, others)), f"write `ports: {others[0]}`"
        return f"its program listens on {listed}: {hint}, or let it read $ARGOSY_SERVICE_PORT"

    async def _secrets(self, target: Target) -> Mapping[str, str]:
        service = await self._store.load(target.service_id)
        revision = None
        if isinstance(service, Workload):
            revision = revision_of(service, service_state(service).serves) or None
        names = revision.task.secrets if revision is not None else {}
        return await self._store.load_secrets_of(service, names) if isinstance(service, Workload) else {}

    async def _ask(self, target: Target, secrets: Mapping[str, str]) -> tuple[str, Answer]:
        assert self._ports is not None
        try:
            address = await self._ports.open(target.node, target.port)
        except (BorderError, OSError) as error:
            return "", Answer(good=False, why=f"its node is not reached: {error}")
        return address, await self._ports.ask(address, target.probe, secrets)

    def _note(self, target: Target, address: str, answer: Answer) -> None:
        old, now_ms = self._facts.replicas.get(target.job_id), self._clock.now_ms()
        if old is not None and old.attempt_id != target.attempt_id:
            old = None
        goes_on = old is not None and bool(old.good) is answer.good
        new = ReplicaFact(
            attempt_id=target.attempt_id,
            address=address,
            good=(old.good if old is not None else 0) + 1 if answer.good else 0,
            bad=(old.bad if old is not None else 0) + 1 if not answer.good else 0,
            since_ms=old.since_ms if old is not None and goes_on else now_ms,
            at_ms=now_ms,
            why=answer.why,
            refused=answer.refused,
        )
        self._facts.replicas[target.job_id] = new
        is_news = old is None or not goes_on or old.why != new.why or new.bad == _UNSEEN_AFTER
        if is_news or target.state is ReplicaState.SUSPECT:
            self._wake(target.service_id)


def targets_of(rows: Rows, service: Workload) -> list[Target]:
    """Replicas of a service whose program runs, and that are not on their way out."""
    found = []
    for replica in service_state(service).replicas:
        if replica.state is not ReplicaState.DRAINING and (target := _target(rows, service, replica)):
            found.append(target)
    return found


def _target(rows: Rows, service: Workload, replica: Replica) -> Target | None:
    attempt, revision = rows.attempt_of(replica.job_id), revision_of(service, replica.revision)
    if attempt is None or attempt.phase is not AttemptPhase.RUNNING or revision is None:
        return None
    node = rows.nodes.get(attempt.placements[0].node_id)
    job = rows.workloads.get(replica.job_id)
    told = job_spec(job).replica if job is not None else None
    if node is None or told is None:
        return None
    return Target(
        service_id=service.id,
        job_id=replica.job_id,
        attempt_id=attempt.id,
        node=node,
        port=port_of(told, rows.claims.get(node.claim_id)),
        probe=revision.serving.probe,
        state=replica.state,
    )
