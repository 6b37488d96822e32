"""The commands of README, quickstart and tour run as they are written, on a machine with 2 CPUs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from e2e_house import PATIENCE_S, REPO, House

#: What a page says around Argosy's own commands: it is not run here, or needs a terminal.
NOT_RUN = ("pip install", "make ", "argosy ssh")
TRAIN = 'import os, sys\nprint("epochs", sys.argv[2], "of", os.environ["EPOCHS"])\n'


def section_of(page: str, title: str) -> str:
    text = (REPO / page).read_text(encoding="utf-8")
    return text.partition(f"## {title}\n")[2].partition("\n## ")[0]


def commands_of(section: str) -> list[str]:
    blocks = re.findall(r"```console\n(.*?)```", section, re.S)
    lines = [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]
    return [line.partition("  #")[0].strip() for line in lines]


def run_page(house: House, folder: Path, page: str, title: str) -> dict[str, str]:
    """Run every command of a section; its output by command."""
    section = section_of(page, title)
    for name, text in re.findall(r"```yaml\n# (\S+)\n(.*?)```", section, re.S):
        (folder / name).write_text(text, encoding="utf-8")
    (folder / "train.py").write_text(TRAIN)
    (folder / "requirements.txt").write_text("")
    if not (folder / "examples").exists():
        (folder / "examples").symlink_to(REPO / "examples")
    told: dict[str, str] = {}
    for command in commands_of(section):
        if command.startswith(NOT_RUN):
            continue
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=folder,
            env=house.env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=2 * PATIENCE_S,
            check=False,
        )
        told[command] = done.stdout + done.stderr
        assert done.returncode == 0, f"{page}: $ {command}\n{told[command]}"
    assert told, f"{page} has no commands under `{title}`"
    return told


def test_the_readme_runs(fresh_house: House, tmp_path: Path) -> None:
    told = run_page(fresh_house, tmp_path, "README.md", "60 seconds")
    assert any("epochs 10 of 10" in text for text in told.values())
    assert any("epochs 20 of 20" in text for text in told.values())


def test_the_quickstart_runs(house: House, tmp_path: Path) -> None:
    run_page(house, tmp_path, "docs/quickstart.md", "With pip")
    told = run_page(house, tmp_path, "docs/quickstart.md", "Your own task")
    assert any("epochs 20 of 20" in text for text in told.values())


def test_the_tour_runs(house: House, tmp_path: Path) -> None:
    run_page(house, tmp_path, "docs/tour.md", "Clusters: launch once, run often")
    told = run_page(house, tmp_path, "docs/tour.md", "Managed jobs")
    assert any("recover" in text or "count" in text for text in told.values())
    house.run("jobs", "cancel", "--all", "--yes")
