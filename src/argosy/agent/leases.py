"""Leases: a rank that was ordered with one ends by itself when the server has not been heard for so long.

So a server that cannot reach a node knows, some time later, that nothing of the job runs there any more. The
clock is the node's own, which nobody sets, and a renewal counts from when the report that it answers was
sent: what was on its way for long renews nothing. Beside the agent a small process guards the leases, so that
they end ranks also when the agent has died; it reads when each one ends from the rank's folder.
"""

from __future__ import annotations

import os
import signal
import sys
import time

from argosy.agent import processes, programs
from argosy.agent.rank import Rank, clock_ms, reason_of, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from argosy.agent.orders import Lease
    from argosy.agent.supervision import Supervision

_LOOK_S = 0.5
_GRACE_S = 3.0  # between SIGTERM and SIGKILL when a lease has ended
_GUARD_AFTER_MS = 5000  # the guard kills what the agent should have ended by then
_GUARD_LOOK_S = 0.5
_GUARD_CHECK_S = 5.0
_GUARD_LINGERS_S = 15.0  # without a rank that has a lease
_FILE_BYTES = 40


class Leases:
    """The leases of a node's ranks. `stop` ends ranks with a grace in seconds."""

    def __init__(self, shared: Supervision, stop: Callable[[Iterable[str], float], Awaitable[None]]) -> None:
        self._shared = shared
        self._stop = stop
        self._leased: dict[str, Rank] = {}
        self._looks = False
        self._checked_s = -1e9

    def take(self, rank: Rank, lease: Lease) -> bool:
        """The lease of a new rank; False: it has ended already. Raises OSError."""
        until_ms = lease["sent"] + lease["ms"]
        if lease["boot"] != self._shared.boot_id or until_ms <= clock_ms():
            return False
        rank.lease_ms, rank.lease_until_ms = lease["ms"], until_ms
        write_lease(rank.folder, until_ms, lease["ms"])
        self._keep(rank)
        return True

    def adopt(self, rank: Rank) -> None:
        """A rank that an earlier agent started may have one."""
        rank.lease_until_ms, rank.lease_ms = read_lease(rank.folder)
        if rank.lease_ms:
            self._keep(rank)

    def renew(self, attempts: set[str], sent_ms: int) -> None:
        """The server wants these attempts to go on, as it said when it had our report of then."""
        sent_ms = min(sent_ms, clock_ms())
        for rank in self._leased.values():
            until_ms = sent_ms + rank.lease_ms
            if rank.id.rpartition(".")[0] in attempts and until_ms > rank.lease_until_ms and not rank.lapsed:
                rank.lease_until_ms = until_ms
                try:
                    write_lease(rank.folder, until_ms, rank.lease_ms)
                except OSError as error:
                    warn("cannot note the lease of %s: %s" % (rank.id, reason_of(error)))

    def _keep(self, rank: Rank) -> None:
        self._leased[rank.id] = rank
        if not self._looks:
            self._looks = True
            self._shared.start_task(self._look())

    async def _look(self) -> None:
        """End what has outlived its lease, while there are ranks with one."""
        import asyncio

        while self._leased:
            now = time.monotonic()
            if now - self._checked_s > _GUARD_CHECK_S:
                self._checked_s = now
                _ensure_guard(self._shared.root)
            for rank in list(self._leased.values()):
                if rank.ended:
                    del self._leased[rank.id]
                elif rank.lease_until_ms <= clock_ms() and not rank.lapsed:
                    rank.lapsed = True
                    rank.verdict = "the server was not heard for %d s, so its lease ended" % (
                        rank.lease_ms // 1000
                    )
                    self._shared.start_task(self._end(rank.id))
            await asyncio.sleep(_LOOK_S)
        self._looks = False

    async def _end(self, rank_id: str) -> None:
        await self._stop([rank_id], _GRACE_S)


def write_lease(folder: str, until_ms: int, lease_ms: int) -> None:
    """In place, and in one piece. Raises OSError."""
    handle = os.open(folder + "/lease", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        os.pwrite(handle, (b"%d %d\n" % (until_ms, lease_ms)).rjust(_FILE_BYTES), 0)
    finally:
        os.close(handle)


def read_lease(folder: str) -> tuple[int, int]:
    """(when it ends, for how long it is given), in ms; zeros when the rank has none."""
    try:
        with open(folder + "/lease", "rb") as file:
            until, lease = file.read(_FILE_BYTES).split()
            return int(until), int(lease)
    except (OSError, ValueError):
        return 0, 0


# ---- the guard


def _ensure_guard(root: str) -> None:
    """Start the guard unless one is there: of this node, or of all nodes of the machine where their folder is
    known."""
    nodes = os.environ.get("ARGOSY_NODES_DIR", "")
    if nodes and root.startswith(nodes + "/"):
        root = nodes
    try:
        lock = programs.hold(root + "/guard.lock", True)
    except OSError:
        lock = None  # a disk that fails for the moment: we come again
    if lock is None:
        return
    argv = [sys.executable, "-I", "-S", os.path.abspath(sys.argv[0]), "guard", "--root", root]
    env = {"PATH": os.environ.get("PATH", os.defpath)}
    try:
        processes.spawn(
            argv, env, "/dev/null", root + "/guard.log", append=True, inherit=[(lock, programs.INHERITED)]
        )
    except OSError as error:
        warn("cannot start the guard of leases: %s" % reason_of(error))
    finally:
        os.close(lock)


def guard(root: str) -> int:
    """The guard's life: it ends ranks whose lease has ended, whatever became of the agent. `root`: of a node,
    or the folder of all nodes of this machine."""
    os.set_inheritable(programs.INHERITED, False)  # its lock
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ours = _which(root)
    quiet_s = time.monotonic()
    while ours and _which(root) == ours and time.monotonic() - quiet_s < _GUARD_LINGERS_S:
        has_leases = False
        overdue: set[str] = set()
        for node in nodes_in(root):
            leased, late = _overdue(node)
            has_leases = has_leases or leased
            overdue |= late
        marks = processes.snapshot_all().marked("") if overdue else {}
        late_pids = [pid for pid, key in marks.items() if key in overdue]
        processes.send_signal(late_pids, signal.SIGKILL)
        if has_leases or late_pids:
            quiet_s = time.monotonic()
        time.sleep(_GUARD_LOOK_S)
    return 0


def nodes_in(root: str) -> list[str]:
    """The folders of nodes: this one, or those of each claim in it."""
    if os.path.isdir(root + "/ranks"):
        return [root]
    found = []
    for claim in _names(root):
        if claim[0] != ".":
            found += [
                "%s/%s/%s" % (root, claim, index) for index in _names(root + "/" + claim) if index.isdigit()
            ]
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


def _which(folder: str) -> str:
    """Which folder that is, as marks of ranks tell it; "" when there is none."""
    try:
        info = os.stat(folder)
    except OSError:
        return ""
    return "%x-%x" % (info.st_dev, info.st_ino)


def _overdue(node: str) -> tuple[bool, set[str]]:
    """(whether leases of the node's ranks have not ended, marks of ranks that live too long)."""
    leased, overdue = False, set()
    for name in _names(node + "/ranks"):
        folder = "%s/ranks/%s" % (node, name)
        until_ms, lease_ms = read_lease(folder)
        if not lease_ms or Rank(folder, name).read_exit_code() is not None:
            continue
        if clock_ms() <= until_ms + _GUARD_AFTER_MS:
            leased = True
        else:
            overdue.add("%s:%s" % (_which(node), name))
    return leased, overdue
