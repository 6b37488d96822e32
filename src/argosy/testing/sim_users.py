"""People of a simulation: who writes the tree of queues, and who submits, cancels, stops and starts."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections.abc import Awaitable, Sequence
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from argosy.api.endpoint import Reply
from argosy.model.errors import ArgosyError
from argosy.model.kinds.cluster import CLUSTER, ClusterSpec, ClusterStatus
from argosy.model.kinds.job import JOB, JobSpec, JobStatus
from argosy.model.offer import Confirmed
from argosy.model.phases import Desired, WorkloadPhase
from argosy.model.resources import Accelerator, Autostop, Infra, Recovery, Resources
from argosy.model.rows import Row, Workload
from argosy.model.task import Task
from argosy.model.tenancy import Tenancy
from argosy.model.units import Bound
from argosy.scheduler.quota import check_tenancy
from argosy.testing.faults import SimCrash
from argosy.testing.tenants import Person, draw_person, draw_scheduling, draw_tenancy
from argosy.testing.world import INCARNATION, Submission

if TYPE_CHECKING:
    from argosy.store import Store
    from argosy.testing.harness import Simulation

_MINUTE_S: Final = 60.0
_TRIES_MAX: Final = 20  # a client asks so often, with the same idempotency key


class Load(msgspec.Struct, frozen=True, kw_only=True):
    """How much users do."""

    minutes: float = 20.0  # of trouble
    clusters_max: int = 3
    jobs_max: int = 8  # submissions per cluster, of one to three jobs
    managed_max: int = 7
    crowds: float = 0.4  # how likely more people want the small machines of our own than there are
    crowd_max: int = 14  # managed jobs of a crowd
    late_max: int = 0  # jobs of who has guarantees, when a crowd that borrows is there already, for long


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
        return await self._submit(jobs)

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
        nodes = 1 if late else dice.choice([1, 1, 2, 3] if place == "farm" else [1, 1, 2])
        elastic = nodes > 1 and dice.random() < 0.4
        task = Task(
            run=self._program(dice.choice(work_s)),
            setup="sim work_s=5" if dice.random() < 0.3 else "",
            num_nodes=nodes,
            min_nodes=dice.randint(1, nodes - 1) if elastic else 0,
            resources=(
                msgspec.structs.replace(
                    wish, priority_class=dice.choice([None, None, "opportunistic", "interactive"])
                ),
            ),
            grace_s=dice.choice([2, 30]),
            scheduling=draw_scheduling(dice, has_gpu=False),
            deadline_s=dice.choice([600, 7200]) if dice.random() < 0.2 and not elastic else None,
            estimated_s=dice.choice([None, 60, 600]),
        )
        if who is not None:
            may_end = msgspec.structs.replace(task.scheduling, preemptible=True)
            task = msgspec.structs.replace(task, scheduling=may_end)
        number = await self.simulation.store.inner.take_numbers("managed", 1)
        job = self._job(task, number, None, who or draw_person(dice))
        ids = await self._submit([job])
        if dice.random() < 0.25:
            await asyncio.sleep(dice.uniform(0, 400))
            for id in ids:
                await self._change(id, desired=Desired.END)

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

    async def _submit(self, jobs: Sequence[Workload]) -> list[str]:
        """The ids that the user is told; none when the client dies before it is answered."""
        world = self.simulation.world
        if not world.faults.client_deaths:
            await self._put(jobs)
            return [job.id for job in jobs]
        submission = Submission(key=world.ids.new("key"))
        world.submissions.append(submission)
        dice = world.dice("clients")
        dies = world.chance("clients", world.faults.client_deaths)
        for _ in range(_TRIES_MAX):
            serving = self.simulation.serving()
            if serving is None:
                await asyncio.sleep(dice.uniform(0.5, 5))
                continue
            server, life = serving
            context = contextvars.copy_context()
            context.run(INCARNATION.set, life)
            work = self._handle(server, submission, jobs)
            request = asyncio.get_running_loop().create_task(work, context=context)
            if dies and dice.random() < 0.7:
                await asyncio.sleep(dice.uniform(0, 0.03))
                world.tell(f"the client of {submission.key} dies")
                if dice.random() < 0.5:  # the server notices, and gives the request up
                    request.cancel()
                await asyncio.wait([request])
                if not request.cancelled():
                    request.exception()  # nobody is left who hears of it
                return []
            await asyncio.wait([request])
            error = request.exception()
            if error is None:
                submission.answer = request.result()
                return list(submission.answer)
            if not isinstance(error, SimCrash | ArgosyError):
                world.violate("no-surprises", f"a request failed: {error!r}")
            if isinstance(error, ArgosyError) and error.code != "store-busy":
                return []
            await asyncio.sleep(dice.uniform(0.1, 3))
        return []

    async def _handle(self, server: Any, submission: Submission, jobs: Sequence[Workload]) -> tuple[str, ...]:
        """As a server does: ids are made for each try, what was written is told by the key."""
        from argosy.server.writing import Batch, Writer

        world = self.simulation.world
        writer = Writer(store=cast("Store", self.simulation.store), controllers=server, clock=world.clock)
        hosts = tuple({job.host_id for job in jobs if job.host_id})

        async def act() -> bytes:
            rows = [msgspec.structs.replace(job, id=world.ids.new("job")) for job in jobs]
            ids = tuple(row.id for row in rows)
            submission.tries.append(ids)
            reply = _Submitted(ids=ids)
            return await writer.commit(
                Batch("", 0, lambda first: rows), lambda jobs: (jobs, reply), submission.key, wake=hosts
            )

        return msgspec.json.decode(await writer.once(submission.key, act), type=_Submitted).ids

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


class _Submitted(Reply, frozen=True, kw_only=True):
    """What a client is answered."""

    ids: tuple[str, ...]
