"""What a peer over TCP may take of the server: real sockets, small limits."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import time
from collections.abc import Iterator

import pytest

from argosy.server.door import Guests, Limits
from argosy.server.tokens import Tokens
from argosy.testing.idle_server import IdleServer

LIMITS = Limits(
    header_bytes=2000, headers=10, request_s=0.4, body_s=0.4, unread_s=0.4, pipelined=4, connections=8
)
GET = b"GET /v1/health HTTP/1.1\r\nhost: localhost\r\n"


@pytest.fixture
def server() -> Iterator[IdleServer]:
    with IdleServer(listen="127.0.0.1:0", limits=LIMITS) as running:
        running.do(Tokens(running.store).add("s3cret", name="a", scope="use", now_ms=1))
        yield running


@contextlib.contextmanager
def knock(server: IdleServer, first: bytes = b"") -> Iterator[socket.socket]:
    host, _, port = server.address.rpartition("/")[2].rpartition(":")
    with socket.create_connection((host, int(port)), timeout=90) as made:
        made.sendall(first)
        yield made


def to_the_end(peer: socket.socket) -> bytes:
    """All that comes until the server closes: it does, or the test fails by its time."""
    found = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := peer.recv(65536):
            found += piece
    return found


def flood(peer: socket.socket, piece: bytes, limit_bytes: int = 64 << 20) -> int:
    """How much the server took before it closed."""
    sent = 0
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        while sent < limit_bytes:
            sent += peer.send(piece)
    return sent


@pytest.mark.parametrize(
    "piece",
    [b"x" * 65536, b"a: b\r\n" * 5000, b"y: " + b"z" * 3000 + b"\r\n"],
    ids=["one header without end", "many headers", "a long header"],
)
def test_headers_end_somewhere(server: IdleServer, piece: bytes) -> None:
    with knock(server, GET + b"x: ") as peer:
        assert flood(peer, piece) < 16 << 20
    with knock(server, GET + b"\r\n") as peer:
        assert peer.recv(100).startswith(b"HTTP/1.1 200")


def test_a_request_line_ends_somewhere(server: IdleServer) -> None:
    with knock(server, b"GET /v1/" + b"x" * 5000 + b" HTTP/1.1\r\n\r\n") as peer:
        assert to_the_end(peer).startswith(b"HTTP/1.1 4")


def test_trailers_end_somewhere(server: IdleServer) -> None:
    head = (
        b"POST /v1/plan HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\nx: "
    )
    with knock(server, head) as peer:
        assert flood(peer, b"x" * 65536) < 16 << 20


@pytest.mark.parametrize(
    "start",
    [
        b"",
        b"GET",
        GET,
        b"POST /v1/plan HTTP/1.1\r\nhost: localhost\r\nAuthorization: Bearer s3cret\r\n"
        b"content-length: 9\r\n\r\n{",
    ],
    ids=["nothing", "half a line", "half of the headers", "half a body"],
)
def test_who_does_not_go_on_is_cut_off(server: IdleServer, start: bytes) -> None:
    with knock(server, start) as peer:
        to_the_end(peer)
    assert server.call(lambda: server.application.doors[1].guests.count()) == 0  # type: ignore[union-attr]


def test_a_body_of_any_size_passes_in_pieces(server: IdleServer) -> None:
    body = b'{"x": "' + b"y" * 300_000 + b'"}'
    head = (
        b"POST /v1/plan HTTP/1.1\r\nhost: localhost\r\nAuthorization: Bearer s3cret\r\nconnection: close\r\n"
        b"content-length: %d\r\n\r\n" % len(body)
    )
    with knock(server, head) as peer:
        for at in range(0, len(body), 10_000):
            peer.sendall(body[at : at + 10_000])
        assert b" 431 " not in to_the_end(peer).splitlines()[0]


def test_requests_wait_in_a_short_line(server: IdleServer) -> None:
    with knock(server) as peer:
        assert flood(peer, (GET + b"\r\n") * 2000) < 32 << 20


def test_unread_answers_end(server: IdleServer) -> None:
    """A peer that asks on and on and reads nothing."""
    with knock(server) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        request = b"GET /v1/gpus?all=true HTTP/1.1\r\nhost: localhost\r\nAuthorization: Bearer s3cret\r\n\r\n"
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            for _ in range(200):
                peer.sendall(request)
        deadline = time.monotonic() + 60
        while server.call(lambda: server.application.doors[1].guests.count()):  # type: ignore[union-attr]
            assert time.monotonic() < deadline, "the connection lives on though nobody reads"
            time.sleep(0.05)
        to_the_end(peer)


def test_connections_are_counted_and_come_back(server: IdleServer) -> None:
    with contextlib.ExitStack() as stack:
        peers = [stack.enter_context(knock(server)) for _ in range(12)]
        told = [to_the_end(peer) for peer in peers]
        assert sum(answer.startswith(b"HTTP/1.1 503") for answer in told) == 4
    with knock(server, GET + b"\r\n") as peer:
        assert peer.recv(100).startswith(b"HTTP/1.1 200")


class Peer(asyncio.Transport):
    def __init__(self, address: str) -> None:
        super().__init__({"peername": (address, 5)})
        self.closed = False

    def is_closing(self) -> bool:
        return self.closed


def test_one_address_may_not_take_all(server: IdleServer) -> None:
    guests = Guests(Limits(connections=10, per_address=3))
    mine = [Peer("192.0.2.1") for _ in range(4)]
    assert [guests.admit(one) for one in mine] == [True, True, True, False]
    assert guests.admit(Peer("192.0.2.2"))
    mine[0].closed = True  # a terminal: nobody says that it left
    assert guests.admit(mine[3])
    assert all(guests.admit(Peer("127.0.0.1")) for _ in range(6))
    assert not guests.admit(Peer("127.0.0.1")) and not guests.admit(Peer("192.0.2.3"))


def test_memory_comes_back(server: IdleServer) -> None:
    for _ in range(20):
        with knock(server, GET + b"x: ") as peer:
            flood(peer, b"x" * 65536)
    gc.collect()
    from argosy.server.door import GuardedProtocol

    alive = [each for each in gc.get_objects() if isinstance(each, GuardedProtocol)]
    assert len(alive) <= 8
