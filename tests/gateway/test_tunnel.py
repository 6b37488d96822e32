"""Tunnels: real processes at both ends, what is refused, streams that do not hold each other up."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import ssl
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
import uvloop
from gateway_house import Replica, service, table
from test_gateway_process import Process

from argosy.gateway import tunnel_greeting as greeting
from argosy.gateway.own_certificate import ensure_certificate
from argosy.gateway.tunnel_mux import HEAD, PING, WINDOW_BYTES, Mux, Stream
from argosy.gateway.tunnel_open import SPREAD_S, wait_s
from argosy.model.routes import KeyRoute

TOKEN = "t" * 43
NOW_S = 1_790_000_000.0


class End:
    """One end of a tunnel, a process of its own."""

    def __init__(self, *words: str) -> None:
        self.command = [sys.executable, "-m", "argosy.gateway.tunnel", *words, "--json"]

    async def start(self) -> End:
        pipe = asyncio.subprocess.PIPE
        self.process = await asyncio.create_subprocess_exec(*self.command, stdout=pipe, stderr=pipe)
        return self

    async def hear(self, what: str) -> dict[str, str]:
        """The next event of this kind."""
        assert self.process.stdout is not None
        async with asyncio.timeout(90):
            while line := await self.process.stdout.readline():
                event = json.loads(line)
                if event["event"] == what:
                    return cast(dict[str, str], event)
        raise AssertionError(f"it ended without `{what}`")

    async def last_words(self) -> str:
        async with asyncio.timeout(90):
            _, said = await self.process.communicate()
        assert self.process.returncode == 1
        return said.decode().strip()

    async def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Outside:
    """The machine outside: its accepting end with a port for requests."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.certificate, self.key = ensure_certificate(folder / "tls", (), NOW_S)
        self.pin = hashlib.sha256(ssl.PEM_cert_to_DER_cert(self.certificate.read_text())).hexdigest()
        (folder / "tokens").write_text(f"web {greeting.sha256_of(TOKEN)} web.example.org\n")
        self.place = "127.0.0.1:0"
        self.http = "127.0.0.1:0"

    async def start(self) -> Outside:
        self.end = await End(
            "accept", "--listen", self.place, "--certificate", str(self.certificate), str(self.key),
            "--tokens", str(self.folder / "tokens"), "--sockets", str(self.folder / "sockets"),
            "--http", self.http,
        ).start()  # fmt: skip
        self.place = (await self.end.hear("listening"))["detail"]
        self.http = (await self.end.hear("serving"))["detail"]
        return self

    async def get(self, path: str, host: str = "a") -> bytes:
        reader, writer = await asyncio.open_connection(*self.http.split(":"))
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
        async with asyncio.timeout(90):
            answer = await reader.read()
        writer.close()
        return answer

    def opening(self, target: str, *words: str, token: str = TOKEN) -> End:
        file = self.folder / f"token-{token}"
        file.write_text(token + "\n")
        return End(
            "open", "web", target, "--to", self.place, "--token-file", str(file), "--spread", "0.2", *words
        )


@contextlib.asynccontextmanager
async def _two_gateways(folder: Path) -> AsyncIterator[tuple[Outside, Process]]:
    """One outside, and one inside that serves `web`."""
    inside, replica = Process(folder, 1), await Replica().start()
    outside = await Outside(folder).start()
    await inside.start()
    inside.replica = replica
    await inside.take(table(service(replica.address)))
    try:
        yield outside, inside
    finally:
        inside.process.terminate()
        await inside.process.wait()
        await outside.end.kill()
        await replica.kill()


@pytest.mark.process
def test_a_service_behind_a_firewall_and_a_tunnel_that_comes_back(tmp_path: Path) -> None:
    async def main() -> None:
        async with _two_gateways(tmp_path) as (outside, inside):
            target = str(inside.control.with_suffix(".outside"))
            pin = ("--serves", "gateway", "--pin", outside.pin)
            opening = await outside.opening(target, *pin).start()
            try:
                await opening.hear("up")
                await outside.end.hear("up")
                answers = await asyncio.gather(*(outside.get("/s/web/") for _ in range(30)))
                assert all(answer.endswith(b"ok") for answer in answers), answers[0]
                assert b" 404 " in await outside.get("/s/other/")
                await opening.kill()
                assert (await outside.end.hear("down"))["name"] == "web"
                waiting = asyncio.ensure_future(outside.get("/s/web/"))
                opening = await outside.opening(target, *pin).start()
                assert (await waiting).endswith(b"ok"), "requests wait for a tunnel that reconnects"
                await outside.end.kill()
                assert (await opening.hear("down"))["detail"]
                await outside.start()
                assert (await outside.get("/s/web/")).endswith(b"ok"), "it comes back by itself"
            finally:
                await opening.kill()

    uvloop.run(main())


