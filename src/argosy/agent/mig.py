"""MIG instances that we make and remove, on cards that are in MIG mode and where ARGOSY_MIG=manage allows it.

Each instance of ours has a file in the folder of shares; who uses it holds a shared lock on that file, as
with MPS daemons. An instance whose file nobody holds is removed by whichever agent comes next.
"""

from __future__ import annotations

import os
import re

from argosy.agent import programs
from argosy.agent.cgroups import read_text

_SMI_S = 60.0
WHOLE_CARD = "0"  # the number of the profile that is all of a card, on all cards so far


class MigFailed(Exception):
    """What nvidia-smi said."""


def _smi(*arguments: str) -> str:
    program = programs.find("nvidia-smi")
    if not program:
        raise MigFailed("nvidia-smi is not installed")
    return programs.answer_of([program, "mig", *arguments], _SMI_S).strip()


def create(base: str, card: int, profile: str, slot: int) -> tuple[int, int]:
    """Make an instance (`slot`: its first memory slice, -1: anywhere); its number on the card and the handle
    that keeps it. Raises MigFailed or OSError. The caller holds `turn`."""
    what = profile if slot < 0 else "%s:%d" % (profile, slot)
    said = _smi("-i", str(card), "-cgi", what, "-C")
    made = re.search(r"created GPU instance ID\s+(\d+)", said)
    if made is None or "created compute instance" not in said:
        if made is not None:
            _destroy(card, int(made.group(1)))
        raise MigFailed(said.splitlines()[-1][:200] if said else "nvidia-smi mig did not answer")
    instance = int(made.group(1))
    handle = programs.hold(_path(base, card, instance), False)
    assert handle is not None  # it is new
    os.write(handle, _boot_id().encode())
    return instance, handle


def keep(base: str, card: int, instance: int) -> int | None:
    """Use an instance that is there; None when it is not one of ours (then people keep it)."""
    path = _path(base, card, instance)
    return programs.hold(path, False) if os.path.exists(path) else None


def sweep(base: str) -> bool:
    """Remove our instances that nobody uses; True when there were some. The caller holds `turn`."""
    removed = False
    for name in sorted(os.listdir(base)):
        fields = name.split("-")
        if fields[0] != "mig" or len(fields) != 3:
            continue
        handle = programs.hold(base + "/" + name, True)
        if handle is None:
            continue
        # Instances do not outlive a reboot; who made one with this number since then is somebody else.
        told = read_text(base + "/" + name)
        if told not in ("", _boot_id()) or _destroy(int(fields[1]), int(fields[2])):
            os.unlink(base + "/" + name)
            removed = True
        os.close(handle)
    return removed


def _boot_id() -> str:
    return read_text("/proc/sys/kernel/random/boot_id").strip()


def turn(base: str) -> int | None:
    """The lock under which instances are made and removed."""
    return programs.hold(base + "/turn", True, _SMI_S)


def _path(base: str, card: int, instance: int) -> str:
    return "%s/mig-%d-%d" % (base, card, instance)


def _destroy(card: int, instance: int) -> bool:
    which = ("-i", str(card), "-gi", str(instance))
    _smi(*which, "-dci")
    said = _smi(*which, "-dgi")
    return "uccessfully destroyed" in said or "No GPU instances found" in said
