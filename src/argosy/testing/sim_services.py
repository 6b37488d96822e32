"""Services in the simulated world: replicas that answer or not, a gateway with requests, users who roll out.

    ServiceSimulation(seed).run()

On top of the laws of `checkers`: shares of revisions sum up, no replica is nobody's, none is taken out that
is still needed, a request is never cut by a drain, and what never works is not started again and again.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec

from argosy.infra.border import Transient, Unreachable
from argosy.infra.replica_port import Answer
from argosy.model.kinds import kind_of
from argosy.model.kinds.service import (
    SERVICE,
    Replica,
    ReplicaState,
    Revision,
    RolloutPhase,
    ServiceSpec,
    ServiceStatus,
    revision_of,
    service_spec,
    service_state,
)
from argosy.model.phases import Desired, Outcome
from argosy.model.reasons import Reason
from argosy.model.resources import Infra, Resources
from argosy.model.routes import (
    GatewayCounters,
    ReplicaCounters,
    RevisionCounters,
    RouteTable,
    ServiceCounters,
    ServiceRoute,
    Wants,
)
from argosy.model.rows import Attempt, Node, Row, Workload
from argosy.model.serving import Probe, Replicas, Serving, Strategy
from argosy.model.task import Task
from argosy.model.units import Bound
from argosy.testing.faults import Faults
from argosy.testing.harness import SimStore, Simulation, real_shell
from argosy.testing.sim_users import Load, Users
from argosy.testing.world import World

_FOREVER: Final = "sim work_s=1000000"
_MADE_PER_MINUTE: Final = 2.0  # replicas that are made in place of others, at most, on average
_FOR_PROGRAM_MS: Final = 10_000  # before the end of a machine its programs may be told to end
_GATEWAY_DEATH: Final = 0.002  # per second of rough weather


class SimReplicas:
    """Implements `infra.replica_port.ReplicaPort`."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def open(self, node: Node, port: int) -> str:
        await self.world.call("replica.open", self.world.faults.agent_error)
        machine = self.world.machines.get(node.address)
        if machine is None or machine.is_partitioned:
            raise Unreachable(f"{node.address} does not answer")
        return f"{node.address}|{port}"

    async def ask(self, address: str, probe: Probe, secrets: Mapping[str, str]) -> Answer:
        self.world.check_alive()
        await asyncio.sleep(self.world.dice("probes").uniform(0.001, 0.05))
        place, _, port = address.rpartition("|")
        machine = self.world.machines.get(place)
        if machine is None or machine.is_partitioned:
            return Answer(good=False, why="no answer")
        ranks = [each for each in machine.ranks.values() if each.fact.id in self.world.running]
        if not any(each.order.env.get("PORT") == port for each in ranks):
            return Answer(good=False, why="nothing listens", refused=True)
        if self.world.chance("probes", self.world.faults.agent_error / 4):
            return Answer(good=False, why="no answer in time")
        good = probe.path != "/broken"
        return Answer(good=good, why="" if good else "/broken answers 503")

    async def listening(self, node: Node, rank_id: str) -> Sequence[int]:
        return ()

    def close(self, node_id: str, port: int) -> None:
        """Nothing is kept."""


class Request(msgspec.Struct):
    """One request that a replica works on."""

    service: str
    revision: str
    job_id: str
    rank_id: str
    until_s: float


