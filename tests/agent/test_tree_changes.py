"""A tree that replaces another one at the same target: only what differs travels, and what lies there in the
end is what the whole tree would have made of it."""

from __future__ import annotations

import hashlib
import os
import random
import stat
from pathlib import Path

import msgspec
import pytest
from agent_process import AgentProcess

from argosy.controllers.tree_placing import TreePlacing
from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import AgentDirectory, AgentPort, PlacedChange
from argosy.model.rows import Node
from argosy.model.tree import Entry, Tree, TreeChange, change_between, changed
from argosy.testing.builders import a_node
from argosy.testing.memory_files import MemoryFiles

NAMES = ("a", "b.txt", "deep", "deep/er", "deep/er/c", "deep/d", "é", "e\u0301", "x y", "void/in")
STEPS = 60


def entry(path: str, data: bytes, mode: int = 0o644) -> Entry:
    chunks = (hashlib.sha256(data).hexdigest(),) if data else ()
    return Entry(path=path, kind="f", mode=mode, size=len(data), chunks=chunks)


class Files(MemoryFiles):
    def file(self, path: str, data: bytes, mode: int = 0o644) -> Entry:
        made = entry(path, data, mode)
        self.held.update((chunk, data) for chunk in made.chunks)
        return made


class One(AgentDirectory):
    """A directory of one agent."""

    def __init__(self, agent: AgentPort) -> None:
        self._agent = agent

    async def get(self, node: Node) -> AgentPort:
        return self._agent


def seen(base: Path) -> dict[str, tuple[str, int, object]]:
    """Kind, mode and content of all that lies there."""
    found: dict[str, tuple[str, int, object]] = {}
    for path in base.rglob("*"):
        name, info = path.relative_to(base).as_posix(), path.lstat()
        if path.is_symlink():
            found[name] = ("l", 0, os.readlink(path))
        else:
            data = path.read_bytes() if path.is_file() else b""
            found[name] = ("d" if path.is_dir() else "f", stat.S_IMODE(info.st_mode), data)
    return found


def grown(dice: random.Random, files: Files, tree: Tree) -> Tree:
    """Another tree: a few things written, moved, linked, gone, or of another kind or mode."""
    now = {each.path: each for each in tree.entries if each.kind != "d"}
    modes = {each.path: each.mode for each in tree.entries if each.kind == "d"}
    for _ in range(dice.randrange(1, 4)):
        name = dice.choice(NAMES)
        what = dice.choice(("write", "write", "mode", "link", "remove", "move", "folder", "same"))
        if what in ("write", "link", "folder"):
            for other in list(now):
                if other.startswith(name + "/") or name.startswith(other + "/"):
                    del now[other]
        if what == "write":
            now[name] = files.file(name, dice.randbytes(dice.choice((0, 3, 5000))))
        elif what == "link":
            now[name] = Entry(path=name, kind="l", mode=0o777, target=dice.choice(("a", "../out", "gone")))
        elif what == "mode" and name in now and now[name].kind == "f":
            now[name] = msgspec.structs.replace(now[name], mode=dice.choice((0o600, 0o755, 0o444)))
        elif what == "remove":
            now.pop(name, None)
        elif what == "move" and name in now and "a" not in now:
            now["a"] = msgspec.structs.replace(now.pop(name), path="a")
        elif what == "folder":
            now.pop(name, None)
            modes[name] = dice.choice((0o755, 0o700, 0o555))
    folders = {"/".join(name.split("/")[:n]) for name in now for n in range(1, name.count("/") + 1)}
    kept = {name for name in modes if name not in now and not any(name.startswith(p + "/") for p in now)}
    entries = [Entry(path=each, kind="d", mode=modes.get(each, 0o755)) for each in folders | kept]
    return Tree(entries=tuple(sorted((*now.values(), *entries), key=lambda each: each.path)))


