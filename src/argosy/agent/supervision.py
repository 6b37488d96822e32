"""What all parts of the supervisor of ranks share."""

from __future__ import annotations

import asyncio
import os

from argosy.agent import cgroups, journal, processes
from argosy.agent.orders import find_shell
from argosy.agent.rank import Observer, Rank, reason_of, warn
from argosy.agent.secret_files import SecretFiles

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Coroutine

    from argosy.agent.node import Node
    from argosy.agent.sharing import Sharing

_FULL_BYTES = 256 << 10  # a disk with less room is full


class Supervision:
    """The ranks of a node, who wants to hear of them, and the means to look after them. Its parts run on one
    event loop; nothing in them blocks for longer than a file operation."""

    def __init__(
        self, root: str, node: Node, boot_id: str, loop: asyncio.AbstractEventLoop, shares: Sharing
    ) -> None:
        self.root = root
        self.home = root + "/home"
        self.folder = root + "/ranks"
        self.node_name = node.name
        self.boot_id = boot_id
        self.loop = loop
        self.sharing = shares
        stat = os.stat(root)
        # Tells this agent's ranks from those of its neighbours.
        self.tag = "%x-%x" % (stat.st_dev, stat.st_ino)
        self.shell = find_shell()
        self.reaper = processes.Reaper(loop)
        self.table = processes.ProcessTable()
        self.cgroups = cgroups.Cgroups(self.tag)
        self.secret_files = SecretFiles(self.tag)
        self.by_id: dict[str, Rank] = {}
        self.observers: set[Observer] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        #: No agent was here before, so nothing of its ranks can be alive.
        self.is_new = not any(map(os.path.exists, (self.folder, self.home, root + "/started")))
        os.makedirs(self.folder, mode=0o700, exist_ok=True)
        os.makedirs(self.home, exist_ok=True)
        self.journal = journal.Journal(root + "/started")

    def start_task(self, work: Coroutine[object, object, None]) -> None:
        task = self.loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def changed(self, rank: Rank) -> None:
        for observer in self.observers:
            observer.rank_changed(rank)

    def sweep(self, running: set[str]) -> None:
        """Remove groups and secret files of ranks that are gone. `running`: keys of those that run."""
        self.secret_files.sweep({key.rpartition(":")[2] for key in running})
        self.cgroups.sweep({group for rank in self.by_id.values() for group in rank.groups})

    def key(self, rank: Rank) -> str:
        return self.tag + ":" + rank.id

    def members(self, rank: Rank, snapshot: processes.Snapshot) -> set[int]:
        """The rank's processes, without its wrapper."""
        return (snapshot.members(self.key(rank), rank.pid) | cgroups.members(rank.groups)) - {rank.pid}

    def save(self, rank: Rank) -> None:
        try:
            rank.save(self.boot_id)
        except OSError as error:
            warn("cannot save the state of %s: %s" % (rank.id, reason_of(error)))

    def note(self, kind: str, rank_id: str) -> None:
        try:
            self.journal.note(kind, [rank_id])
        except OSError as error:
            warn("cannot note %s in the journal: %s" % (rank_id, reason_of(error)))

    def give_back(self, rank: Rank) -> None:
        held, rank.held = rank.held, None
        if held is not None:
            held.release()
            if held.has_instance:
                self.loop.run_in_executor(None, self.sharing.sweep)

    def disk_is_full(self) -> bool:
        try:
            disk = os.statvfs(self.folder)
        except OSError:
            return False
        return disk.f_bavail * disk.f_frsize < _FULL_BYTES

    def erase(self, folder: str) -> None:
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
