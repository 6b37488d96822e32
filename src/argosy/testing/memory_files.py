"""The files of tasks in memory (`infra.tree_source.TaskFiles`), which count what is asked of them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from argosy.infra.tree_source import as_packed
from argosy.model.tree import Tree, TreeChange, change_between


class MemoryFiles:
    """`trees` and `held` (chunks) by digest may be changed by tests, to lose something."""

    def __init__(self, trees: dict[str, bytes] | None = None, chunks: dict[str, bytes] | None = None) -> None:
        self.trees, self.held = trees if trees is not None else {}, chunks if chunks is not None else {}
        self.dropped: list[str] = []  # trees
        self.whole = 0  # how often a tree was read as a whole
        self.sent_bytes = 0  # of chunks
        self.expecting: list[Callable[[str], None]] = []

    def add(self, tree: Tree) -> str:
        self.trees[tree.digest()] = msgspec.json.encode(tree)
        return tree.digest()

    async def tree(self, digest: str) -> bytes:
        self.whole += 1
        return self.trees[digest]

    async def chunks(self, digests: Sequence[str]) -> AsyncIterator[tuple[str, bytes]]:
        for digest in digests:
            self.sent_bytes += len(self.held[digest])
            yield digest, self.held[digest]

    def packed(self, digests: Sequence[str]) -> AsyncIterator[bytes]:
        return as_packed(self.chunks(digests))

    async def drop_tree(self, digest: str) -> None:
        self.dropped.append(digest)
        self.trees.pop(digest, None)

    async def missing(self, digests: Sequence[str]) -> Sequence[str]:
        return [digest for digest in digests if digest not in self.held]

    async def put(self, digest: str, data: bytes) -> None:
        self.held[digest] = data

    async def put_tree(self, body: bytes) -> str:
        return self.add(msgspec.json.decode(body, type=Tree))

    def free_bytes(self) -> int:
        return 1 << 40

    async def change(self, since: str, digest: str) -> TreeChange:
        old, new = (msgspec.json.decode(self.trees[each], type=Tree) for each in (since, digest))
        return change_between(old, new, since)

    def when_expected(self, call: Callable[[str], None]) -> None:
        self.expecting.append(call)
