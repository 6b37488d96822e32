"""Our half of a WebSocket, against a library's server: sizes, fragments, pings, ends and refusals."""

from __future__ import annotations

import hashlib
import select
import socket
import subprocess
import sys
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve, unix_serve

from argosy.api.sessions import SessionStreams
from argosy.api.shell import ShellCalls
from argosy.client.ssh_proxy import target_of
from argosy.client.web_socket import Refused, WebSocket
from argosy.client.wire import WireError

LIMIT = 1 << 20


def echo(connection: ServerConnection) -> None:
    for message in connection:
        if message == "pieces":
            connection.send(iter([b"one", b"two", b""]))
        elif message == "ping":
            connection.ping(b"there?").wait(10)
            connection.send("pong came")
        elif message == "long":
            connection.send(bytes(LIMIT + 1))
        elif message == "bye":
            return
        else:
            connection.send(message)


def refuse(connection: ServerConnection, request: Request) -> Response | None:
    return connection.respond(404, "nothing here") if request.path == "/gone" else None


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("ws") / "s"
    with unix_serve(echo, str(path), max_size=None, process_request=refuse, compression="deflate") as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield path
        server.shutdown()


@pytest.fixture
def opened(address: Path) -> Iterator[Callable[[str], WebSocket]]:
    made: list[WebSocket] = []

    def open_one(target: str) -> WebSocket:
        raw = socket.socket(socket.AF_UNIX)
        raw.settimeout(90)
        raw.connect(str(address))
        made.append(WebSocket(raw, target, "argosy", [("x-argosy-project", "vision")], LIMIT))
        return made[-1]

    yield open_one
    for one in made:
        one.close()


