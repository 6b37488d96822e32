"""Pools of workers that managed jobs borrow: set up once, kept up, lent to one job at a time."""

from __future__ import annotations

from argosy.api.endpoint import Done, Reply, Request, endpoint
from argosy.model.task import Task


class JobPoolRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Make a pool, or change one: `task` says what each worker has and how it is set up."""

    name: str
    task: Task
    workers: int
    user: str = ""
    project: str = ""


class WorkerView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """One worker."""

    cluster: str  # the name of its cluster: `argosy ssh CLUSTER` opens it
    status: str  # of its cluster; `setting up`, `free` or `busy` when that runs
    detail: str = ""
    job: str = ""  # what runs on it, as commands take it
    is_old: bool = False  # it is replaced when it is free


class JobPoolView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    name: str
    status: str
    size: int  # workers that it is to have
    ready: int = 0
    free: int = 0
    waiting: int = 0  # groups of jobs that wait for a worker
    resources: str = ""  # of a node
    num_nodes: int = 1  # of a worker
    user: str = ""
    project: str = ""
    created_ms: int = 0
    detail: str = ""
    workers: tuple[WorkerView, ...] = ()


class JobPoolList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    pools: tuple[JobPoolView, ...]


class JobPoolCalls:
    @endpoint("POST", "/job-pools", JobPoolRequest, permission="jobs.write")
    def apply_job_pool(
        self, name: str, task: Task, workers: int, *, user: str = "", project: str = ""
    ) -> JobPoolView:
        """Make a pool of workers, or change one.

        Another number of workers adds some, or ends free ones; another task replaces workers one after the
        other, when they are free. Errors: "no-offer".
        """

    @endpoint("GET", "/job-pools", permission="jobs.read")
    def job_pools(self) -> JobPoolList:
        """All live pools of workers."""

    @endpoint("POST", "/job-pools/{pool}/down", permission="jobs.write")
    def down_job_pool(self, pool: str) -> Done:
        """End a pool, its workers and the jobs on them. Errors: "not-found"."""
