"""Commands of a task that its nodes run at certain moments, beside its program."""

from __future__ import annotations

from typing import Final

import msgspec

#: The moments, and what the documentation says of them.
MOMENTS: Final[dict[str, str]] = {
    "before_start": "Before the program, after `setup`. The attempt fails when it fails.",
    "on_notice": "The machine is about to be taken away; within the time that is left.",
    "on_preemption": "The job makes room, moves, or loses its machine after a notice; within its `grace`.",
    "on_success": "The program has ended with 0.",
    "on_failure": "The program has failed by itself.",
}
TIMEOUT_S: Final = 30


class Hook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`run` is shell text; it is ended after `timeout_s`."""

    at: str  # of MOMENTS
    run: str
    timeout_s: int = TIMEOUT_S
