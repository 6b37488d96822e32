"""`argosy dev new-provider`: the folder that it writes passes the part of the suite that needs no machine, is
found by its entry point, and says clearly what is not written yet."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys
from pathlib import Path

import pytest

from argosy.cli import provider_folder
from argosy.cli.main import run
from argosy.cli.session import Session

REPO = Path(__file__).resolve().parents[2]


def written(folder: Path, *words: str) -> int:
    return run(["dev", "new-provider", *words], Session({"HOME": str(folder)}, cwd=folder))


def pytest_in(folder: Path, target: str, path: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", "-p", "no:xdist", target],
        cwd=folder, capture_output=True, text=True, check=False, timeout=100,
        env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_package_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert written(tmp_path, "green-cloud") == 0
    said = capsys.readouterr()
    assert "argosy-green-cloud/argosy_green_cloud/provider.py\n" in said.out
    assert "pytest tests/test_green_cloud_provider.py" in said.err
    root = tmp_path / "argosy-green-cloud"
    assert 'green-cloud = "argosy_green_cloud"' in (root / "pyproject.toml").read_text()
    told = pytest_in(root, "tests", str(root))
    assert "4 passed" in told and "17 skipped" in told and "its verbs are not written yet" in told
    assert written(tmp_path, "green-cloud") == 5  # nothing is written over
    assert "is there already" in capsys.readouterr().err


def test_it_is_an_infrastructure_at_once(tmp_path: Path) -> None:
    """Installed, it shows in `check` with what to do."""
    written(tmp_path, "green-cloud", "--title", "Green Cloud")
    root = tmp_path / "argosy-green-cloud"
    entry = root / "argosy_green_cloud-0.1.dist-info"
    entry.mkdir()
    (entry / "METADATA").write_text("Metadata-Version: 2.1\nName: argosy-green-cloud\nVersion: 0.1\n")
    (entry / "entry_points.txt").write_text("[argosy.providers]\ngreen-cloud = argosy_green_cloud\n")
    code = (
        "import asyncio, pathlib\n"
        "from argosy.infra.system import SystemClock, SystemIds\n"
        "from argosy.providers import load_providers\n"
        "root = pathlib.Path('state')\n"
        "made = load_providers(['green-cloud'], root, SystemClock(), SystemIds(), {})\n"
        "(one,) = asyncio.run(made.get('green-cloud').check())\n"
        "print(one.provider, one.ok, one.what, '|', one.hint)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(root)},
    )  # fmt: skip
    assert done.stdout == "green-cloud False its driver is not written yet | write provider.py\n", done.stderr


def test_inside_of_a_checkout(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert written(tmp_path, "green-cloud", "--in-tree") == 4
    assert "is no checkout of Argosy" in capsys.readouterr().err
    (tmp_path / "src" / "argosy" / "providers").mkdir(parents=True)
    assert written(tmp_path, "green-cloud", "--in-tree") == 0
    folder = tmp_path / "src" / "argosy" / "providers" / "green_cloud"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "__init__.py", "provider.py"]
    headings = (folder / "README.md").read_text()
    for word in ("Purpose", "Words", "Laws", "How to test", "How to add one"):
        assert f"## {word}" in headings
    assert (
        "from argosy.providers.green_cloud import MANIFEST, create"
        in (tmp_path / "tests" / "providers" / "test_green_cloud_provider.py").read_text()
    )


@pytest.mark.parametrize("name", ["Green", "green_cloud", "../x", "9cloud", ""])
def test_names_are_as_in_infra(tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert written(tmp_path, name) == 2
    assert "write it like `green-cloud`" in capsys.readouterr().err


def test_what_is_written_is_tidy(tmp_path: Path) -> None:
    """Lint, format and strict types hold from the first line."""
    written(tmp_path, "green-cloud")
    root = tmp_path / "argosy-green-cloud"
    tools = Path(sys.executable).parent
    config = REPO / "pyproject.toml"
    for words in (
        ["check", "--ignore", "I001", "--config", config],
        ["format", "--check", "--config", config],
    ):
        done = subprocess.run([tools / "ruff", *words, root], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_examples_in_the_documentation() -> None:
    assert doctest.testmod(provider_folder).failed == 0
