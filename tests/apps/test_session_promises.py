"""Each promise in README.md names tests, benchmarks and figures that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
REPO = HERE.parents[1]
TEXT = (HERE / "README.md").read_text("utf-8")


def test_each_promise_names_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TEXT)
    assert len(named) > 80
    gone = [
        f"{path}::{name}" for path, name in named if f"def {name}(" not in (REPO / path).read_text("utf-8")
    ]
    assert gone == []


def test_each_figure_is_in_a_result_that_is_kept() -> None:
    named = re.findall(r"`([\w-]+\.json)`: ((?:`[\w-]+`(?:, )?)+)", TEXT)
    assert len(named) >= 5
    for file, keys in named:
        figures = json.loads((REPO / "benchmarks" / "results" / file).read_text("utf-8"))["figures"]
        kept = {figure["key"]: figure for figure in figures}
        for key in re.findall(r"`([\w-]+)`", keys):
            assert kept[key]["reached"], (file, key)
