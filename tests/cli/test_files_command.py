"""argosy files: the command line of the tools. They run as programs of their own, so that it is a process
here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.process


def argosy(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "HOME": str(folder), "ARGOSY_HOME": str(folder / "state")}
    environ.pop("ARGOSY_SERVER", None)
    return subprocess.run(
        [sys.executable, "-m", "argosy.cli", *words],
        cwd=folder, env=environ, capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_tools_run_without_a_server_and_keep_their_exit_codes(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a").mkdir(parents=True)
    (tmp_path / "tree" / "a" / "-odd").write_text("x")
    found = argosy(tmp_path, "files", "find", "tree", "-type", "f", "--json")
    assert json.loads(found.stdout)["path"] == "tree/a/-odd", found.stderr
    assert argosy(tmp_path, "files", "chmod", "-R", "u=rwX,go=", "tree").returncode == 0
    assert (tmp_path / "tree" / "a" / "-odd").stat().st_mode & 0o777 == 0o600
    gone = argosy(tmp_path, "files", "ls", "-l", "nowhere")
    assert gone.returncode == 2 and "No such file" in gone.stderr
    assert argosy(tmp_path, "files", "rm", "-r", "tree").returncode == 0
    assert not (tmp_path / "tree").exists() and not (tmp_path / "state" / "run").exists()


def test_aliases_and_the_packed_file(tmp_path: Path) -> None:
    assert "argosy-pfind" in argosy(tmp_path, "files", "alias", "bin").stderr
    (tmp_path / "one").touch()
    found = subprocess.run(
        [tmp_path / "bin" / "argosy-pstat", "-c", "%n %s", "one"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.stdout == "one 0\n", found.stderr
    assert argosy(tmp_path, "files", "pack", "files.pyz").returncode == 0
    packed = subprocess.run(
        [sys.executable, "-I", "-S", "files.pyz", "find", "one"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert packed.stdout == "one\n"
