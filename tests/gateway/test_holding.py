"""Requests wait for replicas: at zero, at their limits, with bounds, deadlines and clients that leave."""

from __future__ import annotations

import asyncio

from gateway_house import House, run_house, service, table

from argosy.model.routes import Holding, ReplicaRoute, RevisionRoute


async def _until(condition: object, what: str) -> None:
    async with asyncio.timeout(90):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.002)


def _limited(address: str, most: int) -> tuple[RevisionRoute, ...]:
    return (RevisionRoute(id="v1", replicas=(ReplicaRoute(id="r0", address=address, max_concurrency=most),)),)


def test_two_hundred_requests_wait_at_zero_and_none_is_lost() -> None:
    async def test(house: House) -> None:
        wants: list[int] = []
        house.router.on_want = lambda: wants.append(len(house.router.wanted()))
        asking = [asyncio.create_task(house.gate.get("/s/web/")) for _ in range(200)]
        await _until(lambda: house.router.tell().services[0].held == 200, "held")
        assert wants[0] == 1 and house.router.wanted()[0].held == 200
        (address,) = await house.add()
        most = 0

        async def watch() -> None:
            nonlocal most
            while True:
                most = max(most, house.router.tell().services[0].replicas[0].in_flight)
                await asyncio.sleep(0)

        route = service(revisions=_limited(address, 4), holding=Holding(max_held=200))
        house.router.take_table(table(route, generation=2))
        watching = asyncio.create_task(watch())
        answers = await asyncio.gather(*asking)
        watching.cancel()
        assert all(answer.endswith(b"ok") for answer in answers) and len(house.replica.heads) == 200
        assert 1 <= most <= 4
        assert house.router.tell().services[0].held == 0

    run_house(test, 0, holding=Holding(max_held=200))


def test_too_many_are_refused_and_told_when_to_come_again() -> None:
    async def test(house: House) -> None:
        waiting = asyncio.create_task(house.gate.get("/s/web/"))
        await _until(lambda: house.router.tell().services[0].held == 1, "held")
        house.clock.now += 10
        answer = await house.gate.get("/s/web/")
        assert answer.startswith(b"HTTP/1.1 429 ") and b"retry-after: 30\r\n" in answer
        assert b"1 request waits for a replica of `web` already" in answer
        house.clock.now += 50
        house.router.sweep()
        answer = await waiting
        assert answer.startswith(b"HTTP/1.1 503 ") and b"was ready within 60 s" in answer
        told = house.router.tell().services[0]
        assert (told.held, told.held_total, told.held_refused) == (0, 1, 2)

    run_house(test, 0, holding=Holding(max_held=1, timeout_s=60, start_s=40))


def test_who_has_left_is_not_sent() -> None:
    async def test(house: House) -> None:
        writers = []
        for number in range(3):
            _, writer = await house.gate.connect()
            writers.append(writer)
            writer.write(b"GET /s/web/%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
            await _until(lambda n=number: house.router.tell().services[0].held == n + 1, "held")
        writers[1].transport.abort()
        await _until(lambda: house.router.tell().services[0].held == 2, "dropped")
        (address,) = await house.add()
        house.router.take_table(table(service(address, holding=Holding()), generation=2))
        await _until(lambda: len(house.replica.heads) == 2, "sent")
        assert sorted(head.split(b" ")[1] for head in house.replica.heads) == [b"/0", b"/2"]

    run_house(test, 0, holding=Holding())


def test_without_a_rule_a_service_at_zero_says_so() -> None:
    async def test(house: House) -> None:
        answer = await house.gate.get("/s/web/")
        assert answer.startswith(b"HTTP/1.1 503 ") and b"no replica of `web` takes requests now" in answer

    run_house(test, 0)


def test_streaming_clients_hear_comments_and_then_the_stream() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()
        body = b'{"stream": true}'
        writer.write(
            b"POST /s/web/stream HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await _until(lambda: house.router.tell().services[0].held == 1, "held")
        for _ in range(2):
            house.clock.now += 10
            house.router.sweep()
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(
            b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream"
        )
        assert await reader.readuntil(b": starting\n\n\r\n") == b"c\r\n: starting\n\n\r\n"
        (address,) = await house.add()
        house.replica.go_on.set()
        house.router.take_table(table(service(address, holding=Holding(comments_s=10)), generation=2))
        rest = await reader.readuntil(b"0\r\n\r\n")
        assert b"data: 0\n\n" in rest and b"data: 3\n\n" in rest and b"HTTP/1.1" not in rest
        assert house.replica.bodies == [body]

    run_house(test, 0, holding=Holding(comments_s=10))


def test_a_stream_that_began_early_ends_with_an_error_event() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()
        writer.write(b"GET /s/web/x HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        await _until(lambda: house.router.tell().services[0].held == 1, "held")
        house.clock.now += 15
        house.router.sweep()
        house.clock.now += 15
        house.router.sweep()
        answer = await reader.read()
        assert answer.count(b"HTTP/1.1") == 1 and b"event: error\ndata: " in answer
        assert b"was ready within 20 s" in answer and answer.endswith(b"0\r\n\r\n")

    run_house(test, 0, holding=Holding(comments_s=10, timeout_s=20))
