"""Attacks on the proxy of apps, one row each: what a foreign page, a neighbour or an old code can do is
nothing.

The proxy is the real one on a real socket; the app behind it notes every byte that reaches it.
"""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from argosy.infra.agent_port import Duplex
from argosy.model.access import OWNER, Caller
from argosy.model.apps import App
from argosy.model.kinds.session import SESSION, SessionSpec, SessionStatus
from argosy.model.rows import Workload
from argosy.server.apps.proxy import Apps
from argosy.server.apps.rules import COOKIE, Place
from argosy.server.apps.tickets import Tickets
from argosy.server.session_doors import Pair
from argosy.store import Snapshot
from argosy.testing.builders import a_task

PORT = 7777
HOST = f"lab--one.localhost:{PORT}"
OWN = f"http://{HOST}"
CONSOLE = "http://localhost:7421"
SIBLING = f"http://lab--two.localhost:{PORT}"
EVIL = "https://evil.example"
WEB_SOCKET = (
    "upgrade: websocket\r\nconnection: Upgrade\r\nsec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n"
)


def a_session(name: str) -> Workload:
    spec = SessionSpec(app=App(name="lab", listens="socket", quiet=("/poll",)), task=a_task())
    return Workload(
        id=f"ses-{name}", kind=SESSION.name, name=name, spec=spec, status=SessionStatus(), created_ms=1
    )


class House:
    """Sessions `one` and `two`; their apps answer 200 and note what they get."""

    def __init__(self) -> None:
        self.now_ms = 1_000_000
        self._codes = (f"{n:043d}" for n in itertools.count(1))
        self.tickets = Tickets(lambda: self.now_ms, lambda: next(self._codes))
        self.apps = Apps(self, self.tickets, ("localhost", "apps.example.org"))
        self.seen: list[bytes] = []
        self.used: list[tuple[str, str]] = []
        self.allowed = self.good = True
        self.answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi"
        self.live = {name: a_session(name) for name in ("one", "two")}
        self._serving: set[asyncio.Task[None]] = set()

    # what the proxy asks

    async def rows(self) -> Snapshot:
        return Snapshot.of(list(self.live.values()))

    def find(self, rows: Snapshot, place: Place) -> Workload | None:
        row = rows.find_named(SESSION.name, place.session)
        return row if place.port or place.app == "lab" else None

    def may(self, caller: Caller, session: Workload) -> bool:
        return self.allowed

    async def stays(self, caller: Caller) -> bool:
        return self.good

    def use(self, session: Workload, path: str) -> None:
        self.used.append((session.name, path))

    async def connect(self, session_id: str, port: int) -> Duplex:
        import socket

        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        task = asyncio.ensure_future(self._serve(*await asyncio.open_connection(sock=theirs)))
        self._serving.add(task)
        return Pair(*await asyncio.open_connection(sock=ours))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1 << 16):
            self.seen.append(data)
            if match := re.search(rb"content-length: (\d{5,})", data):
                left = int(match[1]) - len(data.partition(b"\r\n\r\n")[2])
                while left > 0:
                    self.seen.append(await reader.read(1 << 16))
                    left -= len(self.seen[-1])
            if b"upgrade: websocket" in data.lower():
                writer.write(b"HTTP/1.1 101 Switching\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n")
            elif data.startswith((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS")):
                writer.write(self.answer)
            await writer.drain()

    async def recall(self, secret: bytes) -> None:
        return None

    async def swap(self, code: bytes, ticket: str) -> bool:
        return True

    # what a browser does

    def cookie(self, session: str = "one", caller: Caller = OWNER) -> str:
        code = self.tickets.issue(caller, f"ses-{session}", "lab")
        ticket = self.tickets.redeem(code.encode(), f"ses-{session}", "lab")
        assert ticket is not None
        return f"cookie: {COOKIE.decode()}={ticket}\r\n"

    async def ask(self, text: str, *, wait_s: float = 5.0) -> bytes:
        """What the proxy answers to these bytes, up to and with its head."""
        reader, writer = await asyncio.open_connection(*self.address)
        try:
            writer.write(text.encode("latin-1"))
            return await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), wait_s)
        finally:
            writer.close()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[House]:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: self.apps.client(secure=False), "127.0.0.1", 0)
        self.address = server.sockets[0].getsockname()
        try:
            yield self
        finally:
            server.close()
            self.apps.close()
            for task in self._serving:
                task.cancel()


