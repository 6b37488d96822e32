"""Content-addressed chunks and trees: what travels once is never sent again.

    <state>/blobs/               chunks, named by their SHA-256 (at most 8 MiB; `chunk_packs`)
    <state>/trees/<digest>.json  one `model.tree.Tree`

Nothing is fsynced: chunks and trees are verified again when they are read, and a damaged one (power loss) is
deleted and counts as missing, so the client uploads it again. A tree of which a chunk is gone is dropped by
who finds that (`drop_tree`), since a client asks for an unchanged tree as a whole. `missing`, `has_tree` and
`put_tree` touch what they confirm: the sweep deletes only what nobody confirmed for days, and no chunk of a
tree that stays, so an upload under way never loses what it was told exists.

A chunk and a tree may have the same digest: the file of a tree, sent in a folder, is a chunk. Nothing asks
for "either".
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
import posixpath
import re
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Final, Protocol

import msgspec

from argosy.model.errors import ArgosyError
from argosy.model.tree import CHUNK_BYTES, Tree, TreeChange, change_between, pack_of
from argosy.model.units import many
from argosy.storage.chunk_packs import ChunkFolder, Incoming, age_before
from argosy.storage.disk import is_digest, write_whole
from argosy.storage.tree_text import Changes, TreeText

_EMPTY: Final = hashlib.sha256(b"").hexdigest()
_READ_AT_ONCE: Final = 128  # chunks
#: Without these a path is as `normpath` writes it.
_ODD: Final = re.compile(r"//|/\.|\./|/$")
_TREE_ENTRIES_MAX: Final = 1_000_000


class Elsewhere(Protocol):
    """Other servers of the same database, which may have what was uploaded to them."""

    async def tree(self, digest: str) -> bytes | None:
        """A tree that one of them has, as JSON."""

    async def bring_chunks(self, digests: Sequence[str], blobs: BlobStore) -> None:
        """Store those of these chunks that any of them has."""


class BlobStore:
    """Chunks and trees below `root`; an `infra.tree_source.TreeSource`. All methods may be called from one
    event loop; `sweep` runs in a thread."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._trees = root / "trees"
        self.elsewhere: Elsewhere | None = None
        self.changes = Changes()
        self._trees.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._chunks = ChunkFolder(root / "blobs")

    async def put_pack(self, stream: AsyncIterator[bytes], *, limit_bytes: int) -> int:
        """As `ChunkFolder.put_pack`."""
        return await self._chunks.put_pack(stream, limit_bytes=limit_bytes)

    def taking_pack(self) -> AbstractContextManager[Incoming]:
        """As `ChunkFolder.taking`, for a thread."""
        return self._chunks.taking()

    async def missing(self, digests: Sequence[str]) -> tuple[str, ...]:
        """Those chunks that are not here. The others are safe from the sweep for its whole age."""
        found = await asyncio.to_thread(self._chunks.missing, digests)
        if found and self.elsewhere is not None:
            await self.elsewhere.bring_chunks(found, self)
            found = await asyncio.to_thread(self._chunks.missing, found)
        return found

    def free_bytes(self) -> int:
        """Room on the disk."""
        disk = os.statvfs(self.root)
        return disk.f_bavail * disk.f_frsize

    async def put(self, digest: str, data: bytes) -> None:
        """Store one chunk that is in memory."""
        await asyncio.to_thread(self._chunks.put, digest, data)

    async def read(self, digest: str) -> bytes:
        """The chunk, verified. Raises KeyError, also for a damaged one, which is then deleted."""
        try:
            return await self.own_chunk(digest)
        except KeyError:
            if self.elsewhere is None:
                raise
            await self.elsewhere.bring_chunks((digest,), self)
            return await self.own_chunk(digest)

    async def own_chunk(self, digest: str) -> bytes:
        """As `read`, of what is on this disk."""
        return await asyncio.to_thread(self._chunks.read, digest)

    async def chunks(self, digests: Iterable[str]) -> AsyncIterator[tuple[str, bytes]]:
        """The chunks, small ones read several at a time: what `AgentPort.put_chunks` takes. Raises
        KeyError."""
        left, at = list(digests), 0
        while at < len(left):
            some = await asyncio.to_thread(self._chunks.read_some, left[at : at + _READ_AT_ONCE])
            for each in some or [(left[at], await self.read(left[at]))]:
                yield each
            at += max(1, len(some))

    async def packed(self, digests: Sequence[str]) -> AsyncIterator[bytes]:
        """The chunks as a pack, in blocks, not verified: who takes them does it. Raises KeyError."""
        at = 0
        while at < len(digests):
            blocks, count = await asyncio.to_thread(
                self._chunks.read_packed, digests[at : at + _READ_AT_ONCE]
            )
            if not count:
                blocks, count = list(pack_of([(digests[at], await self.read(digests[at]))])), 1
            for block in blocks:
                yield block
            at += count

    async def put_tree(self, body: bytes) -> str:
        """Check and store a tree; its digest. Raises `spec-invalid`, `path-escapes`, and `conflict` when
        chunks are missing."""
        if self.elsewhere is not None:
            with contextlib.suppress(msgspec.MsgspecError):
                await self.missing(sorted(msgspec.json.decode(body, type=Tree).chunk_digests()))
        return await asyncio.to_thread(self._put_tree, body)

    def _put_tree(self, body: bytes) -> str:
        try:
            tree = msgspec.json.decode(body, type=Tree)
        except msgspec.ValidationError as error:
            raise ArgosyError("spec-invalid", f"not a tree: {error}") from None
        except msgspec.DecodeError as error:
            raise ArgosyError("spec-invalid", f"not JSON: {error}") from None
        check_tree(tree)
        self._refuse_missing(tree.chunk_digests())
        digest = tree.digest()
        write_whole(self._trees / f"{digest}.json", msgspec.json.encode(tree, order="deterministic"))
        return digest

    async def change_tree(self, change: TreeChange) -> str:
        """Store what becomes of a tree that is here; its digest. Raises `not-found` when it is not here, and
        what `put_tree` raises."""
        try:
            body = await self.own_tree(change.since)
            digest, full = await asyncio.to_thread(self._change_tree, body, change)
        except KeyError:
            text = "the tree that has changed is not on the server"
            raise ArgosyError(
                "not-found", text, hint="send all of it; repeating the command does that"
            ) from None
        self.changes.keep(digest, full)
        return digest

    def _change_tree(self, body: bytes, change: TreeChange) -> tuple[str, TreeChange]:
        check_tree(Tree(entries=change.entries))
        tree = TreeText(body)
        full = tree.change(change)
        self._refuse_missing({chunk for entry in change.entries for chunk in entry.chunks})
        text = tree.text()
        digest = hashlib.sha256(text).hexdigest()
        write_whole(self._trees / f"{digest}.json", text)
        return digest, full

    def _refuse_missing(self, chunks: Iterable[str]) -> None:
        missing = self._chunks.missing(list(chunks))
        if missing:
            raise ArgosyError(
                "conflict",
                f"not on the server: {many(len(missing), 'chunk')} of the tree",
                hint="upload them first; repeating the command does that",
            )

    async def tree(self, digest: str) -> bytes:
        """A stored tree as JSON, as the agent takes it. Raises KeyError (`infra.tree_source.TreeSource`)."""
        try:
            return await self.own_tree(digest)
        except KeyError:
            if not await self.holds_tree(digest):
                raise
            return await self.own_tree(digest)

    async def own_tree(self, digest: str) -> bytes:
        """As `tree`, of what is on this disk."""
        if not is_digest(digest):
            raise KeyError(digest)
        return await asyncio.to_thread(_read, digest, self._trees / f"{digest}.json")

    async def holds_tree(self, digest: str) -> bool:
        """Whether it is here, or can be brought with its chunks; confirms it against the sweep."""
        if self.has_tree(digest):
            return True
        if self.elsewhere is None or not is_digest(digest):
            return False
        body = await self.elsewhere.tree(digest)
        try:
            return body is not None and await self.put_tree(body) == digest
        except ArgosyError:  # a chunk is nowhere any more
            return False

    def has_tree(self, digest: str) -> bool:
        """Whether it is here; confirms it against the sweep."""
        if not is_digest(digest):
            return False
        path = self._trees / f"{digest}.json"
        try:
            os.utime(path)
            return path.stat().st_size > 0
        except FileNotFoundError:
            return False

    async def change(self, since: str, digest: str) -> TreeChange:
        """How one tree becomes another. Raises KeyError when either is not here."""
        known = self.changes.get(since, digest)
        if known is None:
            texts = await self.own_tree(since), await self.own_tree(digest)
            known = await asyncio.to_thread(_change_between, *texts, since)
            self.changes.keep(digest, known)
        return known

    def when_expected(self, call: Callable[[str], None]) -> None:
        """`call` hears the digest of each tree that a client is about to change."""
        self.changes.expecting.append(call)

    async def drop_tree(self, digest: str) -> None:
        """Forget a tree of which a chunk is gone, so that the next launch uploads what is missing."""
        if is_digest(digest):
            await asyncio.to_thread((self._trees / f"{digest}.json").unlink, missing_ok=True)

    def sweep(
        self, keep_trees: Collection[str], *, older_than_s: float, now_s: float, dry_run: bool = False
    ) -> int:
        """Delete trees that are not in `keep_trees`, and chunks of no tree, unless younger than
        `older_than_s`.

        Blocks: run it in a thread. Returns how many of them went, or (`dry_run`) would go.
        """
        before = now_s - older_than_s
        used: set[bytes] = set()
        gone = 0
        for path in self._trees.glob("*.json"):
            if path.stem not in keep_trees and age_before(path, before):
                if not dry_run:
                    path.unlink(missing_ok=True)
                gone += 1
                continue
            with contextlib.suppress(KeyError, msgspec.MsgspecError):
                tree = msgspec.json.decode(_read(path.stem, path), type=Tree)
                used.update(bytes.fromhex(digest) for digest in tree.chunk_digests())
        return gone + self._chunks.sweep(used, before, dry_run=dry_run)


