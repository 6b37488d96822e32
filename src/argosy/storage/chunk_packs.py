"""Where chunks lie, and packs of them on their way there: a chunk has its name when it is whole and is what
its name says. Small ones are stored many at a time, in a thread, while the next ones come."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from argosy.model.errors import ArgosyError
from argosy.model.tree import CHUNK_BYTES
from argosy.storage.disk import INLINE_BYTES, full_disk_said, is_digest, write_all

GATHER_BYTES: Final = 1 << 20  # bytes of an upload held in memory before they go to disk
_FEW: Final = 256  # chunks that are stored in one step
_HEADER_BYTES: Final = 64 + 1 + 20 + 1


class _Incoming:
    """One chunk on its way to disk: a temporary file that becomes the chunk when its digest is right."""

    def __init__(self, store: ChunkFolder, digest: str, size: int) -> None:
        self.digest = digest
        self.left = size
        self._size = size
        self._store = store
        self._hash = hashlib.sha256()
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._path = store.temporary()
        self._fd = -1

    async def feed(self, data: bytes) -> None:
        self._pending.append(data)
        self._pending_bytes += len(data)
        self.left -= len(data)
        if self._pending_bytes >= GATHER_BYTES:
            await asyncio.to_thread(self._flush)

    async def close(self) -> None:
        """Everything came: verify, and put it in its place."""
        if self._pending_bytes > INLINE_BYTES:
            await asyncio.to_thread(self._finish)
        else:
            self._finish()

    def drop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        with full_disk_said(self._store.root):
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            for piece in self._pending:
                self._hash.update(piece)
                write_all(self._fd, piece)
        self._pending.clear()
        self._pending_bytes = 0

    def _finish(self) -> None:
        self._flush()
        found = self._hash.hexdigest()
        _check(self.digest, found)
        os.close(self._fd)
        self._fd = -1
        self._store.adopt(self._path, self.digest)


class _Small:
    """A chunk that is held until it has come, and then goes to the disk with others."""

    def __init__(self, few: _Few, digest: str, size: int) -> None:
        self._few, self._digest, self.left = few, digest, size
        self._pieces: list[bytes] = []

    async def feed(self, data: bytes) -> None:
        self._pieces.append(data)
        self.left -= len(data)

    async def close(self) -> None:
        await self._few.add(self._digest, b"".join(self._pieces))

    def drop(self) -> None:
        self._pieces.clear()


class _Few:
    """Small chunks of a pack: a thread stores some while the next ones come."""

    def __init__(self, store: ChunkFolder) -> None:
        self._store = store
        self._held: list[tuple[str, bytes]] = []
        self._bytes = 0
        self._storing: asyncio.Future[None] | None = None

    async def add(self, digest: str, data: bytes) -> None:
        self._held.append((digest, data))
        self._bytes += len(data)
        if self._bytes >= GATHER_BYTES or len(self._held) >= _FEW:
            await self._begin()

    async def _begin(self) -> None:
        storing, self._storing = self._storing, None
        if storing is not None:
            await storing
        if self._held:
            held, self._held, self._bytes = self._held, [], 0
            self._storing = asyncio.ensure_future(asyncio.to_thread(self._store.put_few, held))

    async def stored(self) -> None:
        """All that was added is. Raises what storing it raises."""
        await self._begin()
        if self._storing is not None:
            await self._storing

    async def settle(self) -> None:
        """As `stored`, where something else has gone wrong already."""
        for _ in range(2):  # what is under way, and what is held
            with contextlib.suppress(ArgosyError, OSError):
                await self.stored()


class _Pack:
    """A pack as it comes, cut anywhere."""

    def __init__(self, folder: ChunkFolder) -> None:
        self._folder, self._few = folder, _Few(folder)
        self._header = bytearray()
        self._incoming: _Incoming | _Small | None = None
        self._count = 0

    async def feed(self, data: bytes) -> None:
        at = 0
        while at < len(data):
            if self._incoming is None:
                at = self._begin(data, at)
            if self._incoming is None:
                return
            piece = data[at : at + self._incoming.left]
            at += len(piece)
            await self._incoming.feed(piece)
            if self._incoming.left == 0:
                await self._incoming.close()
                self._incoming = None
                self._count += 1

    def _begin(self, data: bytes, at: int) -> int:
        """The line that names the next chunk, as far as it is here. Returns where it ends."""
        end = data.find(b"\n", at)
        self._header += data[at : end if end >= 0 else len(data)]
        if len(self._header) > _HEADER_BYTES:
            raise _not_a_pack()
        if end < 0:
            return len(data)
        self._incoming = self._folder.incoming(bytes(self._header), self._few)
        self._header.clear()
        return end + 1

    async def end(self) -> int:
        """How many chunks came; they are stored."""
        if self._header or self._incoming is not None:
            raise ArgosyError("spec-invalid", "the upload was cut short", hint="repeat the command")
        await self._few.stored()
        return self._count

    async def settle(self) -> None:
        """Nothing is half there."""
        if self._incoming is not None:
            self._incoming.drop()
        await self._few.settle()


class ChunkFolder:
    """`root`/ab/cdef... has the chunk abcdef...; only one server owns the folder. From one event loop."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temporary = root / "tmp"
        self._count = itertools.count()
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._temporary.mkdir(exist_ok=True, mode=0o700)
        for leftover in self._temporary.iterdir():  # of a server that was killed
            leftover.unlink(missing_ok=True)

    def path(self, digest: str) -> Path:
        """Where the chunk is, if it is. Raises `spec-invalid` when `digest` is none."""
        if not is_digest(digest):
            raise ArgosyError(
                "spec-invalid", "a chunk is named by 64 hex digits of SHA-256", hint="update the client"
            )
        return self.root / digest[:2] / digest[2:]

    def temporary(self) -> Path:
        return self._temporary / f"{os.getpid()}-{next(self._count)}"

    def adopt(self, path: Path, digest: str) -> None:
        with full_disk_said(self.root):
            _put_in_place(os.fspath(path), f"{self.root}/{digest[:2]}", digest[2:])

    async def put_pack(self, stream: AsyncIterator[bytes], *, limit_bytes: int) -> int:
        """Store a pack: per chunk a line `<hex sha256> <size>`, then its bytes. Returns how many.

        Each chunk that was complete stays, whatever becomes of the rest. Memory: about 2 MiB.
        Raises `too-large`, `conflict` (wrong digest), `disk-full`, `spec-invalid` (not a pack, or cut short).
        """
        pack, total = _Pack(self), 0
        try:
            async for data in stream:
                total += len(data)
                if total > limit_bytes:
                    raise ArgosyError("too-large", f"a pack of chunks has at most {limit_bytes >> 20} MB")
                await pack.feed(data)
            return await pack.end()
        finally:
            await pack.settle()

    def incoming(self, header: bytes, few: _Few | None = None) -> _Incoming | _Small:
        digest, _, size_text = header.decode("ascii", "replace").partition(" ")
        if not is_digest(digest) or not (size_text.isascii() and size_text.isdigit()):
            raise _not_a_pack()
        size = int(size_text)
        if size > CHUNK_BYTES:
            raise ArgosyError(
                "too-large", f"a chunk has at most {CHUNK_BYTES >> 20} MB, this one {size} bytes"
            )
        return _Small(few, digest, size) if few and size <= INLINE_BYTES else _Incoming(self, digest, size)

    def put_few(self, chunks: Sequence[tuple[str, bytes]]) -> None:
        """Store small chunks whose names are digests. Raises `conflict`, `disk-full`."""
        base, temporary = os.fspath(self.root), os.fspath(self.temporary())
        with full_disk_said(self.root):
            for digest, data in chunks:
                _check(digest, hashlib.sha256(data).hexdigest())
                try:
                    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
                    try:
                        write_all(fd, data)
                    finally:
                        os.close(fd)
                    _put_in_place(temporary, f"{base}/{digest[:2]}", digest[2:])
                except BaseException:
                    with contextlib.suppress(FileNotFoundError):
                        os.unlink(temporary)  # noqa: PTH108  a Path costs more than the call
                    raise


def _check(digest: str, found: str) -> None:
    """Raises `conflict`."""
    if found != digest:
        raise ArgosyError(
            "conflict",
            f"a chunk was named {digest[:12]}... and its content is {found[:12]}...",
            hint="a file changed while it was read; repeat the command",
        )


def _put_in_place(path: str, folder: str, name: str) -> None:
    target = f"{folder}/{name}"
    try:
        os.replace(path, target)  # noqa: PTH105  a Path costs more than the call
    except FileNotFoundError:
        Path(folder).mkdir(exist_ok=True, mode=0o700)
        os.replace(path, target)  # noqa: PTH105


def _not_a_pack() -> ArgosyError:
    return ArgosyError(
        "spec-invalid",
        "the upload is not a pack of chunks",
        hint="each chunk follows a line `<sha256> <size>`",
    )
