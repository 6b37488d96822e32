from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import msgspec
import pytest
from agent_process import AgentProcess

from argosy.agent import trees
from argosy.agent.orders import Busy, Refused
from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.model.tree import CHUNK_BYTES, Entry, Tree


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Source:
    """A tree in the making, with its chunks."""

    def __init__(self) -> None:
        self.entries: list[Entry] = []
        self.chunks: dict[str, bytes] = {}

    def file(self, path: str, data: bytes, mode: int = 0o644) -> Source:
        pieces = [data[at : at + CHUNK_BYTES] for at in range(0, len(data), CHUNK_BYTES)]
        self.chunks.update({digest(piece): piece for piece in pieces})
        self.entries.append(
            Entry(path=path, kind="f", mode=mode, size=len(data), chunks=tuple(map(digest, pieces)))
        )
        return self

    def folder(self, path: str, mode: int = 0o755) -> Source:
        self.entries.append(Entry(path=path, kind="d", mode=mode))
        return self

    def link(self, path: str, target: str) -> Source:
        self.entries.append(Entry(path=path, kind="l", target=target))
        return self

    def json(self, is_file: bool = False) -> bytes:
        return msgspec.json.encode(Tree(entries=tuple(self.entries), is_file=is_file))

    async def send(self, client: AgentClient, target: str, is_file: bool = False) -> list[str]:
        """As the server does; which chunks had to travel."""
        missing = list(await client.missing_chunks(list(self.chunks)))

        async def wanted() -> AsyncIterator[tuple[str, bytes]]:
            for name in missing:
                yield name, self.chunks[name]

        await client.put_chunks(wanted())
        await client.place_tree(self.json(is_file), target)
        return missing


def test_everything_that_a_folder_can_hold(agent: AgentProcess) -> None:
    big = os.urandom(1 << 20) * 17 + b"tail"  # three chunks, the first two different from the last
    source = (
        Source()
        .file("run.sh", b"#!/bin/sh\n", 0o755)
        .file("empty", b"")
        .file("데이터/naïve 🚢.bin", b"\x00\xff")
        .folder("데이터", 0o750)
        .folder("void/inner", 0o700)
        .file("big", big, 0o400)
        .link("to-run", "run.sh")
        .link("데이터/up", "../big")
        .link("dangling", "nowhere")
    )

    async def scenario(client: AgentClient) -> None:
        assert await source.send(client, "~/proj") == list(source.chunks)
        assert await source.send(client, "~/proj") == []

    agent.use(scenario)
    base = agent.root / "home/proj"
    assert (base / "run.sh").stat().st_mode & 0o777 == 0o755
    assert (base / "empty").read_bytes() == b""
    assert (base / "데이터/naïve 🚢.bin").read_bytes() == b"\x00\xff"
    assert stat.S_IMODE((base / "데이터").stat().st_mode) == 0o750
    assert stat.S_IMODE((base / "void/inner").stat().st_mode) == 0o700
    assert (base / "big").read_bytes() == big
    assert stat.S_IMODE((base / "big").stat().st_mode) == 0o400
    assert os.readlink(base / "to-run") == "run.sh"
    assert (base / "데이터/up").read_bytes() == big
    assert os.readlink(base / "dangling") == "nowhere"
    assert not list(base.rglob(".argosy-*"))


def test_a_tree_may_be_one_link_at_its_target(agent: AgentProcess, tmp_path: Path) -> None:
    """So a folder on a volume that the node sees appears in a task."""
    volume = tmp_path / "volume"
    volume.mkdir()

    async def scenario(client: AgentClient) -> None:
        for _ in range(2):
            await Source().link("data", str(volume)).send(client, "~/data", is_file=True)
        with pytest.raises(border.BorderError, match="must hold just that file"):
            await Source().folder("data").send(client, "~/data", is_file=True)

    agent.use(scenario)
    placed = agent.root / "home/data"
    assert placed.is_symlink() and placed.resolve() == volume
    (placed / "result").write_text("1")
    assert (volume / "result").read_text() == "1"


