"""A folder or file by content: what client, server and agent agree on when files travel.

A tree is a list of entries sorted by path; a file is a list of chunks of `CHUNK_BYTES`, each named by its
SHA-256. Two trees with equal content have equal digests, whoever scanned them.
"""

from __future__ import annotations

import hashlib
from typing import Final

import msgspec

CHUNK_BYTES: Final = 8 << 20


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
