"""Simulation of the whole control plane: the real store, planner, decisions and shell in a world that fails.

    Simulation(seed).run()

A run has three acts: users work while the faults of the seed strike; the weather calms down and everything
must settle; everything is ended and the world must be empty. Laws are checked all along (see `checkers`). The
same seed is the same run, to the byte, when PYTHONHASHSEED is fixed (`replay` and the tests do that).
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import random
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from argosy.infra.agent_port import AgentDirectory
from argosy.infra.log_sink import LogSink
from argosy.infra.provider import Providers
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.kinds.cluster import CLUSTER, ClusterSpec, ClusterStatus
from argosy.model.kinds.job import JOB, JobSpec, JobStatus
from argosy.model.offer import Confirmed
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.resources import Accelerator, Autostop, Infra, Recovery, Resources
from argosy.model.rows import Event, Row, Workload
from argosy.model.task import Task
from argosy.model.tenancy import Tenancy
from argosy.model.units import Bound
from argosy.scheduler.quota import check_tenancy
from argosy.store.snapshot import Snapshot
from argosy.testing.checkers import Checkers
from argosy.testing.faults import Faults, SimCrash, draw_faults
from argosy.testing.memory_log_sink import MemoryLogSink
from argosy.testing.sim_agent import SimAgentDirectory
from argosy.testing.sim_provider import SimProviders, a_market
from argosy.testing.tenants import Person, draw_person, draw_scheduling, draw_tenancy
from argosy.testing.virtual_time import VirtualLoop, run_virtual
from argosy.testing.world import INCARNATION, Incarnation, Violation, World

if TYPE_CHECKING:
    from argosy.controllers.view import View
    from argosy.store import Store

_MINUTE_S: Final = 60.0
_TURNS_PER_S_MAX: Final = 60.0  # turns of the loop per virtual second, on average over a run


class Server(Protocol):
    """What runs the controllers: `controllers.shell.Shell`."""

    async def run(self) -> None: ...

    def wake(self, *ids: str) -> None: ...

    def view(self, rows: Snapshot) -> View: ...


class MakeServer(Protocol):
    def __call__(
        self,
        *,
        store: Store,
        providers: Providers,
        agents: AgentDirectory,
        logs: LogSink,
        files: None,
        clock: Clock,
        ids: Ids,
    ) -> Server: ...


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much users do."""

    minutes: float = 20.0  # of trouble
    clusters_max: int = 3
    jobs_max: int = 8  # submissions per cluster, of one to three jobs
    managed_max: int = 7
    crowds: float = 0.4  # how likely more people want the small machines of our own than there are
    crowd_max: int = 14  # managed jobs of a crowd
    late_max: int = 0  # jobs of who has guarantees, when a crowd that borrows is there already, for long


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was: for reports and for comparing two runs of one seed."""

    seed: int
    faults: Faults
    virtual_s: float
    commits: int
    crashes: int
    phases: tuple[str, ...]  # last phase and outcome of every row
    log: tuple[str, ...]
    violations: tuple[Violation, ...]


class SimulationFailed(AssertionError):
    """Laws were broken. The message holds what, when, and how to see it again."""

    def __init__(self, outcome: Outcome) -> None:
        told = "\n".join(one.render() for one in outcome.violations[:8])
        super().__init__(
            f"seed {outcome.seed}: {len(outcome.violations)} violations\n{told}\n"
            f"replay: python -m argosy.testing.replay {outcome.seed}"
        )
        self.outcome = outcome


class SimStore:
    """A server's view of the one real store: commits take time, fail, and are places to be killed at."""

    def __init__(self, inner: Store, world: World, committed: Callable[[Sequence[Row]], None]) -> None:
        self.inner = inner
        self.world = world
        self._committed = committed

    async def commit(
        self,
        puts: Sequence[Row] = (),
        *,
        expect: Mapping[str, int] | None = None,
        events: Sequence[Event] = (),
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        key: tuple[str, bytes] | None = None,
    ) -> tuple[Row, ...]:
        self.world.maybe_crash("before commit")
        await asyncio.sleep(self.world.dice("store").uniform(0.0005, 0.02))
        self.world.check_alive()
        is_busy = self.world.chance("store", self.world.faults.store_busy)
        if is_busy and self.world.dice("store").random() < 0.7:
            raise ArgosyError("store-busy", "the simulated database is busy")
        rows = await self.write(puts, expect=expect, events=events, secrets=secrets, key=key)
        self.world.maybe_crash("after commit")
        if is_busy:
            raise ArgosyError("store-busy", "the connection was lost while it committed")
        return rows

    async def write(
        self,
        puts: Sequence[Row],
        *,
        expect: Mapping[str, int] | None = None,
        events: Sequence[Event] = (),
        secrets: Mapping[str, Mapping[str, str]] | None = None,
        key: tuple[str, bytes] | None = None,
    ) -> tuple[Row, ...]:
        """The commit itself, and at once the checkers."""
        rows = await self.inner.commit(puts, expect=expect, events=events, secrets=secrets, key=key)
        self._committed(rows)
        return rows

    async def snapshot(self) -> Snapshot:
        self.world.check_alive()
        return await self.inner.snapshot()

    def __getattr__(self, name: str) -> Any:  # Any: whatever else the store offers
        self.world.check_alive()
        return getattr(self.inner, name)


