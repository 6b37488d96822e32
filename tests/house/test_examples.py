"""Every example parses without a warning, and the programs do what their pages say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from argosy.spec import Overrides, parse_task

REPO = Path(__file__).resolve().parents[2]
EXAMPLES = REPO / "examples"
FILES = sorted(EXAMPLES.rglob("*.yaml"))
SECRETS = {"API_TOKEN": "s3cr3t-value"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(EXAMPLES).as_posix())
def test_every_example_parses(path: Path) -> None:
    secrets = SECRETS if path.parent.name == "secrets" else {}
    parsed = parse_task(
        path.read_text(encoding="utf-8"), source=str(path), overrides=Overrides(secrets=secrets)
    )
    assert parsed.warnings == ()
    assert len(parsed.tasks) == 1 or path.parent.name == "groups" or path.name == "models.yaml"
    for task in parsed.tasks:
        assert task.run
        if task.workdir:
            assert (REPO / task.workdir).is_dir()


def test_every_example_has_its_section() -> None:
    page = (EXAMPLES / "README.md").read_text(encoding="utf-8")
    for path in FILES:
        assert f"## {path.parent.name}" in page
        assert path.relative_to(EXAMPLES).as_posix() in page or path.name in page


def _train(folder: Path, *words: str) -> str:
    env = os.environ | {"ARGOSY_CHECKPOINT_DIR": str(folder / "checkpoints"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / "digits" / "train.py"), *words],
        cwd=folder,
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_digits_learns_and_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed (`.[dev]`)")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    whole.mkdir()
    parts.mkdir()
    _train(whole, "--epochs", "12")
    first = _train(parts, "--epochs", "5")
    second = _train(parts, "--epochs", "12")
    assert "epoch   5/5" in first
    assert "resumed from epoch 5" in second
    assert "epoch   5/12" not in second, "epochs before the checkpoint are not repeated"
    expected = json.loads((whole / "result.json").read_text())
    result = json.loads((parts / "result.json").read_text())
    assert result["accuracy"] == expected["accuracy"], (
        "interrupted or not, the same epochs give the same model"
    )
    assert result["accuracy"] > 0.9
    assert result["resumed_from_epoch"] == 5
