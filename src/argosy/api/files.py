"""Files that travel: chunks by digest, and trees of them."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.api.endpoint import Done, Reply, Request, endpoint
from argosy.model.tree import Tree, TreeChange, pack_of


class ChunksRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Which of these chunks does the server not have, and which of these trees does it have?"""

    digests: tuple[str, ...] = ()  # of chunks
    trees: tuple[str, ...] = ()
    changing: str = ""  # of these trees the one of which a change may follow


class ChunksReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    missing: tuple[str, ...] = ()  # chunks
    trees: tuple[str, ...] = ()  # those of the trees that are here, with all their chunks


class TreeReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    digest: str


class FileCalls:
    @endpoint("POST", "/chunks/missing", ChunksRequest, permission="files.write")
    def missing_chunks(
        self, digests: Sequence[str] = (), trees: Sequence[str] = (), changing: str = ""
    ) -> ChunksReply:
        """Which of these chunks the server does not have, and which of these trees it has. `changing`: of
        these trees the one of which a change may follow; nodes look meanwhile at what they have of it."""

    @endpoint("PUT", "/chunks", permission="files.write", pack=pack_of)
    def put_chunks(self, chunks: Sequence[tuple[str, bytes]]) -> Done:
        """Store chunks (body: for each `<hex sha256> <size>\\n` and the bytes); at most 64 MiB in all.

        `chunks`: (hex SHA-256, bytes) each.
        """

    @endpoint("POST", "/trees", Tree, permission="files.write")
    def put_tree(self, tree: Tree) -> TreeReply:
        """Store a tree whose chunks the server has."""

    @endpoint("POST", "/trees/change", TreeChange, permission="files.write")
    def change_tree(self, change: TreeChange) -> TreeReply:
        """Store what becomes of a tree that the server has. Errors: "not-found" when it has not."""
