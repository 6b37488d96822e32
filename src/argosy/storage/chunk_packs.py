"""Where chunks lie, and packs of them on their way there: a chunk exists when it is whole and is what its
name says.

Large chunks have files of their own; small ones lie many in a file, as they came (`chunk_index` says where):
twenty thousand of them cost the file system no more than a few.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import itertools
import os
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Final

from argosy.model.errors import ArgosyError
from argosy.model.tree import CHUNK_BYTES
from argosy.storage.chunk_index import ChunkIndex, Place
from argosy.storage.disk import INLINE_BYTES, disk_full, full_disk_said, is_digest, write_all

GATHER_BYTES: Final = 1 << 20  # bytes held in memory before they go to disk
SMALL_BYTES: Final = INLINE_BYTES  # larger chunks have files of their own
_PACK_BYTES: Final = 64 << 20
_HEADER_BYTES: Final = 64 + 1 + 20 + 1
_EMPTY: Final = hashlib.sha256(b"").hexdigest()


class _Large:
    """One chunk on its way to disk: a temporary file that becomes the chunk when its digest is right."""

    def __init__(self, store: ChunkFolder, digest: str, size: int) -> None:
        self.left = size
        self._digest, self._store = digest, store
        self._hash = hashlib.sha256()
        self._path = store.temporary()
        self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)

    def feed(self, data: memoryview) -> None:
        self._hash.update(data)
        self.left -= len(data)
        write_all(self._fd, data)

    def close(self) -> None:
        """Everything came: verify, and put it in its place."""
        _check(self._digest, self._hash.hexdigest())
        os.close(self._fd)
        self._fd = -1
        self._store.adopt(self._path, self._digest)

    def drop(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
        self._path.unlink(missing_ok=True)


class _Pack:
    """A pack file in the making. Its chunks are there after `settle`, as far as they were written."""

    def __init__(self, store: ChunkFolder) -> None:
        self._store = store
        self._rows: list[tuple[str, int, int]] = []
        self._whole = 0  # of the rows, those that were written
        self.size = 0
        self._fd = -1
        self._path = Path()

    def add(self, digest: str, at: int, size: int) -> None:
        self._rows.append((digest, at, size))

    def write(self, piece: memoryview) -> None:
        """All that was added until now is in it, or in what was written before."""
        if self._fd < 0:
            self._path = self._store.temporary()
            self._fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        write_all(self._fd, piece)
        self.size += len(piece)
        self._whole = len(self._rows)

    def settle(self) -> None:
        """Raises what storing raises."""
        fd, rows, self._fd = self._fd, self._rows[: self._whole], -1
        self._rows, self._whole, self.size = [], 0, 0
        if fd < 0:
            return
        try:
            if rows:
                os.ftruncate(fd, rows[-1][1] + rows[-1][2])  # what came behind the last one is no use
                self._store.adopt_pack(self._path, rows)
        finally:
            os.close(fd)
            self._path.unlink(missing_ok=True)


class Incoming:
    """A pack as it comes, cut anywhere: per chunk a line `<hex sha256> <size>`, then its bytes.

    Calls block. Each chunk that was complete stays, whatever becomes of the rest.
    """

    def __init__(self, folder: ChunkFolder) -> None:
        self._folder, self._pack = folder, _Pack(folder)
        self._header = b""
        self._digest, self._size, self._left = "", 0, 0  # of the chunk that has not come whole
        self._sum: hashlib._Hash | None = None
        self._large: _Large | None = None
        self._at, self._from = 0, 0  # in the piece: what is read of it, and where what is not written begins
        self._count = 0

    def feed(self, data: bytes | memoryview) -> None:
        """Raises `conflict` (wrong digest), `disk-full`, `spec-invalid` (not a pack), `too-large`."""
        piece = memoryview(data)
        self._at = self._from = 0
        with self._folder.full_said():
            try:
                while self._at < len(piece):
                    if self._large is not None:
                        self._go_on_large(self._large, piece)
                    elif self._sum is not None:
                        self._go_on(self._sum, piece)
                    else:
                        self._begin(piece)
            finally:
                self._write(piece)

    def _write(self, piece: memoryview) -> None:
        """What is read belongs to small chunks."""
        if self._from < self._at:
            self._pack.write(piece[self._from : self._at])
        self._from = self._at

    def _begin(self, piece: memoryview) -> None:
        """The line that names the next chunk, as far as it is here, and a small chunk that is."""
        line = self._header + bytes(piece[self._at : self._at + _HEADER_BYTES - len(self._header)])
        end = line.find(b"\n")
        if end < 0:
            if len(line) >= _HEADER_BYTES:
                raise _not_a_pack()
            self._header = line
            self._at = len(piece)
            return
        digest, size = _read_header(line[:end])
        first, is_cut = self._at + end + 1 - len(self._header), bool(self._header)
        self._header = b""
        if size > SMALL_BYTES:
            self._write(piece)
            self._large = _Large(self._folder, digest, size)
            self._at = self._from = first
            return
        if not is_cut and self._pack.size + first - self._from > _PACK_BYTES:
            self._write(piece)
            self._pack.settle()
        if size > len(piece) - first:
            self._digest, self._size, self._left = digest, size, size
            self._sum = hashlib.sha256()
            self._at = first
            return
        _check(digest, hashlib.sha256(piece[first : first + size]).hexdigest())
        self._pack.add(digest, self._pack.size + first - self._from, size)
        self._at = first + size
        self._count += 1

    def _go_on(self, found: hashlib._Hash, piece: memoryview) -> None:
        part = piece[self._at : self._at + self._left]
        found.update(part)
        self._left -= len(part)
        if self._left == 0:
            self._sum = None
            _check(self._digest, found.hexdigest())
            end = self._pack.size + self._at + len(part) - self._from
            self._pack.add(self._digest, end - self._size, self._size)
            self._count += 1
        self._at += len(part)

    def _go_on_large(self, large: _Large, piece: memoryview) -> None:
        part = piece[self._at : self._at + large.left]
        large.feed(part)
        self._at = self._from = self._at + len(part)
        if large.left == 0:
            large.close()
            self._large = None
            self._count += 1

    def end(self) -> int:
        """How many chunks came; they are stored. Raises `spec-invalid` when it was cut short."""
        if self._header or self._sum is not None or self._large is not None:
            raise ArgosyError("spec-invalid", "the upload was cut short", hint="repeat the command")
        with self._folder.full_said():
            self._pack.settle()
        return self._count

    def settle(self) -> None:
        """Nothing is half there, and all that came whole is."""
        if self._large is not None:
            self._large.drop()
            self._large = None
        with contextlib.suppress(ArgosyError, OSError, sqlite3.Error):
            self._pack.settle()


class ChunkFolder:
    """`root`/ab/cdef... has the large chunk abcdef..., `root`/packs small ones; only one server owns the
    folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._temporary, self._packs = root / "tmp", root / "packs"
        self._count = itertools.count()
        for folder in (root, self._temporary, self._packs):
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        for leftover in self._temporary.iterdir():  # of a server that was killed
            leftover.unlink(missing_ok=True)
        self._index = ChunkIndex(root / "index.db")
        self._folders = {path.name for path in root.iterdir() if len(path.name) == 2}
        last = max((int(path.name) for path in self._packs.iterdir()), default=0)
        self._next_pack = itertools.count(last + 1)

    # ---- storing

    def temporary(self) -> Path:
        return self._temporary / f"{os.getpid()}-{next(self._count)}"

    def adopt(self, path: Path, digest: str) -> None:
        """A file becomes a chunk."""
        target = self._file(digest)
        try:
            os.replace(path, target)  # noqa: PTH105  a Path costs more than the call
        except FileNotFoundError:
            Path(target).parent.mkdir(exist_ok=True, mode=0o700)
            self._folders.add(digest[:2])
            os.replace(path, target)  # noqa: PTH105

    def adopt_pack(self, path: Path, rows: Sequence[tuple[str, int, int]]) -> None:
        """A file becomes a pack with these chunks: digest, place, size."""
        number = next(self._next_pack)
        os.replace(path, self._pack(number))  # noqa: PTH105
        self._index.add(number, rows)

    @contextlib.contextmanager
    def full_said(self) -> Iterator[None]:
        """Raises `disk-full`."""
        with full_disk_said(self.root):
            try:
                yield
            except sqlite3.OperationalError as error:
                if "full" in str(error):
                    raise disk_full(self.root) from error
                raise

    async def put_pack(self, stream: AsyncIterator[bytes], *, limit_bytes: int) -> int:
        """Store a pack (`Incoming`). Returns how many came. Raises what `Incoming` does, and `too-large`."""
        incoming, total = Incoming(self), 0
        held: list[bytes] = []
        size = 0
        feeding: asyncio.Future[None] | None = None
        try:
            async for data in stream:
                total += len(data)
                if total > limit_bytes:
                    raise ArgosyError("too-large", f"a pack of chunks has at most {limit_bytes >> 20} MB")
                held.append(data)
                size += len(data)
                if size >= GATHER_BYTES:
                    block, held, size = b"".join(held), [], 0
                    before, feeding = feeding, None
                    if before is not None:
                        await before
                    feeding = asyncio.ensure_future(asyncio.to_thread(incoming.feed, block))
            if feeding is not None:
                await feeding
            rest, held = b"".join(held), []
            return await asyncio.to_thread(_finish, incoming, rest)
        except BaseException:
            await asyncio.shield(asyncio.ensure_future(_settle(incoming, feeding, b"".join(held))))
            raise

    def put(self, digest: str, data: bytes) -> None:
        """Store one chunk. Raises what `Incoming` does."""
        with self.taking() as incoming:
            incoming.feed(_header_of(digest, len(data)) + data)

    @contextlib.contextmanager
    def taking(self) -> Iterator[Incoming]:
        """A pack that comes from a thread. Raises what `Incoming` does."""
        incoming = Incoming(self)
        try:
            yield incoming
            incoming.end()
        finally:
            incoming.settle()

    # ---- reading

    def missing(self, digests: Sequence[str]) -> tuple[str, ...]:
        """Those that are not here. The others are safe from the sweep for its whole age."""
        wanted = list(dict.fromkeys(digests))
        _refuse_others(wanted)
        spans = self._index.spans(wanted)
        sizes = {pack: self._confirm(pack) for pack in spans}
        are_whole = all(end <= sizes[pack] for pack, (_, end) in spans.items())
        if are_whole and sum(count for count, _ in spans.values()) == len(wanted):
            return ()
        places = self._index.find(wanted) if spans else {}
        missing = []
        for digest in wanted:
            place = places.get(digest)
            if place is not None and place.at + place.size <= sizes.get(place.pack, -1):
                continue
            if digest[:2] not in self._folders:
                missing.append(digest)
                continue
            path = self._file(digest)
            try:
                if os.stat(path).st_size == 0 and digest != _EMPTY:  # noqa: PTH116
                    raise FileNotFoundError
                os.utime(path)
            except FileNotFoundError:
                missing.append(digest)
        return tuple(missing)

    def _confirm(self, pack: int) -> int:
        """Its size; -1: it is gone."""
        path = self._pack(pack)
        try:
            os.utime(path)
            return os.stat(path).st_size  # noqa: PTH116
        except FileNotFoundError:
            return -1

    def read(self, digest: str) -> bytes:
        """The chunk, verified. Raises KeyError, also for a damaged one, which is then forgotten."""
        for _ in range(2):  # it may be moved to another pack meanwhile
            some = self.read_some([digest])
            if some:
                return some[0][1]
        raise KeyError(digest)

    def read_some(self, digests: Sequence[str]) -> list[tuple[str, bytes]]:
        """The first of these chunks, verified, until they are many bytes or one is not here."""
        _refuse_others(digests)
        places = self._index.find(digests)
        found: list[tuple[str, bytes]] = []
        size = 0
        with _Packs(self._pack) as packs:
            for digest in digests:
                place = places.get(digest)
                try:
                    data = packs.read(place) if place is not None else self._read_file(digest)
                except FileNotFoundError:
                    break
                if hashlib.sha256(data).hexdigest() != digest:
                    self._forget(digest, place)
                    break
                found.append((digest, data))
                size += len(data)
                if size >= GATHER_BYTES:
                    break
        return found

    def read_packed(self, digests: Sequence[str]) -> tuple[list[bytes], int]:
        """The first of these chunks as a pack, not verified, and how many: until they are many bytes or one
        is not here. Those that came one behind the other are read in one piece."""
        _refuse_others(digests)
        places = self._index.find(digests)
        blocks: list[bytes] = []
        run: Place | None = None  # what follows each other in a pack, to be read
        count = total = 0
        with _Packs(self._pack) as packs, contextlib.suppress(FileNotFoundError):
            for digest in digests:
                place = places.get(digest)
                if place is None:
                    data = self._read_file(digest)
                    block, next_run = _header_of(digest, len(data)) + data, None
                else:
                    head = len(_header_of(digest, place.size))
                    block, next_run = b"", Place(place.pack, place.at - head, place.size + head)
                    if run is not None and (run.pack, run.at + run.size) == next_run[:2]:
                        next_run, run = Place(run.pack, run.at, run.size + next_run.size), None
                if run is not None:
                    blocks.append(packs.read(run))
                if block:
                    blocks.append(block)
                run, count = next_run, count + 1
                total += len(block) if place is None else place.size
                if total >= GATHER_BYTES:
                    break
            if run is not None:
                blocks.append(packs.read(run))
        return blocks, count

    def _read_file(self, digest: str) -> bytes:
        return Path(self._file(digest)).read_bytes()

    def _forget(self, digest: str, place: Place | None) -> None:
        if place is not None:
            self._index.drop([(bytes.fromhex(digest), place)])
        else:
            Path(self._file(digest)).unlink(missing_ok=True)

    def _file(self, digest: str) -> str:
        return f"{self.root}/{digest[:2]}/{digest[2:]}"

    def _pack(self, number: int) -> str:
        return f"{self._packs}/{number}"

    # ---- sweeping

    def sweep(self, used: Collection[bytes], before_s: float, *, dry_run: bool) -> int:
        """Remove chunks that are not used, where nobody has confirmed them since `before_s`; packs of which
        more than half is used keep what is not. Returns how many went, or would go."""
        gone = self._sweep_files(used, before_s, dry_run) + self._sweep_packs(used, before_s, dry_run)
        self._index.settle()
        return gone

    def _sweep_files(self, used: Collection[bytes], before_s: float, dry_run: bool) -> int:
        gone = 0
        for folder in self.root.iterdir():
            if len(folder.name) != 2:
                continue
            for path in folder.iterdir():
                if bytes.fromhex(folder.name + path.name) not in used and age_before(path, before_s):
                    if not dry_run:
                        path.unlink(missing_ok=True)
                    gone += 1
        return gone

    def _sweep_packs(self, used: Collection[bytes], before_s: float, dry_run: bool) -> int:
        old = {int(path.name): path for path in self._packs.iterdir() if age_before(path, before_s)}
        live: dict[int, list[tuple[str, Place]]] = {number: [] for number in old}
        dead: dict[int, list[tuple[bytes, Place]]] = {number: [] for number in old}
        for digest, place in self._index.all():
            if place.pack in old:
                if digest in used:
                    live[place.pack].append((digest.hex(), place))
                else:
                    dead[place.pack].append((digest, place))
        count = 0
        for number, path in old.items():
            kept_bytes = sum(place.size for _, place in live[number])
            if 2 * kept_bytes > path.stat().st_size or not age_before(path, before_s):
                continue
            count += len(dead[number])
            if not dry_run:
                self._move(live[number])
                self._index.drop(dead[number])
                path.unlink(missing_ok=True)
        return count

    def _move(self, chunks: Sequence[tuple[str, Place]]) -> None:
        """Into a new pack."""
        with self.taking() as incoming, _Packs(self._pack) as packs:
            for digest, place in chunks:
                data = packs.read(place)
                if hashlib.sha256(data).hexdigest() == digest:
                    incoming.feed(_header_of(digest, place.size) + data)


