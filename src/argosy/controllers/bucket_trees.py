"""Copies of what a job keeps, in a bucket: chunks and trees by content, and an index of those that count.

    PREFIX/index.json               the copies, the newest first
    PREFIX/trees/<digest>.json      one copy: its files, as chunks
    PREFIX/chunks/ab/cdef...        at most 8 MiB, named by its SHA-256

A copy counts when the index names it, which is written last. The index is the truth also for a server that
has lost its own memory: a job that names the prefix goes on from the newest copy.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from typing import Final

import msgspec

from argosy.controllers.retention import retained
from argosy.infra.buckets import Bucket, Extra, ObjectMissing
from argosy.infra.tree_source import as_packed
from argosy.model.kinds import kind_of, task_of
from argosy.model.kinds.job import job_spec
from argosy.model.kinds.kind import Checkpoint
from argosy.model.rows import Workload
from argosy.model.task import CheckpointRules
from argosy.model.tree import Tree

_PLENTY_BYTES: Final = 1 << 60


def place_of(job: Workload) -> str:
    """The URL of its copies; "": the server has them. Each task of a group has a folder of its own there."""
    task = task_of(job)
    if task is None or not task.checkpoints.to:
        return ""
    number = f"/{job.number}/" if kind_of(job).runs and job_spec(job).member is not None else ""
    return task.checkpoints.to.rstrip("/") + number if number else task.checkpoints.to


class _Index(msgspec.Struct, frozen=True, kw_only=True):
    copies: tuple[Checkpoint, ...] = ()


class BucketTrees:
    """A `infra.tree_source.TreeStore` below a prefix. Methods raise `BucketError`."""

    def __init__(self, bucket: Bucket, prefix: str) -> None:
        self._bucket = bucket
        self._prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._known: set[str] | None = None  # chunks that are there

    def _chunk(self, digest: str) -> str:
        return f"{self._prefix}chunks/{digest[:2]}/{digest[2:]}"

    def _tree(self, digest: str) -> str:
        return f"{self._prefix}trees/{digest}.json"

    # ---- as every store of trees

    async def missing(self, digests: Sequence[str]) -> Sequence[str]:
        known = await self._all_known()
        return [digest for digest in digests if digest not in known]

    async def _all_known(self) -> set[str]:
        if self._known is None:
            self._known = await asyncio.to_thread(self._list)
        return self._known

    def _list(self) -> set[str]:
        found: set[str] = set()
        top, after = f"{self._prefix}chunks/", ""
        while True:
            page = self._bucket.page(prefix=top, after=after)
            found.update(each.key[len(top) :].replace("/", "") for each in page.objects)
            after = page.after
            if not after:
                return found

    async def put(self, digest: str, data: bytes) -> None:
        known = await self._all_known()
        await asyncio.to_thread(self._bucket.write, self._chunk(digest), [data], Extra(size=len(data)))
        known.add(digest)

    async def put_tree(self, body: bytes) -> str:
        tree = msgspec.json.decode(body, type=Tree)
        digest = tree.digest()
        text = msgspec.json.encode(tree, order="deterministic")
        await asyncio.to_thread(self._bucket.write, self._tree(digest), [text], Extra(size=len(text)))
        return digest

    async def tree(self, digest: str) -> bytes:
        try:
            return await asyncio.to_thread(self._read, self._tree(digest))
        except ObjectMissing:
            raise KeyError(digest) from None

    async def read(self, digest: str) -> bytes:
        """One chunk, verified. Raises KeyError."""
        try:
            data = await asyncio.to_thread(self._read, self._chunk(digest))
        except ObjectMissing:
            raise KeyError(digest) from None
        if hashlib.sha256(data).hexdigest() != digest:
            raise KeyError(digest)
        return data

    def _read(self, key: str) -> bytes:
        return b"".join(self._bucket.read(key))

    async def chunks(self, digests: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        for digest in digests:
            yield digest, await self.read(digest)

    def packed(self, digests: Sequence[str]) -> AsyncIterator[bytes]:
        return as_packed(self.chunks(digests))

    async def drop_tree(self, digest: str) -> None:
        await asyncio.to_thread(self._bucket.remove, [self._tree(digest)])

    def free_bytes(self) -> int:
        return _PLENTY_BYTES

    # ---- which copies count

    async def copies(self) -> tuple[Checkpoint, ...]:
        """The newest first."""
        try:
            text = await asyncio.to_thread(self._read, f"{self._prefix}index.json")
        except ObjectMissing:
            return ()
        try:
            return msgspec.json.decode(text, type=_Index).copies
        except msgspec.MsgspecError:
            return ()

    async def note(self, made: Checkpoint, rules: CheckpointRules) -> tuple[Checkpoint, ...]:
        """A copy that is all here counts from now on; those that do not stay are removed. What stays."""
        before = [copy for copy in await self.copies() if copy.tree != made.tree]
        stay = retained([made, *before], rules)
        await self._keep(stay, [copy for copy in before if copy not in stay])
        return stay

    async def forget(self, trees: Sequence[str]) -> None:
        """These copies count no longer."""
        before = await self.copies()
        gone = [copy for copy in before if copy.tree in trees]
        await self._keep(tuple(copy for copy in before if copy not in gone), gone)

    async def _keep(self, stay: tuple[Checkpoint, ...], gone: Sequence[Checkpoint]) -> None:
        text = msgspec.json.encode(_Index(copies=stay))
        key = f"{self._prefix}index.json"
        await asyncio.to_thread(self._bucket.write, key, [text], Extra(size=len(text)))
        if not gone:
            return
        used: set[str] = set()
        for copy in stay:
            used |= await self._chunks_of(copy.tree)
        unused: set[str] = set()
        for copy in gone:
            unused |= await self._chunks_of(copy.tree) - used
        keys = [self._tree(copy.tree) for copy in gone] + [self._chunk(digest) for digest in sorted(unused)]
        await asyncio.to_thread(self._bucket.remove, keys)
        if self._known is not None:
            self._known -= unused

    async def _chunks_of(self, tree: str) -> set[str]:
        try:
            return msgspec.json.decode(await self.tree(tree), type=Tree).chunk_digests()
        except KeyError:
            return set()
