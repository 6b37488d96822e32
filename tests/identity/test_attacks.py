"""The table of attacks in the README names tests that are there."""

from __future__ import annotations

import re
from pathlib import Path

HERE = Path(__file__).parent
README = HERE.parents[1] / "src" / "argosy" / "identity" / "README.md"


def test_every_attack_has_its_test() -> None:
    named = re.findall(r"\| `(test_\w+\.py)::(test_\w+)` \|", README.read_text())
    assert len(named) >= 45
    missing = [f"{file}::{name}" for file, name in named if f"def {name}(" not in (HERE / file).read_text()]
    assert missing == []
