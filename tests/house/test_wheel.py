"""`pip install .` carries everything that is needed offline: the agent's sources, migrations, types."""

from __future__ import annotations

import email
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
SOURCE = REPO / "src" / "argosy"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    pytest.importorskip("hatchling", reason="the wheel is built without network: needs hatchling (`.[dev]`)")
    out = tmp_path_factory.mktemp("wheel")
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--wheel-dir",
            str(out),
            str(REPO),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (path,) = out.glob("argosy-*.whl")
    return zipfile.ZipFile(path)


def test_the_wheel_carries_every_source_file(wheel: zipfile.ZipFile) -> None:
    inside = set(wheel.namelist())
    wanted = {
        f"argosy/{path.relative_to(SOURCE).as_posix()}"
        for path in SOURCE.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    assert wanted <= inside
    assert "argosy/py.typed" in inside
    assert any(name.startswith("argosy/agent/") for name in inside)
    assert any("migrations" in name and name.endswith(".py") for name in inside)


def test_the_wheel_carries_nothing_else(wheel: zipfile.ZipFile) -> None:
    foreign = [name for name in wheel.namelist() if not name.startswith(("argosy/", "argosy-"))]
    assert foreign == []
    assert not any("__pycache__" in name for name in wheel.namelist())


def test_metadata(wheel: zipfile.ZipFile) -> None:
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Requires-Python"] == ">=3.11"
    points = wheel.read(name.replace("METADATA", "entry_points.txt")).decode()
    assert "argosy = argosy.cli" in points


def test_what_everybody_must_install(wheel: zipfile.ZipFile) -> None:
    """numpy for large pools, cryptography for secrets, imported when there are some; no framework,
    no cloud SDK."""
    name = next(name for name in wheel.namelist() if name.endswith(".dist-info/METADATA"))
    metadata = email.message_from_bytes(wheel.read(name))
    required = {
        re.split(r"[^A-Za-z0-9_-]", line)[0]
        for line in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in line
    }
    assert required == {
        "alembic",
        "click",
        "cryptography",
        "httptools",
        "msgspec",
        "numpy",
        "pyyaml",
        "sqlalchemy",
        "uvicorn",
        "uvloop",
        "websockets",
    }


def test_the_wheel_runs_from_a_clean_place(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """Unpacked alone, away from the clone: the command line starts and finds what it ships."""
    wheel.extractall(tmp_path)
    code = "import argosy, argosy.cli.main, sys; print(argosy.__file__); sys.argv = ['argosy', '--version']; argosy.cli.main.main()"  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        cwd="/",
        env={"PYTHONPATH": str(tmp_path), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path) in done.stdout
