"""Each promise in a README.md of a folder of tests names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REPO = HERE.parents[1]


@pytest.mark.parametrize("folder", ["providers", "gateway"])
def test_each_promise_names_tests_that_are_there(folder: str) -> None:
    text = (HERE.parent / folder / "README.md").read_text("utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", text)
    assert len(named) > 35
    gone = [
        f"{path}::{name}" for path, name in named if f"def {name}(" not in (REPO / path).read_text("utf-8")
    ]
    assert gone == []


def test_a_thin_driver_is_thin() -> None:
    """What makes a vendor's calls fits on a few pages; what several need is in `infra/`."""
    drivers = REPO / "src" / "argosy" / "providers"
    large = {
        path.parent.name: lines
        for path in drivers.glob("*/provider.py")
        if "(Vendor)" in (text := path.read_text("utf-8")) and (lines := text.count("\n")) > 350
    }
    assert large == {}
