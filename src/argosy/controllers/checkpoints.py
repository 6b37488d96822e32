"""What managed jobs keep in ARGOSY_CHECKPOINT_DIR is copied to the server while they run, and put back where
they go on. The agent is asked what changed; only chunks that are not here travel.

Ranks on several nodes have a folder each: copies are merged by path, the lowest rank first, and every node of
the next attempt gets the whole. A failed copy never harms the job: it is left out and made later. Where all
nodes of a provider share a folder that outlives claims there is nothing to copy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from argosy.controllers.bucket_trees import BucketTrees, place_of
from argosy.controllers.job.environment import checkpoint_dir
from argosy.controllers.mounts import store_errors
from argosy.controllers.observed import Facts
from argosy.controllers.policies import is_copied
from argosy.controllers.retention import retained
from argosy.controllers.tree_placing import whole_tree
from argosy.controllers.view import Rows
from argosy.infra.agent_port import AgentDirectory, AgentPort
from argosy.infra.border import BorderError
from argosy.infra.buckets import OpensBuckets
from argosy.infra.tree_source import TreeStore
from argosy.model.errors import ArgosyError
from argosy.model.ids import Clock
from argosy.model.kinds import gangs
from argosy.model.kinds.job import job_state, job_task
from argosy.model.kinds.kind import Checkpoint
from argosy.model.phases import AttemptPhase, Outcome
from argosy.model.rows import Attempt, Node, Workload
from argosy.model.tree import Entry, Tree
from argosy.model.units import GIB, render_bytes
from argosy.store import Conflict, Store

_log = logging.getLogger(__name__)

_LOOK_S: Final = 5.0
_SETTLED_S: Final = 2.0  # a file that changed so shortly ago may be half written
BYTES_MAX: Final = 32 * GIB  # of one job
_SPARE_BYTES: Final = 2 * GIB  # of the server's disk are left free
_SAVE_LIMIT_S: Final = 900.0
_TRIES: Final = 3
_BUCKETS_MAX: Final = 1000  # jobs whose chunks in buckets are remembered


class CheckpointCopies:
    """Copies of one server. `shared_dirs`: by provider, "" where it has none."""

    def __init__(
        self,
        *,
        store: Store,
        agents: AgentDirectory,
        files: TreeStore | None,
        facts: Facts,
        clock: Clock,
        shared_dirs: Callable[[], Mapping[str, str]],
        every_s: float,
        stores: Callable[[], OpensBuckets] | None = None,
    ) -> None:
        self._store, self._agents, self._files = store, agents, files
        self._stores = stores
        self._in_buckets: dict[str, BucketTrees] = {}  # by job
        self._facts, self._clock, self._shared_dirs = facts, clock, shared_dirs
        self._every_s = every_s
        self._locks: dict[str, asyncio.Lock] = {}  # by job

    @property
    def are_made(self) -> bool:
        """Whether there is a place for them."""
        return self._files is not None

    def _files_of(self, job: Workload) -> TreeStore | None:
        """Where its copies are. Raises `BucketError`."""
        url = place_of(job)
        if not url or self._stores is None:
            return self._files
        if job.id not in self._in_buckets:
            opened = self._stores().open(url)
            while len(self._in_buckets) >= _BUCKETS_MAX:
                del self._in_buckets[next(iter(self._in_buckets))]
            self._in_buckets[job.id] = BucketTrees(opened.bucket, opened.key)
        return self._in_buckets[job.id]

    async def keep_saving(self, rows: Callable[[], Rows | None]) -> None:
        """Look at what runs, one folder after the other."""
        next_s: dict[str, float] = {}  # by attempt
        while self._files is not None:
            await asyncio.sleep(min(_LOOK_S, self._every_s))
            now_s = self._clock.monotonic_s()
            due: dict[str, float] = {}
            known = rows()
            for attempt in list(known.attempts.values()) if known is not None else ():
                assert known is not None
                job, nodes = known.workloads.get(attempt.workload_id), nodes_of(attempt, known)
                if job is None or not (attempt.phase is AttemptPhase.RUNNING or _has_notice(attempt)):
                    continue
                if is_copied(job, nodes, self._shared_dirs()):
                    # After a notice at once, so that little is left when its programs have ended.
                    first_s = now_s + self._every_s if attempt.phase is AttemptPhase.RUNNING else now_s
                    due[attempt.id] = min(next_s.get(attempt.id, first_s), first_s)
                    if due[attempt.id] <= now_s:
                        due[attempt.id] = now_s + self._every_s
                        await self.save(job, nodes, settled_s=_SETTLED_S)
            next_s = due

    async def save(self, job: Workload, nodes: Sequence[Node], *, settled_s: float) -> None:
        """Copy what the ranks on these nodes keep now. What fails is logged, and nothing else happens."""
        try:
            async with asyncio.timeout(_SAVE_LIMIT_S), self._locks.setdefault(job.id, asyncio.Lock()):
                await self._save(job, nodes, settled_s)
        except (BorderError, ArgosyError, TimeoutError, OSError, KeyError, ValueError) as error:
            _log.info("what %s keeps is not copied now: %s", job.id, error or type(error).__name__)

    async def _save(self, job: Workload, nodes: Sequence[Node], settled_s: float) -> None:
        files = self._files_of(job)
        assert files is not None
        target = checkpoint_dir(job, "")
        before = await self._known(job, files)
        entries: dict[str, Entry] = {}
        sources: dict[str, AgentPort] = {}
        for node in nodes:
            link = self._facts.link(node.id)
            if link is None or not link.up:
                continue
            agent = await self._agents.get(node)
            kept = await agent.kept(target, settled_s)
            for path in kept.unsettled:  # the last whole version of it
                if path in before:
                    entries.setdefault(path, before[path])
            for entry in kept.entries:
                entries.setdefault(entry.path, entry)
                for digest in entry.chunks:
                    sources.setdefault(digest, agent)
        tree = Tree(entries=tuple(entries[path] for path in sorted(entries)))
        if not any(entry.kind == "f" for entry in tree.entries):
            return
        size_bytes = sum(entry.size for entry in tree.entries)
        if size_bytes > BYTES_MAX and files is self._files:
            raise ArgosyError(
                "too-large",
                f"it is {render_bytes(size_bytes)}, and at most {render_bytes(BYTES_MAX)} are kept",
            )
        last = job_state(job).checkpoint
        if last is not None and last.tree == tree.digest():
            return
        await fetch_tree(tree, sources, files)
        digest = await files.put_tree(msgspec.json.encode(tree))
        made = Checkpoint(tree=digest, at_ms=self._clock.now_ms(), size_bytes=size_bytes)
        if isinstance(files, BucketTrees):
            await files.note(made, job_task(job).checkpoints)
        await self._note(job.id, made)

    async def _known(self, job: Workload, files: TreeStore) -> dict[str, Entry]:
        """Entries of the last copy."""
        last = job_state(job).checkpoint
        if last is None:
            return {}
        try:
            tree = msgspec.json.decode(await files.tree(last.tree), type=Tree)
        except KeyError:
            return {}
        return {entry.path: entry for entry in tree.entries}

    async def _note(self, job_id: str, checkpoint: Checkpoint) -> None:
        """Write down which copy is the last, unless it is the same as before."""
        for _ in range(_TRIES):
            row = (await self._store.snapshot()).workloads.get(job_id)
            if row is None:
                return
            state = job_state(row)
            last = state.checkpoint
            if last is not None and last.tree == checkpoint.tree:
                return
            older = [copy for copy in (last, *state.older) if copy is not None]
            stay = retained([checkpoint, *older], job_task(row).checkpoints)
            try:
                await self._store.commit([row.with_status(checkpoint=stay[0], older=stay[1:])])
            except Conflict:
                continue
            return

    async def put_back(self, agent: AgentPort, job: Workload, node: Node) -> None:
        """The last copy appears on a node that the job has not run on; there is none where none was made.
        Raises a border error."""
        last = next((gang for gang in gangs(job)), None)
        in_bucket = bool(place_of(job))
        if last is None or (last.checkpoint is None and not in_bucket) or self._files is None:
            return
        if last.ran_on == node.claim_id or (self._shared_dirs().get(node.provider) and not in_bucket):
            return  # what lies there is newer
        with store_errors("checkpoints"):
            await self._put_back(agent, job, last.checkpoint)

    async def _put_back(self, agent: AgentPort, job: Workload, newest: Checkpoint | None) -> None:
        files = self._files_of(job)
        assert files is not None
        if isinstance(files, BucketTrees):  # it knows of copies that this server does not
            newest = next(iter(await files.copies()), newest)
        if newest is None:
            return
        target, digest = checkpoint_dir(job, ""), newest.tree
        try:
            held = await agent.held_tree(target, digest)
            if held.digest != digest:
                await whole_tree(agent, files, target, digest, held)
        except KeyError:
            _log.warning("the copy of what %s keeps is damaged: it starts without it", job.id)


async def fetch_tree(tree: Tree, sources: Mapping[str, AgentPort], files: TreeStore) -> None:
    """Bring the chunks of a tree that are missing from the agents that have them. Raises a border error, and
    "disk-full"."""
    missing = await files.missing(sorted(tree.chunk_digests()))
    if files.free_bytes() < _SPARE_BYTES + sum(
        entry.size for entry in tree.entries if not set(missing).isdisjoint(entry.chunks)
    ):
        raise ArgosyError("disk-full", "the server's disk has no room for it")
    by_agent: dict[int, tuple[AgentPort, list[str]]] = {}
    for digest in missing:
        agent = sources[digest]
        by_agent.setdefault(id(agent), (agent, []))[1].append(digest)
    for agent, digests in by_agent.values():
        async for digest, data in agent.kept_chunks(digests):
            await files.put(digest, data)


def _has_notice(attempt: Attempt) -> bool:
    return attempt.phase is AttemptPhase.ENDING and attempt.outcome is Outcome.PREEMPTED


def nodes_of(attempt: Attempt, rows: Rows) -> list[Node]:
    """By rank."""
    placed = sorted(attempt.placements, key=lambda place: place.rank)
    return [node for place in placed if (node := rows.nodes.get(place.node_id)) is not None]
