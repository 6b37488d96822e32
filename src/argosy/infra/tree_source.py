"""Where files come from that travel to nodes. The real one is `storage.blobs`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

from argosy.model.tree import TreeChange, pack_of


async def as_packed(chunks: AsyncIterator[tuple[str, bytes]]) -> AsyncIterator[bytes]:
    """Chunks as they travel."""
    async for each in chunks:
        for block in pack_of([each]):
            yield block


class TreeSource(Protocol):
    async def tree(self, digest: str) -> bytes:
        """The tree as JSON (`model.tree.Tree`). Raises KeyError when it is not there."""

    def chunks(self, digests: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        """Each chunk's digest and bytes. Raises KeyError when one is not there."""

    def packed(self, digests: Sequence[str]) -> AsyncIterator[bytes]:
        """The same as a pack (`model.tree.pack_of`), which may not be verified. Raises KeyError."""

    async def drop_tree(self, digest: str) -> None:
        """Forget a tree of which a chunk is gone, so that the next launch uploads what is missing."""


class TreeStore(TreeSource, Protocol):
    """Also takes trees in."""

    async def missing(self, digests: Sequence[str]) -> Sequence[str]:
        """Those chunks that are not here."""

    async def put(self, digest: str, data: bytes) -> None:
        """Store one chunk. Raises `disk-full`."""

    async def put_tree(self, body: bytes) -> str:
        """Store a tree whose chunks are here; its digest."""

    def free_bytes(self) -> int:
        """Room on the disk."""


class TaskFiles(TreeStore, Protocol):
    """Also what clients say of trees that they change."""

    async def change(self, since: str, digest: str) -> TreeChange:
        """How one tree becomes another. Raises KeyError when either is not there."""

    def when_expected(self, call: Callable[[str], None]) -> None:
        """`call` hears the digest of each tree that a client is about to change."""
