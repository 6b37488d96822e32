"""The wheel's build compiles the file tools in C, where a compiler is: `ziglang` for both architectures, else
the machine's own. Without one, or with ARGOSY_BUILD_FILE_TOOLS=0, the wheel has none and Python does the
work."""

from __future__ import annotations

import importlib.util
import os
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class FileTools(BuildHookInterface[Any]):
    """Called by hatchling; it compiles outside of the sources."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        if version == "editable" or os.environ.get("ARGOSY_BUILD_FILE_TOOLS", "1") == "0":
            return
        path = Path(self.root) / "src" / "argosy" / "files" / "building.py"
        spec = importlib.util.spec_from_file_location("argosy_files_building", path)
        if spec is None or spec.loader is None:
            return
        building = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(building)
        self._made = tempfile.TemporaryDirectory(prefix="argosy-file-tools-")
        for program in building.build_programs(Path(self._made.name)):
            build_data["force_include"][str(program)] = f"argosy/files/programs/{program.name}"

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        made = getattr(self, "_made", None)
        if made is not None:
            made.cleanup()
