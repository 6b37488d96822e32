from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from argosy.model.errors import ArgosyError
from argosy.model.tree import CHUNK_BYTES, Entry, Tree
from argosy.storage.blobs import BlobStore

LIMIT = 64 << 20


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def pack(*chunks: bytes) -> bytes:
    return b"".join(f"{sha(chunk)} {len(chunk)}\n".encode() + chunk for chunk in chunks)


async def pieces(data: bytes, size: int) -> AsyncIterator[bytes]:
    for at in range(0, len(data), size):
        yield data[at : at + size]


def code_of(error: pytest.ExceptionInfo[ArgosyError]) -> str:
    return error.value.code


def files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def chunk_files(folder: Path) -> list[Path]:
    """Files with chunks, without the index."""
    return [path for path in files(folder / "blobs") if not path.name.startswith("index.db")]


def spoil(folder: Path, data: bytes, other: bytes) -> None:
    """On the disk, a chunk is not any more what it was."""
    for path in chunk_files(folder):
        if data in path.read_bytes():
            path.write_bytes(path.read_bytes().replace(data, other))


@pytest.mark.parametrize("size", [1, 7, 64 << 10])
def test_a_pack_is_stored_however_it_is_cut(tmp_path: Path, size: int) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        chunks = [b"", b"a", os.urandom(3000), b"\n\n" * 50]
        assert await blobs.missing([sha(chunk) for chunk in chunks]) == tuple(sha(chunk) for chunk in chunks)
        assert await blobs.put_pack(pieces(pack(*chunks), size), limit_bytes=LIMIT) == 4
        assert await blobs.missing([sha(chunk) for chunk in chunks]) == ()
        for chunk in chunks:
            assert await blobs.read(sha(chunk)) == chunk

    asyncio.run(run())


def test_a_large_chunk_goes_through_threads(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        chunk = os.urandom(CHUNK_BYTES)
        await blobs.put_pack(pieces(pack(chunk, b"x"), 100_000), limit_bytes=LIMIT)
        assert [data async for _, data in blobs.chunks([sha(chunk), sha(b"x")])] == [chunk, b"x"]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (f"{sha(b'x')} 1\ny".encode(), "conflict"),
        (f"{sha(b'x')} 5\nxx".encode(), "spec-invalid"),
        (b"../../etc/passwd 1\nx", "spec-invalid"),
        (b"no end of line at all" * 10, "spec-invalid"),
        (f"{sha(b'x')} -1\nx".encode(), "spec-invalid"),
        (f"{sha(b'x')} {CHUNK_BYTES + 1}\nx".encode(), "too-large"),
    ],
)
def test_what_is_no_pack_is_refused_and_leaves_nothing(tmp_path: Path, body: bytes, code: str) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        good = pack(b"good")
        with pytest.raises(ArgosyError) as error:
            await blobs.put_pack(pieces(good + body, 16), limit_bytes=LIMIT)
        assert code_of(error) == code
        assert await blobs.read(sha(b"good")) == b"good"  # what was complete stays
        assert [path.read_bytes() for path in chunk_files(tmp_path)] == [pack(b"good")]

    asyncio.run(run())


def test_a_pack_over_the_limit_is_refused(tmp_path: Path) -> None:
    async def run() -> None:
        with pytest.raises(ArgosyError) as error:
            await BlobStore(tmp_path).put_pack(pieces(pack(b"x" * 2000), 100), limit_bytes=1000)
        assert code_of(error) == "too-large"

    asyncio.run(run())


