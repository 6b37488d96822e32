"""Budgets of keys: money is held back before, spent once after, and lives as long as its period."""

from __future__ import annotations

import asyncio
import hashlib
import json
from typing import Any

import pytest
from gateway_house import House, run_house

from argosy.gateway.limits import expected_tokens
from argosy.gateway.shared import Board
from argosy.model.routes import KeyRoute
from argosy.model.service_keys import Prices, end_ms, number_of

PRICES = Prices(input=1_000_000, output=2_000_000, requests=500_000)  # $1, $2 and $0.50 a million
DAY_MS = 86_400_000


def _key(secret: str = "sk-one", **limits: Any) -> KeyRoute:
    return KeyRoute(id=f"key-{secret}", sha256=hashlib.sha256(secret.encode()).hexdigest(), **limits)


def _answer(taken: int, made: int) -> bytes:
    body = json.dumps({"usage": {"prompt_tokens": taken, "completion_tokens": made}}).encode()
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def _chat(**more: object) -> bytes:
    return json.dumps({"model": "tiny", "messages": [], **more}).encode()


async def _ask(house: House, body: bytes, path: str = "/s/web/v1/chat/completions") -> bytes:
    return await house.gate.get(path, b"Authorization: Bearer sk-one", method=b"POST", body=body)


def _spent(house: House) -> int:
    return house.router.tell().services[0].keys[0].spent_micro_usd


def _budgeted(micro_usd: int, period: Any = "month") -> dict[str, Any]:
    key = _key(budget_micro_usd=micro_usd, period=period)
    return {"keys": (key,), "models": ("tiny",), "prices": PRICES, "public": False}


def test_what_was_used_is_spent_once_and_to_the_pico_dollar() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"completions"] = _answer(7, 5)
        for _ in range(3):
            answer = await _ask(house, _chat(max_tokens=100))
            assert b"x-ratelimit-remaining-micro-usd: " in answer
        assert _spent(house) == 3 * (7 + 5 * 2) + 2, "and three times half a micro-dollar, rounded up"
        assert house.router.board.spendings() == {
            "key/svc-web/key-sk-one": (number_of("month", house.clock.ms()), 52.0, 500_000.0)
        }

    run_house(test, **_budgeted(10_000_000))


def test_two_hundred_at_once_and_money_for_ten() -> None:
    body = _chat(max_tokens=50)
    expected = expected_tokens(len(body), 50)
    taken, made = expected.taken, expected.made
    each = -(-PRICES.cost_pico(taken, made) // 1_000_000)

    async def test(house: House) -> None:
        house.replica.scripts[b"completions"] = _answer(taken, made)
        answers = await asyncio.gather(*(_ask(house, body) for _ in range(200)))
        assert sum(answer.startswith(b"HTTP/1.1 200 ") for answer in answers) == 10
        refused = {answer[9:12] for answer in answers if not answer.startswith(b"HTTP/1.1 200 ")}
        assert refused <= {b"402", b"429"}
        assert 10 * each - 10 <= _spent(house) <= 10 * each

    run_house(test, **_budgeted(10 * each + each // 2))


@pytest.mark.parametrize(("period", "days"), [("day", 1), ("month", 31)])
def test_who_has_spent_it_is_told_when_it_goes_on(period: str, days: int) -> None:
    async def test(house: House) -> None:
        house.clock.now = 1.0
        house.replica.scripts[b"completions"] = _answer(900, 0)
        assert b" 200 " in (await _ask(house, _chat(max_tokens=10)))[:20]
        answer = await _ask(house, _chat(max_tokens=60))
        assert answer.startswith(b"HTTP/1.1 402 Payment Required\r\n")
        assert b"retry-after: %d\r\n" % (days * 86_400) in answer
        day = "1970-01-02" if days == 1 else "1970-02-01"
        assert (
            f"the key `key-sk-one` has $0.0001 left of its budget of $0.0010 a {period}, and this request "
            f"may cost $0.0001: ask for fewer tokens, wait until {day} 00:00 UTC, or have the budget raised"
        ).encode() in answer
        assert b" 200 " in (await _ask(house, _chat(max_tokens=10)))[:20], "a smaller one can still be paid"
        house.clock.now = days * 86_400.0
        assert _spent(house) == 0
        assert b" 200 " in (await _ask(house, _chat(max_tokens=60)))[:20]

    run_house(test, **_budgeted(1000, period))


def test_what_is_under_way_holds_money_back_and_gives_it_back() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"completions"] = _answer(1, 1)
        hanging = asyncio.create_task(_ask(house, _chat(max_tokens=400), "/s/web/hang"))
        async with asyncio.timeout(90):
            while not house.replica.heads:
                await asyncio.sleep(0.002)
        answer = await _ask(house, _chat(max_tokens=400))
        assert answer.startswith(b"HTTP/1.1 429 ") and b"retry-after: 1\r\n" in answer
        assert b"requests that are under way may cost that: try again when they have ended" in answer
        hanging.cancel()
        async with asyncio.timeout(90):
            while b" 429 " in (await _ask(house, _chat(max_tokens=400)))[:20]:
                await asyncio.sleep(0.002)
        assert _spent(house) == 4, "what nobody answered costs nothing"

    run_house(test, **_budgeted(1000))


def test_who_leaves_in_the_middle_of_a_stream_pays_what_came() -> None:
    async def test(house: House) -> None:
        reader, writer = await house.gate.connect()
        body = _chat(max_tokens=10, stream=True)
        writer.write(
            b"POST /s/web/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer sk-one\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
        )
        await reader.readuntil(b"data: 1")
        writer.close()
        async with asyncio.timeout(90):
            while house.router.tell().services[0].in_flight:
                await asyncio.sleep(0.002)
        house.replica.go_on.set()
        assert _spent(house) == len(body) // 4 + 2 * 2 + 1

    run_house(test, **_budgeted(1000))


def test_a_refusal_of_the_replica_costs_nothing() -> None:
    async def test(house: House) -> None:
        house.replica.scripts[b"completions"] = b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n"
        assert b" 500 " in (await _ask(house, _chat()))[:20]
        assert _spent(house) == 0

    run_house(test, **_budgeted(10_000))


def test_requests_of_services_without_models_have_a_price_too() -> None:
    async def test(house: House) -> None:
        for _ in range(4):
            answer = await house.gate.get("/s/web/", b"Authorization: Bearer sk-one")
        assert answer.startswith(b"HTTP/1.1 402 ") and _spent(house) == 2, "half a micro-dollar each"

    run_house(test, **{**_budgeted(2), "models": ()})


def test_spending_is_adopted_where_it_is_more_or_later() -> None:
    one, other = Board(), Board()
    row = one.row("key/a/b")
    one.spend(row, 5, 1_500_000)
    other.adopt_spendings(one.spendings())
    at = other.row("key/a/b")
    assert other.spent(at, 5) == 2, "adopted before the row was there"
    other.adopt_spendings({"key/a/b": (5.0, 1.0, 0.0)})
    assert other.spent(at, 5) == 2, "less is older"
    other.adopt_spendings({"key/a/b": (6.0, 0.0, 7.0)})
    assert (other.spent(at, 5), other.spent(at, 6)) == (0, 1)


def test_periods_end_where_the_calendar_says() -> None:
    assert end_ms("month", 59 * DAY_MS) == 90 * DAY_MS  # the first of March 1970
    assert end_ms("month", 364 * DAY_MS) == 365 * DAY_MS
    assert number_of("month", 365 * DAY_MS - 1) + 1 == number_of("month", 365 * DAY_MS)
