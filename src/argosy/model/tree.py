"""A folder or file by content: what client, server and agent agree on when files travel.

A tree is a list of entries sorted by path; a file is a list of chunks of `CHUNK_BYTES`, each named by its
SHA-256. Two trees with equal content have equal digests, whoever scanned them.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Final

import msgspec

CHUNK_BYTES: Final = 8 << 20
_BLOCK_BYTES: Final = 256 << 10
CHANGE_MAX: Final = 5_000  # entries; of larger changes the whole tree is told


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`path` is relative, with `/`, never with `..`. A name that is not UTF-8 is refused by the scanner."""

    path: str
    kind: str  # f | d | l
    mode: int = 0o644
    size: int = 0
    chunks: tuple[str, ...] = ()  # hex SHA-256 of each chunk (files)
    target: str = ""  # links


class Tree(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    entries: tuple[Entry, ...]
    is_file: bool = False  # the tree is one file, whose entry's path is its name

    def digest(self) -> str:
        """Hex SHA-256 over the entries."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()

    def chunk_digests(self) -> set[str]:
        return {digest for entry in self.entries for digest in entry.chunks}


class TreeChange(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How the tree `since` becomes another one."""

    since: str  # digest
    entries: tuple[Entry, ...] = ()  # new ones, others than before, and the folders above these
    removed: tuple[str, ...] = ()  # paths that are no more
    folders: tuple[str, ...] = ()  # in which nothing is any more


def changed(tree: Tree, change: TreeChange) -> Tree:
    """What becomes of the tree that `change` is from. Entries stay sorted."""
    entries = {entry.path: entry for entry in tree.entries}
    for path in change.removed:
        entries.pop(path, None)
    before = len(entries)
    entries.update((entry.path, entry) for entry in change.entries)
    if len(entries) == before:  # nothing is new: all have their places
        return Tree(entries=tuple(entries.values()))
    return Tree(entries=tuple(sorted(entries.values(), key=lambda entry: entry.path)))


def change_between(old: Tree, new: Tree, since: str) -> TreeChange:
    """What has to be told to whoever has `old`, whose digest is `since`."""
    before = {entry.path: entry for entry in old.entries}
    differing = [entry for entry in new.entries if before.pop(entry.path, None) != entry]
    change = TreeChange(since=since, entries=tuple(differing), removed=tuple(before))
    here = {entry.path for entry in change.entries}
    holding = {parent for path in (*here, *change.removed) for parent in folders_above(path)} - here
    # folders in which something is written get their modes again
    folders = [entry for entry in new.entries if entry.kind == "d" and entry.path in holding]
    entries = (*folders, *change.entries)
    return msgspec.structs.replace(change, entries=entries, folders=_gone(old, new, change))


def _gone(old: Tree, new: Tree, change: TreeChange) -> tuple[str, ...]:
    gone = {parent for path in change.removed for parent in (path, *folders_above(path))}
    if gone:
        gone.difference_update(entry.path for entry in new.entries)
        gone.difference_update(parent for entry in new.entries for parent in folders_above(entry.path))
        gone.difference_update(entry.path for entry in old.entries if entry.kind != "d")
    return tuple(sorted(gone))


def needed_chunks(tree: Tree) -> dict[str, int]:
    """Each chunk once, with its size, in the order in which files need them that are written by their paths,
    name by name."""
    sizes: dict[str, int] = {}
    for entry in sorted(tree.entries, key=lambda entry: entry.path.encode().split(b"/")):
        for index, digest in enumerate(entry.chunks):
            sizes.setdefault(digest, min(CHUNK_BYTES, entry.size - index * CHUNK_BYTES))
    return sizes


def folders_above(path: str) -> list[str]:
    """The folders on the way to a path.

    >>> folders_above("a/b/c")
    ['a', 'a/b']
    """
    pieces = path.split("/")
    return ["/".join(pieces[:count]) for count in range(1, len(pieces))]


def pack_of(chunks: Iterable[tuple[str, bytes]]) -> tuple[bytes, ...]:
    """Chunks (hex SHA-256, bytes) as they travel: for each a line `<digest> <size>`, then its bytes; in
    blocks, so that many small ones are few calls of the system."""
    blocks: list[bytes] = []
    held: list[bytes] = []
    size = 0
    for digest, data in chunks:
        held += (f"{digest} {len(data)}\n".encode(), data)
        size += len(data)
        if size >= _BLOCK_BYTES:
            blocks.append(b"".join(held))
            held, size = [], 0
    if held:
        blocks.append(b"".join(held))
    return tuple(blocks)
