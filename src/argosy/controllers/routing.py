"""Tells the gateway where services are, and decisions what it answers: taken-over routes, requests under
way, load.

One loop while there are services: a table whenever a row says something else, counters once a second, and
more often while a replica starts or drains. A gateway that begins anew gets the table again. That requests
wait for a replica is pushed: the gateway answers a call that was left open.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import msgspec

from argosy.controllers.loads import Load
from argosy.controllers.observed import Facts
from argosy.controllers.service.routes import NO_KEYS, ModelKeys, endpoints_of, key_uses, routes_of
from argosy.controllers.service.scaling import FRESH, is_due, wanted_replicas
from argosy.controllers.service.target import scaling_policy
from argosy.controllers.usage import Usage
from argosy.infra.border import BorderError
from argosy.infra.gateway_port import GatewayPort
from argosy.model.ids import Clock
from argosy.model.kinds.service import (
    ReplicaState,
    Revision,
    ServiceStatus,
    revision_of,
    service_spec,
    service_state,
    wanted_revision,
)
from argosy.model.routes import EndpointRoute, GatewayCounters, RouteTable, ServiceCounters, ServiceRoute
from argosy.model.rows import Workload
from argosy.model.scaling import REQUESTS, WORK, Memory, Policy, Seen
from argosy.model.served import ServedFact

if TYPE_CHECKING:
    from argosy.controllers.triggers import TriggerValues

_log = logging.getLogger(__name__)

LOOK_S: Final = 1.0
QUICK_S: Final = 0.4  # while a replica is waited for, or the end of its requests
_RETRY_S: Final = 0.5
_COMING: Final = (ReplicaState.STARTING, ReplicaState.WARMING)
_MOVING: Final = (*_COMING, ReplicaState.DRAINING)


class Routing:
    """Keeps one gateway in step with the rows."""

    def __init__(
        self,
        *,
        gateway: GatewayPort | None,
        facts: Facts,
        clock: Clock,
        spawn: Callable[..., asyncio.Task[None]],
        wake: Callable[..., None],
    ) -> None:
        """`gateway` None: nobody sends requests, and none has to be waited for."""
        self._gateway, self._facts, self._clock = gateway, facts, clock
        self._spawn, self._wake = spawn, wake
        self._services: dict[str, Workload] = {}
        self._model_keys = NO_KEYS
        self._loads: dict[str, Load] = {}
        self._memories: dict[str, Memory] = {}
        self._triggers: TriggerValues | None = None  # from the first service that has any
        self._usage = Usage()
        self._taken: dict[str, int] = {}  # by service: the generation of its routes that the gateway has
        self._sent: tuple[tuple[ServiceRoute, ...], tuple[EndpointRoute, ...]] | None = None
        self._since_ms = 0  # of the gateway's life
        self._generation = 0
        self._news = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def follow(self, services: list[Workload], model_keys: ModelKeys = NO_KEYS) -> None:
        """What is to be routed now."""
        now = {row.id: row for row in services}
        if now == self._services and model_keys == self._model_keys:
            return
        self._model_keys = model_keys
        for id in self._services.keys() - now.keys():
            self._loads.pop(id, None)
            self._memories.pop(id, None)
            self._usage.forget(id)
            if self._triggers is not None:
                self._triggers.forget(id)
            self._taken.pop(id, None)
            self._facts.services.pop(id, None)
        self._services = now
        if self._gateway is None:
            for row in services:
                self._without(row)
            return
        self._news.set()
        if self._task is None or self._task.done():
            self._task = self._spawn(self._run(self._gateway))

    def _without(self, row: Workload) -> None:
        generation = service_state(row).generation
        fact = self._facts.services.get(row.id)
        if fact is None or fact.generation < generation:
            self._facts.services[row.id] = ServedFact(generation=generation, at_ms=self._clock.now_ms())
            self._wake(row.id)

    # -- the loop -----------------------------------------------------------------------------------

    async def _run(self, gateway: GatewayPort) -> None:
        watching = self._spawn(self._watch(gateway))
        try:
            await self._keep_in_step(gateway)
        finally:
            watching.cancel()

    async def _watch(self, gateway: GatewayPort) -> None:
        """Look at once when requests begin to wait."""
        sequence = 0
        while True:
            try:
                wants = await gateway.wants(sequence)
            except (BorderError, OSError, TimeoutError):
                await asyncio.sleep(_RETRY_S)  # the other loop says what is wrong
                continue
            if wants.wanted and wants.sequence != sequence:
                self._news.set()
            sequence = wants.sequence
            await asyncio.sleep(QUICK_S)  # many that wait are one piece of news

    async def _keep_in_step(self, gateway: GatewayPort) -> None:
        said = ""
        while True:
            self._news.clear()
            try:
                await self._send(gateway)
                if not self._services:
                    await gateway.rest()
                    return
                await self._look(gateway)
                said = ""
            except (BorderError, OSError, TimeoutError) as error:
                text = str(error) or type(error).__name__
                if text != said:
                    said = text
                    _log.warning("the gateway: %s; it is tried again", text)
                self._sent = None
                await asyncio.sleep(_RETRY_S)
                continue
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._news.wait()
            except TimeoutError:
                pass

    def _pause_s(self) -> float:
        for row in self._services.values():
            state = service_state(row)
            if any(each.state in _MOVING for each in state.replicas):
                return QUICK_S
        return LOOK_S

    async def _send(self, gateway: GatewayPort) -> None:
        services = list(self._services.values())
        routes = routes_of(services, self._model_keys)
        endpoints = endpoints_of(services, routes)
        if (routes, endpoints) != self._sent:
            self._generation = max(self._generation + 1, self._clock.now_ms())
            table = RouteTable(generation=self._generation, services=routes, endpoints=endpoints)
            await gateway.take(table)
            self._sent = routes, endpoints
        for row in services:
            self._taken[row.id] = service_state(row).generation

    async def _look(self, gateway: GatewayPort) -> None:
        counters = await gateway.counters()
        if counters.since_ms != self._since_ms:
            is_new, self._since_ms = self._since_ms != 0, counters.since_ms
            if is_new:
                _log.info("the gateway has begun anew")
        if counters.generation < self._generation:
            self._sent = None  # it has begun anew: it gets the table before anything is concluded
            self._news.set()
            return
        by_id = {each.id: each for each in counters.services}
        for row in list(self._services.values()):
            self._note(row, by_id.get(row.id) or ServiceCounters(id=row.id), counters)

    def _note(self, row: Workload, counted: ServiceCounters, gateway: GatewayCounters) -> None:
        now_ms, state = self._clock.now_ms(), service_state(row)
        load = self._loads.setdefault(row.id, Load())
        load.add(counted, now_ms, state.weights)
        old = self._facts.services.get(row.id) or ServedFact()
        wanted, why = self._scale(row, state, load, counted.held)
        new = msgspec.structs.replace(
            old,
            generation=self._taken.get(row.id, 0),  # together with what is under way as it was after that
            at_ms=now_ms,
            in_flight={each.id: each.in_flight for each in counted.replicas if each.in_flight},
            held=counted.held,
            used_ms=load.used_ms,
            counts=load.counts(counted, state.rollout.old if state.rollout is not None else 0),
            rate=load.rate(),
            replicas=load.rates.of_replicas(),
            revisions=load.rates.of_revisions(),
            keys=key_uses(counted),
            wanted=wanted,
            why=why,
            troubles=self._triggers.troubles(row.id) if self._triggers is not None else (),
        )
        self._facts.services[row.id] = new
        if self._is_news(row, state, old, new):
            self._wake(row.id)

    def _is_news(self, row: Workload, state: ServiceStatus, old: ServedFact, new: ServedFact) -> bool:
        if new.wanted not in (-1, state.target) or new.generation != old.generation:
            return True
        if bool(new.held) != bool(old.held):
            return True
        if state.rollout is not None and not state.rollout.is_over and new.counts != old.counts:
            return True
        leaving = [each.job_id for each in state.replicas if each.state is ReplicaState.DRAINING]
        return any(old.in_flight.get(id) and not new.in_flight.get(id) for id in leaving)

    def _values(self, service: str, revision: Revision) -> Mapping[str, Sequence[float]]:
        triggers = revision.serving.replicas.triggers
        if not triggers:
            return {}
        if self._triggers is None:
            from argosy.controllers.triggers import TriggerValues

            self._triggers = TriggerValues(self._spawn)
        return self._triggers.signals(service, triggers, self._clock.now_ms())

    # -- how many -----------------------------------------------------------------------------------

    def _scale(self, row: Workload, state: ServiceStatus, load: Load, held: int) -> tuple[int, str]:
        """(replicas that the load asks for, why); -1 where the number is fixed."""
        revision = revision_of(row, state.serves) or wanted_revision(row)
        policy = scaling_policy(revision)
        if service_spec(row).fixed is not None or policy.min_replicas >= policy.max_replicas:
            self._memories.pop(row.id, None)
            return -1, ""
        now_ms, memory = self._clock.now_ms(), self._memories.get(row.id, FRESH)
        if not is_due(policy, memory, now_ms, held):
            return memory.replicas, memory.why
        mine = [each for each in state.replicas if each.revision == revision.number]
        seen = Seen(
            now_ms=now_ms,
            ready=sum(each.state is ReplicaState.READY for each in mine),
            starting=sum(each.state in _COMING for each in mine),
            held=held,
            held_work_s=held * load.work_each_s if held else 0.0,
            cold_start_s=float(state.start_s or 30),
            active_ms=max([load.used_ms, *(each.ready_ms for each in mine)]),
            signals={
                **_signals(
                    policy,
                    load.signals({REQUESTS, WORK, *(each.signal for each in policy.targets)}),
                    self._values(row.id, revision),
                ),
                **self._usage.signals(row.id, mine, self._facts, [each.signal for each in policy.targets]),
            },
        )
        scaled = wanted_replicas(policy, seen, memory)
        self._memories[row.id] = scaled.memory
        return scaled.replicas, scaled.why


def _signals(
    policy: Policy, load: Mapping[str, Sequence[float]], values: Mapping[str, Sequence[float]]
) -> Mapping[str, Sequence[float]]:
    """Who has said how many requests a replica takes is not told how much work they are."""
    says = any(target.signal == REQUESTS for target in policy.targets)
    return {name: each for name, each in {**load, **values}.items() if not (says and name == WORK)}
