"""A group of jobs as a drawing: each task below the last one that it waits for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from argosy.api.groups import TaskView

_SIBLINGS_MAX: Final = 12  # tasks below one; more are counted by status


def draw_group(tasks: Sequence[TaskView]) -> list[str]:
    """Lines of text. A task that waits for several stands below the one furthest from the start, and names
    the others."""
    depth: dict[int, int] = {}
    for task in tasks:
        _depth(tasks, task.index, depth)
    below: dict[int | None, list[TaskView]] = {}
    for task in tasks:
        last = max(task.after, key=lambda each: (depth[each], each), default=None)
        below.setdefault(last, []).append(task)
    lines: list[str] = []
    _draw(below, None, "", lines)
    return lines


def _depth(tasks: Sequence[TaskView], index: int, known: dict[int, int]) -> int:
    stack = [index]
    while stack:
        at = stack[-1]
        missing = [each for each in tasks[at].after if each not in known]
        if missing:
            stack += missing
            continue
        known[at] = 1 + max((known[each] for each in tasks[at].after), default=-1)
        stack.pop()
    return known[index]


def _draw(below: dict[int | None, list[TaskView]], parent: int | None, before: str, lines: list[str]) -> None:
    found = below.get(parent, [])
    with_others = [task for task in found if task.index in below]
    shown = found if len(found) <= _SIBLINGS_MAX else [*found[:_SIBLINGS_MAX], *with_others]
    shown = list({task.index: task for task in shown}.values())
    rest = [task for task in found if all(task is not one for one in shown)]
    for place, task in enumerate(shown):
        is_last = place == len(shown) - 1 and not rest
        branch = "" if parent is None else ("`- " if is_last else "|- ")
        lines.append(f"{before}{branch}{_told(task, parent)}")
        further = before if parent is None else before + ("   " if is_last else "|  ")
        _draw(below, task.index, further, lines)
    if rest:
        counts: dict[str, int] = {}
        for task in rest:
            counts[task.status] = counts.get(task.status, 0) + 1
        branch = "" if parent is None else "`- "
        told = ", ".join(f"{count} {status}" for status, count in counts.items())
        lines.append(f"{before}{branch}and {len(rest)} more: {told}")


def _told(task: TaskView, parent: int | None) -> str:
    others = [str(each) for each in task.after if each != parent]
    when = f", when {task.when.value}" if task.when.value != "succeeded" else ""
    after = f" (after {', '.join(others)} too)" if others else ""
    values = "".join(f" {name}={value}" for name, value in task.values.items())
    return f"{task.index} {task.name}{values}: {task.status}{after}{when}"
