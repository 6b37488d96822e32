"""How well sessions are kept apart on this machine, as an agent before this one has found it.

To look costs as much processor time as all the rest of an agent's start: `sandbox` is compiled, and
namespaces are made and thrown away. Many agents start on a machine that runs many jobs, so what was found
lies in a file for some minutes, with what it depends on. Only a machine that can make a sandbox is
remembered: one that cannot is looked at again, so that whoever mends it sees that at once.
"""

from __future__ import annotations

import json
import os
import stat
import time

from argosy.agent import programs
from argosy.agent.cgroups import read_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Dict, List, Optional, Tuple

    Levels = Tuple[List[str], Dict[str, str]]

_HOLDS_S = 600.0
_PATIENCE_S = 1.0  # for another agent that is looking
_SIZE_MAX = 1 << 16
_PROGRAMS = ("bwrap", "setpriv", "unshare", "podman", "docker", "apptainer")


def levels(folder: str) -> Levels:
    """`sandbox.levels`, remembered in `folder`, which agents of this user share."""
    handle = _note(folder)
    try:
        signs = _signs()
        found = _remembered(handle, signs) if handle is not None else None
        if found is None:
            from argosy.agent import sandbox

            found = sandbox.levels()
            if handle is not None and "sandbox" in found[0]:
                _remember(handle, signs, found)
        return found
    finally:
        if handle is not None:
            os.close(handle)


def remembered(folder: str) -> Optional[Levels]:
    """The levels where they are in the note and nobody is about to change it; without waiting."""
    handle = _note(folder, 0.0)
    if handle is None:
        return None
    try:
        return _remembered(handle, _signs())
    finally:
        os.close(handle)


def _note(folder: str, patience_s: float = _PATIENCE_S) -> Optional[int]:
    """The file, which nobody else has open now; None where nothing can be kept."""
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        info = os.lstat(folder)
        if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid():
            return None  # somebody else could tell us what he likes
        return programs.hold(folder + "/levels", True, patience_s)
    except OSError:
        return None


def _signs() -> List[object]:
    """What the levels follow from, as far as it is seen without trying."""
    sandbox = programs.find("bwrap")
    try:
        info = os.stat(sandbox)
        program: List[object] = [info.st_ino, info.st_mtime_ns, info.st_mode]
    except OSError:
        program = []
    docker = os.environ.get("DOCKER_HOST", os.access("/var/run/docker.sock", os.R_OK | os.W_OK))
    boot = read_text("/proc/sys/kernel/random/boot_id").strip()
    return [boot, os.geteuid(), program, docker, [programs.find(name) for name in _PROGRAMS]]


def _remembered(handle: int, signs: List[object]) -> Optional[Levels]:
    try:
        kept = json.loads(os.pread(handle, _SIZE_MAX, 0))
        if kept["signs"] != signs or not 0 <= time.time() - kept["found_s"] < _HOLDS_S:
            return None
        return [str(level) for level in kept["good"]], {str(k): str(v) for k, v in kept["gaps"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None  # a new file, or one that was cut off


def _remember(handle: int, signs: List[object], found: Levels) -> None:
    kept = {"signs": signs, "found_s": time.time(), "good": found[0], "gaps": found[1]}
    try:
        os.ftruncate(handle, 0)
        os.pwrite(handle, json.dumps(kept).encode(), 0)
    except OSError:
        pass  # a full disk: the next one looks again
