"""The table of rows says what the declarations say, and loads a feature with its first call."""

from __future__ import annotations

import inspect

import pytest

from argosy.api.endpoint import AnyEndpoint, BlockingCalls, Call
from argosy.api.endpoints import ENDPOINTS, Calls, LaterEndpoint
from argosy.api.every import DECLARED, FEATURES, STREAMS
from argosy.api.people import PeopleCalls
from argosy.api.rows import ROWS


def test_every_declaration_is_a_row_and_every_row_a_declaration() -> None:
    declared = tuple(
        (owner.__module__.rpartition(".")[2], owner.__name__, name, each.method, each.path, each.permission)
        for owner in FEATURES
        for name, each in vars(owner).items()
        if each in DECLARED
    )
    assert declared == ROWS, "run `python docs/generate.py`"
    assert len({name for _, _, name, *_ in ROWS}) == len(ROWS)


def _facts(each: AnyEndpoint) -> tuple[object, ...]:
    said = (each.request, each.answer, each.about, each.query, each.any_version, each.pack, each.path_names)
    return (each.name, each.method, each.path, each.permission, *said)


def test_a_row_answers_like_its_declaration() -> None:
    assert [_facts(each) for each in ENDPOINTS] == [_facts(each) for each in DECLARED]


def test_clients_have_every_call_but_streams() -> None:
    class Caller(Calls, BlockingCalls):
        def send(self, call: Call[object]) -> Call[object]:
            return call

    streams = {owner.__name__ for owner in STREAMS}
    names = {name for _, owner, name, *_ in ROWS if owner not in streams}
    assert names <= set(dir(Caller)) and not hasattr(Caller, "logs")
    sent = Caller().change_user("ann", full_name="Ann")
    assert isinstance(sent, Call)
    assert sent.target == PeopleCalls.change_user("ann", full_name="Ann").target
    assert list(inspect.signature(Caller().whoami).parameters) == []


def test_what_nobody_has_is_not_looked_for_twice() -> None:
    row = LaterEndpoint(*ROWS[0])
    with pytest.raises(AttributeError):
        row.__fspath__  # noqa: B018  asked by copies and the like: it loads nothing
    assert "_declared" not in vars(row)
    with pytest.raises(AttributeError):
        row.nothing  # noqa: B018
    assert row.any_version and "_declared" in vars(row)
