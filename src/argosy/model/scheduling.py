"""Scheduling wishes of a task: what a user writes below `scheduling:`."""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec


class Isolation(StrEnum):
    """What must keep two programs on one accelerator apart. Each level promises what is above it, too."""

    NONE = "none"  # they take turns; nothing is enforced
    MEMORY = "memory"  # neither can allocate the other's memory (CUDA MPS)
    HARDWARE = "hardware"  # separate hardware: a MIG instance or a whole device


#: Levels of a topology from the narrowest; `domains` of a machine name its own from the widest.
LEVELS: Final = ("node", "leaf", "rack", "block")

#: Priority classes, the most urgent first. A class is above every priority number of the next.
PRIORITY_CLASSES: Final = ("system", "service", "interactive", "batch", "opportunistic")


class Scheduling(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The wish of one task. Everything has a default that suits a job of one user on one machine."""

    queue: str = ""  # path of a queue; "": the user's own in the project
    group: str = ""  # only nodes of this resource group
    preemptible: bool = False  # may be ended and started again to make room
    checkpoint: bool = False  # goes on from ARGOSY_CHECKPOINT_DIR when started again
    required: str = ""  # all ranks in one domain of this level (`LEVELS`), or not at all
    preferred: str = ""  # the same as a wish
    spread: str = ""  # ranks in different domains of this level; "": packed
    isolation: Isolation = Isolation.NONE
    share: str = (
        "own"  # a fraction shares its device with: own (the same tenant only) | any (everybody who says so)
    )
    labels: tuple[tuple[str, str], ...] = ()  # that nodes must have
    tolerations: tuple[str, ...] = ()  # taints that do not matter