@pytest.mark.process
@pytest.mark.parametrize("place", ["the socket for others", "the port for this machine"])
def test_who_comes_through_a_tunnel_is_not_on_this_machine(tmp_path: Path, place: str) -> None:
    """A service without keys that was not made public answers here, and nobody outside; a key lets in."""

    async def main() -> None:
        async with _two_gateways(tmp_path) as (outside, inside):
            address = inside.replica.address
            await inside.take(table(service(address, public=False), generation=2))
            socket = inside.control.with_suffix(".outside")
            target = str(socket) if place == "the socket for others" else f"127.0.0.1:{inside.port}"
            opening = await outside.opening(target, "--serves", "gateway", "--pin", outside.pin).start()
            try:
                await outside.end.hear("up")
                assert (await inside.get("/s/web/")).endswith(b"ok")
                answer = await outside.get("/s/web/")
                assert answer.startswith(b"HTTP/1.1 401 "), answer
                assert b"`web` is not public and has no keys yet" in answer
                key = KeyRoute(id="k", sha256=hashlib.sha256(b"sk-one").hexdigest())
                await inside.take(table(service(address, public=False, keys=(key,)), generation=3))
                shown = "a\r\nAuthorization: Bearer sk-one"
                assert (await outside.get("/s/web/", shown)).endswith(b"ok")
                assert b" 401 " in (await outside.get("/s/web/")).split(b"\r\n")[0]
                assert socket.stat().st_mode & 0o777 == 0o600
            finally:
                await opening.kill()

    uvloop.run(main())


@pytest.mark.process
def test_a_wrong_token_and_a_wrong_certificate_end_it_with_words(tmp_path: Path) -> None:
    async def main() -> None:
        outside = await Outside(tmp_path).start()
        try:
            pin = outside.pin
            wrong = [
                outside.opening("127.0.0.1:1", "--pin", pin, token="x"),
                outside.opening("127.0.0.1:1", "--pin", "0" * 64),
                outside.opening("127.0.0.1:1"),
            ]
            said = await asyncio.gather(*[(await each.start()).last_words() for each in wrong])
            assert said[0] == "error: this token is not for `web`: look at the file of tokens there"
            assert said[1].endswith(f"is not the pinned one: its SHA-256 is {pin}")
            assert "is not good: self-signed certificate" in said[2]
        finally:
            await outside.end.kill()

    uvloop.run(main())


class Plain(asyncio.Protocol):
    """A local socket that takes what comes, or has stopped taking."""

    def __init__(self) -> None:
        self.got = 0
        self.lost = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.got += len(data)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.set_result(error)


class Pair:
    """Both ends of a tunnel in one process, over a socket; what the inside accepts goes to `serve`."""

    async def start(self, serve: Callable[[], asyncio.Protocol]) -> Pair:
        loop = asyncio.get_running_loop()
        self.lost: list[str] = []
        self.outer = Mux(loop, lambda _, why: self.lost.append(why))
        self.inner = Mux(loop, lambda _, why: None, self._accept)
        self.inside = await loop.create_server(serve, "127.0.0.1", 0)
        wire = await loop.create_server(lambda: self.inner, "127.0.0.1", 0)
        self.wire, _ = await loop.create_connection(lambda: self.outer, *wire.sockets[0].getsockname())
        wire.close()
        self.outside = await loop.create_server(lambda: self.outer.open(), "127.0.0.1", 0)
        self._tasks: list[asyncio.Task[Any]] = []
        return self

    def _accept(self, stream: Stream) -> None:
        loop = asyncio.get_running_loop()
        place = self.inside.sockets[0].getsockname()
        self._tasks.append(loop.create_task(loop.create_connection(lambda: stream, *place)))

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.outside.sockets[0].getsockname())