@pytest.mark.parametrize("seed", [1, 2])
def test_by_a_model_changes_make_what_whole_trees_make(agent: AgentProcess, seed: int) -> None:
    dice, files = random.Random(seed), Files()

    async def scenario(client: AgentClient) -> None:
        placing, fresh, node = TreePlacing(files, One(client)), Files(), a_node(id="node-1")
        tree, own = Tree(entries=()), {}
        for step in range(STEPS):
            new = grown(dice, files, tree)
            assert changed(tree, change_between(tree, new, "")) == new
            if dice.random() < 0.3:
                placing.expect(tree.digest())
            if dice.random() < 0.1:
                placing = TreePlacing(files, One(client))  # another server, which knows nothing
            if dice.random() < 0.2 and (agent.root / "home/w").is_dir():
                (agent.root / "home/w/own").write_bytes(b"%d" % step)
                own = {"own": b"%d" % step}
            await placing.place(client, node, "~/w", files.add(new))
            fresh.held = files.held
            await TreePlacing(fresh, One(client)).place(client, node, f"~/fresh{step}", fresh.add(new))
            lies = seen(agent.root / "home/w")
            assert {name: lies.pop(name)[2] for name in own} == own
            assert lies == seen(agent.root / f"home/fresh{step}"), step
            tree = new
        assert files.whole < STEPS / 2  # most were told as changes

    agent.use(scenario)


def test_after_one_change_one_file_travels(agent: AgentProcess) -> None:
    files = Files()
    many = [files.file(f"d/{number}", b"%d" % number * 100) for number in range(50)]
    first = Tree(entries=(Entry(path="d", kind="d", mode=0o755), *many))
    second = changed(first, TreeChange(since="", entries=(files.file("d/7", b"changed"),)))

    async def scenario(client: AgentClient) -> None:
        placing, node = TreePlacing(files, One(client)), a_node(id="node-1")
        await placing.place(client, node, "~/w", files.add(first))
        told, files.sent_bytes, files.whole = files.sent_bytes, 0, 0
        await placing.place(client, node, "~/w", files.add(second))
        assert told > 5000
        assert (files.sent_bytes, files.whole) == (len(b"changed"), 0)
        assert (agent.root / "home/w/d/7").read_bytes() == b"changed"

    agent.use(scenario)


def test_where_something_else_lies_nothing_is_changed(agent: AgentProcess) -> None:
    """A program changed a file of ours: the change is refused, and the whole tree mends it."""
    files = Files()
    first = Tree(entries=(files.file("a", b"1"), files.file("b", b"2")))
    second = Tree(entries=(files.file("a", b"1"), files.file("b", b"3")))

    async def scenario(client: AgentClient) -> None:
        placing, node = TreePlacing(files, One(client)), a_node(id="node-1")
        await placing.place(client, node, "~/w", files.add(first))
        (agent.root / "home/w/a").write_bytes(b"of a program")
        change = PlacedChange(
            target="~/w", since=first.digest(), digest=second.digest(),
            entries=(files.file("b", b"3"),), removed=(), folders=(),
        )  # fmt: skip
        assert not await client.change_tree(change, [])
        assert not await client.change_tree(msgspec.structs.replace(change, target="~/none"), [])
        assert (agent.root / "home/w/b").read_bytes() == b"2"
        await placing.place(client, node, "~/w", files.add(second))
        assert (agent.root / "home/w/a").read_bytes() == b"1"
        assert (agent.root / "home/w/b").read_bytes() == b"3"

    agent.use(scenario)


def test_a_change_that_would_leave_its_target_is_refused(agent: AgentProcess, tmp_path: Path) -> None:
    files = Files()
    first = Tree(
        entries=(files.file("a", b"1"), Entry(path="out", kind="l", mode=0o777, target=str(tmp_path)))
    )

    async def scenario(client: AgentClient) -> None:
        placing, node = TreePlacing(files, One(client)), a_node(id="node-1")
        await placing.place(client, node, "~/w", files.add(first))
        change = PlacedChange(
            target="~/w", since=first.digest(), digest="0" * 64, entries=(), removed=(), folders=()
        )
        data = hashlib.sha256(b"evil").hexdigest(), b"evil"
        for path in ("../x", "/etc/x", "a/../../x", ""):
            with pytest.raises(border.RequestRefused, match="not a relative path"):
                await client.change_tree(
                    msgspec.structs.replace(change, entries=(entry(path, b"evil"),)), [data]
                )
        # What a link leads to is not written: a real folder takes the link's place.
        through = msgspec.structs.replace(change, entries=(entry("out/x", b"evil"),))
        assert await client.change_tree(through, [data])
        # Nor is anything removed by a path that leads through a link, or out of the target.
        (tmp_path / "kept").write_bytes(b"1")
        away = msgspec.structs.replace(change, since="0" * 64, digest="1" * 64, removed=("../../kept", "out"))
        assert await client.change_tree(away, [])

    agent.use(scenario)
    assert (
        sorted(path.name for path in tmp_path.iterdir() if path.name != "node") == ["kept"]
        or (tmp_path / "kept").exists()
    )
    assert not (tmp_path / "x").exists()
