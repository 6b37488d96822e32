"""Starting, finding and signalling processes, by the kernel's own books in /proc.

A rank is found by three marks, so that nothing escapes: the session of its wrapper, descent from it, and an
environment variable (`MARK`) that `setsid` and double forks keep.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time

from argosy.agent.programs import GATE, INHERITED, start_ticks, stat_fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

MARK = "ARGOSY_RANK_KEY"

# What Python or a parent may have set to be ignored must not reach programs: `yes | head` relies on SIGPIPE.
_DEFAULT_SIGNALS = [
    signal.SIGPIPE,
    signal.SIGXFSZ,
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCHLD,
    signal.SIGTSTP,
    signal.SIGTTIN,
    signal.SIGTTOU,
]

_spawn_with_setsid = hasattr(os, "posix_spawn")


def spawn_gated(argv: list[str], env: dict[str, str], log: str, locks: Sequence[int]) -> tuple[int, int]:
    """Start a program that waits for a line on its handle GATE; its pid, and the handle to write it to.
    When we die before, it reads the end. `locks` get the numbers from INHERITED down. Raises OSError."""
    import fcntl

    low, gate = os.pipe()
    try:
        source = fcntl.fcntl(low, fcntl.F_DUPFD_CLOEXEC, INHERITED + 1)  # clear of the numbers it may get
        os.close(low)
        low = source
        inherit = [(source, GATE)]
        inherit += [(handle, INHERITED - count) for count, handle in enumerate(locks)]
        return spawn(argv, env, "/dev/null", log, append=True, inherit=inherit), gate
    except (OSError, ValueError):
        os.close(gate)
        raise
    finally:
        os.close(low)


def spawn(
    argv: list[str],
    env: dict[str, str],
    stdin: str,
    output: str,
    append: bool,
    inherit: Sequence[tuple[int, int]] = (),
) -> int:
    """Start a program as leader of a new session; its pid. `stdin` and `output` are paths; a terminal as
    `output` (`append` false) becomes its controlling terminal. `inherit`: handles, each with the number that
    it gets. Raises OSError when it cannot be started."""
    global _spawn_with_setsid
    flags = (os.O_WRONLY | os.O_APPEND | os.O_CREAT) if append else os.O_RDWR
    if _spawn_with_setsid:
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, stdin, os.O_RDONLY if append else os.O_RDWR, 0),
            (os.POSIX_SPAWN_OPEN, 1, output, flags, 0o600),
            (os.POSIX_SPAWN_DUP2, 1, 2),
        ]
        actions += [(os.POSIX_SPAWN_DUP2, handle, number) for handle, number in inherit]
        try:
            return os.posix_spawn(
                argv[0],
                argv,
                env,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=_DEFAULT_SIGNALS,
            )
        except NotImplementedError:  # Pythons built for an old C library have no POSIX_SPAWN_SETSID
            _spawn_with_setsid = False
    return _fork_and_exec(argv, env, stdin, output, append, flags, inherit)


def spawn_child(argv: list[str], env: dict[str, str]) -> int:
    """Start a program as leader of a new session with our own output; its pid. Raises OSError."""
    low, high = os.dup(1), os.dup(2)
    try:
        return spawn(argv, env, "/dev/null", "/dev/null", append=True, inherit=[(low, 1), (high, 2)])
    finally:
        os.close(low)
        os.close(high)


def _fork_and_exec(
    argv: list[str],
    env: dict[str, str],
    stdin: str,
    output: str,
    append: bool,
    flags: int,
    inherit: Sequence[tuple[int, int]] = (),
) -> int:
    """As posix_spawn, by hand; the child's failure comes back through a pipe that exec closes."""
    told, tell = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            for number in _DEFAULT_SIGNALS:
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, [])
            source = os.open(stdin, os.O_RDONLY if append else os.O_RDWR)
            sink = os.open(output, flags, 0o600)
            os.dup2(source, 0)
            os.dup2(sink, 1)
            os.dup2(sink, 2)
            for handle, its_number in inherit:
                os.dup2(handle, its_number)
            os.execve(argv[0], argv, env)  # noqa: S606  # this is what posix_spawn does
        except OSError as error:
            os.write(tell, str(error.errno or 0).encode())
        finally:
            os._exit(127)
    os.close(tell)
    failure = os.read(told, 16)
    os.close(told)
    if failure:
        os.waitpid(pid, 0)
        raise OSError(int(failure), os.strerror(int(failure)))
    return pid


def _mark_of(pid: int) -> str:
    try:
        with open("/proc/%d/environ" % pid, "rb", buffering=0) as file:
            data = b"\0" + (file.read() or b"")
    except OSError:
        return ""
    start = data.find(b"\0ARGOSY_RANK_KEY=")
    return "" if start < 0 else data[start + 17 : data.find(b"\0", start + 17)].decode("utf-8", "replace")


def command_of(pid: int) -> bytes:
    """Its arguments; b"" of one that is gone."""
    try:
        with open("/proc/%d/cmdline" % pid, "rb", buffering=0) as file:
            return file.read() or b""
    except OSError:
        return b""


def last_pid() -> int:
    """The newest pid of this pid namespace."""
    try:
        with open("/proc/loadavg", "rb", buffering=0) as file:
            return int(file.read(128).split()[4])
    except (OSError, ValueError, IndexError):
        return 0