class Simulation:
    """One seed. The factories are where tests plant bugs."""

    def __init__(
        self,
        seed: int,
        *,
        faults: Faults | None = None,
        load: Load | None = None,
        make_server: MakeServer | None = None,
        make_store: Callable[[Store, World, Callable[[Sequence[Row]], None]], SimStore] = SimStore,
        make_agents: Callable[[World], AgentDirectory] = SimAgentDirectory,
        make_providers: Callable[[SimProviders], Providers] = lambda providers: providers,
        make_sink: Callable[[MemoryLogSink], LogSink] = lambda sink: sink,
    ) -> None:
        self.seed = seed
        self.faults = draw_faults(seed) if faults is None else faults
        self.load = load or Load()
        self._make_server = make_server or _real_shell
        self._make_store = make_store
        self._make_agents = make_agents
        self._make_providers = make_providers
        self._make_sink = make_sink
        self._servers: list[Server | None] = []
        self._is_over = False
        self._rows = Snapshot.of(())  # as of the last look of the checkers

    def run(self) -> Outcome:
        """Raises SimulationFailed."""
        outcome = run_virtual(self._run(), self.seed)
        if outcome.violations:
            raise SimulationFailed(outcome)
        return outcome

    async def _run(self) -> Outcome:
        from argosy.store import Store

        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        world = self.world = World(self.seed, self.faults)
        world.knows_rows = True
        sink = MemoryLogSink()
        world.sink = sink
        inner = await Store.open("sqlite://", ids=world.ids, clock=world.clock, inline=True)
        providers = a_market(world)
        self.checkers = Checkers(world, providers, sink)
        self.checkers.views = self._views
        self.store = self._make_store(inner, world, self.checkers.committed)
        self.admin = Admin(self, inner)
        await self.admin.begin()
        handler = _ErrorsAreViolations(world)
        logger = logging.getLogger("argosy.controllers")
        level, propagate = logger.level, logger.propagate
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
        world.start_weather()
        self._servers = [None] * self.faults.servers
        serving = [
            loop.create_task(self._serve(number, providers, sink), name=f"server-{number}")
            for number in range(self.faults.servers)
        ]
        try:
            await self._acts(world)
        finally:
            self._is_over = True
            for task in serving:
                task.cancel()
            await asyncio.gather(*serving, return_exceptions=True)
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
            await inner.close()
        for text in loop.failures:
            if "SimCrash" not in text:
                world.violate("unhandled", text)
        return Outcome(
            seed=self.seed,
            faults=self.faults,
            virtual_s=world.now_s,
            commits=self.checkers.commits,
            crashes=world.crashes,
            phases=tuple(
                f"{row.id} {row.phase} {getattr(row, 'outcome', '')}" for row in world.rows.values()
            ),
            log=tuple(world.log),
            violations=tuple(world.violations),
        )

    async def _acts(self, world: World) -> None:
        users = Users(self, world.dice("users"), self.load)
        acting = [
            asyncio.ensure_future(one) for one in (*users.plans(), self.admin.meddle(self.load.minutes))
        ]
        try:
            if not await self._watch(self.load.minutes * _MINUTE_S, lambda: False):
                return
            await world.calm()
            await asyncio.gather(*acting)
            if not await self._watch(6 * 3600, lambda: not self.checkers.unsettled()):
                return
            unsettled = self.checkers.unsettled()
            if unsettled:
                world.violate("settles", f"six calm hours later: {', '.join(unsettled[:6])}")
                return
            self.checkers.pools.check_settled()
            world.tell("everything is ended")
            await users.end_all()
            if not await self._watch(3 * 3600, lambda: not self.checkers.left_over()):
                return
            left = self.checkers.left_over()
            if left:
                world.violate("empties", f"three hours after the end: {', '.join(left[:6])}")
            self.checkers.check_over()
        finally:
            for task in acting:
                task.cancel()

    async def _watch(self, limit_s: float, is_reached: Callable[[], bool]) -> bool:
        """Lets time pass; False as soon as a law is broken."""
        until_s = self.world.now_s + limit_s
        while self.world.now_s < until_s:
            await asyncio.sleep(_MINUTE_S / 2)
            self._rows = await self.store.inner.snapshot()
            self.checkers.check_minute()
            self._check_pace()
            if self.world.violations:
                return False
            if is_reached():
                return True
        return True

    def _check_pace(self) -> None:
        """Controllers that wake each other ever more often would only look slow; here they break a law."""
        loop = asyncio.get_running_loop()
        assert isinstance(loop, VirtualLoop)
        if loop.turns > 20_000 + _TURNS_PER_S_MAX * self.world.now_s:
            self.world.violate("pace", f"{loop.turns} turns of the loop in {self.world.now_s:.0f} s")

    # -- servers --------------------------------------------------------------------------------------------

    def _views(self) -> list[View]:
        """What every live server would decide on now."""
        views = [server.view(self._rows) for server in self._servers if server is not None]
        return [view for view in views if isinstance(view.rows, Snapshot) and view.offers]

    async def _serve(self, number: int, providers: SimProviders, sink: MemoryLogSink) -> None:
        """One server process after another: each is killed some day, and its successor finds the same
        store."""
        dice = self.world.dice(f"server-{number}")
        life_number = 0
        while not self._is_over:
            life_number += 1
            life = Incarnation(f"server-{number}.{life_number}")
            context = contextvars.copy_context()
            context.run(INCARNATION.set, life)
            server = self._make_server(
                store=cast("Store", self.store),
                providers=self._make_providers(providers),
                agents=self._make_agents(self.world),
                logs=self._make_sink(sink),
                files=None,
                clock=self.world.clock,
                ids=self.world.ids,
            )
            pools = server.view(self._rows).pools
            if pools is not None:
                self.checkers.pools.watch(pools)
            self._servers[number] = server
            self.checkers.server_comes(1)
            task = asyncio.get_running_loop().create_task(server.run(), name=life.name, context=context)
            task.add_done_callback(lambda _, life=life: life.dead.set())  # type: ignore[misc]
            try:
                await life.dead.wait()
            finally:
                life.dead.set()
                self._servers[number] = None
                self.checkers.server_comes(-1)
                await self._bury(task)
            await asyncio.sleep(dice.uniform(0.5, 30))

    async def _bury(self, task: asyncio.Task[None]) -> None:
        ended_itself = task.done()
        task.cancel()
        await asyncio.wait([task], timeout=60)
        if not task.done():
            self.world.violate("server-ends", "a server that is cancelled does not end")
            return
        error = None if task.cancelled() else task.exception()
        if error is None and ended_itself and not task.cancelled():
            self.world.violate("server-runs", "the controllers returned")
        elif error is not None and not _is_crash(error):
            self.world.violate("server-runs", f"the controllers failed: {error!r}")

    def wake(self, *ids: str) -> None:
        """As the API does after a commit: one server hears of it at once, the others in their next pass."""
        for server in self._servers:
            if server is not None:
                server.wake(*ids)
                return


