"""The splice: heads are written anew, bodies and streams pass as they come, connections are used again."""

from __future__ import annotations

import asyncio

from gateway_house import House, run_house


def test_a_request_reaches_the_replica_and_its_answer_the_client() -> None:
    async def test(house: House) -> None:
        answer = await house.gate.get("/s/web/a/b?c=d", b"X-One: 1", b"X-Argosy-Shadow: 1")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n") and answer.endswith(b"\r\n\r\nok")
        assert b"x-argosy-request-id: id-1\r\n" in answer and b"connection: close\r\n" in answer
        assert house.replica.heads == [
            b"GET /a/b?c=d HTTP/1.1\r\nHost: a\r\nX-One: 1\r\nx-forwarded-host: a\r\n"
            b"x-forwarded-prefix: /s/web\r\n"
            b"x-forwarded-for: 127.0.0.1\r\nx-forwarded-proto: http\r\nx-argosy-request-id: id-1\r\n\r\n"
        ]

    run_house(test)


def test_connections_are_used_again_on_both_sides() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()
        for _ in range(3):
            writer.write(b"GET /s/web/ HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"\r\n\r\nok")
        assert house.replica.connections == 1 and len(house.replica.heads) == 3

    run_house(test)


def test_requests_sent_ahead_are_answered_in_order() -> None:
    async def test(house: House) -> None:
        one = b"POST /s/web/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\none"
        two = b"POST /s/web/echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nConnection: close\r\n\r\ntwo"
        answers = await house.gate.say(one * 20 + two)
        assert [part[:3] for part in answers.split(b"\r\n\r\n")[1:]] == [b"one"] * 20 + [b"two"]

    run_house(test)


def test_bodies_pass_by_length_and_in_chunks() -> None:
    async def test(house: House) -> None:
        large = bytes(range(256)) * 4096  # 1 MiB
        answer = await house.gate.get("/s/web/echo", method=b"POST", body=large)
        assert answer.endswith(large)
        chunks = b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
        answer = await house.gate.say(
            b"POST /s/web/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            + chunks
        )
        assert answer.endswith(b"\r\n\r\nhello world")

    run_house(test)


def test_a_body_cut_at_every_byte_arrives_whole() -> None:
    async def test(house: House) -> None:
        request = (
            b"POST /s/web/echo HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"a\r\n0123456789\r\n1\r\nx\r\n0\r\n\r\n"
        )
        reader, writer = await house.gate.connect()
        for at in range(len(request)):
            writer.write(request[at : at + 1])
            await asyncio.sleep(0)
        assert (await reader.read()).endswith(b"\r\n\r\n0123456789x")

    run_house(test)


def test_events_of_a_stream_pass_at_once() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()
        writer.write(b"GET /s/web/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"data: 1\n\n")  # the replica waits for us now
        house.replica.go_on.set()
        assert (await reader.readuntil(b"0\r\n\r\n")).count(b"data:") == 2

    run_house(test)


def test_a_websocket_passes_after_the_replica_has_agreed() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()
        writer.write(
            b"GET /s/web/socket HTTP/1.1\r\nHost: a\r\n"
            b"Connection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\r\n"
        )
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        assert b"connection: upgrade\r\nupgrade: websocket\r\n" in house.replica.heads[0]
        frame = b"\x82\x7f" + (300_000).to_bytes(8, "big") + b"x" * 300_000
        writer.write(frame)
        assert await reader.readexactly(len(frame)) == frame
        for client in house.gate.door.clients:
            client.go_away()
        assert await reader.read() == b"\x88\x02\x03\xe9"  # going away

    run_house(test)


def test_a_client_that_leaves_ends_its_request_at_the_replica() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()
        writer.write(b"GET /s/web/stream HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"data: 1\n\n")
        loop = asyncio.get_running_loop()
        left_s = loop.time()
        writer.transport.abort()
        while house.router.tell().services[0].in_flight:
            await asyncio.sleep(0.001)
            assert loop.time() - left_s < 5
        house.replica.go_on.set()  # it writes, and sees that nobody is there
        async with asyncio.timeout(90):
            await house.replica.closed.wait()
        counters = house.router.tell().services[0]
        assert counters.replicas[0].in_flight == 0 and counters.revisions[0].errors == 0

    run_house(test)


def test_a_replica_that_dies_in_mid_answer_cuts_the_client() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"part-close"] = (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"
        )
        answer = await house.gate.get("/s/web/part-close")
        assert b"0\r\n\r\n" not in answer
        assert house.router.tell().services[0].revisions[0].errors == 1

    run_house(test)


def test_an_answer_without_a_length_ends_with_its_connection() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"until-close"] = b"HTTP/1.1 200 OK\r\n\r\nall of it"
        answer = await house.gate.get("/s/web/until-close")
        assert answer.endswith(b"\r\n\r\nall of it") and b"connection: close" in answer

    run_house(test)


def test_head_and_empty_answers_have_no_body() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"none"] = b"HTTP/1.1 204 No Content\r\n\r\n"
        house.replica.scripts[b"head"] = b"HTTP/1.1 200 OK\r\nContent-Length: 70000\r\n\r\n"
        reader, writer = await house.gate.connect()
        writer.write(b"GET /s/web/none HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b" 204 " in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HEAD /s/web/head HTTP/1.1\r\nHost: a\r\n\r\n")
        assert b"Content-Length: 70000" in await reader.readuntil(b"\r\n\r\n")
        writer.write(b"GET /s/web/x HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\nok")
        assert house.replica.connections == 1

    run_house(test)


def test_a_client_that_reads_slowly_holds_the_replica_back() -> None:
    async def test(house: House) -> None:
        size = 16 << 20
        house.replica.scripts[b"big"] = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
        reader, writer = await house.gate.connect()
        writer.write(b"GET /s/web/big HTTP/1.1\r\nHost: a\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(50):
            await asyncio.sleep(0.002)
        (client,) = house.gate.door.clients
        assert client.transport.get_write_buffer_size() < 2 << 20
        got = 0
        while got < size:
            got += len(await reader.read(1 << 20))
        assert got == size

    run_house(test)


def test_a_dead_connection_that_was_idle_is_not_an_error() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"last-close"] = b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1"
        assert (await house.gate.get("/s/web/last-close")).endswith(b"1")
        assert (await house.gate.get("/s/web/x")).endswith(b"ok")

    run_house(test)
