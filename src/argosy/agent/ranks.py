"""The supervisor of ranks: prepares, runs, stops and forgets them, and notices how they end."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import time

from argosy.agent import cgroups, devices, journal, processes, programs, sharing
from argosy.agent.orders import Busy, base_env, checked_order, find_shell, is_rank_id
from argosy.agent.rank import (
    EXITED,
    NO_EXIT_CODE,
    POLL_FAST_S,
    PREPARING,
    READY,
    RUNNING,
    VANISHED,
    Observer,
    Rank,
    now_ms,
    reason_of,
    warn,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable

    from argosy.agent.orders import Order

_POLL_SLOW_S = 0.1
_GUARD_S = 1.0
_GATE_PATIENCE_S = 1.0
_DISK_EVERY_S, _FULL_BYTES = 1.0, 256 << 10  # a disk with less room is full
_SILENCED_S = 30.0  # a log that grew so shortly before its disk was full has been cut off

# Waits behind its gate (handle 3) until the supervisor has noted that it starts, and ends without a trace
# when the supervisor dies before that. Then waits for bash and writes its exit code. The traps make it
# survive a SIGTERM to the group, and unlike ignored signals they are not inherited. The shell's own notices
# ("Terminated") stay out of the log; the parentheses are for dash, which redirects before it forks. Locks on
# shared devices (4 to 9) stay with the wrapper.
_WRAPPER = r"""trap : HUP INT QUIT TERM USR1 USR2 ALRM
d=$1 w=$2 s=$3 b=$4 l=$5
shift 5
read -r go <&3 || exit 143
printf '.run\n' 1<>"$d/exit"
for g; do echo 0 >"$g" || :; done
exec 3>&2 2>/dev/null
set -- "$d/$s.sh"
case $b in */bash) for f in .bashrc .bash_profile .bash_login .profile; do
[ ! -f "$HOME/$f" ] || set -- -ic "$l" "$d/$s.sh" "$b"
done; esac
if ! cd "$w" 2>&3; then c=126
elif [ $# = 1 ]; then (exec "$b" "$1" 2>&3 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-); c=$?
else (exec "$b" "$@" >/dev/null 4>&- 5>&- 6>&- 7>&- 8>&- 9>&-); c=$?; fi
printf '%4d\n' "$c" 1<>"$d/exit"
exit "$c"
"""

# Where a setup, or an earlier job, has left files for login shells: what programs would find in an
# interactive login shell. What those files print is not the program's.
_LOGIN = r"""for f in ~/.bash_profile ~/.bash_login ~/.profile; do [ -r "$f" ] && { . "$f"; break; }; done
exec >&3 2>&3 3>&-
exec "$1" -c '[ ! -r ~/.bashrc ] || . ~/.bashrc >/dev/null 2>&1; . "$0"' "$0"
"""


class Ranks:
    """The supervisor. It runs on one event loop; nothing in it blocks for longer than a file operation."""

    def __init__(
        self,
        root: str,
        node_name: str,
        boot_id: str,
        loop: asyncio.AbstractEventLoop,
        shares: sharing.Sharing,
    ) -> None:
        self.root = root
        self.home = root + "/home"
        self._folder = root + "/ranks"
        self._node_name = node_name
        self._boot_id = boot_id
        self._loop = loop
        self._sharing = shares
        self._share_lock = asyncio.Lock()
        self._guards = False
        self._disk_seen_s = 0.0
        stat = os.stat(root)
        self._tag = "%x-%x" % (
            stat.st_dev,
            stat.st_ino,
        )  # tells this agent's ranks from those of its neighbours
        self.shell = find_shell()
        self._made_env: dict[str, str] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._poll_timer: asyncio.TimerHandle | None = None
        self._one_ended = asyncio.Event()
        self.reaper = processes.Reaper(loop)
        self.table = processes.ProcessTable()
        self.cgroups = cgroups.Cgroups(self._tag)
        self.by_id: dict[str, Rank] = {}
        self._newest: dict[str, int] = {}  # job id -> the newest of its attempts that was ordered here
        self._at_gate: list[Rank] = []
        self.observers: set[Observer] = set()
        os.makedirs(self._folder, mode=0o700, exist_ok=True)
        os.makedirs(self.home, exist_ok=True)
        self._journal = journal.Journal(root + "/started")

    # ---- life across restarts

    def adopt(self) -> None:
        """Find the ranks of the agent that was here before. Those that were not yet running are ended and
        forgotten: their environment was in its memory only, so the server prepares them again."""
        running = set()
        # What the journal knows and the disk does not (the power went before all was written) has vanished.
        for name in sorted({*os.listdir(self._folder), *self._journal.started}):
            rank = Rank(self._folder + "/" + name, name)
            try:
                boot_id = rank.load()
            except (OSError, ValueError, KeyError):
                rank.phase, boot_id = PREPARING, ""
            rank.wait_for_gate(boot_id == self._boot_id, _GATE_PATIENCE_S)
            if rank.phase in (PREPARING, READY) and name in self._journal.started:
                if boot_id == self._boot_id:
                    self._note(journal.NOT_STARTED, name)
                else:
                    os.makedirs(rank.folder, mode=0o700, exist_ok=True)
                    rank.phase, boot_id = RUNNING, ""
            if rank.phase in (PREPARING, READY):
                self._erase(rank.folder)
                cgroups.remove(rank.groups)
                continue
            self.by_id[rank.id] = rank
            if rank.job:
                self._newest[rank.job] = max(rank.attempt, self._newest.get(rank.job, 0))
            if rank.phase != RUNNING:
                continue
            rank.log_bytes = rank.log_base  # measured anew
            rank.is_adopted = True
            rank.measure_log()
            if boot_id != self._boot_id:
                self._conclude(rank, rank.read_exit_code(), "the machine was restarted")
                continue
            running.add(self._key(rank))
            rank.spawned_s = 0.0
            self._guard_soon(rank)
            self.reaper.watch_adopted(rank.pid, rank.ticks, lambda rank=rank: self._adopted_ended(rank))  # type: ignore[misc]
        self.cgroups.sweep({group for rank in self.by_id.values() for group in rank.groups})
        marked = processes.snapshot_all().marked(self._tag + ":")
        processes.send_signal([pid for pid, key in marked.items() if key not in running], signal.SIGKILL)

    def _adopted_ended(self, rank: Rank) -> None:
        self._start_task(self._finish_stage(rank, None))
        if self._sharing.makes_instances:  # which of them were its own, only the earlier agent knew
            self._loop.run_in_executor(None, self._sharing.sweep)

    # ---- orders

    async def prepare(self, orders: list[dict[str, object]]) -> None:
        """Take orders (RankOrder as JSON). Raises Refused before anything is started when one is not well
        formed."""
        known = (self.by_id, self._journal.spent)
        fresh = [
            order for order in map(checked_order, orders) if not any(order["id"] in some for some in known)
        ]
        for count, order in enumerate(fresh):
            if order["id"] not in self.by_id:
                self._prepare_one(order)
            if count % 8 == 7:  # others want their turn in a batch of a thousand
                await asyncio.sleep(0)

    def _prepare_one(self, order: Order) -> None:
        rank = Rank(self._folder + "/" + order["id"], order["id"])
        self.by_id[rank.id] = rank
        rank.has_setup = bool(order["setup"].strip())
        rank.has_run = bool(order["run"].strip())
        rank.run_wanted = order["run_now"]
        rank.job, rank.attempt = order["job"], order["attempt"]
        if rank.job and rank.attempt < self._newest.get(rank.job, 0):
            self._refuse_late(rank)
            return
        if rank.job:
            self._newest[rank.job] = rank.attempt
        rank.workdir = os.path.join(self.home, order["workdir"])
        try:
            wish = self._sharing.wish(order)
        except sharing.CannotShare as error:
            wish, refusal = sharing.Wish(), str(error)
        else:
            refusal = ""
        if not self._made_env:
            self._made_env = base_env(self.home)
        rank.env = dict(self._made_env)
        rank.env.update(wish.visible)
        rank.env.update(order["env"])
        rank.env.update(wish.env)
        rank.env[processes.MARK] = self._key(rank)
        try:
            os.makedirs(rank.workdir, exist_ok=True)
            self._link_sky_workdir(order["workdir"])
            self._make_checkpoint_dir(rank.env)
            self._erase(rank.folder)
            os.mkdir(rank.folder, 0o700)
            rank.save(self._boot_id)
            for name, text in (("setup", order["setup"]), ("run", order["run"])):
                if text.strip():
                    _create(rank.folder + "/" + name + ".sh", text.encode("utf-8", "surrogateescape"))
            _create(rank.folder + "/exit", NO_EXIT_CODE)
            _create(rank.log_path, wish.note.encode())
        except OSError as error:
            refusal = "cannot prepare on %s: %s" % (self._node_name, reason_of(error))
        if refusal:
            rank.stage = "setup"
            self._conclude(rank, 1, refusal)
            return
        if order["pids_max"] or order["memory_bytes"]:
            rank.groups = self.cgroups.create(rank.id, order["pids_max"], order["memory_bytes"])
        if wish.must_be_taken:
            self._start_task(self._take_shares(rank, wish, order["tenant"]))
        else:
            self._begin(rank)
        self._changed(rank)

    def _refuse_late(self, rank: Rank) -> None:
        """Its attempt is over, as far as the server is concerned: it is remembered as one that was stopped
        before it ran, so that no order can start it."""
        try:
            os.makedirs(rank.folder, mode=0o700, exist_ok=True)
        except OSError as error:
            warn("cannot note that %s was stopped: %s" % (rank.id, reason_of(error)))
        self.by_id[rank.id] = rank
        rank.stop_at_s = time.monotonic()
        self._conclude(rank, 143, "")

    async def _take_shares(self, rank: Rank, wish: sharing.Wish, tenant: str) -> None:
        """Seconds may pass; `run` and `stop` may come meanwhile."""
        async with self._share_lock:  # one thread is enough for all
            if rank.ended:
                return
            try:
                held = await self._loop.run_in_executor(None, self._sharing.take, wish, tenant)
            except sharing.CannotShare as error:
                if not rank.ended:
                    rank.stage = "setup"
                    self._conclude(rank, 1, str(error))
                    await self._remove_groups(rank)
                return
        rank.held = held
        if rank.ended:
            self._give_back(rank)
            return
        rank.mps, rank.gpu_limit = held.mps, held.gpu_limit
        rank.env.update(held.env)
        self._begin(rank)
        self._changed(rank)

    def _give_back(self, rank: Rank) -> None:
        held, rank.held = rank.held, None
        if held is not None:
            held.release()
            if held.has_instance:
                self._loop.run_in_executor(None, self._sharing.sweep)

    def _begin(self, rank: Rank) -> None:
        """It has what it needs: on with its first stage."""
        if rank.has_setup:
            rank.stage = "setup"
            self._spawn(rank)
        elif rank.run_wanted:
            self._run_one(rank)
        else:
            rank.phase = READY

    def _link_sky_workdir(self, workdir: str) -> None:
        """Where SkyPilot's task files look for it."""
        link = self.home + "/sky_workdir"
        if workdir == "workdir" and not os.path.lexists(link):
            os.symlink(workdir, link)

    def _make_checkpoint_dir(self, env: dict[str, str]) -> None:
        """The folder exists before the program looks for it. `~` is this node's home, which the server cannot
        know."""
        for name in ("ARGOSY_CHECKPOINT_DIR", "SKYPILOT_CHECKPOINT_DIR"):
            folder = env.get(name)
            if folder:
                env[name] = self.home + folder[1:] if folder.startswith("~/") else folder
                os.makedirs(env[name], mode=0o700, exist_ok=True)

    async def run(self, ids: Iterable[str]) -> None:
        """Raises Busy when one is not known here (the agent was restarted before it ran)."""
        unknown = []
        for count, rank_id in enumerate(ids):
            rank = self.by_id.get(rank_id)
            if rank is None:
                unknown.append(rank_id)
            elif rank.phase == READY:
                self._run_one(rank)
                self._changed(rank)
            elif rank.phase == PREPARING:
                rank.run_wanted = True
            if count % 8 == 7:
                await asyncio.sleep(0)
        if unknown:
            raise Busy("%s: not prepared on %s; prepare it again" % (", ".join(unknown[:5]), self._node_name))

    def _run_one(self, rank: Rank) -> None:
        rank.stage = "run"
        if rank.has_run:
            rank.phase = RUNNING
            self._spawn(rank)
        else:
            rank.started_ms = now_ms()
            self._conclude(rank, 0, "")

    def _spawn(self, rank: Rank) -> None:
        rank.started_ms = now_ms()
        rank.spawned_s = time.monotonic()
        argv = ["/bin/sh", "-c", _WRAPPER, "argosy-rank", rank.folder, rank.workdir, rank.stage, self.shell]
        argv.append(_LOGIN)
        argv += [group + "/cgroup.procs" for group in rank.groups]
        locks = rank.held.handles if rank.held else ()
        try:
            rank.pid, rank.gate = processes.spawn_gated(argv, rank.env, rank.log_path, locks)
        except (OSError, ValueError) as error:
            text = reason_of(error) if isinstance(error, OSError) else "its environment is not valid"
            self._conclude(rank, 126, "cannot start a process on %s: %s" % (self._node_name, text))
            return
        programs.die_at("spawned")
        rank.ticks = programs.start_ticks(rank.pid)
        self.reaper.watch_child(rank.pid, lambda status: self._child_ended(rank, status))
        self._poll_soon(rank)
        self._guard_soon(rank)
        if rank.phase != RUNNING:
            rank.open_gate()  # a setup may be repeated
            return
        rank.env = {}
        self._at_gate.append(rank)
        if len(self._at_gate) == 1:
            self._start_task(self._open_gates())

    async def _open_gates(self) -> None:
        """Let programs run, those that came together at once: first their state, then the journal, then the
        gate."""
        while self._at_gate:
            await asyncio.sleep(0)  # more of the same batch
            ranks = list(self._at_gate)
            for rank in ranks:
                if not rank.ended:
                    self._save(rank)
            programs.die_at("saved")
            try:
                self._journal.note(journal.STARTED, [rank.id for rank in ranks if not rank.ended])
                programs.die_at("noted")
                await self._loop.run_in_executor(None, self._journal.flush)
                programs.die_at("flushed")
            except OSError as error:
                for rank in ranks:
                    rank.verdict = "disk full on %s" if error.errno == errno.ENOSPC else "disk of %s fails"
                    rank.verdict = (rank.verdict + ": its start cannot be noted") % self._node_name
                    rank.close_gate()
            for rank in ranks:
                if rank.stop_at_s is None:
                    rank.open_gate()
                    programs.die_at("opened")
                    self._changed(rank)
                else:
                    rank.close_gate()
            del self._at_gate[: len(ranks)]

    def _guard_soon(self, rank: Rank) -> None:
        if rank.gpu_limit is not None and not self._guards:
            self._guards = True
            self._start_task(self._guard())

    async def _guard(self) -> None:
        """End ranks whose processes together hold more memory of a shared device than their share, while
        there are such ranks."""
        while True:
            await asyncio.sleep(_GUARD_S)
            guarded = [rank for rank in self.by_id.values() if rank.gpu_limit and rank.pid and not rank.ended]
            if not guarded:
                self._guards = False
                return
            cards = sorted({rank.gpu_limit[0] for rank in guarded if rank.gpu_limit})
            used = await self._loop.run_in_executor(None, devices.memory_by_process, cards)
            if not any(used.values()):
                continue
            snapshot = await self.table.snapshot()
            for rank in guarded:
                if rank.gpu_limit is None or rank.ended or rank.verdict:
                    continue
                card, limit_bytes = rank.gpu_limit
                held = used.get(card, {})
                sizes = [held[pid] for pid in self._members(rank, snapshot) if pid in held]
                rank.verdict = sharing.overdrawn(limit_bytes, sizes)
                if rank.verdict:
                    self._start_kill(rank)

    # ---- ends

    def _child_ended(self, rank: Rank, status: int) -> None:
        # Not reaped yet, so the group's number still is this rank's.
        if rank.stop_at_s is None or rank.stop_at_s <= time.monotonic():
            processes.send_group_signal(rank.pid, signal.SIGKILL)
        self._start_task(self._finish_stage(rank, status))

    async def _finish_stage(self, rank: Rank, status: int | None) -> None:
        """The wrapper has ended: clean up what it left behind, then go on to the next stage or conclude."""
        code = rank.read_exit_code()
        if code is None and status is not None:
            if status >= 0:
                code = status
            elif rank.stop_at_s is not None:
                code = 128 - status  # told to stop before the wrapper could set its traps
        await self._clean_up(rank)
        if code is None and rank.oom:
            code = 137
        if rank.stage == "setup" and code == 0 and rank.stop_at_s is None:
            try:
                _overwrite(rank.folder + "/exit", NO_EXIT_CODE)
            except OSError as error:
                await self._remove_groups(rank)
                self._conclude(rank, 1, reason_of(error))
                return
            rank.pid = 0
            if rank.run_wanted:
                self._run_one(rank)
            else:
                rank.stage = "run"
                rank.phase = READY
            self._changed(rank)
            return  # its groups stay: `run` has the same limits
        await self._remove_groups(rank)
        if rank.phase == PREPARING and rank.stop_at_s is not None:
            code = 143
        self._conclude(rank, code, "its processes are gone and left no exit code (killed from outside?)")

    async def _clean_up(self, rank: Rank) -> None:
        """Kill what the rank left behind; after a stop only when its grace is over, so that a program which
        writes a checkpoint may finish although its shell is gone."""
        snapshot = await self.table.after_exit(rank.pid, time.monotonic() - rank.spawned_s)
        turn = 0
        while turn < 300:  # then they cannot be killed, and we give up
            left = self._members(rank, snapshot)
            if not left:
                break
            if rank.stop_at_s is not None and rank.stop_at_s > time.monotonic():
                await asyncio.sleep(min(0.05, rank.stop_at_s - time.monotonic()))
            else:
                processes.send_signal(left, _deadly(turn))
                await asyncio.sleep(0.002 if turn < 5 else 0.03)
                turn += 1
            snapshot = await self.table.snapshot()
        rank.oom = cgroups.ran_out_of_memory(rank.groups)

    async def _remove_groups(self, rank: Rank) -> None:
        for _ in range(50):
            if cgroups.remove(rank.groups):
                break
            await asyncio.sleep(0.01)

    def _conclude(self, rank: Rank, code: int | None, if_vanished: str) -> None:
        rank.measure_log()
        rank.exit_code = code
        rank.phase = VANISHED if code is None else EXITED
        rank.ended_ms = now_ms()
        rank.env = {}
        rank.detail = if_vanished if code is None or not rank.pid else ""
        if rank.oom:
            rank.detail = "out of memory on %s: the kernel killed it at its memory limit" % self._node_name
        elif rank.verdict:
            rank.detail = rank.verdict
        elif code and rank.stop_at_s is None and self._disk_is_full():
            rank.detail = _disk_full_text(self._node_name, rank)
        elif code and rank.stop_at_s is None and rank.pid:
            rank.detail = sharing.fault_of(rank.mps)
        self._give_back(rank)
        self._save(rank)
        self._changed(rank)
        self._one_ended.set()

    def _end_silenced(self, live: list[Rank], now: float) -> None:
        """A program whose log has no room left would go on unseen."""
        for rank in live if self._disk_is_full() else ():
            if now - rank.grew_s < _SILENCED_S and not rank.verdict and rank.stop_at_s is None:
                rank.verdict = _disk_full_text(self._node_name, rank)
                self._start_kill(rank)

    def _disk_is_full(self) -> bool:
        try:
            disk = os.statvfs(self._folder)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < _FULL_BYTES

    def _save(self, rank: Rank) -> None:
        try:
            rank.save(self._boot_id)
        except OSError as error:
            warn("cannot save the state of %s: %s" % (rank.id, reason_of(error)))

    # ---- stop and forget

    async def stop(self, ids: Iterable[str], grace_s: float) -> None:
        """SIGTERM to all of each rank, SIGKILL after `grace_s`. Ended ones are left alone; of unknown ones it
        is remembered that an order for them comes too late."""
        live = []
        for rank_id in ids:
            rank = self.by_id.get(rank_id)
            if rank is None and rank_id not in self._journal.spent and is_rank_id(rank_id):
                self._refuse_late(Rank(self._folder + "/" + rank_id, rank_id))
            if rank is None or rank.ended:
                continue
            due = time.monotonic() + max(0.0, grace_s)
            first = rank.stop_at_s is None
            if rank.stop_at_s is None or due < rank.stop_at_s:
                rank.stop_at_s = due
            if not rank.pid:
                self._conclude(rank, 143, "")
                cgroups.remove(rank.groups)
                continue
            if first:
                live.append(rank)
            self._loop.call_later(max(0.0, grace_s), self._start_kill, rank)
        if not live:
            return
        snapshot = await self.table.snapshot()
        for rank in live:
            if rank.ended:
                continue
            members = self._members(rank, snapshot)
            processes.send_group_signal(rank.pid, signal.SIGTERM)
            processes.send_signal(_outside_group(rank.pid, members), signal.SIGTERM)
            if not members:
                self._start_task(self._terminate_late(rank, rank.pid))

    async def _terminate_late(self, rank: Rank, pid: int) -> None:
        """The wrapper was told to end before it had started the program, and its trap swallowed that."""
        while not rank.ended and rank.pid == pid:
            members = self._members(rank, await self.table.snapshot())
            if members:
                processes.send_signal(members, signal.SIGTERM)
                return
            await asyncio.sleep(0.01)

    def _members(self, rank: Rank, snapshot: processes.Snapshot) -> set[int]:
        """The rank's processes, without its wrapper."""
        return (snapshot.members(self._key(rank), rank.pid) | cgroups.members(rank.groups)) - {rank.pid}

    def _start_kill(self, rank: Rank) -> None:
        if not rank.ended and rank.pid:
            self._start_task(self._kill(rank, rank.pid))

    async def _kill(self, rank: Rank, pid: int) -> None:
        """Kill all but the wrapper, which then writes the exit code; the wrapper too when it does not end."""
        for turn in range(400):
            if rank.ended or rank.pid != pid:
                return
            snapshot = await self.table.snapshot()
            if rank.ended or rank.pid != pid:
                return
            left = self._members(rank, snapshot)
            processes.send_signal(left, _deadly(turn))
            if not left and turn > 50:
                processes.send_signal([pid], signal.SIGKILL)
            await asyncio.sleep(0.005 if turn < 20 else 0.04)

    async def forget(self, ids: Iterable[str]) -> None:
        for count, rank_id in enumerate(ids):
            rank = self.by_id.get(rank_id)
            if rank is None or not rank.ended:
                continue
            del self.by_id[rank_id]
            self._note(journal.SPENT, rank_id)  # before its folder goes: its program never runs again
            self._erase(rank.folder)
            for observer in tuple(self.observers):
                observer.rank_forgotten(rank_id)
            if count % 8 == 7:
                await asyncio.sleep(0)

    def _note(self, kind: str, rank_id: str) -> None:
        try:
            self._journal.note(kind, [rank_id])
        except OSError as error:
            warn("cannot note %s in the journal: %s" % (rank_id, reason_of(error)))

    async def end_all(self, grace_s: float) -> None:
        """Stop everything and wait until it has ended (a process that cannot be killed is given up)."""
        await self.stop(list(self.by_id), grace_s)
        give_up_s = time.monotonic() + grace_s + 10
        while any(not rank.ended for rank in self.by_id.values()):
            self._one_ended.clear()
            try:
                await asyncio.wait_for(self._one_ended.wait(), max(0.0, give_up_s - time.monotonic()))
            except asyncio.TimeoutError:
                break

    def _erase(self, folder: str) -> None:
        try:
            names = os.listdir(folder)
        except OSError:
            return
        for name in names:
            try:
                os.unlink(folder + "/" + name)
            except OSError as error:
                warn("cannot remove %s/%s: %s" % (folder, name, reason_of(error)))
        try:
            os.rmdir(folder)
        except OSError as error:
            warn("cannot remove %s: %s" % (folder, reason_of(error)))

    # ---- news

    def observe(self, observer: Observer) -> None:
        self.observers.add(observer)
        now = time.monotonic()
        for rank in self.by_id.values():
            rank.poll_at_s = now
        self._schedule_poll(0.0)

    def _changed(self, rank: Rank) -> None:
        for observer in self.observers:
            observer.rank_changed(rank)

    def _key(self, rank: Rank) -> str:
        return self._tag + ":" + rank.id

    def _start_task(self, work: Coroutine[object, object, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _poll_soon(self, rank: Rank) -> None:
        rank.poll_s = POLL_FAST_S
        rank.poll_at_s = time.monotonic() + POLL_FAST_S
        if self.observers:
            self._schedule_poll(POLL_FAST_S)

    def _schedule_poll(self, in_s: float) -> None:
        due = self._loop.time() + in_s
        if self._poll_timer is not None:
            if self._poll_timer.when() <= due:
                return
            self._poll_timer.cancel()
        self._poll_timer = self._loop.call_at(due, self._poll)

    def _poll(self) -> None:
        """Look at the logs that are due: often while they grow, ever less often while they are quiet."""
        self._poll_timer = None
        live = [rank for rank in self.by_id.values() if rank.pid and not rank.ended]
        if not self.observers or not live:
            return
        now = time.monotonic()
        if now - self._disk_seen_s > _DISK_EVERY_S:
            self._disk_seen_s = now
            self._end_silenced(live, now)
        slow_s = max(_POLL_SLOW_S, len(live) / 1000)
        for rank in live:
            if rank.poll_at_s > now + 0.001:
                continue
            if rank.measure_log():
                if rank.is_truncated:  # the next agent must count from where this one does
                    rank.is_truncated = False
                    self._save(rank)
                rank.grew_s = now
                rank.poll_s = POLL_FAST_S
                for observer in self.observers:
                    observer.log_grew(rank)
            else:
                rank.poll_s = min(slow_s, rank.poll_s * 1.3)
            rank.poll_at_s = now + rank.poll_s
        self._schedule_poll(max(0.001, min(rank.poll_at_s for rank in live) - now))


def _disk_full_text(node: str, rank: Rank) -> str:
    return "disk full on %s while logging: %d bytes kept" % (node, rank.log_bytes)


def _outside_group(group: int, pids: set[int]) -> set[int]:
    """Those that a signal to the group does not reach."""
    outside = set()
    for pid in pids:
        try:
            if os.getpgid(pid) != group:
                outside.add(pid)
        except OSError:
            pass
    return outside


def _deadly(turn: int) -> int:
    """SIGKILL; in between SIGSTOP, because what forks faster than it is killed cannot fork when it is
    stopped."""
    return signal.SIGSTOP if 3 <= turn < 20 and turn % 2 else signal.SIGKILL


def _create(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        while data:
            data = data[os.write(handle, data) :]
    finally:
        os.close(handle)


def _overwrite(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(handle, data, 0)
    finally:
        os.close(handle)
