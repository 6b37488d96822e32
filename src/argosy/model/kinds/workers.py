"""Pools of workers: clusters that are kept up, set up once, and lent to one job at a time."""

from __future__ import annotations

from typing import Final

from argosy.model.kinds.kind import Kind, spec_of, status_of
from argosy.model.offer import Confirmed
from argosy.model.rows import KindSpec, KindStatus
from argosy.model.task import Task


class WorkersSpec(KindSpec, frozen=True, kw_only=True, omit_defaults=True, tag="workers", tag_field="kind"):
    """So many workers, each with the nodes and the `setup` of `task`."""

    task: Task
    size: int
    generation: int = 1  # one more with each change of `task`: older workers are replaced when they are free
    confirmed: Confirmed | None = None  # what its launch was told to keep to, for each worker


class WorkersStatus(
    KindStatus, frozen=True, kw_only=True, omit_defaults=True, tag="workers", tag_field="kind"
):
    """How far a pool of workers is."""

    made: int = 0  # workers that were made so far: the next one's number


#: The spec of a row that is a pool of workers.
workers_spec: Final = spec_of(WorkersSpec)
#: The status of a row that is a pool of workers.
workers_state: Final = status_of(WorkersStatus)


WORKERS: Final = Kind(
    name="workers",
    decided_by="argosy.controllers.workers.decide",
    prefix="wrk",
    spec=WorkersSpec,
    status=WorkersStatus,
    gangs=lambda row: (),  # its workers ask for nodes, it does not
    title=lambda row: f"worker pool `{row.name}`",
    named=True,
    programs=lambda row: (workers_spec(row).task,),
)
