"""A Dag as a group of managed jobs: its tasks, their order, and what a call says besides."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import msgspec

from argosy.client.dags import Dag
from argosy.client.tasks import Launchable, model_of
from argosy.model.errors import ArgosyError
from argosy.model.group import Layout, Member, When
from argosy.model.notify import Notify
from argosy.model.task import Task as ModelTask


class Grouped(NamedTuple):
    """What `GroupCalls.launch_group` takes, and warnings."""

    tasks: tuple[ModelTask, ...]
    layout: Layout
    name: str
    warnings: tuple[str, ...]
    notify: tuple[Notify, ...] = ()


def grouped(
    launchable: Launchable,
    *,
    name: str | None = None,
    num_jobs: int | None = None,
    parallel: int | None = None,
    fail_fast: bool = False,
    waits: bool = False,
) -> Grouped | None:
    """The group of a Dag with several tasks, of a task that is launched `num_jobs` times, or of one that
    waits for other jobs (`waits`). None: it is one job. Errors: "usage", "spec-invalid".

    >>> from argosy.client.tasks import Task
    >>> with Dag("nightly") as dag:
    ...     _ = Task("prep", run="a") >> Task("train", run="b")
    >>> found = grouped(dag)
    >>> found.name, [member.after for member in found.layout.members]
    ('nightly', [(), (0,)])
    """
    found: Grouped | None
    if isinstance(launchable, Dag) and launchable.file is not None:
        found = _of_file(*launchable.file)
    elif isinstance(launchable, Dag) and len(launchable) > 1:
        found = _of_dag(launchable)
    else:
        found = None
    if found is not None and num_jobs is not None:
        raise ArgosyError("usage", "`num_jobs` repeats one task, and this has several")
    if found is None:
        if num_jobs is None and not waits:
            return None
        task, warnings = model_of(launchable)
        found = Grouped((task,), Layout(size=num_jobs or 1), task.name or "", warnings)
    layout = msgspec.structs.replace(
        found.layout,
        parallel=parallel or found.layout.parallel,
        fail_fast=fail_fast or found.layout.fail_fast,
    )
    return found._replace(layout=layout, name=name or found.name)


def _of_dag(dag: Dag) -> Grouped:
    """Tasks without `>>` between them all run at once."""
    built = [model_of(task) for task in dag.tasks]
    edges = dag.positions()
    members = tuple(
        Member(
            task=at,
            name=task.name or "",
            after=tuple(src for src, dst in edges if dst == at),
            when=dag.when_of(at),
        )
        for at, (task, _) in enumerate(built)
    )
    warnings = tuple(dict.fromkeys(each for _, some in built for each in some))
    tasks = tuple(task for task, _ in built)
    return Grouped(tasks, Layout(size=len(members), members=members), dag.name or "", warnings)


def _of_file(text: str, source: str) -> Grouped | None:
    from argosy.spec import parse_task

    parsed = parse_task(text, source=source)
    warnings = tuple(each.render() for each in parsed.warnings)
    if parsed.layout is None:
        return Grouped(parsed.tasks, Layout(size=1), parsed.name or "", warnings)
    return Grouped(parsed.tasks, parsed.layout, parsed.name or "", warnings, parsed.notify)


def names_of(jobs: Iterable[int | str] | int | str | None) -> tuple[str, ...]:
    """Numbers or ids of jobs as a request takes them.

    >>> names_of(12), names_of([1, "2"]), names_of(None)
    (('12',), ('1', '2'), ())
    """
    if jobs is None:
        return ()
    return (str(jobs),) if isinstance(jobs, int | str) else tuple(map(str, jobs))


def when_of(word: When | str) -> When:
    """Errors: "usage"."""
    try:
        return When(word)
    except ValueError:
        raise ArgosyError("usage", f"`when` is succeeded, failed or always, not {word!r}") from None
