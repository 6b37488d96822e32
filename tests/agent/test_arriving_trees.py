"""A tree and its chunks in one request: each file appears when its bytes have come."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

import msgspec
import pytest
from agent_process import AgentProcess
from hypothesis import given
from hypothesis import strategies as st

from argosy.agent import wire
from argosy.agent.lanes import Lane, Lanes
from argosy.agent.orders import Busy, Refused
from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import Channel
from argosy.model.tree import CHUNK_BYTES, Entry, Tree, needed_chunks, pack_of


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def tree_of(files: dict[str, bytes]) -> tuple[Tree, dict[str, bytes]]:
    entries, chunks = [], dict[str, bytes]()
    for path, data in files.items():
        pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        chunks.update({digest(piece): piece for piece in pieces})
        entries.append(Entry(path=path, kind="f", size=len(data), chunks=tuple(map(digest, pieces))))
    return Tree(entries=tuple(sorted(entries, key=lambda entry: entry.path))), chunks


async def gives(chunks: Iterable[tuple[str, bytes]]) -> AsyncIterator[bytes]:
    for block in pack_of(chunks):
        yield block


async def send(client: AgentClient, files: dict[str, bytes], target: str = "~/w") -> list[str]:
    """As the server does; which chunks travelled."""
    tree, chunks = tree_of(files)
    sizes = needed_chunks(tree)
    held = await client.held_tree(target, tree.digest())
    assert held.takes
    missing = list(sizes) if held.is_bare else await client.missing_chunks(list(sizes))
    wanted = {name: sizes[name] for name in missing}
    given = gives((name, chunks[name]) for name in wanted)
    await client.send_tree(msgspec.json.encode(tree), target, tree.digest(), wanted, given)
    assert (await client.held_tree(target, tree.digest())).digest == tree.digest()
    return list(wanted)


def files_in(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def test_files_of_all_sizes_arrive_and_only_what_is_missing_travels(agent: AgentProcess) -> None:
    large = os.urandom(1 << 20) * 17 + b"tail"  # two equal chunks, and another one
    files = {
        "a-b": b"1",
        "a/b": b"2",
        "a/c": b"1",
        "empty": b"",
        "large": large,
        "z/deep/x": os.urandom(5000),
    }

    async def scenario(client: AgentClient) -> None:
        assert (await client.held_tree("~/w", "d")).is_bare
        assert len(await send(client, files)) == 5
        assert not (await client.held_tree("~/v", "d")).is_bare
        assert await send(client, files | {"new": large + b"more"}) == [digest(large[16 << 20 :] + b"more")]
        (agent.root / "home/w/a/b").unlink()
        (agent.root / "home/w/z/deep/x").write_bytes(b"other")
        travelled = await send(client, files)
        assert sorted(travelled) == sorted([digest(b"2"), digest(files["z/deep/x"])])

    agent.use(scenario)
    assert files_in(agent.root / "home/w") == files


def test_what_does_not_fit_is_refused_and_what_came_before_is_kept(agent: AgentProcess) -> None:
    tree, _ = tree_of({"a": b"1", "b": b"22"})
    text, one, two = msgspec.json.encode(tree), (digest(b"1"), b"1"), (digest(b"22"), b"22")

    async def scenario(client: AgentClient) -> None:
        async def try_out(*chunks: tuple[str, bytes]) -> None:
            sizes = {name: len(data) for name, data in chunks}
            await client.send_tree(text, "~/w", tree.digest(), sizes, gives(chunks))

        with pytest.raises(border.RequestRefused, match="not what it says"):
            await try_out(one, (two[0], b"33"))
        assert files_in(agent.root / "home/w") == {"a": b"1"}
        assert await client.missing_chunks([one[0], two[0]]) == (two[0],)
        with pytest.raises(border.Transient, match="send it again"):
            await try_out()
        with pytest.raises(border.RequestRefused, match="more chunks came"):
            await try_out(two, ("f" * 64, b"x"))
        with pytest.raises(border.RequestRefused):
            await client.send_tree(b"5", "~/w", "", {}, gives(()))
        with pytest.raises(border.RequestRefused, match=r"`\.\.`"):
            await client.send_tree(text, "../w", "", {}, gives(()))
        with pytest.raises(border.Transient, match="not what was said"):
            await client.send_tree(text, "~/w", "", {two[0]: 2, "f" * 64: 1}, gives([two]))

    agent.use(scenario)


def test_a_connection_that_breaks_leaves_whole_files_and_the_next_one_goes_on(agent: AgentProcess) -> None:
    files = {f"{number:03d}": os.urandom(100_000) for number in range(60)}

    async def scenario(client: AgentClient) -> None:
        tree, chunks = tree_of(files)
        sizes = needed_chunks(tree)
        stopped = asyncio.Event()

        async def half() -> AsyncIterator[bytes]:
            async for block in gives((name, chunks[name]) for name in list(sizes)[:40]):
                yield block
            stopped.set()
            await asyncio.Event().wait()

        text = msgspec.json.encode(tree)
        sending = asyncio.ensure_future(client.send_tree(text, "~/w", tree.digest(), sizes, half()))
        await stopped.wait()
        while not (agent.root / "home/w/020").exists():
            await asyncio.sleep(0)
        sending.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await sending
        travelled = await send(client, files)  # waits until the first one is over
        assert 20 <= len(travelled) < 45

    agent.use(scenario)
    assert files_in(agent.root / "home/w") == files


def test_a_slow_line_keeps_nobody_else_from_placing(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        begun, go_on = asyncio.Event(), asyncio.Event()
        tree, _ = tree_of({"a": b"1"})

        async def slowly() -> AsyncIterator[bytes]:
            begun.set()
            await go_on.wait()
            async for block in gives([(digest(b"1"), b"1")]):
                yield block

        text = msgspec.json.encode(tree)
        sending = asyncio.ensure_future(client.send_tree(text, "~/slow", "d1", {digest(b"1"): 1}, slowly()))
        await begun.wait()
        await send(client, {"b": b"2"}, "~/quick")
        go_on.set()
        await sending
        assert (await client.held_tree("~/slow", "d1")).digest == "d1"

    agent.use(scenario)


def test_many_bytes_come_through_several_connections(
    agent: AgentProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("argosy.infra.tree_sending._LANE_BYTES", 1 << 20)
    files = {f"{number:03d}": os.urandom(30_000 + number) for number in range(100)}

    async def scenario(client: AgentClient) -> None:
        opened = 0
        connect = client._connect

        async def counted() -> Channel:
            nonlocal opened
            opened += 1
            if opened == 3:
                raise border.Unreachable("no more of them")
            return await connect()

        client._connect = counted
        await client.node()
        assert len(await send(client, files)) == 100
        assert opened == 3  # one that is there, and of two more one
        tree, chunks = tree_of({"a": os.urandom(3 << 20)})
        wrong = gives((name, bytes(len(data))) for name, data in chunks.items())
        sizes = needed_chunks(tree)
        with pytest.raises(border.RequestRefused, match="not what it says"):
            await client.send_tree(msgspec.json.encode(tree), "~/w", tree.digest(), sizes, wrong)
        assert await send(client, files | {"new": os.urandom(4 << 20)})

    agent.use(scenario)
    assert {name: data for name, data in files_in(agent.root / "home/w").items() if name != "new"} == files


def test_a_part_that_does_not_come_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("argosy.agent.lanes._PATIENCE_S", 0.0)

    async def scenario() -> None:
        lanes, lane = Lanes(), Lane(asyncio.StreamReader(), 7)
        with pytest.raises(Busy, match="did not come"):
            await lanes.take("t", [7])
        with pytest.raises(Busy, match="nobody waits"):
            await lanes.bring("t", 1, lane)
        assert not lanes._lanes

    asyncio.run(scenario())


@pytest.mark.parametrize("length", [7, 8])
def test_parts_come_before_or_after_who_waits_for_them(length: int) -> None:
    async def scenario() -> None:
        lanes, lane = Lanes(), Lane(asyncio.StreamReader(), 7)
        bringing = asyncio.ensure_future(lanes.bring("t", 1, lane))
        await asyncio.sleep(0)
        with pytest.raises(Refused, match="already"):
            await lanes.bring("t", 1, Lane(asyncio.StreamReader(), 7))
        if length == 7:
            assert await lanes.take("t", [length]) == [lane]
            assert not bringing.done()
            lane.done.set_result(None)
        else:
            with pytest.raises(Busy):
                await lanes.take("t", [length])
        await bringing
        assert not lanes._lanes

    asyncio.run(scenario())


@given(st.integers(0, 1 << 22), st.integers(1, 4))
def test_each_connection_brings_every_nth_block(size: int, count: int) -> None:
    blocks = [min(wire.LANE_BLOCK_BYTES, size - at) for at in range(0, size, wire.LANE_BLOCK_BYTES)]
    assert wire.lane_sizes(size, count) == [sum(blocks[number::count]) for number in range(count)]