def during(act: Callable[[House], Any]) -> Any:
    async def run() -> Any:
        async with House().open() as house:
            return await act(house)

    return asyncio.run(run())


def request(method: str, fields: str, *, host: str = HOST, path: str = "/api", body: str = "") -> str:
    length = f"content-length: {len(body)}\r\n" if body else ""
    return f"{method} {path} HTTP/1.1\r\nhost: {host}\r\n{fields}{length}\r\n{body}"


METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
#: Name, the fields beside a good cookie. Each is refused with 403, and the app sees nothing.
FOREIGN = {
    **{
        f"{name} {method}": (method, f"origin: {origin}\r\n")
        for method in METHODS
        for name, origin in (
            ("evil", EVIL), ("console", CONSOLE), ("sibling", SIBLING), ("null", "null"),
            ("other scheme", OWN.replace("http:", "https:")), ("other port", OWN.replace("7777", "7778")),
        )
    },
    **{
        f"websocket {name}": ("GET", f"{WEB_SOCKET}{field}")
        for name, field in (
            ("evil", f"origin: {EVIL}\r\n"), ("console", f"origin: {CONSOLE}\r\n"),
            ("sibling", f"origin: {SIBLING}\r\n"), ("null", "origin: null\r\n"), ("without origin", ""),
            ("two origins", f"origin: {OWN}\r\norigin: {EVIL}\r\n"),
        )
    },
    **{
        f"{site} {mode} {method}": (
            method, f"sec-fetch-site: {site}\r\nsec-fetch-mode: {mode}\r\nsec-fetch-dest: {dest}\r\n",
        )
        for site, mode, dest, method in (
            ("cross-site", "no-cors", "image", "GET"), ("cross-site", "no-cors", "script", "GET"),
            ("same-site", "no-cors", "image", "GET"), ("same-site", "cors", "empty", "GET"),
            ("cross-site", "navigate", "iframe", "GET"), ("cross-site", "navigate", "document", "POST"),
            ("none", "navigate", "document", "POST"), ("cross-site", "navigate", "object", "GET"),
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", FOREIGN)
def test_what_another_site_makes_a_browser_send(name: str) -> None:
    method, fields = FOREIGN[name]

    async def act(house: House) -> None:
        said = await house.ask(request(method, house.cookie() + fields))
        assert said.startswith(b"HTTP/1.1 403 "), said
        assert house.seen == [] and house.used == []

    during(act)


#: Name, what is sent instead of a good cookie of this app.
CREDENTIALS: dict[str, Callable[[House], str]] = {
    "nothing": lambda house: "",
    "of another session": lambda house: house.cookie("two"),
    "made up": lambda house: f"cookie: {COOKIE.decode()}=AAAA\r\n",
    "empty": lambda house: f"cookie: {COOKIE.decode()}=\r\n",
    "a bearer": lambda house: "authorization: Bearer argosy_pat_x\r\n",
    "a user named by a field": lambda house: "x-argosy-user: owner\r\nx-forwarded-user: owner\r\n",
    "tossed before the good one": lambda house: (
        f"cookie: {COOKIE.decode()}=evil; {house.cookie().partition(' ')[2]}"
    ),
    "by another name": lambda house: house.cookie().replace("__Host-", ""),
    "in the query": lambda house: "x: y\r\n",
    "a code, not a ticket": lambda house: (
        f"cookie: {COOKIE.decode()}={house.tickets.issue(OWNER, 'ses-one', 'lab')}\r\n"
    ),
}


@pytest.mark.parametrize("kind", ["GET", "HEAD", "POST", "websocket"])
@pytest.mark.parametrize("name", CREDENTIALS)
def test_who_has_no_ticket_of_this_app(name: str, kind: str) -> None:
    async def act(house: House) -> None:
        fields = CREDENTIALS[name](house) + f"origin: {OWN}\r\n" + (WEB_SOCKET if kind == "websocket" else "")
        said = await house.ask(request("GET" if kind == "websocket" else kind, fields))
        assert said.startswith(b"HTTP/1.1 401 "), said
        assert house.seen == [] and house.used == []

    during(act)


def test_there_are_enough_of_them() -> None:
    """Of those that come with a good cookie from elsewhere, and with no good cookie."""
    assert len(FOREIGN) >= 50 and len(CREDENTIALS) >= 10
    assert len([name for name in FOREIGN if "websocket" in name]) >= 6


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("lab--three.localhost", 421),
        ("other--one.localhost", 421),
        ("lab--one.evil.example", 421),
        ("lab--one.localhost.evil.example", 421),
        ("lab--one", 421),
        ("localhost", 421),
        ("127.0.0.1", 421),
        ("x.lab--one.localhost", 421),
        ("lab--one--two.localhost", 421),
        ("lab--one.localhost\r\nhost: lab--two.localhost", 400),
        ("lab--one.localhost/", 400),
        ("lab--one.localhost@lab--two.localhost", 400),
        ("99999--one.localhost", 421),
    ],
)
def test_hosts_that_are_no_apps_of_this_ticket(host: str, status: int) -> None:
    async def act(house: House) -> None:
        said = await house.ask(request("GET", house.cookie(), host=host))
        assert said.startswith(b"HTTP/1.1 %d " % status), said
        assert house.seen == []

    during(act)


@pytest.mark.parametrize(
    "text",
    [
        request("CONNECT", "", path="lab--two.localhost:80"),
        request("GET", "", path="/../x"),
        request("GET", "", path="/a/..%2f..%2fx"),
        request("GET", "", path="http://lab--two.localhost/x"),
        request("POST", "content-length: 3\r\ntransfer-encoding: chunked\r\n"),
        request("POST", "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n"),
        request("POST", "content-length: 3\r\ncontent-length: 4\r\n"),
        request("GET", " folded: x\r\n"),
        request("GET", "x: a\nb: c\r\n"),
        request("TRACE", ""),
    ],
)  # fmt: skip
def test_requests_that_two_programs_might_read_in_two_ways(text: str) -> None:
    async def act(house: House) -> None:
        head, _, rest = text.partition("\r\n")
        said = await house.ask(f"{head}\r\n{house.cookie()}{rest}")
        assert said.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 405 ")), said
        assert house.seen == []

    during(act)


def test_http_2_is_spoken_at_the_edge_and_never_tunnelled_to_an_app() -> None:
    """An app that took up `h2c` would see requests that nobody has looked at."""

    async def act(house: House) -> None:
        said = await house.ask("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        assert said.startswith(b"HTTP/1.1 505 "), said
        fields = "upgrade: h2c\r\nconnection: upgrade, http2-settings\r\nhttp2-settings: AAMAAABk\r\n"
        assert (await house.ask(request("GET", house.cookie() + fields))).startswith(b"HTTP/1.1 200 ")
        [seen] = house.seen
        assert b"h2c" not in seen and b"http2" not in seen.lower() and b"upgrade" not in seen.lower()

    during(act)


@pytest.mark.parametrize("origin", [f"origin: {OWN}\r\n", ""])
def test_a_web_socket_that_lost_its_upgrade_says_where_to_look(origin: str) -> None:
    """As when a proxy before this server passes no WebSockets: the app would answer with something odd."""

    async def act(house: House) -> None:
        fields = f"sec-websocket-key: eA==\r\nsec-websocket-version: 13\r\n{origin}"
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(request("GET", house.cookie() + fields + "connection: close\r\n").encode())
        said = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert said.startswith(b"HTTP/1.1 426 ") and b"must pass the fields Upgrade and Connection" in said
        assert house.seen == []

    during(act)


def test_a_part_of_a_file_is_the_apps_own_answer() -> None:
    async def act(house: House) -> None:
        house.answer = (
            b"HTTP/1.1 206 Partial Content\r\ncontent-range: bytes 5-6/9\r\ncontent-length: 2\r\n\r\nhi"
        )
        said = await house.ask(request("GET", f"{house.cookie()}range: bytes=5-6\r\nif-range: x\r\n"))
        assert said.startswith(b"HTTP/1.1 206 ") and b"content-range: bytes 5-6/9\r\n" in said
        assert b"range: bytes=5-6\r\n" in house.seen[0] and b"if-range: x\r\n" in house.seen[0]

    during(act)


def enter(code: str, *, host: str = HOST, then: str = "") -> str:
    body = f"code={code}" + (f"&next={then}" if then else "")
    return request("POST", f"origin: {CONSOLE}\r\n", host=host, path="/.argosy/enter", body=body)


def test_a_code_opens_once_its_own_app_and_in_time() -> None:
    async def act(house: House) -> None:
        code = house.tickets.issue(OWNER, "ses-one", "lab")
        said = await house.ask(enter(code, then="%2Flab%3Fa%3D1"))
        assert said.startswith(b"HTTP/1.1 303 ") and b"location: /lab?a=1\r\n" in said
        assert b"; Path=/; " in said and b"; Secure; HttpOnly; SameSite=Lax" in said
        assert b"Domain" not in said and b"cache-control: no-store" in said
        assert (await house.ask(enter(code))).startswith(b"HTTP/1.1 403 ")  # again
        other = house.tickets.issue(OWNER, "ses-two", "lab")
        assert (await house.ask(enter(other))).startswith(b"HTTP/1.1 403 ")  # of another session
        assert (await house.ask(enter(other, host=HOST.replace("one", "two")))).startswith(b"HTTP/1.1 403 ")
        late = house.tickets.issue(OWNER, "ses-one", "lab")
        house.now_ms += 31_000
        assert (await house.ask(enter(late))).startswith(b"HTTP/1.1 403 ")
        get = request("GET", "", path=f"/.argosy/enter?code={house.tickets.issue(OWNER, 'ses-one', 'lab')}")
        page = await house.ask(get)
        assert b"set-cookie" not in page and b"content-security-policy: default-src 'none'" in page
        assert house.seen == []

    during(act)


@pytest.mark.parametrize(
    "then",
    ["//evil.example", "https://evil.example", "/\\evil.example", "%2F%2Fevil.example", "/%0d%0ax: y", "x"],
)
def test_nobody_is_sent_elsewhere_after_the_entrance(then: str) -> None:
    async def act(house: House) -> None:
        said = await house.ask(enter(house.tickets.issue(OWNER, "ses-one", "lab"), then=then))
        assert b"location: /\r\n" in said, said

    during(act)


def test_the_app_never_sees_what_is_argosys_and_keeps_what_is_its_own() -> None:
    async def act(house: House) -> None:
        ticket = house.cookie().strip().partition(" ")[2]
        fields = (
            f'cookie: a=1;  _xsrf=2|ab|cd; {ticket}; __Host-argosy=console; argosy_session=x; b="q"\r\n'
            "authorization: Bearer argosy_pat_secret\r\nx-argosy-user: me\r\nx-forwarded-user: me\r\n"
            "x-forwarded-for: 6.6.6.6\r\nremote-user: root\r\nkubeflow-userid: root\r\nx-mine: yes\r\n"
        )
        assert (await house.ask(request("GET", fields))).startswith(b"HTTP/1.1 200 ")
        [seen] = house.seen
        assert b'cookie: a=1;  _xsrf=2|ab|cd; b="q"\r\n' in seen and b"x-mine: yes" in seen
        for secret in (b"argosy_pat", b"console", b"argosy_session", b"6.6.6.6", b"root", COOKIE, b"user"):
            assert secret not in seen, seen
        mine = request("GET", f"{house.cookie()}authorization: token abc\r\nORIGIN: {OWN}\r\n")
        await house.ask(mine)
        assert b"authorization: token abc" in house.seen[-1] and b"cookie" not in house.seen[-1].lower()

    during(act)


def test_an_app_sets_cookies_for_itself_alone() -> None:
    async def act(house: House) -> None:
        house.answer = (
            b"HTTP/1.1 200 OK\r\nset-cookie: a=1; Domain=.localhost; Path=/\r\n"
            b"Set-Cookie: __Host-argosy=stolen; Path=/\r\nset-cookie: argosy=x\r\ncontent-length: 0\r\n\r\n"
        )
        said = await house.ask(request("GET", house.cookie()))
        assert b"set-cookie: a=1; Path=/\r\n" in said and b"argosy=" not in said

    during(act)


def test_a_good_browser_gets_through() -> None:
    async def act(house: House) -> None:
        for fields in (
            "", f"origin: {OWN}\r\n", "sec-fetch-site: same-origin\r\n",
            "sec-fetch-site: none\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n",
            "sec-fetch-site: cross-site\r\nsec-fetch-mode: navigate\r\nsec-fetch-dest: document\r\n",
        ):  # fmt: skip
            assert (await house.ask(request("GET", house.cookie() + fields))).startswith(b"HTTP/1.1 200 ")
        said = await house.ask(request("GET", house.cookie() + WEB_SOCKET + f"origin: {OWN}\r\n"))
        assert said.startswith(b"HTTP/1.1 101 ")
        port = request("GET", house.cookie(), host=f"8080--one.localhost:{PORT}")
        assert (await house.ask(port)).startswith(b"HTTP/1.1 401 ")  # a ticket is for one face

    during(act)


@pytest.mark.parametrize("why", ["revoked", "no right", "signed out", "session gone", "too old"])
def test_what_was_open_ends_when_the_right_does(why: str) -> None:
    async def act(house: House) -> None:
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(request("GET", house.cookie() + WEB_SOCKET + f"origin: {OWN}\r\n").encode())
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"\x82" + b"x" * 100)
        match why:
            case "revoked":
                assert house.tickets.revoke(lambda right: right.session == "ses-one") == 1
            case "no right":
                house.allowed = False
            case "signed out":
                house.good = False
            case "session gone":
                del house.live["one"]
            case _:
                house.now_ms += 13 * 3_600_000
        try:
            assert await asyncio.wait_for(reader.read(), 3) == b""
        except ConnectionResetError:
            pass
        assert ("one", "") in house.used  # what was typed counted as use
        writer.close()

    during(act)


@pytest.mark.parametrize(
    ("frame", "is_use"),
    [
        (b'["stdin","a"]', True), (b'{"type":"ping"}', False), (b"2", False),
        (b'{"op": "keep-alive"}', False),
        (b'["set_size",40,80,600,800]', True),
        # of a desktop (VNC): a key, the pointer, a key with its scan code; asking for a picture, an answer
        (bytes.fromhex("0401000000000061"), True), (bytes.fromhex("050000640064"), True),
        (bytes.fromhex("ff0000010000006100000026"), True), (bytes.fromhex("03010000000004000300"), False),
        (bytes.fromhex("f8000000800000010000"), False),
    ],
)  # fmt: skip
def test_what_is_typed_is_use_and_a_heartbeat_is_not(frame: bytes, is_use: bool) -> None:
    mask = b"\x01\x02\x03\x04"
    masked = bytes(byte ^ mask[at % 4] for at, byte in enumerate(frame))

    async def act(house: House) -> None:
        reader, writer = await asyncio.open_connection(*house.address)
        writer.write(request("GET", house.cookie() + WEB_SOCKET + f"origin: {OWN}\r\n").encode())
        await reader.readuntil(b"\r\n\r\n")
        house.used.clear()
        kind = 0x81 if frame.isascii() and frame.decode().isprintable() else 0x82
        writer.write(bytes([kind, 0x80 | len(frame)]) + mask + masked)
        await writer.drain()
        async with asyncio.timeout(90):
            while not (house.seen and house.seen[-1].endswith(masked)):
                await asyncio.sleep(0.001)
        assert house.used == ([("one", "")] if is_use else [])
        writer.close()

    during(act)


def test_large_bodies_pass_and_nothing_of_them_is_kept() -> None:
    async def act(house: House) -> int:
        reader, writer = await asyncio.open_connection(*house.address)
        size = 32 << 20
        writer.write(request("POST", house.cookie() + f"content-length: {size}\r\n").encode())
        piece = b"x" * (1 << 20)
        for _ in range(32):
            writer.write(piece)
            await writer.drain()
        await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 20)
        writer.close()
        return sum(map(len, house.seen)) - size

    assert 0 < during(act) < 1000