def test_only_changed_files_are_written_and_others_stay(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        await Source().file("same", b"1").file("changed", b"1").file("touched", b"1").send(client, "w")
        base = agent.root / "home/w"
        before = {name: (base / name).stat() for name in ("same", "changed", "touched")}
        (base / "result").write_text("mine")
        (base / "touched").write_text("2")
        sent = (
            await Source().file("same", b"1").file("changed", b"22").file("touched", b"1").send(client, "~/w")
        )
        assert sent == [digest(b"22")]
        assert (base / "same").stat().st_ino == before["same"].st_ino
        assert (base / "same").stat().st_mtime_ns == before["same"].st_mtime_ns
        assert (base / "changed").read_bytes() == b"22"
        assert (base / "touched").read_bytes() == b"1"
        assert (base / "result").read_text() == "mine"
        await Source().file("same", b"1", 0o600).send(client, "w")
        assert stat.S_IMODE((base / "same").stat().st_mode) == 0o600
        assert (base / "same").stat().st_ino == before["same"].st_ino

    agent.use(scenario)


def test_what_was_something_else_becomes_what_the_tree_says(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        base = agent.root / "home/w"
        await Source().file("a", b"1").folder("b").link("c", "a").file("d/x", b"1").send(client, "w")
        (base / "d/mine").write_bytes(b"1")
        await Source().folder("a").link("b", "a").file("c", b"2").link("e", "d").send(client, "w")
        assert (base / "a").is_dir()
        assert os.readlink(base / "b") == "a"
        assert (base / "c").read_bytes() == b"2"
        assert not (base / "c").is_symlink()
        with pytest.raises(border.RequestRefused, match="folder with files in it"):
            await Source().file("d", b"1").send(client, "w")
        assert (base / "d/mine").read_bytes() == b"1"
        with pytest.raises(border.RequestRefused, match="a file is where a folder should be"):
            await Source().file("x", b"1").send(client, "~/w/c")

    agent.use(scenario)


def test_what_an_earlier_tree_put_there_goes_unless_a_program_changed_it(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        base = agent.root / "home/w"
        source = Source().file("keep", b"1").file("old.py", b"1").file("touched", b"1").file("pkg/a/x", b"1")
        source.folder("pkg").folder("pkg/a").folder("out").link("l", "keep").link("l2", "keep")
        await source.send(client, "w")
        (base / "touched").write_text("by a program")
        (base / "out/result").write_text("by a program")
        (base / "l2").unlink()
        (base / "l2").symlink_to("old.py")
        await Source().file("keep", b"1").file("new.py", b"2").send(client, "w")
        left = {str(path.relative_to(base)) for path in base.rglob("*")}
        assert left == {"keep", "new.py", "touched", "out", "out/result", "l2"}
        (base / "new.py").unlink()
        outside = agent.root.parent / "theirs"
        outside.mkdir()
        (outside / "x").write_text("1")
        await Source().folder("d").file("d/x", b"1").send(client, "w")
        (base / "d/x").rename(base / "x")
        (base / "d").rmdir()
        (base / "d").symlink_to(outside)
        await Source().file("keep", b"1").send(client, "w")
        assert (outside / "x").exists(), "nothing is removed through a link"

    agent.use(scenario)


def test_links_travel_wherever_they_lead(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        source = (
            Source().link("bin/python", "/usr/bin/python3").link("up", "../../up").link("gone", "nowhere")
        )
        await source.send(client, "w")
        await source.file("up2", b"1").send(client, "w")
        base = agent.root / "home/w"
        assert os.readlink(base / "bin/python") == "/usr/bin/python3"
        assert os.readlink(base / "up") == "../../up"
        with pytest.raises(border.RequestRefused):
            await Source().link("up", "../..").file("up/x", b"1").send(client, "w")

    agent.use(scenario)


def test_the_agent_knows_which_tree_it_holds(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        source = Source().file("a", b"1").file("b/c", b"2")
        assert (await client.held_tree("~/w", "d1")).digest != "d1"
        await source.send(client, "w")
        await client.place_tree(source.json(), "w", "d1")
        assert (await client.held_tree("~/w", "d1")).digest == "d1"
        assert (await client.held_tree("~/w", "d2")).digest != "d2"
        assert (await client.held_tree("~/other", "d1")).digest != "d1"
        (agent.root / "home/w/output").write_text("of a program")
        assert (await client.held_tree("~/w", "d1")).digest == "d1"
        (agent.root / "home/w/b/c").unlink()
        assert (await client.held_tree("~/w", "d1")).digest != "d1"
        await client.place_tree(source.json(), "w", "d1")
        assert (agent.root / "home/w/b/c").read_text() == "2"
        (agent.root / "home/w/b/c").write_text("3")
        (agent.root / "home/w/b/d").write_text("3")
        assert (await client.held_tree("~/w", "d1")).digest != "d1"
        await client.place_tree(source.json(), "w", "d1")
        (agent.root / "home/w/b").rename(agent.root / "home/w/z")
        assert (await client.held_tree("~/w", "d1")).digest != "d1"
        await client.place_tree(Source().file("one", b"1").json(is_file=True), "f", "d3")
        assert (await client.held_tree("f", "d3")).digest == "d3"
        (agent.root / "home/f").unlink()
        assert (await client.held_tree("f", "d3")).digest != "d3"

    agent.use(scenario)


def test_absolute_targets_are_shared_by_the_nodes_of_a_machine(
    make_agent: Callable[..., AgentProcess], pyz: Path, folder: Path
) -> None:
    target = str(folder / "abs/path/data")
    one, two = Source().file("x", b"1").file("d/y", b"2"), Source().file("x", b"other")
    agents = []
    for name in ("a", "b", "c"):
        (folder / name).mkdir()
        agent = AgentProcess(pyz, folder / name)
        agent.environ["ARGOSY_PLACED_DIR"] = str(folder / "machine")
        agents.append(agent.start())

    def release(agent: AgentProcess) -> None:
        agent.end(signal.SIGTERM)
        command = [sys.executable, "-I", "-S", str(pyz), "release", "--root", str(agent.root)]
        subprocess.run(command, env=agent.environ, check=True)
        shutil.rmtree(agent.root)

    async def both(source: Source, client: AgentClient) -> None:
        await source.send(client, target)

    try:
        first, second, third = agents
        first.use(lambda client: both(one, client))
        second.use(lambda client: both(one, client))
        with pytest.raises(border.RequestRefused, match="holds other files for another node"):
            third.use(lambda client: both(two, client))
        release(first)
        assert Path(target, "x").read_bytes() == b"1", "the second still uses it"
        second.end()
        shutil.rmtree(second.root)  # without a word
        third.use(lambda client: both(two, client))
        assert [path.name for path in Path(target).iterdir()] == ["x"]
        release(third)
        assert not (folder / "abs").exists()

        again = AgentProcess(pyz, folder / "a")
        again.environ["ARGOSY_PLACED_DIR"] = str(folder / "machine")
        agents.append(again.start())
        again.use(lambda client: both(one, client))
        Path(target, "result").write_text("of a program")
        release(again)
        assert [path.name for path in Path(target).iterdir()] == ["result"]
        agents.append(again.start())
        again.use(lambda client: both(two, client))
        assert {path.name for path in Path(target).iterdir()} == {"x", "result"}
    finally:
        for agent in agents:
            if agent.process is not None and agent.process.poll() is None:
                agent.end()
            if agent.process is not None and agent.process.stdout is not None:
                agent.process.stdout.close()


def test_one_file(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        source = Source().file("train.csv", b"1,2\n")
        await source.send(client, "~/data/renamed.csv", is_file=True)
        await source.send(client, "~/data/", is_file=True)
        assert await source.send(client, "~/data/renamed.csv", is_file=True) == []
        assert (agent.root / "home/data/renamed.csv").read_bytes() == b"1,2\n"
        assert (agent.root / "home/data/train.csv").read_bytes() == b"1,2\n"

    agent.use(scenario)


@pytest.mark.parametrize(
    "source",
    [
        Source().file("../up", b"x"),
        Source().file("a/../../up", b"x"),
        Source().file("/etc/argosy-test", b"x"),
        Source().file("a//b", b"x"),
        Source().file("./a", b"x"),
        Source().file("", b"x"),
        Source().file("nul\0", b"x"),
        Source().link("a", ""),
        Source().link("a", "b").file("a/inside", b"x"),
        Source().file("a", b"1").file("a/inside", b"x"),
        Source().file("a", b"1").file("a", b"2"),
    ],
)
def test_a_tree_that_could_escape_is_refused(agent: AgentProcess, source: Source) -> None:
    async def scenario(client: AgentClient) -> None:
        with pytest.raises(border.RequestRefused) as caught:
            await source.send(client, "~/w")
        assert caught.value.field == "tree"

    def others() -> set[Path]:
        """All but the store, which is made when it is first needed."""
        found = agent.root.parent.rglob("*")
        return {path for path in found if "/root/chunks/" not in f"{path}/" and path != agent.root / "placed"}

    before = others()
    agent.use(scenario)
    assert others() == before


def test_a_link_on_the_disk_does_not_lead_outside(agent: AgentProcess, folder: Path) -> None:
    outside = folder / "outside"
    outside.mkdir()

    async def scenario(client: AgentClient) -> None:
        await Source().folder("sub").send(client, "w")
        base = agent.root / "home/w"
        (base / "sub").rmdir()
        (base / "sub").symlink_to(outside)
        (base / "file").symlink_to(outside / "file")
        await Source().file("sub/x", b"1").file("file", b"2").send(client, "w")
        assert list(outside.iterdir()) == []
        assert (base / "sub/x").read_bytes() == b"1"
        (agent.root / "home/way").symlink_to(outside)
        with pytest.raises(border.RequestRefused, match="symbolic link"):
            await Source().file("x", b"1").send(client, "~/way/deeper")
        assert list(outside.iterdir()) == []

    agent.use(scenario)


def test_absolute_targets(agent: AgentProcess, folder: Path) -> None:
    source = Source().file("x", b"1")

    async def scenario(client: AgentClient) -> None:
        for target in (
            "/etc",
            "/",
            str(folder),
            str(agent.root / "ranks"),
            "~root/x",
            "~/../x",
            "a/../../b",
            "/tmp/../etc",
        ):
            with pytest.raises(border.RequestRefused) as caught:
                await source.send(client, target)
            assert caught.value.field == "target"
        (folder / "theirs").mkdir()
        with pytest.raises(
            border.RequestRefused, match="exists on node-7 and was not made by Argosy; choose"
        ):
            await source.send(client, str(folder / "theirs"))
        await source.send(client, str(folder / "new/deep"))
        await source.send(client, str(folder / "new/deep"))
        await source.send(client, str(folder / "new/other"))
        await source.send(client, str(folder / "new/file"), is_file=True)
        await source.send(client, str(agent.root / "home/inside"))
        assert (folder / "new/deep/x").read_bytes() == (folder / "new/file").read_bytes() == b"1"
        assert list((folder / "theirs").iterdir()) == []

    async def later(client: AgentClient) -> None:
        await source.send(client, str(folder / "new/deep"))

    agent.use(scenario)
    agent.end()
    agent.start().use(later)


def test_chunks_are_checked(agent: AgentProcess) -> None:
    async def scenario(client: AgentClient) -> None:
        async def one(name: str, data: bytes) -> None:
            async def pack() -> AsyncIterator[tuple[str, bytes]]:
                yield name, data

            await client.put_chunks(pack())

        with pytest.raises(border.RequestRefused, match="not what it says"):
            await one(digest(b"right"), b"wrong")
        assert await client.missing_chunks([digest(b"right")]) == (digest(b"right"),)
        with pytest.raises(border.RequestRefused):
            await one("../../x", b"data")
        with pytest.raises(border.RequestRefused):
            await client.missing_chunks(["nonsense"])
        with pytest.raises(border.Transient, match="send it again"):
            await client.place_tree(Source().file("a", b"absent").json(), "w")
        assert not (agent.root / "home/w/a").exists()
        with pytest.raises(border.RequestRefused, match="said to have"):
            source = Source().file("a", b"1")
            source.entries = [Entry(path="a", kind="f", size=9, chunks=(digest(b"1"),))]
            await source.send(client, "w")
        with pytest.raises(border.RequestRefused):
            await client.place_tree(b"5", "w")
        await asyncio.gather(
            *(Source().file(f"f{n}", os.urandom(1000)).send(client, f"many/{n}") for n in range(20))
        )
        assert len(list((agent.root / "home/many").iterdir())) == 20

    agent.use(scenario)


@pytest.mark.parametrize("head", [b"nonsense 8000000\n", b"x" * 200_000, b""], ids=["name", "line", "digest"])
def test_a_refused_pack_is_answered_while_it_is_still_sent(agent: AgentProcess, head: bytes) -> None:
    """The refusal is decided in the first lines; closing there would lose the answer."""
    data = b"y" * CHUNK_BYTES
    head = head or f"{digest(b'')} {CHUNK_BYTES}\n".encode()

    async def scenario(client: AgentClient) -> None:
        reader, writer = await asyncio.open_unix_connection(agent.socket)
        writer.write(f"PUT /v1/chunks HTTP/1.1\r\nContent-Length: {len(head) + len(data)}\r\n\r\n".encode())
        writer.write(head)
        await writer.drain()
        if head.startswith(b"nonsense"):
            assert await reader.readline() == b"HTTP/1.1 400 Bad Request\r\n"
        for at in range(0, len(data), 1 << 20):
            writer.write(data[at : at + (1 << 20)])
            await writer.drain()
        answer = await reader.read()
        assert b'"field"' in answer
        writer.close()

    agent.use(scenario)


def test_the_store_is_bounded_and_placed_files_serve_as_chunks(tmp_path: Path) -> None:
    store = trees.Trees(str(tmp_path / "root"), str(tmp_path / "root/home"), "node-7", store_limit_bytes=1000)
    source = Source().file("a", os.urandom(900)).file("b", os.urandom(900))

    def put(source: Source, names: list[str]) -> None:
        for name in names:
            with store.new_chunk(name, len(source.chunks[name])) as chunk:
                chunk.write(source.chunks[name])

    def place(source: Source, target: str) -> None:
        store.place(msgspec.json.decode(source.json()), target)

    put(source, store.missing(list(source.chunks)))
    place(source, "~/one")
    kept = list((tmp_path / "root/chunks").iterdir())
    assert sum(path.stat().st_size for path in kept) <= 1000
    assert store.missing(list(source.chunks)) == [], "the placed files hold the rest"
    place(source, "~/two")
    assert (tmp_path / "root/home/two/a").read_bytes() == (tmp_path / "root/home/one/a").read_bytes()

    # A file that changed is no source any more, also when it changed unseen (same size and time).
    for path in kept:
        path.unlink()
    two = tmp_path / "root/home/two/a"
    two.write_bytes(b"z")
    one = tmp_path / "root/home/one/a"
    before = one.stat()
    one.write_bytes(os.urandom(900))
    os.utime(one, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(Busy, match="changed on this node"):
        place(source, "~/three")
    one.unlink()
    assert store.missing(list(source.chunks)) == [source.entries[0].chunks[0]]


def test_a_waiting_chunk_is_not_collected(tmp_path: Path) -> None:
    store = trees.Trees(str(tmp_path / "root"), str(tmp_path / "root/home"), "node-7", store_limit_bytes=10)
    for data in (b"x" * 100, b"y" * 100):
        with store.new_chunk(digest(data), 100) as chunk:
            chunk.write(data)
    store.place(msgspec.json.decode(Source().file("x", b"x" * 100).json()), "w")
    assert store.missing([digest(b"y" * 100)]) == []
    assert [path.name for path in (tmp_path / "root/chunks").iterdir()] == [digest(b"y" * 100)]


def test_folders_that_are_closed_are_opened_for_us_and_closed_again(tmp_path: Path) -> None:
    store = trees.Trees(str(tmp_path / "root"), str(tmp_path / "root/home"), "node-7")
    with store.new_chunk(digest(b"1"), 1) as chunk:
        chunk.write(b"1")
    for name in ("x", "y"):
        store.place(msgspec.json.decode(Source().folder("d", 0o555).file("d/" + name, b"1").json()), "w")
    assert stat.S_IMODE((tmp_path / "root/home/w/d").stat().st_mode) == 0o555
    (tmp_path / "root/home/w/d").chmod(0o755)
    with pytest.raises(Refused):
        store.place({"entries": "none"}, "w")
