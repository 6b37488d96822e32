"""What servers of one database ask each other, and who may ask."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from argosy.infra.agent_client import StreamChannel
from argosy.infra.border import OutOfCapacity, RequestRefused, Transient, Unreachable
from argosy.model.errors import ArgosyError
from argosy.model.facts import ClaimFact, ClaimState, LogChunk
from argosy.model.rows import Claim, Node
from argosy.model.tree import Entry, Tree
from argosy.server.keeping import Elsewhere
from argosy.server.passing import pass_on
from argosy.server.peers.answering import Answering
from argosy.server.peers.calls import Calls
from argosy.server.peers.certificates import contexts
from argosy.server.peers.files import SharedKeeping
from argosy.server.peers.joining import Here
from argosy.server.peers.listing import tell_peers
from argosy.server.peers.machines import Machines, SharedProviders
from argosy.server.peers.membership import Membership
from argosy.server.peers.peers import Peers
from argosy.server.peers.words import News, answer_of, error_of
from argosy.storage.blobs import BlobStore
from argosy.storage.logs import LogStore
from argosy.store import Store
from argosy.store.servers import Peer
from argosy.testing.builders import a_claim, a_node
from argosy.testing.virtual_time import FixedClock, SimIds

SECRET = "a secret of the database"


class OneMachine:
    """A provider whose place is the machine of its server."""

    def __init__(self) -> None:
        from argosy.infra.provider import Capabilities, Manifest

        self.manifest = Manifest(
            name="here", title="this machine", capabilities=Capabilities(), own_machine=True
        )
        self.claims: dict[str, ClaimFact] = {}
        self.error: Exception | None = None

    async def ensure(self, claim: Claim) -> None:
        if self.error is not None:
            raise self.error
        self.claims[claim.id] = ClaimFact(claim_id=claim.id, state=ClaimState.HELD)

    async def observe(self, claim_ids: Any) -> list[ClaimFact]:
        return [fact for id, fact in self.claims.items() if not claim_ids or id in claim_ids]

    async def release(self, claim_id: str) -> None:
        self.claims.pop(claim_id, None)


class OneProvider:
    def __init__(self, provider: Any) -> None:
        self._provider = provider

    def get(self, name: str) -> Any:
        return self._provider

    def all(self) -> dict[str, Any]:
        return {"here": self._provider}


class End:
    """One server, as far as others see it."""

    def __init__(self, root: Path, name: str, store: Store, clock: FixedClock) -> None:
        self.root = root / name
        self.root.mkdir(exist_ok=True)
        self.socket = self.root / "peers.sock"
        me = Peer(id=f"srv-{name}", name=name, address=str(self.socket), boot="b", version="1", schema="0007")
        self.membership = Membership(store.servers, me, clock)
        accepting, connecting = contexts(SECRET, clock.now_ms() / 1000)
        self.tls = accepting
        self.calls = Calls(self.membership, connecting)
        self.peers = Peers(self.membership, self.calls, clock)
        self.machine = OneMachine()
        machines = Machines(store.servers, self.membership, self.calls)
        self.providers = SharedProviders(OneProvider(self.machine), machines)
        self.logs, self.blobs = LogStore(self.root / "logs"), BlobStore(self.root)
        self.blobs.elsewhere = self.peers
        self.keeping = SharedKeeping(store.servers, self.membership, self.calls, self.root)
        self.asked: list[tuple[str, str, bytes]] = []  # what was passed on: door, address, head and body
        self.heard: list[News] = []
        self.server: asyncio.Server | None = None
        self.answering: Answering | None = None

    async def listen(self) -> None:
        here = Here(
            reach=self._reach,
            providers=OneProvider(self.machine),
            logs=self.logs,
            blobs=self.blobs,
            admit=lambda node, token: "key" if token == f"of {self.root.name}" else None,
            door=self._door,
        )
        self.answering = Answering(here, self.heard.append)
        self.server = await asyncio.start_unix_server(self.answering.serve, self.socket, ssl=self.tls)

    async def _reach(self, node: Node) -> StreamChannel:
        """An agent that says everything in capitals, and its name at the end."""
        if node.address != self.root.name:
            raise Unreachable(f"{self.root.name} does not reach {node.address}")

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            while data := await reader.read(1 << 16):
                writer.write(data.upper())
            writer.write(self.root.name.encode())
            writer.close()

        path = self.root / "agent.sock"
        path.unlink(missing_ok=True)
        self.agent = await asyncio.start_unix_server(serve, path)
        return StreamChannel(*await asyncio.open_unix_connection(path))

    async def _door(self, door: str, address: str) -> StreamChannel:
        """It answers with what it was asked, in pieces; `/cut` with less than it says; `/HEAD` without a
        body."""
        pair = socket.socketpair()
        ours, theirs = [StreamChannel(*await asyncio.open_connection(sock=each)) for each in pair]

        async def answer() -> None:
            head = await theirs.reader.readuntil(b"\r\n\r\n")
            body = b""
            if b"content-length: " in head:
                body = await theirs.reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
            while b"transfer-encoding: chunked" in head and not body.endswith(b"0\r\n\r\n"):
                body += await theirs.reader.read(1 << 16)
            self.asked.append((door, address, head + body))
            whole = head + body
            theirs.writer.write(b"HTTP/1.1 201 Made\r\nx-of: a\r\nconnection: close\r\n")
            if head.startswith(b"HEAD"):
                theirs.writer.write(b"content-length: 99\r\n\r\n")
            elif b"/cut" in head:
                theirs.writer.write(b"content-length: 99\r\n\r\nless")
            else:
                theirs.writer.write(
                    b"transfer-encoding: chunked\r\n\r\n%x\r\n" % len(whole) + whole + b"\r\n0\r\n\r\n"
                )
            theirs.writer.close()

        self.answering_door = asyncio.ensure_future(answer())
        return ours

    async def close(self) -> None:
        await self.peers.close()
        if self.server is not None and self.answering is not None:
            self.server.close()
            self.answering.close()


@contextlib.asynccontextmanager
async def two(tmp_path: Path) -> AsyncIterator[tuple[End, End, Store]]:
    clock = FixedClock()
    store = await Store.open("sqlite://", ids=SimIds(), clock=clock)
    a, b = (End(tmp_path, name, store, clock) for name in "ab")
    for end in (a, b, a):
        await end.membership.beat()
    for end in (a, b):
        await end.listen()
    try:
        yield a, b, store
    finally:
        for end in (a, b):
            await end.close()
        await store.close()


def test_what_one_has_comes_to_the_other(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(tmp_path) as (a, b, _):
            assert (a.membership.term(), b.membership.term()) == (1, 0), "one of them decides"

            channel = await b.peers.reach(a_node(address="a"), b._reach)
            channel.writer.write(b"x" * 300_000)
            channel.writer.write_eof()
            assert await channel.reader.read() == b"X" * 300_000 + b"a"
            with pytest.raises(Unreachable, match="b does not reach nowhere"):
                await b.peers.reach(a_node(address="nowhere"), b._reach)

            data = bytes(range(256)) * 4000
            await a.logs.write(LogChunk(rank_id="att-1.0", offset=0, data=data))
            await b.logs.write(LogChunk(rank_id="att-1.0", offset=0, data=data[:1000]))
            assert await b.peers.fill_log(b.logs, "att-1.0") == ""
            assert await b.logs.read("att-1.0", 0, len(data) + 1) == data
            assert not b.logs.is_finished("att-1.0")
            await a.logs.finish("att-1.0")
            assert await b.peers.fill_log(b.logs, "att-1.0") == "" and b.logs.is_finished("att-1.0")

            tree = Tree(entries=(Entry(path="f", kind="f", size=3, chunks=(_digest(b"abc"),)),))
            await a.blobs.put(_digest(b"abc"), b"abc")
            body = await a.blobs.put_tree(_json(tree))
            assert await b.blobs.holds_tree(body) and not await b.blobs.holds_tree("0" * 64)
            assert await b.blobs.own_chunk(_digest(b"abc")) == b"abc"

            assert await b.peers.admit("node", "of a") == "key"
            assert await b.peers.admit("node", "of b") is None, "nobody else gave it out"
            b.peers.tell_rows(["job-1", "job-2"])
            await _until(lambda: a.heard)
            assert a.heard == [News(rows=("job-1", "job-2"))]

    asyncio.run(main())


def test_work_on_a_machine_is_driven_there_and_never_taken_for_gone(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(tmp_path) as (a, b, store):
            claim = a_claim()
            await a.providers.get("here").ensure(claim)
            await b.providers.get("here").ensure(claim)
            assert (list(a.machine.claims), list(b.machine.claims)) == ([claim.id], [])
            [fact] = await b.providers.get("here").observe([])
            assert fact == a.machine.claims[claim.id]
            a.machine.error = OutOfCapacity("this machine", "it is full")
            with pytest.raises(OutOfCapacity, match="it is full"):
                await b.providers.get("here").ensure(claim)

            await a.close()
            with pytest.raises(Transient) as caught:
                await b.providers.get("here").ensure(claim)
            assert str(caught.value).startswith("it is on the machine of the server `a`: ")
            assert "`argosy server peers --forget a`" in str(caught.value)
            [fact] = await b.providers.get("here").observe([])
            assert (fact.claim_id, fact.state) == (claim.id, ClaimState.HELD)
            await store.servers.forget("srv-a")
            await b.membership.beat()
            assert await b.providers.get("here").observe([]) == []

    asyncio.run(main())


def test_a_log_that_may_go_on_elsewhere_says_where(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(tmp_path) as (_, b, store):
            store.clock.advance(7)  # type: ignore[attr-defined]
            await b.membership.beat()
            assert b.calls.others == []
            assert await b.peers.fill_log(b.logs, "att-1.0") == (
                "there may be more of this output at the server `a`, which has not answered for 7 s: "
                "start it again, or `argosy server peers --forget a` if it never comes back"
            )
            assert b.membership.term() == 2, "the other one is silent: this one decides"

    asyncio.run(main())


def test_only_servers_of_the_database_are_answered(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(tmp_path) as (a, _, _store):
            _, stranger = contexts("another secret", FixedClock().now_ms() / 1000)
            bare = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            bare.check_hostname, bare.verify_mode = False, ssl.CERT_NONE
            stranger.verify_mode = ssl.CERT_NONE  # who does not mind whom they speak to
            for context in (stranger, bare, None):
                said = b""
                with contextlib.suppress(OSError):
                    name = "argosy" if context is not None else None
                    reader, writer = await asyncio.open_unix_connection(
                        a.socket, ssl=context, server_hostname=name
                    )
                    writer.write(b"GET / HTTP/1.1\r\nAuthorization: argosy\r\n\r\n")
                    said = await reader.read()
                    writer.close()
                assert b"connected" not in said

    asyncio.run(main())


class Request:
    """A request as ASGI has it, and what came back."""

    def __init__(self, method: str, path: str, *pieces: bytes, announced: bool = True) -> None:
        length = (b"content-length", str(sum(map(len, pieces))).encode())
        body = length if announced else (b"transfer-encoding", b"chunked")
        self.scope = {
            "type": "http", "method": method, "path": path, "raw_path": path.encode(), "query_string": b"a=1",
        }  # fmt: skip
        self.scope["headers"] = [
            (b"host", b"box:7421"),
            (b"connection", b"x"),
            (b"x-forwarded-for", b"6"),
            body,
        ]
        self._pieces, self.stays = list(pieces) or [b""], asyncio.Event()
        self.said: list[Any] = []

    async def receive(self) -> Any:
        if not self._pieces:
            await self.stays.wait()
            return {"type": "http.disconnect"}
        piece = self._pieces.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(self._pieces)}

    async def send(self, message: Any) -> None:
        self.said.append(message)

    async def by(self, end: End, taken: bytes | None = None) -> bytes:
        channel = await end.keeping.reach("tcp", "10.0.0.9")
        await pass_on(channel, self.scope, self.receive, self.send, taken)
        return b"".join(message.get("body", b"") for message in self.said)


def test_a_request_for_files_goes_to_the_server_that_keeps_them(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(tmp_path) as (a, b, _):
            for end in (a, b):
                await end.keeping.open()
                with pytest.raises(Elsewhere):
                    end.keeping.check()  # nobody has files: the first who needs some keeps them
            assert await a.keeping.settled() and not await b.keeping.settled()
            a.keeping.check()

            large = os.urandom(300_000)
            made = Request("PUT", "/v1/x%2fy", large[:100_000], large[100_000:])
            back = await made.by(b)
            head = b"PUT /v1/x%2fy?a=1 HTTP/1.1\r\nhost: box:7421\r\ncontent-length: 300000\r\n"
            head += b"connection: close\r\n\r\n"
            assert back == head + large and a.asked == [("tcp", "10.0.0.9", back)]
            assert made.said[0]["status"] == 201 and made.said[0]["headers"] == [(b"x-of", b"a")]
            back = await Request("POST", "/s", b"ab", b"c", announced=False).by(b)
            assert back.endswith(
                b"transfer-encoding: chunked\r\nconnection: close\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n"
            )
            back = await Request("POST", "/read", b"gone").by(b, taken=b"kept")
            assert back.endswith(b"content-length: 4\r\nconnection: close\r\n\r\nkept")
            assert await Request("HEAD", "/h").by(b) == b""
            with pytest.raises(OSError, match="the other server broke off"):
                await Request("GET", "/cut").by(b)

    asyncio.run(main())


def test_files_of_a_server_that_is_away_are_told_to_be_there(tmp_path: Path) -> None:
    async def main() -> None:
        (tmp_path / "a" / "folders").mkdir(parents=True)
        (tmp_path / "a" / "folders" / "fld-1").mkdir()
        async with two(tmp_path) as (a, b, store):
            for end in (b, a):
                await end.keeping.open()
            assert a.keeping.is_here, "who has some keeps them"
            await a.close()
            with pytest.raises(ArgosyError) as caught:
                await b.keeping.reach("tcp", "")
            assert caught.value.code == "transient"
            assert caught.value.what.startswith(
                "this is on the disk of the server `a`, which keeps buckets and folders: "
            )
            assert caught.value.hint == (
                "start it again; if it never comes back, `argosy server peers --forget a`"
            )
            await store.servers.forget("srv-a")
            assert await b.keeping.settled(), "then they begin anew here"

    asyncio.run(main())


def test_who_keeps_the_files_decides_while_it_is_there(tmp_path: Path) -> None:
    async def main() -> None:
        async with two(tmp_path) as (a, b, store):
            assert a.membership.term() and await b.keeping.settled()
            for end in (a, b, a):
                await end.membership.beat()
            assert (a.membership.term(), b.membership.term()) == (0, 2)
            store.clock.advance(7)  # type: ignore[attr-defined]
            await a.membership.beat()
            assert a.membership.term() == 3, "the keeper is silent"

    asyncio.run(main())


def test_errors_arrive_as_they_were_raised() -> None:
    for error in (
        *(OutOfCapacity("zone", "full"), RequestRefused("claim", "no"), Transient("soon"), Unreachable("x")),
        ArgosyError("not-found", "there is none", hint="look"),
    ):
        made = error_of(answer_of(error))
        assert type(made) is type(error) and str(made) == str(error)


def test_a_server_that_is_there_is_not_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def main() -> None:
        async with two(tmp_path) as (_, _, store):
            with pytest.raises(ArgosyError, match="belongs to one server"):
                await tell_peers(store)
            monkeypatch.setattr(type(store.servers), "is_alone", False)
            lines = [line.split() for line in await tell_peers(store)]
            assert [line[:1] + line[3:-1] for line in lines[1:]] == [["a", "decides"], ["b", "is", "there"]]
            for name, code in (("b", "wrong-state"), ("c", "not-found")):
                with pytest.raises(ArgosyError) as caught:
                    await tell_peers(store, name)
                assert caught.value.code == code and caught.value.hint
            await store.servers.leave("srv-b")
            [told] = await tell_peers(store, "b")
            assert told == "The server b is forgotten, and what ran on its machine is taken for lost."

    asyncio.run(main())


async def _until(seen: Any) -> None:
    async with asyncio.timeout(90):
        while not seen():
            await asyncio.sleep(0.005)


def _digest(data: bytes) -> str:
    import hashlib

    return hashlib.sha256(data).hexdigest()


def _json(tree: Tree) -> bytes:
    import msgspec

    return msgspec.json.encode(tree)
