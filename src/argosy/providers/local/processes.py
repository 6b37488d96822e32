"""Processes of this machine, told apart by pid and start time, and ended for certain."""

from __future__ import annotations

import fcntl
import os
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

#: In the environment of every process that a node's agent starts: `<device>-<inode of the node's
#: folder>:<rank id>`.
RANK_MARK: Final = b"ARGOSY_RANK_KEY="
#: In the environment of the agent: the node's folder.
AGENT_MARK: Final = "ARGOSY_LOCAL_NODE"


class Process(msgspec.Struct, frozen=True):
    """A process for all time: pids come back, pairs of pid and start time do not (within one boot)."""

    pid: int
    start_ticks: int
    boot_id: str

    @property
    def is_alive(self) -> bool:
        _reap(self.pid)
        return self.boot_id == boot_id() and start_ticks(self.pid) == self.start_ticks


_boot_id = ""


def boot_id() -> str:
    """Of the running kernel; "" where there is none to read."""
    global _boot_id
    if not _boot_id:
        try:
            _boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            _boot_id = "unknown"
    return _boot_id


def start_ticks(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None when there is none (a zombie counts as
    none)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
    except OSError:
        return None
    return None if fields[0] in (b"Z", b"X") else int(fields[19])


def _reap(pid: int) -> None:
    """Our own dead children stay as zombies until somebody asks for their end."""
    try:
        os.waitpid(pid, os.WNOHANG)
    except OSError:
        return


def spawn(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Process:
    """Starts a process in a session of its own: it outlives us, whatever way we end. Raises OSError."""
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, str(log), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    default = [signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGHUP]
    pid = os.posix_spawn(
        argv[0], list(argv), dict(env), file_actions=actions, setsid=True, setsigmask=[], setsigdef=default
    )
    return Process(pid, start_ticks(pid) or 0, boot_id())


def agent_of(home: Path) -> Process | None:
    """The live agent that holds the lock of a node's folder, whoever started it; None: there is none."""
    try:
        with (home / "agent.lock").open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                pid = int(file.read(32))
                ticks = start_ticks(pid)
                return Process(pid, ticks, boot_id()) if ticks is not None else None
    except (OSError, ValueError):
        return None
    return None


def node_tag(home: Path) -> bytes | None:
    """How ranks of the node in `home` are marked; None when the folder is gone."""
    try:
        stat = home.stat()
    except OSError:
        return None
    return b"%s%x-%x:" % (RANK_MARK, stat.st_dev, stat.st_ino)


def of_nodes(homes: Sequence[Path], roots: Sequence[int] = ()) -> set[int]:
    """Pids of all agents and ranks of the nodes in `homes`, found by their marks (also those whose agent is
    gone), and of all that descends from them or from `roots`."""
    marks = [mark for home in homes if (mark := node_tag(home)) is not None]
    marks += [f"{AGENT_MARK}={home}\0".encode() for home in homes]
    me, found, children = os.getpid(), set(roots), dict[int, list[int]]()
    for name in os.listdir("/proc"):  # noqa: PTH208  hundreds of names: strings are cheaper than paths
        if not name.isdigit() or int(name) == me:
            continue
        try:
            with open(f"/proc/{name}/environ", "rb") as file:
                environ = b"\0" + file.read() + b"\0"
            with open(f"/proc/{name}/stat", "rb") as file:
                fields = file.read().rpartition(b")")[2].split()
        except OSError:
            continue
        if fields[0] in (b"Z", b"X"):
            continue
        children.setdefault(int(fields[1]), []).append(int(name))
        if any(b"\0" + mark in environ for mark in marks):
            found.add(int(name))
    grown = list(found)
    while grown:
        for child in children.get(grown.pop(), ()):
            if child not in found:
                found.add(child)
                grown.append(child)
    return found


def remove_cgroups(home: Path) -> None:
    """The control groups of a node's ranks, which the agent notes beside each rank. Those in use stay."""
    for state in home.glob("ranks/*/state"):
        try:
            groups = msgspec.json.decode(state.read_bytes(), type=_RankState).groups
        except (OSError, msgspec.MsgspecError):
            continue
        for group in groups:
            for _ in range(50):  # a process that was just killed may still be in it
                try:
                    Path(group).rmdir()
                except FileNotFoundError:
                    break
                except OSError:
                    time.sleep(0.01)


class _RankState(msgspec.Struct):
    groups: list[str] = []


def end_all(
    homes: Sequence[Path], known: Sequence[Process], sleep: Callable[[float], None] = time.sleep
) -> None:
    """Kills every process of these nodes and returns when none is left. Raises OSError when some cannot be
    killed.

    First all are stopped, then killed: what forks faster than it is killed is found in the next round.
    """
    for turn in range(100):
        pids = of_nodes(homes, [one.pid for one in known if one.is_alive])
        if not pids:
            return
        for number in (signal.SIGSTOP, signal.SIGKILL) if turn else (signal.SIGKILL,):
            for pid in pids:
                try:
                    os.kill(pid, number)
                except ProcessLookupError:
                    continue  # ended by itself in the meantime
        sleep(0.002 if turn < 5 else 0.05)
        for pid in pids:
            _reap(pid)
    raise OSError(f"processes {sorted(pids)[:5]} cannot be killed")