def _read(digest: str, path: Path) -> bytes:
    """Raises KeyError, also for what is damaged, which goes."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise KeyError(digest) from None
    if hashlib.sha256(data).hexdigest() != digest:
        path.unlink(missing_ok=True)
        raise KeyError(digest)
    return data


def _change_between(old: bytes, new: bytes, since: str) -> TreeChange:
    one, other = (msgspec.json.decode(text, type=Tree) for text in (old, new))
    if one.is_file or other.is_file:
        raise KeyError(since)
    return change_between(one, other, since)


def check_tree(tree: Tree) -> None:
    """Refuses what an honest scanner never makes: paths that leave the tree, unknown kinds, wrong sizes."""
    if len(tree.entries) > _TREE_ENTRIES_MAX:
        raise ArgosyError("too-large", f"a tree has at most {_TREE_ENTRIES_MAX:,} entries")
    seen: set[str] = set()
    links = {entry.path for entry in tree.entries if entry.kind != "d"}
    for entry in tree.entries:
        path = entry.path
        above = path.rpartition("/")[0]
        if above in links:  # it would be written wherever the link leads
            raise ArgosyError("path-escapes", f"`{path}` is inside `{above}`, which is not a folder")
        if (
            not path
            or path.startswith("/")
            or "\0" in path
            or (_ODD.search(path) and posixpath.normpath(path) != path)
            or path in (".", "..")
            or path.startswith("../")
        ):
            raise ArgosyError("path-escapes", f"`{path}` is not a path inside a tree")
        if path in seen:
            raise ArgosyError("spec-invalid", f"`{path}` is twice in the tree")
        seen.add(path)
        if entry.kind not in ("f", "d", "l"):
            raise ArgosyError("spec-invalid", f"`{path}` is of unknown kind `{entry.kind}`")
        expected = -(-entry.size // CHUNK_BYTES) if entry.kind == "f" else 0
        if len(entry.chunks) != expected and not (entry.size == 0 and entry.chunks == (_EMPTY,)):
            raise ArgosyError(
                "spec-invalid", f"`{path}` has {many(len(entry.chunks), 'chunk')}, not {expected}"
            )
        if entry.kind == "l" and (not entry.target or "\0" in entry.target):
            raise ArgosyError("spec-invalid", f"the link `{path}` leads nowhere")