class SimGateway:
    """Implements `infra.gateway_port.GatewayPort`: one for all servers, with requests of its own."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.table = RouteTable(generation=0)
        self.since_ms = world.clock.now_ms()
        self.requests: list[Request] = []
        self.counted: dict[str, dict[str, int]] = {}
        self.task = asyncio.ensure_future(self._serve())

    async def take(self, table: RouteTable) -> int:
        await self.world.call("gateway.take", self.world.faults.agent_error)
        if table.generation < self.table.generation:
            raise Transient("the table is older than the one in use")
        self._check(table)
        self.table = table
        return table.generation

    def _check(self, table: RouteTable) -> None:
        for service in table.services:
            ids = [each.id for revision in service.revisions for each in revision.replicas]
            if len(set(ids)) != len(ids):
                self.world.violate("routes", f"{service.name} has a replica twice: {ids}")

    async def counters(self) -> GatewayCounters:
        await self.world.call("gateway.counters", self.world.faults.agent_error)
        services = [self._counters(each) for each in self.table.services]
        return GatewayCounters(generation=self.table.generation, since_ms=self.since_ms, services=services)

    def _counters(self, route: ServiceRoute) -> ServiceCounters:
        mine = [each for each in self.requests if each.service == route.id]
        replicas: dict[str, ReplicaCounters] = {}
        for each in mine:
            found = replicas.setdefault(each.job_id, ReplicaCounters(id=each.job_id, revision=each.revision))
            found.in_flight += 1
        counted = self.counted.get(route.id, {})
        revisions = [RevisionCounters(id=id, requests=count) for id, count in counted.items()]
        return ServiceCounters(
            id=route.id,
            requests=sum(counted.values()),
            in_flight=len(mine),
            replicas=list(replicas.values()),
            revisions=revisions,
        )

    async def wants(self, after: int) -> Wants:
        await asyncio.sleep(25.0)
        return Wants(sequence=after)

    async def rest(self) -> None:
        """It stays."""

    async def _serve(self) -> None:
        """A few requests a second for every service, and what becomes of those that are under way."""
        while True:
            await asyncio.sleep(1.0)
            if self.world.faults.agent_deaths_per_h and self.world.chance("gateway", _GATEWAY_DEATH):
                self.world.tell("the gateway is killed")
                self.table, self.since_ms = RouteTable(generation=0), self.world.clock.now_ms()
                self.requests, self.counted = [], {}
                continue
            self._look()
            for service in self.table.services:
                self._send(service)

    def _look(self) -> None:
        world, kept = self.world, []
        for each in self.requests:
            if each.rank_id in world.running:
                if each.until_s > world.now_s:
                    kept.append(each)
                continue
            self._judge_cut(each)
        self.requests = kept

    def _judge_cut(self, request: Request) -> None:
        """A drain cuts nothing; after a notice, only what takes longer than the machine stays."""
        world, ended = self.world, self.world.exits.get(request.rank_id)
        job, attempt = world.rows.get(request.job_id), world.rows.get(request.rank_id.rpartition(".")[0])
        if ended is None or ended[1] != 143 or not isinstance(job, Workload):
            return
        if isinstance(attempt, Attempt) and attempt.outcome is Outcome.PREEMPTED:
            node = world.rows.get(attempt.placements[0].node_id)
            machine = world.machines.get(node.address) if isinstance(node, Node) else None
            notice = machine.facts.notice if machine is not None else None
            if notice is not None and world.clock.now_ms() < notice.at_ms - _FOR_PROGRAM_MS:
                world.violate("answers-at-notice", f"a request of {job.name} was cut by its notice")
        elif job.reason is Reason.DRAINED:
            world.violate("drained-first", f"a request of {job.name} was cut by its drain")

    def _send(self, service: ServiceRoute) -> None:
        dice = self.world.dice("requests")
        open_now = [
            (revision, [each for each in revision.replicas if each.state == "ready"])
            for revision in service.revisions
            if revision.weight
        ]
        open_now = [each for each in open_now if each[1]]
        if not open_now:
            return
        [(revision, replicas)] = dice.choices(open_now, weights=[each[0].weight for each in open_now])
        job_id = dice.choice(replicas).id
        rank_id = self._rank_of(job_id)
        counted = self.counted.setdefault(service.id, {})
        counted[revision.id] = counted.get(revision.id, 0) + 1
        if rank_id:
            until_s = self.world.now_s + dice.choice([0.2, 2.0, 20.0])
            self.requests.append(Request(service.id, revision.id, job_id, rank_id, until_s))

    def _rank_of(self, job_id: str) -> str:
        for rank_id in self.world.running:
            attempt = self.world.rows.get(rank_id.rpartition(".")[0])
            if isinstance(attempt, Attempt) and attempt.workload_id == job_id:
                return rank_id
        return ""


class ServiceLaws:
    """Checked at every commit."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._before: dict[str, Workload] = {}
        self._since_s: dict[str, float] = {}  # by the world's time: the clock of the servers jumps

    def committed(self, rows: Sequence[Row]) -> None:
        """Call with the rows as written."""
        for row in rows:
            if isinstance(row, Workload) and kind_of(row) is SERVICE:
                self._since_s.setdefault(row.id, self.world.now_s)
                self._check(self._before.get(row.id), row)
                self._before[row.id] = row

    def _check(self, old: Workload | None, row: Workload) -> None:
        state, world = service_state(row), self.world
        if state.weights and sum(weight for _, weight in state.weights) != 1000:
            world.violate("weights", f"{row.name} shares out {state.weights}")
        ids = [each.job_id for each in state.replicas]
        if len(set(ids)) != len(ids):
            world.violate("replicas", f"{row.name} has a replica twice: {ids}")
        if not row.is_live:
            return
        for job in world.rows.values():
            is_mine = isinstance(job, Workload) and job.parent_id == row.id and job.is_live
            if is_mine and job.desired is Desired.RUN and job.id not in ids:  # type: ignore[union-attr]
                world.violate("orphans", f"{job.id} is no replica of {row.name} any more, and runs on")
        if old is not None and row.desired is Desired.RUN:
            self._check_taken_out(old, row)
        self._check_made(row, state)

    def _check_taken_out(self, old: Workload, row: Workload) -> None:
        """Who answered is taken out only when enough others answer."""
        before = {each.job_id: each for each in service_state(old).replicas}
        state, spec = service_state(row), service_spec(row)
        chosen = [
            each
            for each in state.replicas
            if each.state is ReplicaState.DRAINING
            and each.job_id in before
            and before[each.job_id].state is ReplicaState.READY
        ]
        if any(self._must_leave(each) for each in chosen):
            self._check_replaced(row, state)
            chosen = [each for each in chosen if not self._must_leave(each)]
        rollout = state.rollout
        if not chosen or (rollout is not None and rollout.phase is RolloutPhase.ROLLING_BACK):
            return
        revision = revision_of(row, state.serves)
        if revision is None:
            return
        wanted = spec.fixed if spec.fixed is not None else revision.serving.replicas.least
        ready = sum(each.state is ReplicaState.READY for each in state.replicas)
        if ready < wanted:
            self.world.violate(
                "enough-answer",
                f"{row.name} takes out {[each.number for each in chosen]}: {ready} of {wanted}",
            )

    def _must_leave(self, replica: Replica) -> bool:
        """Its machine was given notice."""
        attempt = self.world.rows.get(replica.attempt_id)
        return isinstance(attempt, Attempt) and attempt.outcome is Outcome.PREEMPTED

    def _check_replaced(self, row: Workload, state: ServiceStatus) -> None:
        """Who must leave is replaced in the same decision."""
        revision, rollout = revision_of(row, state.serves), state.rollout
        if revision is None or (rollout is not None and not rollout.is_over) or state.failed:
            return
        spec = service_spec(row)
        wanted = spec.fixed if spec.fixed is not None else revision.serving.replicas.least
        stays = [each for each in state.replicas if each.state is not ReplicaState.DRAINING]
        if spec.wanted == state.serves and len(stays) < wanted:
            self.world.violate("replaced-ahead", f"{row.name} orders {len(stays)} of {wanted} at a notice")
        self.world.tell(f"{row.name} replaces a replica ahead")

    def _check_made(self, row: Workload, state: ServiceStatus) -> None:
        minutes = (self.world.now_s - self._since_s[row.id]) / 60
        wanted = max(4, service_spec(row).fixed or 0)
        revisions = len(service_spec(row).revisions)
        limit = 12 + wanted * 2 * revisions + _MADE_PER_MINUTE * minutes * wanted
        if state.made > limit:
            self.world.violate("flapping", f"{row.name} has made {state.made} replicas in {minutes:.0f} min")

    def unsettled(self) -> list[str]:
        """Services that do not serve as they should yet."""
        found = []
        for row in self.world.rows.values():
            if not (isinstance(row, Workload) and kind_of(row) is SERVICE and row.is_live):
                continue
            state, spec = service_state(row), service_spec(row)
            rollout = state.rollout
            if row.desired is Desired.END or rollout is None:
                found.append(f"{row.name} is {row.phase.value}")
                continue
            if not rollout.is_over and rollout.phase is not RolloutPhase.PAUSED and rollout.old:
                found.append(f"{row.name} is {rollout.phase.value}")
            revision = revision_of(row, state.serves)
            if revision is None or _is_hopeless(revision):
                continue  # nothing that was sent to it ever worked, or only until its program had begun
            wanted = spec.fixed if spec.fixed is not None else revision.serving.replicas.least
            ready = sum(each.state is ReplicaState.READY for each in state.replicas)
            if ready < wanted:
                found.append(f"{row.name} has {ready} of {wanted}")
        return found


