"""Prefill and decode apart with SGLang's wire. The replicas here are as strict as theirs: the reader answers
only when the other one has come into the room, which waits for the reader; a room is good for one request."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any

import pytest
from gateway_house import House, Replica, run_house, service, table

from argosy.gateway.addresses import parse_address
from argosy.gateway.bootstrap import Rooms
from argosy.gateway.exchange import Exchange
from argosy.gateway.heads import RequestHead
from argosy.model.routes import Holding

PATH = "/s/chat/v1/chat/completions"
PORT = 8998
FIELDS = ("bootstrap_host", "bootstrap_port", "bootstrap_room")


class Hall:
    """The rooms of all readers. What is not as it must be is noted."""

    def __init__(self) -> None:
        self.rooms: dict[int, tuple[asyncio.Event, asyncio.Event]] = {}
        self.used: set[tuple[str, int]] = set()
        self.faults: list[str] = []

    def enter(self, role: str, body: bytes) -> list[tuple[asyncio.Event, asyncio.Event]]:
        said = json.loads(body)
        host, port, rooms = (said.get(name) for name in FIELDS)
        if not isinstance(rooms, list):
            host, port, rooms = [host], [port], [rooms]
        if host != ["127.0.0.1"] * len(rooms) or port != [PORT] * len(rooms):
            self.faults.append(f"{role}: {host} {port}")
        for room in rooms:
            if type(room) is not int or not 0 <= room < 2**63 or (role, room) in self.used:
                self.faults.append(f"{role}: room {room}")
            self.used.add((role, room))
        return [self.rooms.setdefault(room, (asyncio.Event(), asyncio.Event())) for room in rooms]


async def _comes(event: asyncio.Event, reader: asyncio.StreamReader) -> bool:
    """False: who asked has left meanwhile."""
    waits = [asyncio.ensure_future(event.wait()), asyncio.ensure_future(reader.read(1))]
    await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    for each in waits:
        each.cancel()
    return event.is_set()


class Reader(Replica):
    def __init__(self, hall: Hall) -> None:
        super().__init__()
        self.hall = hall
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"

    async def _answer(
        self, name: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        if not self.answer:
            return False
        if b" 200 " in self.answer:
            for read, joined in self.hall.enter("reader", body):
                if not await _comes(joined, reader):
                    return False
                read.set()
        writer.write(self.answer)
        return True


class Answerer(Replica):
    def __init__(self, hall: Hall) -> None:
        super().__init__()
        self.hall = hall

    async def _answer(
        self, name: bytes, body: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        for read, joined in self.hall.enter("answerer", body):
            joined.set()
            if not await _comes(read, reader):
                return False
        usage = b'{"usage": {"prompt_tokens": 9, "completion_tokens": 2}}'
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(usage), usage))
        return True


class Pair:
    def __init__(self, house: House) -> None:
        self.house, self.hall = house, Hall()
        self.readers: list[Reader] = []
        self.answerer = Answerer(self.hall)
        self.generation = itertools.count(1)

    async def start(self, readers: int = 1, **fields: Any) -> None:
        self.readers = [Reader(self.hall) for _ in range(readers)]
        for replica in (*self.readers, self.answerer):
            await replica.start()
            self.house.replicas.append(replica)
        self.route(**fields)

    def route(self, *, answering: bool = True, **fields: Any) -> None:
        addresses = [self.answerer.address] if answering else []
        chat = {"models": ("tiny",), "prefill": "svc-reads", "bootstrap_port": PORT, **fields}
        reads = service(*(each.address for each in self.readers), name="reads", public=False)
        routes = table(service(*addresses, name="chat", **chat), reads, generation=next(self.generation))
        self.house.router.take_table(routes)

    async def ask(self, path: str = PATH, **more: object) -> bytes:
        body = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}], **more}
        async with asyncio.timeout(90):
            return await self.house.gate.get(path, method=b"POST", body=json.dumps(body).encode())

    def at_rest(self) -> bool:
        return all(each.in_flight == 0 for each in self.house.router.tell().services)


async def _until(condition: object) -> None:
    async with asyncio.timeout(90):
        while not condition():  # type: ignore[operator]
            await asyncio.sleep(0.002)


@pytest.mark.parametrize("policy", ["least-outstanding", "prefix-aware"])
def test_both_get_the_same_request_at_the_same_time_and_meet_in_a_room(policy: Any) -> None:
    async def test(house: House) -> None:
        pair = Pair(house)
        await pair.start(readers=2)
        answers = await asyncio.gather(*(pair.ask(stream=True, temperature=0.5) for _ in range(8)))
        assert all(b" 200 " in answer[:20] and b'"completion_tokens": 2' in answer for answer in answers)
        assert pair.hall.faults == []
        read = [body for reader in pair.readers for body in reader.bodies]
        assert sorted(read) == sorted(pair.answerer.bodies) and len(set(read)) == 8
        for body in map(json.loads, read):
            assert [body.pop(name) for name in FIELDS][:2] == ["127.0.0.1", PORT]
            assert (body["stream"], body["temperature"], len(body)) == (True, 0.5, 4), "all else as it was"
        await _until(pair.at_rest)
        chat, reads = house.router.tell().services
        assert (chat.requests, reads.requests) == (8, 8)
        assert chat.revisions[0].output_tokens == 16, "usage is counted once, of who answers"
        heads = [each.heads[0] for each in (*pair.readers, pair.answerer)]
        assert all(head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n") for head in heads)

    run_house(test, 0)


@pytest.mark.parametrize(
    ("path", "more", "count"),
    [
        (PATH, {"n": 1}, None),
        (PATH, {"n": 3}, 3),
        ("/s/chat/v1/completions", {"prompt": "one"}, None),
        ("/s/chat/v1/completions", {"prompt": ["one", "two"]}, 2),
        ("/s/chat/v1/completions", {"prompt": [1, 2, 3]}, None),
        ("/s/chat/v1/completions", {"prompt": [[1, 2], [3]]}, 2),
        ("/s/chat/generate", {"text": "one"}, None),
        ("/s/chat/generate", {"text": ["one", "two", "three"]}, 3),
        ("/s/chat/generate", {"input_ids": [[1], [2]]}, 2),
    ],
)
def test_a_request_that_is_several_has_as_many_rooms(
    path: str, more: dict[str, object], count: int | None
) -> None:
    async def test(house: House) -> None:
        pair = Pair(house)
        await pair.start()
        assert b" 200 " in (await pair.ask(path, **more))[:20]
        said = json.loads(pair.answerer.bodies[0])
        assert isinstance(said["bootstrap_room"], list) == (count is not None)
        assert len(pair.hall.rooms) == (count or 1) and pair.hall.faults == []
        assert pair.answerer.heads[0].startswith(b"POST " + path.removeprefix("/s/chat").encode() + b" ")

    run_house(test, 0)


def test_a_reader_that_is_not_there_is_passed_over() -> None:
    async def test(house: House) -> None:
        pair = Pair(house)
        await pair.start(readers=2)
        await pair.readers[0].kill()
        answers = await asyncio.gather(*(pair.ask() for _ in range(4)))
        assert all(b" 200 " in answer[:20] for answer in answers)
        assert len(pair.readers[1].bodies) == 4 and pair.hall.faults == []

    run_house(test, 0)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n", b"502", b"a replica of `reads` failed to read"),
        (b"", b"502", b"a replica of `reads` failed to read"),
        (b"HTTP/1.1 400 X\r\nContent-Length: 9\r\n\r\ntoo long!", b"400", b"too long!"),
    ],
    ids=["refuses", "cut", "a wrong request"],
)
def test_when_the_prompt_is_not_read_the_client_is_told_and_nobody_waits_in_the_room(
    answer: bytes, status: bytes, words: bytes
) -> None:
    async def test(house: House) -> None:
        pair = Pair(house)
        await pair.start()
        pair.readers[0].answer = answer
        told = await pair.ask()
        assert told[9:12] == status and words in told
        assert not pair.answerer.bodies or await asyncio.wait_for(pair.answerer.closed.wait(), 90)
        await _until(pair.at_rest)
        pair.readers[0].answer = Reader(pair.hall).answer
        assert b" 200 " in (await pair.ask())[:20], "the next one is served"

    run_house(test, 0)


def test_without_a_reader_clients_are_told_to_come_again_and_one_is_wanted() -> None:
    async def test(house: House) -> None:
        pair = Pair(house)
        await pair.start()
        await pair.readers[0].kill()
        told = await pair.ask()
        assert told[9:12] == b"503" and b"no replica of `reads` reads prompts now" in told
        assert b"retry-after: 1" in told and pair.answerer.bodies == []
        chat = service(
            pair.answerer.address, name="chat", models=("tiny",), prefill="svc-reads", bootstrap_port=PORT
        )
        asleep = service(name="reads", holding=Holding())
        house.router.take_table(table(chat, asleep, generation=5))
        assert (await pair.ask())[9:12] == b"503"
        assert [(each.service, each.held) for each in house.router.wanted()] == [("svc-reads", 1)]
        alone = service(pair.answerer.address, name="chat", models=("tiny",), bootstrap_port=PORT)
        house.router.take_table(table(alone, generation=6))
        told = await pair.ask()
        assert told[9:12] == b"503" and b"no service reads the prompts of `chat` yet" in told
        assert pair.answerer.bodies == [], "one that waits for a reader for ever is not asked"

    run_house(test, 0)


def test_the_reader_waits_while_nobody_answers_yet() -> None:
    async def test(house: House) -> None:
        pair = Pair(house)
        await pair.start(answering=False, holding=Holding())
        asking = asyncio.create_task(pair.ask())
        await _until(lambda: pair.readers[0].bodies)
        pair.route(holding=Holding())
        assert b" 200 " in (await asking)[:20] and pair.hall.faults == []

    run_house(test, 0)


def test_a_client_that_leaves_ends_both_parts() -> None:
    async def test(house: House) -> None:
        pair = Pair(house)
        await pair.start()
        pair.hall.enter = lambda role, body: [(asyncio.Event(), asyncio.Event())]  # type: ignore[method-assign]
        asking = asyncio.create_task(pair.ask())
        await _until(lambda: pair.readers[0].bodies and pair.answerer.bodies)
        asking.cancel()
        await _until(pair.at_rest)
        async with asyncio.timeout(90):
            await pair.readers[0].closed.wait()
            await pair.answerer.closed.wait()

    run_house(test, 0)


def test_what_is_no_request_to_a_model_goes_to_who_answers() -> None:
    async def test(house: House) -> None:
        pair = Pair(house)
        await pair.start()
        pair.hall.enter = lambda role, body: []  # type: ignore[method-assign]
        for path, body in ((PATH, b"[1]"), (PATH, b"no JSON"), ("/s/chat/v1/embeddings", b"{}")):
            assert b" 200 " in (await house.gate.get(path, method=b"POST", body=body))[:20]
        assert pair.readers[0].heads == [] and len(pair.answerer.heads) == 3

    run_house(test, 0)


def test_hosts_of_readers_and_too_many_at_once() -> None:
    head = RequestHead(b"POST", b"/v1/completions", b"", 1)
    one = Exchange(None, head, b"::1", b"id-1", 0.0)  # type: ignore[arg-type]
    said = json.loads(Rooms(b'{"prompt":"x"}', one).at(parse_address("[fd00::7]:30000"), 9000))
    assert (said["bootstrap_host"], said["bootstrap_port"]) == ("[fd00::7]", 9000)
    with pytest.raises(ValueError, match="5000 requests in one are too many: at most 4096"):
        Rooms(json.dumps({"prompt": ["x"] * 5000}).encode(), one)
