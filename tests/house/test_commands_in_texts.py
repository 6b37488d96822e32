"""Every command that a message, hint, help text or page of Argosy names can be typed."""

from __future__ import annotations

import ast
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from argosy.cli.main import cli
from argosy.model.errors import CODES
from argosy.model.reasons import REASONS, Reason, hint_for

REPO = Path(__file__).resolve().parents[2]
SRC = REPO / "src" / "argosy"

#: What stands for something that the user knows: a number or a name that every command takes.
_VALUES = {"USD": "5", "JOB": "3", "N": "3", "MIN": "30", "K=V": "K=v", "HOST:PORT": "localhost:1"}
#: Alone these name the command, as a word of a sentence; the others must be complete.
_COMMAND_ALONE = re.compile(r"^(argosy( [a-z-]+){1,2})$")


def _strings(source: str) -> Iterator[tuple[int, str]]:
    """String literals of a module, with `{...}` where something is put in; not its docstrings."""
    passed_over = set[int]()  # docstrings and parts of other strings: a walk meets what holds them first
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            if node.body and isinstance(node.body[0], ast.Expr):
                passed_over.add(id(node.body[0].value))
        elif isinstance(node, ast.JoinedStr):
            passed_over.update(map(id, node.values))
            if id(node) not in passed_over and "argosy" in (text := _joined(node)):
                yield node.lineno, text
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in passed_over:
            yield node.lineno, node.value


def _joined(node: ast.JoinedStr) -> str:
    if not any(isinstance(part, ast.Constant) and "argosy" in str(part.value) for part in node.values):
        return ""
    return "".join(
        str(part.value) if isinstance(part, ast.Constant) else "{" + ast.unparse(part.value) + "}"
        for part in node.values
        if isinstance(part, ast.Constant | ast.FormattedValue)
    )


def _commands_of(text: str) -> list[str]:
    return [" ".join(found.split()) for found in re.findall(r"`(argosy\b[^`]*)`", text)]


def _told() -> Iterator[tuple[str, str]]:
    for path in sorted(SRC.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        if "`argosy" not in source:
            continue
        for line, text in _strings(source):
            for command in _commands_of(text):
                yield f"{path.relative_to(SRC)}:{line}", command


def _filled(command: str) -> list[str]:
    text = re.sub(r"\{[^}]*(usd|number)[^}]*\}", "3", command).replace("{meant}", "status")
    text = re.sub(r"\{[^}]*\}", "dev", text).replace("...", "gpus=1")
    words = []
    for word in shlex.split(text)[1:]:
        words.append(_VALUES.get(word, word.lower() if word.isupper() else word))
    return words


def _parse(words: list[str]) -> None:
    """Raises click's errors where a command line is wrong. Nothing is run."""
    command: click.Command = cli
    context: click.Context | None = None
    while isinstance(command, click.Group):
        context = command.make_context(
            command.name or "argosy", list(words), parent=context, resilient_parsing=False
        )
        left = [*context._protected_args, *context.args]
        if not left:
            return
        _, found, words = command.resolve_command(context, left)
        assert found is not None
        command = found
    command.make_context(command.name or "", list(words), parent=context)


def _typed(command: str) -> None:
    try:
        _parse(_filled(command))
    except click.exceptions.Exit:
        pass  # `--help`


def test_each_command_that_is_named_can_be_typed() -> None:
    told = sorted(set(_told()))
    assert len(told) > 50
    wrong = []
    for where, command in told:
        try:
            _typed(command)
        except click.MissingParameter:
            # A word of a sentence ("`argosy ssh` opens a shell"), not what to type; hints are checked below.
            if not _COMMAND_ALONE.match(command):
                wrong.append(f"{where}: `{command}` lacks an argument")
        except Exception as error:
            wrong.append(f"{where}: `{command}`: {error!r}")
    assert wrong == []


@pytest.mark.parametrize("code", sorted(CODES))
def test_the_hint_of_an_error_can_be_typed(code: str) -> None:
    for command in _commands_of(CODES[code].hint):
        _typed(command)


@pytest.mark.parametrize("reason", list(Reason), ids=str)
@pytest.mark.parametrize(
    "about", [{}, {"cluster": "dev"}, {"cluster": "dev", "number": 3}, {"number": 3}], ids=str
)
def test_the_hint_of_a_reason_can_be_typed(reason: Reason, about: dict[str, object]) -> None:
    told = hint_for(reason, **about)  # type: ignore[arg-type]
    for command in _commands_of(told):
        _typed(command)
    if about.get("cluster"):
        assert "CLUSTER" not in told
    if about.get("number"):
        assert "JOB" not in told
    assert REASONS[reason].hint
