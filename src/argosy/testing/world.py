"""The simulated world: machines, agents' disks, running ranks, and what goes wrong with them.

The world is the truth. The product sees it only through `SimProvider` and `SimAgent`, late, partly, or not at
all; the checkers see all of it. What the world can check at the moment it happens, it checks at once
(`violate`):

- an effect whose intent was not committed;
- a rank that is started twice, or after its attempt ended, or before its whole gang is prepared;
- two attempts of one job with running ranks;
- a write or an effect of a server whose state folder was replaced;
- a rank forgotten before its exit and its whole log were kept.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Final

import msgspec

from argosy.infra import border
from argosy.infra.agent_port import RankOrder
from argosy.infra.log_sink import LogSink
from argosy.model.facts import RankFact, RankPhase
from argosy.model.phases import AttemptPhase
from argosy.model.rows import Attempt, Row, Workload
from argosy.testing.faults import NONE, Faults, SimCrash
from argosy.testing.machines import Machine, Program, SimRank
from argosy.testing.sim_leases import lease_rank
from argosy.testing.starts import check_rank_intent, check_start
from argosy.testing.virtual_time import SimClock, SimIds
from argosy.testing.weather import Weather

if TYPE_CHECKING:
    from argosy.store.snapshot import Snapshot

_ENDED: Final = (RankPhase.EXITED, RankPhase.VANISHED)
_NOTICES_S: Final = 0.25  # what was under way when the state folder was replaced may still be done
_CHANGING: Final = (
    "ensure", "release", "prepare", "run", "stop", "forget", "put_chunks", "place_tree", "change_tree"
)  # fmt: skip


class Violation(msgspec.Struct, frozen=True):
    """A law that was broken, and when."""

    at_s: float
    checker: str
    text: str

    def render(self) -> str:
        return f"[{self.at_s:10.3f}] {self.checker}: {self.text}"


class Incarnation:
    """One life of one server process. When it is dead, whatever it still tries raises `SimCrash`."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.dead = asyncio.Event()
        self.left = asyncio.Event()  # dead, or no longer the server of this place
        self.replaced_s: float | None = None  # when its state folder became another server's
        self.seen: Snapshot | None = None  # the rows that it read last: all that it can read once replaced
        self.crash_at: str | None = None  # crash at the first point whose name starts so (for directed tests)

    def die(self) -> None:
        self.dead.set()
        self.left.set()

    def replace(self, now_s: float) -> None:
        """Its state folder is another server's from now on."""
        self.replaced_s = now_s
        self.left.set()

    def is_ours(self) -> bool:
        """What the real server asks of the lock on its state folder."""
        return self.replaced_s is None


#: Which server process the running code belongs to; tasks inherit it. None: the world or a user.
INCARNATION: ContextVar[Incarnation | None] = ContextVar("incarnation", default=None)


