"""What is read of a long request is the same as of the whole of it, wherever its long strings are."""

from __future__ import annotations

import json
import random

import msgspec
import pytest

from argosy.gateway.long_strings import LONG, TEXT, Shortened
from argosy.gateway.usage import ModelRequest, parse_model_request

PIECES = ("word ", '"', "\\", "\\" * 31, '\\"', "{", "]", ",", "\n", "é", "\u2028", '":')
RUNS = ("\\" * 32, "\\" * 63, "\\" * 64)


def _text(dice: random.Random) -> str:
    if dice.random() < 0.4:
        return "".join(dice.choices(PIECES, k=dice.randrange(4)))
    end = dice.choice(RUNS) if dice.random() < 0.02 else ""
    return "x" * dice.randrange(9 * LONG) + "".join(dice.choices(PIECES, k=dice.randrange(9))) + end


def _body(dice: random.Random) -> bytes:
    fields: dict[str, object] = {
        "model": "m" if dice.random() < 0.9 else _text(dice),
        "messages": [{"role": "user", "content": _text(dice)} for _ in range(dice.randrange(5))],
        "prompt": _text(dice) if dice.random() < 0.8 else list(range(dice.randrange(3000))),
        "tools": [{"name": "f", "description": _text(dice)}],
        "system": _text(dice),
        "cache_salt": _text(dice),
        "max_tokens": dice.randrange(9),
        _text(dice): _text(dice),
    }
    names = list(fields)
    dice.shuffle(names)
    body = {name: fields[name] for name in names if dice.random() < 0.8}
    return json.dumps(body, ensure_ascii=dice.random() < 0.5, indent=dice.choice((None, 1))).encode()


def test_long_strings_change_nothing_of_what_is_read() -> None:
    dice, whole = random.Random(5), msgspec.json.Decoder(ModelRequest)
    shortened = 0
    for _ in range(1500):
        body = _body(dice)
        shortened += not Shortened(body).is_whole
        read, right = parse_model_request(body), whole.decode(body)
        for name in ModelRequest.__struct_fields__:
            one, other = getattr(read, name), getattr(right, name)
            assert one == other if not isinstance(other, msgspec.Raw) else bytes(one) == bytes(other), name
    assert shortened > 300


def test_what_limits_see_cannot_be_hidden_behind_backslashes() -> None:
    for run in range(60, 140):
        text = "x" * TEXT + "\\" * run
        body = json.dumps({"model": text, "prompt": "y" * LONG, "max_tokens": 7}).encode()
        read = parse_model_request(body)
        assert read.max_tokens == 7 and json.loads(bytes(read.prompt)) == "y" * LONG


@pytest.mark.parametrize(
    "body",
    [
        b'{"prompt": "' + b"x" * TEXT,
        b'{"prompt": "' + b"x" * TEXT + b'\\"}',
        b'{"prompt": "' + b"x" * TEXT + b'" "max_tokens": 1}',
        b'{"prompt": "' + b"x" * TEXT + b'"',
        b'"' * TEXT,
    ],
)
def test_what_is_no_json_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match="the body is not"):
        parse_model_request(body)


def test_a_prompt_of_many_strings_is_read_as_it_is() -> None:
    messages = [{"role": "user", "content": "a short one"} for _ in range(400)]
    assert Shortened(json.dumps({"messages": messages}).encode()).is_whole
