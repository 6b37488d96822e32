"""Groups: several jobs as one. Arrays, sweeps, chains, job groups and graphs of tasks."""

from __future__ import annotations

from typing import Final

from argosy.model.group import Layout, When
from argosy.model.kinds.kind import Kind, spec_of, status_of
from argosy.model.notify import Notify, Told
from argosy.model.offer import Confirmed
from argosy.model.rows import KindSpec, KindStatus, Workload
from argosy.model.task import Task


class GroupSpec(KindSpec, frozen=True, kw_only=True, omit_defaults=True, tag="group", tag_field="kind"):
    """Jobs that are launched, shown and cancelled as one. Each is made when its turn comes."""

    tasks: tuple[Task, ...]  # the programs
    layout: Layout
    queues: tuple[str, ...] = ()  # by program: path of the leaf that it counts in
    confirmed: tuple[Confirmed | None, ...] = ()  # by program: what the launch was told to keep to
    notify: tuple[Notify, ...] = ()  # who is told of the whole
    pool_id: str | None = None  # of the workers that its jobs run on; None: each has nodes of its own
    awaits: tuple[str, ...] = ()  # ids of other jobs and groups that must have ended before
    when: When = When.SUCCEEDED  # what must have become of those


class GroupStatus(KindStatus, frozen=True, kw_only=True, omit_defaults=True, tag="group", tag_field="kind"):
    """How far a group is. The numbers are final when it has ended; before, rows of its jobs say them."""

    made: int = 0  # jobs that were made so far
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0
    retried: tuple[int, ...] = ()  # positions of tasks that have ended and are to run once more
    ending_ms: int = 0  # since when the rest is being ended; 0: it is not


#: The spec of a row that is a group.
group_spec: Final = spec_of(GroupSpec)
#: The status of a row that is a group.
group_state: Final = status_of(GroupStatus)


def _told(row: Workload) -> Told:
    """The whole tells of itself; of a group with one program the wishes are those of its task."""
    spec = group_spec(row)
    if spec.notify or len(spec.tasks) > 1:
        return Told(row.id, "whole", spec.notify)
    return Told(row.id, "0", spec.tasks[0].notify)


GROUP: Final = Kind(
    name="group",
    decided_by="argosy.controllers.group.decide",
    prefix="grp",
    spec=GroupSpec,
    status=GroupStatus,
    gangs=lambda row: (),  # its jobs ask for nodes, it does not
    title=lambda row: f"job {row.number}",
    numbered=True,
    gathers=True,
    told=_told,
    programs=lambda row: group_spec(row).tasks,
    awaits=lambda row: (*group_spec(row).awaits, *((pool,) if (pool := group_spec(row).pool_id) else ())),
)