class Submission:
    """One request of a client for jobs, however often it was sent."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.tries: list[tuple[str, ...]] = []  # ids of jobs, for each time that a server worked on it
        self.answer: tuple[str, ...] | None = None


class World:
    """Everything outside of the control plane. Make it inside a running virtual loop."""

    def __init__(self, seed: int, faults: Faults = NONE) -> None:
        self.seed = seed
        self.faults = faults
        self.clock = SimClock(asyncio.get_running_loop())
        self.ids = SimIds(seed)
        self.machines: dict[str, Machine] = {}  # by address; what exists now
        self.violations: list[Violation] = []
        self.log: list[str] = []
        self.rows: dict[str, Row] = {}  # committed rows, by id: filled by whoever watches commits
        self.knows_rows = False  # intent is only checked when somebody fills `rows`
        self.progress_s: dict[str, float] = {}  # checkpoints, by task id
        self.attempts_of_task: dict[str, list[str]] = {}
        self.starts: dict[str, int] = {}  # rank id → how often it was started, anywhere
        self.exits: dict[
            str, tuple[float, int | None]
        ] = {}  # rank id → when and how it ended; None: it vanished
        self.prepared: set[str] = set()  # rank ids that were ready once
        self.running: dict[str, str] = {}  # rank id → address, at this moment
        self.logs_of: dict[str, bytes] = {}  # rank id → all it ever wrote (filled at its end)
        self.sink: LogSink | None = None
        self.crashes = 0
        self.submissions: list[Submission] = []
        self.lives: list[Incarnation] = []  # of servers that run, those whose folder was replaced among them
        self._dice: dict[str, random.Random] = {}
        self._background: set[asyncio.Task[None]] = set()

    # -- time, dice, story ---------------------------------------------------------------------------------

    @property
    def now_s(self) -> float:
        return self.clock.monotonic_s()

    def dice(self, name: str) -> random.Random:
        """A stream of random numbers of its own for each purpose: one more draw here does not move all
        others."""
        if name not in self._dice:
            self._dice[name] = random.Random(f"{self.seed}:{name}")
        return self._dice[name]

    def chance(self, name: str, probability: float) -> bool:
        return probability > 0 and self.dice(name).random() < probability

    def tell(self, text: str) -> None:
        """A line of the event log that `replay` prints."""
        self.log.append(f"[{self.now_s:10.3f}] {text}")

    def violate(self, checker: str, text: str) -> None:
        self.violations.append(Violation(self.now_s, checker, text))
        self.tell(f"VIOLATION {checker}: {text}")

    # -- crashes ------------------------------------------------------------------------------------------

    def maybe_crash(self, point: str) -> None:
        """A place where the server may be killed. Raises `SimCrash` then, and for whatever the dead still
        try."""
        life = INCARNATION.get()
        if life is None:
            return
        if life.dead.is_set():
            raise SimCrash(f"{life.name} is dead")
        planned = life.crash_at is not None and point.startswith(life.crash_at)
        if planned or self.chance("crash", self.faults.crash):
            self.crashes += 1
            self.tell(f"CRASH of {life.name} at {point}")
            life.die()
            raise SimCrash(point)

    def check_alive(self) -> None:
        """Raises `SimCrash` when the calling server is dead. No new crash happens here."""
        life = INCARNATION.get()
        if life is not None and life.dead.is_set():
            raise SimCrash(f"{life.name} is dead")

    def check_ours(self, what: str) -> None:
        """To be called when a server begins to write or to change something."""
        life = INCARNATION.get()
        if life is None or life.replaced_s is None or life.dead.is_set():
            return
        late_s = self.now_s - life.replaced_s
        if late_s > _NOTICES_S:
            text = f"{life.name} begins {what} {late_s:.1f} s after its state folder was replaced"
            self.violate("replaced", text)

    # -- calls across the border ----------------------------------------------------------------------------

    async def call(self, point: str, error_p: float, latency_max_s: float = 0.1) -> None:
        """The way there: latency, then perhaps an error of the border without any effect."""
        self.maybe_crash(f"before {point}")
        if point.endswith(_CHANGING):
            self.check_ours(point)
        await asyncio.sleep(self.dice("latency").uniform(0.001, latency_max_s))
        if self.chance("slow", self.faults.slow_call):
            await asyncio.sleep(self.dice("slow").uniform(1, 30 if point.startswith("agent.") else 120))
        self.maybe_crash(f"during {point}")
        if self.chance("errors", error_p):
            error = self._draw_error(point)
            self.tell(f"{point} fails: {type(error).__name__}")
            raise error

    async def answer(self, point: str, lost_p: float) -> None:
        """The way back: the effect has happened, the caller may not hear of it."""
        self.maybe_crash(f"after {point}")
        if self.chance("lost", lost_p):
            self.tell(f"{point}: reply lost")
            await asyncio.sleep(self.dice("latency").uniform(1, 20))
            raise (border.Unreachable if point.startswith("agent.") else border.Transient)(
                "the reply was lost"
            )

    def _draw_error(self, point: str) -> border.BorderError:
        if point.startswith("agent."):
            return border.Unreachable("connection refused", self.dice("errors").choice([0.5, 2.0]))
        kinds: list[Callable[[], border.BorderError]] = [
            lambda: border.Transient("too many requests", self.dice("errors").choice([1.0, 5.0, 30.0])),
            lambda: border.Transient("internal error of the cloud"),
            lambda: border.Unreachable("connection reset"),
        ]
        if point.endswith(".ensure"):
            kinds.append(lambda: border.OutOfCapacity("zone-a"))
            kinds.append(lambda: border.QuotaExceeded("GPUS", "8"))
        return self.dice("errors").choice(kinds)()

    # -- rows: what was committed ------------------------------------------------------------------------

    def row(self, row_id: str) -> Row | None:
        return self.rows.get(row_id)

    def attempt_of(self, rank_id: str) -> Attempt | None:
        row = self.rows.get(rank_id.rpartition(".")[0])
        return row if isinstance(row, Attempt) else None

    # -- machines -------------------------------------------------------------------------------------------

    def add_machine(self, machine: Machine, boot_s: float, *, fails: bool = False) -> None:
        self.machines[machine.address] = machine
        self._boot(machine, boot_s, fails)

    def _boot(self, machine: Machine, boot_s: float, fails: bool) -> None:
        machine.state = "booting"
        machine.boots += 1
        machine.facts = msgspec.structs.replace(machine.facts, boot_id=f"boot-{machine.boots}")
        machine.boot_timer = asyncio.get_running_loop().call_later(boot_s, self._booted, machine, fails)

    def _booted(self, machine: Machine, fails: bool) -> None:
        if fails:
            self.kill_machine(machine, "never came up")
            return
        machine.state = "up"
        self.start_agent(machine)
        self.tell(f"{machine.address} is up")

    def start_agent(self, machine: Machine) -> None:
        """The agent reads its disk: exits are known, running ranks are found again. What was not yet running
        is forgotten, because its secrets were in memory only."""
        if machine.agent_alive or machine.state != "up":
            return
        machine.agent_alive = True
        for rank in list(machine.ranks.values()):
            if rank.fact.phase in (RankPhase.PREPARING, RankPhase.READY):
                rank.cancel_timers()
                del machine.ranks[rank.fact.id]
            elif rank.fact.phase is RankPhase.RUNNING and rank.fact.id not in self.running:
                detail = "the machine was restarted"
                self._set_fact(
                    machine, rank, phase=RankPhase.VANISHED, ended_ms=self.clock.now_ms(), detail=detail
                )
        machine.notify()

    def kill_agent(self, machine: Machine) -> None:
        """Only the agent dies; running ranks go on, their exits go to disk."""
        machine.agent_alive = False
        machine.trouble_s = self.now_s
        self.tell(f"{machine.address}: agent dies")
        machine.notify()

    def agent_dies(self, machine: Machine, dice: random.Random) -> None:
        """Its agent is killed, and mostly started again a little later."""
        self.kill_agent(machine)
        if dice.random() < 0.7:  # its init system starts it again
            asyncio.get_running_loop().call_later(dice.uniform(1, 60), self.start_agent, machine)

    def heal(self, machine: Machine) -> None:
        """It can be reached again."""
        machine.is_partitioned = False
        machine.trouble_s = self.now_s
        machine.notify()

    def kill_machine(self, machine: Machine, why: str) -> None:
        self.tell(f"{machine.address} dies: {why}")
        self._power_off(machine)
        machine.state = "dead"
        machine.notify()
        if machine.returns:
            off_s = self.dice("returns").uniform(20, 600)
            machine.boot_timer = asyncio.get_running_loop().call_later(
                off_s, self._boot, machine, 20.0, False
            )

    def stop_machine(self, machine: Machine) -> None:
        self._power_off(machine)
        machine.state = "stopped"
        machine.notify()

    def restart_machine(self, machine: Machine, boot_s: float) -> None:
        self._boot(machine, boot_s, False)

    def remove_machine(self, machine: Machine) -> None:
        self._power_off(machine)
        machine.state = "dead"
        self.machines.pop(machine.address, None)
        machine.notify()

    def _power_off(self, machine: Machine) -> None:
        if machine.boot_timer is not None:
            machine.boot_timer.cancel()
        machine.agent_alive = False
        machine.is_partitioned = False
        for rank in machine.ranks.values():
            rank.cancel_timers()
            if rank.fact.id in self.running:
                self._keep_progress(rank)
                del self.running[rank.fact.id]
                self.exits.setdefault(rank.fact.id, (self.now_s, None))

    # -- ranks: called by SimAgent ------------------------------------------------------------------------

    def prepare_rank(self, machine: Machine, order: RankOrder) -> None:
        if order.id in machine.ranks or order.id in machine.forgotten:
            return
        if order.attempt < machine.newest.get(order.job, 0):
            self.stop_rank(machine, order.id, 0)
            return
        if order.job:
            machine.newest[order.job] = order.attempt
        check_rank_intent(self, machine, order.id)
        rank = SimRank(
            order, RankFact(id=order.id, phase=RankPhase.PREPARING, stage="setup" if order.setup else "run")
        )
        machine.ranks[order.id] = rank
        self.tell(f"{machine.address}: prepares {order.id}")
        if order.lease is not None:
            lease_rank(self, machine, rank, order.lease.sent)
            if rank.lapsed or order.lease.boot != machine.facts.boot_id:
                rank.lapsed = True
                self.end_rank(machine, rank, 143)
                return
        setup = Program.parse(order.setup)
        rank.log += f"setup of {order.id}\n".encode() if order.setup else b""
        if setup.ignores_term == 0 and setup.work_s == 0 and setup.exit == 0:
            self._prepared(machine, rank, 0)
        else:
            self.later(rank, setup.work_s, self._prepared, machine, rank, setup.exit)
            machine.notify()

    def _prepared(self, machine: Machine, rank: SimRank, code: int) -> None:
        if code != 0:
            self.end_rank(machine, rank, code)
            return
        self.prepared.add(rank.order.id)
        self._set_fact(machine, rank, phase=RankPhase.READY, stage="run")
        if rank.run_wanted:
            self.run_rank(machine, rank.order.id)

    def run_rank(self, machine: Machine, rank_id: str) -> None:
        """Starts a prepared rank; one that is being prepared starts when it is; others are left alone.

        Raises `Transient` when it is not known here (the agent was restarted before it ran)."""
        rank = machine.ranks.get(rank_id)
        if rank is None:
            raise border.Transient(f"{rank_id} is not prepared on {machine.address}")
        rank.run_wanted = True
        if rank.fact.phase is not RankPhase.READY or rank.lapsed:
            return
        if self.chance("start-deaths", self.faults.agent_dies_at_start) and not self._dies_at_start(machine):
            return
        check_start(self, rank_id)
        self.starts[rank_id] = self.starts.get(rank_id, 0) + 1
        self.running[rank_id] = machine.address
        order, program = rank.order, Program.parse(rank.order.run)
        task_id = order.env.get("ARGOSY_TASK_ID", rank.fact.attempt_id)
        attempts = self.attempts_of_task.setdefault(task_id, [])
        if rank.fact.attempt_id not in attempts:
            attempts.append(rank.fact.attempt_id)
        number = attempts.index(rank.fact.attempt_id)
        rank.began_s, rank.from_s = self.now_s, self.progress_s.get(task_id, 0.0)
        left_s, code = max(0.0, program.work_s - rank.from_s), program.exit
        fails_here = program.fail_rank in (-1, rank.fact.rank)
        if number < program.fails and fails_here:
            left_s, code = program.fail_s, program.fail_code
        rank.log += f"{rank_id} starts at {rank.from_s:.0f} s\n".encode() + b"x" * program.log_bytes
        self.tell(f"{machine.address}: runs {rank_id} for {left_s:.0f} s, then exit {code}")
        self._set_fact(machine, rank, phase=RankPhase.RUNNING, started_ms=self.clock.now_ms())
        self.later(rank, left_s, self.end_rank, machine, rank, code)

    def _dies_at_start(self, machine: Machine) -> bool:
        """The agent is killed while it starts a rank. Whether its program was let run: if not, the next agent
        forgets the rank, like all that had not begun; else it finds it."""
        dice = self.dice("start-deaths")
        self.agent_dies(machine, dice)
        return dice.random() < 0.5

    def stop_rank(self, machine: Machine, rank_id: str, grace_s: float) -> None:
        """Unknown ranks are remembered as ended: an order for one that comes later never runs."""
        rank = machine.ranks.get(rank_id)
        if rank is None and rank_id not in machine.forgotten:
            self.tell(f"{machine.address}: will never run {rank_id}")
            rank = SimRank(RankOrder(id=rank_id), RankFact(id=rank_id, phase=RankPhase.PREPARING))
            machine.ranks[rank_id] = rank
            self.exits[rank_id] = (self.now_s, 143)
            self._set_fact(machine, rank, phase=RankPhase.EXITED, exit_code=143, ended_ms=self.clock.now_ms())
        if rank is None or rank.fact.phase in _ENDED:
            return
        self.tell(f"{machine.address}: stops {rank_id}")
        if rank.fact.phase is not RankPhase.RUNNING:
            rank.cancel_timers()
            self.end_rank(machine, rank, 143)
            return
        if Program.parse(rank.order.run).ignores_term:
            self.later(rank, grace_s, self.end_rank, machine, rank, 137)
        else:
            self.later(rank, min(grace_s, 0.5), self.end_rank, machine, rank, 143)

    def forget_rank(self, machine: Machine, rank_id: str) -> None:
        rank = machine.ranks.get(rank_id)
        if rank is None or rank.fact.phase not in _ENDED:
            return
        attempt = self.attempt_of(rank_id)
        if attempt is not None:
            kept = attempt.exit_codes[rank.fact.rank] if rank.fact.rank < len(attempt.exit_codes) else None
            if attempt.phase is not AttemptPhase.ENDED and kept is None and rank.fact.exit_code is not None:
                self.violate("exit-kept", f"{rank_id} is forgotten before its exit code was committed")
        if self.sink is not None and self.sink.stored(rank_id) < len(rank.log):
            self.violate(
                "log-kept",
                f"{rank_id} is forgotten with {self.sink.stored(rank_id)} of {len(rank.log)} bytes of log "
                "stored",
            )
        del machine.ranks[rank_id]
        machine.forgotten.add(rank_id)

    def end_rank(self, machine: Machine, rank: SimRank, code: int) -> None:
        rank.cancel_timers()
        rank_id = rank.fact.id
        if rank_id in self.running:
            self._keep_progress(rank)
            del self.running[rank_id]
        if rank.lapsed:
            self.exits[rank_id] = (self.now_s, None)
            self.logs_of[rank_id] = bytes(rank.log)
            detail = "the server was not heard, so its lease ended"
            self._set_fact(
                machine, rank, phase=RankPhase.VANISHED, ended_ms=self.clock.now_ms(), detail=detail
            )
            return
        self.exits[rank_id] = (self.now_s, code)
        rank.log += f"{rank_id} ends with {code}\n".encode()
        self.logs_of[rank_id] = bytes(rank.log)
        self.tell(f"{machine.address}: {rank_id} ends with {code}")
        self._set_fact(machine, rank, phase=RankPhase.EXITED, exit_code=code, ended_ms=self.clock.now_ms())

    def _keep_progress(self, rank: SimRank) -> None:
        every_s = Program.parse(rank.order.run).checkpoint_s
        if rank.fact.rank == 0 and every_s > 0:
            task_id = rank.order.env.get("ARGOSY_TASK_ID", rank.fact.attempt_id)
            done_s = rank.from_s + self.now_s - rank.began_s
            self.progress_s[task_id] = max(self.progress_s.get(task_id, 0.0), done_s // every_s * every_s)

    def _set_fact(self, machine: Machine, rank: SimRank, **changes: Any) -> None:  # Any: fields of RankFact
        rank.fact = msgspec.structs.replace(rank.fact, log_bytes=len(rank.log), **changes)
        machine.notify()

    def later(self, rank: SimRank, delay_s: float, then: Callable[..., None], *args: object) -> None:
        rank.timers.append(asyncio.get_running_loop().call_later(delay_s, then, *args))

    # -- weather --------------------------------------------------------------------------------------------

    def start_weather(self) -> None:
        """Lets the rates of `faults` do their work until `calm`."""
        Weather(self).start()

    def go(self, work: Coroutine[Any, Any, None]) -> None:
        """A task of the world, that outlives servers."""
        task = asyncio.get_running_loop().create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    async def calm(self) -> None:
        """No more faults from now on: partitions heal, clocks stay, dead agents come back, the dead stay
        dead."""
        self.faults = NONE
        for task in sorted(self._background, key=lambda one: one.get_name()):
            task.cancel()
        for machine in self.machines.values():
            machine.is_partitioned = False
            self.start_agent(machine)
            machine.notify()
        self.tell("the weather is calm")

    # -- truth for checkers ---------------------------------------------------------------------------------

    def workload_of(self, attempt_id: str) -> Workload | None:
        attempt = self.rows.get(attempt_id)
        row = self.rows.get(attempt.workload_id) if isinstance(attempt, Attempt) else None
        return row if isinstance(row, Workload) else None

    def is_empty(self) -> bool:
        return not self.machines and not self.running
