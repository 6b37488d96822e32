"""How programs of the house get to a replica: as text in front of its command.

Each is packed once per process, 20 to 30 kB, and lands in the node's home, so that it works wherever a shell
and a Python do.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Final

from argosy.model.serving import FUNCTIONS, INFERENCE

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the same bytes on every build
_WIDTH: Final = 500
#: The command that a program is called by, and what of the house it consists of; the first has its `main`.
_PARTS: Final[Mapping[str, tuple[str, ...]]] = {
    FUNCTIONS: ("functions",),
    INFERENCE: ("inference", "functions/wire.py", "functions/__init__.py"),
}


def with_programs(run: str) -> str:
    """A command, with the programs in front that it calls. Raises OSError."""
    called = [command for command in _PARTS if f"{command} " in run]
    return "".join(prelude(command) for command in called) + run


@cache
def zipapp_of(command: str) -> bytes:
    """A program as one file that any Python >= 3.9 runs. Raises OSError."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _sources(_PARTS[command]).items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def _sources(parts: tuple[str, ...]) -> dict[str, str]:
    spec = importlib.util.find_spec("argosy")
    assert spec is not None and spec.origin is not None
    house = Path(spec.origin).parent
    main = f"import sys\n\nfrom argosy.{parts[0]}.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
    found = {"__main__.py": main, "argosy/__init__.py": ""}
    for part in parts:
        place = house / part
        for path in sorted(place.glob("*.py")) if place.is_dir() else [place]:
            found[f"argosy/{path.relative_to(house)}"] = path.read_text("utf-8")
    return found


@cache
def prelude(command: str) -> str:
    """Shell lines that define a command. Raises OSError."""
    data = zipapp_of(command)
    digest = hashlib.sha256(data).hexdigest()[:16]
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH))
    return f"""\
_argosy_runner="$HOME/.argosy-programs/{digest}.pyz"
[ -s "$_argosy_runner" ] || {{
  mkdir -p "$HOME/.argosy-programs" && base64 -d > "$_argosy_runner.$$" <<'END_OF_RUNNER' &&
{lines}
END_OF_RUNNER
  mv "$_argosy_runner.$$" "$_argosy_runner"
}}
{command}() {{ exec python3 "$HOME/.argosy-programs/{digest}.pyz" "$@"; }}
"""
