"""`make check` looks at the folders of tests that belong to what changed."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]


def _load() -> object:
    spec = importlib.util.spec_from_file_location("check_changed", REPO / "tools" / "check_changed.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_changed_package_and_a_changed_test_name_their_folder() -> None:
    paths = ["src/argosy/store/store.py", "tests/spec/test_x.py", "docs/tour.md", "src/argosy/__init__.py"]
    assert _load().folders(paths) == ["tests/house", "tests/spec", "tests/store"]  # type: ignore[attr-defined]


def test_every_folder_of_tests_has_a_budget() -> None:
    budgets = tomllib.loads((REPO / "tests" / "budgets.toml").read_text())["seconds"]
    folders = {path.parent.relative_to(REPO / "tests").parts[0] for path in REPO.glob("tests/*/**/test_*.py")}
    assert sorted(folders - budgets.keys()) == []
    assert sum(budgets.values()) <= 3_000, "about twice of what is spent, and three processes share it"
