"""`function:` of a task file."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from argosy.infra.runners import prelude, with_programs, zipapp_of
from argosy.model.errors import ArgosyError
from argosy.model.serving import FUNCTIONS, INFERENCE
from argosy.spec.parse import parse_task


def test_a_function_becomes_a_command_that_is_served() -> None:
    text = """
name: classify
function:
  handler: app.lambda_handler
  timeout: 1m
  concurrency: 4
  provisioned_concurrency: 2
  preload: true
  aliases: live
service:
  replicas: 3
"""
    (task,) = parse_task(text).tasks
    assert task.run == (
        "argosy_function --handler app.lambda_handler --timeout 60 --concurrency 4 --provisioned 2 --preload "
        "--alias live"
    )
    assert task.service is not None
    assert (task.service.probe.path, task.service.replicas.least) == ("/health", 3)


def test_a_function_needs_no_service() -> None:
    (task,) = parse_task("function: {command: ./bootstrap --fast}").tasks
    assert task.run == "argosy_function --command './bootstrap --fast'"
    assert task.service is not None
    assert task.service.replicas.is_fixed


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("function: {timeout: 3}", "the function has no `handler`"),
        ("function: {handler: app}", "the handler `app` names no function of a module"),
        ("function: {handler: a.b}\nrun: x", "`function` and `run` exclude each other"),
        ("function: {handler: a.b, concurency: 3}", "unknown field `concurency` in function"),
    ],
)
def test_what_is_wrong_with_a_function(text: str, said: str) -> None:
    with pytest.raises(ArgosyError) as raised:
        parse_task(text)
    assert said in str(raised.value.what)


@pytest.mark.process
def test_the_program_comes_with_the_command(tmp_path: Path) -> None:
    script = with_programs('argosy_function --help | head -1; ls "$HOME/.argosy-programs"')
    for _ in range(2):
        done = subprocess.run(
            ["bash", "-c", script], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, capture_output=True
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(b"usage: argosy-function")
    assert len(list((tmp_path / ".argosy-programs").iterdir())) == 1
    assert zipapp_of(FUNCTIONS) == zipapp_of.__wrapped__(FUNCTIONS), "the same bytes on every build"
    assert max(map(len, map(prelude, (FUNCTIONS, INFERENCE)))) < 60_000, "they go along with orders"
    assert with_programs("python3 serve.py") == "python3 serve.py"