class Snapshot:
    """Who is alive, with the marks by which ranks are found. Zombies are left out."""

    def __init__(self, pids: Iterable[int]) -> None:
        me = os.getpid()
        self._session: dict[int, int] = {}
        self._mark: dict[int, str] = {}
        self._children: dict[int, list[int]] = {}
        for pid in pids:
            fields = stat_fields(pid) if pid != me else None
            if fields is None or len(fields) < 4 or fields[0] in (b"Z", b"X"):
                continue
            self._session[pid] = int(fields[3])
            self._children.setdefault(int(fields[1]), []).append(pid)
            mark = _mark_of(pid)
            if mark:
                self._mark[pid] = mark

    def members(self, key: str, leader: int) -> set[int]:
        """Processes of the rank with this mark whose wrapper is or was `leader`, without the wrapper."""
        found = {pid for pid, mark in self._mark.items() if mark == key}
        if leader in self._session and self._mark.get(leader) != key:
            leader = 0  # the wrapper is gone and its number belongs to somebody else now
        if leader:
            found |= {pid for pid, session in self._session.items() if session == leader}
        found = self.below(found | ({leader} if leader in self._session else set()))
        found.discard(leader)
        return found

    def below(self, pids: Iterable[int]) -> set[int]:
        """These processes, and all that descend from them."""
        found = set(pids)
        grown = list(found)
        while grown:
            for child in self._children.get(grown.pop(), ()):
                if child not in found:
                    found.add(child)
                    grown.append(child)
        return found

    def copies(self, pids: Iterable[int]) -> dict[int, bytes]:
        """Those that have been forked and are not another program than their parent yet, or never will be,
        with their arguments."""
        wanted, found = set(pids), {}
        for parent, children in self._children.items():
            mine = wanted.intersection(children)
            own = command_of(parent) if mine else b""
            for pid in mine:
                if own and command_of(pid) == own:
                    found[pid] = own
        return found

    def marked(self, prefix: str) -> dict[int, str]:
        return {pid: mark for pid, mark in self._mark.items() if mark.startswith(prefix)}


def snapshot_all() -> Snapshot:
    return Snapshot(int(name) for name in os.listdir("/proc") if name.isdigit())


class ProcessTable:
    """Snapshots on demand. Callers that ask at about the same time share one, so that a thousand ranks that
    end together do not read /proc a thousand times; reading takes a fifth of one core at most."""

    def __init__(self) -> None:
        self._waiting: asyncio.Future[Snapshot] | None = None
        self._rest_until = 0.0

    async def snapshot(self) -> Snapshot:
        if self._waiting is None:
            loop = asyncio.get_running_loop()
            self._waiting = loop.create_future()
            loop.call_later(max(0.0, self._rest_until - time.monotonic()), self._take)
        return await asyncio.shield(self._waiting)

    def _take(self) -> None:
        waiting, self._waiting = self._waiting, None
        begun = time.monotonic()
        try:
            snapshot = snapshot_all()
        except OSError as error:
            if waiting is not None and not waiting.done():
                waiting.set_exception(error)
            return
        ended = time.monotonic()
        self._rest_until = ended + 4 * (ended - begun)
        if waiting is not None and not waiting.done():
            waiting.set_result(snapshot)

    async def after_exit(self, leader: int, lifetime_s: float) -> Snapshot:
        """Enough to find what a rank left behind. A short life can only have left pids just above its own,
        and looking at those is a hundred times cheaper than reading all of /proc."""
        newest = last_pid()
        if lifetime_s < 1.0 and leader <= newest <= leader + 512:
            return Snapshot(range(leader + 1, newest + 1))
        return await self.snapshot()


def send_signal(pids: Iterable[int], number: int) -> None:
    for pid in sorted(pids):  # parents first: a shell that is gone tells nothing of its children
        try:
            os.kill(pid, number)
        except OSError:
            pass


def send_group_signal(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except OSError:
        pass


class Reaper:
    """Tells the one who asked when a process has ended, whether it is our child or was adopted from disk."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._children: dict[int, Callable[[int], None]] = {}
        loop.add_signal_handler(signal.SIGCHLD, self._reap)

    def watch_child(self, pid: int, ended: Callable[[int], None]) -> None:
        """`ended` gets the wait status; it is called before the pid can be given to another process."""
        self._children[pid] = ended

    def _reap(self) -> None:
        while True:
            try:
                done = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if done is None:
                return
            ended = self._children.pop(done.si_pid, None)
            code = done.si_status if done.si_code == os.CLD_EXITED else -done.si_status
            if ended is not None:
                ended(code)
            try:
                os.waitpid(done.si_pid, 0)
            except ChildProcessError:
                pass

    def watch_adopted(self, pid: int, ticks: int, ended: Callable[[], None]) -> None:
        """For a process that an earlier agent started."""
        try:
            handle = os.pidfd_open(pid)
        except (AttributeError, OSError):  # Python 3.8, or an old kernel, or just gone: look now and then
            self._poll_adopted(pid, ticks, ended)
            return
        if start_ticks(pid) != ticks:
            os.close(handle)
            self._loop.call_soon(ended)
            return

        def fire() -> None:
            self._loop.remove_reader(handle)
            os.close(handle)
            ended()

        self._loop.add_reader(handle, fire)

    def _poll_adopted(self, pid: int, ticks: int, ended: Callable[[], None]) -> None:
        if start_ticks(pid) != ticks:
            self._loop.call_soon(ended)
        else:
            self._loop.call_later(0.1, self._poll_adopted, pid, ticks, ended)
