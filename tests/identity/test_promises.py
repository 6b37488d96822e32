"""Each promise in README.md names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
REPO = HERE.parents[1]


def test_each_promise_names_tests_that_are_there() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (HERE / "README.md").read_text("utf-8"))
    assert len(named) > 150
    gone = [
        f"{path}::{name}" for path, name in named if f"def {name}(" not in (REPO / path).read_text("utf-8")
    ]
    assert gone == []
