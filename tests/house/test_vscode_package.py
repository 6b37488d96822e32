"""The VS Code extension: its package, and its own tests where Node is there."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
import zipfile
from pathlib import Path
from xml.etree import ElementTree

import pytest

REPO = Path(__file__).resolve().parents[2]
HERE = REPO / "web" / "vscode"
_spec = importlib.util.spec_from_file_location("pack", HERE / "pack.py")
assert _spec is not None and _spec.loader is not None
pack = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(pack)


def test_the_package_is_small_the_same_everywhere_and_whole(tmp_path: Path) -> None:
    first, second = tmp_path / "a.vsix", tmp_path / "b" / "c.vsix"
    assert pack.pack(first) <= pack.LIMIT_BYTES == 100_000
    pack.pack(second)
    assert first.read_bytes() == second.read_bytes()
    with zipfile.ZipFile(first) as file:
        inside = {name: file.read(name) for name in file.namelist()}
    manifest = json.loads(inside["extension/package.json"])
    assert f"extension/{manifest['main'].removeprefix('./')}" in inside
    assert "dependencies" not in manifest and manifest["publisher"] == "argosy"
    for name in ("extension.vsixmanifest", "[Content_Types].xml"):
        ElementTree.fromstring(inside[name])
    assert manifest["version"].encode() in inside["extension.vsixmanifest"]
    said = json.loads((REPO / "docs" / "generated" / "task.schema.json").read_text("utf-8"))
    assert json.loads(inside["extension/schema/task.schema.json"]) == said
    required = {name for text in inside.values() for name in _requires(text)}
    assert {f"extension/src/{name}.js" for name in required} <= inside.keys()


def _requires(source: bytes) -> list[str]:
    import re

    return re.findall(r'require\("\./(\w+)"\)', source.decode("utf-8", "replace"))


@pytest.mark.skipif(
    shutil.which("node") is None, reason="node is not installed: the extension's tests did not run"
)
def test_its_own_tests_pass() -> None:
    node = ["node", "--test", "--test-reporter=tap", "tests/"]
    done = subprocess.run(node, cwd=HERE, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    assert "# fail 0" in done.stdout and "# pass 0" not in done.stdout
