"""Prefill and decode apart: one service reads prompts, another answers. The runtimes are told apart by what
vLLM's connectors put into `kv_transfer_params`."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from gateway_house import House, run_house, service, table

from argosy.model.routes import Holding, KeyRoute

PATH = "/s/chat/v1/chat/completions"
BLOCKS = {
    "remote_engine_id": "e-1",
    "remote_block_ids": [3, 4],
    "remote_host": "10.0.0.1",
    "remote_port": 5600,
}


def _json(status: int, body: object, chunked: bool = False) -> bytes:
    data = json.dumps(body).encode()
    head = b"HTTP/1.1 %d X\r\nContent-Type: application/json\r\n" % status
    if chunked:
        half = len(data) // 2
        pieces = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in (data[:half], data[half:]))
        return head + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n"
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)


def _ask(**more: object) -> bytes:
    messages = [{"role": "user", "content": "hi"}]
    return json.dumps({"model": "tiny", "messages": messages, "max_tokens": 50, **more}).encode()


async def _split(house: House, answer: bytes, **fields: Any) -> None:
    """Two replicas: the first one reads prompts, the second one answers."""
    reads, answers = await house.add(2)
    house.replicas[0].scripts[b"completions"] = answer
    usage = {
        "choices": [{"message": {"content": "yes"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 2},
    }
    house.replicas[1].scripts[b"completions"] = _json(200, usage)
    readers = service(reads, name="reads", public=False)
    house.router.take_table(
        table(service(answers, name="chat", models=("tiny",), prefill="svc-reads", **fields), readers)
    )


@pytest.mark.parametrize("chunked", [False, True])
def test_the_prompt_is_read_first_and_its_blocks_are_told(chunked: bool) -> None:
    async def test(house: House) -> None:
        await _split(house, _json(200, {"id": "x", "kv_transfer_params": BLOCKS}, chunked))
        body = _ask(stream=True, stream_options={"include_usage": True}, temperature=0.5)
        answer = await house.gate.get(PATH, b"Content-Type: application/json", method=b"POST", body=body)
        assert answer.startswith(b"HTTP/1.1 200 ") and b"yes" in answer
        first, second = (json.loads(replica.bodies[0]) for replica in house.replicas)
        assert (first["max_tokens"], first["stream"], "stream_options" in first) == (1, False, False)
        told = first.pop("kv_transfer_params")
        assert (told["do_remote_decode"], told["do_remote_prefill"]) == (True, False)
        assert second == {**json.loads(body), "kv_transfer_params": BLOCKS}
        heads = [replica.heads[0] for replica in house.replicas]
        assert all(head.startswith(b"POST /v1/chat/completions HTTP/1.1\r\n") for head in heads)
        ids = {head.partition(b"x-argosy-request-id: ")[2].split(b"\r\n")[0] for head in heads}
        assert len(ids) == 1, "both parts are one request"
        chat, reads = house.router.tell().services
        assert (chat.requests, reads.requests, chat.in_flight, reads.in_flight) == (1, 1, 0, 0)
        assert chat.revisions[0].output_tokens == 2, "usage is counted once, of who answers"
        assert reads.revisions[0].output_tokens == 0 and reads.replicas[0].requests == 1

    run_house(test, 0)


@pytest.mark.parametrize(
    "answer",
    [_json(503, {}), _json(200, {"id": "x"}), b"HTTP/1.1 200 X\r\nContent-Length: 2\r\n\r\nno", b"", None],
    ids=["refused", "no blocks", "no JSON", "cut", "nobody there"],
)
def test_who_answers_reads_the_prompt_itself_when_the_first_part_fails(answer: bytes | None) -> None:
    async def test(house: House) -> None:
        await _split(house, answer or b"")
        if answer is None:
            await house.replicas[0].kill()
        elif not answer:
            house.replicas[0].scripts[b"completions"] = b"HTTP/1.1 500"
            asyncio.get_running_loop().call_later(
                0.05, lambda: asyncio.ensure_future(house.replicas[0].kill())
            )
        told = await house.gate.get(PATH, method=b"POST", body=_ask())
        assert told.startswith(b"HTTP/1.1 200 ")
        assert json.loads(house.replicas[1].bodies[0]) == json.loads(_ask())
        assert [each.in_flight for each in house.router.tell().services] == [0, 0]

    run_house(test, 0)


def test_without_a_reader_that_is_ready_nobody_waits_for_one() -> None:
    async def test(house: House) -> None:
        await _split(house, b"")
        [answers] = [house.replicas[1].address]
        readers = service(name="reads", holding=Holding())
        chat = service(answers, name="chat", models=("tiny",), prefill="svc-reads")
        wakes = list[int]()
        house.router.tell_wants(lambda: wakes.append(1))
        house.router.take_table(table(chat, readers, generation=2))
        assert house.router.wanted() == ()
        assert b" 200 " in (await house.gate.get(PATH, method=b"POST", body=_ask()))[:20]
        assert [(each.service, each.held) for each in house.router.wanted()] == [("svc-reads", 1)]
        assert [each.held for each in house.router.tell().services] == [0, 1] and wakes == [1]
        house.clock.now += 61
        assert house.router.wanted() == (), "nobody asked for it for a minute"
        await house.gate.get(PATH, method=b"POST", body=_ask())
        ready = service(house.replicas[0].address, name="reads", holding=Holding())
        house.router.take_table(table(chat, ready, generation=2))
        assert house.router.wanted() == () and len(wakes) == 2, "it is there"
        gone = service(answers, name="chat", models=("tiny",), prefill="svc-gone")
        house.router.take_table(table(gone, generation=3))
        assert b" 200 " in (await house.gate.get(PATH, method=b"POST", body=_ask()))[:20]

    run_house(test, 0)


def test_what_is_no_prompt_goes_straight_to_who_answers() -> None:
    async def test(house: House) -> None:
        await _split(house, b"")
        for path, method, body in (
            ("/s/chat/v1/models", b"GET", b""),
            ("/s/chat/v1/embeddings", b"POST", _ask()),
            (PATH, b"POST", b"[1]"),
        ):
            assert b" 200 " in (await house.gate.get(path, method=method, body=body))[:20]
        assert house.replicas[0].heads == [] and len(house.replicas[1].heads) == 3

    run_house(test, 0)


def test_a_client_that_leaves_ends_the_first_part() -> None:
    async def test(house: House) -> None:
        await _split(house, b"")
        del house.replicas[0].scripts[b"completions"]
        _, writer = await house.gate.connect()
        house.replicas[0].scripts[b"completions"] = b""  # it never answers
        body = _ask()
        writer.write(
            b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%b" % (PATH.encode(), len(body), body)
        )
        async with asyncio.timeout(90):
            while not house.replicas[0].heads:
                await asyncio.sleep(0.002)
            writer.close()
            while any(each.in_flight for each in house.router.tell().services):
                await asyncio.sleep(0.002)
            await house.replicas[0].closed.wait()
        assert house.replicas[1].heads == []

    run_house(test, 0)


def test_keys_of_the_service_reach_neither_part() -> None:
    async def test(house: House) -> None:
        key = KeyRoute(id="k", sha256=hashlib.sha256(b"sk-one").hexdigest())
        await _split(house, _json(200, {"kv_transfer_params": BLOCKS}), keys=(key,), public=False)
        line = b"Authorization: Bearer sk-one"
        assert b" 200 " in (await house.gate.get(PATH, line, method=b"POST", body=_ask()))[:20]
        assert not any(b"sk-one" in replica.heads[0] for replica in house.replicas)
        assert (await house.gate.get(PATH, method=b"POST", body=_ask())).startswith(b"HTTP/1.1 401 ")
        assert len(house.replicas[0].heads) == 1, "who may not ask makes nobody read"

    run_house(test, 0)