class Echo(asyncio.Protocol):
    """Sends back what it gets; `flood` is answered with a stream without end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.floods = False

    def data_received(self, data: bytes) -> None:
        self.floods = self.floods or data == b"flood"
        if self.floods:
            self.resume_writing()
        else:
            self.transport.write(data)

    def pause_writing(self) -> None:
        self.full = True

    def resume_writing(self) -> None:
        self.full = False
        while self.floods and not self.full and not self.transport.is_closing():
            self.transport.write(bytes(64 << 10))


def test_a_reader_that_has_stopped_holds_up_nobody() -> None:
    async def main() -> None:
        pair = await Pair().start(Echo)
        _, stalled = await pair.connect()
        stalled.transport.pause_reading()  # type: ignore[attr-defined]
        stalled.write(b"flood")
        reader, writer = await pair.connect()
        data = random.Random(7).randbytes(3 * WINDOW_BYTES)
        writer.write(data)
        writer.write_eof()
        async with asyncio.timeout(90):
            assert await reader.readexactly(len(data)) == data, "more than a window, in order"
            assert await reader.read() == b"", "the end comes after the last byte"
        writer.close()
        stalled.transport.abort()
        async with asyncio.timeout(90):
            while pair.outer.streams or pair.inner.streams:
                await asyncio.sleep(0.01)
        assert not pair.lost

    uvloop.run(main())


def test_a_small_answer_overtakes_a_large_one() -> None:
    class Wire(asyncio.Transport):
        """Notes what is written."""

        def __init__(self) -> None:
            super().__init__()
            self.written = bytearray()

        def write(self, data: Any) -> None:
            self.written += data

        def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
            self.high = high

    async def main() -> None:
        mux, wire = Mux(asyncio.get_running_loop(), lambda *_: None), Wire()
        mux.connection_made(wire)
        large, small = mux.open(), mux.open()
        for _ in range(4):
            large.data_received(bytes(256 << 10))
        await asyncio.sleep(0)
        mux.pause_writing()
        before = len(wire.written)
        assert before <= 160 << 10, "no more than a round is handed over before the wire is full"
        small.data_received(b"answer")
        mux.resume_writing()
        await asyncio.sleep(0)
        at = wire.written.index(HEAD.pack(small.number, 6) + b"answer", before)
        assert at - before <= 17 << 10, "one piece of the large one at most goes first"

    asyncio.run(main())


def test_what_breaks_the_rules_or_is_silent_ends_the_tunnel() -> None:
    async def main() -> None:
        too_much = b"".join(HEAD.pack(1, 16 << 10) + bytes(16 << 10) for _ in range(33))
        cases = [
            (too_much, "a stream has more under way than was granted"),
            (HEAD.pack(1, 9 << 24), "a frame of kind 9"),
            (HEAD.pack(1, 1 << 20), "a frame of 1048576 bytes"),
            (HEAD.pack(7, 1 << 24), "a stream was opened that may not be"),
        ]
        for data, why in cases:
            pair = await Pair().start(Plain)
            await pair.connect()
            while not pair.outer.streams:
                await asyncio.sleep(0)
            for stream in pair.outer._streams.values():
                stream.transport = None  # its socket does not take anything
            pair.outer.data_received(data)
            while not pair.lost:
                await asyncio.sleep(0)
            assert pair.lost == [why]
        pair = await Pair().start(Plain)
        for _ in range(2):
            pair.outer.tick()
        pair.outer.data_received(HEAD.pack(0, PING << 24))
        for _ in range(2):
            pair.outer.tick()
        assert not pair.lost, "it has said something in between"
        pair.outer.tick()
        while not pair.lost:
            await asyncio.sleep(0)
        assert pair.lost == ["nothing was heard for 45 s"]

    uvloop.run(main())


def test_a_thousand_tunnels_come_back_spread_over_ten_seconds() -> None:
    dice = random.Random(3).random
    first = sorted(wait_s(0, dice()) for _ in range(1000))
    assert first[-1] <= SPREAD_S == 10.0 and first[-1] - first[0] >= 9.9
    busiest = max(sum(start <= each < start + 1 for each in first) for start in range(10))
    assert busiest <= 140, "no second has many more than its tenth"
    later = sorted(wait_s(9, dice()) for _ in range(1000))
    assert 29 < later[-1] <= 30, "and they never wait longer"


def test_greetings_are_read_strictly() -> None:
    allowed = greeting.parse_allowed(f"# tunnels\n\nweb {greeting.sha256_of(TOKEN)} # mine\n")
    good = greeting.render_request(greeting.Asked(name="web", token=TOKEN, serves="public"), "gw:1")
    assert greeting.parse_request(good, allowed) == greeting.Asked(name="web", token="", serves="public")
    refused = {
        good.replace(TOKEN.encode(), b"other"): 401,
        good.replace(b"/web", b"/chat"): 401,
        good.replace(b"Bearer ", b"Basic "): 401,
        good.replace(b"public", b"all"): 400,
        good.replace(b"argosy-tunnel/1", b"websocket"): 426,
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n": 404,
        good.replace(b"\r\n", b"\n"): 404,
    }
    for head, status in refused.items():
        with pytest.raises(greeting.NotGreeted) as caught:
            greeting.parse_request(head, allowed)
        assert caught.value.status == status and TOKEN not in str(caught.value)
    for text, why in {
        "Web x": "`Web` is no name of a service",
        f"web {'0' * 64} a b!": "`b!` is no host in lower case",
        f"web {'0' * 64}\nweb {'0' * 64}": "line 2: `web` has a line already",
    }.items():
        with pytest.raises(ValueError, match=why):
            greeting.parse_allowed(text)
