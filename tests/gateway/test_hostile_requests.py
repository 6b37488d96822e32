"""Hostile clients: each way to say one thing to the gateway and another to the replica, to hide who one
is, to occupy connections, is refused or made harmless."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from gateway_house import House, run_house, service, table
from hypothesis import given
from hypothesis import strategies as st

from argosy.gateway.framing import BadBody, Chunked, Frames, body_of
from argosy.gateway.heads import CHUNKED, UNTIL_CLOSE, BadHead, parse_answer, parse_request
from argosy.model.routes import EndpointRoute, Holding, KeyRoute, Member, RouteTable

H = b"Host: a\r\n"
GET = b"GET /s/web/ HTTP/1.1\r\n"
POST = b"POST /s/web/echo HTTP/1.1\r\n" + H
CHUNKS = b"Transfer-Encoding: chunked\r\n"
UPGRADE = b"Connection: upgrade\r\nUpgrade: websocket\r\n"
SMUGGLED = b"GET /s/web/smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

AMBIGUOUS = {
    "length and chunks": POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nabcde",
    "two equal lengths": POST + b"Content-Length: 4\r\nContent-Length: 4\r\n\r\nabcd",
    "a list of lengths": POST + b"Content-Length: 4, 4\r\n\r\nabcd",
    "a signed length": POST + b"Content-Length: +5\r\n\r\nabcde",
    "a negative length": POST + b"Content-Length: -5\r\n\r\nabcde",
    "a hexadecimal length": POST + b"Content-Length: 0x5\r\n\r\nabcde",
    "a length of many digits": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "an empty length": POST + b"Content-Length:\r\n\r\n",
    "bare line feeds": b"GET /s/web/ HTTP/1.1\nHost: a\n\n",
    "a bare line feed in the head": GET + H + b"X: a\nY: b\r\n\r\n",
    "a bare carriage return": GET + H + b"X: a\rY: b\r\n\r\n",
    "a folded line": GET + H + b"X: a\r\n b\r\n\r\n",
    "a space before the colon": GET + H + b"Content-Length : 3\r\n\r\nabc",
    "a space before the name": GET + H + b" Content-Length: 3\r\n\r\nabc",
    "an unknown coding": POST + b"Transfer-Encoding: xchunked\r\n\r\n",
    "a coding before chunks": POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and identity": POST + CHUNKS + b"Transfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "a vertical tab in the coding": POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "quoted chunks": POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "chunks in 1.0": b"POST /s/web/echo HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "NUL in a value": GET + H + b"X: a\0b\r\n\r\n",
    "no host": GET + b"X: 1\r\n\r\n",
    "two hosts": GET + H + H + b"\r\n",
    "two names for the host": b"GET http://b/s/web/ HTTP/1.1\r\n" + H + b"\r\n",
    "a host with a path": GET + b"Host: a/s/other\r\n\r\n",
    "a host with a user": GET + b"Host: a@b\r\n\r\n",
    "a host with spaces": GET + b"Host: a b\r\n\r\n",
    "no path": b"GET s/web/ HTTP/1.1\r\n" + H + b"\r\n",
    "a space in the path": b"GET /s/web/ /x HTTP/1.1\r\n" + H + b"\r\n",
    "an unknown scheme": b"GET gopher://a/s/web/ HTTP/1.1\r\n" + H + b"\r\n",
    "HTTP/1.2": b"GET /s/web/ HTTP/1.2\r\n" + H + b"\r\n",
    "HTTP/0.9": b"GET /s/web/\r\n\r\n",
    "an upgrade with a body": GET + H + UPGRADE + b"Content-Length: 1\r\n\r\nx",
    "dot segments": b"GET /s/web/../other/ HTTP/1.1\r\n" + H + b"\r\n",
    "encoded dot segments": b"GET /s/web/%2e%2E/other HTTP/1.1\r\n" + H + b"\r\n",
    "half encoded dot segments": b"GET /s/web/.%2e/ HTTP/1.1\r\n" + H + b"\r\n",
    "dot segments behind encoded slashes": b"GET /s/web%2f..%2fother HTTP/1.1\r\n" + H + b"\r\n",
    "dot segments with parameters": b"GET /s/web/..;/other HTTP/1.1\r\n" + H + b"\r\n",
    "a backslash": b"GET /s/web/..\\other HTTP/1.1\r\n" + H + b"\r\n",
    "an encoded backslash": b"GET /s/web/%5cother HTTP/1.1\r\n" + H + b"\r\n",
    "an encoded NUL": b"GET /s/web/%00 HTTP/1.1\r\n" + H + b"\r\n",
    "encoded line ends": b"GET /s/web/%0d%0aX:%201 HTTP/1.1\r\n" + H + b"\r\n",
    "a fragment": b"GET /s/web/#x HTTP/1.1\r\n" + H + b"\r\n",
}  # fmt: skip


def test_what_two_programs_could_read_in_two_ways_is_refused() -> None:
    async def test(house: House) -> None:
        for name, request in AMBIGUOUS.items():
            answer = await house.gate.say(request + SMUGGLED)
            assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 ") == 1, (name, answer)
        assert house.replica.heads == []

    run_house(test)


BAD_CHUNKS = {
    "a negative size": b"-5\r\nhello\r\n0\r\n\r\n",
    "a size that is no number": b"xyz\r\nhello\r\n0\r\n\r\n",
    "a hexadecimal prefix": b"0x5\r\nhello\r\n0\r\n\r\n",
    "an extension": b"5;a=b\r\nhello\r\n0\r\n\r\n",
    "an extension with a bare line feed": b"5;\nxx\r\nhello\r\n0\r\n\r\n",
    "a bare line feed after the size": b"5\nhello\r\n0\r\n\r\n",
    "a chunk longer than it says": b"5\r\nhelloworld\r\n0\r\n\r\n",
    "a bare line feed after the chunk": b"5\r\nhello\n0\r\n\r\n",
    "a space after the size": b"5 \r\nhello\r\n0\r\n\r\n",
    "a size of many digits": b"0000000000000000005\r\nhello\r\n0\r\n\r\n",
    "fields after the body": b"5\r\nhello\r\n0\r\nX-Argosy-Shadow: 1\r\n\r\n",
    "a bare line feed at the end": b"5\r\nhello\r\n0\r\n\n",
}


def test_chunks_that_two_programs_could_read_in_two_ways_are_refused() -> None:
    async def test(house: House) -> None:
        for name, body in BAD_CHUNKS.items():
            answer = await house.gate.say(POST + b"Transfer-Encoding: chunked\r\n\r\n" + body + SMUGGLED)
            assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 ") == 1, (name, answer)
            (
                reader,
                writer,
            ) = await house.gate.connect()  # the fault comes when the replica has the head already
            writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
            await asyncio.sleep(0.005)
            writer.write(body + SMUGGLED)
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 400 ") and answer.count(b"HTTP/1.1 ") == 1, (name, answer)
        assert not any(b"smuggled" in head for head in house.replica.heads)
        assert house.router.tell().services[0].in_flight == 0

    run_house(test)


def test_connect_and_http_2_are_not_spoken_here() -> None:
    async def test(house: House) -> None:
        assert (await house.gate.say(b"CONNECT a:22 HTTP/1.1\r\n" + H + b"\r\n")).startswith(b"HTTP/1.1 405 ")
        preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
        assert (await house.gate.say(preface)).startswith(b"HTTP/1.1 505 ")
        upgrade = (
            GET
            + H
            + b"Connection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\nHTTP2-Settings: AAM\r\n\r\n"
        )
        assert (await house.gate.say(upgrade)).endswith(b"ok")
        assert (
            b"h2c" not in house.replica.heads[0].lower() and b"settings" not in house.replica.heads[0].lower()
        )

    run_house(test)


def test_an_absolute_address_is_made_a_path() -> None:
    async def test(house: House) -> None:
        answer = await house.gate.say(
            b"GET HTTP://A/s/web/x?y HTTP/1.1\r\n" + H + b"Connection: close\r\n\r\n"
        )
        assert answer.endswith(b"ok") and house.replica.heads[0].startswith(
            b"GET /x?y HTTP/1.1\r\nHost: a\r\n"
        )

    run_house(test)


def test_what_clients_say_of_themselves_never_reaches_a_replica() -> None:
    async def test(house: House) -> None:
        lies = (
            b"X-Forwarded-For: 6.6.6.6", b"X_Forwarded_For: 6.6.6.6", b"x-forwarded-host: evil",
            b"Forwarded: for=6.6.6.6",
            b"X-Real-IP: 6.6.6.6", b"X-Argosy-Request-Id: 6", b"x_argosy_shadow: 6", b"X-Argosy-Anything: 6",
            b"Proxy: http://6.6.6.6", b"X-Original-URL: /6", b"X-Rewrite-URL: /6", b"Content_Length: 6",
            b"Transfer_Encoding: chunked6", b"Proxy-Connection: 6", b"Keep-Alive: 6", b"TE: trailers6",
        )  # fmt: skip
        await house.gate.get("/s/web/", *lies)
        (head,) = house.replica.heads
        assert b"6" not in head and b"evil" not in head and b"x-forwarded-for: 127.0.0.1\r\n" in head

    run_house(test)


def test_connection_takes_away_what_it_names_but_not_what_matters() -> None:
    async def test(house: House) -> None:
        named = b"Connection: close, X-Hop, Host, Authorization, X-Forwarded-For, Content-Length, Cookie"
        await house.gate.get(
            "/s/web/echo",
            named,
            b"X-Hop: 1",
            b"Authorization: Basic x",
            b"Cookie: a=b",
            method=b"POST",
            body=b"hi",
        )
        (head,) = house.replica.heads
        assert b"X-Hop" not in head and b"\r\nConnection" not in head
        for kept in (
            b"Host: a\r\n",
            b"Authorization: Basic x\r\n",
            b"Content-Length: 2\r\n",
            b"Cookie: a=b\r\n",
        ):
            assert kept in head
        assert b"x-forwarded-for: 127.0.0.1\r\n" in head

    run_house(test)


def test_our_own_edge_tells_the_address_of_the_client() -> None:
    async def test(house: House) -> None:
        house.gate.door.trusted = True
        lines = (b"X-Forwarded-For: 6.6.6.6, 192.0.2.7", b"X-Forwarded-Proto: https", b"X-Argosy-Shadow: 1")
        await house.gate.get("/s/web/", *lines)
        (head,) = house.replica.heads
        assert b"x-forwarded-for: 192.0.2.7\r\nx-forwarded-proto: https\r\n" in head
        assert b"6.6.6.6" not in head and b"shadow" not in head.lower()

    run_house(test)


def test_a_replica_cannot_speak_as_the_gateway() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"lie"] = (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Argosy-Variant: x\r\n"
            b"Connection: X-Y\r\nX-Y: 1\r\n\r\n"
        )
        answer = await house.gate.get("/s/web/lie")
        assert b"ariant" not in answer and b"X-Y" not in answer

    run_house(test)


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (GET + H + b"X: " + b"a" * 40_000 + b"\r\n\r\n", b"431"),
        (GET + H + b"X: " + b"a" * 40_000, b"431"),
        (b"G" * 40_000, b"431"),
        (POST + b"Connection: close\r\nContent-Length: 1001\r\n\r\n" + b"x" * 1001, b"413"),
        (b"\x16\x03\x01\x02\x00\x01\x00", b"400"),
    ],
)
def test_too_large_and_not_http(request_bytes: bytes, status: bytes) -> None:
    async def test(house: House) -> None:
        assert (await house.gate.say(request_bytes)).startswith(b"HTTP/1.1 " + status)
        assert house.replica.heads == []

    run_house(test, max_body_bytes=1000)


def test_a_chunked_body_may_not_be_larger_either() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        for _ in range(30):
            writer.write(b"64\r\n" + b"x" * 100 + b"\r\n")
            await asyncio.sleep(0.001)
        assert (await reader.read()).startswith(b"HTTP/1.1 413 ")
        assert house.replica.bodies == []

    run_house(test, max_body_bytes=1000)


def test_slow_heads_slow_bodies_and_idle_connections_are_ended() -> None:
    async def test(house: House) -> None:
        slow_head, writer = await house.gate.connect()
        writer.write(b"GET /s/web/ HT")
        slow_body, body_writer = await house.gate.connect()
        body_writer.write(POST + b"Content-Length: 999\r\n\r\nx")
        idle, idle_writer = await house.gate.connect()
        idle_writer.write(GET + H + b"\r\n")
        await idle.readuntil(b"ok")
        for second in itertools.count(1):
            await asyncio.sleep(0.001)
            if second % 3 == 0 and second < 30:  # a byte now and then does not help
                if second < 9:
                    writer.write(b"T")
                body_writer.write(b"x")
            house.gate.door.sweep()
            if second == 12:
                assert (await slow_head.read()).startswith(b"HTTP/1.1 408 ")
            if second == 35:
                assert (await slow_body.read()).startswith(b"HTTP/1.1 408 ")
            if second == 80:
                assert await idle.read() == b""
                break
        async with asyncio.timeout(90):
            while house.gate.door.clients:
                house.gate.door.sweep()
                await asyncio.sleep(0.001)

    run_house(test)


def test_a_page_of_another_origin_may_not_open_a_websocket() -> None:
    async def test(house: House) -> None:
        async def opens(origin: bytes) -> bool:
            reader, writer = await house.gate.connect()
            writer.write(b"GET /s/web/socket HTTP/1.1\r\nHost: a:8080\r\n" + UPGRADE + origin + b"\r\n")
            status = (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1]
            writer.close()
            assert status in (b"101", b"403")
            return status == b"101"

        assert await opens(b"") and await opens(b"Origin: http://A:8080\r\n")
        for origin in (
            b"https://evil",
            b"http://a",
            b"http://a:8081",
            b"null",
            b"http://a:8080.evil",
            b"file://",
        ):
            assert not await opens(b"Origin: " + origin + b"\r\n")
        route = service(house.replica.address, origins=("https://app.example",))
        house.router.take_table(table(route, generation=2))
        assert await opens(b"Origin: https://app.example\r\n") and not await opens(
            b"Origin: https://evil\r\n"
        )

    run_house(test)


def test_no_way_to_a_service_that_is_not_public_is_open() -> None:
    """By prefix, host, wildcard, shared endpoint, model, path of another, as an upgrade, early or late."""

    async def test(house: House) -> None:
        [address] = await house.add(1)
        own: dict[str, Any] = {
            "public": False,
            "models": ("tiny",),
            "hosts": ("own.example.org", "*.apps.example.org"),
        }
        key = KeyRoute(id="k", sha256="0" * 64)
        guarded = service(address, name="guarded", **own, keys=(key,))
        closed = service(address, name="closed", public=False, prefill="svc-guarded")
        members = (Member(service="svc-guarded"), Member(service="svc-closed"))
        shared = EndpointRoute(name="all", prefix="/s/all", hosts=("all.example.org",), members=members)
        house.router.take_table(RouteTable(generation=2, services=(guarded, closed), endpoints=(shared,)))
        body = b'{"model":"tiny"}'
        asked = 0
        for host in (
            b"a",
            b"own.example.org",
            b"OWN.example.org:80",
            b"x.apps.example.org",
            b"all.example.org",
        ):
            for path in (
                b"/s/guarded/",
                b"/s/closed/",
                b"/s/all/v1/models",
                b"/v1/models",
                b"/v1/completions",
            ):
                for line in (
                    b"X: 1",
                    b"Authorization: Bearer x",
                    b"Authorization: Basic Og==",
                    b"X-Api-Key: " + b"0" * 64,
                    b"Connection: Upgrade\r\nUpgrade: websocket",
                    b"X-Forwarded-For: 127.0.0.1",
                    b"X-Argosy-Passed: here",
                    b"Expect: 100-continue",
                ):
                    house.clock.now += 61  # guesses of before are forgotten
                    method = b"POST" if b"completions" in path else b"GET"
                    request = b"%b %b HTTP/1.1\r\nHost: %b\r\nConnection: close\r\n%b\r\n" % (
                        method, path, host, line,
                    )  # fmt: skip
                    if method == b"POST":
                        request += b"Content-Type: application/json\r\nContent-Length: %d\r\n" % len(body)
                    answer = await house.gate.say(request + b"\r\n" + (body if method == b"POST" else b""))
                    last = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
                    assert last[9:12] in (b"400", b"401", b"404"), (host, path, line, answer)
                    asked += 1
        assert asked == 200 and house.replica.heads == []

    run_house(test, 0)


def test_the_name_of_a_service_is_compared_whole() -> None:
    async def test(house: House) -> None:
        for path in (
            "/s/webx",
            "/s/we",
            "/S/web/",
            "//s/web/",
            "/s//web/",
            "/s/%77eb/",
            "/x/s/web/",
            "/s/web%2f",
        ):
            assert (await house.gate.get(path)).startswith(b"HTTP/1.1 404 "), path
        route = service(house.replica.address, hosts=("web.example", "*.apps.example"))
        house.router.take_table(table(route, generation=2))
        for host, status in (
            (b"WEB.example:80", b"200"), (b"web.example.", b"200"), (b"x.apps.example", b"200"),
            (b"apps.example", b"404"), (b"web.example.evil", b"404"), (b"y.x.apps.example", b"404"),
        ):  # fmt: skip
            answer = await house.gate.say(
                b"GET /x HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n"
            )
            assert answer.split(b" ")[1] == status, host

    run_house(test)


def test_the_gateway_is_nobodys_replica() -> None:
    async def test(house: House) -> None:
        house.router._own_paths = ("/run/gateway.sock",)
        with pytest.raises(ValueError, match="is the gateway's own socket"):
            house.router.take_table(table(service("/run/gateway.sock"), generation=2))

    run_house(test)


def test_clients_that_leave_while_they_wait_leave_nothing() -> None:
    async def test(house: House) -> None:
        for request in (GET + H + b"\r\n", POST + b"Content-Length: 5\r\n\r\nab", b"GET /s/w"):
            _, writer = await house.gate.connect()
            writer.write(request)
            await asyncio.sleep(0.005)
            writer.transport.abort()
        async with asyncio.timeout(90):
            while house.gate.door.clients:
                await asyncio.sleep(0.002)
        told = house.router.tell().services[0]
        assert (told.in_flight, told.held) == (0, 0)

    run_house(test, 0, holding=Holding())


@given(st.binary(max_size=200), st.lists(st.integers(1, 40), max_size=20))
def test_any_body_in_chunks_is_counted_the_same_however_it_is_cut(body: bytes, cuts: list[int]) -> None:
    stream, at = b"", 0
    for size in cuts:
        piece = body[at : at + size]
        at += size
        if piece:
            stream += b"%x\r\n%b\r\n" % (len(piece), piece)
    stream += b"0\r\n\r\n"
    whole = Chunked(strict=True)
    assert whole.feed(stream + b"GET", 0) == len(stream) and whole.done
    cut = Chunked(strict=True)
    for index in range(len(stream)):
        assert not cut.done
        assert cut.feed(stream[index : index + 1], 0) == 1
    assert cut.done


@given(
    st.lists(st.binary(min_size=1, max_size=40), max_size=8),
    st.lists(st.integers(1, 60), max_size=20),
    st.sampled_from([CHUNKED, UNTIL_CLOSE, 0]),
)
def test_what_passes_at_first_sight_is_what_was_looked_at(
    pieces: list[bytes], cuts: list[int], length: int
) -> None:
    """Pieces of answers as they come from replicas: many are whole chunks, and not all are."""
    chunks = [b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces] + [b"0\r\n\r\n"]
    if length != CHUNKED:
        chunks = [*pieces, b"."]
    stream = b"".join(chunks)
    counted = length or len(stream)
    for reads in (chunks, [stream[at : at + 7] for at in range(0, len(stream), 7)], _cut(stream, cuts)):
        body = body_of(counted, strict=False)
        assert body is not None
        for number, read in enumerate(reads):
            last = number == len(reads) - 1
            if not body.passes(read):
                assert body.feed(read, 0) == len(read)
            assert body.done is (last and counted != UNTIL_CLOSE)


def _cut(stream: bytes, cuts: list[int]) -> list[bytes]:
    found, at = [], 0
    for size in cuts:
        found.append(stream[at : at + size])
        at += size
    return [each for each in (*found, stream[at:]) if each]


@given(st.binary(max_size=120))
def test_no_bytes_break_the_grammar(data: bytes) -> None:
    for parse in (parse_request, parse_answer):
        for text in (
            data,
            GET + data + b"\r\n\r\n",
            GET + H + b"X: " + data + b"\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n" + data,
        ):
            try:
                fields = parse(text).fields  # type: ignore[operator]
            except BadHead:
                continue
            assert b"\n" not in fields.replace(b"\r\n", b"") and b"\r" not in fields.replace(b"\r\n", b"")
    try:
        Chunked(strict=True).feed(data, 0)
    except BadBody:
        pass


@given(st.lists(st.integers(0, 70_000), min_size=1, max_size=5), st.integers(1, 9999))
def test_borders_of_websocket_frames_are_found_however_they_are_cut(sizes: list[int], cut: int) -> None:
    stream, borders = b"", set()
    for size in sizes:
        head = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big") if size < 65536 else (
            b"\x7f" + size.to_bytes(8, "big")
        )  # fmt: skip
        stream += b"\x82" + head + bytes(size)
        borders.add(len(stream))
    frames, at, found = Frames(), 0, -1
    while at < len(stream):
        border = frames.feed(stream[at : at + cut])
        if border >= 0:
            found = at + border
            assert found in borders
        at += cut
    assert found == len(stream) and frames.at_border
