"""Groups of managed jobs: launched as one, followed as one line, unfolded into their tasks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

import click

from argosy.cli.clusters import job_table, tasks_cell
from argosy.cli.following import JOB_FAILED, Followed
from argosy.cli.following import follow as follow_log
from argosy.cli.session import Session

if TYPE_CHECKING:
    from argosy.api.groups import GroupReply, TaskView
    from argosy.api.jobs import JobView

_LOGS_MAX: Final = 50  # tasks whose logs are shown one after the other
_SHOWN_MAX: Final = 2000  # tasks in a table
_LOOK_S: Final = 0.2  # between two looks at a group that changes all the time
_WAIT_S: Final = 20


def find_task(session: Session, wanted: str) -> JobView:
    """The job of a task called `7/3` or `7/NAME`. Errors: "not-found"; "wrong-state" before its turn."""
    from argosy.model.errors import ArgosyError

    number, _, which = wanted.partition("/")
    reply = session.client.group(number)
    task = task_called(reply, which)
    if task.job is None:
        raise ArgosyError(
            "wrong-state",
            f"task {reply.group.number}/{task.index} has no log: {task.detail or task.status}",
            hint=f"`argosy jobs queue --tasks {reply.group.number}` shows when it runs",
        )
    return task.job


def task_called(reply: GroupReply, which: str) -> TaskView:
    """Errors: "not-found"."""
    from argosy.model.errors import ArgosyError

    if which.isdigit() and int(which) < len(reply.tasks):
        return reply.tasks[int(which)]
    for task in reply.tasks:
        if task.name == which:
            return task
    raise ArgosyError(
        "not-found",
        f"job {reply.group.number} has no task `{which}`",
        hint=f"`argosy jobs queue --tasks {reply.group.number}` lists them",
    )


def show_tasks(session: Session, reply: GroupReply) -> None:
    """A table of all tasks of a group."""
    group = reply.group
    screen = session.screen
    assert group.tasks is not None
    screen.print(f"job {group.number} `{group.name}` {group.status}, {tasks_cell(group.tasks)}")
    if group.detail:
        screen.paragraph(group.detail)
    screen.table(
        ("TASK", "NAME", "STATUS", "AFTER", "VALUES", "TOOK", "RECOVERIES", "DETAIL"),
        [_task_row(session, reply, task) for task in reply.tasks[:_SHOWN_MAX]],
        right=("TOOK", "RECOVERIES"),
        spare=("RECOVERIES", "TOOK", "AFTER", "NAME"),
    )
    if len(reply.tasks) > _SHOWN_MAX:
        screen.say(f"and {len(reply.tasks) - _SHOWN_MAX} more: `--json` has all of them", "dim")


def _task_row(session: Session, reply: GroupReply, task: TaskView) -> list[str]:
    from argosy.model.units import render_duration

    job = task.job
    took = ""
    if job is not None and job.started_ms:
        took = render_duration(max(0, (job.ended_ms or session.now_ms()) - job.started_ms) / 1000)
    return [
        f"{reply.group.number}/{task.index}",
        task.name if task.name != reply.group.name else "",
        task.status,
        ", ".join(str(each) for each in task.after),
        " ".join(f"{name}={value}" for name, value in task.values.items()),
        took,
        str(job.recoveries) if job is not None and job.recoveries else "",
        task.detail,
    ]


def show_folded_out(session: Session, jobs: tuple[JobView, ...]) -> None:
    """The queue with the tasks of every group below it."""
    rows: list[JobView] = []
    for job in jobs:
        rows.append(job)
        if job.tasks is not None:
            reply = session.client.group(str(job.number))
            rows += (task.job for task in reply.tasks if task.job is not None)
    job_table(session, tuple(rows))


def show_group_logs(session: Session, group: JobView, *, follow: bool, tail: int | None) -> int:
    """The logs of a group's tasks one after the other; with `follow` until the group ends. Returns the exit
    status that stands for how it ended. Errors: "usage" for a group of many."""
    from argosy.model.errors import ArgosyError

    assert group.tasks is not None
    if group.tasks.total > _LOGS_MAX:
        raise ArgosyError(
            "usage",
            f"job {group.number} has {group.tasks.total} tasks, each with a log of its own",
            hint=f"name one: `argosy jobs logs {group.number}/0`",
        )
    shown: set[str] = set()
    reply = session.client.group(group.id)
    while True:
        ready = [task.job for task in reply.tasks if task.job is not None and task.job.id not in shown]
        for job in ready:
            shown.add(job.id)
            session.screen.say(f"-- task {group.number}/{job.number} {job.name} --", "dim")
            followed = Followed(job.id, job.number, job.name, None, job.num_nodes, group.number)
            follow_log(session, followed, follow=follow, tail=tail, quiet=True)
        if not follow or (reply.group.outcome is not None and not ready):
            return say_end(session, reply.group, quiet=not follow)
        with session.on_interrupt(lambda: _how_to_come_back(group.number)):
            reply = session.client.group(group.id, seen=reply.version, wait_s=0 if ready else _WAIT_S)


def follow_counts(session: Session, number: int) -> int:
    """Watch a group of many tasks: one line with its counts, until it ends."""
    screen = session.screen
    with session.on_interrupt(lambda: _how_to_come_back(number)):
        reply = session.client.group(str(number), brief=True)
        while True:
            view = reply.group
            assert view.tasks is not None
            if view.outcome is not None:
                screen.end_progress()
                return say_end(session, view)
            screen.progress(f"job {number} {view.status}: {tasks_cell(view.tasks)} {view.detail}".rstrip())
            time.sleep(_LOOK_S)
            reply = session.client.group(str(number), brief=True, seen=reply.version, wait_s=_WAIT_S)


def say_end(session: Session, group: JobView, *, quiet: bool = False) -> int:
    """How a group ended, and the exit status that stands for it."""
    if group.outcome is None:
        return 0
    good = group.outcome == "succeeded"
    if not quiet:
        how = session.screen.status(group.status)
        assert group.tasks is not None
        detail = f": {group.detail}" if group.detail and not good else ""
        session.screen.say(f"job {group.number} {how}, {tasks_cell(group.tasks)}{detail}")
    return 0 if good else JOB_FAILED


def _how_to_come_back(number: int) -> str:
    return (
        f"Detached; job {number} goes on.\n"
        f"  its tasks: argosy jobs queue --tasks {number}\n"
        f"  cancel it: argosy jobs cancel {number}"
    )


def followed_to_end(session: Session, number: int) -> None:
    """After a launch: logs of a few tasks, counts of many. Ends the command."""
    view = session.client.job(str(number))
    assert view.tasks is not None
    if session.screen.for_programs or view.tasks.total > _LOGS_MAX:
        status = follow_counts(session, number)
    else:
        status = show_group_logs(session, view, follow=True, tail=None)
    if session.screen.for_programs:
        session.screen.json(session.client.job(str(number)))
    raise click.exceptions.Exit(status)