def _is_hopeless(revision: Revision) -> bool:
    """Whether its program ends by itself, or answers no probe. It may have answered for a moment, and so
    serve where users sent nothing better before it."""
    return "exit=1" in revision.task.run or revision.serving.probe.path == "/broken"


class ServiceUsers(Users):
    """Who makes services, sends revisions good and bad, scales and goes back."""

    def plans(self) -> list[Awaitable[None]]:
        return [self._serve(number) for number in range(self.dice.randint(1, 3))]

    async def _serve(self, number: int) -> None:
        dice, world = self.dice, self.simulation.world
        await asyncio.sleep(dice.uniform(0, 60))
        row = Workload(
            id=world.ids.new(SERVICE.prefix),
            kind=SERVICE.name,
            name=f"s{number}",
            spec=ServiceSpec(revisions=(self._revision(1, dice.random() < 0.15),), wanted=1),
            status=ServiceStatus(),
            created_ms=world.clock.now_ms(),
        )
        await self._put([row])
        for _ in range(dice.randint(1, 4)):
            await asyncio.sleep(dice.uniform(30, 300))
            act = dice.choice([self._update, self._update, self._scale, self._back])
            await self._edit(row.id, act)
        if dice.random() < 0.3:
            await asyncio.sleep(dice.uniform(0, 200))
            await self._change(row.id, desired=Desired.END)

    def _revision(self, number: int, is_bad: bool) -> Revision:
        dice, mixes = self.dice, self.simulation.world.dice("mixes")
        path, run = "/health", _FOREVER
        if is_bad and dice.random() < 0.5:
            path = "/broken"
        elif is_bad:
            run = "sim work_s=3 exit=1"
        serving = Serving(
            probe=Probe(path=path, start_ms=120_000, failing_ms=30_000),
            replicas=Replicas(
                least=2, most=2, on_demand=mixes.choice([0, 0, 1]), fallback=mixes.random() < 0.4
            ),
        )
        spot = dice.random() < 0.3
        wish = Resources(cpus=Bound(1000), use_spot=spot, infra=Infra(provider="cloud"))
        strategy = dice.choice(
            [
                Strategy(),
                Strategy(surge=2),
                Strategy(name="canary", steps=(100, 500, 1000), bake_ms=30_000, bake_requests=1),
                Strategy(name="blue-green", keep_ms=60_000),
                Strategy(name="shadow"),
            ]
        )
        task = Task(run=run, resources=(wish,), grace_s=2, service=serving)
        return Revision(number=number, digest=f"d{number}-{dice.random()}", task=task, strategy=strategy)

    def _update(self, row: Workload) -> ServiceSpec:
        spec = service_spec(row)
        number = spec.revisions[-1].number + 1
        new = self._revision(number, self.dice.random() < 0.35)
        return msgspec.structs.replace(spec, revisions=(*spec.revisions, new), wanted=number, promote=0)

    def _scale(self, row: Workload) -> ServiceSpec:
        return msgspec.structs.replace(service_spec(row), fixed=self.dice.choice([0, 1, 3, 4]))

    def _back(self, row: Workload) -> ServiceSpec:
        rollout = service_state(row).rollout
        if rollout is None or not rollout.old:
            return service_spec(row)
        if self.dice.random() < 0.5 and not rollout.is_over:
            return msgspec.structs.replace(service_spec(row), promote=rollout.new)
        return msgspec.structs.replace(service_spec(row), wanted=rollout.old, promote=0)

    async def _edit(self, id: str, act: Callable[[Workload], ServiceSpec]) -> None:
        from argosy.store import Conflict

        while True:
            row = self.simulation.world.rows.get(id)
            if not isinstance(row, Workload) or not row.is_live or row.desired is Desired.END:
                return
            dice_state = self.dice.getstate()
            try:
                await self._put([msgspec.structs.replace(row, spec=act(row))])
            except Conflict:
                self.dice.setstate(dice_state)
                continue
            self.simulation.world.tell(f"a user changes {row.name}: revision {service_spec(row).wanted}")
            return