def test_messages_of_every_length_come_back_as_they_went(opened: Callable[[str], WebSocket]) -> None:
    line = opened("/echo")
    for size in (0, 1, 3, 125, 126, 65535, 65536, LIMIT):
        data = bytes(range(256)) * (size // 256 + 1)
        line.send(data[:size])
        assert line.recv() == data[:size]
    line.send("grün")
    assert line.recv() == "grün"


def test_masks_are_laid_on_where_somebody_may_be_on_the_way() -> None:
    with serve(echo, "127.0.0.1", 0, max_size=None) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        line = WebSocket(socket.create_connection(server.socket.getsockname()), "/", "argosy", [], LIMIT)
        for size in (5, 20_001, 300_000):
            data = (bytes(range(256)) * 2000)[:size]
            line.send(data)
            assert line.recv() == data
        line.close()
        server.shutdown()


def test_fragments_are_joined_and_pings_answered(opened: Callable[[str], WebSocket]) -> None:
    line = opened("/echo")
    line.send("pieces")
    assert line.recv() == b"onetwo"
    line.send("ping")
    assert line.recv() == "pong came"


def test_the_end_is_an_error_and_nothing_is_sent_after_it(opened: Callable[[str], WebSocket]) -> None:
    line = opened("/echo")
    line.send("bye")
    with pytest.raises(ConnectionError, match="the server has closed the WebSocket"):
        line.recv()
    with pytest.raises(ConnectionError, match="the WebSocket is closed"):
        line.send(b"late")


def test_a_message_over_the_limit_ends_the_line(opened: Callable[[str], WebSocket]) -> None:
    line = opened("/echo")
    line.send("long")
    with pytest.raises(ConnectionError, match="a frame is not understood"):
        line.recv()


def test_a_refusal_has_status_and_body(opened: Callable[[str], WebSocket]) -> None:
    with pytest.raises(Refused) as caught:
        opened("/gone")
    assert (caught.value.status, caught.value.body) == (404, b"nothing here")


def test_a_server_that_does_not_prove_that_it_understood_is_no_websocket() -> None:
    ours, theirs = socket.socketpair()
    theirs.sendall(b"HTTP/1.1 101 Sure\r\nsec-websocket-accept: bm8=\r\n\r\n")
    with theirs, pytest.raises(WireError, match="does not fit its key"):
        WebSocket(ours, "/", "argosy", [], LIMIT)


def shaken_hands() -> tuple[WebSocket, socket.socket, socket.socket]:
    """A client's half, its socket, and a server's socket that has agreed to everything."""
    ours, theirs = socket.socketpair()

    def agree() -> None:
        asked = theirs.recv(4096).decode()
        key = theirs_key(asked)
        digest = hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        accept = b64encode(digest).decode()
        theirs.sendall(f"HTTP/1.1 101 Yes\r\nsec-websocket-accept: {accept}\r\n\r\n".encode())

    def theirs_key(asked: str) -> str:
        return next(
            line.split(": ")[1] for line in asked.splitlines() if line.startswith("sec-websocket-key")
        )

    thread = threading.Thread(target=agree)
    thread.start()
    line = WebSocket(ours, "/", "argosy", [], 1 << 20)
    thread.join()
    return line, ours, theirs


def test_who_reads_does_not_wait_for_who_writes() -> None:
    """A ping while a message is stuck: the other side takes it only when we have read what it sends."""
    line, ours, theirs = shaken_hands()
    message, sent = bytes(8 << 20), bytes(1 << 20)
    writer = threading.Thread(target=line.send, args=(message,), daemon=True)
    writer.start()
    looks = select.poll()
    looks.register(ours, select.POLLOUT)
    while looks.poll(0):  # until the message is stuck on its way
        pass
    head = b"\x82\x7f" + len(sent).to_bytes(8, "big")
    pouring = threading.Thread(target=theirs.sendall, args=(b"\x89\x02hi" + (head + sent) * 4,), daemon=True)
    pouring.start()
    reader = threading.Thread(target=lambda: [line.recv() for _ in range(4)], daemon=True)
    reader.start()
    reader.join(20)
    assert not reader.is_alive(), "the reader waits for the writer"
    data = bytearray()
    while len(data) < len(message) + 14 + 8:
        data += theirs.recv(1 << 20)
    writer.join(20)
    assert data[:2] == b"\x82\xff" and data[-8:-6] == b"\x8a\x82"  # the message, then what was owed
    mask = data[-6:-2]
    assert bytes(a ^ b for a, b in zip(data[-2:], mask, strict=False)) == b"hi"
    theirs.close()


def test_closing_says_farewell(address: Path) -> None:
    ended: list[int] = []

    def note(connection: ServerConnection) -> None:
        try:
            connection.recv()
        except ConnectionClosed as error:
            ended.append(error.rcvd.code if error.rcvd else 0)

    path = address.with_name("farewell")
    with unix_serve(note, str(path)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(str(path))
        WebSocket(raw, "/", "argosy", [], LIMIT).close()
        server.shutdown()
    assert ended == [1000]


@pytest.mark.parametrize("name", ["a b/c", "dev", "vision/dev"])
def test_what_ssh_opens_is_what_the_endpoints_say(name: str) -> None:
    key = "ssh-ed25519 AAAA+/=="
    pairs = (
        (target_of(f"{name}.argosy", 0, key), SessionStreams.session_ssh(name, key=key).target),
        (target_of(name, 2, key), ShellCalls.ssh(name, key=key, node=2).target),
    )
    for short, full in pairs:
        mine, theirs = urlsplit(short), urlsplit(full)
        assert mine.path == theirs.path
        assert dict(parse_qsl(mine.query)) == dict(parse_qsl(theirs.query))


def test_a_log_in_loads_little() -> None:
    code = "import sys, argosy.client.ssh_proxy; print(*sys.modules)"
    loaded = set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.split())
    assert "argosy.client.node_stream" in loaded
    assert not loaded & {"click", "websockets", "asyncio", "argosy.api.endpoint", "argosy.cli.main", "ssl"}
