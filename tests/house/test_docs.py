"""The documentation says what the code does: generated pages are up to date, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
DOCS = REPO / "docs"


def test_generated_pages_are_up_to_date() -> None:
    done = subprocess.run(
        [sys.executable, str(DOCS / "generate.py"), "--check"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_move_is_drawn() -> None:
    from argosy.model.phases import MACHINES

    for name, moves in MACHINES.items():
        drawing = (DOCS / "generated" / f"{name}.svg").read_text(encoding="utf-8")
        for phase, targets in moves.items():
            assert f">{phase.value}</text>" in drawing
            for target in targets:
                assert f"<title>{phase.value} to {target.value}</title>" in drawing


def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed (`pip install .[docs]`)")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "mkdocs",
            "build",
            "--strict",
            "--quiet",
            "--site-dir",
            str(tmp_path / "site"),
        ],
        cwd=REPO,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "site" / "index.html").is_file()
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "site").rglob("*.html")]
    foreign = {url for page in pages for url in re.findall(r'(?:src|href)="(https?://[^"]+)"', page)}
    # The theme links its maker in the footer; nothing is loaded from elsewhere.
    assert not {url for url in foreign if "mkdocs.org" not in url}, "the pages must work without network"


@pytest.mark.parametrize(
    "name", ["README.md", "CONTRIBUTING.md", "examples/README.md", "benchmarks/README.md"]
)
def test_relative_links_lead_somewhere(name: str) -> None:
    page = REPO / name
    links = re.findall(r"\]\(([^)#\s]+)\)", page.read_text(encoding="utf-8"))
    broken = [link for link in links if "://" not in link and not (page.parent / link).exists()]
    assert broken == []


def test_the_readme_names_the_two_commands() -> None:
    text = (REPO / "README.md").read_text(encoding="utf-8")
    assert "make demo" in text
    assert "make test" in text
    assert "make --no-print-directory test" in (REPO / ".ci" / "run").read_text(encoding="utf-8"), (
        "CI runs what the README names"
    )


def test_every_argosy_variable_in_the_code_is_documented() -> None:
    """Names in string literals of the sources, without those that only tests and the inside of one package
    use."""
    documented = (DOCS / "environment.md").read_text(encoding="utf-8")
    used: set[str] = set()
    for path in (REPO / "src" / "argosy").rglob("*.py"):
        if "testing" in path.parts:
            continue
        used |= set(re.findall(r"""["'](ARGOSY_[A-Z_]*[A-Z])["']""", path.read_text(encoding="utf-8")))
    assert sorted(name for name in used if f"`{name}`" not in documented) == []
