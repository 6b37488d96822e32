"""Folders that nodes reach through the server: streams that are held ready for the tools that mount them.

A stream is opened from here, over the connection that there is to the node's agent anyway: nothing listens on
a network. When the tool connects it is used, and another one is opened in its place. A server that starts
anew opens them again for all that runs.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, NamedTuple, Protocol, cast

from argosy.infra.agent_port import AgentDirectory, AgentPort, DataSink, Duplex, SendOrder, Shape
from argosy.infra.border import BorderError, RequestRefused
from argosy.infra.buckets import Bucket
from argosy.model.kinds import task_of
from argosy.model.kinds.job import job_label
from argosy.model.mounts import ServedFolder, in_workdir, storage_of
from argosy.model.rows import Node, Workload
from argosy.model.task import StorageMount
from argosy.model.units import many, render_bytes
from argosy.store import Store

_log = logging.getLogger(__name__)

_READY: Final = 2  # streams of one mount that wait for the tool
_PAUSE_S: Final = 0.2
_PAUSE_MAX_S: Final = 10.0


class Mounted(NamedTuple):
    """What is mounted on a node, and for whom."""

    job: Workload
    node: Node
    mount: StorageMount


class WentBack(NamedTuple):
    """What a node's copy of a folder gave back. Paths are within what is mounted."""

    files: int = 0
    bytes: int = 0
    removed: int = 0
    beside: tuple[tuple[str, str], ...] = ()  # changed on both sides: the path, and where the node's is now
    stayed: tuple[str, ...] = ()  # removed on the node, and not in the folder
    left: tuple[tuple[str, str], ...] = ()  # the path, and why it did not get there
    links: int = 0
    modes: int = 0  # of files whose bytes are as they were


class HasShape(Protocol):
    """A folder as a bucket: once it was listed, what there is besides bytes."""

    shape: Shape


class FolderSink(DataSink, Protocol):
    """Takes the changes of one node's copy."""

    def went(self) -> WentBack: ...


class ServesFolders(Protocol):
    """What the server has of folders. Each call is decided by what their user may do then."""

    def bucket(self, mount: ServedFolder) -> Bucket:
        """Its files, for copies; keys for a mount, with the door `link`."""

    def sink(self, mount: ServedFolder, label: str) -> FolderSink:
        """`label`: in names of files that were changed on both sides, as `job-7-node-0`."""

    async def serve(self, mount: ServedFolder, duplex: Duplex, begun: Callable[[], None]) -> None:
        """One connection of the tool that mounts it, until its end. `begun` when it has come."""


