"""Groups of managed jobs: arrays, sweeps, chains, job groups, graphs of tasks."""

# ruff: noqa: RUF012 - structs of msgspec copy their defaults

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from argosy.api.endpoint import Done, Reply, Request, endpoint
from argosy.api.jobs import JobView
from argosy.api.launching import JobsReply
from argosy.model.group import Layout, When
from argosy.model.notify import Notify
from argosy.model.task import Task


class GroupRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Queue a group: `layout` says which of `tasks` each of its tasks runs, and when."""

    tasks: tuple[Task, ...]
    layout: Layout
    name: str = ""  # of the whole; "": that of its first task
    after: tuple[str, ...] = ()  # numbers or ids of managed jobs that must have ended before
    when: When = When.SUCCEEDED  # what must have become of those
    notify: tuple[Notify, ...] = ()  # who is told of the whole
    pool: str = ""  # name of the pool whose workers run the jobs; "": each has nodes of its own
    user: str = ""
    project: str = ""
    plan: str = ""  # the id of the plan that was confirmed, when all tasks are planned alike
    max_hourly_micro_usd: int | None = None  # of all nodes of one task: nothing dearer is ordered
    key: str = ""


class RetryRequest(Request, frozen=True, kw_only=True):
    """Which task of a group runs once more: `7/3`, or `7/NAME`."""

    task: str


class TaskView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One task of a group."""

    index: int  # its position: `argosy jobs logs JOB/INDEX`
    name: str
    status: str  # of its job; `waiting`: it has none yet; `skipped`: it never will
    detail: str = ""  # what it waits for, why it is skipped or how it ended
    after: tuple[int, ...] = ()  # positions of the tasks before it
    when: When = When.SUCCEEDED
    values: dict[str, str] = {}  # of the sweep
    job: JobView | None = None  # the present or last one


class GroupReply(Reply, frozen=True, kw_only=True, omit_defaults=True):
    group: JobView
    tasks: tuple[TaskView, ...] = ()
    version: str = ""  # another one when anything of it has changed


class GroupCalls:
    @endpoint("POST", "/groups", GroupRequest, permission="jobs.write")
    def launch_group(
        self,
        tasks: Sequence[Task],
        layout: Layout,
        *,
        name: str = "",
        after: Sequence[str] = (),
        when: When = When.SUCCEEDED,
        notify: Sequence[Notify] = (),
        pool: str = "",
        user: str = "",
        project: str = "",
        plan: str = "",
        max_hourly_micro_usd: int | None = None,
        key: str = "",
    ) -> JobsReply:
        """Queue a group of managed jobs, as one commit.

        `after`: jobs that exist, by number or id. Errors: "spec-invalid" for tasks that wait for each other
        in a circle.
        """

    @endpoint("GET", "/groups/{group}", permission="jobs.read")
    def group(
        self,
        group: str,
        *,
        brief: Annotated[bool, "without the tasks"] = False,
        seen: Annotated[str | None, "`version` of an earlier answer: wait for another one"] = None,
        wait_s: Annotated[int | None, "so long at most, up to 30"] = None,
    ) -> GroupReply:
        """A group and all its tasks, by number or id."""

    @endpoint("POST", "/groups/retry", RetryRequest, permission="jobs.write")
    def retry(self, task: str) -> Done:
        """Run a task of a live group once more, which has ended: `7/3`. What was skipped because of it waits
        for it again."""
