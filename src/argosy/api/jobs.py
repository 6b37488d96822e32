"""Jobs of clusters and managed jobs, and their logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from argosy.api.endpoint import Done, Reply, Request, endpoint


class TaskCounts(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """How many tasks of a group are where."""

    total: int
    waiting: int = 0  # for their turn, or for machines
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0
    skipped: int = 0


class JobView(Reply, frozen=True, kw_only=True, omit_defaults=True):
    id: str
    number: int
    name: str
    cluster: str | None  # None: managed
    managed: bool
    status: str  # the phase; when finished, the outcome
    phase: str
    outcome: str | None = None
    reason: str | None = None
    detail: str = ""  # why it waits or how it ended, and what to do
    user: str = ""
    created_ms: int = 0
    started_ms: int = 0
    ended_ms: int = 0
    resources: str = ""
    num_nodes: int = 1
    exit_codes: tuple[int | None, ...] = ()  # by rank
    exit_code: int | None = None  # when finished: 0, or that of the rank that failed first
    recoveries: int = 0
    checkpoint_ms: int = 0  # when the last copy of what it keeps was made; 0: none was
    checkpoint_bytes: int = 0
    errors: int = 0
    attempt: str | None = None  # the present or last one
    task_id: str = ""
    project: str = ""
    queue: str = ""  # path of the leaf that it counts in
    position: int = 0  # while it waits: 1 is the next
    starts_at_ms: int | None = None  # while it waits: when it probably starts
    evictions: int = 0  # times that it made room for others
    preemptible: bool = False
    group: int | None = None  # number of the group that it belongs to; `number` is its position there
    tasks: TaskCounts | None = None  # of a group


class JobList(Reply, frozen=True, kw_only=True, omit_defaults=True):
    jobs: tuple[JobView, ...]
    next: str | None = None  # cursor of the next page


class CancelRequest(Request, frozen=True, kw_only=True, omit_defaults=True):
    """Which jobs of `cluster` (None: managed jobs) to cancel: numbers or ids, or all."""

    cluster: str | None = None
    jobs: tuple[str, ...] = ()
    all: bool = False


class LogFrame(Reply, frozen=True, kw_only=True, omit_defaults=True):
    """Header line of a frame in a log stream: JSON, then `\\n`, then `size` bytes.

    A stream is `application/x-argosy-log`: frames until the one with `end`. `cursor` resumes after this
    frame.
    """

    rank: int = 0
    size: int = 0
    attempt: int = 1
    cursor: str = ""
    note: str = ""  # something to tell the reader, e.g. why the job waits
    end: bool = False
    status: str = ""  # with `end`: the job's status
    exit_code: int | None = None  # with `end`: 0, or that of the rank that failed first
    detail: str = ""


class JobCalls:
    @endpoint("GET", "/jobs", permission="jobs.read")
    def queue(
        self,
        cluster: Annotated[str | None, "name of the cluster"] = None,
        *,
        live: Annotated[bool, "only unfinished ones"] = False,
        limit: Annotated[int | None, "at most so many, newest first (default 1000)"] = None,
        after: Annotated[str | None, "cursor: `next` of the last page"] = None,
    ) -> JobList:
        """Jobs of a cluster, or managed jobs when none is named: one page."""

    @endpoint("GET", "/jobs/{job}", permission="jobs.read")
    def job(self, job: str) -> JobView:
        """One job, by id."""

    @endpoint("POST", "/jobs/cancel", CancelRequest, permission="jobs.write")
    def cancel(self, cluster: str | None, jobs: Sequence[str] = (), *, all: bool = False) -> Done:
        """Cancel jobs of a cluster, or managed jobs, by number or id."""


class LogCalls:
    """Streams: each client reads them in its own way."""

    @endpoint("GET", "/jobs/{job}/logs", permission="logs.read")
    def logs(
        self,
        job: str,
        *,
        follow: Annotated[bool, "go on until the job ends"] = False,
        tail: Annotated[int | None, "only the last N lines"] = None,
        rank: Annotated[int | None, "only this rank"] = None,
        cursor: Annotated[str | None, "go on after this frame"] = None,
        attempt: Annotated[int | None, "of an earlier attempt"] = None,
        format: Annotated[str | None, "`text`: plain text with rank prefixes"] = None,
    ) -> bytes:
        """A stream of LogFrame headers and bytes."""
