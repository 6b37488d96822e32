"""What programs have written goes to a store: by addresses, or through the server."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from agent_process import AgentProcess

from argosy.infra import border
from argosy.infra.agent_client import AgentClient
from argosy.infra.agent_port import SendOrder
from argosy.testing.signed_store import SignedStore


class Sink:
    """A `DataSink` over a store: with addresses, or without."""

    def __init__(self, store: SignedStore, *, signs: bool = True) -> None:
        self.store, self.signs = store, signs
        self.done: list[str] = []
        self.skipped: set[str] = set()

    headers: Mapping[str, str] = {"x-amz-meta-of": "us"}

    def wants(self, path: str, size: int) -> bool:
        return path not in self.skipped

    def address(self, path: str, size: int) -> str:
        return self.store.address(path or "file") if self.signs else ""

    def write(self, path: str, size: int, pieces: Iterator[bytes]) -> None:
        self.store.objects[path or "file"] = b"".join(pieces)

    def sent(self, path: str, size: int) -> None:
        self.done.append(path)


@pytest.fixture
def store() -> Iterator[SignedStore]:
    with SignedStore() as running:
        yield running


@pytest.fixture
def place(agent: AgentProcess) -> Path:
    place = agent.root / "home" / "workdir" / "out"
    (place / "deep").mkdir(parents=True)
    (place / "a").write_bytes(b"alpha")
    (place / "deep" / "b é").write_bytes(os.urandom(3 << 20))
    (place / "empty").touch()
    (place / "link").symlink_to("/etc/passwd")
    return place


def send(agent: AgentProcess, sink: Sink, path: str = "workdir/out") -> int:
    async def scenario(client: AgentClient) -> int:
        return await client.send(SendOrder(path=path), sink)

    return agent.use(scenario)


@pytest.mark.parametrize("signs", [True, False])
def test_all_files_arrive_and_links_are_not_followed(
    agent: AgentProcess, store: SignedStore, place: Path, signs: bool
) -> None:
    sink = Sink(store, signs=signs)
    assert send(agent, sink) == 3
    assert store.objects == {"a": b"alpha", "deep/b é": (place / "deep" / "b é").read_bytes(), "empty": b""}
    assert sorted(sink.done) == ["a", "deep/b é", "empty"]
    assert len(store.asked) == (3 if signs else 0)
    assert send(agent, sink, "workdir/out/a") == 1
    assert store.objects["file"] == b"alpha"
    assert send(agent, sink, "workdir/none") == 0
    with pytest.raises(border.RequestRefused, match=r"must not hold `\.\.`"):
        send(agent, sink, "~/../x")


def test_what_the_store_refuses_from_the_node_goes_through_the_server(
    agent: AgentProcess, store: SignedStore, place: Path
) -> None:
    store.failures = {"a": [403], "empty": [503]}
    sink = Sink(store)
    sink.skipped = {"deep/b é"}
    assert send(agent, sink) == 3
    assert sorted(sink.done) == ["a", "empty"]
    assert store.objects == {"a": b"alpha", "empty": b""}
    assert [key for _, key, _ in sorted(store.asked)] == ["a", "empty", "empty"]


@pytest.mark.parametrize("signs", [True, False])
def test_a_file_that_goes_on_changing_is_told_and_not_taken_for_sent(
    agent: AgentProcess, store: SignedStore, place: Path, signs: bool
) -> None:
    """Whoever writes there is never slower than who reads: it grows whenever it is asked about."""
    log = place / "log"
    log.write_bytes(b"x" * 4096)

    class Growing(Sink):
        def wants(self, path: str, size: int) -> bool:
            with log.open("ab") as file:
                file.write(b"more")
            return super().wants(path, size)

    sink = Growing(store, signs=signs)
    with pytest.raises(border.Transient, match=r"`log` changes while it is sent; does a program still write"):
        send(agent, sink)
    assert "log" not in sink.done
