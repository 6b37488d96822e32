"""The supervisor of ranks: prepares, runs, stops and forgets them, and finds those of an earlier agent."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from functools import partial

from argosy.agent import cgroups, journal, processes, programs, sharing
from argosy.agent.ending import Ending, Told, outside_group
from argosy.agent.leases import Leases
from argosy.agent.listening import calls
from argosy.agent.orders import Busy, Refused, base_env, checked_order, is_rank_id
from argosy.agent.polling import Polling
from argosy.agent.rank import (
    NO_EXIT_CODE,
    NODE_FAULTS,
    PREPARING,
    READY,
    RUNNING,
    Observer,
    Rank,
    reason_of,
    warn,
)
from argosy.agent.spawning import Spawning
from argosy.agent.supervision import Supervision

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from argosy.agent.apps import Apps
    from argosy.agent.node import Node
    from argosy.agent.orders import Order

_GATE_PATIENCE_S = 1.0


class Ranks:
    """The supervisor: what the daemon asks for. How ranks start, end and are watched stands in its parts."""

    def __init__(
        self, root: str, boot_id: str, loop: asyncio.AbstractEventLoop, shares: sharing.Sharing, node: Node
    ) -> None:
        self._node = node
        self._made_apps: Apps | None = None
        shared = self._shared = Supervision(root, node, boot_id, loop, shares)
        self.listening = calls(shared)
        self.home, self.shell, self.reaper = shared.home, shared.shell, shared.reaper
        self.by_id, self.observers = shared.by_id, shared.observers
        self._ending = Ending(shared, self._run_next)
        self.leases = Leases(shared, self.stop)
        self._polling = Polling(shared, self._ending.start_kill)
        self._spawning = Spawning(shared, self._ending, self._polling, lambda rank: self.apps.attend(rank))
        self._share_lock = asyncio.Lock()
        self._made_env: dict[str, str] = {}
        self._newest: dict[str, int] = {}  # job id -> the newest of its attempts that was ordered here

    @property
    def apps(self) -> Apps:
        """Nodes without sessions never load them."""
        if self._made_apps is None:
            from argosy.agent.apps import Apps

            self._made_apps = Apps(self._shared, self._node)
        return self._made_apps

    # ---- life across restarts

    def adopt(self) -> None:
        """Find the ranks of the agent that was here before. Those that were not yet running are ended and
        forgotten: their environment was in its memory only, so the server prepares them again."""
        if self._shared.is_new:
            return
        running = set()
        # What the journal knows and the disk does not (the power went before all was written) has vanished.
        for name in sorted({*os.listdir(self._shared.folder), *self._shared.journal.started}):
            rank = Rank(self._shared.folder + "/" + name, name)
            try:
                boot_id = rank.load()
            except (OSError, ValueError, KeyError):
                rank.phase, boot_id = PREPARING, ""
            rank.wait_for_gate(boot_id == self._shared.boot_id, _GATE_PATIENCE_S)
            if rank.phase in (PREPARING, READY) and name in self._shared.journal.started:
                if boot_id == self._shared.boot_id:
                    self._shared.note(journal.NOT_STARTED, name)
                else:
                    os.makedirs(rank.folder, mode=0o700, exist_ok=True)
                    rank.phase, boot_id = RUNNING, ""
            if rank.phase in (PREPARING, READY):
                self._shared.erase(rank.folder)
                cgroups.remove(rank.groups)
                continue
            self._shared.by_id[rank.id] = rank
            if rank.job:
                self._newest[rank.job] = max(rank.attempt, self._newest.get(rank.job, 0))
            if rank.phase != RUNNING:
                continue
            rank.log_bytes = rank.log_base  # measured anew
            rank.is_adopted = True
            rank.measure_log()
            if boot_id != self._shared.boot_id:
                self._ending.conclude(rank, rank.read_exit_code(), "the machine was restarted")
                continue
            running.add(self._shared.key(rank))
            rank.spawned_s = 0.0
            self._ending.guard_soon(rank)
            self.leases.adopt(rank)
            if rank.has_app:
                self.apps.attend(rank)
            self._shared.reaper.watch_adopted(rank.pid, rank.ticks, partial(self._adopted_ended, rank))
        self._shared.sweep(running)
        self.apps.sweep()
        marked = processes.snapshot_all().marked(self._shared.tag + ":")
        processes.send_signal([pid for pid, key in marked.items() if key not in running], signal.SIGKILL)

    def _adopted_ended(self, rank: Rank) -> None:
        self._shared.start_task(self._ending.finish_stage(rank, None))
        if self._shared.sharing.makes_instances:  # which of them were its own, only the earlier agent knew
            self._shared.loop.run_in_executor(None, self._shared.sharing.sweep)

    # ---- orders

    async def prepare(self, orders: list[dict[str, object]]) -> None:
        """Take orders (RankOrder as JSON). Raises Refused before anything is started when one is not well
        formed."""
        known = (self._shared.by_id, self._shared.journal.spent)
        fresh = [
            order for order in map(checked_order, orders) if not any(order["id"] in some for some in known)
        ]
        for count, order in enumerate(fresh):
            if order["id"] not in self._shared.by_id:
                self._prepare_one(order)
            if count % 8 == 7:  # others want their turn in a batch of a thousand
                await asyncio.sleep(0)

    def _prepare_one(self, order: Order) -> None:
        rank = Rank(self._shared.folder + "/" + order["id"], order["id"])
        self._shared.by_id[rank.id] = rank
        rank.has_setup = bool(order["setup"].strip())
        rank.has_app = order["app"] is not None
        rank.has_run = rank.has_app or bool(order["run"].strip())
        rank.run_wanted = order["run_now"]
        rank.job, rank.attempt = order["job"], order["attempt"]
        if rank.job and rank.attempt < self._newest.get(rank.job, 0):
            self._refuse_late(rank)
            return
        if rank.job:
            self._newest[rank.job] = rank.attempt
        rank.workdir = os.path.join(self._shared.home, order["workdir"])
        try:
            wish = self._shared.sharing.wish(order)
        except sharing.CannotShare as error:
            wish, refusal = sharing.Wish(), str(error)
        else:
            refusal = ""
        if not self._made_env:
            self._made_env = base_env(self._shared.home)
        rank.env = dict(self._made_env)
        rank.env.update(wish.visible)
        rank.env.update(order["env"])
        rank.env.update(wish.env)
        rank.env[processes.MARK] = self._shared.key(rank)
        try:
            if rank.has_app and not refusal:
                try:
                    order["run"] = self.apps.lay_out(rank, order)
                except Refused as error:
                    refusal = str(error)
            self._lay_out(rank, order, wish.note)
            rank.env.update(self._shared.secret_files.of(order))
            lease = order["lease"]
            rank.lapsed = lease is not None and not self.leases.take(rank, lease)
        except OSError as error:
            refusal = "cannot prepare on %s: %s" % (self._shared.node_name, reason_of(error))
            rank.unbegun = error.errno in NODE_FAULTS
        if refusal or rank.lapsed:
            rank.stage = "setup"
            self._ending.conclude(rank, 1, refusal or "its lease had ended before it was ordered")
            return
        cap, memory = order["app"]["cpus_milli"] if order["app"] else 0, order["memory_bytes"]
        rank.groups = self._shared.cgroups.create(rank.id, order["pids_max"], memory, cap)
        if wish.must_be_taken:
            self._shared.start_task(self._take_shares(rank, wish, order["tenant"]))
        else:
            self._begin(rank)
        self._tell(rank)

    def _tell(self, rank: Rank) -> None:
        """That it has changed; who is at its gate is told when that opens, a moment later."""
        if rank.phase != RUNNING or rank.gate < 0:
            self._shared.changed(rank)

    def _lay_out(self, rank: Rank, order: Order, note: str) -> None:
        """Its folders and files. Raises OSError."""
        os.makedirs(rank.workdir, exist_ok=True)
        _make_sky_places(self._shared.home, order)
        _make_checkpoint_dir(self._shared.home, rank.env)
        self._shared.erase(rank.folder)
        os.mkdir(rank.folder, 0o700)
        rank.save(self._shared.boot_id)
        for name, text in (("setup", order["setup"]), ("run", order["run"])):
            if text.strip():
                _create(rank.folder + "/" + name + ".sh", text.encode("utf-8", "surrogateescape"))
        _create(rank.folder + "/exit", NO_EXIT_CODE)
        _create(rank.log_path, note.encode())

    def _refuse_late(self, rank: Rank) -> None:
        """Its attempt is over, as far as the server is concerned: it is remembered as one that was stopped
        before it ran, so that no order can start it."""
        try:
            os.makedirs(rank.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            warn("cannot note that %s was stopped: %s" % (rank.id, reason_of(error)))
        self._shared.by_id[rank.id] = rank
        rank.stop_at_s = time.monotonic()
        self._ending.conclude(rank, 143, "")

    async def _take_shares(self, rank: Rank, wish: sharing.Wish, tenant: str) -> None:
        """Seconds may pass; `run` and `stop` may come meanwhile."""
        async with self._share_lock:  # one thread is enough for all
            if rank.ended:
                return
            try:
                held = await self._shared.loop.run_in_executor(None, self._shared.sharing.take, wish, tenant)
            except sharing.CannotShare as error:
                if not rank.ended:
                    rank.stage = "setup"
                    self._ending.conclude(rank, 1, str(error))
                    await self._ending.remove_groups(rank)
                return
        rank.held = held
        if rank.ended:
            self._shared.give_back(rank)
            return
        rank.mps, rank.gpu_limit = held.mps, held.gpu_limit
        rank.env.update(held.env)
        self._begin(rank)
        self._shared.changed(rank)

    def _begin(self, rank: Rank) -> None:
        """It has what it needs: on with its first stage."""
        if rank.has_setup:
            rank.stage = "setup"
            self._spawning.spawn(rank)
        elif rank.run_wanted:
            self._spawning.run_one(rank)
        else:
            rank.phase = READY

    async def run(self, ids: Iterable[str]) -> None:
        """Raises Busy when one is not known here (the agent was restarted before it ran)."""
        unknown = []
        for count, rank_id in enumerate(ids):
            rank = self._shared.by_id.get(rank_id)
            if rank is None:
                unknown.append(rank_id)
            elif rank.phase == READY:
                self._spawning.run_one(rank)
                self._tell(rank)
            elif rank.phase == PREPARING:
                rank.run_wanted = True
            if count % 8 == 7:
                await asyncio.sleep(0)
        if unknown:
            raise Busy(
                "%s: not prepared on %s; prepare it again" % (", ".join(unknown[:5]), self._shared.node_name)
            )

    def _run_next(self, rank: Rank) -> None:
        self._spawning.run_one(rank)

    # ---- stop and forget

    async def stop(self, ids: Iterable[str], grace_s: float, why: str = "") -> None:
        """Leave word of the reason, then SIGTERM to all of each rank, SIGKILL after `grace_s`. Ended ones are
        left alone; of unknown ones it is remembered that an order for them comes too late."""
        live = []
        for rank_id in ids:
            rank = self._shared.by_id.get(rank_id)
            if rank is None and rank_id not in self._shared.journal.spent and is_rank_id(rank_id):
                self._refuse_late(Rank(self._shared.folder + "/" + rank_id, rank_id))
            if rank is None or rank.ended:
                continue
            due = time.monotonic() + max(0.0, grace_s)
            first = rank.stop_at_s is None
            if rank.stop_at_s is None or due < rank.stop_at_s:
                rank.stop_at_s = due
            if not rank.pid:
                self._ending.conclude(rank, 143, "")
                cgroups.remove(rank.groups)
                continue
            if first:
                _leave_word(rank, why)
                live.append(rank)
            self._shared.loop.call_later(max(0.0, grace_s), self._ending.start_kill, rank)
        if not live:
            return
        snapshot = await self._shared.table.snapshot()
        for rank in live:
            if rank.ended:
                continue
            members = self._shared.members(rank, snapshot)
            told = Told(members, snapshot.copies(members), programs.now_ticks())
            processes.send_group_signal(rank.pid, signal.SIGTERM)
            processes.send_signal(outside_group(rank.pid, members), signal.SIGTERM)
            self._shared.start_task(self._ending.terminate_late(rank, rank.pid, told))

    async def forget(self, ids: Iterable[str]) -> None:
        for count, rank_id in enumerate(ids):
            rank = self._shared.by_id.get(rank_id)
            if rank is None or not rank.ended:
                continue
            del self._shared.by_id[rank_id]
            self._shared.note(journal.SPENT, rank_id)  # before its folder goes: its program never runs again
            self._shared.erase(rank.folder)
            for observer in tuple(self._shared.observers):
                observer.rank_forgotten(rank_id)
            if count % 8 == 7:
                await asyncio.sleep(0)

    async def end_all(self, grace_s: float) -> None:
        """Stop everything and wait until it has ended (a process that cannot be killed is given up)."""
        await self.stop(list(self._shared.by_id), grace_s)
        give_up_s = time.monotonic() + grace_s + 10
        while any(not rank.ended for rank in self._shared.by_id.values()):
            self._ending.one_ended.clear()
            try:
                await asyncio.wait_for(self._ending.one_ended.wait(), max(0.0, give_up_s - time.monotonic()))
            except asyncio.TimeoutError:
                break

    # ---- news

    def observe(self, observer: Observer) -> None:
        """Tell it of changes from now on."""
        self._polling.observe(observer)


def _make_sky_places(home: str, order: Order) -> None:
    """Where SkyPilot's task files look for the workdir, and for scripts that they name."""
    link = home + "/sky_workdir"
    if order["workdir"] == "workdir" and not os.path.lexists(link):
        os.symlink("workdir", link)
    if "sky_templates/" in order["setup"] or "sky_templates/" in order["run"]:
        from argosy.agent import sky_templates

        sky_templates.lay_out(home)


def _make_checkpoint_dir(home: str, env: dict[str, str]) -> None:
    """The folder exists before the program looks for it. `~` is this node's home, which the server cannot
    know."""
    for name in ("ARGOSY_CHECKPOINT_DIR", "SKYPILOT_CHECKPOINT_DIR"):
        folder = env.get(name)
        if folder:
            env[name] = home + folder[1:] if folder.startswith("~/") else folder
            os.makedirs(env[name], mode=0o700, exist_ok=True)


def _leave_word(rank: Rank, why: str) -> None:
    """For hooks of its task."""
    try:
        if why:
            _create(rank.folder + "/why", why.encode() + b"\n")
    except OSError as error:
        warn("cannot note why %s ends: %s" % (rank.id, reason_of(error)))


def _create(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(handle, data) :]
    finally:
        os.close(handle)
