"""Hooks of a task, as they are written."""

from __future__ import annotations

import pytest

from argosy.model.errors import ArgosyError
from argosy.model.hooks import Hook
from argosy.spec import parse_task
from argosy.spec.render import task_document

_TEXT = """\
run: x
hooks:
  before_start: ./check.sh $HOME
  on_notice: {run: ./save.sh, timeout: 2m}
"""


def test_a_hook_is_a_command_or_one_with_a_limit_and_reads_back() -> None:
    task = parse_task(_TEXT).tasks[0]
    assert task.hooks == (
        Hook(at="before_start", run="./check.sh $HOME"),
        Hook(at="on_notice", run="./save.sh", timeout_s=120),
    )
    assert task_document(task)["hooks"] == {
        "before_start": "./check.sh $HOME",
        "on_notice": {"run": "./save.sh", "timeout": "120s"},
    }


@pytest.mark.parametrize(
    ("hooks", "what"),
    [
        ("{on_notcie: x}", "unknown field `on_notcie` in hooks"),
        ("{on_notice: {timeout: 5}}", "hook `on_notice` has nothing to run, or no time for it"),
        ("{on_notice: {run: x, timeout: 0}}", "hook `on_notice` has nothing to run, or no time for it"),
    ],
)
def test_what_is_wrong_with_a_hook_is_said(hooks: str, what: str) -> None:
    with pytest.raises(ArgosyError) as caught:
        parse_task(f"run: x\nhooks: {hooks}\n")
    assert caught.value.what == what
