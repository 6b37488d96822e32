"""The simulated replica of a language model keeps its own books right."""

from __future__ import annotations

import random

import pytest

from argosy.testing.language_replica import BLOCK, Engine, Query, Replica

ENGINE = Engine(
    fixed_s=0.01, prompt_s=1e-4, attention_s=0.0, request_s=0.0, context_s=0.0, budget=1024, blocks=20
)


def _query(number: int, sent_s: float, blocks: list[str], answer: int = 3) -> Query:
    return Query(number, sent_s, len(blocks) * BLOCK, answer, blocks)


def test_a_prompt_is_read_in_pieces_and_answered_token_by_token() -> None:
    replica = Replica(0, ENGINE)
    query = _query(0, 1.0, ["a", "b", "c"])
    replica.submit(query)
    replica.advance(100.0)
    first = 1.0 + 2 * 0.01 + 1536 * 1e-4  # two steps: 1024 and 512 tokens
    assert query.first_s == pytest.approx(first)
    assert query.ended_s == pytest.approx(first + 2 * 0.01)
    assert (replica.computed, query.hit) == (1536, 0)


def test_what_was_read_is_not_read_again_but_for_the_last_block() -> None:
    replica = Replica(0, ENGINE)
    for number, blocks in enumerate((["a", "b"], ["a", "b", "c"], ["a", "b"], ["x", "b"])):
        query = _query(number, 10.0 * number, blocks)
        replica.submit(query)
        replica.advance(10.0 * number + 9)
        assert query.hit == (0, 2, 1, 0)[number] * BLOCK
    assert replica.cached(["a", "b", "c", "d"]) == 3


def test_the_oldest_blocks_go_first_and_of_one_request_the_deepest() -> None:
    replica = Replica(0, ENGINE)
    for number, name in enumerate("ab"):
        replica.submit(_query(number, 0.0, [f"{name}{i}" for i in range(8)]))
    replica.advance(50.0)
    replica.submit(_query(3, 60.0, [f"c{i}" for i in range(6)]))
    replica.advance(90.0)
    assert replica.cached([f"a{i}" for i in range(8)]) < 8
    assert replica.cached([f"a{i}" for i in range(8)]) > 0  # its beginning is still there
    assert replica.cached([f"b{i}" for i in range(8)]) == 8


def test_no_more_runs_than_there_is_memory_and_everything_is_answered_once() -> None:
    dice = random.Random(3)
    ended: list[int] = []
    replica = Replica(0, ENGINE, ended=lambda query: ended.append(query.number))
    queries = [
        _query(
            i,
            i * 0.05,
            [f"{dice.randint(0, 3)}-{j}" for j in range(dice.randint(1, 9))],
            dice.randint(1, 900),
        )
        for i in range(200)
    ]
    for query in queries:
        replica.advance(query.sent_s)
        replica.submit(query)
        assert replica.used <= 1.0
    replica.advance(1e6)
    assert sorted(ended) == list(range(200))
    assert replica.is_idle
    assert replica.used == 0.0
    for query in queries:
        assert query.first_s is not None
        assert query.ended_s is not None
        assert query.sent_s < query.first_s <= query.ended_s


def test_a_replica_that_dies_says_what_it_owed() -> None:
    replica = Replica(0, ENGINE)
    replica.submit(_query(0, 0.0, ["a"], 5000))
    replica.submit(_query(1, 0.0, ["b"], 5000))
    replica.advance(1.0)
    assert sorted(query.number for query in replica.drop()) == [0, 1]
    assert replica.is_idle