def test_a_damaged_chunk_counts_as_missing(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        for chunk in (b"abc", b"def"):
            await blobs.put(sha(chunk), chunk)
        spoil(tmp_path, b"abc", b"abd")
        spoil(tmp_path, b"def", b"")
        assert await blobs.missing([sha(b"def")]) == (sha(b"def"),)
        with pytest.raises(KeyError):
            await blobs.read(sha(b"abc"))
        assert await blobs.missing([sha(b"abc")]) == (sha(b"abc"),)

    asyncio.run(run())


def test_chunks_come_back_as_a_pack_in_any_order(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        few = [os.urandom(1000 + number) for number in range(300)]
        large = [os.urandom(100_000), os.urandom(CHUNK_BYTES)]
        await blobs.put_pack(pieces(pack(*few[:200], large[0]), 70_001), limit_bytes=LIMIT)
        await blobs.put_pack(pieces(pack(*few[200:], b"", large[1]), 70_001), limit_bytes=LIMIT)
        for wanted in (few, few[::-1], [large[1], *few[100:250], b"", large[0]], []):
            blocks = [block async for block in blobs.packed([sha(chunk) for chunk in wanted])]
            assert b"".join(blocks) == pack(*wanted)
        with pytest.raises(KeyError):
            [block async for block in blobs.packed([sha(few[0]), sha(b"nowhere")])]
        # what follows each other is read in one piece
        assert len([block async for block in blobs.packed([sha(chunk) for chunk in few[:100]])]) == 1

    asyncio.run(run())


def test_packs_have_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("argosy.storage.chunk_packs._PACK_BYTES", 10_000)

    async def run() -> None:
        blobs = BlobStore(tmp_path)
        chunks = [os.urandom(1000) for _ in range(50)]
        await blobs.put_pack(pieces(pack(*chunks), 777), limit_bytes=LIMIT)
        assert 5 <= len(chunk_files(tmp_path)) <= 10
        digests = [sha(chunk) for chunk in chunks]
        assert [data async for _, data in blobs.chunks(digests)] == chunks
        assert b"".join([block async for block in blobs.packed(digests)]) == pack(*chunks)

    asyncio.run(run())


def test_the_sweep_makes_packs_smaller_of_which_little_is_used(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        chunks = [os.urandom(1000) for _ in range(20)]
        await blobs.put_pack(pieces(pack(*chunks), 10_000), limit_bytes=LIMIT)
        kept = await blobs.put_tree(msgspec.json.encode(tree_of(a=chunks[3], b=chunks[7])))
        for path in chunk_files(tmp_path):
            os.utime(path, (1, 1))
        sweeping = {"older_than_s": 3600.0, "now_s": time.time()}
        assert blobs.sweep({kept}, **sweeping, dry_run=True) == 18
        assert len(await blobs.missing([sha(chunk) for chunk in chunks[:1]])) == 0  # and it is confirmed
        assert blobs.sweep({kept}, **sweeping) == 0
        for path in chunk_files(tmp_path):
            os.utime(path, (1, 1))
        assert blobs.sweep({kept}, **sweeping) == 18
        assert sum(path.stat().st_size for path in chunk_files(tmp_path)) < 2500
        assert [await blobs.read(sha(chunks[at])) for at in (3, 7)] == [chunks[3], chunks[7]]
        assert len(await blobs.missing([sha(chunk) for chunk in chunks])) == 18

    asyncio.run(run())


@pytest.mark.parametrize("what", ["index", "packs"])
def test_without_its_index_or_a_pack_what_is_gone_comes_again(tmp_path: Path, what: str) -> None:
    async def run() -> None:
        await BlobStore(tmp_path).put(sha(b"abc"), b"abc")
        for path in files(tmp_path / "blobs"):
            if path.name == "index.db" and what == "index":
                path.write_bytes(b"no database at all" * 1000)
            elif what == ("packs" if path.parent.name == "packs" else "index"):
                path.unlink()
        blobs = BlobStore(tmp_path)
        assert await blobs.missing([sha(b"abc")]) == (sha(b"abc"),)
        with pytest.raises(KeyError):
            await blobs.read(sha(b"abc"))
        await blobs.put(sha(b"abc"), b"abc")
        assert await blobs.read(sha(b"abc")) == b"abc"
        assert await BlobStore(tmp_path).read(sha(b"abc")) == b"abc"

    asyncio.run(run())


def test_an_index_that_is_damaged_within_begins_anew(tmp_path: Path) -> None:
    async def run() -> None:
        chunks = [os.urandom(10) for _ in range(500)]
        digests = [sha(chunk) for chunk in chunks]
        blobs = BlobStore(tmp_path)
        await blobs.put_pack(pieces(pack(*chunks), 10_000), limit_bytes=LIMIT)
        blobs.sweep(set(), older_than_s=3600, now_s=time.time())  # what was written goes into the file itself
        file = tmp_path / "blobs" / "index.db"
        data = file.read_bytes()
        file.write_bytes(data[:4096] + os.urandom(len(data) - 4096))
        blobs = BlobStore(tmp_path)
        assert await blobs.missing(digests) == tuple(digests)
        await blobs.put_pack(pieces(pack(*chunks), 10_000), limit_bytes=LIMIT)
        assert await blobs.missing(digests) == ()

    asyncio.run(run())


def test_chunks_of_an_earlier_version_are_found(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "blobs" / sha(b"abc")[:2] / sha(b"abc")[2:]
        path.parent.mkdir(parents=True)
        path.write_bytes(b"abc")
        blobs = BlobStore(tmp_path)
        assert await blobs.missing([sha(b"abc")]) == ()
        assert await blobs.read(sha(b"abc")) == b"abc"
        assert [block async for block in blobs.packed([sha(b"abc")])] == [pack(b"abc")]

    asyncio.run(run())


def tree_of(**contents: bytes) -> Tree:
    return Tree(
        entries=tuple(
            Entry(path=path, kind="f", size=len(data), chunks=(sha(data),)) for path, data in contents.items()
        )
    )


def test_trees_come_back_as_they_were(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        tree = tree_of(a=b"1", b=b"2")
        body = msgspec.json.encode(tree)
        with pytest.raises(ArgosyError) as error:
            await blobs.put_tree(body)
        assert code_of(error) == "conflict"
        for chunk in (b"1", b"2"):
            await blobs.put(sha(chunk), chunk)
        digest = await blobs.put_tree(body)
        assert digest == tree.digest()
        assert blobs.has_tree(digest)
        assert msgspec.json.decode(await blobs.tree(digest), type=Tree) == tree
        assert sha(await blobs.tree(digest)) == digest
        assert not blobs.has_tree("0" * 64)
        assert not blobs.has_tree("../x")
        for digest in ("0" * 64, "../x"):
            with pytest.raises(KeyError):
                await blobs.tree(digest)

    asyncio.run(run())


@pytest.mark.parametrize(
    ("entry", "code"),
    [
        (Entry(path="../x", kind="d"), "path-escapes"),
        (Entry(path="/x", kind="d"), "path-escapes"),
        (Entry(path="a//b", kind="d"), "path-escapes"),
        (Entry(path="a/../b", kind="d"), "path-escapes"),
        (Entry(path="", kind="d"), "path-escapes"),
        (Entry(path="x", kind="l", target=""), "spec-invalid"),
        (Entry(path="x", kind="s"), "spec-invalid"),
        (Entry(path="x", kind="f", size=5), "spec-invalid"),
        (Entry(path="there/x", kind="d"), "path-escapes"),
        (Entry(path="there", kind="d"), "spec-invalid"),
    ],
)
def test_trees_that_no_scanner_makes_are_refused(tmp_path: Path, entry: Entry, code: str) -> None:
    async def run() -> None:
        tree = Tree(entries=(Entry(path="there", kind="l", target="sub"), entry))
        with pytest.raises(ArgosyError) as error:
            await BlobStore(tmp_path).put_tree(msgspec.json.encode(tree))
        assert code_of(error) == code

    asyncio.run(run())


def test_the_sweep_takes_only_what_is_old_and_unused(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        for chunk in (b"kept", b"unused", b"confirmed", b"of an old tree"):
            await blobs.put(sha(chunk), chunk)
        kept = await blobs.put_tree(msgspec.json.encode(tree_of(a=b"kept")))
        old = await blobs.put_tree(msgspec.json.encode(tree_of(a=b"of an old tree")))
        for path in [*chunk_files(tmp_path), *files(tmp_path / "trees")]:
            os.utime(path, (1, 1))
        await blobs.missing([sha(b"confirmed")])
        assert blobs.sweep({kept}, older_than_s=3600, now_s=time.time()) == 3
        assert await blobs.missing([sha(b"kept"), sha(b"confirmed")]) == ()
        assert len(await blobs.missing([sha(b"unused"), sha(b"of an old tree")])) == 2
        assert not blobs.has_tree(old)

    asyncio.run(run())


def test_the_file_of_a_tree_is_a_chunk_like_any_other(tmp_path: Path) -> None:
    """A workdir may hold the server's state folder, and in it the stored trees."""

    async def run() -> None:
        blobs = BlobStore(tmp_path)
        await blobs.put(sha(b"1"), b"1")
        body = await blobs.tree(await blobs.put_tree(msgspec.json.encode(tree_of(a=b"1"))))
        assert await blobs.missing([sha(body)]) == (sha(body),)
        with pytest.raises(ArgosyError) as error:
            await blobs.put_tree(msgspec.json.encode(tree_of(t=body)))
        assert code_of(error) == "conflict"
        await blobs.put(sha(body), body)
        assert await blobs.read(sha(body)) == body
        assert blobs.has_tree(await blobs.put_tree(msgspec.json.encode(tree_of(t=body))))

    asyncio.run(run())


@pytest.mark.parametrize("left", [b"", b'{"entries":[]}'])
def test_a_damaged_tree_is_not_there_and_comes_again(tmp_path: Path, left: bytes) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        await blobs.put(sha(b"1"), b"1")
        body = msgspec.json.encode(tree_of(a=b"1"))
        digest = await blobs.put_tree(body)
        (tmp_path / "trees" / f"{digest}.json").write_bytes(left)
        with pytest.raises(KeyError):
            await blobs.tree(digest)
        assert not blobs.has_tree(digest)
        assert await blobs.put_tree(body) == digest
        assert blobs.has_tree(digest)

    asyncio.run(run())


def test_a_tree_without_its_chunks_is_dropped_and_uploaded_again(tmp_path: Path) -> None:
    async def run() -> None:
        blobs = BlobStore(tmp_path)
        await blobs.put(sha(b"1"), b"1")
        digest = await blobs.put_tree(msgspec.json.encode(tree_of(a=b"1")))
        spoil(tmp_path, b"1", b"x")
        with pytest.raises(KeyError):
            [data async for data in blobs.chunks([sha(b"1")])]
        await blobs.drop_tree(digest)
        await blobs.drop_tree("../x")
        assert not blobs.has_tree(digest)
        assert await blobs.missing([sha(b"1")]) == (sha(b"1"),)

    asyncio.run(run())


def test_leftovers_of_a_killed_server_go(tmp_path: Path) -> None:
    BlobStore(tmp_path)
    (tmp_path / "blobs" / "tmp" / "1-1").write_bytes(b"half")
    BlobStore(tmp_path)
    assert files(tmp_path) == []