class _Packs:
    """Reads from packs, each of which is opened once."""

    def __init__(self, path_of: Callable[[int], str]) -> None:
        self._path_of = path_of
        self._open: dict[int, int] = {}

    def __enter__(self) -> _Packs:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in self._open.values():
            os.close(fd)

    def read(self, place: Place) -> bytes:
        """Raises FileNotFoundError."""
        fd = self._open.get(place.pack)
        if fd is None:
            fd = self._open[place.pack] = os.open(self._path_of(place.pack), os.O_RDONLY | os.O_CLOEXEC)
        return os.pread(fd, place.size, place.at)


async def _settle(incoming: Incoming, feeding: asyncio.Future[None] | None, rest: bytes) -> None:
    """What came whole stays."""
    with contextlib.suppress(ArgosyError, OSError, sqlite3.Error):
        if feeding is not None:
            await feeding
        await asyncio.to_thread(incoming.feed, rest)
    await asyncio.to_thread(incoming.settle)


def _finish(incoming: Incoming, rest: bytes) -> int:
    incoming.feed(rest)
    return incoming.end()


def age_before(path: Path, moment_s: float) -> bool:
    try:
        return path.stat().st_mtime < moment_s
    except FileNotFoundError:
        return False


def _header_of(digest: str, size: int) -> bytes:
    return f"{digest} {size}\n".encode()


