"""How the processes of ranks start: behind a gate that opens when it is on disk that they do."""

from __future__ import annotations

import asyncio
import errno
import time

from argosy.agent import journal, processes, programs
from argosy.agent.rank import NODE_FAULTS, RUNNING, Rank, now_ms, reason_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from argosy.agent.ending import Ending
    from argosy.agent.polling import Polling
    from argosy.agent.supervision import Supervision

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


class Spawning:
    """Starts the stages of ranks."""

    def __init__(
        self, shared: Supervision, ending: Ending, polling: Polling, attend: Callable[[Rank], None]
    ) -> None:
        self._shared, self._ending, self._polling = shared, ending, polling
        self._attend = attend  # to the app of a rank that has begun
        self._at_gate: list[Rank] = []

    def run_one(self, rank: Rank) -> None:
        rank.stage = "run"
        if rank.has_run:
            rank.phase = RUNNING
            self.spawn(rank)
        else:
            rank.started_ms = now_ms()
            self._ending.conclude(rank, 0, "")

    def spawn(self, rank: Rank) -> None:
        rank.started_ms = now_ms()
        rank.spawned_s = time.monotonic()
        argv = [
            "/bin/sh",
            "-c",
            _WRAPPER,
            "argosy-rank",
            rank.folder,
            rank.workdir,
            rank.stage,
            self._shared.shell,
        ]
        argv.append(_LOGIN)
        argv += [group + "/cgroup.procs" for group in rank.groups]
        locks = rank.held.handles if rank.held else ()
        try:
            rank.pid, rank.gate = processes.spawn_gated(argv, rank.env, rank.log_path, locks)
        except (OSError, ValueError) as error:
            text = "its environment is not valid"
            if isinstance(error, OSError):
                text, rank.unbegun = reason_of(error), error.errno in NODE_FAULTS
            self._ending.conclude(
                rank, 126, "cannot start a process on %s: %s" % (self._shared.node_name, text)
            )
            return
        programs.die_at("spawned")
        rank.ticks = programs.start_ticks(rank.pid)
        self._shared.reaper.watch_child(rank.pid, lambda status: self._ending.child_ended(rank, status))
        self._polling.poll_soon(rank)
        self._ending.guard_soon(rank)
        if rank.phase != RUNNING:
            rank.open_gate()  # a setup may be repeated
            return
        rank.env = {}
        self._at_gate.append(rank)
        if len(self._at_gate) == 1:
            self._shared.start_task(self._open_gates())

    async def _open_gates(self) -> None:
        """Let programs run, those that came together at once: first their state, then the journal, then the
        gate."""
        while self._at_gate:
            await asyncio.sleep(0)  # more of the same batch
            ranks = list(self._at_gate)
            for rank in ranks:
                if not rank.ended:
                    self._shared.save(rank)
            programs.die_at("saved")
            try:
                self._shared.journal.note(journal.STARTED, [rank.id for rank in ranks if not rank.ended])
                programs.die_at("noted")
                await self._shared.loop.run_in_executor(None, self._shared.journal.flush)
                programs.die_at("flushed")
            except OSError as error:
                for rank in ranks:
                    rank.verdict = "disk full on %s" if error.errno == errno.ENOSPC else "disk of %s fails"
                    rank.verdict = (rank.verdict + ": its start cannot be noted") % self._shared.node_name
                    rank.unbegun = True
                    rank.close_gate()
            for rank in ranks:
                if rank.stop_at_s is None:
                    rank.open_gate()
                    programs.die_at("opened")
                    if rank.has_app:
                        self._attend(rank)
                    self._shared.changed(rank)
                else:
                    rank.close_gate()
            del self._at_gate[: len(ranks)]
