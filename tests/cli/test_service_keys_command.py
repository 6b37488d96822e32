"""`serve key` and `serve price` on a terminal: what is asked for, and what was spent."""

from __future__ import annotations

import json

import msgspec
import pytest
from command_line import CommandLine

from argosy.api.service_keys import ServiceKeyList, ServiceKeyView
from argosy.model.service_keys import Prices
from argosy.testing.fake_server import FakeServer


def test_keys_are_listed_with_what_was_spent(argosy: CommandLine, server: FakeServer) -> None:
    keys = (
        ServiceKeyView(
            name="ann", requests=3, input_tokens=20, output_tokens=5, budget_micro_usd=20_000_000,
            spent_micro_usd=1_250_000, requests_per_minute=600,
        ),
        ServiceKeyView(name="bob"),
    )  # fmt: skip
    told = ServiceKeyList(keys=keys, prices=Prices(input=250_000, output=2_000_000))
    server.raw_failures["service_keys"] = [(200, msgspec.json.encode(told))]
    shown = argosy("serve", "key", "chat")
    assert "$1.25 of $20.00 a month" in shown.out and "600 requests" in shown.out
    assert "A million costs $0.25 (tokens of prompts), $2.00 (tokens of answers)." in shown.err


def test_a_budget_is_asked_for_exactly(argosy: CommandLine, server: FakeServer) -> None:
    argosy("serve", "key", "chat", "ann", "--budget", "0.1", "--per", "day")
    argosy("serve", "key", "--models", "eve", "--budget", "$1,000")
    asked = [
        json.loads(each.body) for each in server.seen("make_service_key") + server.seen("make_model_key")
    ]
    assert asked == [
        {"name": "ann", "budget_micro_usd": 100_000, "period": "day"},
        {"name": "eve", "budget_micro_usd": 1_000_000_000},
    ]
    argosy("serve", "price", "chat", "--input", "0.25")
    assert json.loads(server.seen("set_service_prices")[0].body) == {"prices": {"input": 250_000}}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("key", "chat", "ann", "--budget", "much"), "`much` is no amount of US dollars"),
        (("key", "chat", "ann", "--budget", "0.0000001"), "`0.0000001` is no amount of US dollars"),
        (("price", "chat", "--input", "-1"), "`-1` is no amount of US dollars"),
        (("key",), "name a service, and whose key it is: argosy serve key chat ann"),
        (("key", "--models", "a", "b"), "argosy serve key --models ann"),
    ],
)
def test_what_is_no_amount_is_told(argosy: CommandLine, words: tuple[str, ...], said: str) -> None:
    failed = argosy("serve", *words)
    assert failed.status == 2 and said in " ".join(failed.err.split())
