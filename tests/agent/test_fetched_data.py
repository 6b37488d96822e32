"""Objects of a store become files on a node: by addresses, or through the server; only what is new."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from agent_process import AgentProcess

from argosy.infra import border
from argosy.infra.agent_client import AgentClient, StreamChannel, unix_channel
from argosy.infra.agent_port import DataFile, Fetched, FetchOrder
from argosy.testing.signed_store import SignedStore

MB = 1 << 20


class Source:
    """A `DataSource` over a store: with addresses, or without."""

    def __init__(self, store: SignedStore, *, signs: bool = True) -> None:
        self.store, self.signs = store, signs
        self.keys = sorted(store.objects)
        self.read_keys: list[tuple[str, int]] = []
        self.progress: list[tuple[int, int, int, int]] = []

    def order(self, target: str, **more: object) -> FetchOrder:
        files = tuple(DataFile(key, len(self.store.objects[key]), self.store.etag(key)) for key in self.keys)
        return FetchOrder(target=target, files=files, md5=True, **more)  # type: ignore[arg-type]

    def address(self, index: int) -> str:
        return self.store.address(self.keys[index]) if self.signs else ""

    def read(self, index: int, first: int) -> Iterator[bytes]:
        data = self.store.objects[self.keys[index]]
        self.read_keys.append((self.keys[index], first))
        for at in range(first, len(data), MB):
            yield data[at : at + MB]

    def told(self, files: int, done_bytes: int, total_files: int, total_bytes: int) -> None:
        self.progress.append((files, done_bytes, total_files, total_bytes))


@pytest.fixture
def store() -> Iterator[SignedStore]:
    with SignedStore({"a.txt": b"alpha", "deep/er/b é.bin": b"b" * 5000, "empty": b""}) as running:
        yield running


def fetch(agent: AgentProcess, source: Source, order: FetchOrder) -> Fetched:
    async def scenario(client: AgentClient) -> Fetched:
        return await client.fetch(order, source)

    return agent.use(scenario)


def files_of(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("signs", [True, False])
def test_objects_become_files_and_only_what_is_new_travels(
    agent: AgentProcess, store: SignedStore, signs: bool
) -> None:
    source, place = Source(store, signs=signs), agent.root / "home" / "data"
    got = fetch(agent, source, source.order("~/data"))
    assert files_of(place) == store.objects
    assert (got.files, got.bytes, got.relayed) == (3, 5005, 0 if signs else 5005)
    assert stat.S_IMODE((place / "a.txt").stat().st_mode) == 0o644
    assert source.progress[-1] == (3, 5005, 3, 5005)
    # The same again is nothing; then one is new, one changed here, and one is gone there.
    store.asked.clear()
    assert fetch(agent, source, source.order("~/data")) == Fetched(files=3, bytes=0)
    (place / "a.txt").write_text("somebody's")
    (place / "own").write_text("a program's")
    del store.objects["empty"]
    store.objects["new"] = b"n"
    source = Source(store, signs=signs)
    got = fetch(agent, source, source.order("~/data"))
    assert (got.files, got.bytes, got.removed) == (3, 6, 1)
    assert files_of(place) == {**store.objects, "own": b"a program's"}
    assert len(store.asked) == (2 if signs else 0)
    assert fetch(agent, source, source.order("~/data", full=True)).bytes == 5006


def test_what_comes_is_encrypted_as_is_required_or_the_server_is_asked(
    agent: AgentProcess, store: SignedStore
) -> None:
    """An ETag is no MD5 where a key of the user's encrypts. What the store does not say goes through the
    server, which refuses it with its own text."""
    name = "x-amz-server-side-encryption"
    store.says = {name: "aws:kms", f"{name}-aws-kms-key-id": "arn:aws:kms:eu-west-1:1:key/k-1"}
    source = Source(store)
    real = store.etag
    store.etag = lambda key: real(key)[::-1]  # type: ignore[method-assign]
    got = fetch(agent, source, source.order("~/data", encryption="aws:kms", key_id="k-1"))
    assert (got.bytes, got.relayed) == (5005, 0)
    got = fetch(agent, source, source.order("~/other", encryption="aws:kms", key_id="k-2"))
    assert (got.relayed, got.why) == (5005, "it is not encrypted as is required")


def test_one_object_becomes_one_file(agent: AgentProcess, store: SignedStore) -> None:
    store.objects = {"a.txt": b"alpha"}
    source = Source(store)
    fetch(agent, source, source.order("~/one/file", single=True))
    fetch(agent, source, source.order("~/in/", single=True))
    assert files_of(agent.root / "home" / "one") == {"file": b"alpha"}
    assert files_of(agent.root / "home" / "in") == {"a.txt": b"alpha"}
    assert fetch(agent, source, source.order("~/one/file", single=True)).bytes == 0


def test_large_objects_come_in_ranges_and_go_on_after_a_kill(agent: AgentProcess, store: SignedStore) -> None:
    data = os.urandom(40 * MB)
    store.objects = {"large": data}
    source = Source(store, signs=False)
    order, place = source.order("~/data"), agent.root / "home" / "data"
    reached = threading.Event()

    def read(index: int, first: int) -> Iterator[bytes]:
        for at in range(first, len(data), MB):
            if at > 20 * MB and not reached.is_set():
                reached.set()
                agent.process.send_signal(signal.SIGKILL)  # type: ignore[union-attr]
                time.sleep(0.2)
            yield data[at : at + MB]

    source.read = read  # type: ignore[method-assign]
    with pytest.raises(border.Unreachable):
        fetch(agent, source, order)
    assert not (place / "large").exists()
    agent.end()
    agent.start()
    source = Source(store)
    got = fetch(agent, source, order)
    assert files_of(place) == {"large": data}
    assert [span for _, _, span in sorted(store.asked)] == [
        f"bytes={16 * MB}-{32 * MB - 1}",
        f"bytes={32 * MB}-{40 * MB - 1}",
    ]
    assert got.bytes == 24 * MB


def test_a_store_that_fails_is_asked_again_and_then_the_server_is(
    agent: AgentProcess, store: SignedStore
) -> None:
    store.objects["other"] = b"o"
    store.failures = {"a.txt": [503], "other": [403]}
    store.cut = {"deep/er/b é.bin": 1000}
    source = Source(store)
    got = fetch(agent, source, source.order("~/data"))
    assert files_of(agent.root / "home" / "data") == store.objects
    assert source.read_keys == [("other", 0)]
    assert got.why == "HTTP 403 Refused"
    assert "s3cr3t" not in got.why


def test_a_node_that_reaches_no_store_gets_all_through_the_server(agent: AgentProcess) -> None:
    with SignedStore({f"{number}": b"x" * number for number in range(50)}) as store:
        pass  # from now on nobody listens at its addresses
    source = Source(store)
    began_s = time.monotonic()
    got = fetch(agent, source, source.order("~/data"))
    assert files_of(agent.root / "home" / "data") == store.objects
    assert got.relayed == sum(range(50))
    assert "refused" in got.why.lower()
    assert time.monotonic() - began_s < 30


def test_what_is_not_allowed_is_refused_with_what_to_do(
    agent: AgentProcess, store: SignedStore, folder: Path
) -> None:
    source = Source(store)
    (folder / "full").mkdir()
    (folder / "full" / "x").touch()
    with pytest.raises(
        border.RequestRefused, match="is not empty and was not made by Argosy; choose a new path"
    ):
        fetch(agent, source, source.order(str(folder / "full")))
    (folder / "free").mkdir()
    fetch(agent, source, source.order(str(folder / "free")))
    assert files_of(folder / "free") == store.objects
    with pytest.raises(border.RequestRefused, match=r"must not hold `\.\.`"):
        fetch(agent, source, source.order("~/../x"))
    huge = FetchOrder(target="~/huge", files=(DataFile("model", 1 << 60, "e"),))
    with pytest.raises(
        border.RequestRefused,
        match=r"`~/huge` needs 1073741824.0 GB on node-7, where .* are free \(the largest file is `model` "
        r"with .*\); ask for a larger `disk_size`, leave files out with `sync: \{exclude: …\}`, or use "
        "`mode: MOUNT`",
    ):
        fetch(agent, source, huge)
    evil = FetchOrder(target="~/evil", files=(DataFile("../../x", 1, "e"),))
    with pytest.raises(border.RequestRefused, match="is not a relative path inside the tree"):
        fetch(agent, source, evil)


@pytest.mark.skipif(os.geteuid() != 0, reason="a small disk is mounted, which needs root")
def test_a_disk_that_fills_in_the_middle_is_told_and_nothing_is_half(
    agent: AgentProcess, store: SignedStore, folder: Path
) -> None:
    store.objects = {name: name.encode() * (1200 << 10) for name in ("a", "b")}
    small = folder / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(small)], check=True)
    try:
        source = Source(store, signs=False)
        read = source.read

        def fills(index: int, first: int) -> Iterator[bytes]:
            if index == 1:
                ends_s = time.monotonic() + 90
                while not (small / "a").exists() and time.monotonic() < ends_s:
                    time.sleep(0.005)
                (small / "other").write_bytes(b"x" * (800 << 10))
            return read(index, first)

        source.read = fills  # type: ignore[method-assign]
        order = source.order(str(small))
        with pytest.raises(border.RequestRefused, match=r"^disk full on node-7$") as told:
            fetch(agent, source, order)
        assert told.value.field == "disk"
        assert {name for name in files_of(small) if not name.startswith(".argosy-new/")} == {"a", "other"}
        (small / "other").unlink()
        source = Source(store, signs=False)
        assert fetch(agent, source, order).relayed == 1200 << 10  # the rest alone
        assert files_of(small) == store.objects
    finally:
        subprocess.run(["umount", "--lazy", str(small)], check=True)


def test_a_link_in_the_way_does_not_lead_outside(
    agent: AgentProcess, store: SignedStore, folder: Path
) -> None:
    source, place = Source(store), agent.root / "home" / "data"
    place.mkdir(parents=True)
    (folder / "other").mkdir()
    (place / "deep").symlink_to(folder / "other")
    (place / "a.txt").symlink_to("/etc/hostname")
    fetch(agent, source, source.order("~/data"))
    assert files_of(place) == store.objects
    assert list((folder / "other").iterdir()) == []
    assert not (place / "a.txt").is_symlink()


def test_an_object_that_changes_while_it_is_read_is_told(agent: AgentProcess, store: SignedStore) -> None:
    source = Source(store, signs=False)
    order = source.order("~/data")
    store.objects["a.txt"] = b"longer than before"
    with pytest.raises(border.Transient, match=r"`a\.txt` changed while it was read"):
        fetch(agent, source, order)
    assert not (agent.root / "home" / "data" / "a.txt").exists()


class CountingClient:
    """A client, and the bytes that it sent."""

    def __init__(self, agent: AgentProcess) -> None:
        self.agent, self.sent = agent, 0

    async def connect(self) -> StreamChannel:
        channel = await unix_channel(self.agent.socket)
        write = channel.writer.write

        def counted(data: bytes) -> None:
            self.sent += len(data)
            write(data)

        channel.writer.write = counted  # type: ignore[method-assign, assignment]
        return channel

    def fetch(self, source: Source, order: FetchOrder) -> Fetched:
        async def scenario() -> Fetched:
            client = AgentClient(self.connect)
            self.sent = 0
            try:
                return await client.fetch(order, source)
            finally:
                await client.close()

        return asyncio.run(scenario())


@pytest.mark.parametrize("outside", [False, True])
def test_of_many_files_only_groups_that_differ_are_told(
    agent: AgentProcess, store: SignedStore, outside: bool
) -> None:
    store.objects = {f"{number % 7}/{number:03d}": b"%d" % number for number in range(400)}
    place = agent.folder / "elsewhere" if outside else agent.root / "home" / "many"
    target, wire = str(place) if outside else "~/many", CountingClient(agent)

    def again() -> tuple[int, int, int]:
        source = Source(store, signs=False)
        source.keys.reverse()  # the order does not matter
        got = wire.fetch(source, source.order(target))
        assert files_of(place) == store.objects
        return got.files, got.bytes, got.removed

    assert again()[0] == 400
    assert again() == (400, 0, 0)
    assert wire.sent < 400  # nothing is new: no file is named
    store.objects["3/003"] = b"new"
    assert again() == (400, 3, 0)
    assert 400 < wire.sent < 8000  # one of six groups
    assert again() == (400, 0, 0)
    assert wire.sent < 400
    (place / "5" / "005").write_text("somebody's")
    (place / "6" / "006").unlink()
    assert again() == (400, 2, 0)
    del store.objects["3/003"]
    assert again() == (399, 0, 1)
    assert again() == (399, 0, 0)
    assert wire.sent < 400


def test_what_an_interrupted_copy_has_done_is_part_of_the_comparison(
    agent: AgentProcess, store: SignedStore
) -> None:
    store.objects = {f"{number:03d}": b"%d" % number for number in range(200)}
    source = Source(store, signs=False)
    order, read = source.order("~/many"), source.read

    def breaks(index: int, first: int) -> Iterator[bytes]:
        if index == 150:
            raise OSError("the store has gone")
        return read(index, first)

    source.read = breaks  # type: ignore[method-assign]
    with pytest.raises((OSError, border.Unreachable)):
        fetch(agent, source, order)
    source = Source(store, signs=False)
    assert fetch(agent, source, order).files == 200
    assert files_of(agent.root / "home" / "many") == store.objects
    assert len(source.read_keys) < 200
    source = Source(store, signs=False)
    assert fetch(agent, source, order).bytes == 0