class ServiceSimulation(Simulation):
    """As `Simulation`, with services in place of clusters and jobs."""

    replay = "--services "

    def __init__(self, seed: int, *, faults: Faults | None = None, minutes: float = 20.0) -> None:
        self.laws: ServiceLaws | None = None
        self._gateway: SimGateway | None = None
        super().__init__(
            seed,
            faults=faults,
            load=Load(minutes=minutes),
            make_server=self._shell,
            make_store=self._watched_store,
        )

    def users(self, dice: random.Random) -> Users:
        return ServiceUsers(self, dice, self.load)

    def _shell(self, **parts: Any) -> Any:  # Any: passed on as they are
        if self._gateway is None:
            self._gateway = SimGateway(self.world)
        return real_shell(**parts, replicas=SimReplicas(self.world), gateway=self._gateway)

    def _watched_store(
        self, inner: Any, world: World, committed: Callable[[Sequence[Row]], None]
    ) -> SimStore:
        laws = self.laws = ServiceLaws(world)
        self.checkers.also_unsettled = laws.unsettled

        def both(rows: Sequence[Row]) -> None:
            committed(rows)
            laws.committed(rows)

        return SimStore(inner, world, both)

    async def _acts(self, world: World) -> None:
        try:
            await super()._acts(world)
        finally:
            if self._gateway is not None:
                self._gateway.task.cancel()