def _read_header(line: bytes) -> tuple[str, int]:
    digest, _, size_text = line.decode("ascii", "replace").partition(" ")
    if not is_digest(digest) or not (size_text.isascii() and size_text.isdigit()):
        raise _not_a_pack()
    size = int(size_text)
    if str(size) != size_text:
        raise _not_a_pack()
    if size > CHUNK_BYTES:
        text = f"a chunk has at most {CHUNK_BYTES >> 20} MB, this one {size} bytes"
        raise ArgosyError("too-large", text)
    return digest, size


def _refuse_others(digests: Sequence[str]) -> None:
    """Raises `spec-invalid` for what names no chunk."""
    if not all(map(is_digest, digests)):
        raise ArgosyError(
            "spec-invalid", "a chunk is named by 64 hex digits of SHA-256", hint="update the client"
        )


def _check(digest: str, found: str) -> None:
    """Raises `conflict`."""
    if found != digest:
        raise ArgosyError(
            "conflict",
            f"a chunk was named {digest[:12]}... and its content is {found[:12]}...",
            hint="a file changed while it was read; repeat the command",
        )


def _not_a_pack() -> ArgosyError:
    return ArgosyError(
        "spec-invalid",
        "the upload is not a pack of chunks",
        hint="each chunk follows a line `<sha256> <size>`",
    )
