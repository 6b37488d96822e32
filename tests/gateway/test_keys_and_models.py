"""API keys: who may ask, limits of requests, tokens and concurrency; language models under one address;
usage."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from typing import Any

import pytest
from gateway_house import House, run_house, service, table

from argosy.gateway import limits
from argosy.gateway.access_log import AccessLog
from argosy.gateway.limits import GUESSES
from argosy.gateway.metrics import render_metrics
from argosy.gateway.usage import Usage
from argosy.model.routes import GatewayCounters, KeyRoute, ServiceCounters


def _key(secret: str = "sk-one", **limits: int) -> KeyRoute:
    return KeyRoute(id=f"key-{secret}", sha256=hashlib.sha256(secret.encode()).hexdigest(), **limits)


def _bearer(secret: str) -> bytes:
    return b"Authorization: Bearer " + secret.encode()


def test_a_service_with_keys_answers_only_those_who_show_one() -> None:
    async def test(house: House) -> None:
        for line in (b"X: 1", _bearer("sk-two"), b"Authorization: Basic c2stb25l", b"Authorization: Bearer"):
            answer = await house.gate.get("/s/web/", line)
            assert answer.startswith(b"HTTP/1.1 401 ") and b"www-authenticate: Bearer" in answer
        assert house.replica.heads == []
        for line in (_bearer("sk-one"), b"X-Api-Key: sk-one", b"authorization: bearer sk-one"):
            assert (await house.gate.get("/s/web/", line)).endswith(b"ok")
        assert not any(b"sk-one" in head for head in house.replica.heads), "replicas do not learn keys"
        told = house.router.tell().services[0]
        assert told.refused == 4 and told.keys[0].requests == 3

    run_house(test, public=False, keys=(_key(),))


def test_a_key_stays_here_also_where_the_body_was_waited_for() -> None:
    async def test(house: House) -> None:
        lines = (_bearer("sk-one"), b"Expect: 100-continue", b"Content-Type: application/json")
        answer = await house.gate.get("/s/web/echo", *lines, method=b"POST", body=b'{"model":"m"}')
        assert answer.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 ") or answer.startswith(
            b"HTTP/1.1 200 "
        )
        [head] = house.replica.heads
        assert b"sk-one" not in head and b"expect" not in head.lower()

    key = _key(tokens_per_minute=10_000)
    run_house(test, public=False, keys=(key,), models=("m",))


def test_a_service_without_keys_that_is_not_public_answers_nobody() -> None:
    async def test(house: House) -> None:
        answer = await house.gate.get("/s/web/")
        assert answer.startswith(b"HTTP/1.1 401 ") and b"`web` is not public and has no keys yet" in answer

    run_house(test, public=False)


def test_an_expired_key_is_not_valid() -> None:
    async def test(house: House) -> None:
        assert (await house.gate.get("/s/web/", _bearer("sk-one"))).endswith(b"ok")
        house.clock.now += 1
        assert b"the key is not valid here" in await house.gate.get("/s/web/", _bearer("sk-one"))

    run_house(test, keys=(_key(expires_at_ms=1_000_500),))


def test_guessing_is_slow_and_does_not_lock_out_who_has_a_key() -> None:
    async def test(house: House) -> None:
        assert (await house.gate.get("/s/web/", _bearer("sk-one"))).endswith(b"ok")
        for number in range(GUESSES):
            await house.gate.get("/s/web/", _bearer(f"guess-{number}"))
        for secret in ("guess-x", "sk-two"):  # the second one is right
            answer = await house.gate.get("/s/web/", _bearer(secret))
            assert answer.startswith(b"HTTP/1.1 429 ") and b"too many wrong keys" in answer
        assert (await house.gate.get("/s/web/", _bearer("sk-one"))).endswith(b"ok")
        house.clock.now += 60
        assert (await house.gate.get("/s/web/", _bearer("sk-two"))).endswith(b"ok")

    run_house(test, keys=(_key(), _key("sk-two")))


def test_secrets_are_looked_up_by_their_digest_and_compared_in_constant_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """How much of a guess is right changes nothing of what is compared: that is its SHA-256."""
    compared: list[tuple[bytes, bytes]] = []
    compare = hmac.compare_digest

    def note(one: bytes, other: bytes) -> bool:
        compared.append((one, other))
        return compare(one, other)

    async def test(house: House) -> None:
        monkeypatch.setattr(limits.hmac, "compare_digest", note)
        for secret in ("sk-on", "sk-onf", "sk-onee", "SK-ONE", "", "x" * 6):
            assert (await house.gate.get("/s/web/", _bearer(secret))).startswith(b"HTTP/1.1 401 ")
        assert compared == [], "no digest is that of a key, so there is nothing to compare"
        assert (await house.gate.get("/s/web/", _bearer("sk-one"))).endswith(b"ok")
        assert compared == [(hashlib.sha256(b"sk-one").digest(),) * 2]

    run_house(test, keys=(_key(),))


def test_two_hundred_requests_at_once_and_a_limit_of_ten() -> None:
    async def test(house: House) -> None:
        answers = await asyncio.gather(*(house.gate.get("/s/web/", _bearer("sk-one")) for _ in range(200)))
        assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) == 10
        refused = next(answer for answer in answers if b" 429 " in answer[:20])
        assert b"retry-after: 6\r\n" in refused and b"at its limit of requests per minute" in refused
        house.clock.now += 6
        answer = await house.gate.get("/s/web/", _bearer("sk-one"))
        assert b"x-ratelimit-limit-requests: 10\r\nx-ratelimit-remaining-requests: 0\r\n" in answer
        assert (await house.gate.get("/s/web/", _bearer("sk-one"))).startswith(b"HTTP/1.1 429 ")

    run_house(test, keys=(_key(requests_per_minute=10),))


def test_requests_at_once_are_limited_and_given_back() -> None:
    async def test(house: House) -> None:
        hanging = [asyncio.create_task(house.gate.get("/s/web/hang", _bearer("sk-one"))) for _ in range(2)]
        async with asyncio.timeout(90):
            while len(house.replica.heads) < 2:
                await asyncio.sleep(0.002)
        answer = await house.gate.get("/s/web/", _bearer("sk-one"))
        assert b" 429 " in answer[:20] and b"requests at once" in answer
        for task in hanging:
            task.cancel()
        async with asyncio.timeout(90):
            while b" 429 " in (await house.gate.get("/s/web/", _bearer("sk-one")))[:20]:
                await asyncio.sleep(0.002)

    run_house(test, keys=(_key(max_concurrency=2),))


def _chat(model: str, **more: object) -> bytes:
    return json.dumps({"model": model, "messages": [{"role": "user", "content": "hi"}], **more}).encode()


def _completion(taken: int, made: int) -> bytes:
    body = json.dumps({"choices": [], "usage": {"prompt_tokens": taken, "completion_tokens": made}}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_models_of_all_services_have_one_address_and_one_key() -> None:
    async def test(house: House) -> None:
        one, other = await house.add(2)
        key = (_key(),)
        house.router.take_table(
            table(
                service(one, name="small", models=("tiny",), keys=key, public=False),
                service(other, name="large", models=("huge",), keys=(*key, _key("sk-two")), public=False),
            )
        )
        listed = await house.gate.get("/v1/models", _bearer("sk-one"))
        assert [each["id"] for each in json.loads(listed.split(b"\r\n\r\n")[1])["data"]] == ["huge", "tiny"]
        listed = await house.gate.get("/v1/models", _bearer("sk-two"))
        assert [each["id"] for each in json.loads(listed.split(b"\r\n\r\n")[1])["data"]] == ["huge"]
        house.replicas[1].scripts[b"completions"] = _completion(7, 5)
        path, post = "/v1/chat/completions", b"POST"
        answer = await house.gate.get(path, _bearer("sk-one"), method=post, body=_chat("huge"))
        assert b'"completion_tokens": 5' in answer and house.replicas[1].bodies == [_chat("huge")]
        assert house.replicas[1].heads[0].startswith(b"POST /v1/chat/completions HTTP/1.1\r\n")
        told = house.router.tell().services[1]
        assert (told.keys[0].input_tokens, told.keys[0].output_tokens) == (7, 5)
        assert (told.revisions[0].input_tokens, told.revisions[0].output_tokens) == (7, 5)
        answer = await house.gate.get(path, _bearer("sk-two"), method=post, body=_chat("tiny"))
        assert b" 404 " in answer[:20] and b"there is no model `tiny` for this key; there is: huge" in answer
        answer = await house.gate.get(path, _bearer("no"), method=post, body=_chat("tiny"))
        assert b" 401 " in answer[:20]
        answer = await house.gate.get(path, _bearer("sk-one"), method=post, body=b"{")
        assert b" 400 " in answer[:20] and b"the body is not JSON" in answer
        assert house.replicas[0].heads == []

    run_house(test, 0)


def test_a_key_finds_its_models_among_a_thousand_services() -> None:
    """Only services that have the key are asked about it."""

    async def test(house: House) -> None:
        [address] = await house.add(1)
        many = tuple(
            service(name=f"n{number}", models=(f"m{number}",), keys=(_key(f"sk-{number}"),), public=False)
            for number in range(1000)
        )
        mine = service(address, name="mine", models=("tiny",), keys=(_key(),), public=False)
        house.router.take_table(table(*many, mine))
        asked: list[str] = []
        for each in house.router._services.values():
            original = each.keys.find

            def noted(exchange: Any, *, notes: bool = True, of: Any = each, find: Any = original) -> Any:
                asked.append(of.route.name)
                return find(exchange, notes=notes)

            each.keys.find = noted  # type: ignore[method-assign]
        answer = await house.gate.get(
            "/v1/completions", _bearer("sk-one"), method=b"POST", body=_chat("tiny")
        )
        assert answer.endswith(b"ok") and set(asked) == {"mine"}

    run_house(test, 0)


def test_tokens_are_reserved_before_and_settled_after() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"completions"] = _completion(10, 20)
        path, post = "/s/web/v1/chat/completions", b"POST"

        async def ask(most: int) -> bytes:
            return await house.gate.get(
                path, _bearer("sk-one"), method=post, body=_chat("m", max_tokens=most)
            )

        assert b" 200 " in (await ask(900))[:20]
        answer = await ask(900)  # 30 were used of the 900 that were reserved
        assert b" 200 " in answer[:20] and b"x-ratelimit-limit-tokens: 1000\r\n" in answer
        assert b"x-ratelimit-remaining-tokens: 5" in answer
        answer = await ask(990)
        assert b" 429 " in answer[:20] and b"tokens per minute" in answer
        house.clock.now += 4
        assert b" 200 " in (await ask(900))[:20]

    run_house(test, keys=(_key(tokens_per_minute=1000),), models=("m",))


@pytest.mark.parametrize("cut", [1, 2, 3, 5, 7, 11, 64, 10_000])
def test_usage_is_found_however_the_stream_is_cut(cut: int) -> None:
    events = [b'data: {"choices":[{"delta":{"content":"\\"usage\\" of it"}}]}\n\n'] * 9
    last = b'data: {"choices":[],"usage":{"prompt_tokens":11,"total_tokens":53,"completion_tokens":42}}\n\n'
    stream = b"".join([*events, last, b"data: [DONE]\n\n"])
    usage = Usage(400)
    for at in range(0, len(stream), cut):
        usage.see(stream[at : at + cut])
    assert usage.tokens() == (11, 42)


def test_usage_of_responses_of_embeddings_and_of_none() -> None:
    usage = Usage(400)
    usage.see(
        b'{"output":[],"usage":{"input_tokens":3,"input_tokens_details":{"cached_tokens":1},"output_tokens":9}}'
    )
    assert usage.tokens() == (3, 9)
    usage = Usage(400)
    usage.see(b'{"data":[],"usage":{"prompt_tokens":6,"total_tokens":6}}')
    assert usage.tokens() == (6, 0)
    usage = Usage(400)
    for _ in range(17):
        usage.see(b"data: {}\n\n")
    assert usage.tokens() == (100, 17)


def test_the_access_log_has_ids_and_no_secrets(tmp_path: object) -> None:
    from pathlib import Path

    file = Path(str(tmp_path)) / "access.log"

    async def test(house: House) -> None:
        house.router._log = AccessLog(file)
        await house.gate.get("/s/web/a?token=sk-query", _bearer("sk-one"), b"Cookie: s=sk-cookie")
        await house.gate.get("/nowhere", _bearer("sk-secret"))
        house.router.sweep()
        text = file.read_text()
        assert (
            "sk-query" not in text
            and 'sk-one"' not in text.replace("key-sk-one", "")
            and "sk-cookie" not in text
        )
        first, second = map(json.loads, text.splitlines())
        assert (first["id"], first["path"], first["status"], first["outcome"]) == (
            "id-1",
            "/s/web/a",
            200,
            "done",
        )
        assert (first["service"], first["revision"], first["replica"], first["key"]) == (
            "svc-web", "v1", "r0", "key-sk-one",
        )  # fmt: skip
        assert (second["status"], second["outcome"]) == (404, "answered") and "service" not in second
        assert file.stat().st_mode & 0o077 == 0

    run_house(test, keys=(_key(),))


def test_large_counters_keep_all_digits() -> None:
    told = GatewayCounters(
        generation=1_796_007_581_514, since_ms=1, services=[ServiceCounters(id="svc-1", requests=12_345_678)]
    )
    text = render_metrics(told)
    assert "argosy_gateway_generation 1796007581514\n" in text
    assert 'argosy_gateway_service_requests_total{service="svc-1"} 12345678\n' in text


def test_metrics_are_what_prometheus_reads() -> None:
    async def test(house: House) -> None:
        for _ in range(3):
            await house.gate.get("/s/web/", _bearer("sk-one"))
        text = render_metrics(house.router.tell())
        assert 'argosy_gateway_requests_total{service="svc-web",revision="v1"} 3\n' in text
        assert 'argosy_gateway_duration_seconds_bucket{service="svc-web",revision="v1",le="+Inf"} 3\n' in text
        assert 'argosy_gateway_key_requests_total{service="svc-web",key="key-sk-one"} 3\n' in text
        assert text.count("# TYPE argosy_gateway_duration_seconds histogram") == 1
        assert 'sk-one"' not in text.replace("key-sk-one", "")

    run_house(test, keys=(_key(),))
