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
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import msgspec

from argosy.infra.agent_port import AgentDirectory
from argosy.infra.log_sink import LogSink
from argosy.infra.provider import Providers
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock, Ids
from argosy.model.rows import Event, Row
from argosy.store.snapshot import Snapshot
from argosy.testing.checkers import Checkers
from argosy.testing.faults import Faults, SimCrash, draw_faults
from argosy.testing.memory_log_sink import MemoryLogSink
from argosy.testing.sim_agent import SimAgentDirectory
from argosy.testing.sim_provider import SimProviders, a_market
from argosy.testing.sim_users import Admin, Load, Users
from argosy.testing.virtual_time import VirtualLoop, run_virtual
from argosy.testing.world import INCARNATION, Incarnation, Violation, World

if TYPE_CHECKING:
    from argosy.controllers.view import View
    from argosy.store import Store
    from argosy.store.commits import Numbered

_MINUTE_S: Final = 60.0
_HANDOVER_S: Final = 10.0  # so soon a server ends by itself when its state folder was replaced
#: Of the loop per virtual second, over a run; 80 where services and faults are many.
_TURNS_PER_S_MAX: Final = 100.0


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
        is_ours: Callable[[], bool],
    ) -> Server: ...


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

    def __init__(self, outcome: Outcome, replay: str = "") -> None:
        told = "\n".join(one.render() for one in outcome.violations[:8])
        super().__init__(
            f"seed {outcome.seed}: {len(outcome.violations)} violations\n{told}\n"
            f"replay: python -m argosy.testing.replay {replay}{outcome.seed}"
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
        numbered: Numbered | None = None,
    ) -> tuple[Row, ...]:
        self.world.maybe_crash("before commit")
        self.world.check_ours("a commit")
        await asyncio.sleep(self.world.dice("store").uniform(0.0005, 0.02))
        self.world.check_alive()
        is_busy = self.world.chance("store", self.world.faults.store_busy)
        if is_busy and self.world.dice("store").random() < 0.7:
            raise ArgosyError("store-busy", "the simulated database is busy")
        rows = await self.write(
            puts, expect=expect, events=events, secrets=secrets, key=key, numbered=numbered
        )
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
        numbered: Numbered | None = None,
    ) -> tuple[Row, ...]:
        """The commit itself, and at once the checkers."""
        rows = await self.inner.commit(
            puts, expect=expect, events=events, secrets=secrets, key=key, numbered=numbered
        )
        self._committed(rows)
        return rows

    async def snapshot(self) -> Snapshot:
        """The rows; of a server whose state folder was replaced, those that it saw last."""
        self.world.check_alive()
        life = INCARNATION.get()
        if life is None:
            return await self.inner.snapshot()
        if life.is_ours() or life.seen is None:
            life.seen = await self.inner.snapshot()
        return life.seen

    def __getattr__(self, name: str) -> Any:  # Any: whatever else the store offers
        self.world.check_alive()
        return getattr(self.inner, name)


class Simulation:
    """One seed. The factories are where tests plant bugs."""

    replay = ""  # what else the command says that runs it again

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
        self._make_server = make_server or real_shell
        self._make_store = make_store
        self._make_agents = make_agents
        self._make_providers = make_providers
        self._make_sink = make_sink
        self._servers: list[Server | None] = []
        self._lives: dict[int, Incarnation] = {}  # by number of the server, as in `_servers`
        self._replaced: list[asyncio.Task[None]] = []  # waits for servers that have to end by themselves
        self._is_over = False
        self._rows = Snapshot.of(())  # as of the last look of the checkers

    def run(self) -> Outcome:
        """Raises SimulationFailed."""
        outcome = run_virtual(self._run(), self.seed)
        if outcome.violations:
            raise SimulationFailed(outcome, self.replay)
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
            await asyncio.gather(*serving, *self._replaced, return_exceptions=True)
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
        users = self.users(world.dice("users"))
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
            self.checkers.check_now()
            self._check_pace()
            if self.world.violations:
                return False
            if is_reached():
                return True
        return True

    def users(self, dice: random.Random) -> Users:
        """Who works here."""
        return Users(self, dice, self.load)

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
            self.world.lives = [one for one in self.world.lives if not one.dead.is_set()] + [life]
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
                is_ours=life.is_ours,
            )
            pools = server.view(self._rows).pools
            if pools is not None:
                self.checkers.pools.watch(pools)
            self._servers[number], self._lives[number] = server, life
            self.checkers.server_comes(1)
            task = asyncio.get_running_loop().create_task(server.run(), name=life.name, context=context)
            task.add_done_callback(lambda _, life=life: life.die())  # type: ignore[misc]
            try:
                await life.left.wait()
                if not (life.is_ours() or life.dead.is_set()):
                    self._replaced.append(asyncio.ensure_future(self._see_off(life, task)))
            finally:
                self._servers[number] = None
                self.checkers.server_comes(-1)
                if life.is_ours():
                    life.die()
                    await self._bury(task)
            await asyncio.sleep(dice.uniform(0.5, 30 if life.is_ours() else 2))

    async def _see_off(self, life: Incarnation, task: asyncio.Task[None]) -> None:
        """A server whose state folder was replaced ends by itself, while the next one works already."""
        await asyncio.wait([task], timeout=_HANDOVER_S)
        if not task.done() and not self._is_over:
            self.world.violate(
                "replaced", f"{life.name} runs on {_HANDOVER_S:.0f} s after its state folder was replaced"
            )
        life.die()
        await self._bury(task, may_return=True)

    async def _bury(self, task: asyncio.Task[None], *, may_return: bool = False) -> None:
        ended_itself = task.done() and not may_return
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

    def serving(self) -> tuple[Server, Incarnation] | None:
        """The first server that answers requests now, and its life."""
        for number, server in enumerate(self._servers):
            if server is not None:
                return server, self._lives[number]
        return None

    def wake(self, *ids: str) -> None:
        """As the API does after a commit: one server hears of it at once, the others in their next pass."""
        for server in self._servers:
            if server is not None:
                server.wake(*ids)
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
        elif record.levelno >= logging.ERROR and "cannot write" not in text and not _is_replaced():
            self._world.violate("no-surprises", text)
        else:
            self._world.tell(f"log: {text}")


def _is_replaced() -> bool:
    life = INCARNATION.get()
    return life is not None and not life.is_ours()


def _is_crash(error: BaseException) -> bool:
    if isinstance(error, BaseExceptionGroup):
        return all(_is_crash(one) for one in error.exceptions)
    return isinstance(error, SimCrash)


def real_shell(**parts: Any) -> Server:  # Any: passed on as they are
    """The controllers as servers run them."""
    from argosy.controllers.shell import Shell
    from argosy.controllers.view import Policy

    # What is foreseen is for readers, and here is none: once a minute is enough to see that it can be done.
    return Shell(policy=Policy(foresee_every_ms=60_000), **parts)
