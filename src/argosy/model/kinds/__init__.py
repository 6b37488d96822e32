"""The registry of kinds of workloads: one line each. Code that handles rows of any kind looks it up here."""

from __future__ import annotations

from typing import Final

from argosy.model.kinds.cluster import CLUSTER
from argosy.model.kinds.group import GROUP
from argosy.model.kinds.job import JOB
from argosy.model.kinds.kind import Gang, Kind
from argosy.model.kinds.service import SERVICE
from argosy.model.kinds.session import SESSION
from argosy.model.kinds.snapshot import SNAPSHOT
from argosy.model.kinds.workers import WORKERS
from argosy.model.rows import Workload
from argosy.model.task import Task

__all__ = [
    *("KINDS", "Gang", "Kind", "gang_of", "gangs", "is_named", "kind_of", "kind_of_id", "label"),
    *("numbered_kinds", "programs_of", "running_kinds", "task_of", "title"),
]

#: By name. The order is that in which the controllers decide about them.
KINDS: Final[dict[str, Kind]] = {
    kind.name: kind for kind in (JOB, GROUP, SESSION, SNAPSHOT, WORKERS, SERVICE, CLUSTER)
}


def kind_of(row: Workload) -> Kind:
    """What is known of the kind of a row."""
    return KINDS[row.kind]


def kind_of_id(id: str) -> Kind | None:
    """The kind of workload that an id is of; None for what is no such id."""
    prefix, dash, _ = id.partition("-")
    return next((kind for kind in KINDS.values() if dash and kind.prefix == prefix), None)


def is_named(kind: str) -> bool:
    """Whether workloads of the kind of this name are called by their names, not by numbers."""
    return kind in KINDS and KINDS[kind].named


def running_kinds() -> list[str]:
    """Names of the kinds that have attempts."""
    return [kind.name for kind in KINDS.values() if kind.runs]


def numbered_kinds() -> list[str]:
    """Names of the kinds that people call by numbers."""
    return [kind.name for kind in KINDS.values() if kind.numbered]


def gangs(row: Workload) -> tuple[Gang, ...]:
    """What a workload asks of the scheduler; () for one that only has children."""
    return KINDS[row.kind].gangs(row)


def gang_of(row: Workload) -> Gang:
    """The one gang of a workload that asks for nodes."""
    [gang] = gangs(row)
    return gang


def task_of(row: Workload) -> Task | None:
    """The program that a workload runs; None when it runs none itself."""
    return next((gang.task for gang in gangs(row)), None)


def programs_of(row: Workload) -> tuple[Task, ...]:
    """The programs that a workload and its children run, now or later."""
    own = task_of(row)
    return (*((own,) if own is not None else ()), *KINDS[row.kind].programs(row))


def label(row: Workload) -> str:
    """The number of a workload, as commands take it: 3, or 7/3 for a job of a group."""
    return KINDS[row.kind].label(row)


def title(row: Workload) -> str:
    """A workload as people read of it in a sentence: cluster `dev`, job 3."""
    return KINDS[row.kind].title(row)
