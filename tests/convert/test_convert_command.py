"""`argosy convert` as a command: where its text goes, and how errors end. It asks no server."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from argosy.cli.main import run
from argosy.cli.session import Session
from argosy.spec import parse_task

GOLDEN = Path(__file__).parent / "golden"


def command(folder: Path, *words: str) -> int:
    return run(["convert", *words], Session({"HOME": str(folder)}, cwd=folder, now_ms=lambda: 0))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "job.sbatch").write_text(
        "#!/bin/bash\n#SBATCH --gres=gpu:a100:2 --export=HF_TOKEN\npython fit.py\n"
    )
    return tmp_path


def test_text_goes_to_standard_output(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, str(GOLDEN / "k8s-jobset.in.yaml")) == 0
    told = capsys.readouterr()
    assert len(parse_task(told.out).tasks) == 2 and told.err == ""


def test_text_goes_to_a_file_that_is_new(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, "job.sbatch", "-o", "job.yaml") == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert told.err == (
        "job.yaml: 1 task, 0 values not carried over\nnext: argosy launch job.yaml --secret HF_TOKEN\n"
    )
    assert "accelerators: A100:2" in (folder / "job.yaml").read_text()
    assert command(folder, "job.sbatch", "-o", "job.yaml") == 2
    assert "`job.yaml` exists" in capsys.readouterr().err
    assert command(folder, "job.sbatch", "-o", "job.yaml", "--force") == 0


def test_json_tells_everything(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(folder, "job.sbatch", "--from", "slurm", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["kind"], told["secrets"]) == ("slurm", ["HF_TOKEN"])
    assert told["yaml"].startswith("# Converted by `argosy convert` from job.sbatch (a Slurm batch script).")


def test_errors_end_with_2(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "fleet.yml").write_text("type: fleet\n")
    assert command(folder, "fleet.yml") == 2
    assert capsys.readouterr().err == (
        "fleet.yml:1:1: a dstack fleet is no task\n"
        "hint: machines that are there already: `ssh` pools; others are made for a task and go with it\n"
    )
    assert command(folder, "absent.yml") == 2
    assert "`absent.yml` does not exist" in capsys.readouterr().err
    assert command(folder, "job.sbatch", "-o", "no/such/folder.yaml") == 2
    assert "cannot be written" in capsys.readouterr().err
