"""Prompts, the picture of caches, and the choice of a replica of a language model."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter, OrderedDict

import pytest
from gateway_house import House, run_house

from argosy.gateway.choosing import Chooser, Prompt, Speed, Terms, units
from argosy.gateway.prefixes import Prefixes
from argosy.gateway.prompts import BLOCK_BYTES, WHOLE, read_prompt
from argosy.model.routes import Policy

LONG = "the quick brown fox " * 600


def _body(text: str, **fields: object) -> bytes:
    return json.dumps({"model": "m", "messages": [{"role": "user", "content": text}], **fields}).encode()


# --- prompts ---------------------------------------------------------------------------------------


def test_prompts_that_begin_alike_share_their_first_keys() -> None:
    one, other = read_prompt(_body(LONG + "and one")), read_prompt(_body(LONG + "and another", temperature=1))
    assert len(one.keys) == len(LONG) // BLOCK_BYTES
    assert one.keys == other.keys
    changed = read_prompt(_body(LONG[:5000] + "X" + LONG[5001:])).keys
    same = [mine == theirs for mine, theirs in zip(one.keys, changed, strict=True)]
    assert same == [True] * 2 + [False] * (len(same) - 2)


def test_deep_in_a_long_prompt_a_difference_is_seen_at_the_latest_when_what_follows_is_moved() -> None:
    text = "".join(f"{number:07} " for number in range(6000))  # 48 kB, and no two blocks alike
    deep = (WHOLE + 2) * BLOCK_BYTES + 100
    keys = read_prompt(_body(text)).keys
    assert len(set(keys)) == len(keys) == len(text) // BLOCK_BYTES
    moved = read_prompt(_body(text[:deep] + "more" + text[deep:])).keys
    same = [mine == theirs for mine, theirs in zip(keys, moved, strict=False)]
    assert same == [True] * (WHOLE + 2) + [False] * (len(same) - WHOLE - 2)
    early = read_prompt(_body(text[:5000] + "X" + text[5001:])).keys
    assert set(early[2:]).isdisjoint(keys), "of the first blocks every byte counts, also behind them"


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "other"},
        {"tools": [{"type": "function"}]},
        {"system": "be short"},
        {"cache_salt": "tenant-b"},
    ],
)
def test_what_stands_before_the_messages_or_keeps_tenants_apart_changes_all_keys(
    fields: dict[str, object],
) -> None:
    one, other = read_prompt(_body(LONG)), read_prompt(_body(LONG, **fields))
    assert set(one.keys).isdisjoint(other.keys)


@pytest.mark.parametrize(
    ("body", "keys", "tokens", "answer"),
    [
        (None, 0, 1, 0),
        (b"", 0, 1, 0),
        (b"not json" * 100, 0, 200, 0),
        (b"\xff\xfe{}", 0, 1, 0),
        (b'{"model": 5}', 0, 3, 0),
        (json.dumps({"model": "m", "prompt": LONG, "max_tokens": 7}).encode(), 5, 3000, 7),
        (json.dumps({"model": "m", "input": [LONG, LONG]}).encode(), 11, 6001, 512),
        (json.dumps({"model": "m", "messages": [], "max_completion_tokens": 99}).encode(), 0, 1, 99),
    ],
)
def test_other_bodies(body: bytes | None, keys: int, tokens: int, answer: int) -> None:
    prompt = read_prompt(body)
    assert (len(prompt.keys), prompt.answer) == (keys, answer)
    assert abs(prompt.tokens - tokens) <= 1


# --- caches ----------------------------------------------------------------------------------------


def test_the_picture_of_caches_is_that_of_one_list_for_each_replica() -> None:
    dice, capacity = random.Random(5), 12
    prefixes, lists = Prefixes(capacity), [OrderedDict[int, None]() for _ in range(5)]
    for _ in range(2000):
        chain, keys = dice.randint(0, 3), list[int]()
        for depth in range(dice.randint(0, 9)):
            chain = chain * 3 + dice.randint(0, 1) + 1
            keys.append(chain * 10 + depth)
        expected = {}
        for slot, held in enumerate(lists):
            count = next((at for at, key in enumerate(keys) if key not in held), len(keys))
            if count:
                expected[slot] = count
        assert prefixes.match(keys) == expected
        slot = dice.randrange(5)
        if dice.random() < 0.02:
            prefixes.drop(slot)
            lists[slot].clear()
            continue
        prefixes.add(slot, keys)
        for key in reversed(keys):
            lists[slot][key] = None
            lists[slot].move_to_end(key)
        while len(lists[slot]) > capacity:
            lists[slot].popitem(last=False)
    assert len(prefixes) == len({key for held in lists for key in held})
    for slot in range(5):
        prefixes.drop(slot)
    assert len(prefixes) == 0


# --- the choice ------------------------------------------------------------------------------------


def test_a_prompt_goes_where_its_beginning_is_unless_that_is_busy() -> None:
    chooser, replicas = Chooser(), ["a", "b", "c"]
    long = Prompt(list(range(20)), 20 * 512)
    home = replicas[chooser.choose(long, replicas, 0.0)]
    sent = chooser.sent(long, home, 0.0)
    chooser.first_byte(sent, 1.0)
    chooser.ended(sent)
    assert replicas[chooser.choose(Prompt([*range(20), 99], 21 * 512), replicas, 2.0)] == home
    for _ in range(3):  # other long prompts wait there
        chooser.sent(Prompt([], 30_000), home, 2.0)
    assert replicas[chooser.choose(long, replicas, 2.0)] != home


def test_a_choice_counts_at_once() -> None:
    chooser, replicas = Chooser(Terms(rule="least-work")), ["a", "b", "c", "d"]
    chosen: Counter[str] = Counter()
    for _ in range(100):
        prompt = Prompt([], 1000)
        replica = replicas[chooser.choose(prompt, replicas, 0.0)]
        chooser.sent(prompt, replica, 0.0)
        chosen[replica] += 1
    assert set(chosen.values()) == {25}


def test_books_are_empty_when_everything_has_ended() -> None:
    dice = random.Random(9)
    chooser, replicas, flying = Chooser(), ["a", "b", "c"], []
    for turn in range(500):
        prompt = Prompt([dice.randint(0, 9)], dice.randint(1, 9000), 10)
        replica = replicas[chooser.choose(prompt, replicas, turn / 10)]
        flying.append(chooser.sent(prompt, replica, turn / 10))
        if dice.random() < 0.6:
            chooser.first_byte(dice.choice(flying), turn / 10)
        if dice.random() < 0.6:
            chooser.ended(flying.pop(dice.randrange(len(flying))))
    for sent in flying:
        chooser.ended(sent)
    for load in chooser.loads.values():
        assert (load.requests, load.tokens, load.units, len(load.reading)) == (0, 0, 0.0, 0)


def test_least_tokens_counts_prompts_and_answers() -> None:
    chooser, replicas = Chooser(Terms(rule="least-tokens")), ["a", "b"]
    chooser.sent(Prompt([], 100, 5000), "a", 0.0)
    chooser.sent(Prompt([], 4000, 100), "b", 0.0)
    assert replicas[chooser.choose(Prompt([], 10), replicas, 0.0)] == "b"


def test_speed_is_learned_of_each_replica() -> None:
    dice, fast, slow = random.Random(2), Speed(), Speed()
    for _ in range(200):
        waited = units(dice.randint(100, 40_000))
        fast.learn(waited, 0.05 + 30e-6 * waited * dice.uniform(0.9, 1.2))
        slow.learn(waited, 0.05 + 300e-6 * waited * dice.uniform(0.9, 1.2))
    assert fast.unit_s == pytest.approx(31e-6, rel=0.15)
    assert slow.unit_s == pytest.approx(310e-6, rel=0.15)


def test_a_slow_replica_gets_less() -> None:
    chooser, replicas = Chooser(Terms(rule="least-work")), ["slow", "fast"]
    for _ in range(50):
        for replica, seconds in (("slow", 3.0), ("fast", 0.3)):
            sent = chooser.sent(Prompt([], 5000), replica, 0.0)
            chooser.first_byte(sent, seconds)
            chooser.ended(sent)
    chosen: Counter[str] = Counter()
    for _ in range(44):
        replica = replicas[chooser.choose(Prompt([], 5000), replicas, 0.0)]
        chooser.sent(Prompt([], 5000), replica, 0.0)
        chosen[replica] += 1
    assert 2 <= chosen["slow"] <= 8


def test_replicas_that_are_gone_leave_the_books() -> None:
    chooser = Chooser()
    for number in range(40):
        chooser.sent(Prompt([1, 2], 1024), f"old-{number}", 0.0)
    chooser.keep(["old-3"])
    assert list(chooser.loads) == ["old-3"]
    assert chooser.choose(Prompt([1, 2], 1024), ["new", "old-3"], 50.0) in (0, 1)
    assert {load.slot for load in chooser.loads.values()} <= set(range(40))


# --- in the gateway --------------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["prefix-aware", "least-work", "least-tokens"])
def test_requests_pass_and_the_books_are_empty_after_them(rule: str) -> None:
    async def test(house: House) -> None:
        service = house.router._services["svc-web"]
        bodies = [_body(LONG + str(number)) for number in range(12)]
        answers = await asyncio.gather(
            *(house.gate.get("/s/web/v1/chat/completions", method=b"POST", body=body) for body in bodies),
            house.gate.get("/s/web/hello"),
        )
        assert all(answer.startswith(b"HTTP/1.1 200") for answer in answers)
        balancer = service.balancer
        loads = balancer._chooser.loads.values()  # type: ignore[attr-defined]
        assert sum(load.requests for load in loads) == 0
        assert not any(load.reading or load.tokens for load in loads)

    run_house(test, replicas=3, policy=Policy(name=rule))  # type: ignore[arg-type]


def test_the_work_of_requests_is_told() -> None:
    """Reading a prompt, and a twentieth of the replica while it answers."""

    async def main(house: House) -> None:
        body = b'{"model": "m", "prompt": "%b"}' % (b"word " * 800)
        told = house.router.tell().services[0]
        assert told.work_ms == 0
        await house.gate.get("/s/web/v1/completions", method=b"POST", body=body)
        told = house.router.tell().services[0]
        assert 10 < told.work_ms < 200, "1,000 tokens at 0.1 ms each at most, and an answer at once"

    run_house(main, 1, policy=Policy(name="least-work"), models=("m",))


def test_one_conversation_stays_with_its_replica() -> None:
    async def test(house: House) -> None:
        for number in range(8):
            text = LONG + " ".join(f"turn {turn}" for turn in range(number))
            await house.gate.get("/s/web/v1/chat/completions", method=b"POST", body=_body(text))
        seen = [len(replica.heads) for replica in house.replicas]
        assert sorted(seen) == [0, 0, 8]

    run_house(test, replicas=3, policy=Policy(name="prefix-aware"))
