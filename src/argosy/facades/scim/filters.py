"""Filters of SCIM (RFC 7644, 3.4.2.2) over resources as JSON: `userName eq "ann"`, `and`, `or`, `not`,
parentheses, and `emails[type eq "work"]`. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Final

Test = Callable[[Mapping[str, Any]], bool]
_TOKEN: Final = re.compile(r'\s*("(?:[^"\\]|\\.)*"|[()\[\]]|[^\s()\[\]]+)')
_DEPTH: Final = 20
_LONGEST: Final = 2000
#: Compared as they are; all else without regard to capitals.
_EXACT: Final = frozenset(("id", "externalid", "value", "$ref"))
_OPERATORS: Final[Mapping[str, Callable[[Any, Any], bool]]] = {
    "eq": lambda mine, given: mine == given,
    "ne": lambda mine, given: mine != given,
    "co": lambda mine, given: isinstance(mine, str) and str(given) in mine,
    "sw": lambda mine, given: isinstance(mine, str) and mine.startswith(str(given)),
    "ew": lambda mine, given: isinstance(mine, str) and mine.endswith(str(given)),
    "gt": lambda mine, given: isinstance(mine, str) and isinstance(given, str) and mine > given,
    "ge": lambda mine, given: isinstance(mine, str) and isinstance(given, str) and mine >= given,
    "lt": lambda mine, given: isinstance(mine, str) and isinstance(given, str) and mine < given,
    "le": lambda mine, given: isinstance(mine, str) and isinstance(given, str) and mine <= given,
}


class BadFilter(ValueError):
    """The text is no filter."""


def parse_filter(text: str) -> Test:
    """Whether a resource passes. Raises BadFilter."""
    if len(text) > _LONGEST:
        raise BadFilter("the filter is too long")
    parser = _Parser(text)
    test = parser.either(0)
    if parser.peek():
        raise BadFilter(f"the filter goes on after its end: {parser.peek()}")
    return test


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens = _TOKEN.findall(text)
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self, wanted: str = "") -> str:
        token = self.peek()
        if not token or (wanted and token != wanted):
            raise BadFilter(f"the filter has {token or 'its end'} where {wanted or 'more'} should be")
        self._at += 1
        return token

    def either(self, depth: int) -> Test:
        tests = [self._both(depth)]
        while self.peek().lower() == "or":
            self.take()
            tests.append(self._both(depth))
        return tests[0] if len(tests) == 1 else lambda one: any(test(one) for test in tests)

    def _both(self, depth: int) -> Test:
        tests = [self._one(depth)]
        while self.peek().lower() == "and":
            self.take()
            tests.append(self._one(depth))
        return tests[0] if len(tests) == 1 else lambda one: all(test(one) for test in tests)

    def _one(self, depth: int) -> Test:
        if depth > _DEPTH:
            raise BadFilter("the filter is nested too deeply")
        if self.peek().lower() == "not":
            self.take()
            inner = self._one(depth + 1)
            return lambda one: not inner(one)
        if self.peek() == "(":
            self.take()
            inner = self.either(depth + 1)
            self.take(")")
            return inner
        name = self.take()
        if self.peek() == "[":
            self.take()
            inner = self.either(depth + 1)
            self.take("]")
            return lambda one: any(inner(each) for each in values_at(one, name) if isinstance(each, dict))
        return self._compared(name)

    def _compared(self, name: str) -> Test:
        word = self.take().lower()
        if word == "pr":
            return lambda one: any(each not in (None, "", []) for each in values_at(one, name))
        operator = _OPERATORS.get(word)
        if operator is None:
            raise BadFilter(f"there is no operator `{word}`")
        try:
            given = json.loads(self.take())
        except ValueError:
            raise BadFilter(f"a value of the filter is not JSON: {self._tokens[self._at - 1]}") from None
        is_exact = name.rpartition(".")[2].rpartition(":")[2].lower() in _EXACT
        given = given if is_exact else _plain(given)

        def passes(one: Mapping[str, Any]) -> bool:
            there = [each if is_exact else _plain(each) for each in values_at(one, name)]
            return operator(None, given) if not there else any(operator(each, given) for each in there)

        return passes


def values_at(resource: Mapping[str, Any], path: str) -> list[Any]:
    """What stands at `emails.value` or `urn:…:User:userName`: of lists every element, of complex ones their
    `value` when they are compared as a whole."""
    found: list[Any] = [resource]
    for part in plain_path(path).split("."):
        inner: list[Any] = []
        for each in found:
            value = each.get(key_of(each, part)) if isinstance(each, dict) else None
            inner += value if isinstance(value, list) else [] if value is None else [value]
        found = inner
    return found


def plain_path(path: str) -> str:
    """Without the name of its schema."""
    return path.rpartition(":")[2] if path.lower().startswith("urn:") else path


def key_of(resource: Mapping[str, Any], name: str) -> str:
    """The key as it is written: names of attributes are compared without regard to capitals."""
    return next((key for key in resource if key.lower() == name.lower()), name)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        value = value.get("value")
    return value.lower() if isinstance(value, str) else value