class FolderLinks:
    """Of one server."""

    def __init__(self, agents: AgentDirectory, serves: Callable[[], ServesFolders | None]) -> None:
        self._agents, self._serves = agents, serves
        self._held: dict[tuple[str, str], tuple[Mounted, list[asyncio.Task[None]]]] = {}
        self._serving: set[asyncio.Task[None]] = set()

    def keep(self, what: Mounted) -> None:
        """From now on there are streams for it."""
        key = what.node.id, what.mount.target
        held = self._held.get(key)
        if held is not None and held[0].mount == what.mount:
            return
        self.drop(key)
        self._held[key] = (what, [asyncio.ensure_future(self._hold(what)) for _ in range(_READY)])

    def drop(self, key: tuple[str, str]) -> None:
        """By node and target: its streams go."""
        _, tasks = self._held.pop(key, (None, ()))
        for task in tasks:
            task.cancel()

    def close(self) -> None:
        for key in list(self._held):
            self.drop(key)
        for task in self._serving:
            task.cancel()

    async def _hold(self, what: Mounted) -> None:
        """One stream after another, until cancelled."""
        pause_s = _PAUSE_S
        while True:
            try:
                agent = await self._agents.get(what.node)
                duplex = await agent.lend(in_workdir(what.mount.target))
            except (BorderError, OSError) as error:
                _log.debug("no stream for %s on %s: %s", what.mount.target, what.node.id, error)
                await asyncio.sleep(pause_s)
                pause_s = min(_PAUSE_MAX_S, pause_s * 2)
                continue
            pause_s = _PAUSE_S
            begun = asyncio.Event()
            serving = asyncio.ensure_future(self._serve(what, duplex, begun))
            self._serving.add(serving)
            serving.add_done_callback(self._serving.discard)
            waiting = asyncio.ensure_future(begun.wait())
            try:
                await asyncio.wait({serving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            finally:
                waiting.cancel()
                if not begun.is_set():
                    serving.cancel()
            if not begun.is_set():
                await asyncio.sleep(pause_s)  # the line was lost

    async def _serve(self, what: Mounted, duplex: Duplex, begun: asyncio.Event) -> None:
        serves = self._serves()
        try:
            if serves is not None:
                await serves.serve(cast(ServedFolder, what.mount), duplex, begun.set)
        except (BorderError, OSError) as error:
            _log.debug("a stream for %s on %s ended: %s", what.mount.target, what.node.id, error)
        finally:
            await duplex.close()


class FolderCopies:
    """Copies of folders on nodes that cannot mount them. `tells`: a text for those who look at a job."""

    def __init__(self, store: Store, tells: Callable[[Workload, str], Awaitable[None]]) -> None:
        self._store, self._say = store, tells
        self.folders: Callable[[], ServesFolders | None] = lambda: None

    def served(self) -> ServesFolders | None:
        return self.folders()

    def bucket(self, mount: ServedFolder) -> Bucket:
        """Raises RequestRefused."""
        serves = self.folders()
        if serves is None:
            raise RequestRefused("storage", f"`{mount.target}`: this server has no folders")
        return serves.bucket(mount)

    async def is_free(self, agent: AgentPort, job: Workload, node: Node, mount: ServedFolder) -> bool:
        """Whether a copy may be made anew: nobody else works in the one that is there, and what was changed
        in it before is in the folder. Raises a border error."""
        rows = await self._store.snapshot()
        for attempt in rows.attempts.values():
            other = rows.workloads.get(attempt.workload_id)
            task = task_of(other) if other is not None and other.id != job.id else None
            here = attempt.is_live and any(place.node_id == node.id for place in attempt.placements)
            same = here and task is not None and any(each.target == mount.target for each in storage_of(task))
            if same and other is not None and attempt.running_ms:
                who = f"job {job_label(other)}"
                await self._say(job, f"node {node.index}: {mount.target} is the copy that {who} works in")
                return False
        await self.bring_back(agent, job, node.index, mount)
        return True

    async def bring_back(self, agent: AgentPort, job: Workload, index: int, mount: ServedFolder) -> None:
        """What changed in a node's copy of a folder is in the folder. Raises RequestRefused with what is
        not, and a border error."""
        serves = self.folders()
        if mount.read_only or serves is None:
            return
        sink = serves.sink(mount, f"{job.kind}-{job.number}-node-{index}")
        await agent.send(SendOrder(path=in_workdir(mount.target), changes=True), sink)
        went = sink.went()
        if text := went_text(index, mount, went):
            await self._say(job, text)
        if went.left:
            raise RequestRefused("storage", left_text(index, mount, went.left))


def went_text(index: int, mount: StorageMount, went: WentBack) -> str:
    """For people; "" when nothing was to be done."""
    said = []
    if went.files:
        said.append(f"{many(went.files, 'file')} ({render_bytes(went.bytes)}) went back")
    if went.links or went.modes:
        kinds = [f"{many(went.links, 'link')}" if went.links else ""]
        kinds += [f"the modes of {many(went.modes, 'file')}" if went.modes else ""]
        said.append(f"{' and '.join(filter(None, kinds))} went back")
    if went.removed:
        said.append(f"{many(went.removed, 'file')} went there, too")
    if went.beside:
        both = _named([f"`{path}` is `{beside}`" for path, beside in went.beside])
        said.append(f"changed on both sides, so that both are kept: the node's {both}")
    if went.stayed:
        kept = _named([f"`{path}`" for path in went.stayed])
        said.append(f"removed on the node and kept in the folder: {kept}")
    return f"node {index}: of {mount.target}, {'; '.join(said)}" if said else ""


def left_text(index: int, mount: StorageMount, left: Sequence[tuple[str, str]]) -> str:
    names = _named([f"`{path}`" for path, _ in left])
    return (
        f"`{mount.target}`: {many(len(left), 'file')} did not get from node {index} back to "
        f"{mount.sources[0]}: {names}: {left[0][1]}"
    )


def _named(texts: Sequence[str]) -> str:
    return ", ".join(texts[:5]) + (f" and {len(texts) - 5} more" if len(texts) > 5 else "")
