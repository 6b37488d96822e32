"""Several tasks of one file as a group of jobs: their order, how many at once, and with whom it ends."""

from __future__ import annotations

from collections.abc import Sequence

from argosy.model.errors import near
from argosy.model.group import Layout, Member, When, find_circle
from argosy.model.task import Task
from argosy.spec.findings import Findings, Place, excerpt
from argosy.spec.matrix import Values
from argosy.spec.shapes import Entry, Section


class Part:
    """One document: its tasks (several where a matrix makes them differ) and what it says of their order."""

    __slots__ = ("combinations", "place", "section", "tasks")

    def __init__(self, place: Place, section: Section, tasks: list[Task], combinations: list[Values]) -> None:
        self.place, self.section, self.tasks = place, section, tasks
        self.combinations = combinations

    @property
    def name(self) -> str:
        return self.tasks[0].name or ""

    @property
    def size(self) -> int:
        return max(1, len(self.combinations))


def layout_of(header: Section, parts: Sequence[Part], findings: Findings) -> Layout | None:
    """None: one job."""
    if len(parts) == 1 and not parts[0].combinations:
        _refuse_after(parts[0].section, findings)
        return None
    starts = _starts([part.size for part in parts])
    programs = _starts([len(part.tasks) for part in parts])
    together = (header.get("execution", str) or "serial") == "parallel"
    before = _order(header, parts, findings, together=together)
    members: list[Member] = []
    for at, part in enumerate(parts):
        after = tuple(each for one in before[at] for each in range(starts[one], starts[one + 1]))
        when = When(part.section.get("when", str) or "succeeded")
        for index in range(part.size):
            own = index if len(part.tasks) > 1 else 0
            members.append(
                Member(
                    task=programs[at] + own,
                    name=_member_name(part, index, own, alone=len(parts) == 1),
                    values=part.combinations[index] if part.combinations else {},
                    after=after,
                    when=when,
                )
            )
    one = parts[0].section if len(parts) == 1 else header
    primary = header.get("primary_tasks", tuple) or ()
    return Layout(
        size=len(members),
        members=tuple(members),
        parallel=one.get("parallel", int) or 0,
        fail_fast=one.get("fail_fast", bool) or False,
        together=together,
        primary=tuple(
            each
            for at, part in enumerate(parts)
            if part.name and part.name in primary
            for each in range(starts[at], starts[at + 1])
        ),
        delays_s=_delays(header, parts),
    )


def _refuse_after(section: Section, findings: Findings) -> None:
    if "after" in section:
        findings.error(
            section.places["after"],
            "`after` names other tasks of this file, and there are none",
            "`argosy jobs launch --after JOB` waits for a job that exists",
        )


def _starts(sizes: Sequence[int]) -> list[int]:
    found = [0]
    for size in sizes:
        found.append(found[-1] + size)
    return found


def _member_name(part: Part, index: int, own: int, *, alone: bool) -> str:
    name = part.tasks[own].name or ""
    if not part.combinations or len(part.tasks) > 1:
        return name
    return "" if alone or not name else f"{name}-{index}"


def _order(
    header: Section, parts: Sequence[Part], findings: Findings, *, together: bool
) -> list[tuple[int, ...]]:
    """By document: those before it. Where none says `after`, each waits for the one above it."""
    if not any("after" in part.section for part in parts):
        if together:
            return [()] * len(parts)
        return [(at - 1,) if at else () for at in range(len(parts))]
    if together:
        place = header.places["execution"]
        findings.error(place, "`execution: parallel` and `after` exclude each other", "keep one of the two")
    names = {part.name: at for at, part in enumerate(parts) if part.name}
    found: list[tuple[int, ...]] = []
    for at, part in enumerate(parts):
        before: list[int] = []
        for wanted in part.section.get("after", tuple) or ():
            if wanted in names and names[wanted] != at:
                before.append(names[wanted])
                continue
            guess = near(str(wanted), (name for name in names if names[name] != at))
            findings.error(
                part.section.places["after"],
                f"`after`: there is no other task `{excerpt(str(wanted))}` in this file",
                f"did you mean `{guess}`?" if guess else "name tasks of this file by their `name`",
            )
        found.append(tuple(dict.fromkeys(before)))
    circle = find_circle(tuple(found))
    if circle:
        way = " -> ".join(f"`{parts[each].name or each}`" for each in (*circle, circle[0]))
        findings.error(parts[circle[0]].section.places["after"], f"tasks wait for each other: {way}", "")
    return found


def _delays(header: Section, parts: Sequence[Part]) -> tuple[int, ...]:
    """By position: how long a task goes on after the primary ones."""
    given = header.values.get("termination_delay")
    if isinstance(given, int):
        return tuple(given for part in parts for _ in range(part.size))
    if not isinstance(given, tuple):
        return ()
    by_name = {each.key: each.value for each in given if isinstance(each, Entry)}
    default = by_name.get("default", 0)
    delays = [by_name.get(part.name, default) for part in parts for _ in range(part.size)]
    return tuple(delay if isinstance(delay, int) else 0 for delay in delays)


def edges_of(layout: Layout) -> tuple[tuple[int, int], ...]:
    """(from, to) by position of programs, each once: how a plan sees the order.

    >>> edges_of(Layout(size=2, members=(Member(), Member(task=1, after=(0,)))))
    ((0, 1),)
    """
    pairs = ((layout.members[src].task, member.task) for member in layout.members for src in member.after)
    return tuple(dict.fromkeys(pairs))
