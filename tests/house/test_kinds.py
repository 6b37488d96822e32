"""Kinds of workloads are plug-ins: nobody but their own modules asks for their names, ids or types."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from argosy.model.kinds import KINDS

SOURCE = Path(__file__).resolve().parents[2] / "src" / "argosy"
NAMES = set(KINDS)
PREFIXES = tuple(kind.prefix for kind in KINDS.values())
TYPES = {each.__name__ for kind in KINDS.values() for each in (kind.spec, kind.status)}
OWN = [SOURCE / "model" / "kinds", *(SOURCE / "controllers" / name for name in NAMES)]
FOREIGN = [
    SOURCE / "convert",
    SOURCE / "agent",
    SOURCE / "catalog",
]  # kinds of other things, by the same words


def _names_a_kind(node: ast.expr) -> bool:
    if isinstance(node, ast.Constant):
        return node.value in NAMES
    if isinstance(node, ast.Attribute):  # JOB.name
        return node.attr == "name" and isinstance(node.value, ast.Name) and node.value.id.lower() in NAMES
    return isinstance(node, ast.Tuple | ast.List | ast.Set) and any(map(_names_a_kind, node.elts))


def _is_prefix(node: ast.expr) -> bool:
    if isinstance(node, ast.Tuple):
        return any(map(_is_prefix, node.elts))
    if isinstance(node, ast.JoinedStr):  # f"{JOB.prefix}-"
        return any(isinstance(each, ast.Attribute) and each.attr == "prefix" for each in ast.walk(node))
    text = node.value if isinstance(node, ast.Constant) else None
    return isinstance(text, str) and text.removesuffix("-") in PREFIXES


def _any_of(words: Iterable[str]) -> str:
    return "(?:" + "|".join(sorted(words)) + ")"


#: Cheaper than to parse every file: what holds neither pair of words cannot ask for a kind.
_MAY_OFFEND = [
    (
        re.compile(r"\.kind\b"),
        re.compile(rf"[\"']{_any_of(NAMES)}[\"']|\b{_any_of(NAMES)}\.name\b", re.IGNORECASE),
    ),
    (
        re.compile(r"\b(?:startswith|removeprefix)\b"),
        re.compile(rf"[\"']{_any_of(PREFIXES)}-?[\"']|\.prefix\b"),
    ),
    (re.compile(r"\bisinstance\b|\bcase\b"), re.compile(rf"\b{_any_of(TYPES)}\b")),
]


def may_offend(source: str) -> bool:
    return any(one.search(source) and other.search(source) for one, other in _MAY_OFFEND)


def offences(source: str) -> Iterator[str]:
    """What asks for a kind, with its line."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare):
            parts = [node.left, *node.comparators]
            if any(isinstance(each, ast.Attribute) and each.attr == "kind" for each in parts) and any(
                map(_names_a_kind, parts)
            ):
                yield f"line {node.lineno}: asks `kind ==`; ask for what `Kind` says of it"
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("startswith", "removeprefix") and any(map(_is_prefix, node.args)):
                yield f"line {node.lineno}: sniffs an id; `kinds.kind_of_id` knows it"
            elif name == "isinstance" and len(node.args) == 2:
                asked = {each.id for each in ast.walk(node.args[1]) if isinstance(each, ast.Name)}
                if asked & TYPES:
                    yield f"line {node.lineno}: isinstance of a kind's own type; see `kinds.gangs`"
        elif isinstance(node, ast.MatchClass) and getattr(node.cls, "id", "") in TYPES:
            yield f"line {node.lineno}: matches a kind's own type"


def test_nobody_asks_for_a_kind() -> None:
    found = []
    for path in sorted(SOURCE.rglob("*.py")):
        if not any(path.is_relative_to(folder) for folder in (*OWN, *FOREIGN)):
            text = path.read_text(encoding="utf-8")
            if may_offend(text):
                found += [f"{path.relative_to(SOURCE)}: {each}" for each in offences(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        'row.kind == "job"',
        '"cluster" != row.kind',
        'row.kind in ("job", "x")',
        "row.kind == JOB.name",
        'row.id.startswith("clu-")',
        'id.startswith(("clu", "x"))',
        'id.startswith(f"{JOB.prefix}-")',
        "isinstance(row.spec, JobSpec)",
        "isinstance(row.status, ClusterStatus | int)",
        "match a:\n  case JobSpec():\n    pass",
    ],
)
def test_the_scan_sees_what_it_should(source: str) -> None:
    assert may_offend(source) and len(list(offences(source))) == 1


@pytest.mark.parametrize(
    "source", ['row.kind == "spot"', 'name.startswith("x")', "isinstance(row, Workload)"]
)
def test_the_scan_lets_others_pass(source: str) -> None:
    assert not list(offences(source))
