"""Copies to a node by a model: whatever happens between two of them, on either side, the node has what the
store has, and what programs made there."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess

from argosy.infra import agent_data
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import DataFile, Fetched, FetchOrder

#: The same text in two normal forms are two names, for a store and for a disk.
NAMES = ("a", "b.txt", "deep/er/c", "deep/d", "é", "e\u0301", "deep/er/und/unten", "x y\n", "…")
STEPS = 120


class Objects:
    """A store without addresses, as `infra.agent_port.DataSource`. Each write makes a new ETag."""

    def __init__(self) -> None:
        self.now: dict[str, tuple[bytes, str]] = {}
        self.listed: list[str] = []
        self.writes = 0
        self.read_bytes = 0

    def put(self, name: str, data: bytes) -> None:
        self.writes += 1
        self.now[name] = (data, f"v{self.writes}")

    def order(self, *, full: bool = False, turned: bool = False) -> FetchOrder:
        self.listed = sorted(self.now, reverse=turned)
        files = tuple(DataFile(name, len(self.now[name][0]), self.now[name][1]) for name in self.listed)
        return FetchOrder(target="~/data", files=files, full=full)

    def address(self, index: int) -> str:
        return ""

    def read(self, index: int, first: int) -> Iterator[bytes]:
        data = self.now[self.listed[index]][0]
        self.read_bytes += len(data) - first
        yield data[first:]

    def told(self, files: int, done_bytes: int, total_files: int, total_bytes: int) -> None:
        """Nobody looks."""


class Node:
    """The folder on the node, and what programs did there: `own` are files that the next copy leaves."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.own: dict[str, bytes] = {}
        self.changed: set[str] = set()

    def files(self) -> dict[str, bytes]:
        return {
            path.relative_to(self.place).as_posix(): path.read_bytes()
            for path in self.place.rglob("*")
            if path.is_file()
        }

    def disturb(self, dice: random.Random, copied: dict[str, bytes]) -> None:
        """A program does something to a file, of ours or of its own."""
        name = dice.choice(NAMES)
        path = self.place / name
        what = dice.choice(("write", "remove", "replace", "touch", "own", "rename", "folder"))
        if what == "own" or not path.is_file():
            own = self.place / f"own{dice.randrange(3)}"
            own.write_bytes(dice.randbytes(4))
            self.own[own.name] = own.read_bytes()
        elif what == "write":
            path.write_bytes(dice.randbytes(5))
        elif what == "remove":
            path.unlink()
        elif what == "touch":  # another time, also one that is to come
            os.utime(path, (time.time() + dice.choice((-1e6, 1e6)),) * 2)
        elif what == "replace":  # other bytes of the same size and time
            info, other = path.stat(), self.place / "other"
            other.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
            os.utime(other, ns=(info.st_atime_ns, info.st_mtime_ns))
            other.replace(path)
        elif what == "rename":
            path.replace(self.place / "own9")
            self.own["own9"] = (self.place / "own9").read_bytes()
        elif what == "folder":
            path.unlink()
            path.mkdir()
        if name in copied:
            self.changed.add(name)


@pytest.mark.parametrize(
    "seed", [1, *(pytest.param(each, marks=pytest.mark.nightly) for each in range(2, 8))]
)
def test_the_node_has_what_the_store_has_and_what_programs_made(agent: AgentProcess, seed: int) -> None:
    dice, store, node = random.Random(seed), Objects(), Node(agent.root / "home" / "data")
    told: list[int] = []

    async def copy(client: AgentClient) -> Fetched:
        early = dice.random() < 0.8
        if dice.random() < 0.1:  # a server that was started anew, or another one
            agent_data._COPIES.forget()
        full, turned = dice.random() < 0.05, dice.random() < 0.3
        if not early:
            return await client.fetch(store.order(full=full, turned=turned), store)
        async with client.expecting("~/data"):
            return await client.fetch(store.order(full=full, turned=turned), store)

    async def scenario(client: AgentClient) -> None:
        store.put("a", b"first")
        before: dict[str, tuple[bytes, str]] = {}
        for _ in range(STEPS):
            quiet = not node.changed and before == store.now
            read = store.read_bytes
            got = await copy(client)
            gone = before.keys() - store.now.keys()
            for name in gone & node.changed:  # somebody changed it: it stays
                if (node.place / name).is_file():
                    node.own[name] = (node.place / name).read_bytes()
            wanted = {name: data for name, (data, _) in store.now.items()}
            have = node.files()
            assert have == {**node.own, **wanted}
            node.own = {name: data for name, data in node.own.items() if name not in wanted}
            assert got.files == len(wanted)
            if quiet and store.read_bytes == read:
                told.append(got.bytes)
            node.changed.clear()
            before = dict(store.now)
            for _ in range(dice.randrange(3)):
                change(dice, store)
            for _ in range(dice.choice((0, 0, 1, 2))):
                node.disturb(dice, wanted)

    agent.use(scenario)
    assert told and not any(told), "what has not changed does not travel"


def change(dice: random.Random, store: Objects) -> None:
    what, name = dice.choice(("put", "put", "same size", "remove", "rename")), dice.choice(NAMES)
    if what == "put":
        store.put(name, dice.randbytes(dice.choice((0, 1, 9, 3000))))
    elif name in store.now and what == "same size":
        store.put(name, dice.randbytes(len(store.now[name][0])))
    elif name in store.now and len(store.now) > 1:
        data, _ = store.now.pop(name)
        if what == "rename":
            store.put(dice.choice(NAMES), data)
