"""How the program that runs functions gets to a replica: as text in front of its command.

It is packed once per process, about 20 kB, and lands in the node's home, so that it works wherever a shell
and a Python do.
"""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import io
import zipfile
from functools import lru_cache
from pathlib import Path
from typing import Final

_EPOCH: Final = (1980, 1, 1, 0, 0, 0)  # the same bytes on every build
_MAIN: Final = "import sys\n\nfrom argosy.functions.__main__ import main\n\nsys.exit(main(sys.argv[1:]))\n"
_WIDTH: Final = 500


@lru_cache(maxsize=1)
def runner_zipapp() -> bytes:
    """The program as one file that any Python >= 3.9 runs. Raises OSError."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in _sources().items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), text, zipfile.ZIP_DEFLATED, 9)
    return buffer.getvalue()


def _sources() -> dict[str, str]:
    spec = importlib.util.find_spec("argosy.functions")
    assert spec is not None
    assert spec.submodule_search_locations
    folder = Path(next(iter(spec.submodule_search_locations)))
    found = {"__main__.py": _MAIN, "argosy/__init__.py": ""}
    for path in sorted(folder.glob("*.py")):
        found[f"argosy/functions/{path.name}"] = path.read_text("utf-8")
    return found


@lru_cache(maxsize=1)
def runner_prelude() -> str:
    """Shell lines that define the command `argosy_function`. Raises OSError."""
    data = runner_zipapp()
    digest = hashlib.sha256(data).hexdigest()[:16]
    text = base64.b64encode(data).decode()
    lines = "\n".join(text[at : at + _WIDTH] for at in range(0, len(text), _WIDTH))
    return f"""\
_argosy_runner="$HOME/.argosy-functions/{digest}.pyz"
[ -s "$_argosy_runner" ] || {{
  mkdir -p "$HOME/.argosy-functions" && base64 -d > "$_argosy_runner.$$" <<'END_OF_RUNNER' &&
{lines}
END_OF_RUNNER
  mv "$_argosy_runner.$$" "$_argosy_runner"
}}
argosy_function() {{ exec python3 "$_argosy_runner" "$@"; }}
"""
