"""Workdirs and local mounts on nodes: of a tree that replaces another one only what differs travels.

What lies at each target is remembered as it was placed, so that the change is told without asking first;
the node refuses it where something else lies there, and gets the whole tree. While a client still looks for
what it has changed in a tree (`expect`), the nodes look at what they have of it.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from argosy.infra.agent_port import AgentDirectory, AgentPort, HeldTree, PlacedChange
from argosy.infra.border import BorderError, RequestRefused, Transient
from argosy.infra.tree_source import TaskFiles, TreeSource
from argosy.model.rows import Node
from argosy.model.tree import CHANGE_MAX, CHUNK_BYTES, Entry, Tree, needed_chunks

_REMEMBERED: Final = 10_000  # targets
_NODES_TOLD: Final = 64  # of one tree that is about to change
_AT_ONCE_BYTES: Final = 8 << 20  # of chunks that travel with the change


class TreePlacing:
    """`place` is safe to repeat, and for several nodes at once."""

    def __init__(self, files: TaskFiles | None, agents: AgentDirectory) -> None:
        self._files, self._agents = files, agents
        self._lying: collections.OrderedDict[tuple[str, str], tuple[Node, str]] = collections.OrderedDict()
        self._looking: set[asyncio.Task[None]] = set()
        if files is not None:
            files.when_expected(self.expect)

    async def place(self, agent: AgentPort, node: Node, target: str, digest: str) -> None:
        """Raises RequestRefused, other border errors, and what the store of files raises."""
        files = self._files
        assert files is not None
        since = self._lying.pop((node.id, target), (node, ""))[1]
        if since in ("", digest) or not await self._change(agent, target, since, digest):
            held = await agent.held_tree(target, digest)
            lying, told = held.digest, {since, digest, ""}  # no use to tell these
            if lying != digest and (lying in told or not await self._change(agent, target, lying, digest)):
                try:
                    await whole_tree(agent, files, target, digest, held)
                except KeyError:
                    await files.drop_tree(digest)  # a client that asks for it uploads again
                    raise RequestRefused(
                        "workdir", "the uploaded files are gone from the server; launch again"
                    ) from None
        self._lying[node.id, target] = node, digest
        if len(self._lying) > _REMEMBERED:
            self._lying.popitem(last=False)

    async def _change(self, agent: AgentPort, target: str, since: str, digest: str) -> bool:
        """Whether that was enough."""
        assert self._files is not None
        try:
            change = await self._files.change(since, digest)
            if len(change.entries) + len(change.removed) > CHANGE_MAX:
                return False
            wanted = list(dict.fromkeys(chunk for entry in change.entries for chunk in entry.chunks))
            if _size_of(change.entries) > _AT_ONCE_BYTES:
                await agent.put_chunks(self._files.chunks(await agent.missing_chunks(wanted)))
                wanted = []
            chunks = [each async for each in _few(self._files.chunks(wanted))]
        except KeyError:
            return False
        order = PlacedChange(
            target=target, since=since, digest=digest,
            entries=change.entries, removed=change.removed, folders=change.folders,
        )  # fmt: skip
        try:
            return await agent.change_tree(order, chunks)
        except Transient:  # a chunk went meanwhile
            return False

    # ---- ahead of a change

    def expect(self, digest: str) -> None:
        """A client looks what has changed since this tree."""
        for (_, target), (node, lying) in list(self._lying.items()):
            if lying == digest and len(self._looking) < _NODES_TOLD:
                looking = asyncio.ensure_future(self._look(node, target))
                self._looking.add(looking)
                looking.add_done_callback(self._looking.discard)

    async def _look(self, node: Node, target: str) -> None:
        with contextlib.suppress(BorderError, TimeoutError, OSError):
            async with asyncio.timeout(10):
                await (await self._agents.get(node)).look_ahead(target)


async def whole_tree(agent: AgentPort, files: TreeSource, target: str, digest: str, held: HeldTree) -> None:
    """Make a tree appear at a target of which `held` was said. Raises KeyError when something of it is gone
    from the store, and border errors."""
    text = await files.tree(digest)
    tree = msgspec.json.decode(text, type=Tree)
    needed = needed_chunks(tree)
    missing = needed if held.is_bare else await agent.missing_chunks(list(needed))
    if held.takes and not target.startswith("/"):  # other nodes wait while files outside of the home come
        sizes = {chunk: needed[chunk] for chunk in missing}
        try:
            await agent.send_tree(text, target, digest, sizes, files.packed(list(sizes)))
        except RequestRefused as error:
            if error.field != "chunks":
                raise
            async for _ in files.chunks(list(sizes)):
                pass  # it finds the damaged one
            raise
        return
    if missing:
        await agent.put_chunks(files.chunks(list(missing)))
    await agent.place_tree(text, target, digest)


def _size_of(entries: Sequence[Entry]) -> int:
    return sum(entry.size for entry in entries)


async def _few(chunks: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[tuple[str, bytes]]:
    size = 0
    async for digest, data in chunks:
        size += len(data)
        assert size <= _AT_ONCE_BYTES + CHUNK_BYTES
        yield digest, data
