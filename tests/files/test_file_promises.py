"""Each promise in README.md names tests and benchmarks that are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
REPO = HERE.parents[1]


def test_each_promise_names_what_is_there() -> None:
    text = (HERE / "README.md").read_text("utf-8")
    rows = [line for line in text.splitlines() if line.startswith("| ") and not line.startswith("| what |")]
    assert len(rows) > 45 and all(re.search(r"`(tests|benchmarks)/", row) for row in rows)
    sources = {
        path: (REPO / path).read_text("utf-8")
        for path in re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)", text)
    }
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in sources[path]] == []
