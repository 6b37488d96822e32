"""What a text becomes, word for word: `golden/NAME.yaml` gives `golden/NAME.txt`.

`ARGOSY_UPDATE_GOLDEN=1 pytest tests/spec` rewrites the answers; read the difference before you commit it.
A first line `# given: K=V ...` passes values as `--env` does.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from argosy.model.errors import ArgosyError, render_error
from argosy.spec import Parsed, parse_task, render_task

GOLDEN = Path(__file__).parent / "golden"
NAMES = sorted(path.stem for path in GOLDEN.glob("*.yaml"))


def given(text: str) -> dict[str, str]:
    first = text.partition("\n")[0]
    if not first.startswith("# given: "):
        return {}
    return dict(pair.split("=", 1) for pair in first.removeprefix("# given: ").split())


def answer(parsed: Parsed) -> str:
    lines = [f"warning: {warning.render()}" for warning in parsed.warnings]
    if len(parsed.tasks) > 1:
        lines.append(f"{parsed.execution}: {parsed.name} {parsed.extra}".rstrip())
    for task in parsed.tasks:
        lines.append("---")
        lines.append(render_task(task).rstrip("\n"))
        if task.not_executed:
            lines.append(f"# not executed: {', '.join(task.not_executed)}")
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("name", NAMES)
def test_text_gives_its_answer(name: str) -> None:
    text = (GOLDEN / f"{name}.yaml").read_text()
    try:
        told = answer(parse_task(text, source="task.yaml", env=given(text)))
    except ArgosyError as error:
        told = render_error(error) + "\n"
    assert name.startswith("bad-") == ("hint: " in told and "---" not in told.splitlines())
    for secret in ("s3cr3t", "an0ther", "hunter2"):
        assert secret not in told
    path = GOLDEN / f"{name}.txt"
    if os.environ.get("ARGOSY_UPDATE_GOLDEN"):
        path.write_text(told)
    assert told == path.read_text()


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("bad-")])
def test_what_is_rendered_is_read_back(name: str) -> None:
    text = (GOLDEN / f"{name}.yaml").read_text()
    for task in parse_task(text, env=given(text)).tasks:
        again = parse_task(render_task(task)).tasks[0]
        assert render_task(again) == render_task(task)
        assert again.not_executed == task.not_executed
