"""Other programs of this machine: found, asked and recognised. (`subprocess` would cost every probe 10
ms.)"""

from __future__ import annotations

import os
import time

INHERITED = 9  # the number of the first lock that a process is started with; the others count down from it
INHERITED_MAX = 6
GATE = 3  # the handle on which a rank's wrapper waits until it may run its program

_DIES_AT = os.environ.get("_AGENT_DIES_AT", "")  # for tests: the agent is killed at this point


def die_at(point: str) -> None:
    if point == _DIES_AT:
        os.kill(os.getpid(), 9)


def find(name: str) -> str:
    """The path of a program; "" when there is none."""
    folders = os.environ.get("PATH", "/usr/bin:/bin").split(":")
    return next((f + "/" + name for f in folders if os.access(f + "/" + name, os.X_OK)), "")


def answer_of(
    argv: list[str], timeout_s: float, environ: dict[str, str] | None = None, text: str = ""
) -> str:
    """What a program prints, its complaints too, when it reads `text` (a few lines); "" when it cannot be
    started or takes too long."""
    import select
    import signal

    source, sink = os.pipe()
    begin, feed = os.pipe()
    os.write(feed, text.encode())
    os.close(feed)
    actions = [(os.POSIX_SPAWN_DUP2, begin, 0), (os.POSIX_SPAWN_DUP2, sink, 1), (os.POSIX_SPAWN_DUP2, 1, 2)]
    try:
        env, normal = environ or dict(os.environ), (signal.SIGPIPE,)
        pid = os.posix_spawn(argv[0], argv, env, file_actions=actions, setsigdef=normal)
    except OSError:
        os.close(source)
        return ""
    finally:
        os.close(sink)
        os.close(begin)
    data = b""
    due_s = time.monotonic() + timeout_s
    try:
        while True:
            if not select.select([source], [], [], max(0.0, due_s - time.monotonic()))[0]:
                os.kill(pid, signal.SIGKILL)
                return ""
            piece = os.read(source, 65536)
            if not piece:
                return data.decode("utf-8", "replace")
            data += piece
    finally:
        os.close(source)
        try:
            os.waitpid(pid, 0)
        except ChildProcessError:  # the agent's reaper was quicker
            pass


def stat_fields(pid: int) -> list[bytes] | None:
    """Fields of /proc/PID/stat from the third on (state, ppid, pgrp, session, ...)."""
    try:
        with open("/proc/%d/stat" % pid, "rb", buffering=0) as file:
            data = file.read(1024)
    except OSError:
        return None
    return data[data.rfind(b")") + 2 :].split()


def now_ticks() -> int:
    """Now, as the kernel counts the starts of processes."""
    return int(time.clock_gettime(time.CLOCK_BOOTTIME) * os.sysconf("SC_CLK_TCK"))


def start_ticks(pid: int) -> int:
    """When the process started, in ticks since boot; 0 when there is none (or only a zombie)."""
    fields = stat_fields(pid)
    return 0 if fields is None or fields[0] in (b"Z", b"X") else int(fields[19])


def hold(path: str, exclusive: bool, patience_s: float = 0.0) -> int | None:
    """A lock on a file (made when it is missing), as a handle: several may share it, or one has it alone. It
    goes with the last copy of the handle, however its owners end. None when it is not to be had. Raises
    OSError."""
    import fcntl
    import time

    low = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    handle = fcntl.fcntl(
        low, fcntl.F_DUPFD_CLOEXEC, INHERITED + 1
    )  # clear of the numbers that it may be given
    os.close(low)
    due_s = time.monotonic() + patience_s
    while True:
        try:
            fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
            return handle
        except OSError:
            if time.monotonic() >= due_s:
                os.close(handle)
                return None
        time.sleep(0.02)
