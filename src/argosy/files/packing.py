"""One file that holds the tools for any node: Python of 3.8 or newer runs it, and it brings the program in
C."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the same bytes on every build
LIMIT_BYTES: Final = 300_000  # as the agent's: it travels as often
_MAIN: Final = """\
import os, sys, zipfile
from argosy.files.front import find_program, program_name, run_tool
def program():
    found = find_program(os.environ)
    if found or os.environ.get("ARGOSY_FILES_PROGRAM"):
        return found
    name = "argosy/files/programs/" + program_name()
    archive = zipfile.ZipFile(os.path.dirname(os.path.abspath(__file__)))
    if name not in archive.namelist():
        return ""
    import hashlib, tempfile
    data = archive.read(name)
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(cache, "argosy", "files")
    path = os.path.join(folder, program_name() + "-" + hashlib.sha256(data).hexdigest()[:16])
    try:
        if not os.access(path, os.X_OK):
            os.makedirs(folder, mode=0o700, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=folder)
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.chmod(temporary, 0o700)
            os.replace(temporary, path)
    except OSError:
        return ""
    return path
if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit("usage: find|ls|du|chmod|chown|cp|rm|sync|stat ...")
    sys.exit(run_tool(sys.argv[1], sys.argv[2:], program()))
"""


def files_zipapp(cache_dir: Path, programs: Mapping[str, Path]) -> Path:
    """Build the file once per content. `programs`: those in C, by name. Raises OSError."""
    data = _build(programs)
    path = cache_dir / f"files-{hashlib.sha256(data).hexdigest()[:16]}.pyz"
    if not path.exists():
        cache_dir.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=cache_dir, prefix=".files-")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        Path(temporary).chmod(0o644)
        Path(temporary).replace(path)
    return path


def _build(programs: Mapping[str, Path]) -> bytes:
    folder = Path(__file__).parent
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        _add(archive, "argosy/__init__.py", b"")
        for path in [folder / "__init__.py", folder / "front.py", *sorted((folder / "twin").glob("*.py"))]:
            _add(archive, f"argosy/files/{path.relative_to(folder).as_posix()}", path.read_bytes())
        for name, path in sorted(programs.items()):
            _add(archive, f"argosy/files/programs/{name}", path.read_bytes())
    return buffer.getvalue()


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o644 << 16
    archive.writestr(info, data)
