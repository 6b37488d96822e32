"""Services at the server's own port: what passes, and what never crosses from console to service or back."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from argosy.api.endpoints import ENDPOINTS
from argosy.gateway.connection import Door
from argosy.gateway.routing import Router
from argosy.gateway.splice import clients
from argosy.model.routes import KeyRoute, ReplicaRoute, RevisionRoute, RouteTable, ServiceRoute
from argosy.server.door import Limits
from argosy.server.service_paths import MODEL_PATHS
from argosy.server.tokens import Tokens
from argosy.testing.idle_server import IdleServer

KEY = "argosy_sk_right"
SHA = hashlib.sha256(KEY.encode()).hexdigest()
BEARER = b"Authorization: Bearer " + KEY.encode() + b"\r\n"
EVENTS = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"


class Behind:
    """The server with a gateway beside it and one replica, which notes the heads that it sees."""

    def __init__(self, server: IdleServer) -> None:
        self.server = server
        self.heads: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        self.go_on = asyncio.Event()
        self.router: Router
        self._servers: list[asyncio.Server] = []

    async def start(self, folder: Path) -> None:
        loop = asyncio.get_running_loop()
        replica = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        address = f"127.0.0.1:{replica.sockets[0].getsockname()[1]}"
        self.router = Router(loop, lambda: 1000)
        replicas = (ReplicaRoute(id="r0", address=address),)
        key = (KeyRoute(id="k", sha256=SHA),)
        self.router.take_table(
            RouteTable(
                generation=1,
                services=tuple(
                    ServiceRoute(
                        id=f"svc-{name}",
                        name=name,
                        prefix=f"/s/{name}",
                        revisions=(RevisionRoute(id="1", replicas=replicas),),
                        keys=key if name != "open" and name != "own" else (),
                        public=name == "open",
                        models=("tiny",) if name == "chat" else (),
                    )
                    for name in ("open", "own", "chat")
                ),
            )
        )
        folder.mkdir(exist_ok=True)
        door = Door(self.router, loop, lambda: b"id", trusted=True)
        gate = await loop.create_unix_server(clients(door), str(folder / "control.outside"))
        self._servers = [replica, gate]

    async def stop(self) -> None:
        for each in self._servers:
            each.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.heads.append(head)
                length = head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0]
                if length:
                    await reader.readexactly(int(length))
                if b"upgrade: websocket" in head.lower():
                    writer.write(b"HTTP/1.1 101 S\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
                    while data := await reader.read(65536):
                        writer.write(data)
                    return
                if b"/events" in head.split(b"\r\n")[0]:
                    writer.write(EVENTS + b"9\r\ndata: 1\n\n\r\n")
                    await self.go_on.wait()
                    writer.write(b"9\r\ndata: 2\n\n\r\n0\r\n\r\n")
                else:
                    writer.write(self.answer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    def knock(self) -> socket.socket:
        host, _, port = self.server.address.rpartition("/")[2].rpartition(":")
        return socket.create_connection((host, int(port)), timeout=90)

    def ask(self, line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
        """One request on its own connection; the whole answer."""
        with self.knock() as peer:
            peer.sendall(request(line, b"Connection: close\r\n", *fields, body=body))
            found = b""
            while piece := peer.recv(65536):
                found += piece
            return found


def request(line: bytes, *fields: bytes, body: bytes = b"") -> bytes:
    length = b"Content-Length: %d\r\n" % len(body) if body else b""
    return line + b" HTTP/1.1\r\nHost: localhost\r\n" + b"".join(fields) + length + b"\r\n" + body


@pytest.fixture(scope="module")
def running() -> Iterator[Behind]:
    with IdleServer(listen="127.0.0.1:0", limits=Limits()) as server:
        server.do(Tokens(server.store).add("s3cret", name="a", scope="use", now_ms=1))
        behind = Behind(server)
        server.do(behind.start(server.home / "gateway"))
        yield behind
        server.do(behind.stop())


@pytest.fixture
def behind(running: Behind) -> Behind:
    running.heads.clear()
    running.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
    return running


def one(peer: socket.socket) -> bytes:
    """The next answer that has a length."""
    found = b""
    while b"\r\n\r\n" not in found:
        found += peer.recv(65536)
    head, _, rest = found.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
    while len(rest) < length:
        rest += peer.recv(65536)
    return head + b"\r\n\r\n" + rest


def test_a_public_service_answers_and_learns_its_prefix_and_its_client(behind: Behind) -> None:
    answer = behind.ask(b"GET /s/open/a?b=c")
    assert answer.startswith(b"HTTP/1.1 200 ") and answer.endswith(b"ok")
    [head] = behind.heads
    assert head.startswith(b"GET /a?b=c HTTP/1.1\r\n")
    assert b"x-forwarded-prefix: /s/open\r\n" in head and b"x-forwarded-for: 127.0.0.1\r\n" in head


def test_only_who_may_ask_the_service_may_ask_it_here(behind: Behind) -> None:
    token = b"Authorization: Bearer s3cret\r\n"
    assert behind.ask(b"GET /s/own/").startswith(b"HTTP/1.1 401 "), "nobody is on the gateway's machine here"
    assert behind.ask(b"GET /s/chat/").startswith(b"HTTP/1.1 401 ")
    assert behind.ask(b"GET /s/chat/", token).startswith(b"HTTP/1.1 401 "), "a token of the server is no key"
    assert behind.ask(b"GET /s/none/", token).startswith(b"HTTP/1.1 404 ")
    assert behind.heads == []
    assert behind.ask(b"GET /s/chat/", BEARER).endswith(b"ok")
    assert KEY.encode() not in behind.heads[0]


def test_one_connection_goes_to_and_fro(behind: Behind) -> None:
    health = request(b"GET /v1/health", b"Authorization: Bearer s3cret\r\n")
    with behind.knock() as peer:
        for sent in (
            request(b"GET /s/open/1"),
            health,
            health,
            request(b"POST /s/open/2", body=b"x"),
            health,
        ):
            peer.sendall(sent[:3])
            peer.sendall(sent[3:])
            assert one(peer).startswith(b"HTTP/1.1 200 ")
    assert [head.split(b" ")[1] for head in behind.heads] == [b"/1", b"/2"]


def test_models_under_one_address(behind: Behind) -> None:
    body = json.dumps({"model": "tiny", "messages": []}).encode()
    assert behind.ask(b"POST /v1/chat/completions", BEARER, body=body).endswith(b"ok")
    assert b'"tiny"' in behind.ask(b"GET /v1/models", BEARER)
    assert behind.ask(b"GET /v1/models").startswith(b"HTTP/1.1 401 ")
    assert behind.ask(b"GET /v1/modelsx", BEARER).startswith(b"HTTP/1.1 401 "), "that is the server's own"
    own = {endpoint.path.removeprefix("/") for endpoint in ENDPOINTS}
    assert not own & {path.partition("/")[0] for path in MODEL_PATHS}, "the server has no such paths"


def test_streams_and_websockets_pass(behind: Behind) -> None:
    with behind.knock() as peer:
        peer.sendall(request(b"GET /s/open/events"))
        found = b""
        while b"data: 1" not in found:
            found += peer.recv(65536)
        assert b"data: 2" not in found
        behind.server.call(behind.go_on.set)
        while b"data: 2" not in found:
            found += peer.recv(65536)
    upgrade = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    with behind.knock() as peer:
        peer.sendall(request(b"GET /s/open/socket", upgrade, b"Origin: http://localhost\r\n"))
        assert peer.recv(65536).startswith(b"HTTP/1.1 101 ")
        peer.sendall(b"\x81\x85abcdefghi")
        assert peer.recv(65536) == b"\x81\x85abcdefghi"
    evil = behind.ask(b"GET /s/open/socket", upgrade, b"Origin: https://evil.example\r\n")
    assert evil.startswith(b"HTTP/1.1 403 ")


def test_nothing_of_the_console_reaches_a_service(behind: Behind) -> None:
    behind.ask(
        b"GET /s/open/",
        b"Cookie: theirs=1; __Host-argosy-session=secret; argosy=secret\r\n",
        b"Authorization: Bearer argosy_pat_secret\r\n",
        b"X-Api-Key: argosy_cli_secret\r\n",
        b"X-Argosy-Project: secret\r\n",
        b"X-Forwarded-For: 10.9.9.9\r\n",
    )
    [head] = behind.heads
    assert b"secret" not in head and b"10.9.9.9" not in head and b"cookie: theirs=1\r\n" in head.lower()


def test_no_page_of_a_service_acts_as_the_console(behind: Behind) -> None:
    behind.answer = (
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nSet-Cookie: argosy=x\r\nSet-Cookie: __Host-argosy-session=x"
        b"\r\nSet-Cookie: own=1; Domain=localhost; Path=/\r\nClear-Site-Data: *\r\n"
        b"Strict-Transport-Security: max-age=1\r\nService-Worker-Allowed: /\r\n\r\nok"
    )
    head = behind.ask(b"GET /s/open/").partition(b"\r\n\r\n")[0].lower()
    assert b"content-security-policy: sandbox allow-" in head and b"allow-same-origin" not in head
    assert b"argosy=x" not in head and b"session=x" not in head and b"domain=" not in head
    assert b"set-cookie: own=1; path=/" in head
    for name in (b"clear-site-data", b"strict-transport", b"service-worker"):
        assert name not in head


@pytest.mark.parametrize(
    "line", [b"GET //s/open/", b"GET /v1/../s/open/", b"GET /%73/open/", b"GET /S/open/", b"GET /s"]
)
def test_what_only_looks_like_a_service_is_the_servers(behind: Behind, line: bytes) -> None:
    assert behind.ask(line, b"Authorization: Bearer s3cret\r\n").startswith(b"HTTP/1.1 404 ")
    assert behind.heads == []


def test_two_lengths_are_refused_here_too(behind: Behind) -> None:
    lengths = b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n"
    with behind.knock() as peer:
        peer.sendall(request(b"POST /s/open/", lengths) + b"0\r\n\r\nGET /v1/jobs HTTP/1.1\r\n\r\n")
        assert peer.recv(65536).startswith(b"HTTP/1.1 400 ")
    assert behind.heads == []


def test_without_a_gateway_that_is_said() -> None:
    with IdleServer(listen="127.0.0.1:0", limits=Limits()) as server:
        answer = Behind(server).ask(b"GET /s/open/")
        assert answer.startswith(b"HTTP/1.1 503 ") and b"no gateway is up on the server's machine" in answer
