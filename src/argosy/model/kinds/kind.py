"""What the rest of Argosy knows of a kind of workload: data and pure functions, never its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import msgspec

from argosy.model.notify import Told
from argosy.model.offer import Confirmed
from argosy.model.resources import Resources
from argosy.model.rows import KindSpec, KindStatus, Workload
from argosy.model.scheduling import Scheduling
from argosy.model.task import Task

S = TypeVar("S", bound=KindSpec)
T = TypeVar("T", bound=KindStatus)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A copy of what a job keeps in its checkpoint folder, outside of its nodes."""

    tree: str  # digest
    at_ms: int
    size_bytes: int


class Gang(msgspec.Struct, frozen=True, kw_only=True):
    """What the scheduler is asked for: `num_nodes` nodes, all or none, each as one of `resources`."""

    num_nodes: int
    resources: tuple[Resources, ...]  # candidates
    min_nodes: int = 0  # an elastic gang makes do with so many; 0: with `num_nodes` alone
    size: int = 0  # nodes that places are asked for in this round; 0: `num_nodes`
    ordered: bool = False  # candidates in order of preference rather than by price
    scheduling: Scheduling = Scheduling()
    task: Task | None = None  # the program that ends by itself; None: nodes that stay until told otherwise
    attained: int = 0  # milli-GPU x ms (without GPU: milli-CPU x ms) that it has used already
    evictions: int = 0  # times that it made room for others
    recoveries: int = 0  # times that it lost its nodes
    checkpoint: Checkpoint | None = None  # the last copy of what it keeps
    older: tuple[Checkpoint, ...] = ()  # copies before that one
    ran_on: str = ""  # the claim that it ran on last
    ran_in: tuple[str, ...] = ()  # and where that was: provider, region, zone
    confirmed: Confirmed | None = None  # what its launch was told to keep to
    config: str = ""  # JSON text of the task's `config`: what it says to infrastructures

    @property
    def least(self) -> int:
        """So many nodes will do."""
        return self.min_nodes or self.num_nodes

    @property
    def is_elastic(self) -> bool:
        return self.least < self.num_nodes


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of workload. A new one is a module beside this one and a line in the registry."""

    name: str  # as rows and the API say it
    prefix: str  # of its ids
    spec: type[KindSpec]
    status: type[KindStatus]
    gangs: Callable[[Workload], tuple[Gang, ...]]  # what it asks of the scheduler; (): nothing by itself
    title: Callable[[Workload], str]  # as people read of it in a sentence
    label: Callable[[Workload], str] = lambda row: str(row.number)  # its number, as commands take it
    resource: str = "jobs"  # its permissions are called `<resource>.read`, `<resource>.write`
    named: bool = False  # its name is unique among the live ones of its project
    hosts: bool = False  # jobs run on its nodes
    runs: bool = False  # it has attempts: a program that ends
    numbered: bool = False  # people call it by a number, among managed jobs when it runs on nobody's nodes
    gathers: bool = False  # it consists of jobs, which are made when their turn comes
    evictable: bool = True  # it may be ended to make room for others
    tends: bool = False  # it looks after its children itself: it ends them, and sees each change of them
    awaits: Callable[[Workload], tuple[str, ...]] = lambda row: ()  # ids of those whose end it waits for
    programs: Callable[[Workload], tuple[Task, ...]] = lambda row: ()  # that its children will run
    keeps: Callable[[Workload], tuple[Checkpoint, ...]] = lambda row: ()  # copies, besides those of its gangs
    told: Callable[[Workload], Told | None] = lambda row: None  # who is told of its events
    priority_class: str = "batch"  # unless the user names one
    decided_by: str  # the module whose `decide(view, row, new_id)` says what to do about one


def spec_of(kind: type[S]) -> Callable[[Workload], S]:
    """Reads the spec of rows that are of this kind."""

    def read(row: Workload) -> S:
        assert isinstance(row.spec, kind)
        return row.spec

    return read


def status_of(kind: type[T]) -> Callable[[Workload], T]:
    """Reads the status of rows that are of this kind."""

    def read(row: Workload) -> T:
        assert isinstance(row.status, kind)
        return row.status

    return read
