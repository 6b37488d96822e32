"""How ranks end: by themselves, when they are told to, or because they overdraw; what they leave behind."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from argosy.agent import cgroups, devices, processes, programs, sharing
from argosy.agent.polling import disk_full_text
from argosy.agent.rank import EXITED, NO_EXIT_CODE, PREPARING, READY, VANISHED, Rank, now_ms, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from argosy.agent.supervision import Supervision

_GUARD_S = 1.0
_YOUNG_S = 0.5  # so long a process may need to become a program once it was forked


class Told:
    """The processes of a rank that were told to end, those of them that were copies of their parents
    (`Snapshot.copies`), and when: what was forked later was started by traps."""

    def __init__(self, members: set[int], young: dict[int, bytes], ticks: int) -> None:
        self.members, self.young, self.ticks = members, young, ticks


class Ending:
    """Ends ranks and concludes them. `run` starts the program of one whose setup has ended well."""

    def __init__(self, shared: Supervision, run: Callable[[Rank], None]) -> None:
        self._shared = shared
        self._run = run
        self._guards = False
        self.one_ended = asyncio.Event()

    def child_ended(self, rank: Rank, status: int) -> None:
        # Not reaped yet, so the group's number still is this rank's.
        if rank.stop_at_s is None or rank.stop_at_s <= time.monotonic():
            processes.send_group_signal(rank.pid, signal.SIGKILL)
        self._shared.start_task(self.finish_stage(rank, status))

    async def finish_stage(self, rank: Rank, status: int | None) -> None:
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
                await self.remove_groups(rank)
                self.conclude(rank, 1, reason_of(error))
                return
            rank.pid = 0
            if rank.run_wanted:
                self._run(rank)
            else:
                rank.stage = "run"
                rank.phase = READY
            self._shared.changed(rank)
            return  # its groups stay: `run` has the same limits
        await self.remove_groups(rank)
        if rank.phase == PREPARING and rank.stop_at_s is not None:
            code = 143
        self.conclude(rank, code, "its processes are gone and left no exit code")

    async def _clean_up(self, rank: Rank) -> None:
        """Kill what the rank left behind; after a stop only when its grace is over, so that a program which
        writes a checkpoint may finish although its shell is gone."""
        snapshot = await self._shared.table.after_exit(rank.pid, time.monotonic() - rank.spawned_s)
        turn = 0
        while turn < 300:  # then they cannot be killed, and we give up
            left = self._shared.members(rank, snapshot)
            if not left:
                break
            if rank.stop_at_s is not None and rank.stop_at_s > time.monotonic():
                await asyncio.sleep(min(0.05, rank.stop_at_s - time.monotonic()))
            else:
                processes.send_signal(left, _deadly(turn))
                await asyncio.sleep(0.002 if turn < 5 else 0.03)
                turn += 1
            snapshot = await self._shared.table.snapshot()
        rank.oom = cgroups.ran_out_of_memory(rank.groups)

    async def remove_groups(self, rank: Rank) -> None:
        for _ in range(50):
            if cgroups.remove(rank.groups):
                break
            await asyncio.sleep(0.01)

    def conclude(self, rank: Rank, code: int | None, if_vanished: str) -> None:
        rank.measure_log()
        code = None if rank.lapsed or rank.unbegun else code  # how it ends now says nothing of its work
        rank.exit_code = code
        rank.phase = VANISHED if code is None else EXITED
        rank.ended_ms = now_ms()
        rank.env = {}
        rank.detail = if_vanished if code is None or not rank.pid else ""
        if rank.oom:
            rank.detail = (
                "out of memory on %s: the kernel killed it at its memory limit" % self._shared.node_name
            )
        elif rank.verdict:
            rank.detail = rank.verdict
        elif code and rank.stop_at_s is None and self._shared.disk_is_full():
            rank.detail = disk_full_text(self._shared.node_name, rank)
        elif code and rank.stop_at_s is None and rank.pid:
            rank.detail = sharing.fault_of(rank.mps)
        self._shared.give_back(rank)
        self._shared.secret_files.remove(rank.id)
        self._shared.save(rank)
        self._shared.changed(rank)
        self.one_ended.set()

    async def terminate_late(self, rank: Rank, pid: int, to: Told) -> None:
        """A process that has been forked and is about to become a program loses a SIGTERM that its parent
        catches: it gets another one when it has become that. `to`: who was told to end."""
        members, young, until_s = to.members, to.young, time.monotonic() + _YOUNG_S
        looked = False
        while not rank.ended and rank.pid == pid and (not looked or young or not members):
            grown = {each for each, command in young.items() if processes.command_of(each) != command}
            if grown or not looked or not members:
                snapshot = await self._shared.table.snapshot()
                now = self._shared.members(rank, snapshot)
                told = snapshot.below(grown) & now
                if not members:  # the wrapper alone was there, and its trap swallowed the signal
                    told, members = now, now
                elif not looked:
                    told |= {one for one in now - members if _is_older(one, to.ticks)}
                looked = bool(members)
                fresh = snapshot.copies((told | members) & now)  # not what traps have started since
                young = {each: each_is for each, each_is in {**young, **fresh}.items() if each in now - grown}
                processes.send_signal(told, signal.SIGTERM)
            if members and time.monotonic() > until_s:
                return
            await asyncio.sleep(0.01)

    def start_kill(self, rank: Rank) -> None:
        if not rank.ended and rank.pid:
            self._shared.start_task(self._kill(rank, rank.pid))

    async def _kill(self, rank: Rank, pid: int) -> None:
        """Kill all but the wrapper, which then writes the exit code; the wrapper too when it does not end."""
        for turn in range(400):
            if rank.ended or rank.pid != pid:
                return
            snapshot = await self._shared.table.snapshot()
            if rank.ended or rank.pid != pid:
                return
            left = self._shared.members(rank, snapshot)
            processes.send_signal(left, _deadly(turn))
            if not left and turn > 50:
                processes.send_signal([pid], signal.SIGKILL)
            await asyncio.sleep(0.005 if turn < 20 else 0.04)

    def guard_soon(self, rank: Rank) -> None:
        if rank.gpu_limit is not None and not self._guards:
            self._guards = True
            self._shared.start_task(self._guard())

    async def _guard(self) -> None:
        """End ranks whose processes together hold more memory of a shared device than their share, while
        there are such ranks."""
        while True:
            await asyncio.sleep(_GUARD_S)
            guarded = [
                rank for rank in self._shared.by_id.values() if rank.gpu_limit and rank.pid and not rank.ended
            ]
            if not guarded:
                self._guards = False
                return
            cards = sorted({rank.gpu_limit[0] for rank in guarded if rank.gpu_limit})
            used = await self._shared.loop.run_in_executor(None, devices.memory_by_process, cards)
            if not any(used.values()):
                continue
            snapshot = await self._shared.table.snapshot()
            for rank in guarded:
                if rank.gpu_limit is None or rank.ended or rank.verdict:
                    continue
                card, limit_bytes = rank.gpu_limit
                held = used.get(card, {})
                sizes = [held[pid] for pid in self._shared.members(rank, snapshot) if pid in held]
                rank.verdict = sharing.overdrawn(limit_bytes, sizes)
                if rank.verdict:
                    self.start_kill(rank)


def _is_older(pid: int, ticks: int) -> bool:
    """Whether it was forked before that time: what a program starts when it is told to end is younger."""
    began, fields = programs.start_ticks(pid), programs.stat_fields(pid)
    is_orphan = fields is not None and fields[1:2] == [b"1"]  # who forked it has died of the signal
    return 0 < began < ticks or (began == ticks and is_orphan)


def outside_group(group: int, pids: set[int]) -> set[int]:
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


def _overwrite(path: str, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(handle, data, 0)
    finally:
        os.close(handle)
