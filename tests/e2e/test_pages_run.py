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


def test_the_pages_on_pools_and_operations_run(fresh_house: House, tmp_path: Path) -> None:
    """An answer that a page shows is what is answered, where it does not depend on who uses the machine."""
    page = (REPO / "docs" / "pool.md").read_text(encoding="utf-8")
    (quotas,) = re.findall(r"```yaml\n# quotas.yaml\n(.*?)```", page, re.S)
    (tmp_path / "quotas.yaml").write_text(quotas, encoding="utf-8")
    shown = {}
    for block in re.findall(r"```text\n(.*?)```", page, re.S):
        for command, answer in re.findall(r"^\$ argosy (.*)\n((?:(?!\$ ).*\n)*)", block, re.M):
            shown[command.strip()] = answer
    told = {
        command: fresh_house.run(*command.split(), cwd=tmp_path).stdout
        for command in shown
        if not command.startswith("explain ")  # a job of the day that the page tells of
    }
    assert {"pool map", "quota get", "quota apply quotas.yaml"} <= told.keys()
    for command in ("quota apply --check quotas.yaml", "quota apply quotas.yaml"):
        assert told[command] == shown[command]
    for word in ("GUARANTEED", "DESERVED", "LIMIT", "acme", "vision", "speech"):
        assert word in told["quota get"] and word in shown["quota get"]
    asked = next(text for command, text in told.items() if command.startswith("quota explain"))
    assert "`acme/vision` uses" in asked and "(2 guaranteed, 4 deserved)" in asked
    run_page(fresh_house, tmp_path, "docs/operations.md", "The local server")
    run_page(fresh_house, tmp_path, "docs/operations.md", "Secrets")
