"""Each promise in a README.md of a folder of tests names tests, benchmarks and figures that are there."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

REPO = Path(__file__).parents[2]
PAGES = {
    path.parent.name: text
    for path in sorted(REPO.glob("tests/*/README.md"))
    if "| what | " in (text := path.read_text("utf-8"))
}


def test_the_rooms_whose_promises_are_kept() -> None:
    assert {"apps", "files", "gateway", "identity", "providers", "storage"} <= PAGES.keys()


@pytest.mark.parametrize("folder", PAGES)
def test_each_promise_names_what_is_there(folder: str) -> None:
    text = PAGES[folder]
    rows = [line for line in text.splitlines() if re.match(r"\| (?!(what|attack) \|)", line)]
    assert len(rows) > 30
    assert [row for row in rows if not re.search(r"\| [^|]*(`|the same)[^|]*\|$", row)] == []
    sources = {
        path: (REPO / path).read_text("utf-8")
        for path in re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)", text)
    }
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert [f"{path}::{name}" for path, name in named if f"def {name}(" not in sources[path]] == []


@pytest.mark.parametrize("folder", PAGES)
def test_each_figure_is_in_a_result_that_is_kept(folder: str) -> None:
    for file, keys in re.findall(r"`([\w-]+\.json)`: ((?:`[\w-]+`(?:, )?)+)", PAGES[folder]):
        figures = json.loads((REPO / "benchmarks" / "results" / file).read_text("utf-8"))["figures"]
        kept = {figure["key"]: figure for figure in figures}
        for key in re.findall(r"`([\w-]+)`", keys):
            assert kept[key]["reached"], (file, key)
