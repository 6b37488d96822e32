"""Patterns of names: *, ?, [a-z], [!x], [[:digit:]], \\x. Letters of ASCII only are folded."""

from __future__ import annotations

import re
from functools import lru_cache

_CLASSES = {
    "alpha": "a-zA-Z",
    "digit": "0-9",
    "alnum": "a-zA-Z0-9",
    "upper": "A-Z",
    "lower": "a-z",
    "space": " \\t-\\r",
    "punct": "!-/:-@\\[-`{-~",
    "xdigit": "0-9a-fA-F",
}


def matches(pattern: str, text: str, *, fold: bool = False) -> bool:
    """Whether the whole text fits, as fnmatch(3) without flags: * and ? also stand for a slash and a first
    dot."""
    return _compiled(pattern, fold).fullmatch(text) is not None


@lru_cache(maxsize=64)
def _compiled(pattern: str, fold: bool) -> re.Pattern[str]:
    parts, at = [], 0
    while at < len(pattern):
        char = pattern[at]
        at += 1
        if char == "*":
            parts.append(".*")
        elif char == "?":
            parts.append(".")
        elif char == "[" and _end(pattern, at) >= 0:
            end = _end(pattern, at)
            parts.append(_bracket(pattern[at:end]))
            at = end + 1
        elif char == "\\" and at < len(pattern):
            parts.append(re.escape(pattern[at]))
            at += 1
        else:
            parts.append(re.escape(char))
    return re.compile("".join(parts), re.DOTALL | (re.IGNORECASE | re.ASCII if fold else 0))


def _end(pattern: str, at: int) -> int:
    """Where the bracket that begins before `at` is closed; -1: nowhere."""
    first = True
    at += pattern[at : at + 1] in ("!", "^")
    while at < len(pattern):
        if pattern[at] == "]" and not first:
            return at
        first = False
        close = pattern.find(":]", at + 2) if pattern.startswith("[:", at) else -1
        at = close + 2 if close >= 0 else at + (2 if pattern[at] == "\\" else 1)
    return -1


def _bracket(inner: str) -> str:
    negated = inner[:1] in ("!", "^")
    at, parts = int(negated), []
    while at < len(inner):
        close = inner.find(":]", at + 2) if inner.startswith("[:", at) else -1
        if close >= 0:
            parts.append(_CLASSES.get(inner[at + 2 : close], ""))
            at = close + 2
            continue
        low, at = _character(inner, at)
        if inner[at : at + 1] == "-" and at + 1 < len(inner):
            high, at = _character(inner, at + 1)
            if low <= high:
                parts.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            parts.append(re.escape(low))
    text = "".join(parts)
    if not text:
        return "." if negated else "(?!)"
    return f"[{'^' if negated else ''}{text}]"


def _character(text: str, at: int) -> tuple[str, int]:
    if text[at] == "\\" and at + 1 < len(text):
        at += 1
    return text[at], at + 1