class Admin:
    """Who writes the tree of queues, and changes it while people work."""

    def __init__(self, simulation: Simulation, inner: Store) -> None:
        self.simulation = simulation
        self.inner = inner
        self.dice = simulation.world.dice("admin")

    async def begin(self) -> None:
        await self._write(draw_tenancy(self.dice))

    async def meddle(self, minutes: float) -> None:
        if self.dice.random() < 0.7:
            return
        await asyncio.sleep(self.dice.uniform(0, minutes * _MINUTE_S))
        await self._write(draw_tenancy(self.dice))
        self.simulation.world.tell("the tree of queues is another one")
        self.simulation.wake()

    async def _write(self, tenancy: Tenancy) -> None:
        check_tenancy(tenancy)
        rev = (await self.inner.snapshot()).tenancy.rev
        [written] = await self.inner.commit([msgspec.structs.replace(tenancy, rev=rev)])
        self.simulation.checkers.pools.tenancy = written


class Users:
    """People at work: clusters with jobs of all shapes, managed jobs, cancels, stops, starts, downs."""

    def __init__(self, simulation: Simulation, dice: random.Random, load: Load) -> None:
        self.simulation = simulation
        self.dice = dice
        self.load = load
        self.busy_s = load.minutes * _MINUTE_S

    def plans(self) -> list[Awaitable[None]]:
        clusters = [
            self._use_cluster(f"c{n}")
            for n in range(self.dice.randint(min(1, self.load.clusters_max), self.load.clusters_max))
        ]
        managed = [
            self._use_managed() for _ in range(self.dice.randint(0 if clusters else 1, self.load.managed_max))
        ]
        crowd = self.dice.randint(6, self.load.crowd_max) if self.dice.random() < self.load.crowds else 0
        late = self.dice.randint(1, self.load.late_max) if self.load.late_max else 0
        work_s, who = ([3600], Person("green", "eve")) if late else ([120, 600, 900], None)
        return [
            *clusters,
            *managed,
            *(self._use_managed("farm", work_s, who=who) for _ in range(crowd)),
            *(self._use_managed("farm", [120], who=Person("red", "ann"), late=True) for _ in range(late)),
        ]

    async def end_all(self) -> None:
        for row in list(self.simulation.world.rows.values()):
            if isinstance(row, Workload) and row.is_live:
                await self._change(row.id, desired=Desired.END)

    async def _use_cluster(self, name: str) -> None:
        dice = self.dice
        await asyncio.sleep(dice.uniform(0, self.busy_s / 3))
        spec = self._cluster_spec()
        person = draw_person(dice)
        world = self.simulation.world
        autostop = Autostop(idle_s=dice.choice([60, 300]), down=dice.random() < 0.5)
        cluster = Workload(
            id=world.ids.new("clu"),
            kind=CLUSTER.name,
            name=name,
            spec=msgspec.structs.replace(
                spec,
                autostop=autostop if dice.random() < 0.4 else Autostop(),
                down_when_done=dice.random() < 0.15,
            ),
            status=ClusterStatus(),
            created_ms=world.clock.now_ms(),
            project=person.project,
            user=person.user,
        )
        await self._put([cluster])
        jobs: list[str] = []
        for _ in range(dice.randint(1, self.load.jobs_max)):
            await asyncio.sleep(dice.choice([0, 0, dice.uniform(0, 200)]))
            jobs += await self._exec(cluster.id, spec)
            if jobs and dice.random() < 0.2:
                await self._change(dice.choice(jobs), desired=Desired.END)
        if dice.random() < 0.4:
            await asyncio.sleep(dice.uniform(0, 300))
            await self._change(cluster.id, desired=Desired.STOP)
            await asyncio.sleep(dice.uniform(0, 300))
            if dice.random() < 0.7:
                await self._change(cluster.id, desired=Desired.RUN)
        if dice.random() < 0.3:
            await asyncio.sleep(dice.uniform(0, 300))
            await self._change(cluster.id, desired=Desired.END)

    def _cluster_spec(self) -> ClusterSpec:
        dice = self.dice
        kind = dice.choice(["pool-gpu", "pool-cpu", "farm", "farm", "cloud", "spot"])
        nodes = dice.choice([1, 1, 2, 3])
        if kind == "pool-gpu":
            gpus = dice.choice([1000, 2000])
            wish = Resources(infra=Infra(provider="pool"), accelerator=Accelerator(model="A100", milli=gpus))
        elif kind == "farm":
            gpu = Accelerator(model="L4", milli=dice.choice([1000, 2000, 4000]))
            cpus = Bound(4000) if dice.random() < 0.5 else None
            wish = Resources(infra=Infra(provider="farm"), accelerator=gpu, cpus=cpus)
        elif kind == "pool-cpu":
            wish = Resources(infra=Infra(provider="pool"), cpus=Bound(dice.choice([2000, 8000])))
        else:
            wish = Resources(infra=Infra(provider="cloud"), cpus=Bound(4000), use_spot=kind == "spot")
        return ClusterSpec(num_nodes=nodes, resources=(wish,), confirmed=self._confirmed(nodes))

    def _confirmed(self, nodes: int) -> Confirmed | None:
        """Some people launch up to a price, which may be below what places cost later."""
        dice = self.simulation.world.dice("confirmed")
        if dice.random() < 0.6:
            return None
        return Confirmed(max_hourly_micro_usd=round(nodes * 400_000 * dice.uniform(0.3, 3)))

    async def _exec(self, cluster_id: str, spec: ClusterSpec) -> list[str]:
        """One or a few jobs in one commit."""
        dice, world = self.dice, self.simulation.world
        cluster = world.rows.get(cluster_id)
        if not isinstance(cluster, Workload) or not cluster.is_live or cluster.desired is Desired.END:
            return []
        gpu = spec.resources[0].accelerator
        person = draw_person(dice)
        count = dice.choice([1, 1, 3])
        first = await self.simulation.store.inner.take_numbers(cluster_id, count)
        jobs = []
        for number in range(first, first + count):
            milli = dice.choice([0, 250, 500, 1000]) if gpu is not None else 0
            wish = Resources(
                cpus=Bound(dice.choice([500, 1000, 2000])) if dice.random() < 0.7 else None,
                accelerator=Accelerator(model=gpu.model, milli=milli) if milli and gpu is not None else None,
                priority_class=dice.choice([None, None, None, "opportunistic", "interactive"]),
                priority=dice.choice([0, 0, 0, 5]),
            )
            task = Task(
                run=self._program(dice.choice([2, 20, 120, 900])),
                setup="sim work_s=3" if dice.random() < 0.3 else "",
                num_nodes=dice.randint(1, spec.num_nodes),
                resources=(wish,),
                grace_s=dice.choice([2, 30]),
                max_duration_s=60 if dice.random() < 0.1 else None,
                scheduling=draw_scheduling(dice, has_gpu=0 < milli < 1000),
                estimated_s=dice.choice([None, 30, 300]),
            )
            who = draw_person(dice) if dice.random() < 0.5 else person
            jobs.append(self._job(task, number, cluster_id, who))
        await self._put(jobs)
        return [job.id for job in jobs]

    async def _use_managed(
        self,
        place: str = "",
        work_s: Sequence[float] = (20, 120, 600),
        *,
        who: Person | None = None,
        late: bool = False,
    ) -> None:
        dice = self.dice
        begin_s, end_s = (self.busy_s / 2, self.busy_s) if late else (0, self.busy_s / 2)
        await asyncio.sleep(dice.uniform(begin_s, end_s))
        place = place or dice.choice(["pool", "farm", "farm", "anywhere", "cloud", "spot"])
        recovery = Recovery(
            max_restarts_on_errors=dice.choice([0, 1, 3]),
            recover_on_exit_codes=(33,) if dice.random() < 0.3 else (),
        )
        if place == "pool":
            gpu = Accelerator(model="A100", milli=dice.choice([500, 1000, 2000]))
            wish = Resources(
                infra=Infra(provider="pool"), accelerator=gpu, cpus=Bound(1000), recovery=recovery
            )
        elif place == "farm":
            gpu = Accelerator(model="L4", milli=dice.choice([250, 500, 1000, 2000, 4000]))
            wish = Resources(infra=Infra(provider="farm"), accelerator=gpu, recovery=recovery)
        elif place == "anywhere":
            wish = Resources(cpus=Bound(4000), recovery=recovery)
        else:
            wish = Resources(
                cpus=Bound(4000), use_spot=place == "spot", infra=Infra(provider="cloud"), recovery=recovery
            )
        task = Task(
            run=self._program(dice.choice(work_s)),
            setup="sim work_s=5" if dice.random() < 0.3 else "",
            num_nodes=1 if late else dice.choice([1, 1, 2, 3] if place == "farm" else [1, 1, 2]),
            resources=(
                msgspec.structs.replace(
                    wish, priority_class=dice.choice([None, None, "opportunistic", "interactive"])
                ),
            ),
            grace_s=dice.choice([2, 30]),
            scheduling=draw_scheduling(dice, has_gpu=False),
            deadline_s=dice.choice([600, 7200]) if dice.random() < 0.2 else None,
            estimated_s=dice.choice([None, 60, 600]),
        )
        if who is not None:
            may_end = msgspec.structs.replace(task.scheduling, preemptible=True)
            task = msgspec.structs.replace(task, scheduling=may_end)
        number = await self.simulation.store.inner.take_numbers("managed", 1)
        job = self._job(task, number, None, who or draw_person(dice))
        await self._put([job])
        if dice.random() < 0.25:
            await asyncio.sleep(dice.uniform(0, 400))
            await self._change(job.id, desired=Desired.END)

    def _program(self, work_s: float) -> str:
        dice = self.dice
        words = [
            f"sim work_s={work_s * dice.uniform(0.5, 1.5):.1f}",
            f"checkpoint_s={dice.choice([0, 10, 30])}",
        ]
        if dice.random() < 0.25:
            words += [f"fails={dice.choice([1, 1, 2, 9])}", f"fail_s={dice.choice([0, 5, 30])}"]
            words += [f"fail_code={dice.choice([1, 33, 137])}", f"fail_rank={dice.choice([-1, 0])}"]
        if dice.random() < 0.15:
            words.append("ignores_term=1")
        if dice.random() < 0.1:
            words.append("log_bytes=2500000")
        return " ".join(words)

    def _job(self, task: Task, number: int, cluster_id: str | None, who: Person) -> Workload:
        world = self.simulation.world
        return Workload(
            id=world.ids.new("job"),
            kind=JOB.name,
            name=f"j{number}",
            spec=JobSpec(
                task=task,
                managed=cluster_id is None,
                confirmed=self._confirmed(task.num_nodes) if cluster_id is None else None,
            ),
            status=JobStatus(),
            number=number,
            host_id=cluster_id,
            project=who.project,
            user=who.user,
            created_ms=world.clock.now_ms(),
        )

    async def _put(self, rows: Sequence[Row]) -> None:
        await self.simulation.store.write(rows)
        self.simulation.wake(*(row.id for row in rows))

    async def _change(self, row_id: str, *, desired: Desired) -> None:
        """As the API does: read, change, write; again when somebody was faster. What is over stays over."""
        from argosy.store import Conflict

        while True:
            row = self.simulation.world.rows.get(row_id)
            if not isinstance(row, Workload) or not row.is_live or row.desired in (desired, Desired.END):
                return
            if desired is Desired.RUN and row.phase not in (WorkloadPhase.STOPPED, WorkloadPhase.STOPPING):
                return
            try:
                await self._put([msgspec.structs.replace(row, desired=desired)])
            except Conflict:
                continue
            self.simulation.world.tell(f"a user wants {row_id} to {desired.value}")
            return


class _ErrorsAreViolations(logging.Handler):
    """The shell survives bugs by logging them. Here they are found."""

    def __init__(self, world: World) -> None:
        super().__init__(logging.INFO)
        self._world = world

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            error = record.exc_info[1]
            frames = error.__traceback__
            while frames is not None and frames.tb_next is not None:
                frames = frames.tb_next
            where = f" at {frames.tb_frame.f_code.co_filename}:{frames.tb_lineno}" if frames else ""
            self._world.violate("no-surprises", f"{text} {error!r}{where}")
        elif record.levelno >= logging.ERROR and "cannot write" not in text:
            self._world.violate("no-surprises", text)
        else:
            self._world.tell(f"log: {text}")


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_crash(one) for one in error.exceptions)
    return isinstance(error, SimCrash)


def _real_shell(**parts: Any) -> Server:  # Any: passed on as they are
    from argosy.controllers.shell import Shell

    return Shell(**parts)
