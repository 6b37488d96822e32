from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.model.errors import ArgosyError
from argosy.model.facts import LogChunk
from argosy.storage.logs import LogStore

RANK = "att-1.0"


def chunk(offset: int, data: bytes, rank_id: str = RANK) -> LogChunk:
    return LogChunk(rank_id=rank_id, offset=offset, data=data)


def test_appends_drop_repeats_and_refuse_gaps(tmp_path: Path) -> None:
    async def run() -> None:
        logs = LogStore(tmp_path)
        assert logs.stored(RANK) == 0
        await logs.write(chunk(0, b"hello "))
        await logs.write(chunk(0, b"hello world"))
        await logs.write(chunk(3, b"lo"))
        assert logs.stored(RANK) == 11
        with pytest.raises(ValueError, match="gap"):
            await logs.write(chunk(12, b"x"))
        assert await logs.read(RANK, 0, 100) == b"hello world"
        assert await logs.read(RANK, 6, 3) == b"wor"
        assert await logs.read(RANK, 50, 3) == b""
        assert logs.ranks_of("att-1") == [0]

    asyncio.run(run())


def test_the_file_is_the_cursor(tmp_path: Path) -> None:
    async def run() -> None:
        first = LogStore(tmp_path)
        first.mask(RANK, ["hunter2"])
        await first.write(chunk(0, b"pw hunter2 and hun"))
        assert first.stored(RANK) == 15  # `hun` is held back, so it is not counted
        again = LogStore(tmp_path)  # the first was killed: nothing was closed
        again.mask(RANK, ["hunter2"])
        assert again.stored(RANK) == 15
        await again.write(chunk(15, b"hunter2\n"))
        await again.finish(RANK)
        assert await again.read(RANK, 0, 100) == b"pw ******* and *******\n"

    asyncio.run(run())


def test_a_repeat_from_the_stored_offset_joins_what_is_held(tmp_path: Path) -> None:
    async def run() -> None:
        logs = LogStore(tmp_path)
        logs.mask(RANK, ["hunter2"])
        await logs.write(chunk(0, b"pw hun"))
        await logs.write(chunk(logs.stored(RANK), b"hunter2\n"))
        assert await logs.read(RANK, 0, 100) == b"pw *******\n"

    asyncio.run(run())


def test_finish_gives_out_what_was_held(tmp_path: Path) -> None:
    async def run() -> None:
        logs = LogStore(tmp_path)
        logs.mask(RANK, ["hunter2"])
        await logs.write(chunk(0, b"the hun"))
        assert logs.stored(RANK) == 4
        await logs.finish(RANK)
        assert await logs.read(RANK, 0, 100) == b"the hun"
        assert logs.is_finished(RANK)
        await logs.finish("att-2.0")  # never printed

    asyncio.run(run())


def test_readers_are_woken(tmp_path: Path) -> None:
    async def run() -> None:
        logs = LogStore(tmp_path)
        waiting = asyncio.create_task(logs.wait(RANK, 0))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        await logs.write(chunk(0, b"x"))
        assert await waiting
        assert not await logs.wait(RANK, 1, timeout_s=0.01)
        waiting = asyncio.create_task(logs.wait(RANK, 1))
        await asyncio.sleep(0)
        await logs.finish(RANK)
        assert await waiting
        assert await logs.wait(RANK, 1)

    asyncio.run(run())


def test_large_output_of_many_ranks(tmp_path: Path) -> None:
    async def run() -> None:
        logs = LogStore(tmp_path)
        ids = [f"att-1.{rank}" for rank in range(150)]  # more than are open at once
        before = len(os.listdir("/proc/self/fd"))
        for turn in range(3):
            for rank_id in ids:
                await logs.write(chunk(turn * 10, b"0123456789", rank_id))
        assert len(os.listdir("/proc/self/fd")) - before < 100
        assert {logs.stored(rank_id) for rank_id in ids} == {30}
        big = os.urandom(3 << 20)
        await logs.write(chunk(30, big))
        assert await logs.read(RANK, 30, 1 << 30) == big
        await logs.close()

    asyncio.run(run())


@pytest.mark.parametrize(
    ("text", "lines", "expected"),
    [
        (b"a\nb\nc\n", 2, b"b\nc\n"),
        (b"a\nb\nc", 2, b"b\nc"),
        (b"a\nb\n", 10, b"a\nb\n"),
        (b"a\nb\n", 0, b""),
        (b"", 3, b""),
        (b"\n\n\n", 2, b"\n\n"),
        (b"x" * 200_000 + b"\nlast\n", 1, b"last\n"),
        (b"first\n" + b"x" * 200_000 + b"\n", 1, b"x" * 200_000 + b"\n"),
    ],
)
def test_the_tail_is_found_from_the_end(tmp_path: Path, text: bytes, lines: int, expected: bytes) -> None:
    async def run() -> None:
        logs = LogStore(tmp_path)
        await logs.write(chunk(0, text))
        assert await logs.read(RANK, await logs.tail_offset(RANK, lines), 1 << 30) == expected

    asyncio.run(run())


@pytest.mark.parametrize("bad", ["", "att-1", "../x.0", "att-1.x", "a/b.0", ".0"])
def test_what_is_no_rank_is_refused(tmp_path: Path, bad: str) -> None:
    with pytest.raises(ValueError, match="not a rank id"):
        LogStore(tmp_path).stored(bad)


def test_old_logs_go_and_those_of_live_attempts_stay(tmp_path: Path) -> None:
    async def run() -> None:
        logs = LogStore(tmp_path)
        for name in ("att-old", "att-live", "att-new"):
            await logs.write(chunk(0, b"x", f"{name}.0"))
            await logs.finish(f"{name}.0")
        for name in ("att-old", "att-live"):
            os.utime(tmp_path / name / "0.log", (1000, 1000))
        now_s = (tmp_path / "att-new/0.log").stat().st_mtime
        assert logs.sweep({"att-live"}, older_than_s=3600, now_s=now_s)[0] == 1
        assert sorted(each.name for each in tmp_path.iterdir()) == ["att-live", "att-new"]
        await logs.close()

    asyncio.run(run())


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = (
        os.getuid() == 0
        and not subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    )
    if not mounted:
        pytest.skip("FULL DISK NOT TESTED: mounting a tmpfs needs root")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_loses_and_tears_nothing(small_disk: Path) -> None:
    async def run() -> None:
        logs = LogStore(small_disk / "logs")
        logs.mask(RANK, ["hunter2"])
        ballast = small_disk / "ballast"
        ballast.write_bytes(b"x" * (700 << 10))
        await logs.write(chunk(0, b"start hun"))
        data = b"ter2 " + b"y" * (600 << 10)
        for _ in range(2):
            with pytest.raises(ArgosyError) as error:
                await logs.write(chunk(9, data))
            assert error.value.code == "disk-full"
            assert str(small_disk) in error.value.what
            assert logs.stored(RANK) == 6
            assert logs.path(RANK).stat().st_size == 6
        ballast.unlink()
        await logs.write(chunk(9, data))
        assert await logs.read(RANK, 0, 1 << 30) == b"start ******* " + b"y" * (600 << 10)

    asyncio.run(run())
