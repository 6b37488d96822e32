"""Arrays of Slurm as a `matrix:` of a task file, and what is told of other ways to submit a script. Pure."""

from __future__ import annotations

import re
from typing import Final

_MEMBERS_SHOWN: Final = 100  # of an array, in a sentence

#: Words after #SBATCH that are no options: what is wrong, and what to do.
NO_OPTION: Final = {
    "hetjob": (
        "the script is a heterogeneous job, which has several parts with machines of their own",
        "make a script of each part, convert them, and join the tasks to a job group (`execution: parallel`)",
    )
}
UNSET: Final = {
    "SLURM_ARRAY_TASK_ID": "`sbatch --array` set it: write `matrix: {SLURM_ARRAY_TASK_ID: [0, 1, 2]}`"
}
ARGUMENTS: Final = (
    "the script takes arguments (`$1`, `$@`): write them in its place, or `set -- ARGUMENT ...`"
)


def render_array(value: str) -> str:
    """What to write into the task for the whole of an array such as `1-10:2%4`.

    >>> render_array("1-3%2")
    'add `matrix: {SLURM_ARRAY_TASK_ID: [1, 2, 3]}`, `parallel: 2`'
    >>> render_array("0-8:4,9")
    'add `matrix: {SLURM_ARRAY_TASK_ID: [0, 4, 8, 9]}`'
    """
    members, _, most = value.partition("%")
    numbers: list[int] = []
    for part in members.split(","):
        match = re.fullmatch(r"([0-9]{1,6})(?:-([0-9]{1,6})(?::([0-9]{1,6}))?)?", part.strip())
        if match is None:
            return "add a `matrix:` with the values of SLURM_ARRAY_TASK_ID"
        first, last, step = int(match[1]), int(match[2] or match[1]), int(match[3] or 1)
        numbers += range(first, last + 1, max(1, step))
    shown = ", ".join(map(str, numbers[:_MEMBERS_SHOWN])) + (", ..." if len(numbers) > _MEMBERS_SHOWN else "")
    together = f", `parallel: {most}`" if most.isdigit() else ""
    return f"add `matrix: {{SLURM_ARRAY_TASK_ID: [{shown}]}}`{together}"
