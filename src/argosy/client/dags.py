"""Dags: tasks and their order, as programs build them."""

from __future__ import annotations

import itertools
import os
import threading
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from argosy.model.errors import ArgosyError
from argosy.model.group import When

if TYPE_CHECKING:
    from argosy.client.tasks import Task


class DagExecution(StrEnum):
    """SkyPilot's words for the order of a Dag's tasks."""

    SERIAL = "serial"
    PARALLEL = "parallel"


class Dag:
    """Tasks and their order: `a >> b` runs b when a has succeeded. `argosy.jobs.launch` runs all of them as
    one group of managed jobs; tasks without an order run at once.

    >>> from argosy.client.tasks import Task
    >>> with Dag() as dag:
    ...     task = Task(run="echo hi")
    >>> dag.single() is task
    True
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = name
        self.tasks: list[Task] = []
        self.edges: list[tuple[Task, Task]] = []
        self.file: tuple[str, str] | None = None  # text of a task file that it stands for, and where that is
        self._when: dict[int, When] = {}

    @classmethod
    def from_yaml(cls, path: str | os.PathLike[str]) -> Dag:
        """All tasks of a file, with their order, `matrix:` and header. Errors: "spec-unreadable"."""
        dag = cls()
        dag.file = read_file(path), os.fspath(path)
        return dag

    def add(self, task: Task) -> None:
        if all(task is not one for one in self.tasks):
            self.tasks.append(task)

    def remove(self, task: Task) -> None:
        self.tasks = [one for one in self.tasks if one is not task]
        self.edges = [edge for edge in self.edges if all(task is not one for one in edge)]

    def add_edge(self, before: Task, after: Task, when: When | str = When.SUCCEEDED) -> None:
        """`when`: what must have become of the tasks before `after`: `succeeded`, `failed` (one of them) or
        `always`."""
        self.add(before)
        self.add(after)
        self.edges.append((before, after))
        self._when[id(after)] = When(when)

    def set_execution(self, execution: DagExecution | str) -> None:
        """PARALLEL: no order, as it is without `>>`. SERIAL: one after the other, as they were added. Errors:
        "usage" for another word."""
        word = str(execution).rpartition(".")[2].lower()
        if word not in DagExecution.__members__.values():
            raise ArgosyError("usage", f"`execution` is serial or parallel, not {execution!r}")
        self.edges = []
        if word == DagExecution.SERIAL:
            for before, after in itertools.pairwise(self.tasks):
                self.add_edge(before, after)

    def when_of(self, position: int) -> When:
        return self._when.get(id(self.tasks[position]), When.SUCCEEDED)

    def positions(self) -> tuple[tuple[int, int], ...]:
        """The edges as positions in `tasks`."""
        number = {id(task): at for at, task in enumerate(self.tasks)}
        return tuple((number[id(src)], number[id(dst)]) for src, dst in self.edges)

    def single(self) -> Task:
        """The one task. Errors: "unsupported" when there are several, "usage" when there is none."""
        if not self.tasks:
            raise ArgosyError(
                "usage", "the Dag has no task", hint="make one inside `with argosy.Dag() as dag:`"
            )
        if len(self.tasks) > 1:
            raise ArgosyError(
                "unsupported",
                f"the Dag has {len(self.tasks)} tasks, and a cluster runs one at a time",
                hint="`argosy.jobs.launch(dag)` runs all of them as a group of managed jobs",
            )
        return self.tasks[0]

    def __len__(self) -> int:
        return len(self.tasks)

    def __enter__(self) -> Self:
        _stack().append(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _stack().pop()


_OPEN: Final = threading.local()


def _stack() -> list[Dag]:
    if not hasattr(_OPEN, "dags"):
        _OPEN.dags = []
    dags: list[Dag] = _OPEN.dags
    return dags


def current_dag() -> Dag | None:
    stack = _stack()
    return stack[-1] if stack else None


def register(task: Task) -> None:
    dag = current_dag()
    if dag is not None:
        dag.add(task)


def read_file(path: str | os.PathLike[str]) -> str:
    """The text of a file that the user named. Errors: "spec-unreadable"."""
    try:
        return Path(path).expanduser().read_text("utf-8-sig")
    except FileNotFoundError:
        raise ArgosyError("spec-unreadable", f"`{os.fspath(path)}` does not exist") from None
    except OSError as error:
        raise ArgosyError(
            "spec-unreadable", f"`{os.fspath(path)}` cannot be read: {error.strerror}"
        ) from None
    except UnicodeDecodeError:
        raise ArgosyError("spec-unreadable", f"`{os.fspath(path)}` is not UTF-8") from None
