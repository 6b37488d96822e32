"""What a file becomes, word for word: `golden/NAME.in.EXT` gives `golden/NAME.yaml`.

`ARGOSY_UPDATE_GOLDEN=1 pytest tests/convert` rewrites the answers; read the difference before you commit
it.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from argosy.convert import Converted, convert
from argosy.spec import Overrides, Parsed, parse_task

GOLDEN = Path(__file__).parent / "golden"
INPUTS = sorted(GOLDEN.glob("*.in.*"))


def parsed_of(converted: Converted) -> Parsed:
    """What is asked for is given; everything else must stand in the text."""
    return parse_task(
        converted.yaml,
        source="converted.yaml",
        env=dict.fromkeys(converted.variables, "given"),
        overrides=Overrides(secrets=dict.fromkeys(converted.secrets, "s3cr3t")),
    )


def converted_of(path: Path) -> Converted:
    return convert(path.read_text(), source=path.name)


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_file_becomes_its_answer(path: Path) -> None:
    told = converted_of(path).yaml
    answer = GOLDEN / f"{path.name.partition('.in.')[0]}.yaml"
    if os.environ.get("ARGOSY_UPDATE_GOLDEN"):
        answer.write_text(told)
    assert told == answer.read_text()


@pytest.mark.parametrize("path", INPUTS, ids=lambda path: path.name)
def test_answer_parses(path: Path) -> None:
    converted = converted_of(path)
    parsed = parsed_of(converted)
    assert len(parsed.tasks) == converted.tasks
    assert all(task.run or task.resources for task in parsed.tasks)
    # Nothing stays behind as a variable that nobody sets.
    assert not [warning for warning in parsed.warnings if "stays as it is" in warning.what]
